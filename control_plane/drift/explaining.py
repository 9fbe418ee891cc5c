"""A record of a finding in words: what was looked at, what that came to, and by which threshold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from control_plane.drift.verdicts import LEAST_PSI, number
from protocol.wording import count, duration

_PARTS: Final = {"ln e": "detectors", "p": "peers", "q": "cohorts"}
_NEVER: Final = "nothing"


def inputs(record: Mapping[str, Any], windows: int, devices: int, rows: int) -> str:
    """ "3 slots of 1 h, 183 windows of 62 devices, 9,123 rows"."""
    said = f"{_many(windows, 'window')} of {_many(devices, 'device')}, {_many(rows, 'row')}"
    query, unit = record["query"], record["threshold"]["unit"]
    if unit == "p":
        slots = len(record["statistic"]["slots"])
        said = f"{_many(slots, 'slot')} of {duration(query['slot_ms'] / 1000)}, {said}"
    if unit == "q":
        said = f"{duration((query['to_ms'] - query['from_ms']) / 1000)}, {said}"
    left_out = len(query["left_out"])
    return f"{said}, {left_out} left out" if left_out else said


def statistic(record: Mapping[str, Any]) -> Iterator[str]:
    """One line per feature, the clearest first."""
    found, unit = record["statistic"], record["threshold"]["unit"]
    if unit == "p":
        yield from _peers(found)
    elif unit == "q":
        tell = _part if record["kind"] == "part" else _cohort
        called = [each for each in found["features"] if each["p"] <= found["cut"]]
        yield from map(tell, called or found["features"][:1])
    elif "devices" in found:
        for each in found["devices"]:
            yield f"device {each['device']}, {_detector(each)}"
    else:
        yield from map(_detector, found["features"])


def threshold(record: Mapping[str, Any]) -> str:
    found, unit = record["statistic"], record["threshold"]["unit"]
    value = record["threshold"]["value"]
    if unit == "p":
        return f"p < {value:.2g}, {_slots(found)}"
    if unit == "q":
        cut = f"p up to {found['cut']:.2g}" if found["cut"] else "no p"
        tests = f"by Benjamini and Hochberg over the day's {_many(found['family'], 'test')}"
        return f"{cut}, {tests} at q {found['q']:.2g}; and PSI above {number(LEAST_PSI)}"
    said = f"ln e from {value:.1f} on"
    if "devices" in found:
        fired = sum(each["ln_e"] >= value for each in found["devices"])
        return f"{said}: {fired} of {_many(len(found['devices']), 'device')}"
    return said


def budget(record: Mapping[str, Any]) -> str:
    """ "1 false alarm a year: .25 for peers, over 3,000 streams"."""
    terms, unit = record["budget"], record["threshold"]["unit"]
    whole = f"{terms['per_year']:g} false alarm{'' if terms['per_year'] == 1 else 's'} a year"
    part = f"{_short(terms['per_year'] * terms['share'])} for {_PARTS[unit]}"
    over = {
        "ln e": f"over {_many(terms['starts'], 'start')} of detectors a year",
        "p": f"over {_many(terms['streams'], 'stream')}",
        "q": f"over {_many(round(terms['days_per_year']), 'day')}",
    }
    return f"{whole}: {part}, {over[unit]}"


def course(record: Mapping[str, Any]) -> str:
    """What the course of a finding is of: "ln e", "p", or "PSI" of the cohort."""
    return {"ln e": "ln e", "p": "p", "q": "PSI"}[record["threshold"]["unit"]]


def _peers(found: Mapping[str, Any]) -> Iterator[str]:
    best: dict[int, Mapping[str, Any]] = {}
    for slot in found["slots"]:
        for each in slot["features"]:
            known = best.get(each["index"])
            if known is None or each["p"] < known["p"]:
                best[each["index"]] = each
    for each in sorted(best.values(), key=lambda one: float(one["p"])):
        chi = f"chi-square {each['statistic']:.1f}, scaled {each['g']:.1f}, {each['nu']:.1f} df"
        yield f"{each['name']}: p {each['p']:.0e} ({chi}), PSI {number(each['psi'])}"


def _detector(each: Mapping[str, Any]) -> str:
    if each["vif"] is None:
        how = f"exponent {number(each['exponent'])} while it learns"
    else:
        inflated = f"variance inflated {each['vif']:.1f}"
        how = f"exponent {number(each['exponent'])}, {inflated}"
    after = f"after {_many(each['t'], 'window')}"
    return f"{each['name']}: ln e {each['ln_e']:.1f} {after} ({how}), PSI {number(each['psi'])}"


def _cohort(each: Mapping[str, Any]) -> str:
    what = f"mean {each['score']} {each['shift']:+.2f}" if each["score"] else _NEVER
    of = f"{what}, {_many(each['devices'], 'device')}"
    return f"{each['name']}: p {each['p']:.0e} ({of}), PSI {number(each['psi'])}"


def _part(each: Mapping[str, Any]) -> str:
    sides = f"{each['low']} and {each['high']} devices, {number(each['gap'])} sd apart"
    return f"{each['name']}: p {each['p']:.0e} ({sides}), PSI {number(each['psi'])}"


def _slots(found: Mapping[str, Any]) -> str:
    """In how many of the device's last slots its foremost feature stood out."""
    slots = found["slots"]
    hits: dict[int, int] = {}
    for each in (feature for slot in slots for feature in slot["features"]):
        hits[each["index"]] = hits.get(each["index"], 0) + 1
    return f"in {max(hits.values(), default=0)} of {_many(len(slots), 'slot')}"


def _short(value: float) -> str:
    """ ".25", "2.5"."""
    text = f"{value:g}"
    return text[1:] if text.startswith("0.") else text


def _many(amount: int, what: str) -> str:
    return f"{count(amount)} {what}{'' if amount == 1 else 's'}"
