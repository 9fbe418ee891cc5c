"""Bytes of ours and of others, case by case, and what they come to: part of `make bench
NAME=payload`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tests.bench.packing.corpus import Case
from tests.bench.report import Row

UPDATES_GOAL: Final = 1.30
"""Geometric mean over updates of the best other's bytes over ours,"""
CASE_GOAL: Final = 0.98
"""the same of each,"""
FIRST_GOAL: Final = 1.0
"""and the mean over first installs."""
NOT_RUN: Final = "–"
UNIT: Final = "bytes"


@dataclass(frozen=True, slots=True)
class Result:
    case: Case
    raw: int
    ours: int
    coding: str
    """How ours is coded: `segments`, `patch`, ..."""
    others: Mapping[str, int]
    """Bytes by peer; those that were not run are left out."""

    @property
    def best(self) -> tuple[str, int] | None:
        """The best other for this very case, chosen afterwards."""
        if not self.others:
            return None
        name = min(self.others, key=lambda each: self.others[each])
        return name, self.others[name]

    @property
    def times(self) -> float | None:
        """The best other's bytes over ours: above 1, ours are fewer."""
        return self.best[1] / self.ours if self.best else None


def mean(results: Sequence[Result]) -> float | None:
    """Geometric, of those that have a peer; None without any."""
    logs = [math.log(each.times) for each in results if each.times is not None]
    return math.exp(math.fsum(logs) / len(logs)) if logs else None


def rows(
    results: Sequence[Result], peers: Mapping[str, str], *, whole: bool = True
) -> Iterator[Row]:
    """`peers`: version by name, empty for one that is not here. Means have goals where the `whole`
    corpus was asked for."""
    for result in results:
        case, times = result.case, result.times
        name, size = result.best or ("no other was run", None)
        against = f"{name} {peers.get(name, '')}".strip()
        goal = f"best other / ours at least {CASE_GOAL}" if case.is_update else ""
        ok = times >= CASE_GOAL if times is not None and case.is_update else None
        yield Row(f"{case.name} {case.what}", result.ours, UNIT, size, against, goal, ok)
    updates = [each for each in results if each.case.is_update]
    first = [each for each in results if not each.case.is_update]
    yield from _of_all("updates", updates, UPDATES_GOAL if whole else None)
    yield from _of_all("first installs", first, FIRST_GOAL if whole else None)
    for name, version in peers.items():
        if not version:
            yield Row(f"{name} is not on this machine", None, "not run")


def _of_all(what: str, results: Sequence[Result], goal: float | None) -> Iterator[Row]:
    found = mean(results)
    if found is None:
        return
    unit = f"best other / ours, {len(results)} cases"
    if goal is None:
        yield Row(f"{what}, mean", found, unit)
    else:
        yield Row(f"{what}, mean", found, unit, goal=f"at least {goal:.2f}", ok=found >= goal)
    worst = min((each for each in results if each.times is not None), key=_times)
    yield Row(f"{what}, worst", worst.times, f"best other / ours, {worst.case.name}")
    for name in sorted({name for each in results for name in each.others}):
        those = [each for each in results if name in each.others]
        logs = [math.log(each.others[name] / each.ours) for each in those]
        against = math.exp(math.fsum(logs) / len(logs))
        yield Row(f"{what}, {name} alone", against, f"its bytes / ours, {len(those)} cases")


def _times(result: Result) -> float:
    return result.times or 0.0


def wide(results: Sequence[Result], peers: Sequence[str]) -> str:
    """Everything that was measured, as a table in Markdown."""
    head = ["case", "raw", *peers, "ours", "by", "best other / ours"]
    lines = [head, ["---", *["---:"] * (len(head) - 3), "---", "---:"]]
    for result in results:
        others = [_short(result.others.get(name)) for name in peers]
        times = "" if result.times is None or result.best is None else f"{result.times:.2f}"
        best = f" ({result.best[0]})" if result.best else ""
        name = f"{result.case.name} {result.case.what}"
        ours = _short(result.ours)
        lines.append([name, _short(result.raw), *others, ours, result.coding, times + best])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _short(count: int | None) -> str:
    if count is None:
        return NOT_RUN
    if count < 10_000:
        return f"{count:,}"
    return f"{count / 1e3:.1f} k" if count < 1_000_000 else f"{count / 1e6:.3f} M"
