"""What every measurement prints and writes: rows of ours, a peer's, and the goal.

    {"name": ..., "rows": [{"what", "ours", "peer", "against", "ratio", "unit", "goal", "ok"}]}

`ratio` is ours over the peer's; `ok` is null where a row has no goal or could not be measured.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

BUILD = Path("build/bench")


@dataclass(frozen=True, slots=True)
class Row:
    what: str
    ours: float | None
    unit: str
    peer: float | None = None
    against: str = ""
    """Who or what the peer is, with its version."""
    goal: str = ""
    ok: bool | None = None

    @property
    def ratio(self) -> float | None:
        if self.ours is None or not self.peer:
            return None
        return self.ours / self.peer


def as_json(name: str, rows: list[Row]) -> str:
    return json.dumps(
        {"name": name, "rows": [asdict(row) | {"ratio": row.ratio} for row in rows]}, indent=1
    )


def table(rows: list[Row]) -> str:
    head = ("what", "ours", "peer", "ratio", "unit", "against", "goal", "ok")
    lines = [
        (
            row.what,
            _number(row.ours),
            _number(row.peer),
            _number(row.ratio),
            row.unit,
            row.against,
            row.goal,
            {True: "ok", False: "MISSED", None: ""}[row.ok],
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in [head, *lines]) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [head, *lines]
    )


def publish(name: str, rows: list[Row], build: Path = BUILD) -> int:
    """Print the table, write `build/bench/<name>.json`; exit code 1 if a goal was missed."""
    build.mkdir(parents=True, exist_ok=True)
    (build / f"{name}.json").write_text(as_json(name, rows) + "\n")
    print(table(rows))
    return int(any(row.ok is False for row in rows))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
