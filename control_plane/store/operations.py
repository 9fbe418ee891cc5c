"""Long-running work that the API started: it outlives a restart of the control plane."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from control_plane.store.table import Row, Table, dump, load

OperationState = Literal["queued", "running", "succeeded", "failed"]

_COLUMNS = "id, kind, state, done, total, unit, input, result, problem, created_ms, changed_ms"


@dataclass(frozen=True, slots=True)
class Operation:
    """`done` of `total` `unit`s. `problem` is problem JSON once it has failed."""

    id: str
    kind: str
    state: OperationState
    done: int
    total: int
    unit: str
    input: dict[str, Any]
    result: dict[str, Any] | None
    problem: dict[str, Any] | None
    created_ms: int
    changed_ms: int


class Operations(Table):
    def create(self, kind: str, input: Mapping[str, Any], now_ms: int) -> Operation:
        with self._write():
            number = self._number("SELECT max(number) FROM operation") + 1
            self._do(
                "INSERT INTO operation (id, number, kind, state, input, created_ms, changed_ms) "
                "VALUES (?, ?, ?, 'queued', ?, ?, ?)",
                (f"op-{number}", number, kind, dump(dict(input)), now_ms, now_ms),
            )
            return self._must(f"op-{number}")

    def get(self, id: str) -> Operation | None:
        row = self._one(f"SELECT {_COLUMNS} FROM operation WHERE id = ?", (id,))
        return _operation(row) if row else None

    def progress(self, id: str, done: int, total: int, unit: str, now_ms: int) -> None:
        """Also marks it running. What has ended stays as it is."""
        self._do(
            "UPDATE operation SET state = 'running', done = ?, total = ?, unit = ?, changed_ms = ? "
            "WHERE id = ? AND state IN ('queued', 'running')",
            (done, total, unit, now_ms, id),
        )

    def succeed(self, id: str, result: Mapping[str, Any], now_ms: int) -> None:
        self._do(
            "UPDATE operation SET state = 'succeeded', result = ?, changed_ms = ? "
            "WHERE id = ? AND state IN ('queued', 'running')",
            (dump(dict(result)), now_ms, id),
        )

    def fail(self, id: str, problem: Mapping[str, Any], now_ms: int) -> None:
        self._do(
            "UPDATE operation SET state = 'failed', problem = ?, changed_ms = ? "
            "WHERE id = ? AND state IN ('queued', 'running')",
            (dump(dict(problem)), now_ms, id),
        )

    def unfinished(self) -> tuple[Operation, ...]:
        """What a restarted control plane goes on with, or fails; oldest first."""
        rows = self._all(
            f"SELECT {_COLUMNS} FROM operation WHERE state IN ('queued', 'running') ORDER BY number"
        )
        return tuple(_operation(row) for row in rows)

    def forget(self, before_ms: int) -> int:
        """Remove what ended before a time."""
        return self._do(
            "DELETE FROM operation WHERE changed_ms < ? AND state IN ('succeeded', 'failed')",
            (before_ms,),
        )

    def _must(self, id: str) -> Operation:
        found = self.get(id)
        if found is None:
            raise KeyError(id)
        return found


def _operation(row: Row) -> Operation:
    id, kind, state, done, total, unit, input, result, problem, created_ms, changed_ms = row
    return Operation(
        id,
        kind,
        state,
        done,
        total,
        unit,
        load(input, dict[str, Any]),
        load(result, dict[str, Any]) if result else None,
        load(problem, dict[str, Any]) if problem else None,
        created_ms,
        changed_ms,
    )
