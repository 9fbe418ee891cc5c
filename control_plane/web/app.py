"""The HTTP API of one control plane, put together. The work lies in the modules it calls."""

from __future__ import annotations

import functools
import re
from typing import Final

from fastapi import APIRouter, Depends, FastAPI
from starlette.routing import BaseRoute

from control_plane.web import (
    alarm_explaining,
    alarms,
    audit,
    bundles,
    carried,
    denials,
    device_identity,
    devices,
    drafts,
    drift,
    drift_budget,
    enrol,
    events,
    export,
    health,
    operations,
    payloads,
    people,
    records,
    releases,
    rollout_evidence,
    rollouts,
    trust,
    webhooks,
)
from control_plane.web.auth import RequireToken, bearer, identify
from control_plane.web.description import describe
from control_plane.web.faults import answer_errors
from control_plane.web.guesses import LimitGuesses
from control_plane.web.limits import Limited
from control_plane.web.parts import Parts, own_fleet
from control_plane.web.permissions import require_declared
from control_plane.web.range import public as payloads_for_devices
from control_plane.web.requests import Traced
from protocol.codec import MAX_TUF_ROLE
from protocol.enrolment import MAX_REQUEST, RENEW
from protocol.enrolment import PATH as ENROL
from protocol.payload import MAX_PAYLOAD
from protocol.records_file import MAX_FILE

MAX_BODY: Final = 1024 * 1024
"""Bytes of a request that is not listed in `max_body`."""

ABOUT = """Operate a fleet: ship ONNX models to edge devices and take a bad one back.

Errors are `application/problem+json`; switch on `code`. Every POST takes an `Idempotency-Key`.
Devices are named by their local name or their full id."""


_UPLOAD: Final = re.compile(r"/v1/fleets/[^/]+/bundles")
_CARRIED: Final = re.compile(r"/v1/fleets/[^/]+/records")
_CEREMONY: Final = re.compile(r"/v1/fleets/[^/]+/tuf")


def max_body(method: str, path: str) -> int:
    """Bytes that a request may have."""
    if path in (ENROL, RENEW):
        return MAX_REQUEST
    if method == "POST" and _CEREMONY.fullmatch(path):
        return 4 * MAX_TUF_ROLE
    if method == "POST" and _CARRIED.fullmatch(path):
        return MAX_FILE
    return MAX_PAYLOAD if method == "POST" and _UPLOAD.fullmatch(path) else MAX_BODY


def create_app(parts: Parts) -> FastAPI:
    """The application; `parts` are shared by all threads and live as long as it does."""
    app = FastAPI(
        title="Outrider control plane",
        version="1",
        description=ABOUT,
        # Their pages load scripts from elsewhere; the control plane works without internet.
        docs_url=None,
        redoc_url=None,
        routes=list(_routes()),
    )
    app.state.parts = parts
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]  # FastAPI's documented way
    answer_errors(app)
    app.add_middleware(Limited, limit=max_body)
    app.add_middleware(
        RequireToken, identify=lambda token: identify(parts.store.people, token, parts.now_ms())
    )
    app.add_middleware(LimitGuesses, attempts=parts.attempts)
    app.add_middleware(Traced)
    return app


@functools.cache
def _routes() -> tuple[BaseRoute, ...]:
    """The whole API. No route knows its application, and making them takes longer than all else,
    so every application has the same."""
    api = APIRouter(generate_unique_id_function=lambda route: route.name)
    for router in (health.router, enrol.public, device_identity.public, payloads_for_devices):
        api.include_router(router)
    fleet = APIRouter()
    for module in (
        audit, bundles, releases, drafts, denials, enrol, device_identity, devices, rollouts,
        rollout_evidence, drift, drift_budget, alarms, alarm_explaining, webhooks, records, carried,
        events, export, operations, payloads, people, trust,
    ):  # fmt: skip
        fleet.include_router(module.router)
    # With the prefix here: without one FastAPI would make every route twice, to look at its path.
    closed = [Depends(own_fleet), Depends(bearer)]
    api.include_router(fleet, prefix="/v1/fleets/{fleet}", dependencies=closed)
    require_declared(api.routes, "/v1/fleets/")
    return tuple(api.routes)
