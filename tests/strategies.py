"""One vocabulary of generated values: JSON as the wire allows it, names, manifests, messages."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from protocol.ids import DeviceId, Digest, ImageRef
from protocol.messages import (
    Ack,
    Desired,
    DesiredGet,
    Problem,
    Reported,
    ReportedAck,
    Status,
    Telemetry,
    TelemetryRecord,
)

NAME = "abcdefghijklmnopqrstuvwxyz0123456789"

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
integers = st.integers(-(2**63), 2**64 - 1)
numbers = integers | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.booleans() | numbers | texts
twin_keys = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters=".$ "),
    min_size=1,
    max_size=6,
)


def _nested(inner: SearchStrategy[Any]) -> SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(twin_keys, inner, max_size=4)


json_values: SearchStrategy[Any] = st.recursive(scalars, _nested, max_leaves=8)
json_objects: SearchStrategy[dict[str, Any]] = st.dictionaries(twin_keys, json_values, max_size=4)
# few keys, so that two documents have some in common
twins: SearchStrategy[dict[str, Any]] = st.dictionaries(
    st.sampled_from("abc"),
    st.recursive(
        scalars | st.lists(json_values, max_size=2),
        lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=3,
)

names = st.text(NAME, min_size=1, max_size=12)
device_ids = st.builds(
    lambda first, middle, last: DeviceId(first + middle + last),
    st.sampled_from(NAME),
    st.text(NAME + "-", max_size=10),
    st.sampled_from(NAME),
)
digests = st.text("0123456789abcdef", min_size=64, max_size=64).map(lambda s: Digest(f"sha256:{s}"))
repositories = st.lists(names, min_size=1, max_size=3).map("/".join)
authorities = st.sampled_from(["", "localhost", "localhost:5000", "r.example", "[::1]:5000"])
image_refs = st.builds(ImageRef, authorities, repositories, st.none() | names, st.none() | digests)

sequences = st.integers(1, 2**63 - 1)
millis = st.integers(0, 2**53 - 1)
records = st.builds(
    TelemetryRecord,
    seq=sequences,
    module=names,
    output=names,
    at=millis,
    body=st.binary(max_size=40),
    properties=st.dictionaries(texts, texts, max_size=3),
)
messages: SearchStrategy[msgspec.Struct] = st.one_of(
    st.builds(Telemetry, epoch=names, records=st.lists(records, min_size=1, max_size=4)),
    st.builds(Reported, revision=sequences, reported=json_objects),
    st.builds(DesiredGet, epoch=st.integers(0, 2**63 - 1), have=st.integers(0, 2**63 - 1)),
    st.builds(Status, connected=st.booleans()),
    st.builds(
        Ack,
        epoch=names,
        ranges=st.lists(st.tuples(sequences, sequences), max_size=4),
        refused=st.lists(sequences, max_size=4),
    ),
    st.builds(ReportedAck, revision=sequences),
    st.builds(
        Desired,
        device=device_ids,
        epoch=sequences,
        version=sequences,
        issued=integers.filter(lambda n: n < 2**63),
        expires=integers.filter(lambda n: n < 2**63),
        deployment=texts,
        manifest=texts,
    ),
    st.builds(Problem, code=names, message=texts, hint=texts),
)

# ---- manifests ----------------------------------------------------------------------------------

module_names = st.text(NAME + NAME.upper() + "_-", min_size=1, max_size=12)
create_options = st.dictionaries(names, scalars, max_size=3).map(
    lambda options: msgspec.json.encode(options).decode()
)
env = st.dictionaries(
    st.text(NAME.upper() + "_", min_size=1, max_size=8),
    st.fixed_dictionaries({"value": scalars.filter(lambda v: "\0" not in str(v))}),
    max_size=3,
)
modules = st.fixed_dictionaries(
    {
        "type": st.just("docker"),
        "status": st.sampled_from(["running", "stopped"]),
        "restartPolicy": st.sampled_from(["never", "on-failure", "on-unhealthy", "always"]),
        "settings": st.fixed_dictionaries(
            {"image": image_refs.map(str), "createOptions": create_options}
        ),
    },
    optional={
        "version": texts,
        "env": env,
        "imagePullPolicy": st.sampled_from(["on-create", "never"]),
        "startupOrder": st.integers(0, 2**32 - 1),
        "x-port": st.integers(1, 65535),
    },
)
manifests: SearchStrategy[dict[str, Any]] = st.builds(
    lambda mods, desired: {
        "modulesContent": {
            "$edgeAgent": {
                "properties.desired": {
                    "schemaVersion": "1.1",
                    "runtime": {"type": "docker"},
                    "modules": mods,
                }
            },
            "$edgeHub": {
                "properties.desired": {
                    "schemaVersion": "1.1",
                    "routes": {"up": "FROM /messages/* INTO $upstream"},
                }
            },
            **{name: {"properties.desired": desired} for name in mods},
        }
    },
    st.dictionaries(module_names, modules, max_size=3),
    twins,
)
