"""The record of a finding: what was said, from which windows, and by which threshold.

A record does not hold the windows, which may be thousands, but the query that finds them again and
the digest of their counts. Whoever has the store computes the statistic again from it (`replay`):
same query, same functions. Each record carries the digest of the alarm's record before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isclose
from typing import Any, Final

from control_plane.drift.budget import Terms
from control_plane.drift.measuring import Family, Measured, Rule, Unit, measure
from control_plane.drift.windows import Query, Row
from control_plane.drift.words import KINDS, Kind, Verdict
from protocol.codec import convert, decode, encode
from protocol.errors import InvalidRequest, PeerError
from protocol.identifiers import MAX_INT, Digest, ModelName, digest_of
from protocol.members import Profile
from protocol.wording import count

RULES: Final = "1"
"""Version of the functions that records are computed by."""
MOST_DEVICES: Final = 10_000
"""A query of more devices names none: those of today are asked again."""
SHARES: Final[Mapping[Unit, float]] = {"ln e": 0.5, "p": 0.25, "q": 0.25}
"""Of the budget of false alarms: detectors, peers, cohorts."""
MAX_RECORD: Final = 4 * 1024 * 1024
"""Bytes of a record's text: ten thousand names of devices fit."""
_EXACT: Final = 1e-9
_SHOWN: Final = len("sha256-") + 8


@dataclass(frozen=True, slots=True)
class About:
    """What was found, of which bundle. `subject`: a device id, or a cohort like "site=b"."""

    kind: Kind
    model: ModelName
    version: str
    bundle: Digest
    manifest: Digest
    profile: Digest
    subject: str
    verdict: Verdict
    sentence: str
    at_ms: int


def rule_of(
    kind: Kind,
    subject: str,
    terms: Terms,
    *,
    by_detectors: bool = False,
    family: Family | None = None,
) -> Rule:
    """By what a finding is measured: the threshold follows from the budget alone.

    `by_detectors`: a cohort of few devices, called by what their own detectors say. `family`: of
    the day's tests, for cohorts called by a test.
    """
    if kind == "detector" or by_detectors:
        return Rule(kind, subject, "ln e", terms.ln_threshold)
    if kind == "peer":
        return Rule(kind, subject, "p", terms.peer_p)
    return Rule(kind, subject, "q", terms.cohort_q, family)


def made(
    about: About, rule: Rule, terms: Terms, query: Query, measured: Measured
) -> dict[str, Any]:
    """A record that no alarm has yet: `sealed` adds which one, and the record before."""
    asked = asdict(query)
    if query.devices is not None and len(query.devices) > MOST_DEVICES:
        asked["devices"] = None
    return {
        "v": 1,
        "rules": RULES,
        "alarm": "",
        **asdict(about),
        "budget": {
            "per_year": terms.per_year,
            "share": SHARES[rule.unit],
            "streams": terms.streams,
            "starts": terms.starts,
            "slots_per_year": terms.slots_per_year,
            "days_per_year": terms.days_per_year,
        },
        "threshold": {"unit": rule.unit, "value": rule.threshold},
        "query": asked,
        "windows": measured.windows,
        "counts": measured.counts,
        "statistic": measured.statistic,
        "previous": "",
    }


def sealed(
    record: Mapping[str, Any], alarm: str, previous: Digest | str = ""
) -> tuple[Digest, str]:
    """`(digest, text)` as it is kept: of this alarm, behind the record of that digest."""
    text = encode({**record, "alarm": alarm, "previous": previous})
    return digest_of(text), text.decode()


def broken_chain(records: Sequence[tuple[Digest, str]]) -> str | None:
    """What is wrong with the `(digest, text)` of an alarm's records, in their order; None: nothing.

    Raises `PeerError` for a text that is no JSON object.
    """
    previous: Digest | str = ""
    for digest, text in records:
        if digest_of(text.encode()) != digest:
            return f"the text of {digest[:_SHOWN]} is not the one that its digest is of"
        if decode(text.encode(), dict[str, Any], limit=MAX_RECORD).get("previous") != previous:
            return f"{digest[:_SHOWN]} does not follow the record before it"
        previous = digest
    return None


def query_of(record: Mapping[str, Any]) -> Query:
    """Raises `PeerError` OUT-N210 for what is no record."""
    return convert(record.get("query"), Query)


