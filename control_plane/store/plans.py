"""What is stable for whom, the signed plans that say so, and the deny list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from control_plane.store.table import Table, dump, load
from protocol.identifiers import Digest, ModelName
from protocol.plan import Denied, Ended
from protocol.selector import Selector


@dataclass(frozen=True, slots=True)
class Assignment:
    """Devices of a selector (None: all) run `stable` where no rollout says otherwise."""

    selector: Selector | None
    stable: Digest


@dataclass(frozen=True, slots=True)
class PlanRow:
    """The last plan of a model, byte for byte."""

    model: ModelName
    version: int
    number: int
    data: bytes


@dataclass(frozen=True, slots=True)
class DenyRow:
    version: int
    data: bytes


class Plans(Table):
    def assignments(self, model: ModelName) -> tuple[Assignment, ...]:
        """In order: the first whose selector matches a device is its."""
        rows = self._all(
            "SELECT selector, stable FROM assignment WHERE model = ? ORDER BY position", (model,)
        )
        return tuple(Assignment(load(row[0], Selector) if row[0] else None, row[1]) for row in rows)

    def assign(self, model: ModelName, assignments: Sequence[Assignment]) -> None:
        with self._write() as connection:
            self._do("DELETE FROM assignment WHERE model = ?", (model,))
            connection.executemany(
                "INSERT INTO assignment (model, position, selector, stable) VALUES (?, ?, ?, ?)",
                [
                    (model, n, dump(each.selector) if each.selector else None, each.stable)
                    for n, each in enumerate(assignments)
                ],
            )

    def get(self, model: ModelName) -> PlanRow | None:
        row = self._one("SELECT model, version, number, data FROM plan WHERE model = ?", (model,))
        return PlanRow(*row) if row else None

    def all(self) -> tuple[PlanRow, ...]:
        rows = self._all("SELECT model, version, number, data FROM plan ORDER BY model")
        return tuple(PlanRow(*row) for row in rows)

    def models(self) -> tuple[ModelName, ...]:
        """Models that have, or have to have, a plan."""
        rows = self._all(
            "SELECT model FROM plan UNION SELECT model FROM assignment "
            "UNION SELECT model FROM last_end ORDER BY 1"
        )
        return tuple(row[0] for row in rows)

    def put(self, plan: PlanRow) -> None:
        """A plan never goes back: a version that is not higher changes nothing."""
        self._do(
            "INSERT INTO plan (model, version, number, data) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (model) DO UPDATE SET version = excluded.version, "
            "number = excluded.number, data = excluded.data WHERE version < excluded.version",
            (plan.model, plan.version, plan.number, plan.data),
        )

    def ended(self, model: ModelName) -> Ended | None:
        row = self._one("SELECT ended FROM last_end WHERE model = ?", (model,))
        return load(row[0], Ended) if row else None

    def set_ended(self, model: ModelName, ended: Ended) -> None:
        self._do(
            "INSERT OR REPLACE INTO last_end (model, ended) VALUES (?, ?)", (model, dump(ended))
        )

    def denied(self) -> tuple[Denied, ...]:
        rows = self._all("SELECT model, digest, why FROM denied ORDER BY model, digest")
        return tuple(Denied(*row) for row in rows)

    def deny(self, denied: Denied) -> None:
        self._do(
            "INSERT OR REPLACE INTO denied (digest, model, why) VALUES (?, ?, ?)",
            (denied.digest, denied.model, denied.why),
        )

    def undeny(self, digest: Digest) -> bool:
        return self._do("DELETE FROM denied WHERE digest = ?", (digest,)) > 0

    def deny_list(self) -> DenyRow | None:
        row = self._one("SELECT version, data FROM deny_list")
        return DenyRow(*row) if row else None

    def put_deny_list(self, row: DenyRow) -> None:
        self._do(
            "INSERT INTO deny_list (only, version, data) VALUES (1, ?, ?) ON CONFLICT (only) "
            "DO UPDATE SET version = excluded.version, data = excluded.data "
            "WHERE version < excluded.version",
            (row.version, row.data),
        )
