"""What verdicts are computed from, wave by wave, and the records that verdicts leave behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from control_plane.rollout.evidence import Exposed, Silence, Terms, Tick
from control_plane.store.table import Table, dump, load
from protocol.identifiers import Digest, ModelName, digest_of

PREVIOUS: Final = "previous"
"""Member of a record: digest of the one before it, "" in the first."""


@dataclass(frozen=True, slots=True)
class BegunWave:
    """What a wave began with. `hour`: the first one that is not closed."""

    wave: int
    began_ms: int
    candidates: int
    controls: int
    hour: int


@dataclass(frozen=True, slots=True)
class RecordRow:
    """One evidence record. `body` is exactly the text that `digest` is of."""

    digest: Digest
    rollout: str
    number: int
    at_ms: int
    body: str


class EvidenceRows(Table):
    # --- terms and waves ------------------------------------------------------------------------

    def terms(self, rollout: str) -> Terms | None:
        row = self._one("SELECT terms FROM judging WHERE rollout = ?", (rollout,))
        return load(row[0], Terms) if row and row[0] is not None else None

    def completed(self, model: ModelName, most: int) -> tuple[str, ...]:
        """Rollouts of a model that completed, the newest first."""
        rows = self._all(
            "SELECT id FROM rollout WHERE model = ? AND status = 'completed' "
            "ORDER BY number DESC LIMIT ?",
            (model, most),
        )
        return tuple(row[0] for row in rows)

    def begin(self, rollout: str, wave: BegunWave) -> None:
        self._do(
            "INSERT INTO wave_evidence (rollout, wave, began_ms, candidates, controls, hour) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (rollout, wave.wave, wave.began_ms, wave.candidates, wave.controls, wave.hour),
        )

    def waves(self, rollout: str) -> dict[int, BegunWave]:
        rows = self._all(
            "SELECT wave, began_ms, candidates, controls, hour FROM wave_evidence "
            "WHERE rollout = ? ORDER BY wave",
            (rollout,),
        )
        return {row[0]: BegunWave(*row) for row in rows}

    # --- closed hours ---------------------------------------------------------------------------

    def close(self, rollout: str, wave: int, tick: Tick, exposed: Mapping[int, Exposed]) -> None:
        """An hour is over: what it adds to each series, and to the devices by exposure (ms)."""
        with self._write() as connection:
            if tick.slots:
                self._do(
                    "INSERT INTO tick (rollout, wave, hour, body) VALUES (?, ?, ?, ?)",
                    (rollout, wave, tick.hour, dump(tick)),
                )
            connection.executemany(
                "INSERT INTO exposed (rollout, wave, exposure_ms, due_a, due_b, a, b) "
                "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                "due_a = due_a + excluded.due_a, due_b = due_b + excluded.due_b, "
                "a = a + excluded.a, b = b + excluded.b",
                [
                    (rollout, wave, exposure_ms, each.due_a, each.due_b, each.a, each.b)
                    for exposure_ms, each in exposed.items()
                ],
            )
            self._do(
                "UPDATE wave_evidence SET hour = ? WHERE rollout = ? AND wave = ?",
                (tick.hour + 1, rollout, wave),
            )

    def ticks(self, rollout: str, wave: int, after: int = -1) -> tuple[Tick, ...]:
        """In the order of their hours, those behind hour `after`."""
        rows = self._all(
            "SELECT body FROM tick WHERE rollout = ? AND wave = ? AND hour > ? ORDER BY hour",
            (rollout, wave, after),
        )
        return tuple(load(row[0], Tick) for row in rows)

    def exposed(self, rollout: str, wave: int) -> dict[int, Exposed]:
        """Devices whose exposure is over and counted, by exposure in ms."""
        rows = self._all(
            "SELECT exposure_ms, due_a, due_b, a, b FROM exposed WHERE rollout = ? AND wave = ? "
            "ORDER BY exposure_ms",
            (rollout, wave),
        )
        return {row[0]: Exposed(*row[1:]) for row in rows}

    # --- silence --------------------------------------------------------------------------------

    def add_silence(self, rollout: str, wave: int, silence: Silence) -> None:
        """Belongs into the transaction of the sweep that found it."""
        self._do(
            "INSERT INTO silence (rollout, wave, number, body) VALUES (?1, ?2, "
            "(SELECT coalesce(max(number), 0) + 1 FROM silence WHERE rollout = ?1 AND wave = ?2), "
            "?3)",
            (rollout, wave, dump(silence)),
        )

    def silences(self, rollout: str, wave: int) -> tuple[Silence, ...]:
        """In the order in which they were found."""
        rows = self._all(
            "SELECT body FROM silence WHERE rollout = ? AND wave = ? ORDER BY number",
            (rollout, wave),
        )
        return tuple(load(row[0], Silence) for row in rows)

    # --- records --------------------------------------------------------------------------------

    def append_record(self, rollout: str, record: Mapping[str, Any], at_ms: int) -> Digest:
        """Keep what a verdict rests on, chained to the rollout's record before it.

        Returns its digest: SHA-256 of the text that is kept, in which `previous` names the other.
        Raises `ValueError` for a record that names another one before it.
        """
        with self._write():
            row = self._one(
                "SELECT number, digest FROM evidence_record WHERE rollout = ? "
                "ORDER BY number DESC LIMIT 1",
                (rollout,),
            )
            number, previous = (row[0] + 1, row[1]) if row else (1, "")
            if record.get(PREVIOUS) not in (None, "", previous):
                raise ValueError(f"the record before is {previous}, not {record[PREVIOUS]}")
            body = dump({**record, PREVIOUS: previous})
            digest = digest_of(body.encode())
            self._do(
                "INSERT INTO evidence_record (digest, rollout, number, at_ms, body) "
                "VALUES (?, ?, ?, ?, ?)",
                (digest, rollout, number, at_ms, body),
            )
            return digest

    def last_record(self, rollout: str) -> Digest | None:
        row = self._one(
            "SELECT digest FROM evidence_record WHERE rollout = ? ORDER BY number DESC LIMIT 1",
            (rollout,),
        )
        return row[0] if row else None

    def list_records(self, rollout: str, after: int = 0, limit: int = 50) -> tuple[RecordRow, ...]:
        """In the order of their numbers, those behind `after`."""
        rows = self._all(
            "SELECT digest, rollout, number, at_ms, body FROM evidence_record "
            "WHERE rollout = ? AND number > ? ORDER BY number LIMIT ?",
            (rollout, after, limit),
        )
        return tuple(RecordRow(*row) for row in rows)

    def count_records(self, rollout: str) -> int:
        return self._number("SELECT count(*) FROM evidence_record WHERE rollout = ?", (rollout,))

    def get_record(self, digest: Digest) -> RecordRow | None:
        row = self._one(
            "SELECT digest, rollout, number, at_ms, body FROM evidence_record WHERE digest = ?",
            (digest,),
        )
        return RecordRow(*row) if row else None
