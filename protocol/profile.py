"""Device profiles: what one class of device is, as data."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from protocol.errors import Code, InvalidError

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}\Z")]


class Accelerator(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """An accelerator the class of device carries."""

    kind: Literal["gpu", "npu", "vpu", "fpga", "tpu"]
    name: str
    memory_mib: Annotated[int, msgspec.Meta(ge=0)] = 0


class Profile(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """One device class.

    Attributes:
        name: What `profile = '...'` in a target condition compares with.
        description: One line for people.
        architecture: Instruction set, in the words of OCI images.
        memory_mib: Main memory of the smallest board of the class.
        runtimes: What may start modules there, in order of preference.
        engines: Inference engines in order of preference.
        accelerators: What it carries besides its processor.
        support: `run` is tested on such a machine, `simulated` on a stand-in, else `untested`.
    """

    name: Name
    description: str
    architecture: Literal["amd64", "arm64", "arm"]
    memory_mib: Annotated[int, msgspec.Meta(ge=64)]
    runtimes: Annotated[list[Literal["docker", "process", "simulated"]], msgspec.Meta(min_length=1)]
    engines: Annotated[
        list[Literal["onnxruntime", "openvino", "python"]], msgspec.Meta(min_length=1)
    ]
    support: Literal["run", "simulated", "untested"]
    accelerators: list[Accelerator] = []


def read_profile(document: object, *, source: str) -> Profile:
    """Turn a parsed document into a Profile, or raise InvalidError (`profile-invalid`)."""
    try:
        return msgspec.convert(document, Profile)
    except msgspec.ValidationError as error:
        raise InvalidError(
            f"profile {source!r} is not valid: {error}",
            code=Code.PROFILE_INVALID,
            hint="its form is in docs/profiles.md",
        ) from error
