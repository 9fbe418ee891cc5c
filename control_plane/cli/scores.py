"""Scores of a rollout as rows: how much worse than control, what is allowed, what that proves.

Pure: the API's gate rows in, text out. A mix of ten classes has twenty series per exposure, so each
score is one row: the series that matters most.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from protocol.wording import duration

WORDS: Final = {
    "error_rate": "error rate",
    "out_of_contract": "out of contract",
    "latency": "latency",
    "confidence": "confidence",
    "class_mix": "class mix",
    "accuracy": "accuracy",
    "drift": "drift",
}
COMPARED: Final = ("worse", "within", "open")
"""States of a series in which both sides have been judged; the others say what lacks."""
_LACKS: Final = {
    "no scale": "too few devices to know how much it scatters",
    "no control": "no device is left to compare with",
    "no data": "not enough traffic so far",
}
_UNITS: Final = {"ratio": "x {:.2f}", "sd": "{:.3f} sd", "points": "{:.1f} pt", "psi": "{:.3f} psi"}
_TITLES: Final = ("score", "seen", "allowed", "new", "control", "verdict")
_RIGHT: Final = frozenset({"seen", "allowed", "new", "control"})

Row = Mapping[str, Any]


def lines(rows: Sequence[Row]) -> Iterator[str]:
    """A table of what is compared, then what is not and why; nothing without rows."""
    chosen = [foremost(each) for each in _by_metric(rows)]
    compared = [row for row in chosen if row["state"] in COMPARED]
    if compared:
        yield from _table([_cells(row) for row in compared])
    lacking: dict[str, list[str]] = {}
    for row in chosen:
        if row["state"] not in COMPARED:
            lacking.setdefault(_LACKS[row["state"]], []).append(WORDS[row["metric"]])
    for why, names in lacking.items():
        yield f"not judged, {why}: {', '.join(names)}"


def foremost(rows: Iterable[Row]) -> Row:
    """What fails, then what is compared, then guards, then what is nearest to failing."""

    def far(row: Row) -> tuple[bool, bool, bool, float]:
        threshold, evidence = row["ln_threshold"], row["ln_evidence"]
        left = float("inf") if threshold is None or evidence is None else threshold - evidence
        return row["state"] != "worse", row["state"] not in COMPARED, row["role"] != "guard", left

    return min(rows, key=far)


def series(row: Row) -> str:
    """ "latency, 6 h", "class 3 up, 1 d"."""
    what = WORDS[row["metric"]]
    if row["part"] is not None:
        what = f"class {row['part']} {'up' if row['sign'] > 0 else 'down'}"
    elif row["metric"] == "confidence" and row["sign"] < 0:
        what += " up"
    return f"{what}, {duration(row['exposure_seconds'])}"


def _by_metric(rows: Iterable[Row]) -> Iterable[list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["metric"], []).append(row)
    return found.values()


def _cells(row: Row) -> tuple[str, ...]:
    return (
        series(row),
        _amount(row["seen"], row["unit"]),
        _amount(row["allowed"], row["unit"]),
        f"{row['candidates']:,}",
        f"{row['controls']:,}",
        row["state"] if row["role"] == "guard" else f"{row['state']}, watched",
    )


def _amount(value: float | None, unit: str) -> str:
    return "unknown" if value is None else _UNITS[unit].format(value)


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [
        max(len(title), *(len(row[n]) for row in rows)) for n, title in enumerate(_TITLES)
    ]  # fmt: skip
    for row in (_TITLES, *rows):
        yield "  ".join(
            cell.rjust(width) if title in _RIGHT else cell.ljust(width)
            for title, cell, width in zip(_TITLES, row, widths, strict=True)
        ).rstrip()
