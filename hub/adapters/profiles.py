"""Device profiles from `device_profiles/*.yaml`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from protocol.errors import Code, InvalidError, NotFoundError
from protocol.profile import Profile, read_profile


class YamlProfiles:
    """The profiles of a folder, read and checked once.

    Raises:
        InvalidError: `profile-invalid`, for a file that does not parse, has a wrong field, or whose
            name differs from its profile's.
    """

    def __init__(self, folder: Path) -> None:
        self._profiles = {p.name: p for p in map(_load, sorted(folder.glob("*.yaml")))}

    def get(self, name: str) -> Profile:
        """Return one profile, or raise NotFoundError (`profile-unknown`)."""
        try:
            return self._profiles[name]
        except KeyError:
            raise NotFoundError(
                f"no device profile {name!r}",
                code=Code.PROFILE_UNKNOWN,
                hint=f"known profiles: {', '.join(sorted(self._profiles))}",
            ) from None

    def list(self) -> Sequence[Profile]:
        """Return all profiles in order of name."""
        return [self._profiles[name] for name in sorted(self._profiles)]


def _load(path: Path) -> Profile:
    try:
        document = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise _refuse(path, str(error)) from error
    profile = read_profile(document, source=path.name)
    if profile.name != path.stem:
        raise _refuse(path, f"it names itself {profile.name!r}")
    return profile


def _refuse(path: Path, problem: str) -> InvalidError:
    return InvalidError(
        f"profile {path.name!r} is not valid: {problem}",
        code=Code.PROFILE_INVALID,
        hint="its form is in docs/profiles.md",
    )
