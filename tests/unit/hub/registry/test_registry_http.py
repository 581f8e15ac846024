"""The routes, spoken to over a socket: distribution-spec 1.1."""

import hashlib
import itertools
import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

OCI = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = b"{}"
BLOB = bytes(range(256)) * 8
_numbers = itertools.count()


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.fixture
def name() -> str:
    return f"team/repo-{next(_numbers)}"


def push(http: httpx.Client, name: str, data: bytes) -> str:
    response = http.post(
        f"/v2/{name}/blobs/uploads/", params={"digest": digest(data)}, content=data
    )
    assert response.status_code == 201
    return digest(data)


def start(http: httpx.Client, name: str) -> str:
    response = http.post(f"/v2/{name}/blobs/uploads/")
    assert response.status_code == 202
    return str(response.headers["Location"])


def image(*blobs: bytes, **instead: Any) -> bytes:
    """Return a manifest with these layers, some of its fields replaced."""

    def descriptor(data: bytes, kind: str) -> dict[str, Any]:
        return {"mediaType": kind, "digest": digest(data), "size": len(data)}

    layer = "application/vnd.oci.image.layer.v1.tar"
    document = {
        "schemaVersion": 2,
        "mediaType": OCI,
        "config": descriptor(EMPTY, "application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor(data, layer) for data in blobs],
    }
    return json.dumps(document | instead).encode()


def put(
    http: httpx.Client, name: str, reference: str, content: bytes, kind: str = OCI
) -> httpx.Response:
    url = f"/v2/{name}/manifests/{reference}"
    return http.put(url, content=content, headers={"Content-Type": kind})


def code(response: httpx.Response) -> str:
    return str(response.json()["errors"][0]["code"])


# ---- blobs ---------------------------------------------------------------------------------------


def test_the_api_answers_who_is_known(http: httpx.Client) -> None:
    assert http.get("/v2/").status_code == 200


def test_a_blob_comes_back_as_it_was_sent(http: httpx.Client, name: str) -> None:
    push(http, name, BLOB)

    response = http.get(f"/v2/{name}/blobs/{digest(BLOB)}")

    assert response.content == BLOB
    assert response.headers["Docker-Content-Digest"] == digest(BLOB)


@pytest.mark.parametrize("data", [b"", b"{}", b"x" * 3_000_000])
def test_blobs_of_any_size_are_stored(http: httpx.Client, name: str, data: bytes) -> None:
    push(http, name, data)

    assert http.get(f"/v2/{name}/blobs/{digest(data)}").content == data


def test_head_tells_the_size_without_the_bytes(http: httpx.Client, name: str) -> None:
    push(http, name, BLOB)

    response = http.head(f"/v2/{name}/blobs/{digest(BLOB)}")

    assert (response.headers["Content-Length"], response.content) == ("2048", b"")


def test_an_unknown_blob_is_not_found(http: httpx.Client, name: str) -> None:
    response = http.get(f"/v2/{name}/blobs/{digest(b'nothing')}")

    assert (response.status_code, code(response)) == (404, "BLOB_UNKNOWN")


@pytest.mark.parametrize(
    ("header", "status", "part"),
    [
        ("bytes=500-1499", 206, BLOB[500:1500]),
        ("bytes=500-", 206, BLOB[500:]),
        ("bytes=-500", 206, BLOB[-500:]),
        ("bytes=2000-5000", 206, BLOB[2000:]),
        ("bytes=-5000", 206, BLOB),
        ("bytes=500-0", 200, BLOB),
        ("bytes=0-1,5-6", 200, BLOB),
        ("lines=1-2", 200, BLOB),
        ("bytes=-", 200, BLOB),
    ],
)
def test_a_range_gives_that_part(
    http: httpx.Client, name: str, header: str, status: int, part: bytes
) -> None:
    push(http, name, BLOB)

    response = http.get(f"/v2/{name}/blobs/{digest(BLOB)}", headers={"Range": header})

    assert (response.status_code, response.content) == (status, part)


def test_a_range_beyond_the_end_is_refused(http: httpx.Client, name: str) -> None:
    push(http, name, BLOB)

    response = http.get(f"/v2/{name}/blobs/{digest(BLOB)}", headers={"Range": "bytes=5000-10000"})

    assert response.status_code == 416


def test_a_deleted_blob_is_gone_at_once(http: httpx.Client, name: str) -> None:
    url = f"/v2/{name}/blobs/{push(http, name, BLOB)}"

    assert http.delete(url).status_code == 202
    assert http.get(url).status_code == 404


def test_a_blob_is_visible_only_where_it_was_put(http: httpx.Client, name: str) -> None:
    push(http, name, BLOB)

    assert http.head(f"/v2/{name}-else/blobs/{digest(BLOB)}").status_code == 404


@pytest.mark.parametrize("bad", ["sha256:abc", "md5:" + "0" * 32, "sha512:" + "0" * 128, "x"])
def test_a_malformed_digest_is_refused(http: httpx.Client, name: str, bad: str) -> None:
    response = http.get(f"/v2/{name}/blobs/{bad}")

    assert (response.status_code, code(response)) == (400, "DIGEST_INVALID")


@pytest.mark.parametrize("bad", ["Upper", "a//b", "-a", "a" * 300])
def test_a_malformed_name_is_refused(http: httpx.Client, bad: str) -> None:
    response = http.get(f"/v2/{bad}/tags/list")

    assert (response.status_code, code(response)) == (400, "NAME_INVALID")


# ---- uploads -------------------------------------------------------------------------------------


def test_an_upload_in_one_put(http: httpx.Client, name: str) -> None:
    location = start(http, name)

    response = http.put(location, params={"digest": digest(BLOB)}, content=BLOB)

    assert response.status_code == 201
    assert http.get(response.headers["Location"]).content == BLOB


def test_an_upload_in_chunks_with_the_last_in_the_put(http: httpx.Client, name: str) -> None:
    location = start(http, name)
    first = http.patch(location, content=BLOB[:1000], headers={"Content-Range": "0-999"})
    assert (first.status_code, first.headers["Range"]) == (202, "0-999")

    response = http.put(
        first.headers["Location"],
        params={"digest": digest(BLOB)},
        content=BLOB[1000:],
        headers={"Content-Range": "1000-2047"},
    )

    assert response.status_code == 201


def test_a_streamed_patch_needs_no_range(http: httpx.Client, name: str) -> None:
    def pieces() -> Iterator[bytes]:
        yield from (BLOB[:7], BLOB[7:900], BLOB[900:])

    location = start(http, name)
    http.patch(location, content=pieces())

    assert http.put(location, params={"digest": digest(BLOB)}).status_code == 201


def test_a_chunk_out_of_order_is_refused_and_the_upload_goes_on(
    http: httpx.Client, name: str
) -> None:
    location = start(http, name)
    http.patch(location, content=BLOB[:100], headers={"Content-Range": "0-99"})
    wrong = http.patch(location, content=BLOB[500:600], headers={"Content-Range": "500-599"})
    assert (wrong.status_code, wrong.headers["Range"]) == (416, "0-99")
    status = http.get(location)
    assert (status.status_code, status.headers["Range"]) == (204, "0-99")
    http.patch(location, content=BLOB[100:], headers={"Content-Range": "100-2047"})

    assert http.put(location, params={"digest": digest(BLOB)}).status_code == 201


def test_a_cancelled_upload_is_gone(http: httpx.Client, name: str) -> None:
    location = start(http, name)

    assert http.delete(location).status_code == 204
    assert http.get(location).status_code == 404


def test_an_upload_belongs_to_its_repository(http: httpx.Client, name: str) -> None:
    location = start(http, name).replace(name, f"{name}-else")

    response = http.patch(location, content=b"x")

    assert (response.status_code, code(response)) == (404, "BLOB_UPLOAD_UNKNOWN")


def test_a_wrong_digest_is_refused_in_one_post(http: httpx.Client, name: str) -> None:
    response = http.post(
        f"/v2/{name}/blobs/uploads/", params={"digest": digest(b"else")}, content=BLOB
    )

    assert (response.status_code, code(response)) == (400, "DIGEST_INVALID")


def test_a_wrong_digest_is_refused_at_the_end_of_chunks(http: httpx.Client, name: str) -> None:
    location = start(http, name)
    http.patch(location, content=BLOB)

    response = http.put(location, params={"digest": digest(b"else")})

    assert (response.status_code, code(response)) == (400, "DIGEST_INVALID")
    assert http.head(f"/v2/{name}/blobs/{digest(BLOB)}").status_code == 404


# ---- mounts --------------------------------------------------------------------------------------


def test_a_blob_is_mounted_from_another_repository(http: httpx.Client, name: str) -> None:
    push(http, name, BLOB)

    response = http.post(
        f"/v2/{name}-b/blobs/uploads/", params={"mount": digest(BLOB), "from": name}
    )

    assert response.status_code == 201
    assert http.get(f"/v2/{name}-b/blobs/{digest(BLOB)}").content == BLOB


def test_a_blob_is_mounted_from_wherever_it_is(http: httpx.Client, name: str) -> None:
    data = name.encode()
    push(http, name, data)

    response = http.post(f"/v2/{name}-b/blobs/uploads/", params={"mount": digest(data)})

    assert response.status_code == 201


def test_mounting_a_missing_blob_opens_an_upload(http: httpx.Client, name: str) -> None:
    response = http.post(
        f"/v2/{name}/blobs/uploads/", params={"mount": digest(b"no"), "from": "team/none"}
    )

    assert response.status_code == 202
    assert "/blobs/uploads/" in response.headers["Location"]


# ---- manifests -----------------------------------------------------------------------------------


@pytest.fixture
def stocked(http: httpx.Client, name: str) -> str:
    push(http, name, EMPTY)
    push(http, name, BLOB)
    return name


def test_a_manifest_keeps_its_exact_bytes(http: httpx.Client, stocked: str) -> None:
    content = image(BLOB) + b"\n\n"
    response = put(http, stocked, "v1", content)
    assert response.status_code == 201

    for reference in ("v1", digest(content)):
        answer = http.get(f"/v2/{stocked}/manifests/{reference}")
        assert (answer.content, answer.headers["Content-Type"]) == (content, OCI)
        head = http.head(f"/v2/{stocked}/manifests/{reference}")
        assert head.headers["Docker-Content-Digest"] == digest(content)
        assert head.headers["Content-Length"] == str(len(content))


def test_a_manifest_of_nearly_four_mebibytes_is_stored(http: httpx.Client, stocked: str) -> None:
    content = image(annotations={"a": "x" * (4 * 1024 * 1024 - 1000)})

    assert put(http, stocked, "big", content).status_code == 201


def test_a_larger_manifest_is_refused(http: httpx.Client, stocked: str) -> None:
    content = image(annotations={"a": "x" * (4 * 1024 * 1024)})

    assert put(http, stocked, "big", content).status_code == 413


def test_a_tag_moves(http: httpx.Client, stocked: str) -> None:
    put(http, stocked, "v1", image())
    newer = image(annotations={"n": "2"})
    put(http, stocked, "v1", newer)

    assert http.get(f"/v2/{stocked}/manifests/v1").content == newer


def test_a_manifest_may_get_several_tags_at_once(http: httpx.Client, stocked: str) -> None:
    content = image()
    response = put(http, stocked, f"{digest(content)}?tag=a&tag=b", content)

    assert response.headers["OCI-Tag"] == "a, b"
    assert http.get(f"/v2/{stocked}/manifests/b").content == content


@pytest.mark.parametrize(
    "change",
    [
        {"artifactType": "application/x-thing"},
        {"x-own": {"deep": [1, 2]}},
        {"subject": {"mediaType": OCI, "digest": digest(b"gone"), "size": 4}},
        {
            "layers": [
                {
                    "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar",
                    "digest": digest(b"elsewhere"),
                    "size": 9,
                    "urls": ["x"],
                }
            ]
        },
    ],
)
def test_unusual_manifests_are_stored(
    http: httpx.Client, stocked: str, change: dict[str, Any]
) -> None:
    assert put(http, stocked, "odd", image(**change)).status_code == 201


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"not json", "MANIFEST_INVALID"),
        (b"[]", "MANIFEST_INVALID"),
        (b'{"schemaVersion":2}', "MANIFEST_INVALID"),
        (image(schemaVersion=1), "MANIFEST_INVALID"),
        (image(mediaType=INDEX), "MANIFEST_INVALID"),
        (image(config={"digest": "sha256:x", "size": 1}), "MANIFEST_INVALID"),
        (image(config={"digest": digest(EMPTY), "size": -1}), "MANIFEST_INVALID"),
        (image(config={"digest": digest(EMPTY), "size": 3}), "SIZE_INVALID"),
        (image(b"never sent"), "MANIFEST_BLOB_UNKNOWN"),
        (image(annotations={"a": 1}), "MANIFEST_INVALID"),
        (image(layers="none"), "MANIFEST_INVALID"),
    ],
)
def test_broken_manifests_are_refused(
    http: httpx.Client, stocked: str, content: bytes, wanted: str
) -> None:
    response = put(http, stocked, "v1", content)

    assert (response.status_code, code(response)) == (400, wanted)


