"""A store in dictionaries, for tests: what it keeps is gone with the process.

It answers and refuses like the SQL store; one contract suite runs against both.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, TypeVar

from hub.core.deployment import Deployment, DesiredState, Member
from hub.core.device import Claim, Device, Token
from hub.core.image import Image
from hub.core.model import Model
from hub.core.oci import ManifestRecord
from hub.core.ports import (
    Claims,
    Deployments,
    Devices,
    Images,
    Models,
    OciIndex,
    TelemetryStore,
    Tokens,
    UnitOfWork,
)
from hub.core.telemetry import Measurement, Quarantined, TelemetryFilter
from protocol.errors import Code, ConflictError, UnavailableError
from protocol.ids import DeviceId, Digest

QUARANTINE_PER_DEVICE = 100
_T = TypeVar("_T")


@dataclass
class _Tables:
    """Everything kept. Values are never changed in place, so a copy of the dicts is a snapshot."""

    settings: dict[str, str] = field(default_factory=dict)
    numbers: dict[tuple[str, str], int] = field(default_factory=dict)
    devices: dict[str, Device] = field(default_factory=dict)
    claims: dict[str, Claim] = field(default_factory=dict)
    tokens: dict[str, Token] = field(default_factory=dict)
    models: dict[tuple[str, int], Model] = field(default_factory=dict)
    images: dict[tuple[str, int], Image] = field(default_factory=dict)
    deployments: dict[str, Deployment] = field(default_factory=dict)
    members: dict[tuple[str, str], Member] = field(default_factory=dict)
    desired: dict[str, DesiredState] = field(default_factory=dict)
    telemetry: dict[tuple[str, str, int], Measurement] = field(default_factory=dict)
    quarantine: dict[tuple[str, str], Quarantined] = field(default_factory=dict)
    manifests: dict[tuple[str, Digest], ManifestRecord] = field(default_factory=dict)
    tags: dict[tuple[str, str], Digest] = field(default_factory=dict)
    blobs: dict[tuple[str, Digest], bool] = field(default_factory=dict)

    def copy(self) -> _Tables:
        return _Tables(*(dict(getattr(self, each.name)) for each in fields(self)))

    def frozen(self) -> _Tables:
        """Return the same tables; writing to them raises TypeError."""
        proxies: list[Any] = [MappingProxyType(getattr(self, each.name)) for each in fields(self)]
        return _Tables(*proxies)

    def next_number(self, kind: str, name: str) -> int:
        return self.numbers.get((kind, name), 0) + 1

    def use_number(self, kind: str, name: str, number: int) -> None:
        self.numbers[kind, name] = max(number, self.numbers.get((kind, name), 0))


class MemoryStore:
    """The `Store` port. Safe to use from several threads."""

    def __init__(self, *, wait_seconds: float = 10.0) -> None:
        self._wait_seconds = wait_seconds
        self._committed = _Tables()
        self._writing = threading.Lock()

    @contextmanager
    def begin(self, *, write: bool = True) -> Iterator[UnitOfWork]:
        """Open a transaction; leaving the block without `commit` rolls back.

        Raises:
            UnavailableError: `database-unavailable`, when another unit goes on writing.
        """
        if not write:
            yield MemoryUnitOfWork(self._committed.frozen(), commit=_keep_nothing)
            return
        if not self._writing.acquire(timeout=self._wait_seconds):
            raise UnavailableError(
                "database 'memory' is locked by another transaction",
                code=Code.DATABASE_UNAVAILABLE,
                hint="try again later",
            )
        try:
            yield MemoryUnitOfWork(self._committed.copy(), commit=self._commit)
        finally:
            self._writing.release()

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def _commit(self, tables: _Tables) -> None:
        self._committed = tables.copy()


class MemoryUnitOfWork:
    """The `UnitOfWork` port over a copy of the store's tables."""

    def __init__(self, tables: _Tables, *, commit: Callable[[_Tables], None]) -> None:
        self._tables = tables
        self._commit = commit
        self.devices: Devices = MemoryDevices(tables)
        self.claims: Claims = MemoryClaims(tables)
        self.tokens: Tokens = MemoryTokens(tables)
        self.models: Models = MemoryModels(tables)
        self.images: Images = MemoryImages(tables)
        self.deployments: Deployments = MemoryDeployments(tables)
        self.telemetry: TelemetryStore = MemoryTelemetry(tables)
        self.oci: OciIndex = MemoryOciIndex(tables)

    def commit(self) -> None:
        """Make everything so far visible to the units that begin from now on."""
        self._commit(self._tables)

    def get_setting(self, key: str) -> str | None:
        """Return a value the hub keeps about itself, or None."""
        return self._tables.settings.get(key)

    def put_setting(self, key: str, value: str) -> None:
        """Keep a value the hub keeps about itself."""
        self._tables.settings[key] = value


