"""How an agent is set up."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.settings import Settings, default_home, read_settings
from protocol.errors import Code, InvalidError


def test_without_anything_the_defaults_hold() -> None:
    assert read_settings({}, home=Path("/x")) == Settings(home=Path("/x"))


def test_everything_can_be_set() -> None:
    given = {
        "RIMWARD_AGENT_HOME": "/h",
        "RIMWARD_AGENT_RUNTIME": "process",
        "RIMWARD_AGENT_HUB_URL": "https://hub:1",
        "RIMWARD_AGENT_MQTT": "[::1]:8883",
        "RIMWARD_AGENT_TICK_SECONDS": "0.5",
        "RIMWARD_AGENT_RESTART_SECONDS": "3600",
        "RIMWARD_AGENT_LOG_LEVEL": "DEBUG",
        "RIMWARD_AGENT_LEDGER": "/l",
        "PATH": "/bin",
        "DOCKER_HOST": "tcp://e:1",
        "HOME": "/elsewhere",
    }

    assert read_settings(given) == Settings(
        home=Path("/h"),
        runtime="process",
        hub_url="https://hub:1",
        mqtt=("::1", 8883),
        tick_seconds=0.5,
        restart_seconds=3600.0,
        log_level="debug",
        path="/bin",
        docker="tcp://e:1",
        ledger=Path("/l"),
    )


def test_an_option_goes_before_the_environment() -> None:
    given = {"RIMWARD_AGENT_HOME": "/h", "RIMWARD_AGENT_RUNTIME": "docker"}

    settings = read_settings(given, home=Path("/o"), runtime="process")

    assert (settings.home, settings.runtime) == (Path("/o"), "process")


def test_a_relative_home_is_made_absolute() -> None:
    assert read_settings({}, home=Path("here")).home == Path.cwd() / "here"


def test_the_home_of_a_user_follows_the_desktop_rules() -> None:
    home = default_home({"XDG_DATA_HOME": "/data"})

    assert home in (Path("/data/rimward-agent"), Path("/var/lib/rimward-agent"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RUNTIME", "podman"),
        ("MQTT", "hub"),
        ("MQTT", "hub:"),
        ("MQTT", ":8883"),
        ("MQTT", "hub:0"),
        ("MQTT", "hub:65536"),
        ("MQTT", "hub:-1"),
        ("TICK_SECONDS", "soon"),
        ("TICK_SECONDS", "0"),
        ("TICK_SECONDS", "nan"),
        ("RESTART_SECONDS", "inf"),
        ("RESTART_SECONDS", "3601"),
        ("LOG_LEVEL", "loud"),
        ("TICK", "1"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(InvalidError) as caught:
        read_settings({f"RIMWARD_AGENT_{name}": value}, home=Path("/x"))

    assert caught.value.code is Code.SETTINGS_INVALID
    assert f"'RIMWARD_AGENT_{name}'" in str(caught.value)
    assert caught.value.hint
