"""Routes for devices: enrolment by claim, everything else by client certificate."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import msgspec
from fastapi import APIRouter, Request, Response

from hub.api.deps import DeviceDep, ServicesDep
from protocol import codec
from protocol.messages import CredentialRequest, EnrollRequest, Renewed, RenewRequest

MAX_BODY_BYTES = 64 * 1024
_T = TypeVar("_T", bound=msgspec.Struct)

router = APIRouter(prefix="/device/v1", tags=["device"])


async def _read(request: Request, kind: type[_T]) -> _T:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            break
    return codec.decode(bytes(body), kind, limit=MAX_BODY_BYTES)


def _answer(message: msgspec.Struct) -> Response:
    return Response(codec.encode(message), media_type="application/json")


@router.post("/enroll")
async def enroll(request: Request, hub: ServicesDep) -> Response:
    """Trade a claim for a certificate: `protocol.messages.EnrollRequest` -> `Enrolled`."""
    body = await _read(request, EnrollRequest)
    return _answer(await asyncio.to_thread(hub.devices.enroll, body))


@router.post("/renew")
async def renew(request: Request, device: DeviceDep, hub: ServicesDep) -> Response:
    """Get a new certificate: `protocol.messages.RenewRequest` -> `Renewed`."""
    body = await _read(request, RenewRequest)
    return _answer(Renewed(await asyncio.to_thread(hub.devices.renew, device, body.csr)))


@router.post("/credential")
async def credential(request: Request, device: DeviceDep, hub: ServicesDep) -> Response:
    """Get the means to pull an image: `CredentialRequest` -> `Credential`."""
    body = await _read(request, CredentialRequest)
    return _answer(await asyncio.to_thread(hub.credentials.for_image, device, body.image))
