"""`rimward-agent` as people meet it: real processes."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from wire_samples import DEVICE, DEVICE_KEY, samples

from agent.adapters.identity import load_identity
from protocol import codec
from protocol.messages import Enrolled

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests" / "golden" / "cli"
PAGES = {
    "agent": (),
    "agent-enroll": ("enroll",),
    "agent-run": ("run",),
    "agent-list": ("list",),
    "agent-logs": ("logs",),
    "agent-stop-modules": ("stop-modules",),
}


def call(*arguments: str, given: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RIMWARD_AGENT_")}
    return subprocess.run(
        [sys.executable, "-m", "agent", *arguments],
        cwd=ROOT,
        env=clean | {"COLUMNS": "100"} | environment,
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def enrolled(tmp_path: Path) -> Path:
    """A home with an identity, as an enrolment leaves it."""
    answer = samples()["enrolled"]
    assert isinstance(answer, Enrolled)
    folder = tmp_path / "identity"
    folder.mkdir()
    stored = {"hubUrl": "https://127.0.0.1:9", "enrolled": json.loads(codec.encode(answer))}
    (folder / "enrolled.json").write_text(json.dumps(stored))
    key = DEVICE_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "credential.pem").write_text(key.decode() + answer.certificate)
    (folder / "ca.pem").write_text(answer.ca)
    assert load_identity(tmp_path)[0].device == DEVICE
    return tmp_path


@pytest.mark.parametrize("name", PAGES)
def test_the_help_is_the_golden_one(name: str) -> None:
    page = call(*PAGES[name], "--help").stdout
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("RIMWARD_UPDATE_GOLDEN") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page)

    assert page == path.read_text()


def test_every_command_has_a_golden_page() -> None:
    listed = call("--help").stdout.partition("COMMAND\n")[2].partition("\n\n")[0]
    commands = {line.split()[0] for line in listed.splitlines() if line[:5].strip()}

    assert commands == {arguments[0] for arguments in PAGES.values() if arguments}


@pytest.mark.parametrize("command", [("run",), ("list",), ("logs", "digits"), ("stop-modules",)])
def test_without_an_identity_the_way_to_one_is_shown(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    done = call(*command, "--home", str(tmp_path))

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"error[not-enrolled]: the agent in {str(tmp_path)!r} has no identity yet\n"
        "hint: enrol it: `rimward-agent enroll --claim ...`\n"
    )


def test_the_home_may_come_from_the_environment(tmp_path: Path) -> None:
    done = call("run", RIMWARD_AGENT_HOME=str(tmp_path))

    assert f"the agent in {str(tmp_path)!r} has no identity yet" in done.stderr


def test_a_wrong_setting_is_a_usage_error(tmp_path: Path) -> None:
    done = call("run", "--home", str(tmp_path), RIMWARD_AGENT_TICK_SECONDS="soon")

    assert done.returncode == 2
    assert done.stderr == (
        "error[settings-invalid]: setting 'RIMWARD_AGENT_TICK_SECONDS' is 'soon'\n"
        "hint: give seconds above 0, at most 3600\n"
    )


def test_an_unknown_setting_is_a_usage_error(tmp_path: Path) -> None:
    done = call("run", "--home", str(tmp_path), RIMWARD_AGENT_TICKS="1")

    assert (done.returncode, "'RIMWARD_AGENT_TICKS' is not a setting" in done.stderr) == (2, True)


@pytest.mark.parametrize("source", ["option", "stdin"])
def test_a_claim_that_is_none_is_refused_and_not_repeated(source: str, tmp_path: Path) -> None:
    claim = "rw1.not-a-claim"
    done = call(
        "enroll",
        *("--home", str(tmp_path), "--profile", "generic-x86"),
        *("--claim", "-" if source == "stdin" else claim),
        given=claim + "\n",
    )

    assert done.returncode == 1
    assert done.stderr.startswith("error[claim-invalid]: the claim token does not have the form")
    assert "\nhint: " in done.stderr
    assert "not-a-claim" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["run", "stop-modules"])
def test_a_second_agent_in_the_same_home_is_refused(command: str, enrolled: Path) -> None:
    with (enrolled / "agent.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        done = call(command, "--home", str(enrolled))

    assert done.returncode == 1
    assert done.stderr == (
        f"error[state-conflict]: another agent runs in {str(enrolled)!r}\n"
        "hint: stop it first, or choose another folder with --home\n"
    )


def test_an_agent_runs_without_its_hub_until_it_is_told_to_stop(enrolled: Path) -> None:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RIMWARD_AGENT_")}
    with subprocess.Popen(
        [sys.executable, "-m", "agent", "run", "--runtime", "process", "--home", str(enrolled)],
        cwd=ROOT,
        env=clean | {"RIMWARD_AGENT_MQTT": "127.0.0.1:9"},
        stderr=subprocess.PIPE,
        text=True,
    ) as agent:
        for _ in range(600):
            if (enrolled / "status.json").exists() or agent.poll() is not None:
                break
            time.sleep(0.05)
        second = call("run", "--home", str(enrolled))
        agent.send_signal(signal.SIGTERM)
        _, errors = agent.communicate(timeout=30)

    assert (agent.returncode, second.returncode) == (0, 1), errors
    assert "error[state-conflict]: another agent runs in" in second.stderr
    assert "crashed" not in errors
    listed = json.loads(call("list", "--home", str(enrolled), "-o", "json").stdout)
    assert listed["runtime"] == {"type": "docker", "x-kind": "process"}


def test_a_list_before_the_first_run_says_so(enrolled: Path) -> None:
    done = call("list", "--home", str(enrolled))

    assert done.returncode == 1
    assert done.stderr.startswith("error[module-unknown]: the agent has not run yet\nhint: ")


def test_a_list_shows_the_newest_report(enrolled: Path) -> None:
    digits = {
        "runtimeStatus": "running",
        "restartCount": 2,
        "settings": {"image": "hub.example/digits@sha256:0"},
    }
    report = {
        "modules": {"digits": digits},
        "x-update": {
            "deployment": "d2",
            "state": "rolled-back",
            "code": "probe-failed",
            "message": "no answer",
        },
    }
    (enrolled / "status.json").write_text(json.dumps(report))

    table = call("list", "--home", str(enrolled))
    data = call("list", "--home", str(enrolled), "-o", "json")

    assert table.stdout == (
        "MODULE                  STATUS      RESTARTS  IMAGE\n"
        "digits                  running     2         hub.example/digits@sha256:0\n"
        "last update: d2 rolled-back: probe-failed: no answer\n"
    )
    assert json.loads(data.stdout) == report


def test_a_defect_ends_with_an_exit_code_of_its_own(enrolled: Path) -> None:
    (enrolled / "status.json").write_text('{"modules": 5}')

    done = call("list", "--home", str(enrolled))

    assert (done.returncode, "agent.crashed" in done.stderr) == (70, True)


TOO_LARGE = ("docker", "fastapi", "httpx", "pydantic", "rich", "sqlalchemy", "starlette", "typer")


def imported(prepare: str) -> tuple[int, str, str]:
    code = f"import sys\n{prepare}\nimport agent.__main__\nprint(*sorted(sys.modules))\n"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_agent_loads_nothing_that_is_too_large_for_a_device() -> None:
    code, modules, errors = imported("")

    # structlog takes rich along where it is installed; on a device it is not
    assert (code, errors) == (0, "")
    assert set(modules.split()) & set(TOO_LARGE) <= {"rich"}


def test_the_agent_needs_nothing_that_is_too_large_for_a_device() -> None:
    code, modules, errors = imported(f"for name in {TOO_LARGE!r}: sys.modules[name] = None")

    assert (code, errors) == (0, "")
    assert "agent.loop" in modules.split()
