"""The HTTP API of one control plane, put together. The work lies in the modules it calls."""

from __future__ import annotations

from fastapi import APIRouter, Depends, FastAPI

from control_plane.web import (
    bundles,
    devices,
    drift,
    enrol,
    events,
    health,
    operations,
    payloads,
    records,
    releases,
    rollouts,
    trust,
)
from control_plane.web.auth import RequireToken, bearer
from control_plane.web.description import describe
from control_plane.web.faults import answer_errors
from control_plane.web.parts import Parts, own_fleet
from control_plane.web.requests import Traced

MAX_BODY: int = 1024 * 1024
"""Of every request but a bundle's upload, in bytes."""

ABOUT = """Operate a fleet: ship ONNX models to edge devices and take a bad one back.

Errors are `application/problem+json`; switch on `code`. Every POST takes an `Idempotency-Key`.
Devices are named by their local name or their full id."""


def create_app(parts: Parts) -> FastAPI:
    """The application; `parts` are shared by all threads and live as long as it does."""
    app = FastAPI(
        title="Outrider control plane",
        version="1",
        description=ABOUT,
        # Their pages load scripts from elsewhere; the control plane works without internet.
        docs_url=None,
        redoc_url=None,
        max_body_size=MAX_BODY,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.parts = parts
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]  # FastAPI's documented way
    answer_errors(app)
    app.add_middleware(RequireToken, token=parts.token)
    app.add_middleware(Traced)
    app.include_router(health.router)
    app.include_router(enrol.public)
    fleet = APIRouter(
        prefix="/v1/fleets/{fleet}", dependencies=[Depends(own_fleet), Depends(bearer)]
    )
    for module in (
        bundles, releases, enrol, devices, rollouts, drift, records, events, operations, payloads,
        trust,
    ):  # fmt: skip
        fleet.include_router(module.router)
    app.include_router(fleet)
    return app