def test_a_manifest_under_a_wrong_digest_is_refused(http: httpx.Client, stocked: str) -> None:
    response = put(http, stocked, digest(b"else"), image())

    assert (response.status_code, code(response)) == (400, "DIGEST_INVALID")


@pytest.mark.parametrize("tag", [".a", "-a", "a" * 129, "a%20b", "ä"])
def test_a_malformed_tag_is_refused(http: httpx.Client, stocked: str, tag: str) -> None:
    assert put(http, stocked, tag, image()).status_code == 400


def test_an_index_needs_its_children(http: httpx.Client, stocked: str) -> None:
    child = image()
    entry = {"mediaType": OCI, "digest": digest(child), "size": len(child)}
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).encode()
    assert code(put(http, stocked, "all", index, INDEX)) == "MANIFEST_BLOB_UNKNOWN"
    put(http, stocked, digest(child), child)

    assert put(http, stocked, "all", index, INDEX).status_code == 201
    nested = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [{"mediaType": INDEX, "digest": digest(index), "size": len(index)}],
        }
    ).encode()
    assert put(http, stocked, "nested", nested, INDEX).status_code == 201


def test_if_none_match_saves_the_bytes(http: httpx.Client, stocked: str) -> None:
    etag = f'"{digest(image())}"'
    put(http, stocked, "v1", image())

    response = http.get(f"/v2/{stocked}/manifests/v1", headers={"If-None-Match": etag})

    assert response.status_code == 304


