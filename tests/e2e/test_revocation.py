"""What a device's identity is good for at a real hub: once retired, for nothing."""

from __future__ import annotations

import base64
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from device_side import DeviceSide, refusal
from plant import Plant, plant, wait_for

from agent.adapters.identity import certificate_validity
from hub.demo.digits import Digits
from protocol.ids import ImageRef, parse_image_ref

TOKEN_SECONDS = 300  # what SECURITY.md promises
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture
def works(tmp_path: Path, digits: Digits) -> Iterator[Plant]:
    """A hub with a device that runs the image `digits-image`; `other-image` is not for it."""
    with plant(tmp_path, digits) as made:
        made.start_hub()
        made.enroll("press-1")
        made.deploy("v1", made.package(made.register()))
        yield made


def package_other(works: Plant) -> ImageRef:
    client = works.client
    client.post("/api/v1/images", {"name": "other-image", "models": ["digits:1"], "base": "host"})

    def ready() -> Any:
        found = client.get("/api/v1/images/other-image:1")
        assert found["state"] != "failed", found
        return found if found["state"] == "ready" else None

    return parse_image_ref(wait_for("the other image", ready)["reference"])


def own_image(works: Plant) -> ImageRef:
    return parse_image_ref(works.client.get("/api/v1/images/digits-image:1")["reference"])


def registry(works: Plant, token: str) -> httpx.Client:
    trust = DeviceSide(works.home("press-1")).make_context()
    headers = {"Authorization": f"Bearer {token}", "Accept": MANIFEST}
    url = f"https://127.0.0.1:{works.https_port}"
    return httpx.Client(base_url=url, verify=trust, headers=headers, trust_env=False)


def expiry(token: str) -> float:
    body = token.split(".")[1]
    return float(json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["exp"])


def is_connected(works: Plant) -> bool:
    return bool(works.client.get("/api/v1/devices/press-1")["connected"])


# ---- a device in good standing -------------------------------------------------------------------


@pytest.mark.e2e
def test_a_devices_token_pulls_its_own_image_and_nothing_else(works: Plant) -> None:
    other, own = package_other(works), own_image(works)
    device = DeviceSide(works.home("press-1"))
    token = device.credential(str(own)).token

    with registry(works, token) as http:
        manifest = http.get(f"/v2/digits-image/manifests/{own.digest}")
        layer = manifest.json()["layers"][0]["digest"]
        foreign = _others_layer(works, other)
        uploads, elsewhere = "/v2/digits-image/blobs/uploads/", "/v2/other-image/blobs"
        tries = {
            "pull": http.get(f"/v2/other-image/manifests/{other.digest}"),
            "look": http.head(f"{elsewhere}/{foreign}"),
            "look for one's own there": http.head(f"{elsewhere}/{layer}"),
            "list tags": http.get("/v2/other-image/tags/list"),
            "list everything": http.get("/v2/_catalog"),
            "push": http.post(uploads),
            "push elsewhere": http.post(f"{elsewhere}/uploads/"),
            "mount": http.post(uploads, params={"mount": foreign, "from": "other-image"}),
            "mount out": http.post(
                f"{elsewhere}/uploads/", params={"mount": layer, "from": "digits-image"}
            ),
            "tag": http.put("/v2/digits-image/manifests/new", content=manifest.content),
            "delete": http.delete(f"/v2/digits-image/manifests/{own.digest}"),
            "delete a blob": http.delete(f"/v2/digits-image/blobs/{layer}"),
            "get a wider token": http.get("/v2/token?scope=repository:other-image:pull,push"),
            "operate": http.get("/api/v1/models"),
        }
        blob = http.head(f"/v2/digits-image/blobs/{layer}")

        assert manifest.status_code == 200
        assert blob.status_code == 200
        allowed = {name: t.status_code for name, t in tries.items() if t.status_code < 400}
        assert allowed == {}
        surprising = {n: t.status_code for n, t in tries.items() if t.status_code >= 500}
        assert surprising == {}
        assert http.get(f"/v2/digits-image/manifests/{own.digest}").content == manifest.content
    assert refusal(lambda: device.credential(str(other))) == ("forbidden", 403)


def _others_layer(works: Plant, other: ImageRef) -> str:
    operator = json.loads(works.admin.read_text())["token"]
    with registry(works, "") as http:
        answer = http.get(
            f"/v2/other-image/manifests/{other.digest}", auth=httpx.BasicAuth("admin", operator)
        )
    assert answer.status_code == 200, answer.text
    layer: str = answer.json()["layers"][0]["digest"]
    return layer


# ---- a retired one -------------------------------------------------------------------------------


@pytest.mark.e2e
def test_retiring_ends_the_live_session_at_once_and_no_other_is_admitted(works: Plant) -> None:
    works.start_agent("press-1")
    wait_for("the device", lambda: is_connected(works))

    works.client.post("/api/v1/devices/press-1/retire")

    # The keep-alive is 30 s: what ends the session earlier is the hub.
    wait_for("the end of the session", lambda: not is_connected(works), 5)
    log = works.folder / "press-1.log"
    wait_for("the agent to be told", lambda: "code=certificate-invalid" in log.read_text(), 30)
    assert DeviceSide(works.home("press-1")).connack() != 0
    assert not is_connected(works)


@pytest.mark.e2e
def test_a_device_that_is_not_retired_is_welcome(works: Plant) -> None:
    assert DeviceSide(works.home("press-1")).connack() == 0


@pytest.mark.e2e
def test_a_retired_devices_certificate_opens_nothing(works: Plant) -> None:
    device, own = DeviceSide(works.home("press-1")), str(own_image(works))
    before = device.credential(own)

    works.client.post("/api/v1/devices/press-1/retire")

    assert refusal(device.renew) == ("certificate-invalid", 403)
    assert refusal(lambda: device.credential(own)) == ("certificate-invalid", 403)
    for path, body in (
        ("/device/v1/renew", {"csr": ""}),
        ("/device/v1/credential", {"image": own}),
    ):
        assert device.status_of(path, body) == (403, "certificate-invalid")
    assert device.connack() != 0
    # Tokens are not stored, so the last one lives on for its five minutes, and no longer.
    assert expiry(before.token) - time.time() <= TOKEN_SECONDS
    assert before.expires == expiry(before.token)


@pytest.mark.e2e
def test_a_retired_devices_certificate_stays_refused_when_another_gets_its_name(
    works: Plant,
) -> None:
    home, thief = works.home("press-1"), works.home("stolen")
    shutil.copytree(home, thief)
    works.client.post("/api/v1/devices/press-1/retire")
    shutil.rmtree(home)
    wait_for("another second", lambda: time.time() > issued(thief) + 1)  # dates are in seconds
    works.enroll("press-1")

    old, new = DeviceSide(thief), DeviceSide(home)

    assert new.connack() == 0
    assert refusal(new.renew) == ("none", 0)
    assert old.connack() != 0
    assert refusal(old.renew) == ("certificate-invalid", 403)
    image = str(own_image(works))
    assert refusal(lambda: old.credential(image)) == ("certificate-invalid", 403)


def issued(home: Path) -> float:
    begin, _ = certificate_validity(DeviceSide(home).identity.enrolled.certificate)
    return begin.timestamp() + 5 * 60  # the hub allows for clocks that run behind
