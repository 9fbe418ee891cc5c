"""Rollouts: preview, start, look, and everything that operators do with them. The ticker does
the rest."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Query, Response

from control_plane.rollout import operations
from control_plane.rollout.preview import preview
from control_plane.rollout.spec import RolloutSpec, read_spec
from control_plane.web.cursors import DEFAULT_LIMIT, MAX_LIMIT, Page, after, cursor
from control_plane.web.idempotency import Repeatable
from control_plane.web.lookup import known_model, rollout_of
from control_plane.web.parts import Here, Parts
from control_plane.web.permissions import Who, needs
from control_plane.web.problems import FieldError, InvalidFields, WithFacts
from control_plane.web.rollout_view import (
    EXAMPLE,
    RETURNING,
    UNSAID,
    Abort,
    Member,
    Members,
    Preview,
    Return,
    ReturnPreview,
    Rollout,
    RolloutDetails,
    Why,
)
from protocol.codec import to_wire
from protocol.errors import InvalidRequest
from protocol.identifiers import Version
from protocol.wording import rfc3339

router = APIRouter(tags=["rollouts"], route_class=Repeatable)

_FIELD: Final = re.compile(r"(?:unknown field )?([a-z_]+(?:\[\d+\]|\.[a-z_]+)*)")
_EXPECTED: Final = "expect_devices"

Spec = Annotated[dict[str, Any], Body(examples=[EXAMPLE])]
DryRun = Annotated[bool, Query(description="Only say what it would do.")]


@router.post(
    "/rollouts",
    summary="Start a rollout, or preview it",
    status_code=201,
    response_model=Rollout | Preview,
    responses={200: {"description": "The preview; nothing has changed", "model": Preview}},
    dependencies=[needs("operate")],
)
def start_rollout(
    spec: Spec, parts: Here, who: Who, response: Response, dry_run: DryRun = False
) -> Any:
    """Waves are devices ("3"), shares ("25 %") or names, cumulative; without any they suit the
    size of the fleet. `expect_devices`, beside the spec, is how many targets the preview showed:
    another number now is refused. `supersedes` ends another rollout with this one's start."""
    asked, expected = _read(spec)
    now_ms, approvals = parts.now_ms(), parts.repository.approvals()
    if dry_run:
        response.status_code = 200
        rows = parts.store.evidence
        earlier = rows.completed(asked.model, 1)
        terms = rows.terms(earlier[0]) if earlier else None
        return preview(parts.store, asked, approvals, now_ms, read=parts.blobs.read, terms=terms)
    started = operations.start_rollout(
        parts.store,
        parts.settings.fleet,
        asked,
        approvals,
        now_ms,
        who=who.name,
        expect_devices=expected,
    )
    return _started(parts, response, started)


@router.post(
    "/models/{model}/return",
    summary="Return devices to an approved version, or preview it",
    status_code=201,
    response_model=Rollout | ReturnPreview,
    responses={200: {"description": "The preview; nothing has changed", "model": ReturnPreview}},
    dependencies=[needs("operate")],
)
def return_devices(
    model: str, asked: Return, parts: Here, who: Who, response: Response, dry_run: DryRun = False
) -> Any:
    """One wave of everyone, now, from their own disks where the version is there. Rollouts of the
    model that have some of these devices end with it."""
    known_model(parts, model)
    store, version = parts.store, Version(asked.version)
    now_ms, approvals = parts.now_ms(), parts.repository.approvals()
    if dry_run:
        response.status_code = 200
        return operations.preview_return(store, model, version, approvals, now_ms, asked.to)
    started = operations.return_to(
        store,
        parts.settings.fleet,
        model,
        version,
        approvals,
        now_ms,
        who=who.name,
        to=asked.to,
        why=asked.why,
        expect_devices=asked.expect_devices,
    )
    return _started(parts, response, started)


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
    """Its waves with honest counts, control, gates, what is waited for, and what was asked for."""
    row = rollout_of(parts, rollout)
    shown = operations.status(parts.store, row.id, parts.now_ms())
    return {**shown, "spec": to_wire(row.spec)}


@router.get(
    "/rollouts/{rollout}/devices", summary="Devices of a rollout", dependencies=[needs("read")]
)
def list_members(rollout: str, parts: Here) -> Members:
    """At most 1000, in order of devices."""
    members = parts.store.rollouts.members.of(rollout_of(parts, rollout).id)
    return Members(
        [Member(m.device, m.wave, m.told, rfc3339(m.since_ms), m.reason) for m in members]
    )


