"""Settings: what is read from where, what is refused and how, what may stand in a log."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_lab import code_of

from hub.settings import (
    Settings,
    context_path,
    default_data,
    documented,
    environment,
    read_settings,
)
from protocol.errors import FleetError


def read(**given: str) -> Settings:
    return read_settings({f"RIMWARD_{key}": value for key, value in given.items()})


def test_without_anything_the_hub_stays_on_this_machine() -> None:
    settings = read_settings({"XDG_DATA_HOME": "/data", "XDG_CACHE_HOME": "/cache"})

    assert settings == Settings(Path("/data/rimward/hub"), Path("/cache/rimward"))
    assert (settings.host, settings.https_port, settings.mqtt_port) == ("127.0.0.1", 8443, 8883)
    assert settings.database_url == "sqlite:////data/rimward/hub/hub.db"
    assert settings.address == "127.0.0.1"


def test_options_come_before_the_environment_and_empty_ones_do_not_count() -> None:
    given = {"RIMWARD_HTTPS_PORT": "1", "RIMWARD_MQTT_PORT": "2", "RIMWARD_HOST": ""}

    settings = read_settings(given, {"HTTPS_PORT": "3", "MQTT_PORT": ""})

    assert (settings.https_port, settings.mqtt_port, settings.host) == (3, 2, "127.0.0.1")


def test_everything_can_be_set(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text("")
    settings = read(
        DATA="/d",
        HOST="0.0.0.0",
        ADVERTISE="hub.example",
        HTTPS_PORT="0",
        DATABASE="postgresql+psycopg://u:secret@h/d",
        BROKER="mqtts://broker.example",
        REGISTRY="https://us%40er:p%2Fw@registry.example:5000",
        REGISTRY_CA=str(ca),
        LOG_LEVEL="DEBUG",
    )

    assert settings.address == "hub.example"
    assert settings.broker == ("broker.example", 8883)
    assert settings.registry is not None
    assert settings.registry.url == "https://registry.example:5000"
    assert (settings.registry.username, settings.registry.password) == ("us@er", "p/w")
    assert settings.log_level == "debug"
    assert "secret" not in str(settings.redacted())
    assert "p/w" not in str(settings.redacted())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "1"),
        ("HTTPS_PORT", "x"),
        ("HTTPS_PORT", "-1"),
        ("HTTPS_PORT", "65536"),
        ("MQTT_PORT", "9" * 5000),
        ("HOST", "0.0.0.0"),
        ("HOST", "a b"),
        ("ADVERTISE", "https://hub"),
        ("BROKER", "mqtt://h"),
        ("BROKER", "mqtts://"),
        ("BROKER", "mqtts://ann:secret@h"),
        ("BROKER", "mqtts://h:99999"),
        ("BROKER", "mqtts://[::1"),
        ("REGISTRY", "http://h"),
        ("REGISTRY", "https://h:port"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(name: str, value: str) -> None:
    assert code_of(lambda: read(**{name: value})) == "settings-invalid"
    with pytest.raises(FleetError) as caught:
        read(**{name: value})
    wanted = "ADVERTISE" if value == "0.0.0.0" else name
    assert f"'RIMWARD_{wanted}'" in str(caught.value)


def test_a_registry_ca_must_be_there() -> None:
    refused = code_of(lambda: read(REGISTRY="https://h", REGISTRY_CA="/nowhere"))

    assert refused == "settings-invalid"


def test_variables_of_other_programs_are_not_ours() -> None:
    given = {"RIMWARD_AGENT_HOME": "x", "RIMWARD_TEST_REQUIRE": "y", "PATH": "/"}

    assert read_settings(given) == read_settings({})


def test_the_context_lies_in_the_data_folder_unless_it_is_named() -> None:
    assert context_path({"RIMWARD_CONTEXT": "/c.json"}) == Path("/c.json")
    assert context_path({"RIMWARD_DATA": "/d"}) == Path("/d/admin.json")
    assert context_path({}) == default_data({}) / "admin.json"


def test_every_setting_is_documented() -> None:
    assert set(documented()) >= {"RIMWARD_DATA", "RIMWARD_ADVERTISE", "RIMWARD_LOG_LEVEL"}
    assert all(documented().values())


def test_programs_we_start_do_not_inherit_our_settings() -> None:
    assert not [name for name in environment() if name.startswith("RIMWARD_")]
    assert "PATH" in environment()
