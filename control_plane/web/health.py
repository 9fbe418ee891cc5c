"""Whether the control plane works, and the pages that problems point to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from control_plane.web.parts import Here, PartHealth
from control_plane.web.problems import page

router = APIRouter(tags=["control plane"])


@dataclass(frozen=True, slots=True)
class Health:
    """`ready` while every part works."""

    ready: bool
    fleet: str
    dev: bool
    """Made with `init --dev`: one key on this machine approves everything."""
    parts: dict[str, PartHealth]


@router.get(
    "/v1/health",
    summary="Is every part working?",
    responses={503: {"description": "A part is not working", "model": Health}},
)
def get_health(parts: Here, response: Response) -> Health:
    """Answers 503 with the same body while a part does not work. Needs no token."""
    found = dict(parts.health())
    ready = all(part.ok for part in found.values())
    if not ready:
        response.status_code = 503
        response.headers["Retry-After"] = "2"
    return Health(ready, parts.settings.fleet, parts.settings.dev, found)


@router.get("/problems/{code}", summary="What does a code mean?", response_model=dict[str, Any])
def get_problem(code: str) -> JSONResponse:
    """The catalogue's entry; `type` of every problem points here. Needs no token."""
    return JSONResponse(page(code))