class MemoryDevices:
    """The `Devices` port."""

    def __init__(self, tables: _Tables) -> None:
        self._devices = tables.devices

    def get(self, device_id: DeviceId) -> Device | None:
        """Return one device, or None."""
        return deepcopy(self._devices.get(device_id))

    def put(self, device: Device) -> None:
        """Insert or replace the device."""
        self._devices[device.id] = deepcopy(device)

    def list(self, *, after: str = "", limit: int | None = None) -> Sequence[Device]:
        """Return devices with ids beyond `after`, in order of id."""
        ids = sorted(each for each in self._devices if each > after)
        return [deepcopy(self._devices[each]) for each in ids[:limit]]

    def set_connected(self, device_id: DeviceId, *, connected: bool, at: datetime) -> None:
        """Record presence; unknown devices are ignored."""
        if device := self._devices.get(device_id):
            self._devices[device_id] = replace(device, connected=connected, last_seen=at)

    def disconnect_all(self) -> None:
        """Mark every device disconnected."""
        for device in list(self._devices.values()):
            self._devices[device.id] = replace(device, connected=False)


class MemoryClaims:
    """The `Claims` port."""

    def __init__(self, tables: _Tables) -> None:
        self._claims = tables.claims

    def get(self, secret_hash: str) -> Claim | None:
        """Return one claim, or None."""
        return deepcopy(self._claims.get(secret_hash))

    def put(self, claim: Claim) -> None:
        """Insert or replace."""
        self._claims[claim.secret_hash] = deepcopy(claim)


class MemoryTokens:
    """The `Tokens` port."""

    def __init__(self, tables: _Tables) -> None:
        self._tokens = tables.tokens

    def get(self, secret_hash: str) -> Token | None:
        """Return one token, or None."""
        return self._tokens.get(secret_hash)

    def put(self, token: Token) -> None:
        """Insert or replace."""
        self._tokens[token.secret_hash] = token

    def forget(self, name: str) -> None:
        """Remove every token of this name."""
        for key in [key for key, token in self._tokens.items() if token.name == name]:
            del self._tokens[key]


class MemoryModels:
    """The `Models` port."""

    def __init__(self, tables: _Tables) -> None:
        self._tables = tables
        self._models = tables.models

    def get(self, name: str, version: int | None) -> Model | None:
        """Return one version, the newest when `version` is None, or None."""
        return deepcopy(_pick(self._models, name, version))

    def next_version(self, name: str) -> int:
        """Return the version the next registration of `name` gets."""
        return self._tables.next_number("model", name)

    def add(self, model: Model) -> None:
        """Insert a new version."""
        if (model.name, model.version) in self._models:
            raise _contradicts(f"model {model.ref!r} is there already")
        self._models[model.name, model.version] = deepcopy(model)
        self._tables.use_number("model", model.name, model.version)

    def list(self, name: str | None = None) -> Sequence[Model]:
        """Return all versions, ordered by name and version."""
        return [deepcopy(model) for model in _in_order(self._models, name)]


class MemoryImages:
    """The `Images` port."""

    def __init__(self, tables: _Tables) -> None:
        self._tables = tables
        self._images = tables.images

    def get(self, name: str, version: int | None) -> Image | None:
        """Return one version, the newest when `version` is None, or None."""
        return _pick(self._images, name, version)

    def next_version(self, name: str) -> int:
        """Return the version the next image of `name` gets."""
        return self._tables.next_number("image", name)

    def put(self, image: Image) -> None:
        """Insert or replace."""
        self._images[image.name, image.version] = image
        self._tables.use_number("image", image.name, image.version)

    def list(self, name: str | None = None) -> Sequence[Image]:
        """Return all versions, ordered by name and version."""
        return _in_order(self._images, name)


