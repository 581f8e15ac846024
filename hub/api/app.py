"""The HTTP application: routes, problem documents, liveness."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, FastAPI
from fastapi.responses import PlainTextResponse

from hub.api import devices, operators, problems
from hub.api.deps import ServicesDep
from hub.api.limits import BodyLimit
from hub.services import Services

open_router = APIRouter(tags=["open"])


@open_router.get("/health/live", response_class=PlainTextResponse)
def live() -> str:
    """Tell that the hub runs."""
    return "live\n"


@open_router.get("/health/ready", response_class=PlainTextResponse)
def ready(hub: ServicesDep) -> str:
    """Tell that the hub can reach its database, or answer `database-unavailable`."""
    hub.devices.list(limit=1)
    return "ready\n"


@open_router.get("/pki/ca.pem", response_class=PlainTextResponse)
def ca(hub: ServicesDep) -> str:
    """Return the root certificate; compare its fingerprint with the claim's before trusting it."""
    return hub.authority.roots_pem()


def create_app(services: Services, version: str, routers: Sequence[APIRouter] = ()) -> FastAPI:
    """Return the application.

    Args:
        services: What the routes call.
        version: Of the hub, for the OpenAPI document.
        routers: Further routes, for example the registry's.
    """
    app = FastAPI(
        title="Rimward hub",
        version=version,
        summary="Models, images, devices, deployments and telemetry.",
        docs_url=None,  # its pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # a redirect would name the wrong address behind a proxy
    )
    app.add_middleware(BodyLimit)
    app.state.services = services
    problems.install(app)
    for router in (open_router, operators.router, devices.router, *routers):
        app.include_router(router)
    return app