def test_deleting_a_manifest_takes_its_tags(http: httpx.Client, stocked: str) -> None:
    put(http, stocked, "v1", image())

    assert http.delete(f"/v2/{stocked}/manifests/{digest(image())}").status_code == 202
    assert http.get(f"/v2/{stocked}/manifests/v1").status_code == 404


def test_deleting_a_tag_leaves_the_manifest(http: httpx.Client, stocked: str) -> None:
    put(http, stocked, "v1", image())

    assert http.delete(f"/v2/{stocked}/manifests/v1").status_code == 202
    assert http.get(f"/v2/{stocked}/manifests/v1").status_code == 404
    assert http.get(f"/v2/{stocked}/manifests/{digest(image())}").status_code == 200


# ---- lists ---------------------------------------------------------------------------------------


def test_tags_come_in_pages(http: httpx.Client, stocked: str) -> None:
    for tag in ("b", "a", "c"):
        put(http, stocked, tag, image())

    first = http.get(f"/v2/{stocked}/tags/list", params={"n": 2})
    assert first.json() == {"name": stocked, "tags": ["a", "b"]}
    second = http.get(first.headers["Link"].partition(">")[0].removeprefix("<"))
    assert second.json()["tags"] == ["c"]
    assert "Link" not in second.headers


def test_tags_of_an_unknown_repository_are_not_found(http: httpx.Client, name: str) -> None:
    response = http.get(f"/v2/{name}/tags/list")

    assert (response.status_code, code(response)) == (404, "NAME_UNKNOWN")


