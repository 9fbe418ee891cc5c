"""What was tried to be encoded, from which base and for which devices: nothing is tried twice.

The payloads themselves are in `Payloads`; here is also what was not worth keeping.
"""

from __future__ import annotations

from collections.abc import Iterable

from control_plane.store.table import Table
from protocol.identifiers import Digest, ModelName


class Deltas(Table):
    """Abilities are what `encode.making.Ability` is: `(feature bits, bytes of memory)`."""

    def put(
        self, model: ModelName, file: Digest, base: Digest | None, recipe: int,
        abilities: Iterable[tuple[int, int]], smallest: int | None, now_ms: int,
    ) -> None:  # fmt: skip
        """A payload of `file` from `base` (None: without one) was made for these abilities.

        `smallest`: bytes of the smallest that came of it; None: it was not worth keeping any.
        """
        rows = [
            (model, file, base or "", recipe, _text(each), now_ms, smallest) for each in abilities
        ]
        with self._write() as connection:
            connection.executemany("INSERT OR REPLACE INTO delta VALUES (?,?,?,?,?,?,?)", rows)

    def tried(
        self, model: ModelName, file: Digest, base: Digest | None, recipe: int
    ) -> frozenset[tuple[int, int]]:
        """Abilities for which this was made, or tried, with that recipe."""
        rows = self._all(
            "SELECT ability FROM delta WHERE model = ? AND file = ? AND base = ? AND recipe = ?",
            (model, file, base or "", recipe),
        )
        return frozenset(_ability(row[0]) for row in rows)

    def forget(self, model: ModelName, file: Digest, base: Digest | None) -> int:
        """What came of it is lost: it is tried again. How many rows that were."""
        return self._do(
            "DELETE FROM delta WHERE model = ? AND file = ? AND base = ?",
            (model, file, base or ""),
        )


def _text(ability: tuple[int, int]) -> str:
    features, memory = ability
    return f"{features}:{memory}"


def _ability(text: str) -> tuple[int, int]:
    features, _, memory = text.partition(":")
    return int(features), int(memory)
