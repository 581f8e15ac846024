from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agent.adapters.images.documents import ImageConfig, ProcessConfig
from agent.adapters.process.command import (
    Command,
    HostSettings,
    Place,
    build_command,
    check_interpreter,
)
from agent.adapters.process.options import read_options
from protocol.errors import Code, FleetError

VERSION = f"3.{sys.version_info[1]}"
HOST = HostSettings(path="/usr/bin:/bin", lang="C.UTF-8")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    for name in ("app/server.py", "models/1.bin", "site/numpy", "bin/tool", "tools/mine"):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        path.chmod(0o755)
    return Place(tmp_path / "root", tmp_path / "home", 4321)


def image(
    *command: str, env: tuple[str, ...] = (), python: str = "", folder: str = "/app"
) -> ImageConfig:
    labels = {"io.rimward.python": python} if python else {}
    process = ProcessConfig(
        entrypoint=list(command[:1]),
        cmd=list(command[1:]),
        env=list(env),
        working_dir=folder,
        labels=labels,
    )
    return ImageConfig(architecture="amd64", os="linux", config=process)


def build(
    place: Place,
    config: ImageConfig,
    options: dict[str, object] | None = None,
    env: dict[str, str] | None = None,
) -> Command:
    return build_command(config, read_options(options or {}, 5001), env or {}, place, HOST)


def test_paths_of_the_image_become_paths_of_the_host(place: Place) -> None:
    config = image(
        "python3",
        "/app/server.py",
        "/absent",
        env=("PYTHONPATH=/site:/app:/absent", "MODEL=/models/1.bin", "NAME=/", "MODE=fast"),
    )

    command = build(place, config)

    root = place.rootfs
    assert command.arguments[1:] == (f"{root}/app/server.py", "/absent")
    assert command.environment["PYTHONPATH"] == f"{root}/site:{root}/app:/absent"
    assert command.environment["MODEL"] == f"{root}/models/1.bin"
    assert (command.environment["NAME"], command.environment["MODE"]) == ("/", "fast")
    assert command.folder == root / "app"


def test_urls_are_left_alone(place: Place) -> None:
    command = build(place, image("python3", "http://app/server.py", env=("HUB=https://app",)))

    assert command.arguments[1] == "http://app/server.py"
    assert command.environment["HUB"] == "https://app"


def test_the_environment_is_the_images_the_options_and_the_manifests(place: Place) -> None:
    config = image("python3", env=("A=image", "B=image", "C=image"))

    command = build(place, config, {"Env": ["B=options", "C=options"]}, {"C": "manifest"})

    seen = command.environment
    assert (seen["A"], seen["B"], seen["C"]) == ("image", "options", "manifest")
    assert set(seen) == {
        *("A", "B", "C", "PATH", "LANG", "HOME", "PYTHONNOUSERSITE"),
        *("RIMWARD_MODULE_HOST", "RIMWARD_MODULE_PORT"),
    }


def test_what_the_agent_decides_cannot_be_overridden(place: Place) -> None:
    command = build(
        place,
        image("python3", env=("HOME=/root", "LANG=de_DE.UTF-8", "PATH=/bin:/absent")),
        env={"RIMWARD_MODULE_PORT": "1", "RIMWARD_MODULE_HOST": "0.0.0.0"},
    )

    seen = command.environment
    assert seen["HOME"] == str(place.home)
    assert seen["LANG"] == "de_DE.UTF-8"
    assert seen["PATH"] == f"{place.rootfs}/bin:{HOST.path}"
    assert (seen["RIMWARD_MODULE_HOST"], seen["RIMWARD_MODULE_PORT"]) == ("127.0.0.1", "4321")


@pytest.mark.parametrize("name", ["python", "python3", f"python{VERSION}", "/usr/bin/python3"])
@pytest.mark.parametrize("label", ["", VERSION])
def test_python_is_an_interpreter_of_the_host(place: Place, name: str, label: str) -> None:
    command = build(place, image(name, python=label))

    assert command.arguments[0] == str(HOST.python)