def rule_in(record: Mapping[str, Any]) -> Rule:
    """By what the finding was measured. Raises `PeerError` OUT-N210 for what is no record."""
    kind, subject = record.get("kind"), record.get("subject")
    threshold, statistic = record.get("threshold"), record.get("statistic")
    if kind not in KINDS or not isinstance(subject, str) or record.get("v") != 1:
        raise PeerError("OUT-N210", "not a record of a finding")
    if not isinstance(threshold, Mapping) or not isinstance(statistic, Mapping):
        raise PeerError("OUT-N210", "a record has a threshold and a statistic")
    value = convert(threshold.get("value"), float)
    match threshold.get("unit"):
        case "ln e" | "p" as unit:
            return Rule(kind, subject, unit, value)
        case "q":
            pass
        case _:
            raise PeerError("OUT-N210", "a threshold is of ln e, p or q")
    names = ("cut", "family", "q")
    cut, tests, q = (convert(statistic.get(name), float) for name in names)
    return Rule(kind, subject, "q", value, Family(cut, int(tests), q))


def terms_in(record: Mapping[str, Any]) -> Terms:
    """The budget that the threshold followed from. Raises `PeerError` OUT-N210."""
    budget = record.get("budget")
    if not isinstance(budget, Mapping):
        raise PeerError("OUT-N210", "a record has a budget")
    return convert({name: each for name, each in budget.items() if name != "share"}, Terms)


@dataclass(frozen=True, slots=True)
class Replayed:
    """A finding computed again. `measured` is what the windows of today give."""

    same: bool
    said: str
    """What became of it, in words."""
    measured: Measured


def replay(record: Mapping[str, Any], rows: Iterable[Row], profile: Profile) -> Replayed:
    """The statistic, from what the store has now.

    `rows`: the windows of the query, with those that were stored after it. Raises `PeerError`
    OUT-N210 for what is no record, `InvalidRequest` OUT-D611 where no window is left.
    """
    rule, query, stored = rule_in(record), query_of(record), list(rows)
    recorded = convert(record.get("windows"), int)
    then = measure(rule, query, profile, stored)
    if then.counts == record.get("counts") and then.windows == recorded:
        same = _follows(rule, record) and _alike(then.statistic, record["statistic"])
        from_them = f"recomputed from {_windows(recorded)}"
        if same:
            return Replayed(True, f"{from_them}: same", then)
        if record.get("rules") != RULES:
            by = f"found by rules {record.get('rules')}; by today's rules {RULES} it is another"
            return Replayed(False, by, then)
        return Replayed(False, f"{from_them}: it differs; the record is not what was found", then)
    if then.windows >= recorded:
        said = f"the counts of {_windows(recorded)} are not those that it was found in"
        return Replayed(False, said, then)
    now = measure(rule, replace(query, upto=MAX_INT), profile, stored)
    if not now.windows:
        raise InvalidRequest(
            "OUT-D611", f"none of {_windows(recorded)} is left", do="look at its record"
        )
    gone = f"{count(recorded - then.windows)} of {_windows(recorded)} are gone or were merged since"
    rest = "still beyond" if now.beyond else "no longer beyond"
    return Replayed(False, f"{gone}; what is there now is {rest} the threshold", now)


def _follows(rule: Rule, record: Mapping[str, Any]) -> bool:
    """Whether the threshold is the one that the budget gives."""
    terms = terms_in(record)
    if record["budget"].get("share") != SHARES[rule.unit]:
        return False
    by_detectors = rule.unit == "ln e"
    again = rule_of(rule.kind, rule.subject, terms, by_detectors=by_detectors)
    return _alike(again.threshold, rule.threshold)


def _alike(one: Any, other: Any, small: float = _EXACT) -> bool:
    """Equal up to rounding. A p has no absolute error: 1e-30 is not 1e-20."""
    match one, other:
        case Mapping(), Mapping():
            return one.keys() == other.keys() and all(
                _alike(each, other[name], 0 if name in ("p", "cut", "q") else _EXACT)
                for name, each in one.items()
            )
        case ((list() | tuple()), (list() | tuple())):
            return len(one) == len(other) and all(map(_alike, one, other))
        case ((int() | float()), (int() | float())):
            return isclose(one, other, rel_tol=_EXACT, abs_tol=small)
        case _:
            return bool(one == other)


def _windows(number: int) -> str:
    return f"{count(number)} stored {'window' if number == 1 else 'windows'}"
