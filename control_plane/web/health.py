"""Whether the control plane works, and the pages that problems point to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from control_plane.web.parts import Here, PartHealth
from control_plane.web.problems import page

router = APIRouter(tags=["control plane"])


@dataclass(frozen=True, slots=True)
class BrokerHealth:
    """Where the broker is, as the control plane reaches it."""

    host: str
    port: int
    connected: bool


@dataclass(frozen=True, slots=True)
class Health:
    """`ready` while every part works."""

    ready: bool
    fleet: str
    dev: bool
    """Made with `init --dev`: one key on this machine approves everything."""
    broker: BrokerHealth
    parts: dict[str, PartHealth]


@router.get("/v1/health", summary="Is every part working?")
def get_health(parts: Here) -> Health:
    """Look at `ready`: whoever gets an answer has found the API alive. Needs no token."""
    found = dict(parts.health())
    of = parts.settings
    linked = found["broker"].ok
    return Health(
        all(part.ok for part in found.values()),
        of.fleet,
        of.dev,
        BrokerHealth(of.broker_host, of.broker_port, linked),
        found,
    )


@router.get("/problems/{code}", summary="What does a code mean?", response_model=dict[str, Any])
def get_problem(code: str) -> JSONResponse:
    """The catalogue's entry; `type` of every problem points here. Needs no token."""
    return JSONResponse(page(code))