def test_another_minor_version_is_looked_for_on_the_host(tmp_path: Path, place: Place) -> None:
    program = tmp_path / "programs" / "python3.99"
    program.parent.mkdir()
    program.write_text("#!/bin/sh")
    program.chmod(0o755)
    host = HostSettings(path=str(program.parent))
    config = image("python3", python="3.99")

    command = build_command(config, read_options({}, 5001), {}, place, host)

    assert command.arguments[0] == str(program)


@pytest.mark.parametrize("label", ["3.98", "2.7", "../../bin/x", "3"])
def test_a_missing_interpreter_has_a_name(place: Place, label: str) -> None:
    config = image("python3", python=label)

    for call in (lambda: build(place, config), lambda: check_interpreter(config, HOST)):
        with pytest.raises(FleetError) as caught:
            call()
        assert caught.value.code is Code.INTERPRETER_MISSING


def test_the_command_can_be_replaced(place: Place) -> None:
    config = image("python3", "/app/server.py")

    cmd = build(place, config, {"Cmd": ["-V"]}).arguments
    entrypoint = build(place, config, {"Entrypoint": ["/bin/tool"]}).arguments
    both = build(place, config, {"Entrypoint": "/bin/tool", "Cmd": ["/models"]}).arguments

    assert cmd == (str(HOST.python), "-V")
    assert entrypoint == (f"{place.rootfs}/bin/tool",)
    assert both == (f"{place.rootfs}/bin/tool", f"{place.rootfs}/models")


def test_programs_are_found_on_the_images_path_first(place: Place) -> None:
    command = build(place, image("mine", env=("PATH=/tools:/usr/bin",)))

    assert command.arguments == (f"{place.rootfs}/tools/mine",)


@pytest.mark.parametrize(
    "words", [(), ("",), ("/bin/absent",), ("absent-program",), ("../../etc/passwd",)]
)
def test_a_command_that_is_not_there_is_refused(place: Place, words: tuple[str, ...]) -> None:
    with pytest.raises(FleetError) as caught:
        build(place, image(*words))

    assert caught.value.code is Code.MODULE_START_FAILED


def test_a_missing_working_folder_is_made_inside_the_image(place: Place) -> None:
    command = build(place, image("python3", folder="/../var/data"))

    assert command.folder == place.rootfs / "var/data"
    assert command.folder.is_dir()


def test_a_working_folder_that_is_a_file_is_refused(place: Place) -> None:
    with pytest.raises(FleetError) as caught:
        build(place, image("python3", folder="/app/server.py"))

    assert caught.value.code is Code.MODULE_START_FAILED


def test_options_without_a_meaning_are_named() -> None:
    options = read_options(
        {
            "Env": ["A=1", "B", "=2"],
            "Tty": True,
            "User": "",
            "HostConfig": {
                "Memory": 1024,
                "PidsLimit": 5,
                "NanoCpus": 10**9,
                "PortBindings": {"5001/tcp": [{"HostPort": "9000"}]},
            },
        },
        5001,
    )

    assert options.ignored == ("HostConfig.NanoCpus", "HostConfig.PidsLimit", "Tty")
    assert (options.memory_bytes, options.host_port) == (1024, 9000)
    assert options.environment == {"A": "1"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"Cmd": 5},
        {"Cmd": [5]},
        {"Entrypoint": ["a\0b"]},
        {"Env": {"A": "1"}},
        {"WorkingDir": 7},
        {"HostConfig": [1]},
        {"HostConfig": {"Memory": "1g"}},
        {"HostConfig": {"Memory": -1}},
        {"HostConfig": {"PortBindings": {"5001/tcp": [{"HostPort": "high"}]}}},
        {"HostConfig": {"PortBindings": {"5001/tcp": [{"HostPort": "70000"}]}}},
        {"HostConfig": {"PortBindings": {"5001/tcp": [5]}}},
        {"HostConfig": {"PortBindings": [5]}},
    ],
)
def test_options_of_a_wrong_type_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(FleetError) as caught:
        read_options(wrong, 5001)

    assert caught.value.code is Code.MODULE_START_FAILED
