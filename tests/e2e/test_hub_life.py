"""Start, stop and misfortune of a hub: it ends in order when told to, and for nothing less."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from plant import MODULE, Plant, free_port, plant, wait_for
from sqlalchemy import make_url

from hub.cli.client import HubClient, load_context
from hub.demo.digits import Digits
from hub.demo.processes import Processes, say_to
from protocol.errors import Code, FleetError

pytest_plugins = ["store_fixtures"]
FRAMES = 60
REFUSED = 1
# A stop that takes longer is killed by whoever supervises the hub.
STOP_SECONDS = 30


@pytest.fixture
def works(tmp_path: Path, digits: Digits) -> Iterator[Plant]:
    with plant(tmp_path, digits) as made:
        yield made


def said(works: Plant) -> str:
    return (works.folder / "hub.log").read_text()


def listens(works: Plant) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", works.https_port)) == 0


def stop_hub(works: Plant, *, signals: int = 1) -> int:
    for _ in range(signals):
        works.processes["hub"].send_signal(signal.SIGTERM)
    return works.processes["hub"].wait(STOP_SECONDS)


def up(works: Plant, data: Path) -> tuple[int, str]:
    ports = ["--https-port", str(free_port()), "--mqtt-port", str(free_port())]
    done = works.run("hub", "hub", "up", "--data", str(data), *ports)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def code_of(client: HubClient, path: str = "/api/v1/models") -> Code | None:
    try:
        client.get(path)
    except FleetError as error:
        return error.code
    return None


# ---- start ---------------------------------------------------------------------------------------


@pytest.mark.e2e
def test_a_second_hub_on_the_same_folder_is_refused_and_harms_nothing(works: Plant) -> None:
    works.start_hub()
    assert works.client
    before = works.admin.read_bytes()

    code, words = up(works, works.folder / "hub")

    assert code == REFUSED
    assert "error[state-conflict]" in words
    assert "--data" in words
    assert works.admin.read_bytes() == before
    assert works.client.get("/api/v1/models") == []


@pytest.mark.e2e
def test_the_folder_is_free_again_after_a_kill(works: Plant) -> None:
    works.start_hub()
    assert works.client
    works.kill("hub")

    works.start_hub()

    assert works.client.get("/api/v1/models") == []


@pytest.mark.e2e
def test_a_folder_that_cannot_be_used_is_named(works: Plant) -> None:
    (works.folder / "file").write_text("in the way")

    code, words = up(works, works.folder / "file" / "hub")

    assert (code, "error[settings-invalid]" in words) == (2, True)
    assert str(works.folder / "file" / "hub") in words


@pytest.mark.e2e
def test_an_admin_file_that_cannot_be_written_ends_the_hub_with_its_name(works: Plant) -> None:
    works.admin.mkdir(parents=True)

    code, words = up(works, works.folder / "hub")

    assert (code, "error[settings-invalid]" in words) == (2, True)
    assert str(works.admin) in words
    assert "event=mqtt.front_stopped" in words


@pytest.mark.e2e
def test_whoever_connects_as_soon_as_one_can_is_answered(works: Plant) -> None:
    works.start_hub()
    wait_for("the listener", lambda: listens(works))

    trust = ssl.create_default_context()
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    early = http.client.HTTPSConnection("127.0.0.1", works.https_port, timeout=30, context=trust)
    with closing(early):
        early.request("GET", "/api/v1/models")
        answer = early.getresponse()

        assert answer.status == 401
        assert json.loads(answer.read())["code"] == "token-invalid"


@pytest.mark.e2e
def test_a_new_admin_file_makes_the_lost_token_worthless(works: Plant) -> None:
    works.start_hub()
    assert works.client
    lost = load_context(works.admin)
    works.admin.unlink()
    stop_hub(works)
    works.start_hub()
    wait_for("admin.json", works.admin.exists)

    old, new = HubClient(lost), HubClient(load_context(works.admin))

    wait_for("the hub", lambda: code_of(new) is None)
    assert code_of(old) == Code.TOKEN_INVALID
    old.close()
    new.close()


# ---- stop ----------------------------------------------------------------------------------------


@pytest.mark.e2e
def test_a_stop_before_the_hub_is_ready_is_obeyed(works: Plant) -> None:
    works.start_hub()
    wait_for("the listener", lambda: listens(works))

    assert stop_hub(works) == 0
    assert "event=mqtt.front_stopped" in said(works)
    assert "Traceback" not in said(works)


@pytest.mark.e2e
def test_two_stops_under_load_lose_nothing(works: Plant) -> None:
    works.start_hub()
    works.enroll("press-1")
    works.start_agent("press-1")
    works.deploy("v1", works.package(works.register()))
    works.wait_deployed("v1", 1)
    sent = works.feed_all("press-1", FRAMES)
    wait_for("some inferences", lambda: works.stored() >= FRAMES // 4)

    assert stop_hub(works, signals=2) == 0
    assert "Traceback" not in said(works)
    assert works.ledger("press-1") <= {(epoch, seq) for _, epoch, seq, _ in works.database()}
    works.start_hub()
    wait_for("all inferences", lambda: len(works.database()) >= FRAMES)
    assert [name for *_, name in works.database()] == sent


@pytest.mark.e2e
def test_an_image_in_the_making_does_not_hold_up_the_end(works: Plant) -> None:
    # An index that takes connections and never answers: the build waits for it.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        index = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        works.start_hub(UV_DEFAULT_INDEX=index, UV_INDEX_URL=index, UV_HTTP_TIMEOUT="600")
        model = works.register()
        for name in ("first", "second"):
            body = {"name": name, "models": [model], "requirements": ["tomli==2.0.1"]}
            works.client.post("/api/v1/images", {**body, "base": "host"})
        silent.settimeout(60)
        waiting, _ = silent.accept()
        with waiting:
            assert stop_hub(works) == 0
    works.start_hub()

    images = works.client.get("/api/v1/images")
    assert {image["state"] for image in images} == {"failed"}
    assert all("restarted" in image["error"] for image in images)


# ---- the database --------------------------------------------------------------------------------


@pytest.mark.e2e
@pytest.mark.postgres
def test_a_database_that_goes_away_and_comes_back_costs_nothing(
    tmp_path: Path, digits: Digits, postgres_url: str
) -> None:
    url, cables = make_url(postgres_url), Processes(tmp_path / "cables")
    cable, port = cables.link("database", f"{url.host}:{url.port}")
    through = url.set(port=port).render_as_string(hide_password=False)
    with cable.process, plant(tmp_path, digits, database=through) as works:
        works.start_hub()
        works.enroll("press-1")
        works.start_agent("press-1")
        works.deploy("v1", works.package(works.register()))
        works.wait_deployed("v1", 1)
        sent = works.feed_all("press-1", FRAMES)
        wait_for("some inferences", lambda: works.stored() >= FRAMES // 4)

        client = works.client
        say_to(cable, "cut")
        wait_for("the outage", lambda: code_of(client) == Code.DATABASE_UNAVAILABLE)
        wait_for("a failed chore", lambda: "event=chore.failed" in said(works))
        sent += works.feed_all("press-1", FRAMES, start=FRAMES)
        inputs = works.home("press-1") / "inputs" / MODULE
        wait_for("the device to work on", lambda: not any(inputs.glob("*.json")))
        say_to(cable, "heal")

        wait_for("the hub", lambda: code_of(client) is None)
        wait_for("all inferences", lambda: works.stored() >= len(sent))
        rows = works.client.get("/api/v1/telemetry", limit=1000)
        assert [row["properties"]["input"] for row in rows] == sent
        assert stop_hub(works) == 0
        say_to(cable, "quit")


@pytest.mark.e2e
@pytest.mark.postgres
def test_a_database_that_hangs_does_not_hold_up_the_end(
    tmp_path: Path, digits: Digits, postgres_url: str
) -> None:
    url, cables = make_url(postgres_url), Processes(tmp_path / "cables")
    cable, port = cables.link("database", f"{url.host}:{url.port}")
    through = url.set(port=port).render_as_string(hide_password=False)
    with cable.process, plant(tmp_path, digits, database=through) as works:
        works.start_hub()
        works.enroll("press-1")
        works.start_agent("press-1")
        client = works.client
        wait_for("the device", lambda: client.get("/api/v1/devices/press-1")["connected"])

        say_to(cable, "cut silence")
        time.sleep(3)  # until the chore of every second waits for an answer, too

        assert stop_hub(works) == 0
        assert "Traceback" not in said(works)
        say_to(cable, "quit")