class MemoryDeployments:
    """The `Deployments` port."""

    def __init__(self, tables: _Tables) -> None:
        self._tables = tables

    def get(self, deployment_id: str) -> Deployment | None:
        """Return one deployment, or None."""
        return deepcopy(self._tables.deployments.get(deployment_id))

    def put(self, deployment: Deployment) -> None:
        """Insert or replace."""
        self._tables.deployments[deployment.id] = deepcopy(deployment)

    def list(self) -> Sequence[Deployment]:
        """Return all, oldest first."""
        found = sorted(
            self._tables.deployments.values(), key=lambda each: (each.created_at, each.id)
        )
        return [deepcopy(each) for each in found]

    def members(self, deployment_id: str) -> Sequence[Member]:
        """Return the devices a deployment reaches, in order of device id."""
        found = self._tables.members.items()
        return [member for key, member in sorted(found, key=_key) if key[0] == deployment_id]

    def memberships(self, device_id: DeviceId) -> Sequence[Member]:
        """Return a device's place in every deployment that reaches it."""
        found = self._tables.members.items()
        return [member for key, member in sorted(found, key=_key) if key[1] == device_id]

    def put_member(self, member: Member) -> None:
        """Insert or replace by (deployment, device)."""
        if member.deployment_id not in self._tables.deployments:
            raise _contradicts(f"there is no deployment {member.deployment_id!r}")
        self._check_device(member.device_id)
        self._tables.members[member.deployment_id, member.device_id] = member

    def remove_member(self, deployment_id: str, device_id: DeviceId) -> None:
        """Remove a member; nothing happens when there is none."""
        _drop(self._tables.members, (deployment_id, device_id))

    def desired(self, device_id: DeviceId) -> DesiredState | None:
        """Return the newest desired state of a device, or None."""
        return self._tables.desired.get(device_id)

    def put_desired(self, state: DesiredState) -> None:
        """Insert or replace the desired state of a device."""
        self._check_device(state.device_id)
        self._tables.desired[state.device_id] = state

    def _check_device(self, device_id: DeviceId) -> None:
        if device_id not in self._tables.devices:
            raise _contradicts(f"there is no device {device_id!r}")


class MemoryTelemetry:
    """The `TelemetryStore` port."""

    def __init__(self, tables: _Tables) -> None:
        self._tables = tables

    def add(self, rows: Sequence[Measurement]) -> int:
        """Insert rows, skipping those already there; return how many were new."""
        before = len(self._tables.telemetry)
        for row in rows:
            key = (row.device, row.epoch, row.seq)
            if key not in self._tables.telemetry:
                number = self._tables.next_number("telemetry", "")
                self._tables.telemetry[key] = _own(replace(row, id=number))
                self._tables.use_number("telemetry", "", number)
        return len(self._tables.telemetry) - before

    def quarantine(self, rows: Sequence[Quarantined]) -> None:
        """Keep what could not be accepted, the newest per device; repeated rows are ignored."""
        kept = self._tables.quarantine
        for row in rows:
            digest = hashlib.sha256(row.body).hexdigest()
            if (row.device, digest) not in kept:
                kept[row.device, digest] = row
        for device in {row.device for row in rows}:
            mine = [key for key in kept if key[0] == device]
            for key in mine[:-QUARANTINE_PER_DEVICE]:
                del kept[key]

    def quarantined(
        self, device: DeviceId | None = None, *, limit: int = QUARANTINE_PER_DEVICE
    ) -> Sequence[Quarantined]:
        """Return the newest quarantined messages, in order of arrival."""
        found = self._tables.quarantine.values()
        return _last([row for row in found if device in {None, row.device}], limit)

    def tail(self, wanted: TelemetryFilter) -> Sequence[Measurement]:
        """Return matching rows in order of arrival."""
        found = [
            row
            for row in self._tables.telemetry.values()
            if row.id > wanted.after_id
            and wanted.device in {None, row.device}
            and wanted.module in {None, row.module}
        ]
        if wanted.limit is not None:
            found = _last(found, wanted.limit) if wanted.newest else found[: wanted.limit]
        return [_own(row) for row in found]

    def each(self, wanted: TelemetryFilter) -> Iterator[Measurement]:
        """Yield matching rows in order of arrival."""
        yield from self.tail(wanted)

    def count(self) -> int:
        """Return the number of rows stored."""
        return len(self._tables.telemetry)

    def counts_by_device(self) -> dict[DeviceId, int]:
        """Return the number of rows per device."""
        counts = Counter(row.device for row in self._tables.telemetry.values())
        return dict(sorted(counts.items()))


