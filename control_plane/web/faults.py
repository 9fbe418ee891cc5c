"""Which answer an exception becomes: the only place where errors turn into HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from control_plane.web.problems import FieldError, InvalidFields, answer
from control_plane.web.requests import PROBLEM, request_id
from protocol.errors import Failed, InvalidRequest, OutriderError


def answer_errors(app: FastAPI) -> None:
    """Errors of ours, of validation and of routing; all else is `Traced`'s OUT-S160."""
    app.add_exception_handler(OutriderError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)


def _ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, OutriderError)
    request.scope.setdefault("state", {})[PROBLEM] = error.code
    place = "?selector" if request.method == "GET" else "#/to"
    return answer(error, request_id(request.scope), selector_at=place)


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    fields = InvalidFields([field_error(each) for each in error.errors()])
    return answer(fields, request_id(request.scope))


def _http(request: Request, error: Exception) -> Response:
    """Starlette's own refusals: no such path, no such method, body too large."""
    assert isinstance(error, HTTPException)
    path = f"{request.method} {request.url.path:.120}"
    ours: OutriderError
    if error.status_code in (404, 405):
        ours = InvalidRequest("OUT-S111", path)
    elif error.status_code == 413:
        ours = InvalidRequest("OUT-N211", path)
    elif error.status_code < 500:
        ours = InvalidFields([FieldError("#", str(error.detail))])
    else:
        ours = Failed("OUT-S160", path)
    return answer(ours, request_id(request.scope), status=error.status_code, headers=error.headers)


def field_error(said: dict[str, Any]) -> FieldError:
    """Pydantic's error as a pointer and plain words."""
    place, *names = said["loc"]
    pointer = f"#{_below(names)}" if place == "body" else f"?{'.'.join(map(str, names))}"
    detail = str(said["msg"]).removeprefix("Value error, ")
    if said["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        detail = "unknown field"
    elif said["type"] == "missing":
        detail = "is missing"
    elif said["type"] == "json_invalid":
        return FieldError("#", f"not JSON: {said.get('ctx', {}).get('error', detail)}")
    return FieldError(pointer, detail[:1].lower() + detail[1:])


def _below(names: Sequence[str | int]) -> str:
    return "".join("/" + str(name).replace("~", "~0").replace("/", "~1") for name in names)
