"""How many false alarms a fleet may have in a year, and the thresholds that follow from that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter
from pydantic import ConfigDict, Field

from control_plane.drift import budget
from control_plane.drift.budget import LEAST_PER_YEAR, MOST_PER_YEAR, Terms
from control_plane.store.drift_rows import Term
from control_plane.watched_fleet import Profiles, fleet_terms
from control_plane.web.parts import Here, Parts
from control_plane.web.permissions import Who, needs
from control_plane.web.problems import FieldError, InvalidFields
from protocol.identifiers import label_key

router = APIRouter(tags=["alarms"])


@dataclass(frozen=True, slots=True)
class AskedBudget:
    """`by`: label whose values make cohorts; null: all devices are one."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    per_year: Annotated[float, Field(ge=LEAST_PER_YEAR, le=MOST_PER_YEAR)]
    by: str | None = None


@dataclass(frozen=True, slots=True)
class Threshold:
    """`ln e` is reached from below, `p` and `q` from above."""

    unit: str
    value: float


@dataclass(frozen=True, slots=True)
class BudgetPart:
    """`share` of the budget for one kind of test, over so many streams, and what it assumes."""

    part: str
    share: float
    streams: int
    threshold: Threshold
    assumes: str


@dataclass(frozen=True, slots=True)
class Budget:
    """`number` rises with every change."""

    per_year: float
    by: str | None
    number: int
    parts: list[BudgetPart]


@router.get("/drift/budget", summary="The budget of false alarms", dependencies=[needs("read")])
def get_budget(parts: Here) -> Budget:
    """Expected false alarms a year, and every threshold that follows, for what runs now."""
    return _shown(parts, parts.store.drift.terms())


@router.put(
    "/drift/budget", summary="Set the budget of false alarms", dependencies=[needs("operate")]
)
def set_budget(asked: AskedBudget, parts: Here, who: Who) -> Budget:
    """At the next look at what devices send; alarms that are open stay."""
    if asked.by is not None:
        try:
            label_key(asked.by)
        except ValueError as error:
            raise InvalidFields([FieldError("#/by", str(error))]) from error
    now_ms = parts.now_ms()
    with parts.store.write():
        before = parts.store.drift.terms()
        if (before.per_year, before.by) == (asked.per_year, asked.by):
            return _shown(parts, before)
        after = parts.store.drift.set_terms(asked.per_year, asked.by, now_ms)
        parts.store.happened(
            who.name,
            "drift/budget",
            "budget.changed",
            _said(after),
            now_ms,
            before=_said(before),
            after=_said(after),
        )
    return _shown(parts, after)


_ROWS: Final = "rows independent, or as dependent as the first 60 windows were"
_WINDOWS: Final = "windows independent, given the fitted scale"
_DEVICES: Final = "devices independent"


def _shown(parts: Parts, term: Term) -> Budget:
    intervals = parts.settings.intervals
    terms = fleet_terms(
        parts.store,
        Profiles(parts.blobs.read),
        parts.now_ms(),
        slot_s=intervals.drift_slot,
        day_s=intervals.drift_day,
    )
    return Budget(term.per_year, term.by, term.number, _parts(terms))


def _parts(terms: Terms) -> list[BudgetPart]:
    rows = (
        ("detectors", budget.DETECTORS, "ln e", terms.ln_threshold, _ROWS),
        ("peers", budget.PEERS, "p", terms.peer_p, _WINDOWS),
        ("cohorts", budget.COHORTS, "q", terms.cohort_q, _DEVICES),
    )
    return [
        BudgetPart(part, share, terms.streams, Threshold(unit, value), assumes)
        for part, share, unit, value, assumes in rows
    ]


def _said(term: Term) -> dict[str, object]:
    return {"per_year": term.per_year, "by": term.by, "number": term.number}
