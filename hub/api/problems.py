"""Errors as problem documents: every failed call answers code, message and hint."""

from __future__ import annotations

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from protocol.errors import CATALOGUE, Code, FleetError

_TOO_LARGE = CATALOGUE[Code.TOO_LARGE].http_status
log = structlog.get_logger()


def problem(code: Code, message: str, hint: str | None, status: int | None = None) -> JSONResponse:
    """Return the answer for one error."""
    headers = {"WWW-Authenticate": "Bearer"} if code is Code.TOKEN_INVALID else {}
    body = {"code": code.value, "message": message, "hint": hint or ""}
    return JSONResponse(body, status or CATALOGUE[code].http_status, headers)


def install(app: FastAPI) -> None:
    """Make the application answer every error as a problem document."""

    @app.exception_handler(FleetError)
    def on_fleet_error(_: Request, error: FleetError) -> JSONResponse:
        return problem(error.code, str(error), error.hint)

    @app.exception_handler(RequestValidationError)
    def on_invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return problem(
            Code.REQUEST_INVALID,
            f"{where!r} is not valid: {first['msg']}",
            "the API is described in /openapi.json",
        )

    @app.exception_handler(HTTPException)
    def on_http(request: Request, error: HTTPException) -> JSONResponse:
        answer = problem(
            Code.TOO_LARGE if error.status_code == _TOO_LARGE else Code.REQUEST_INVALID,
            f"{request.method} {request.url.path!r}: {error.detail}",
            "the API is described in /openapi.json",
            error.status_code,
        )
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(ClientDisconnect)
    def on_hang_up(request: Request, _: ClientDisconnect) -> JSONResponse:
        log.info("request.cut_off", path=request.url.path)
        return problem(Code.REQUEST_INVALID, "the caller hung up", None)  # nobody reads it

    @app.exception_handler(Exception)
    def on_defect(request: Request, error: Exception) -> JSONResponse:
        log.error("request.crashed", path=request.url.path, error=repr(error))
        return problem(Code.INTERNAL, "a defect in the hub", "see the hub's log")
