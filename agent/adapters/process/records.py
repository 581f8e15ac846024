"""What the process runtime remembers about instances, one folder each.

Decides nothing about processes; makes sure that a record is whole or absent.

    <id>/record.json   the record
    <id>/log, log.1    what the module wrote
    <id>/home/         its scratch folder
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from agent.adapters.durable_files import write_atomically
from agent.adapters.process.identity import ProcessIdentity


class InstanceRecord(msgspec.Struct, frozen=True, rename="camel"):
    """One instance.

    Attributes:
        nonce: In the environment of its process; finds it when the agent died while starting it.
        process: None until it is known.
        port: Port its server listens on.
        exited: Whether it was seen to have ended.
        exit_code: With `exited`: its code, None when nobody knows.
    """

    id: str
    module: str
    fingerprint: str
    image: str
    nonce: str
    port: int
    started_at: float
    process: ProcessIdentity | None = None
    exited: bool = False
    exit_code: int | None = None


class InstanceFolders:
    """The folders of all instances of one runtime. Methods block."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def all(self) -> list[InstanceRecord]:
        """Return every whole record, by id; a folder without one is removed."""
        found: list[InstanceRecord] = []
        for folder in sorted(self._root.iterdir()):
            record = self.get(folder.name)
            if record is None:
                shutil.rmtree(folder, ignore_errors=True)
            else:
                found.append(record)
        return found

    def get(self, instance_id: str) -> InstanceRecord | None:
        """Return a record, or None."""
        try:
            raw = (self._folder(instance_id) / "record.json").read_bytes()
            return msgspec.json.decode(raw, type=InstanceRecord)
        except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
            return None

    def put(self, record: InstanceRecord) -> None:
        """Write a record durably; makes its folder.

        Raises:
            DeviceError: `disk-full`.
        """
        self.home(record.id).mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(self._folder(record.id) / "record.json", msgspec.json.encode(record))

    def remove(self, instance_id: str) -> None:
        """Remove an instance's folder, the record first."""
        folder = self._folder(instance_id)
        (folder / "record.json").unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def home(self, instance_id: str) -> Path:
        """Return an instance's scratch folder."""
        return self._folder(instance_id) / "home"

    def log(self, instance_id: str) -> Path:
        """Return the file an instance writes to."""
        return self._folder(instance_id) / "log"

    def _folder(self, instance_id: str) -> Path:
        return self._root / Path(instance_id).name
