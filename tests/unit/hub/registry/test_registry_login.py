"""Who may do what over the wire: Basic, Bearer, and the token endpoint."""

import base64
import re
from collections.abc import Iterator

import httpx
import pytest
from registry_lab import Served

from protocol.ids import digest_of

REPOSITORY = "team/app"
DATA = b"some layer"
DIGEST = digest_of(DATA)
BLOB_URL = f"/v2/{REPOSITORY}/blobs/{DIGEST}"


@pytest.fixture(autouse=True)
def _stocked(http: httpx.Client) -> None:
    for name in (REPOSITORY, "other/app"):
        http.post(f"/v2/{name}/blobs/uploads/", params={"digest": DIGEST}, content=DATA)


@pytest.fixture
def stranger(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url) as client:
        yield client


def token(client: httpx.Client, *scopes: str) -> str:
    response = client.get("/v2/token", params={"service": "rimward", "scope": list(scopes)})
    assert response.status_code == 200
    return str(response.json()["token"])


def test_a_stranger_is_told_where_to_get_a_token(stranger: httpx.Client) -> None:
    response = stranger.get(BLOB_URL)

    assert response.status_code == 401
    assert response.json()["errors"][0]["code"] == "UNAUTHORIZED"
    challenge = response.headers["WWW-Authenticate"]
    host = re.escape(stranger.base_url.netloc.decode())
    scope = 'scope="repository:team/app:pull"'
    assert re.fullmatch(
        rf'Bearer realm="http://{host}/v2/token",service="rimward",{scope}', challenge
    )


def test_the_challenge_of_a_mount_names_both_repositories(stranger: httpx.Client) -> None:
    response = stranger.post(
        "/v2/team/new/blobs/uploads/", params={"mount": DIGEST, "from": "other/app"}
    )

    scope = 'scope="repository:team/new:pull,push repository:other/app:pull"'
    assert scope in response.headers["WWW-Authenticate"]


@pytest.mark.parametrize("path", ["/v2/", "/v2/token", "/v2/team/app/tags/list"])
def test_a_wrong_password_is_refused(served: Served, path: str) -> None:
    with httpx.Client(base_url=served.url, auth=("admin", "wrong")) as client:
        assert client.get(path).status_code == 401


@pytest.mark.parametrize("value", ["Basic", "Basic %%%", "Basic " + "A" * 9000, "Bearer x", "x"])
def test_garbage_credentials_are_refused(stranger: httpx.Client, value: str) -> None:
    assert stranger.get("/v2/", headers={"Authorization": value}).status_code == 401


def test_a_token_carries_what_is_asked_and_allowed(served: Served) -> None:
    with served.client("reader") as client:
        text = token(client, "repository:team/app:pull,push repository:other/app:pull")

    assert served.tokens.verify(text).grants == {"team/app": frozenset({"pull"})}


def test_a_star_means_all_i_may_do(served: Served) -> None:
    with served.client("admin") as client:
        text = token(client, "repository:team/app:*")

    assert served.tokens.verify(text).grants == {"team/app": {"pull", "push", "delete"}}


def test_a_token_of_a_login_without_scope_opens_nothing_but_the_door(served: Served) -> None:
    with served.client("admin") as client:
        text = token(client)
    with served.bearer(text) as client:
        assert client.get("/v2/").status_code == 200
        assert client.get(BLOB_URL).status_code == 401


def test_a_token_is_given_to_a_posted_form(served: Served, stranger: httpx.Client) -> None:
    form = {
        "grant_type": "password",
        "username": "reader",
        "password": "reader-secret",
        "service": "rimward",
        "scope": "repository:team/app:pull",
    }

    answer = stranger.post("/v2/token", data=form).json()

    assert answer["scope"] == "repository:team/app:pull"
    with served.bearer(answer["access_token"]) as client:
        assert client.get(BLOB_URL).content == DATA


def test_a_minted_token_pulls_exactly_its_repositories(served: Served) -> None:
    text, _ = served.tokens.mint("device:d1", ["team/app"])
    with served.bearer(text) as client:
        assert client.get(BLOB_URL).content == DATA
        assert client.get(f"/v2/other/app/blobs/{DIGEST}").status_code == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/team/app/blobs/uploads/"),
        ("PUT", "/v2/team/app/manifests/v1"),
        ("DELETE", BLOB_URL),
        ("DELETE", "/v2/team/app/manifests/v1"),
        ("GET", "/v2/team/app2/tags/list"),
        ("GET", "/v2/other/app/tags/list"),
        ("GET", f"/v2/other/app/referrers/{DIGEST}"),
        ("POST", f"/v2/other/app/blobs/uploads/?mount={DIGEST}&from=team/app"),
    ],
)
def test_a_pull_token_does_nothing_else(served: Served, method: str, path: str) -> None:
    text, _ = served.tokens.mint("device:d1", ["team/app"])
    with served.bearer(text) as client:
        assert client.request(method, path).status_code == 401


def test_there_is_no_catalog(http: httpx.Client) -> None:
    assert http.get("/v2/_catalog").status_code == 404


def test_an_account_without_the_right_is_forbidden(served: Served) -> None:
    with served.client("reader") as client:
        response = client.post(f"/v2/{REPOSITORY}/blobs/uploads/")

    assert (response.status_code, response.json()["errors"][0]["code"]) == (403, "DENIED")


def test_refusals_do_not_tell_what_exists(served: Served) -> None:
    answers = set()
    with served.client("reader") as client:
        for name in ("other/app", "other/nothing"):
            response = client.get(f"/v2/{name}/blobs/{DIGEST}")
            answers.add((response.status_code, response.text.replace(name, "NAME")))

    assert len(answers) == 1


def test_a_blob_cannot_be_mounted_from_where_the_caller_may_not_look(served: Served) -> None:
    with served.client("other") as client:
        for source in ("team/app", "team/nothing"):
            response = client.post(
                "/v2/other/mine/blobs/uploads/", params={"mount": DIGEST, "from": source}
            )
            assert response.status_code == 202
        assert client.head(f"/v2/other/mine/blobs/{DIGEST}").status_code == 404


def test_a_strange_host_header_never_reaches_the_challenge(stranger: httpx.Client) -> None:
    response = stranger.get("/v2/", headers={"Host": 'evil",x="'})

    assert response.status_code in (400, 422)
    assert "WWW-Authenticate" not in response.headers


def test_the_password_may_hold_a_colon(stranger: httpx.Client) -> None:
    raw = base64.b64encode(b"admin:admin:secret").decode()

    assert stranger.get("/v2/", headers={"Authorization": f"Basic {raw}"}).status_code == 401