def test_referrers_are_listed_and_filtered(http: httpx.Client, stocked: str) -> None:
    subject = {"mediaType": OCI, "digest": digest(image()), "size": len(image())}
    made = []
    for kind in ("application/x-a", "application/x-b"):
        content = image(subject=subject, artifactType=kind, annotations={"k": kind})
        response = put(http, stocked, digest(content), content)
        assert response.headers["OCI-Subject"] == digest(image())
        made.append(digest(content))

    url = f"/v2/{stocked}/referrers/{digest(image())}"
    everything = http.get(url)
    assert {m["digest"] for m in everything.json()["manifests"]} == set(made)
    assert everything.headers["Content-Type"] == INDEX
    chosen = http.get(url, params={"artifactType": "application/x-b"})
    assert [m["annotations"] for m in chosen.json()["manifests"]] == [{"k": "application/x-b"}]
    assert chosen.headers["OCI-Filters-Applied"] == "artifactType"


def test_no_referrers_is_an_empty_index(http: httpx.Client, name: str) -> None:
    response = http.get(f"/v2/{name}/referrers/{digest(b'x')}")

    assert (response.status_code, response.json()["manifests"]) == (200, [])


def test_two_writers_cannot_share_an_upload(http: httpx.Client, name: str) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow() -> Iterator[bytes]:
        yield b"x" * (2 * 1024 * 1024)
        entered.set()
        leave.wait(10)

    location = start(http, name)
    thread = threading.Thread(target=lambda: http.patch(location, content=slow()))
    thread.start()
    try:
        assert entered.wait(10)
        with httpx.Client(base_url=http.base_url, auth=http.auth) as second:
            status = second.patch(location, content=b"y").status_code
    finally:
        leave.set()
        thread.join(10)

    assert status == 409
