"""Which of a machine's package sources are Debian's."""

from pathlib import Path

from hub.adapters.debian.sources import Source, debian_sources, parse_deb822, parse_one_line

DEB822 = """\
# a comment
Types: deb deb-src
URIs: http://mirror.example/debian
# another
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://shop.example/apt
Suites: bookworm
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
 -----END PGP PUBLIC KEY BLOCK-----

Enabled: no
Types: deb
URIs: http://off.example
Suites: bookworm
Components: main
"""


def test_only_debians_suites_and_components_are_taken(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "debian.sources").write_text(DEB822)
    (tmp_path / "sources.list.d" / "old.list.disabled").write_text("deb http://x bookworm main")

    (source,) = debian_sources(tmp_path, "bookworm")

    assert source.uris == ("http://mirror.example/debian",)
    assert source.suites == ("bookworm", "bookworm-updates")
    assert source.components == ("main",)


def test_keys_inside_the_file_keep_their_form() -> None:
    shop = list(parse_deb822(DEB822))[1]

    assert list(parse_deb822(shop.render())) == [shop]
    assert "\n .\n abc\n" in shop.signed_by


def test_a_line_with_options() -> None:
    text = "deb-src http://a x main\n deb [ arch=amd64 signed-by=/k ] http://a bookworm main # c\n"

    assert list(parse_one_line(text)) == [
        Source(("http://a",), ("bookworm",), ("main",), signed_by="/k")
    ]


def test_a_machine_without_sources_has_none(tmp_path: Path) -> None:
    assert debian_sources(tmp_path, "bookworm") == ()
