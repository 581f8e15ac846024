"""The command line against a real hub over HTTPS: tables, JSON, errors, exit codes, help."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from https_lab import serve_https
from hub_lab import Lab, code_of, make_lab, module_manifest
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

from hub.__main__ import _demo
from hub.adapters.clock import SystemClock
from hub.api.app import create_app
from hub.cli.client import Context, HubClient, load_context
from hub.cli.images import pack
from hub.cli.main import Builders, create_cli
from hub.cli.options import pairs, tags
from hub.cli.render import plain, size
from protocol.errors import Code, FleetError, InvalidError
from protocol.ids import DeviceId
from protocol.messages import Telemetry, TelemetryRecord

GOLDEN = Path(__file__).parents[3] / "golden" / "cli"
WIDE = {"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1", "TERM": "dumb"}


@dataclass
class Desk:
    """A hub that runs, and the command line of somebody who administers it."""

    lab: Lab
    context: Path
    served: list[dict[str, str]]
    cli: typer.Typer

    def run(self, *words: str) -> Result:
        with capture_logs():  # the hub of this process must not write between the lines
            return CliRunner().invoke(self.cli, list(words), env=WIDE)

    def table(self, *words: str) -> str:
        result = self.run(*words)
        assert result.exception is None, result.exception
        return result.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.table(*words, "-o", "json"))

    def refusal(self, *words: str) -> str:
        """Return the code of the error a command ends with; nothing is printed as data."""
        result = self.run(*words)
        assert isinstance(result.exception, FleetError), result.exception
        assert result.stdout == ""
        return result.exception.code


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("hub")
    lab = make_lab(folder, SystemClock())
    token = lab.services.operators.issue("ann")
    tls = lab.authority.server_context(["127.0.0.1"], require_client=False)
    served: list[dict[str, str]] = []

    def write_broker(options: Any, target: Path, port: int) -> Path:
        served.append({**options, "port": str(port)})
        return target / "mosquitto.conf"

    with serve_https(create_app(lab.services, "0.1.0"), tls) as port:
        context = folder / "admin.json"
        url = f"https://127.0.0.1:{port}"
        content = {"url": url, "token": token, "ca": lab.authority.roots_pem()}
        context.write_text(json.dumps(content))
        clients: list[HubClient] = []

        def client() -> HubClient:
            clients.append(HubClient(load_context(context)))
            return clients[-1]

        builders = Builders(
            client, lambda options: served.append(dict(options)), write_broker, _demo, "0.1.0"
        )
        yield Desk(lab, context, served, create_cli(builders))
        for each in clients:
            each.close()


def rows(table: str) -> list[list[str]]:
    return [re.split(r" {2,}", line.strip()) for line in table.splitlines()]


# ---- models and images ---------------------------------------------------------------------------


def test_models_go_up_are_listed_shown_and_come_down(desk: Desk, tmp_path: Path) -> None:
    file, golden = tmp_path / "model.onnx", tmp_path / "golden.json"
    file.write_bytes(b"model" * 1000)
    golden.write_text('{"samples":[{"input":[1],"expected":[7]}]}')
    words = ["-n", "cli-model", "-p", str(file), "--golden", str(golden), "--tag", "a=b"]
    result = desk.run("model", "register", *words)

    assert result.exception is None, result.exception
    assert result.stderr == "registered cli-model:1\n"
    assert [rows(result.stdout)[3][0], rows(result.stdout)[3][1][:7]] == ["digest", "sha256:"]
    (found,) = desk.json("model", "list", "cli-model")
    assert found == desk.json("model", "show", "cli-model")
    assert (found["size"], found["tags"], found["goldenSamples"]) == (5000, {"a": "b"}, 1)
    heads, row = rows(desk.table("model", "list", "cli-model"))
    assert heads[0] == "model"
    assert (row[0], row[1]) == ("cli-model:1", "5.0 kB")

    target = tmp_path / "copy.onnx"
    assert desk.run("model", "download", "cli-model", str(target)).stderr == (
        f"wrote {target} (5.0 kB)\n"
    )
    assert target.read_bytes() == file.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy.onnx", "golden.json", "model.onnx"]


def test_a_download_to_nowhere_leaves_nothing(desk: Desk, tmp_path: Path) -> None:
    desk.lab.register("nowhere")

    assert desk.refusal("model", "download", "nowhere", str(tmp_path / "a" / "b")) == "file-missing"
    assert list(tmp_path.iterdir()) == []


def test_models_that_cannot_be_read_are_refused(desk: Desk, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_bytes(b"\xff{")
    model = ["model", "register", "-n", "x", "-p"]

    assert desk.refusal(*model, str(tmp_path / "none")) == "file-missing"
    assert desk.refusal(*model, str(broken), "--golden", str(broken)) == "request-invalid"
    assert desk.refusal(*model, str(broken), "--tag", "nothing") == "request-invalid"
    assert desk.refusal("model", "show", "x") == "model-unknown"
    assert desk.refusal("model", "show", "x/../../y") == "request-invalid"


def test_images_are_built_and_shown(desk: Desk, tmp_path: Path) -> None:
    desk.lab.register("for-image")
    (tmp_path / "score.py").write_text("def init(): ...\ndef run(data): ...\n")
    words = ["-n", "team/cli-image", "-m", "for-image", "--source", str(tmp_path), "--no-wait"]
    image = desk.json("image", "create", *words, "--entry-script", "score.py")
    assert (image["state"], image["version"]) == ("building", 1)
    desk.lab.work_off()

    assert desk.json("image", "show", "team/cli-image:1")["state"] == "ready"
    heads, row = rows(desk.table("image", "list", "team/cli-image"))
    assert heads == ["image", "state", "models", "size", "digest"]
    assert row[:3] == ["team/cli-image:1", "ready", "for-image:1"]
    assert desk.refusal("image", "show", "none") == "image-unknown"
    assert desk.refusal("image", "create", "-n", "X", "-m", "for-image") == "id-invalid"


def test_a_build_is_followed_to_its_end(desk: Desk) -> None:
    desk.lab.register("follow")
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(desk.run, "image", "create", "-n", "followed", "-m", "follow")
        while not desk.lab.jobs and not done.done():
            time.sleep(0.01)
        desk.lab.work_off()
        built = done.result()
        assert built.stderr == "followed:1: waiting for its turn\n"
        assert ["state", "ready"] in rows(built.stdout)
        desk.lab.builder.refusals["build"] = InvalidError(
            "no wheel", code=Code.DEPENDENCY_UNSATISFIABLE, hint="pin it"
        )
        failing = pool.submit(desk.refusal, "image", "create", "-n", "followed", "-m", "follow")
        while not desk.lab.jobs and not failing.done():
            time.sleep(0.01)
        desk.lab.work_off()
        desk.lab.builder.refusals.clear()
        assert failing.result() == "dependency-unsatisfiable"


def test_a_source_folder_packs_the_same_each_time(tmp_path: Path) -> None:
    (tmp_path / "b.py").write_text("b")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "c.py").write_text("c")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "b.pyc").write_text("x")
    first = pack(tmp_path).getvalue()
    os.utime(tmp_path / "b.py", (1, 1))

    assert pack(tmp_path).getvalue() == first
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        assert tar.getnames() == ["a/c.py", "b.py"]


def test_a_source_folder_holds_files_and_not_too_much(tmp_path: Path) -> None:
    assert code_of(lambda: pack(tmp_path / "none")) == "file-missing"
    (tmp_path / "link").symlink_to("/etc/passwd")
    assert code_of(lambda: pack(tmp_path)) == "request-invalid"
    (tmp_path / "link").unlink()
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(10**12)
    assert code_of(lambda: pack(tmp_path)) == "too-large"


# ---- devices, deployments, telemetry -------------------------------------------------------------


def test_devices_are_invited_listed_tagged_and_retired(desk: Desk) -> None:
    invitation = desk.run("device", "invite", "new-1", "--tag", "site=plant-7")
    assert "rimward-agent enroll" in invitation.stderr
    assert rows(invitation.stdout)[1][0].startswith("rw1.")
    desk.lab.enroll("cli-1", site="plant-7")

    assert desk.json("device", "tag", "cli-1", "floor=3", "hot=true", "x=NaN", "site=null") == {
        "floor": 3,
        "hot": True,
        "x": "NaN",
    }
    assert ["tags", '{"floor": 3, "hot": true, "x": "NaN"}'] in rows(
        desk.table("device", "show", "cli-1")
    )
    assert desk.run("device", "retire", "cli-1").stderr == "retired cli-1\n"
    listed = {row[0]: row for row in rows(desk.table("device", "list"))}
    assert listed["cli-1"][2] == "retired"
    assert desk.refusal("device", "show", "a#b?c") == "id-invalid"
    assert desk.refusal("device", "invite", "Press 7") == "id-invalid"
    assert desk.refusal("device", "tag", "cli-1", "nothing") == "request-invalid"


def test_a_device_that_reports_rubbish_does_not_break_the_list(desk: Desk) -> None:
    desk.lab.enroll("rubbish")
    desk.lab.tell(
        "rubbish",
        {"modules": {"m": "[/red]\x1b[2J", "n": {"runtimeStatus": ["x"]}}, "x-update": 7},
    )
    listed = {row[0]: row for row in rows(desk.table("device", "list"))}

    assert "n ['x']" in " ".join(listed["rubbish"])
    shown = desk.table("device", "show", "rubbish")
    assert "[/red]" in shown
    assert "\x1b" not in shown


def test_profiles_are_listed(desk: Desk) -> None:
    assert "generic-x86" in [row[0] for row in rows(desk.table("device", "profiles"))]


def test_a_deployment_is_created_shown_and_aborted(desk: Desk, tmp_path: Path) -> None:
    lab = desk.lab
    lab.register("cli-deploy")
    image = lab.image("cli-deploy-image", "cli-deploy")
    lab.enroll("target-1", role="cli")
    words = ["-t", "tags.role = 'cli'", "--image", image, "--waves", "1,50%", "--label", "a=b"]
    created = desk.run("deployment", "create", "d#1", *words)
    assert created.exception is None, created.exception
    assert "rimward deployment show d#1" in created.stderr
    assert rows(created.stdout)[1][:2] == ["d#1", "rolling"]

    lab.report("target-1", failed="probe-failed")
    shown = desk.run("deployment", "show", "d#1")
    assert "aborted: wave 1: 1 of 1 devices failed" in shown.stderr
    assert rows(shown.stdout)[1] == [
        "target-1",
        "failed",
        "1",
        "probe-failed: it does not answer",
    ]
    assert desk.json("deployment", "abort", "d#1")["state"] == "aborted"
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps(module_manifest(image)))
    again = ["deployment", "create", "d2", "-t", "*", "--manifest", str(manifest)]
    assert desk.json(*again)["models"] == ["cli-deploy:1"]
    assert {d["id"] for d in desk.json("deployment", "list")} == {"d#1", "d2"}
    assert desk.refusal(*again, "--priority", "9") == "deployment-exists"
    assert desk.refusal("deployment", "create", "d3", "-t", "*") == "request-invalid"
    assert desk.refusal("deployment", "create", "d3", "-t", "x", "--image", image) == (
        "condition-invalid"
    )
    assert desk.refusal("deployment", "show", "d/2") == "request-invalid"


def test_telemetry_is_shown_counted_and_judged(desk: Desk, tmp_path: Path) -> None:
    lab, device = desk.lab, DeviceId("speaker")
    lab.enroll(device, "laptop")
    bodies = [b'{"label":7}', b"two\nlines\x1b[2J", b"\xff"]
    records = [
        TelemetryRecord(n, "m", "out", 0, body, {"input": "x", "latencyMs": "4"})
        for n, body in enumerate(bodies, 1)
    ]
    lab.services.telemetry.write([(device, Telemetry("e", records))])
    truth = tmp_path / "truth.json"
    truth.write_text('{"x": 7}')

    lines = desk.table("telemetry", "tail", "--device", "speaker", "-n", "3").splitlines()
    assert [line.split(" ", 3)[3] for line in lines] == [
        '{"label":7}',
        r"two\nlines\x1b[2J",
        "(/w==)",
    ]
    newest = desk.table("telemetry", "tail", "-n", "1", "-o", "json")
    assert json.loads(newest)["data"] == "/w=="
    assert ["speaker", "3"] in rows(desk.table("telemetry", "stats"))
    assert desk.json("telemetry", "score", str(truth))["speaker"]["right"] == 1
    assert rows(desk.table("telemetry", "score", str(truth), "--by", "profile"))[1] == [
        "laptop",
        "3",
        "3",
        "33.3%",
        "4.0",
        "4.0",
    ]
    assert desk.refusal("telemetry", "score", str(truth), "--key", "x") == "request-invalid"
    assert desk.refusal("telemetry", "tail", "--device", "A b") == "id-invalid"


def test_a_hub_is_started_with_what_was_said(desk: Desk) -> None:
    desk.table("hub", "up", "--host", "0.0.0.0", "--https-port", "0")
    told = desk.run("hub", "broker-config", "conf", "--host", "b.example", "--port", "1884")

    up, broker = desk.served[-2:]
    assert {k: v for k, v in up.items() if v} == {"HOST": "0.0.0.0", "HTTPS_PORT": "0"}
    assert broker == {"DATA": "", "ADVERTISE": "b.example", "port": "1884"}
    assert "rimward hub up --broker mqtts://b.example:1884" in told.stderr


# ---- parts ---------------------------------------------------------------------------------------


def test_options_become_values() -> None:
    assert pairs(["a=b=c", "d="]) == {"a": "b=c", "d": ""}
    assert tags(["a=1", "b=1.5", "c=x y", "d=[1]", "e=Infinity", "f=" + "[" * 9999]) == {
        "a": 1,
        "b": 1.5,
        "c": "x y",
        "d": [1],
        "e": "Infinity",
        "f": "[" * 9999,
    }
    assert code_of(lambda: pairs(["=x"])) == "request-invalid"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (10**13, "10000.0 GB")]
)
def test_sizes_for_people(count: int, text: str) -> None:
    assert size(count) == text


def test_control_characters_are_written_out() -> None:
    assert plain("é [b]") == "é [b]"
    assert plain("a\x1b\n\u202e") == "a\\x1b\\n\\u202e"


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"url":"x"}', '{"url":"https://h","token":"t","ca":""}', "\udcff"]
    + [json.dumps({"url": url, "token": t, "ca": ca}) for url, t, ca in [
        ("https://h", "t", "rubbish"), (1, "t", "x"), ("http://h", "t", "x"), ("https://h", 1, "x")
    ]],
)  # fmt: skip
def test_a_file_that_is_no_context_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "admin.json"
    path.write_bytes(content.encode(errors="surrogateescape"))

    assert code_of(lambda: load_context(path)) == "settings-invalid"


def test_a_hub_that_is_not_one_is_said_to_be_none(desk: Desk) -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 502, "headers": []})
        await send({"type": "http.response.body", "body": b"<html>"})

    tls = desk.lab.authority.server_context(["127.0.0.1"], require_client=False)
    with serve_https(app, tls) as port:
        ca = desk.lab.authority.roots_pem()
        client = HubClient(Context(f"https://127.0.0.1:{port}", "t", ca))
        assert code_of(lambda: client.get("/api/v1/devices")) == "internal"
        client.close()


def test_a_download_that_breaks_off_or_is_damaged_leaves_nothing(
    desk: Desk, tmp_path: Path
) -> None:
    async def app(scope: Any, _receive: Any, send: Any) -> None:
        damaged = scope["path"] == "/damaged"
        headers = [(b"content-length", b"4" if damaged else b"9"), (b"x-digest", b"sha256:0")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"half", "more_body": not damaged})

    tls = desk.lab.authority.server_context(["127.0.0.1"], require_client=False)
    with serve_https(app, tls) as port:
        ca = desk.lab.authority.roots_pem()
        client = HubClient(Context(f"https://127.0.0.1:{port}", "t", ca))
        for path, code in [("/damaged", "digest-mismatch"), ("/cut", "hub-unreachable")]:
            target = tmp_path / "model"
            refused = code_of(
                lambda p=path, t=target: client.download(p, t, lambda _piece, _all: None)  # type: ignore[misc]  # bound now
            )
            assert refused == code
        client.close()
    assert list(tmp_path.iterdir()) == []


# ---- the program ---------------------------------------------------------------------------------


def program(*words: str, context: Path) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("RIMWARD_")}
    return subprocess.run(
        [sys.executable, "-m", "hub", *words],
        env=env | WIDE | {"RIMWARD_CONTEXT": str(context)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def changed(desk: Desk, tmp_path: Path, **fields: str) -> Path:
    path = tmp_path / "admin.json"
    path.write_text(json.dumps(json.loads(desk.context.read_text()) | fields))
    return path


def test_an_error_is_two_lines_on_stderr_and_an_exit_code(desk: Desk, tmp_path: Path) -> None:
    wrong_token = changed(desk, tmp_path, token="rwo_x")
    cases = [
        (["device", "list"], wrong_token, "token-invalid", 1),
        (["device", "list"], tmp_path / "none.json", "file-missing", 2),
        (["device", "show", "nobody"], desk.context, "device-unknown", 1),
        (["model", "register", "-n", "x", "-p", "/none"], desk.context, "file-missing", 2),
    ]

    for words, context, code, status in cases:
        done = program(*words, context=context)
        error, hint = done.stderr.splitlines()
        assert error.startswith(f"error[{code}]: ")
        assert hint.startswith("hint: ")
        assert (done.returncode, done.stdout) == (status, "")


def test_a_hub_that_does_not_answer_is_worth_another_try(desk: Desk, tmp_path: Path) -> None:
    context = changed(desk, tmp_path, url="https://127.0.0.1:1")
    done = program("device", "list", context=context)

    assert done.returncode == 3
    assert done.stderr.startswith("error[hub-unreachable]: the hub at 'https://127.0.0.1:1'")


def test_a_wrong_option_is_a_usage_error(desk: Desk) -> None:
    done = program("device", "list", "--colour", context=desk.context)

    assert done.returncode == 2
    assert "No such option" in done.stderr
    assert "Traceback" not in done.stderr


def test_data_goes_to_stdout_alone(desk: Desk) -> None:
    done = program("deployment", "list", "-o", "json", context=desk.context)

    assert isinstance(json.loads(done.stdout), list)
    assert (done.stderr, done.returncode) == ("", 0)


def test_help_waits_for_nothing_it_does_not_need() -> None:
    script = (
        "import sys; sys.argv = ['rimward', '--help']\n"
        "from hub.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'sqlalchemy', 'fastapi', 'httpx', 'uvicorn', 'pydantic', 'cryptography'}\n"
        "print(sorted((heavy | {'rich.progress'}) & set(sys.modules)), file=sys.stderr)\n"
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith("RIMWARD_")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=env | WIDE, capture_output=True, text=True, check=True
    )

    assert done.stderr == "[]\n"
    assert "deployment" in done.stdout


def commands(app: typer.Typer) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command, groups included."""

    def below(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield words
        for name, inner in sorted(getattr(command, "commands", {}).items()):
            yield from below(inner, (*words, name))

    yield from below(typer.main.get_command(app), ())


def test_the_help_of_every_command_is_what_it_was(desk: Desk) -> None:
    names = set()
    for words in commands(desk.cli):
        shown = desk.run(*words, "--help")
        assert shown.exit_code == 0
        text = re.sub(r"\x1b\[[0-9;]*m", "", shown.stdout)
        text = "\n".join(line.rstrip() for line in text.splitlines()).strip() + "\n"
        text = text.replace("Usage: root", "Usage: rimward")
        path = GOLDEN / f"{'-'.join(('rimward', *words))}.txt"
        names.add(path.name)
        if os.environ.get("RIMWARD_UPDATE_GOLDEN") == "1":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert text == path.read_text(), path.name

    assert {path.name for path in GOLDEN.glob("rimward*.txt")} == names
    assert len(names) > 20