class MemoryOciIndex:
    """The `OciIndex` port."""

    def __init__(self, tables: _Tables) -> None:
        self._manifests = tables.manifests
        self._tags = tables.tags
        self._blobs = tables.blobs

    def repositories(self) -> Sequence[str]:
        """Return all repositories in lexical order."""
        return sorted({name for name, _ in (*self._manifests, *self._blobs)})

    def manifest(self, repository: str, digest: Digest) -> ManifestRecord | None:
        """Return a manifest of the repository, or None."""
        return self._manifests.get((repository, digest))

    def put_manifest(self, repository: str, record: ManifestRecord) -> None:
        """Insert; the same digest again changes nothing."""
        if (repository, record.digest) not in self._manifests:
            self._manifests[repository, record.digest] = record

    def delete_manifest(self, repository: str, digest: Digest) -> bool:
        """Remove a manifest and the tags that name it; tell whether it was there."""
        for (owner, tag), named in list(self._tags.items()):
            if (owner, named) == (repository, digest):
                del self._tags[owner, tag]
        return _drop(self._manifests, (repository, digest))

    def tag(self, repository: str, tag: str) -> Digest | None:
        """Return what a tag names, or None."""
        return self._tags.get((repository, tag))

    def put_tag(self, repository: str, tag: str, digest: Digest) -> None:
        """Point a tag at a manifest the repository has."""
        if (repository, digest) not in self._manifests:
            raise _contradicts(f"{repository!r} has no manifest {digest!r}")
        self._tags[repository, tag] = digest

    def delete_tag(self, repository: str, tag: str) -> bool:
        """Remove a tag; tell whether it was there."""
        return _drop(self._tags, (repository, tag))

    def tags(self, repository: str, *, last: str = "", limit: int | None = None) -> Sequence[str]:
        """Return tags in lexical order beyond `last`."""
        return sorted(tag for owner, tag in self._tags if owner == repository and tag > last)[
            :limit
        ]

    def referrers(self, repository: str, subject: Digest) -> Sequence[ManifestRecord]:
        """Return the manifests whose subject is `subject`, in order of digest."""
        found = sorted(self._manifests.items(), key=_key)
        return [one for (owner, _), one in found if (owner, one.subject) == (repository, subject)]

    def link_blob(self, repository: str, digest: Digest) -> None:
        """Make a stored blob visible in a repository."""
        self._blobs[repository, digest] = True

    def has_blob(self, repository: str, digest: Digest) -> bool:
        """Tell whether a blob is visible in a repository."""
        return (repository, digest) in self._blobs

    def unlink_blob(self, repository: str, digest: Digest) -> bool:
        """Hide a blob from a repository; tell whether it was visible."""
        return _drop(self._blobs, (repository, digest))

    def repositories_of_blob(self, digest: Digest) -> Sequence[str]:
        """Return the repositories a blob is visible in, in lexical order."""
        return sorted(owner for owner, linked in self._blobs if linked == digest)


def _pick(versions: dict[tuple[str, int], _T], name: str, version: int | None) -> _T | None:
    if version is None:
        version = max((number for owner, number in versions if owner == name), default=0)
    return versions.get((name, version))


def _in_order(versions: dict[tuple[str, int], _T], name: str | None) -> list[_T]:
    return [each for key, each in sorted(versions.items(), key=_key) if name in {None, key[0]}]


def _key(item: tuple[Any, Any]) -> Any:
    return item[0]


def _drop(table: dict[Any, Any], key: Any) -> bool:
    if key not in table:
        return False
    del table[key]
    return True


def _last(rows: list[_T], limit: int) -> list[_T]:
    return rows[-limit:] if limit else []


def _keep_nothing(tables: _Tables) -> None:
    """Commit what a reading unit changed: nothing."""


def _own(row: Measurement) -> Measurement:
    return replace(row, properties=dict(row.properties))


def _contradicts(finding: str) -> ConflictError:
    return ConflictError(
        f"database 'memory' refuses what contradicts it: {finding}",
        code=Code.STATE_CONFLICT,
        hint="read what is there again, then decide anew",
    )
