"""What an alarm rests on: its record, the same computed again from stored windows, a picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response

from control_plane.drift import picture, record
from control_plane.drift.measuring import Rule
from control_plane.drift.record import MAX_RECORD, Replayed
from control_plane.drift.windows import Query as Asked
from control_plane.store.drift_rows import DriftRow
from control_plane.web.parts import Here, Parts
from control_plane.web.permissions import needs
from control_plane.web.unknown import unknown
from protocol.codec import decode
from protocol.errors import InvalidRequest
from protocol.identifiers import DeviceId
from protocol.members import Profile, member_document
from protocol.wording import rfc3339

router = APIRouter(tags=["alarms"])

SVG: Final = "image/svg+xml"
_NEAR: Final = 500
Evidence = Annotated[
    str | None, Query(description="Digest of one of its records; the newest without it.")
]


@dataclass(frozen=True, slots=True)
class ReplayedAlarm:
    """What the windows that are stored now give."""

    same: bool
    """It is what the record says, number by number."""
    said: str
    statistic: dict[str, Any]
    windows: int
    devices: int
    rows: int
    found: bool
    """The statistic is beyond the threshold."""


@dataclass(frozen=True, slots=True)
class CoursePoint:
    at: str
    value: float


@dataclass(frozen=True, slots=True)
class ComparedSlots:
    """Counts of one feature: of the device or cohort, and of what it is compared with."""

    name: str
    counts: list[int]
    against: list[int]
    what: str
    """ "reference", "61 peers"."""
    slots: list[str]


@dataclass(frozen=True, slots=True)
class AlarmThreshold:
    unit: str
    value: float


@dataclass(frozen=True, slots=True)
class AlarmExplained:
    """`course` is of the foremost feature: ln e per window of a detector, p per slot among peers,
    PSI per slot of a cohort."""

    record: dict[str, Any]
    digest: str
    replayed: ReplayedAlarm
    course: list[CoursePoint]
    threshold: AlarmThreshold
    compared: list[ComparedSlots]


@router.get(
    "/alarms/{id}/explanation",
    summary="An alarm, computed again from stored windows",
    dependencies=[needs("read")],
)
def explain_alarm(id: str, parts: Here, evidence: Evidence = None) -> AlarmExplained:
    """The same query and the same functions as when it was found. OUT-D611: no window is left."""
    digest, body, replayed, sides = _replayed(parts, id, evidence)
    found = replayed.measured
    return AlarmExplained(
        body,
        digest,
        ReplayedAlarm(
            replayed.same,
            replayed.said,
            found.statistic,
            found.windows,
            found.devices,
            found.rows,
            found.beyond,
        ),
        [CoursePoint(rfc3339(each.at_ms), each.value) for each in found.course],
        AlarmThreshold(**body["threshold"]),
        [
            ComparedSlots(s.name, list(s.counts), list(s.against), s.what, list(s.slots))
            for s in sides
        ],
    )


@router.get(
    "/alarms/{id}/picture.svg",
    summary="An alarm as a picture",
    response_class=Response,
    responses={
        200: {
            "description": "The course of its evidence against the threshold, and its slots",
            "content": {SVG: {"schema": {"type": "string"}}},
        }
    },
    dependencies=[needs("read")],
)
def draw_alarm(id: str, parts: Here, evidence: Evidence = None) -> Response:
    _, body, replayed, sides = _replayed(parts, id, evidence)
    shapes = picture.shapes(body, replayed.said, replayed.measured.course, sides)
    return Response(picture.svg(shapes, body["sentence"]), media_type=SVG)


def _replayed(
    parts: Parts, id: str, evidence: str | None
) -> tuple[str, dict[str, Any], Replayed, tuple[picture.Compared, ...]]:
    """Raises `InvalidRequest`: OUT-S110 for an alarm or a record that is not known, OUT-D611."""
    rows = parts.store.alarms
    if rows.get(id) is None:
        raise unknown("alarm", id, (alarm.id for alarm in rows.page(limit=_NEAR).items))
    kept = rows.record(id, evidence)
    if kept is None:
        raise InvalidRequest(
            "OUT-S110", f"{id} has no such record", do=f"GET alarms/{id} lists what there is"
        )
    body = decode(kept.body.encode(), dict[str, Any], limit=MAX_RECORD)
    profile = member_document(parts.blobs.read(body["profile"]), Profile)
    rule, asked = record.rule_in(body), record.query_of(body)
    stored = list(_windows(parts, rule, asked, body))
    replayed = record.replay(body, stored, profile)
    chain = [(each.digest, each.body) for each in rows.records(id) if each.number <= kept.number]
    wrong = record.broken_chain(chain)
    if wrong is not None:
        replayed = replace(replayed, same=False, said=wrong)
    return kept.digest, body, replayed, picture.compared(replayed.measured.shown, profile)


def _windows(parts: Parts, rule: Rule, asked: Asked, body: dict[str, Any]) -> Iterator[DriftRow]:
    """Windows of the query, also those that came later."""
    rows, place = parts.store.drift, (body["manifest"], body["profile"])
    if rule.kind == "detector":
        yield from rows.of_device(rule.subject, *place)
        return
    devices = _devices(parts, rule, asked)
    if rule.unit == "ln e":
        for device in sorted(devices or ()):
            yield from rows.of_device(device, *place)
    else:
        yield from rows.within(*place, asked.from_ms, asked.to_ms, devices=devices)


def _devices(parts: Parts, rule: Rule, asked: Asked) -> frozenset[DeviceId] | None:
    """None: all. A cohort that was too large to name is the one that the label makes today."""
    if asked.devices is not None:
        return frozenset(asked.devices)
    if rule.kind == "peer" or asked.by is None:
        return None
    return frozenset(
        device.id
        for device in parts.store.devices.all()
        if device.selectable.get(asked.by) == asked.value
    )
