"""The profiles of a folder: read once, checked, found by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_lab import code_of

import device_profiles
from hub.adapters.profiles import YamlProfiles

OURS = Path(str(device_profiles.__file__)).parent


def test_our_profiles_are_all_good_and_in_order() -> None:
    names = [profile.name for profile in YamlProfiles(OURS).list()]

    assert names == sorted(path.stem for path in OURS.glob("*.yaml"))
    assert "generic-x86" in names


def test_a_profile_is_found_by_its_name() -> None:
    profiles = YamlProfiles(OURS)

    assert profiles.get("generic-x86").name == "generic-x86"
    assert code_of(lambda: profiles.get("toaster")) == "profile-unknown"


@pytest.mark.parametrize("text", ["a: [", "", "[1]", "name: x", "name: !!python/object:os.x {}"])
def test_a_file_that_is_no_profile_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.yaml").write_text(text)

    assert code_of(lambda: YamlProfiles(tmp_path)) == "profile-invalid"


def test_a_profile_is_named_like_its_file(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text((OURS / "generic-x86.yaml").read_text())

    assert code_of(lambda: YamlProfiles(tmp_path)) == "profile-invalid"
