"""Rollouts: preview, start, look, pause, resume, abort. The ticker does the rest."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Body, Query, Response
from pydantic import ConfigDict

from control_plane.rollout import operations
from control_plane.rollout.spec import RolloutSpec, Status, read_spec
from control_plane.web.cursors import DEFAULT_LIMIT, MAX_LIMIT, Page, after, cursor
from control_plane.web.idempotency import Repeatable
from control_plane.web.lookup import known_model, rollout_of
from control_plane.web.parts import Here
from control_plane.web.permissions import Who, needs
from control_plane.web.problems import WithFacts
from protocol.codec import to_wire
from protocol.errors import InvalidRequest
from protocol.identifiers import DeviceId, Digest
from protocol.wording import rfc3339

router = APIRouter(tags=["rollouts"], route_class=Repeatable)

_EXAMPLE: Final = {
    "version": "digits/v2",
    "to": "site = leeds",
    "waves": ["1", "25 %", "100 %"],
    "soak": "24h",
    "error_condition": {"bad": "> 10 %", "denominator": "activated", "min_completed": 10},
}
_FIELD: Final = re.compile(r"(?:unknown field )?([a-z_]+(?:\[\d+\]|\.[a-z_]+)*)")

Spec = Annotated[dict[str, Any], Body(examples=[_EXAMPLE])]


@dataclass(frozen=True, slots=True)
class Wave:
    """`devices` are planned, with those of earlier waves; `counts` are of this wave alone."""

    wave: int
    state: Literal["waiting", "running", "done"]
    devices: int
    soak_seconds: float
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Returning:
    """After an abort: devices that had activated, and those of them that serve another bundle."""

    confirmed: int
    of: int


@dataclass(frozen=True, slots=True)
class Rollout:
    """`counts` are of the waves that have begun: targeted contains reached contains staged
    contains activated, the others are ends. `targeted` is of all waves."""

    id: str
    model: str
    version: str
    over: str | None
    """The version that was stable before."""
    candidate: Digest
    to: str
    status: Status
    attempt: int
    wave: int
    """From 1; 0 before the first."""
    waves: list[Wave]
    targeted: int
    excluded: dict[str, int]
    """Devices that match and are no targets, by reason."""
    verdict: str | None
    sentence: str
    """What the verdict says, in words."""
    counts: dict[str, int]
    reasons: dict[str, int]
    """Problem codes behind devices that failed, rolled back or refused."""
    why: str
    """Of a pause or of the end."""
    plan: int | None
    """Number of the last plan, for people."""
    started: str
    ended: str | None
    returning: Returning | None = None
    pending: int | None = None
    """Once completed: devices that get it when they return."""


@dataclass(frozen=True, slots=True)
class RolloutDetails(Rollout):
    spec: dict[str, Any] | None = None
    judgement: dict[str, Any] | None = None
    """The last verdict with its inputs, from which it can be computed again."""


@dataclass(frozen=True, slots=True)
class PreviewWave:
    wave: int
    devices: int
    soak_seconds: float


@dataclass(frozen=True, slots=True)
class Preview:
    """What starting it would do now."""

    model: str
    version: str
    over: str | None
    to: str
    matched: int
    targeted: int
    excluded: dict[str, int]
    waves: list[PreviewWave]
    bundle_size_bytes: int


@dataclass(frozen=True, slots=True)
class Member:
    device: DeviceId
    wave: int
    phase: str
    since: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Members:
    items: list[Member]


@dataclass(frozen=True, slots=True)
class Why:
    __pydantic_config__ = ConfigDict(extra="forbid")
    why: str = ""


@router.post(
    "/rollouts",
    summary="Start a rollout, or preview it",
    status_code=201,
    response_model=Rollout | Preview,
    responses={200: {"description": "The preview; nothing has changed", "model": Preview}},
    dependencies=[needs("operate")],
)
def start_rollout(
    spec: Spec,
    parts: Here,
    who: Who,
    response: Response,
    dry_run: Annotated[bool, Query(description="Only say what it would do.")] = False,
) -> Any:
    """Waves are devices ("3") or shares ("25 %"), cumulative; conditions look at them."""
    asked, now_ms = _read(spec), parts.now_ms()
    approvals = parts.repository.approvals()
    if dry_run:
        response.status_code = 200
        return operations.preview(parts.store, asked, approvals, now_ms)
    fleet = parts.settings.fleet
    started = operations.start_rollout(parts.store, fleet, asked, approvals, now_ms, who=who.name)
    response.headers["Location"] = f"/v1/fleets/{fleet}/rollouts/{started['id']}"
    parts.wake()
    return started


@router.get(
    "/rollouts",
    summary="Rollouts, newest first",
    response_model=Page[Rollout],
    dependencies=[needs("read")],
)
def list_rollouts(
    parts: Here,
    model: Annotated[str | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    cursor: str | None = None,
) -> Any:
    if model is not None:
        known_model(parts, model)
    found = parts.store.rollouts.page(model, after(cursor, "rollouts", model), limit)
    items = [operations.status(parts.store, each.id, parts.now_ms()) for each in found.items]
    behind = _behind(found.after, model)
    return {"items": items, "next_cursor": behind, "count": parts.store.rollouts.count(model)}


@router.get(
    "/rollouts/{rollout}",
    summary="One rollout",
    response_model=RolloutDetails,
    dependencies=[needs("read")],
)
def get_rollout(rollout: str, parts: Here) -> Any:
    """Its waves with honest counts, what was asked for, and the last verdict with its inputs."""
    row = rollout_of(parts, rollout)
    shown = operations.status(parts.store, row.id, parts.now_ms())
    return {**shown, "spec": to_wire(row.spec), "judgement": row.verdict}


@router.get(
    "/rollouts/{rollout}/devices", summary="Devices of a rollout", dependencies=[needs("read")]
)
def list_members(rollout: str, parts: Here) -> Members:
    """At most 1000, in order of devices."""
    members = parts.store.rollouts.members.of(rollout_of(parts, rollout).id)
    return Members(
        [Member(m.device, m.wave, m.phase, rfc3339(m.since_ms), m.reason) for m in members]
    )


@router.post(
    "/rollouts/{rollout}/pause",
    summary="Pause a rollout",
    response_model=Rollout,
    dependencies=[needs("operate")],
)
def pause_rollout(rollout: str, parts: Here, who: Who, asked: Why = Why()) -> Any:
    """No further wave. Devices go on with what they have begun; an abort is still possible."""
    row = rollout_of(parts, rollout)
    shown = operations.pause(parts.store, row.id, parts.now_ms(), asked.why, who=who.name)
    parts.wake()
    return shown


@router.post(
    "/rollouts/{rollout}/resume",
    summary="Resume a rollout",
    response_model=Rollout,
    dependencies=[needs("operate")],
)
def resume_rollout(rollout: str, parts: Here, who: Who) -> Any:
    row = rollout_of(parts, rollout)
    shown = operations.resume(parts.store, row.id, parts.now_ms(), who=who.name)
    parts.wake()
    return shown


@router.post(
    "/rollouts/{rollout}/abort",
    summary="Abort a rollout",
    status_code=202,
    response_model=Rollout,
    dependencies=[needs("operate")],
)
def abort_rollout(rollout: str, parts: Here, who: Who, asked: Why = Why()) -> Any:
    """Every device goes back to what was stable, from its own disk."""
    row = rollout_of(parts, rollout)
    shown = operations.abort(parts.store, row.id, parts.now_ms(), asked.why, who=who.name)
    parts.wake()
    return shown


def _read(body: dict[str, Any]) -> RolloutSpec:
    """Raises `InvalidRequest` with a pointer to the field that its words begin with."""
    try:
        return read_spec(body)
    except InvalidRequest as error:
        named = _FIELD.match(error.why)
        if error.code not in ("OUT-S120", "OUT-S121") or named is None:
            raise
        # People count waves from 1, JSON pointers from 0.
        place = re.sub(r"\[(\d+)\]", lambda found: f"/{int(found[1]) - 1}", named[1])
        pointer = "#/" + place.replace(".", "/")
        fields = [{"pointer": pointer, "detail": error.why}]
        raise WithFacts(error.code, error.why, do=error.do, errors=fields) from error


def _behind(key: tuple[str | int, ...] | None, model: str | None) -> str | None:
    return cursor(key, "rollouts", model) if key else None
