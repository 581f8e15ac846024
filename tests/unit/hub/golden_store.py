"""One of everything a hub keeps: what the golden databases hold and must still tell.

`python tests/unit/hub/golden_store.py` writes the golden database of today's schema, once, when a
step is added to `hub/migrations`. A golden database that was released is never written again.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hub.adapters.sql.store import open_store
from hub.core.deployment import (
    Deployment,
    DeploymentState,
    DesiredState,
    Member,
    MemberState,
    RolloutPolicy,
    Wave,
)
from hub.core.device import Claim, Device, DeviceState, Token
from hub.core.image import Image, ImageState, LayerInfo
from hub.core.model import Model
from hub.core.oci import ManifestRecord
from hub.core.ports import UnitOfWork
from hub.core.telemetry import Measurement, Quarantined, TelemetryFilter
from hub.migrations import bundled
from protocol.ids import DeviceId, digest_of
from simulator.fakes import ManualClock

FOLDER = Path(__file__).parents[2] / "golden" / "db"
AT = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
CAMERA = DeviceId("camera-1")
TREE = {"site": "north", "deep": {"list": [1, 1.5, True, None, "é"]}}

DEVICE = Device(
    CAMERA,
    "generic",
    DeviceState.ENROLLED,
    AT,
    "1.2.3",
    TREE,
    TREE,
    7,
    connected=True,
    last_seen=AT,
)
CLAIM = Claim("c1a1", CAMERA, TREE, AT, AT)
TOKEN = Token("70cc", "ann", "admin", AT, AT)
MODEL = Model(
    "digits", 1, digest_of(b"model"), 5, "digits.onnx", AT, "onnx", "reads", {"a": "b"}, TREE
)
IMAGE = Image(
    "digits",
    1,
    ImageState.FAILED,
    ("digits:1",),
    AT,
    "arm64",
    digest_of(b"image"),
    "hub/digits",
    (LayerInfo("base", digest_of(b"base"), 3),),
    "done",
    "build-failed",
    "no wheel",
    "pin it",
)
DEPLOYMENT = Deployment(
    "all",
    "{}",
    "*",
    10,
    AT,
    RolloutPolicy((Wave(2), Wave(share=0.5)), 60.0, 0.9, 120.0),
    {"a": "b"},
    ("digits:1",),
    DeploymentState.ABORTED,
    "too many failed",
)
MEMBER = Member("all", CAMERA, MemberState.FAILED, AT, 0, 4, "probe-failed", "no answer")
DESIRED = DesiredState(CAMERA, 2, 9, "all", digest_of(b"content"), b"\x00\xff", AT)
MEASUREMENT = Measurement(
    CAMERA, "0f", 3, "classifier", "out", AT, AT + timedelta(seconds=1), b"\x00\xff", {"a": "b"}, 1
)
QUARANTINED = Quarantined(CAMERA, AT, "not JSON", b"\xff")
MANIFEST = ManifestRecord(
    digest_of(b"{}"), "application/json", b"{}", digest_of(b"subject"), "thing", '{"a":"b"}'
)
BLOB = digest_of(b"blob")


def fill(work: UnitOfWork) -> None:
    """Put one of everything."""
    work.put_setting("epoch", "2")
    work.devices.put(DEVICE)
    work.claims.put(CLAIM)
    work.tokens.put(TOKEN)
    work.models.add(MODEL)
    work.images.put(IMAGE)
    work.deployments.put(DEPLOYMENT)
    work.deployments.put_member(MEMBER)
    work.deployments.put_desired(DESIRED)
    work.telemetry.add([MEASUREMENT])
    work.telemetry.quarantine([QUARANTINED])
    work.oci.put_manifest("a/b", MANIFEST)
    work.oci.put_tag("a/b", "latest", MANIFEST.digest)
    work.oci.link_blob("a/b", BLOB)


def check(work: UnitOfWork) -> None:
    """Assert that one of everything is there."""
    assert work.get_setting("epoch") == "2"
    assert list(work.devices.list()) == [DEVICE]
    assert work.claims.get(CLAIM.secret_hash) == CLAIM
    assert work.tokens.get(TOKEN.secret_hash) == TOKEN
    assert list(work.models.list()) == [MODEL]
    assert work.models.next_version(MODEL.name) == 2
    assert list(work.images.list()) == [IMAGE]
    assert list(work.deployments.list()) == [DEPLOYMENT]
    assert list(work.deployments.members("all")) == [MEMBER]
    assert work.deployments.desired(CAMERA) == DESIRED
    assert list(work.telemetry.tail(TelemetryFilter())) == [MEASUREMENT]
    assert list(work.telemetry.quarantined()) == [QUARANTINED]
    assert list(work.oci.referrers("a/b", digest_of(b"subject"))) == [MANIFEST]
    assert work.oci.tag("a/b", "latest") == MANIFEST.digest
    assert work.oci.has_blob("a/b", BLOB)


@contextmanager
def connect(path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a plain connection to a database file."""
    with closing(sqlite3.connect(path)) as connection:
        yield connection


def schema_of(path: Path) -> list[tuple[str, str]]:
    """Return the name and the definition of everything in a database, in order of name."""
    with connect(path) as connection:
        query = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
        return [(str(name), str(sql)) for name, sql in connection.execute(query)]


def write_golden() -> Path:
    """Write the golden database of today's schema and return its path."""
    golden = FOLDER / f"{bundled()[-1].version:04}.sql"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hub.db"
        store = open_store(f"sqlite:///{path}", ManualClock(AT))
        with store.begin() as work:
            fill(work)
            work.commit()
        store.close()
        with connect(path) as connection:
            golden.write_text("\n".join(connection.iterdump()) + "\n")
    return golden


if __name__ == "__main__":
    print(write_golden())
