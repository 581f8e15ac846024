"""The HTTP rim: who may ask, what every failure looks like, paging, uploads, the documents."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from asgi_lab import asgi_client
from fastapi import FastAPI
from fastapi.routing import APIRoute
from hub_lab import Lab, csr, make_lab, module_manifest, sha256
from structlog.testing import capture_logs

from hub.api.app import create_app
from hub.api.limits import MAX_JSON_BYTES
from protocol import codec
from protocol.errors import CATALOGUE, Code, FleetError
from protocol.ids import DeviceId
from protocol.messages import (
    Credential,
    CredentialRequest,
    Enrolled,
    EnrollRequest,
    Problem,
    Renewed,
    RenewRequest,
    Telemetry,
    TelemetryRecord,
)

GOLDEN = Path(__file__).parents[3] / "golden" / "api" / "openapi.json"
OPEN = {"/health/live", "/health/ready", "/pki/ca.pem", "/device/v1/enroll"}
DEVICE = DeviceId("press-7")


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return make_lab(tmp_path)


@pytest.fixture
def app(lab: Lab) -> FastAPI:
    return create_app(lab.services, "0.1.0")


@pytest.fixture
def stranger(app: FastAPI) -> Iterator[httpx.Client]:
    with asgi_client(app) as client:
        yield client


@pytest.fixture
def api(app: FastAPI, lab: Lab) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {lab.services.operators.issue('ann')}"}
    with asgi_client(app, headers=headers) as client:
        yield client


def problem(response: httpx.Response) -> tuple[int, str]:
    """Return status and code of a problem document, whole as it must be."""
    body = response.json()
    assert set(body) == {"code", "message", "hint"}
    assert body["code"] in set(Code)
    assert body["message"]
    return response.status_code, body["code"]


def routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    for path, methods in app.openapi()["paths"].items():
        for method in methods:
            yield method.upper(), path


class AsDevice:
    """The application behind a connection that shows a client certificate."""

    def __init__(self, app: FastAPI, certificate: str) -> None:
        self._app, self._chain = app, (certificate,)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        tls = {"client_cert_chain": self._chain, "server_cert": None, "tls_version": None}
        await self._app({**scope, "extensions": {"tls": tls}}, receive, send)


# ---- who may ask ---------------------------------------------------------------------------------


def test_every_operator_route_needs_a_token(stranger: httpx.Client, app: FastAPI) -> None:
    asked = [(method, path) for method, path in routes(app) if path.startswith("/api/v1")]
    assert len(asked) > 20

    for method, path in asked:
        for headers in ({}, {"Authorization": "Bearer rwo_x"}, {"Authorization": "Basic eDp5"}):
            response = stranger.request(method, path, headers=headers)
            assert problem(response) == (401, "token-invalid"), (method, path)
            assert response.headers["www-authenticate"] == "Bearer"


def test_every_device_route_but_enrolment_needs_a_certificate(
    stranger: httpx.Client, app: FastAPI
) -> None:
    asked = [(m, p) for m, p in routes(app) if p.startswith("/device/v1") and p not in OPEN]
    assert len(asked) == 2

    for method, path in asked:
        assert problem(stranger.request(method, path)) == (403, "certificate-invalid")


def test_nothing_else_is_open(app: FastAPI) -> None:
    prefixes = ("/api/v1/", "/device/v1/")

    assert {path for _, path in routes(app) if not path.startswith(prefixes)} | {
        "/device/v1/enroll"
    } == OPEN
    assert all(isinstance(route, APIRoute) or route.path == "/openapi.json" for route in _flat(app))


def _flat(app: FastAPI) -> list[Any]:
    return [route for route in app.routes if hasattr(route, "path")]


def test_the_open_routes_answer_anybody(stranger: httpx.Client, lab: Lab) -> None:
    assert stranger.get("/health/live").text == "live\n"
    assert stranger.get("/health/ready").text == "ready\n"
    assert stranger.get("/pki/ca.pem").text == lab.authority.roots_pem()


# ---- failures ------------------------------------------------------------------------------------


def test_the_catalogue_has_every_code() -> None:
    assert set(CATALOGUE) == set(Code)


@pytest.mark.parametrize("code", list(Code))
def test_every_error_becomes_a_problem_with_its_status(app: FastAPI, code: Code) -> None:
    @app.get("/fail")
    def fail() -> None:
        raise FleetError("something in 'quotes'", code=code, hint="do something")

    response = asgi_client(app).get("/fail")

    assert problem(response) == (CATALOGUE[code].http_status, code.value)
    assert codec.decode(response.content, Problem).hint == "do something"


def test_a_defect_tells_nothing_of_itself(app: FastAPI) -> None:
    @app.get("/crash")
    def crash() -> None:
        raise RuntimeError("secret")

    with capture_logs() as logs:
        response = asgi_client(app).get("/crash")

    assert problem(response) == (500, "internal")
    assert "secret" not in response.text
    assert logs[0]["event"] == "request.crashed"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("DELETE", "/api/v1/models", 405), ("GET", "/api/v1/models/", 404)],
)
def test_other_paths_and_methods_are_problems_too(
    api: httpx.Client, method: str, path: str, status: int
) -> None:
    response = api.request(method, path, follow_redirects=False)

    assert problem(response) == (status, "request-invalid")
    assert ("allow" in response.headers) is (status == 405)


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("models", b"", 422, "request-invalid"),
        ("models", b"{", 422, "request-invalid"),
        ("models", b"[1]", 422, "request-invalid"),
        ("models", b'{"name":1,"digest":"x","filename":"y"}', 422, "request-invalid"),
        ("models", b"[" * 100_000, 400, "request-invalid"),
        ("models", b'{"unknown":1}', 422, "request-invalid"),
        ("invitations", b'{"deviceId":"a","hours":0}', 422, "request-invalid"),
        ("invitations", b'{"deviceId":"a","hours":NaN}', 422, "request-invalid"),
        ("invitations", b'{"deviceId":"A b"}', 422, "id-invalid"),
        ("invitations", b'{"deviceId":"a","tags":{"a":"\\ud800"}}', 422, "twin-invalid"),
        ("images", b'{"name":"x","models":[]}', 422, "request-invalid"),
        ("images", b'{"name":"x","models":["none"]}', 404, "model-unknown"),
        ("telemetry/score", b'{"truth":{},"by":"colour"}', 422, "request-invalid"),
        ("devices/none/retire", b"", 404, "device-unknown"),
        ("deployments/none/abort", b"", 404, "deployment-unknown"),
    ],
)
def test_bad_requests_are_refused_with_their_reason(
    api: httpx.Client, path: str, body: bytes, status: int, code: str
) -> None:
    response = api.post(
        f"/api/v1/{path}", content=body, headers={"Content-Type": "application/json"}
    )

    assert problem(response) == (status, code)


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"targetCondition": "tags."}, 422, "condition-invalid"),
        ({"waves": "ten"}, 422, "request-invalid"),
        ({"minSuccess": 2}, 422, "request-invalid"),
        ({"priority": 2**31}, 422, "request-invalid"),
        ({"soakSeconds": -1}, 422, "request-invalid"),
        ({"id": "no id"}, 422, "id-invalid"),
        ({"manifest": {}}, 422, "manifest-invalid"),
        ({"manifest": {"a": "\ud800"}}, 422, "manifest-invalid"),
        ({"manifest": {"a": 10**30}}, 422, "manifest-invalid"),
        ({}, 404, "image-unknown"),
    ],
)
def test_bad_deployments_leave_nothing(
    api: httpx.Client, change: dict[str, Any], status: int, code: str
) -> None:
    body = {"id": "d", "manifest": module_manifest("none:1"), "targetCondition": "*"} | change
    response = api.post(
        "/api/v1/deployments",
        content=json.dumps(body),
        headers={"Content-Type": "application/json"},
    )

    assert problem(response) == (status, code)
    assert api.get("/api/v1/deployments").json() == []


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_has_a_limit_before_anybody_is_known(
    stranger: httpx.Client, *, declared: bool
) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(64):
            sent += 1
            yield b" " * 1024 * 1024

    body: Any = b" " * (MAX_JSON_BYTES + 1) if declared else endless()

    assert problem(stranger.post("/api/v1/models", content=body)) == (413, "too-large")


def test_reading_stops_where_the_limit_is(app: FastAPI) -> None:
    async def main() -> int:
        asked, statuses = 0, []

        async def receive() -> dict[str, Any]:
            nonlocal asked
            asked += 1
            return {"type": "http.request", "body": b" " * 1024 * 1024, "more_body": True}

        async def send(message: Any) -> None:
            statuses.append(message.get("status"))

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/api/v1/models",
            "raw_path": b"/api/v1/models",
            "query_string": b"",
            "headers": [],
            "server": ("h", 1),
            "scheme": "https",
            "root_path": "",
            "http_version": "1.1",
        }
        await app(scope, receive, send)
        assert statuses[0] == 413
        return asked

    assert asyncio.run(main()) == MAX_JSON_BYTES // 1024**2 + 1


# ---- files ---------------------------------------------------------------------------------------


def test_a_model_goes_up_and_comes_down_again(api: httpx.Client) -> None:
    data = bytes(range(256)) * 9000
    stored = api.post("/api/v1/blobs", content=data, headers={"X-Digest": sha256(data)})
    body = {"name": "digits", "digest": sha256(data), "filename": "m.onnx"}
    model = api.post("/api/v1/models", json=body)
    download = api.get("/api/v1/models/digits:1/content")

    assert (stored.status_code, stored.json()["size"]) == (201, len(data))
    assert (model.status_code, model.json()["version"]) == (201, 1)
    assert download.content == data
    assert download.headers["x-digest"] == sha256(data)
    assert api.get("/api/v1/models", params={"name": "none"}).json() == []
    assert api.get("/api/v1/models/digits").json() == model.json()
    assert problem(api.get("/api/v1/models/none/content")) == (404, "model-unknown")


@pytest.mark.parametrize(
    ("digest", "code"),
    [(sha256(b"other"), "digest-mismatch"), ("x", "id-invalid"), (None, "request-invalid")],
)
def test_an_upload_that_is_not_what_it_says_leaves_nothing(
    api: httpx.Client, lab: Lab, digest: str | None, code: str
) -> None:
    headers = {"X-Digest": digest} if digest else {}

    assert problem(api.post("/api/v1/blobs", content=b"model", headers=headers)) == (422, code)
    assert not [path for path in (lab.folder / "blobs").rglob("*") if path.is_file()]


def test_a_caller_who_hangs_up_leaves_nothing_and_no_traceback(app: FastAPI, lab: Lab) -> None:
    token = lab.services.operators.issue("ann")
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": b"half", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def main() -> None:
        waiting = iter(messages)

        async def receive() -> dict[str, Any]:
            return next(waiting)

        async def send(_message: Any) -> None:
            pass

        headers = [
            (b"authorization", f"Bearer {token}".encode()),
            (b"x-digest", sha256(b"whole").encode()),
        ]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/api/v1/blobs",
            "query_string": b"",
            "headers": headers,
            "server": ("h", 1),
            "scheme": "https",
            "root_path": "",
            "http_version": "1.1",
        }
        await app(scope, receive, send)

    with capture_logs() as logs:
        asyncio.run(main())

    assert [each["event"] for each in logs] == ["request.cut_off"]
    assert not [path for path in (lab.folder / "blobs").rglob("*") if path.is_file()]


# ---- lists and stories ---------------------------------------------------------------------------


def test_devices_are_paged(api: httpx.Client, lab: Lab) -> None:
    for number in range(5):
        lab.enroll(f"d-{number}", site="a")

    first = api.get("/api/v1/devices", params={"limit": 3}).json()
    rest = api.get("/api/v1/devices", params={"limit": 3, "after": first[-1]["id"]}).json()
    assert [d["id"] for d in first + rest] == [f"d-{n}" for n in range(5)]
    for limit in (0, 1001, "x"):
        response = api.get("/api/v1/devices", params={"limit": limit})
        assert problem(response) == (422, "request-invalid")


def test_telemetry_is_paged_and_bytes_come_as_base64(api: httpx.Client, lab: Lab) -> None:
    bodies = [b'{"label":7}', b"\xff", b"three"]
    records = [
        TelemetryRecord(n, "m", "out", 0, body, {"input": "x"}) for n, body in enumerate(bodies, 1)
    ]
    lab.services.telemetry.write([(DEVICE, Telemetry("e", records))])

    rows = api.get("/api/v1/telemetry", params={"limit": 2, "device": DEVICE}).json()
    newest = api.get("/api/v1/telemetry", params={"limit": 1, "newest": True}).json()
    after = api.get("/api/v1/telemetry", params={"after": rows[-1]["id"], "module": "m"}).json()
    assert [(r["body"], r["data"]) for r in rows] == [('{"label":7}', None), (None, "/w==")]
    assert newest == after
    assert newest[0]["body"] == "three"
    assert problem(api.get("/api/v1/telemetry", params={"device": "A b"})) == (422, "id-invalid")
    assert api.get("/api/v1/telemetry/stats").json() == {"stored": 3, "byDevice": {"press-7": 3}}
    scores = api.post("/api/v1/telemetry/score", json={"truth": {"x": 7}}).json()
    assert scores["press-7"]["right"] == 1


def test_a_deployment_from_the_image_to_the_device(api: httpx.Client, lab: Lab) -> None:
    lab.register()
    image = api.post("/api/v1/images", json={"name": "team/digits", "models": ["digits"]})
    assert (image.status_code, image.json()["state"]) == (202, "building")
    lab.work_off()
    assert api.get("/api/v1/images/team/digits:1").json()["state"] == "ready"
    assert [i["version"] for i in api.get("/api/v1/images").json()] == [1]
    invitation = api.post("/api/v1/invitations", json={"deviceId": DEVICE, "tags": {"a": 1}})
    secret = invitation.json()["claim"].split(".")[3]
    lab.services.devices.enroll(EnrollRequest(secret, csr(), "laptop", "1"))

    body = {
        "id": "d#1?",
        "manifest": module_manifest("team/digits:1"),
        "targetCondition": "tags.a = 1",
        "waves": "1,50%",
    }
    created = api.post("/api/v1/deployments", json=body)
    assert (created.status_code, created.json()["devices"]["dispatched"]) == (201, 1)
    assert api.post("/api/v1/deployments", json=body).json() == created.json()
    changed = api.post("/api/v1/deployments", json=body | {"priority": 1})
    assert problem(changed) == (409, "deployment-exists")
    assert api.get("/api/v1/deployments/d%231%3F").json() == created.json()
    assert api.get("/api/v1/deployments").json() == [created.json()]
    (member,) = api.get("/api/v1/deployments/d%231%3F/devices").json()
    assert (member["deviceId"], member["wave"], member["version"]) == (DEVICE, 0, 1)
    assert problem(api.get("/api/v1/deployments/none/devices")) == (404, "deployment-unknown")
    assert api.post("/api/v1/deployments/d%231%3F/abort").json()["state"] == "aborted"


def test_a_device_is_shown_tagged_and_retired(api: httpx.Client, lab: Lab) -> None:
    lab.enroll(DEVICE, site="a")

    assert api.patch(f"/api/v1/devices/{DEVICE}/tags", json={"b": 1}).json()["tags"] == {
        "site": "a",
        "b": 1,
    }
    assert problem(api.patch(f"/api/v1/devices/{DEVICE}/tags", json=[])) == (422, "request-invalid")
    assert problem(api.patch(f"/api/v1/devices/{DEVICE}/tags", json={"$": 1})) == (
        422,
        "twin-invalid",
    )
    assert api.post(f"/api/v1/devices/{DEVICE}/retire").json()["state"] == "retired"
    assert api.get(f"/api/v1/devices/{DEVICE}").json()["connected"] is False
    assert {p["name"] for p in api.get("/api/v1/profiles").json()} >= {"generic-x86", "laptop"}


# ---- devices -------------------------------------------------------------------------------------


def ask(app: FastAPI, certificate: str, path: str, body: bytes) -> httpx.Response:
    return asgi_client(AsDevice(app, certificate)).post(f"/device/v1/{path}", content=body)


def test_a_device_enrols_renews_and_pulls(stranger: httpx.Client, app: FastAPI, lab: Lab) -> None:
    lab.register()
    lab.deploy("v1", lab.image())
    claim = lab.services.devices.invite(DEVICE, tags={}, life=timedelta(hours=1))
    request = EnrollRequest(claim.split(".")[3], csr(), "laptop", "1")
    enrolled = codec.decode(
        stranger.post("/device/v1/enroll", content=codec.encode(request)).content, Enrolled
    )
    own = enrolled.certificate.split("-----END")[0] + "-----END CERTIFICATE-----\n"
    assert ssl.PEM_cert_to_DER_cert(own)

    renewed = ask(app, own, "renew", codec.encode(RenewRequest(csr())))
    image = json.loads(lab.opened(DEVICE).manifest)["modulesContent"]["$edgeAgent"][
        "properties.desired"
    ]["modules"]["model"]["settings"]["image"]
    credential = ask(app, own, "credential", codec.encode(CredentialRequest(image)))
    assert "BEGIN CERTIFICATE" in codec.decode(renewed.content, Renewed).certificate
    assert codec.decode(credential.content, Credential).kind == "bearer"
    refused = ask(app, own, "credential", codec.encode(CredentialRequest("other:1")))
    assert problem(refused) == (403, "forbidden")
    lab.services.devices.retire(DEVICE)
    again = ask(app, own, "renew", codec.encode(RenewRequest(csr())))
    assert problem(again) == (403, "certificate-invalid")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 422, "message-invalid"),
        (b'{"claim":"\\ud800"}', 422, "message-invalid"),
        (b"x" * 70_000, 413, "too-large"),
        (codec.encode(EnrollRequest("x", "y", "laptop", "1")), 403, "claim-invalid"),
        (codec.encode(EnrollRequest("x", "y", "toaster", "1")), 404, "profile-unknown"),
    ],
)
def test_bad_enrolments_are_refused(
    stranger: httpx.Client, body: bytes, status: int, code: str
) -> None:
    assert problem(stranger.post("/device/v1/enroll", content=body)) == (status, code)


def test_a_certificate_that_is_rubbish_is_refused(app: FastAPI) -> None:
    shown = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"

    assert problem(ask(app, shown, "renew", b"{}")) == (403, "certificate-invalid")


# ---- the document --------------------------------------------------------------------------------


def test_the_api_is_what_it_was(app: FastAPI) -> None:
    described = json.dumps(app.openapi(), indent=1, sort_keys=True) + "\n"
    if os.environ.get("RIMWARD_UPDATE_GOLDEN") == "1":
        GOLDEN.parent.mkdir(parents=True, exist_ok=True)
        GOLDEN.write_text(described)

    assert described == GOLDEN.read_text()


def test_every_operation_says_how_it_fails_and_what_it_does(app: FastAPI) -> None:
    for path, methods in app.openapi()["paths"].items():
        for operation in methods.values():
            assert operation["description"]
            assert not path.startswith("/api/v1") or "default" in operation["responses"]
