"""The image registry over HTTP: distribution-spec 1.1, pull and push, below `/v2/`.

Decides which request is which use case. No permission rule and no query stands here.
Digests are sha256 only.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hub.api.registry_auth import Gate
from hub.api.registry_wire import BlobResponse, OciRoute, receive_all, receive_pieces
from hub.core.distribution import (
    MANIFEST_LIMIT,
    OCI_INDEX,
    DistributionError,
    OciCode,
    parse_content_range,
    parse_oci_digest,
    parse_range,
    referrers_index,
)
from hub.core.registry_access import Action, Principals
from hub.services.registry import Registry
from hub.services.registry_tokens import RegistryTokens
from protocol.errors import Code
from protocol.ids import Digest, parse_repository

_VERSION = {"Docker-Distribution-API-Version": "registry/2.0"}
_MAX_TAGS = 64


def registry_router(
    registry: Registry, tokens: RegistryTokens, principals: Principals
) -> APIRouter:
    """Return the routes of the registry; mount them at the root of an application."""
    gate = Gate(tokens, principals)
    blobs, uploads = _Blobs(registry, gate), _Uploads(registry, gate)
    manifests = _Manifests(registry, gate)
    router = APIRouter(route_class=OciRoute, include_in_schema=False)

    async def ping(request: Request) -> Response:
        await gate.admit(request)
        return JSONResponse({}, headers=_VERSION)

    new, upload = "/v2/{name:path}/blobs/uploads/", "/v2/{name:path}/blobs/uploads/{upload}"
    blob, manifest = "/v2/{name:path}/blobs/{digest}", "/v2/{name:path}/manifests/{reference}"
    for path, handler, methods in (
        ("/v2/", ping, ["GET", "HEAD"]),
        ("/v2", ping, ["GET", "HEAD"]),
        ("/v2/token", gate.token, ["GET", "POST"]),
        (new, uploads.start, ["POST"]),
        (new.rstrip("/"), uploads.start, ["POST"]),
        (upload, uploads.append, ["PATCH"]),
        (upload, uploads.finish, ["PUT"]),
        (upload, uploads.status, ["GET"]),
        (upload, uploads.cancel, ["DELETE"]),
        (blob, blobs.get, ["GET", "HEAD"]),
        (blob, blobs.delete, ["DELETE"]),
        (manifest, manifests.get, ["GET", "HEAD"]),
        (manifest, manifests.put, ["PUT"]),
        (manifest, manifests.delete, ["DELETE"]),
        ("/v2/{name:path}/tags/list", manifests.tags, ["GET"]),
        ("/v2/{name:path}/referrers/{digest}", manifests.referrers, ["GET"]),
    ):
        router.add_api_route(path, handler, methods=methods, response_model=None)
    return router


@dataclass(frozen=True, slots=True)
class _Blobs:
    registry: Registry
    gate: Gate

    async def get(self, request: Request) -> Response:
        name = _name(request)
        await self.gate.admit(request, name, Action.PULL)
        digest = parse_oci_digest(request.path_params["digest"])
        headers = {
            **_content_digest(digest),
            "Accept-Ranges": "bytes",
            "ETag": f'"{digest}"',
            "Cache-Control": "private, max-age=31536000, immutable",
        }
        if request.method == "HEAD":
            size = await run_in_threadpool(self.registry.blob_size, name, digest)
            headers |= {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
            return Response(headers=headers)
        file, size = await run_in_threadpool(self.registry.open_blob, name, digest)
        try:
            span = parse_range(request.headers.get("Range", ""), size)
        except DistributionError:
            file.close()
            raise
        return BlobResponse(file, span, size, headers)

    async def delete(self, request: Request) -> Response:
        name = _name(request)
        await self.gate.admit(request, name, Action.DELETE)
        digest = parse_oci_digest(request.path_params["digest"])
        await run_in_threadpool(self.registry.delete_blob, name, digest)
        return Response(status_code=202)


@dataclass(frozen=True, slots=True)
class _Uploads:
    registry: Registry
    gate: Gate

    async def start(self, request: Request) -> Response:
        name = _name(request)
        query = request.query_params
        source = query.get("from")
        caller = await self.gate.admit(
            request,
            name,
            Action.PULL,
            Action.PUSH,
            mount_from=parse_repository(source) if source else "",
        )
        if "mount" in query:
            digest = parse_oci_digest(query["mount"])
            mounted = await run_in_threadpool(
                self.registry.mount,
                name,
                digest,
                source or None,
                lambda other: caller.may(Action.PULL, other),
            )
            if mounted:
                return _created(name, digest)
        upload = await run_in_threadpool(self.registry.start_upload, name)
        if "digest" in query:
            return await self._complete(request, name, upload)
        return _progress(name, upload, 0, status=202)

    async def append(self, request: Request) -> Response:
        name, upload = await self._enter(request)
        size = await self._receive(request, name, upload)
        if isinstance(size, Response):
            return size
        return _progress(name, upload, size, status=202)

    async def finish(self, request: Request) -> Response:
        name, upload = await self._enter(request)
        return await self._complete(request, name, upload)

    async def status(self, request: Request) -> Response:
        name, upload = await self._enter(request)
        size = await run_in_threadpool(self.registry.upload_size, name, upload)
        return _progress(name, upload, size, status=204)

    async def cancel(self, request: Request) -> Response:
        name, upload = await self._enter(request)
        await run_in_threadpool(self.registry.cancel_upload, name, upload)
        return Response(status_code=204)

    async def _enter(self, request: Request) -> tuple[str, str]:
        name = _name(request)
        await self.gate.admit(request, name, Action.PUSH)
        return name, request.path_params["upload"]

    async def _complete(self, request: Request, name: str, upload: str) -> Response:
        digest = parse_oci_digest(request.query_params.get("digest", ""))
        size = await self._receive(request, name, upload)
        if isinstance(size, Response):
            return size
        await run_in_threadpool(self.registry.finish_upload, name, upload, digest)
        return _created(name, digest)

    async def _receive(self, request: Request, name: str, upload: str) -> int | Response:
        """Append the body; return the new size, or the answer to a chunk out of order."""
        header = request.headers.get("Content-Range")
        span = parse_content_range(header) if header else None
        writer = await run_in_threadpool(self.registry.continue_upload, name, upload)
        try:
            if span and span.first != writer.size:
                return _progress(name, upload, writer.size, status=416)
            before = writer.size
            await receive_pieces(request, writer)
            if span and writer.size - before != span.length:
                raise DistributionError(
                    f"the chunk has {writer.size - before} bytes, not {span.length}",
                    oci=OciCode.SIZE_INVALID,
                    status=400,
                    code=Code.REQUEST_INVALID,
                )
            return writer.size
        finally:
            await run_in_threadpool(writer.close)


@dataclass(frozen=True, slots=True)
class _Manifests:
    registry: Registry
    gate: Gate

    async def get(self, request: Request) -> Response:
        name = _name(request)
        await self.gate.admit(request, name, Action.PULL)
        record = await run_in_threadpool(
            self.registry.manifest, name, request.path_params["reference"]
        )
        etag = f'"{record.digest}"'
        headers = {
            **_content_digest(record.digest),
            "ETag": etag,
            "Content-Type": record.media_type,
            "Content-Length": str(len(record.content)),
        }
        if etag in request.headers.get("If-None-Match", ""):
            return Response(status_code=304, headers={"ETag": etag})
        return Response(b"" if request.method == "HEAD" else record.content, headers=headers)

    async def put(self, request: Request) -> Response:
        name = _name(request)
        await self.gate.admit(request, name, Action.PUSH)
        content = await receive_all(request, limit=MANIFEST_LIMIT)
        tags = request.query_params.getlist("tag")[:_MAX_TAGS]
        record = await run_in_threadpool(
            self.registry.put_manifest,
            name,
            request.path_params["reference"],
            content,
            request.headers.get("Content-Type", ""),
            tags=tags,
        )
        headers = {
            "Location": f"/v2/{name}/manifests/{record.digest}",
            **_content_digest(record.digest),
        }
        if record.subject:
            headers["OCI-Subject"] = record.subject
        if tags:
            headers["OCI-Tag"] = ", ".join(tags)
        return Response(status_code=201, headers=headers)

    async def delete(self, request: Request) -> Response:
        name = _name(request)
        await self.gate.admit(request, name, Action.DELETE)
        await run_in_threadpool(
            self.registry.delete_manifest, name, request.path_params["reference"]
        )
        return Response(status_code=202)

    async def tags(self, request: Request) -> Response:
        name = _name(request)
        await self.gate.admit(request, name, Action.PULL)
        limit = _count(request.query_params.get("n"))
        page = await run_in_threadpool(
            self.registry.tags, name, last=request.query_params.get("last", ""), limit=limit
        )
        headers = {}
        if page.more and page.tags:
            query = f"n={len(page.tags)}&last={quote(page.tags[-1])}"
            headers["Link"] = f'</v2/{name}/tags/list?{query}>; rel="next"'
        return JSONResponse({"name": name, "tags": page.tags}, headers=headers)

    async def referrers(self, request: Request) -> Response:
        name = _name(request)
        await self.gate.admit(request, name, Action.PULL)
        subject = parse_oci_digest(request.path_params["digest"])
        wanted = request.query_params.get("artifactType")
        records = await run_in_threadpool(self.registry.referrers, name, subject)
        headers = {"OCI-Filters-Applied": "artifactType"} if wanted else {}
        return Response(referrers_index(records, wanted), media_type=OCI_INDEX, headers=headers)


def _name(request: Request) -> str:
    return parse_repository(request.path_params["name"])


def _count(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isdecimal() and text.isascii() and len(text) < 10):  # noqa: PLR2004 - digits
        raise DistributionError(
            f"'n={text[:20]}' is not a number",
            oci=OciCode.UNSUPPORTED,
            status=400,
            code=Code.REQUEST_INVALID,
        )
    return int(text)


def _content_digest(digest: Digest) -> dict[str, str]:
    return {"Docker-Content-Digest": digest, **_VERSION}


def _created(name: str, digest: Digest) -> Response:
    location = {"Location": f"/v2/{name}/blobs/{digest}"}
    return Response(status_code=201, headers={**location, **_content_digest(digest)})


def _progress(name: str, upload: str, size: int, *, status: int) -> Response:
    headers = {
        "Location": f"/v2/{name}/blobs/uploads/{upload}",
        "Range": f"0-{max(0, size - 1)}",
        "Docker-Upload-UUID": upload,
    }
    return Response(status_code=status, headers=headers)
