"""Alarms: what was found about the inputs of devices and cohorts, and who looks after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, get_args

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, ConfigDict

from control_plane.drift import alarms
from control_plane.drift.alarms import Alarm
from control_plane.drift.words import Kind, State, Verdict
from control_plane.store.alarms import UNRESOLVED
from control_plane.web.cursors import DEFAULT_LIMIT, MAX_LIMIT, Page, after, cursor
from control_plane.web.drafts import Reason
from control_plane.web.idempotency import Repeatable
from control_plane.web.lookup import known_model
from control_plane.web.parts import Here, Parts
from control_plane.web.permissions import Who, needs
from control_plane.web.problems import FieldError, InvalidFields
from control_plane.web.unknown import unknown
from protocol.codec import decode
from protocol.identifiers import Digest
from protocol.wording import rfc3339

router = APIRouter(tags=["alarms"], route_class=Repeatable)

_NEAR = 500
_LISTED = "alarms"


@dataclass(frozen=True, slots=True)
class AlarmFeature:
    """`unit` of the value: "ln e" of a detector, "p" of a test. `what`: which score, or which side
    of a cohort that fell apart."""

    name: str
    value: float
    unit: str
    psi: float
    what: str


@dataclass(frozen=True, slots=True)
class ShownAlarm:
    """`subject`: id of a device, or a cohort. `seen`: when it was found last. `by` and `why` are of
    its state. `evidence`: digest of the newest record that it rests on."""

    id: str
    state: State
    kind: Kind
    verdict: Verdict
    sentence: str
    model: str
    version: str | None
    subject: str
    features: list[AlarmFeature]
    opened: str
    seen: str
    changed: str
    until: str | None
    by: str
    why: str
    evidence: str | None


@dataclass(frozen=True, slots=True)
class AlarmRecord:
    """One finding that an alarm rests on. `previous`: digest of the one before."""

    digest: Digest
    number: int
    at: str
    verdict: str
    previous: str | None


@dataclass(frozen=True, slots=True)
class AlarmDetails:
    """`records` in the order in which they were made."""

    alarm: ShownAlarm
    records: list[AlarmRecord]


@dataclass(frozen=True, slots=True)
class Acting:
    __pydantic_config__ = ConfigDict(extra="forbid")
    why: Reason = ""


@dataclass(frozen=True, slots=True)
class Snoozing:
    __pydantic_config__ = ConfigDict(extra="forbid")
    until: AwareDatetime
    why: Reason = ""


UNSAID = Acting()


@router.get("/alarms", summary="Alarms, newest first", dependencies=[needs("read")])
def list_alarms(
    parts: Here,
    state: Annotated[
        str | None,
        Query(description="States, separated by commas; all but resolved without it."),
    ] = None,
    model: Annotated[str | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    cursor: str | None = None,
) -> Page[ShownAlarm]:
    states = _states(state)
    if model is not None:
        known_model(parts, model)
    start = after(cursor, _LISTED, sorted(states), model)
    found = parts.store.alarms.page(states, model, start, limit)
    return Page(
        [shown(parts, each) for each in found.items],
        _behind(found.after, states, model),
        parts.store.alarms.count(states, model),
    )


@router.get("/alarms/{id}", summary="One alarm", dependencies=[needs("read")])
def get_alarm(id: str, parts: Here) -> AlarmDetails:
    """With the records that it rests on; `explanation` computes one again."""
    alarm = alarm_of(parts, id)
    return AlarmDetails(
        shown(parts, alarm),
        [
            _record(each.digest, each.number, each.at_ms, each.body)
            for each in parts.store.alarms.records(alarm.id)
        ],
    )


@router.post(
    "/alarms/{id}/acknowledge", summary="Acknowledge an alarm", dependencies=[needs("service")]
)
def acknowledge_alarm(id: str, parts: Here, who: Who, asked: Acting = UNSAID) -> ShownAlarm:
    """You look after it. It ends by itself when nothing is found any more."""
    now_ms = parts.now_ms()
    with parts.store.write():
        done = alarms.acknowledge(alarm_of(parts, id), who.name, asked.why, now_ms)
        return _done(parts, done, who.name)


@router.post("/alarms/{id}/snooze", summary="Snooze an alarm", dependencies=[needs("service")])
def snooze_alarm(id: str, parts: Here, who: Who, asked: Snoozing) -> ShownAlarm:
    """Nobody is told of it until then; if it is still there, it opens again by itself."""
    now_ms, until_ms = parts.now_ms(), int(asked.until.timestamp() * 1000)
    if until_ms <= now_ms:
        raise InvalidFields([FieldError("#/until", "is over already")])
    with parts.store.write():
        done = alarms.snooze(alarm_of(parts, id), until_ms, who.name, asked.why, now_ms)
        return _done(parts, done, who.name)


@router.post("/alarms/{id}/resolve", summary="Resolve an alarm", dependencies=[needs("service")])
def resolve_alarm(id: str, parts: Here, who: Who, asked: Acting = UNSAID) -> ShownAlarm:
    """For good. If it is found again within a day it takes two findings to open a new one."""
    now_ms = parts.now_ms()
    with parts.store.write():
        done = alarms.resolve(alarm_of(parts, id), who.name, asked.why, now_ms)
        return _done(parts, done, who.name)


def alarm_of(parts: Parts, id: str) -> Alarm:
    """Raises `InvalidRequest` OUT-S110."""
    found = parts.store.alarms.get(id)
    if found is None:
        near = parts.store.alarms.page(limit=_NEAR).items
        raise unknown("alarm", id, (alarm.id for alarm in near))
    return found


def shown(parts: Parts, alarm: Alarm) -> ShownAlarm:
    bundle = parts.store.bundles.get(alarm.bundle)
    return ShownAlarm(
        alarm.id,
        alarm.state,
        alarm.kind,
        alarm.verdict,
        alarm.sentence,
        alarm.model,
        bundle.version if bundle is not None else None,
        alarm.subject,
        [
            AlarmFeature(each.name, each.value, _unit(alarm, each.value), each.psi, each.what)
            for each in alarm.features
        ],
        rfc3339(alarm.opened_ms),
        rfc3339(alarm.seen_ms),
        rfc3339(alarm.changed_ms),
        rfc3339(alarm.until_ms) if alarm.until_ms is not None else None,
        alarm.by,
        alarm.why,
        alarm.evidence or None,
    )


def _unit(alarm: Alarm, value: float) -> str:
    """A cohort that its devices' detectors called has their unit; no p is above 1."""
    return "ln e" if alarm.kind == "detector" or value > 1 else "p"


