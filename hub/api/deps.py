"""What routes are given: the services, and who is asking."""

from __future__ import annotations

import base64
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from hub.core.device import Token
from hub.services import Services
from protocol.errors import Code, DeniedError
from protocol.ids import DeviceId

_PEM_LINE = "-----"


def services(request: Request) -> Services:
    """Return the hub's services."""
    found: Services = request.app.state.services
    return found


ServicesDep = Annotated[Services, Depends(services)]


# Only the description of the API: the token itself is judged below, with our own error.
_DESCRIBED = HTTPBearer(auto_error=False, description="a token of `admin.json`")


def operator(
    request: Request, hub: ServicesDep, _: Annotated[object, Depends(_DESCRIBED)] = None
) -> Token:
    """Return the operator behind the bearer token, or raise DeniedError (`token-invalid`)."""
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    return hub.operators.authenticate(secret if scheme.lower() == "bearer" else "")


OperatorDep = Annotated[Token, Depends(operator)]


def device(request: Request, hub: ServicesDep) -> DeviceId:
    """Return the device behind the client certificate of the connection.

    Raises:
        DeniedError: `certificate-invalid`, without one, or with one of a device that is retired.
    """
    chain = request.scope.get("extensions", {}).get("tls", {}).get("client_cert_chain") or ()
    if not chain:
        raise DeniedError(
            "the connection shows no client certificate",
            code=Code.CERTIFICATE_INVALID,
            hint="connect with the certificate that enrolment gave",
        )
    lines = [line for line in chain[0].splitlines() if not line.startswith(_PEM_LINE)]
    return hub.devices.authenticate(base64.b64decode("".join(lines)))


DeviceDep = Annotated[DeviceId, Depends(device)]