@router.post(
    "/rollouts/{rollout}/pause",
    summary="Pause a rollout",
    response_model=Rollout,
    dependencies=[needs("operate")],
)
def pause_rollout(rollout: str, parts: Here, who: Who, asked: Why = UNSAID) -> Any:
    """No further wave. Devices go on with what they have begun; an abort is still possible."""
    row = rollout_of(parts, rollout)
    shown = operations.pause(parts.store, row.id, parts.now_ms(), asked.why, who=who.name)
    return _done(parts, shown)


@router.post(
    "/rollouts/{rollout}/resume",
    summary="Resume a rollout",
    response_model=Rollout,
    dependencies=[needs("operate")],
)
def resume_rollout(rollout: str, parts: Here, who: Who, asked: Why = UNSAID) -> Any:
    """Where it paused since nothing was proven, it goes on all the same."""
    row = rollout_of(parts, rollout)
    shown = operations.resume(parts.store, row.id, parts.now_ms(), asked.why, who=who.name)
    return _done(parts, shown)


@router.post(
    "/rollouts/{rollout}/promote",
    summary="Promote a rollout to its next wave",
    response_model=Rollout,
    dependencies=[needs("operate")],
)
def promote_rollout(rollout: str, parts: Here, who: Who, asked: Why = UNSAID) -> Any:
    """Now, whatever was measured so far, but not after a failure; after the last wave it
    completes."""
    row = rollout_of(parts, rollout)
    shown = operations.promote(parts.store, row.id, parts.now_ms(), asked.why, who=who.name)
    return _done(parts, shown)


@router.post(
    "/rollouts/{rollout}/approve",
    summary="Approve the next wave of a rollout",
    response_model=Rollout,
    dependencies=[needs("operate")],
)
def approve_wave(rollout: str, parts: Here, who: Who, asked: Why = UNSAID) -> Any:
    """Like a promotion, but only where the rollout waits for a person."""
    row = rollout_of(parts, rollout)
    shown = operations.approve(parts.store, row.id, parts.now_ms(), asked.why, who=who.name)
    return _done(parts, shown)


@router.post(
    "/rollouts/{rollout}/retry",
    summary="Retry a rollout on devices that gave up",
    response_model=Rollout,
    dependencies=[needs("operate")],
)
def retry_rollout(rollout: str, parts: Here, who: Who, asked: Why = UNSAID) -> Any:
    """What devices hold against the version is lifted, and they try it again."""
    row = rollout_of(parts, rollout)
    shown = operations.retry(parts.store, row.id, parts.now_ms(), asked.why, who=who.name)
    return _done(parts, shown)


@router.post(
    "/rollouts/{rollout}/abort",
    summary="Abort a rollout",
    status_code=202,
    response_model=Rollout,
    dependencies=[needs("operate")],
)
def abort_rollout(rollout: str, parts: Here, who: Who, asked: Abort = RETURNING) -> Any:
    """Every device goes back to what was stable, from its own disk; with `keep`, those that run
    the version stay with it until a later rollout of the model completes."""
    row = rollout_of(parts, rollout)
    shown = operations.abort(
        parts.store, row.id, parts.now_ms(), asked.why, who=who.name, keep=asked.keep
    )
    return _done(parts, shown)


def _done(parts: Parts, shown: dict[str, Any]) -> dict[str, Any]:
    parts.wake()
    return shown


def _started(parts: Parts, response: Response, started: dict[str, Any]) -> dict[str, Any]:
    place = f"/v1/fleets/{parts.settings.fleet}/rollouts/{started['id']}"
    response.headers["Location"] = place
    return _done(parts, started)


def _read(body: dict[str, Any]) -> tuple[RolloutSpec, int | None]:
    """The spec, and how many targets whoever asks has seen.

    Raises `InvalidRequest` with a pointer to the field that its words begin with.
    """
    expected = body.get(_EXPECTED)
    if expected is not None and (type(expected) is not int or expected < 1):
        raise InvalidFields([FieldError(f"#/{_EXPECTED}", "is a number of devices from 1")])
    try:
        return read_spec({name: v for name, v in body.items() if name != _EXPECTED}), expected
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