def _done(parts: Parts, alarm: Alarm, who: str) -> ShownAlarm:
    parts.store.alarms.put(alarm)
    parts.store.happened(
        who,
        f"alarms/{alarm.id}",
        f"alarm.{alarm.state}",
        alarms.said(alarm),
        alarm.changed_ms,
        why=alarm.why,
        evidence=alarm.evidence,
    )
    return shown(parts, alarm)


def _record(digest: Digest, number: int, at_ms: int, body: str) -> AlarmRecord:
    said = decode(body.encode(), dict[str, object], limit=len(body.encode()))
    return AlarmRecord(
        digest, number, rfc3339(at_ms), str(said["verdict"]), str(said["previous"]) or None
    )


def _states(text: str | None) -> tuple[State, ...]:
    """Raises `InvalidFields` for a word that is no state."""
    if text is None:
        return UNRESOLVED
    known = get_args(State)
    asked = [each.strip() for each in text.split(",")]
    unknown_words = [each for each in asked if each not in known]
    if unknown_words:
        raise InvalidFields([FieldError("?state", f"is of {', '.join(known)}")])
    return tuple(each for each in known if each in asked)


def _behind(
    key: tuple[str | int, ...] | None, states: tuple[State, ...], model: str | None
) -> str | None:
    return cursor(key, _LISTED, sorted(states), model) if key else None
