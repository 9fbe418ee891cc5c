"""Errors as `application/problem+json`: one form for every route, in the catalogue's words.

Clients switch on `code`; `type` is a page that this control plane serves itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastapi.responses import JSONResponse

from control_plane.fleet.grammar import SelectorUnreadable
from protocol.errors import InvalidRequest, OutriderError
from protocol.problems import Problem, problem

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 2
"""What 429 and 503 suggest unless they know better: hardly anything waits longer than a tick."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing that is wrong with a request."""

    pointer: str
    """JSON pointer into the body ("#/to"), or "?name" for a query parameter."""
    detail: str
    offset: int | None = None
    """Character position inside the value, where that is known."""


@dataclass(frozen=True, slots=True)
class ProblemDetails:
    """The body of every error answer (RFC 9457); some problems add members of their own."""

    type: str
    status: int
    code: str
    title: str
    help: str
    request_id: str
    detail: str = ""
    instance: str = ""
    errors: tuple[FieldError, ...] = ()


class InvalidFields(InvalidRequest):
    """Fields of a request that are wrong, each with its place."""

    def __init__(
        self, errors: Sequence[FieldError], code: str = "OUT-S120", *, do: str = ""
    ) -> None:
        self.errors = tuple(errors)
        super().__init__(code, "; ".join(_said(error) for error in errors), do=do)


class WithFacts(InvalidRequest):
    """A refusal that says more in members of its own, and where the thing in the way is."""

    def __init__(
        self, code: str, why: str, *, do: str = "", instance: str = "", **facts: Any
    ) -> None:
        self.instance = instance
        self.facts = facts
        super().__init__(code, why, do=do)


def body(
    error: OutriderError, request_id: str = "", *, selector_at: str = "#/to"
) -> dict[str, Any]:
    """The problem as JSON values; members that say nothing are left out."""
    said: dict[str, Any] = {**_head(error.problem), "help": error.do}
    if request_id:
        said["request_id"] = request_id
    if error.why:
        said["detail"] = error.why
    if isinstance(error, InvalidFields):
        said["errors"] = [_field(each) for each in error.errors]
    if isinstance(error, SelectorUnreadable):
        said["selector"] = error.text
        said["errors"] = [_field(FieldError(selector_at, error.why, error.offset))]
    if isinstance(error, WithFacts):
        if error.instance:
            said["instance"] = error.instance
        said.update(error.facts)
    return said


def answer(
    error: OutriderError,
    request_id: str,
    *,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
    selector_at: str = "#/to",
) -> JSONResponse:
    """`status` overrides the catalogue's, for causes that HTTP tells apart and people do not."""
    content = body(error, request_id, selector_at=selector_at)
    if status is not None:
        content["status"] = status
    said = dict(headers or {})
    if content["status"] == 401:
        said["WWW-Authenticate"] = "Bearer"
    if content["status"] in (429, 503):
        said.setdefault("Retry-After", str(RETRY_AFTER_S))
    return JSONResponse(content, content["status"], said, MEDIA_TYPE)


def page(code: str) -> dict[str, Any]:
    """What `type` points to. Raises `InvalidRequest` for a code that does not exist."""
    try:
        row = problem(code)
    except KeyError:
        raise InvalidRequest("OUT-S110", f"no problem {code:.32}") from None
    return {**_head(row), "slug": row.slug, "exit": row.exit, "help": row.help}


def _head(row: Problem) -> dict[str, Any]:
    title = row.title[:1].upper() + row.title[1:]
    return {"type": row.uri, "status": row.status, "code": row.code, "title": title}


def _field(error: FieldError) -> dict[str, Any]:
    members: dict[str, Any] = {"pointer": error.pointer, "detail": error.detail}
    if error.offset is not None:
        members["offset"] = error.offset
    return members


def _said(error: FieldError) -> str:
    name = error.pointer.removeprefix("#/").removeprefix("?")
    return f"{name}: {error.detail}" if name not in ("", "#") else error.detail
