from __future__ import annotations

from pathlib import Path

import pytest

from agent.adapters.images.rootfs import assemble, locate
from protocol.errors import Code, FleetError


def layer(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content.startswith("-> "):
            path.symlink_to(content.removeprefix("-> "))
        else:
            path.write_text(content)
    return root


def content(root: Path) -> dict[str, str]:
    return {str(p.relative_to(root)): p.read_text() for p in root.rglob("*") if p.is_file()}


def test_upper_layers_win_and_files_are_shared(tmp_path: Path) -> None:
    low = layer(tmp_path / "low", {"a": "old", "d/keep": "kept"})
    high = layer(tmp_path / "high", {"a": "new", "d/more": "more"})

    assemble([low, high], tmp_path / "root")

    assert content(tmp_path / "root") == {"a": "new", "d/keep": "kept", "d/more": "more"}
    assert (tmp_path / "root/d/keep").samefile(low / "d/keep")
    assert (low / "a").read_text() == "old"


def test_a_whiteout_removes_what_is_below_only(tmp_path: Path) -> None:
    low = layer(tmp_path / "low", {"a": "1", "tree/x": "2", "b": "3"})
    high = layer(tmp_path / "high", {".wh.a": "", ".wh.tree": "", ".wh.b": "", "b": "4"})

    assemble([low, high], tmp_path / "root")

    assert content(tmp_path / "root") == {"b": "4"}
    assert content(low) == {"a": "1", "tree/x": "2", "b": "3"}


def test_an_opaque_folder_hides_what_is_below(tmp_path: Path) -> None:
    low = layer(tmp_path / "low", {"d/a": "1", "d/e/f": "2", "g": "3"})
    high = layer(tmp_path / "high", {"d/.wh..wh..opq": "", "d/b": "4"})

    assemble([low, high], tmp_path / "root")

    assert content(tmp_path / "root") == {"d/b": "4", "g": "3"}


@pytest.mark.parametrize("name", [".wh...", ".wh..", ".wh."])
def test_a_whiteout_reaches_nothing_else(tmp_path: Path, name: str) -> None:
    (tmp_path / "precious").write_text("here")
    high = layer(tmp_path / "high", {name: "", "sub/" + name: "", "a": "1"})

    assemble([high], tmp_path / "root")

    assert content(tmp_path / "root") == {"a": "1"}
    assert (tmp_path / "precious").exists()


def test_a_folder_replaces_a_link_instead_of_following_it(tmp_path: Path) -> None:
    low = layer(tmp_path / "low", {"real/a": "1", "d": "-> real"})
    high = layer(tmp_path / "high", {"d/b": "2"})

    assemble([low, high], tmp_path / "root")

    assert content(tmp_path / "root") == {"real/a": "1", "d/b": "2"}


def test_links_that_lead_outside_together_are_refused(tmp_path: Path) -> None:
    crooked = layer(tmp_path / "low", {"d/here": "-> .", "d/out": "-> here/../../x"})

    with pytest.raises(FleetError) as caught:
        assemble([crooked], tmp_path / "root")

    assert caught.value.code is Code.IMAGE_UNSUITABLE


def test_paths_of_the_image_are_found_on_the_host(tmp_path: Path) -> None:
    root = layer(tmp_path / "root", {"app/x": "1", "link": "-> app/x", "out": "-> /etc/passwd"})

    assert locate(root, "/app/x") == root / "app/x"
    assert locate(root, "/link") == root / "link"
    assert locate(root, "/app/../app/x") == root / "app/x"
    assert locate(root, "/../app/x") == root / "app/x"
    assert locate(root, "/absent") is None
    assert locate(root, "/out") is None
