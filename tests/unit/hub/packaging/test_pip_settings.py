"""What a machine's pip is set to counts for uv, unless uv is set up itself."""

from __future__ import annotations

from pathlib import Path

from hub.adapters.packaging.pip_settings import translate, uv_environment

LISTING = """\
:env:.cert='/env.pem'
global.cert='/global.pem'
global.disable-pip-version-check='1'
global.find-links='/opt/one\\n/opt/two'
global.index-url='https://mirror.example/simple'
user.index-url='https://nearer.example/simple'
user.extra-index-url='https://a.example\\nhttps://b.example'
"""


def test_pips_words_become_uvs_and_the_nearest_wins() -> None:
    assert translate(LISTING) == {
        "SSL_CERT_FILE": "/env.pem",
        "UV_FIND_LINKS": "/opt/one,/opt/two",
        "UV_DEFAULT_INDEX": "https://nearer.example/simple",
        "UV_INDEX": "https://a.example https://b.example",
    }


def test_nonsense_is_nothing() -> None:
    assert translate("\n=\nglobal.\nglobal.index-url\nx.index-url='y'\n") == {}


def test_the_machines_pip_is_asked(tmp_path: Path) -> None:
    settings = tmp_path / "pip.conf"
    settings.write_text(f"[global]\nno-index = true\nfind-links = {tmp_path}\n")

    made = uv_environment({"PATH": "/usr/bin", "PIP_CONFIG_FILE": str(settings)})

    assert (made["UV_NO_INDEX"], made["UV_FIND_LINKS"]) == ("true", str(tmp_path))
    assert made["PATH"] == "/usr/bin"


def test_whoever_has_set_up_uv_is_left_alone() -> None:
    environment = {"UV_DEFAULT_INDEX": "https://mine.example", "PIP_INDEX_URL": "https://other"}

    assert uv_environment(environment) == environment


def test_an_environment_of_its_own_wins_over_pips_certificate() -> None:
    environment = {"SSL_CERT_FILE": "/mine.pem", "PIP_CERT": "/other.pem"}

    assert uv_environment(environment)["SSL_CERT_FILE"] == "/mine.pem"
