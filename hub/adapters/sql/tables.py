"""The tables as the program sees them; `hub/migrations` makes them.

Columns are named like the fields of the values they hold.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, LargeBinary, MetaData, Table, Text
from sqlalchemy.types import TypeEngine

from hub.adapters.sql.columns import Document, Moment, Word
from hub.core.deployment import DeploymentState, MemberState, RolloutPolicy
from hub.core.device import DeviceState
from hub.core.image import ImageState, LayerInfo

SCHEMA = MetaData()


def _table(name: str, key: str, /, **columns: TypeEngine[Any] | type[TypeEngine[Any]]) -> Table:
    keys = key.split()
    made = (Column(column, kind, primary_key=column in keys) for column, kind in columns.items())
    return Table(name, SCHEMA, *made)


settings = _table("settings", "key", key=Text, value=Text)
devices = _table(
    "devices",
    "id",
    id=Text,
    profile=Text,
    state=Word(DeviceState),
    connected=Boolean,
    last_seen=Moment,
    enrolled_at=Moment,
    agent_version=Text,
    reported_revision=BigInteger,
    tags=Document(dict[str, Any]),
    reported=Document(dict[str, Any]),
)
claims = _table(
    "claims",
    "secret_hash",
    secret_hash=Text,
    device_id=Text,
    tags=Document(dict[str, Any]),
    expires_at=Moment,
    used_at=Moment,
)
tokens = _table(
    "tokens",
    "secret_hash",
    secret_hash=Text,
    name=Text,
    role=Text,
    created_at=Moment,
    expires_at=Moment,
)
version_counters = _table("version_counters", "kind name", kind=Text, name=Text, newest=BigInteger)
models = _table(
    "models",
    "name version",
    name=Text,
    version=BigInteger,
    digest=Text,
    size=BigInteger,
    filename=Text,
    created_at=Moment,
    framework=Text,
    description=Text,
    tags=Document(dict[str, str]),
    golden=Document(dict[str, Any]),
)
images = _table(
    "images",
    "name version",
    name=Text,
    version=BigInteger,
    state=Word(ImageState),
    models=Document(tuple[str, ...]),
    created_at=Moment,
    architecture=Text,
    digest=Text,
    reference=Text,
    layers=Document(tuple[LayerInfo, ...]),
    progress=Text,
    error_code=Text,
    error=Text,
    error_hint=Text,
)
deployments = _table(
    "deployments",
    "id",
    id=Text,
    condition=Text,
    priority=BigInteger,
    created_at=Moment,
    policy=Document(RolloutPolicy),
    labels=Document(dict[str, str]),
    models=Document(tuple[str, ...]),
    state=Word(DeploymentState),
    reason=Text,
    manifest=Text,
)
members = _table(
    "members",
    "deployment_id device_id",
    deployment_id=Text,
    device_id=Text,
    state=Word(MemberState),
    since=Moment,
    wave=BigInteger,
    version=BigInteger,
    code=Text,
    message=Text,
)
desired_states = _table(
    "desired_states",
    "device_id",
    device_id=Text,
    epoch=BigInteger,
    version=BigInteger,
    deployment_id=Text,
    content_digest=Text,
    issued_at=Moment,
    envelope=LargeBinary,
)
telemetry = _table(
    "telemetry",
    "id",
    id=BigInteger,
    device=Text,
    epoch=Text,
    seq=BigInteger,
    module=Text,
    output=Text,
    at=Moment,
    received_at=Moment,
    properties=Document(dict[str, str]),
    body=LargeBinary,
)
quarantine = _table(
    "quarantine",
    "id",
    id=BigInteger,
    device=Text,
    received_at=Moment,
    reason=Text,
    digest=Text,
    body=LargeBinary,
)
oci_manifests = _table(
    "oci_manifests",
    "repository digest",
    repository=Text,
    digest=Text,
    media_type=Text,
    subject=Text,
    artifact_type=Text,
    annotations=Text,
    content=LargeBinary,
)
oci_tags = _table("oci_tags", "repository tag", repository=Text, tag=Text, digest=Text)
oci_blobs = _table("oci_blobs", "repository digest", repository=Text, digest=Text)
