"""Rollouts: what was asked for, how far it is, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from control_plane.rollout.spec import ENDED, RolloutSpec, Status
from control_plane.rollout.waves import PlannedWave
from control_plane.store.members import Members
from control_plane.store.table import Connect, Row, Slice, Table, Write, cut, dump, load
from protocol.identifiers import Digest, ModelName
from protocol.selector import Selector

_NAMES: Final = (
    "id", "model", "number", "attempt", "candidate", "over", "spec", "selector", "salt", "as_of",
    "waves", "excluded", "status", "wave", "wave_ms", "soak_ms", "asked", "looked", "started_ms",
    "ended_ms", "why", "verdict", "shadowing", "accepted", "approved", "asks", "holdback",
    "held", "kept", "superseded_by", "evidence", "history",
)  # fmt: skip
_COLUMNS: Final = ", ".join(_NAMES)


@dataclass(frozen=True, slots=True)
class NotReached:
    """A device, by its local name, and when it was heard last; None: never."""

    device: str
    last_contact_ms: int | None


@dataclass(frozen=True, slots=True)
class WaveStory:
    """What became of one wave. Times are Unix ms; None while it has not happened."""

    wave: int
    began_ms: int
    soak_ms: int | None = None
    lifted_ms: int | None = None
    """When its devices were let go from shadowing to activation."""
    ended_ms: int | None = None
    verdict: str = ""
    id: str = ""
    sentence: str = ""
    evidence: str = ""
    """Digest of the record that the last verdict rests on."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """`candidate` on its way to the devices of `selector` (None: all), over `over`.

    `wave` counts from 1, 0 before the first. `looked` is the fleet's sequence number up to which
    the members are right. Times are Unix ms.
    """

    id: str
    model: ModelName
    number: int
    attempt: int
    candidate: Digest
    over: Digest | None
    spec: RolloutSpec
    selector: Selector | None
    salt: str
    as_of: int
    waves: tuple[PlannedWave, ...]
    excluded: dict[str, int] = field(default_factory=dict)
    """Devices that match and are no targets, by reason."""
    status: Status = "preparing"
    wave: int = 0
    wave_ms: int | None = None
    soak_ms: int | None = None
    """Since when the wave has as many activated devices as it is judged from."""
    asked: int = 0
    """Version of the first plan that has the rollout's current wave."""
    looked: int = 0
    started_ms: int = 0
    ended_ms: int | None = None
    why: str = ""
    verdict: dict[str, Any] | None = None
    shadowing: bool = False
    """Whether devices of the current wave run the candidate beside the current one only."""
    accepted: bool = False
    """Whether a person goes on although the current wave has proven nothing."""
    approved: bool = False
    """Whether a person has let the wave after the current one begin."""
    asks: str = ""
    """Problem code of what waits for a person; empty: nothing does."""
    holdback: int = 0
    """Threshold of the control cohort at the upper end of positions; it waits for the end."""
    held: int = 0
    """Devices in it."""
    kept: bool = False
    """Aborted, but devices that run the candidate keep it until a later rollout completes."""
    superseded_by: str = ""
    evidence: str = ""
    """Digest of the newest evidence record."""
    history: tuple[WaveStory, ...] = ()
    """Of the waves that have begun, in order."""

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @property
    def topic(self) -> str:
        """Of its events."""
        return f"rollouts/{self.id}"


class Rollouts(Table):
    def __init__(self, connect: Connect, write: Write) -> None:
        super().__init__(connect, write)
        self.members = Members(connect, write)

    def put(self, rollout: Rollout) -> None:
        """Insert or replace it."""
        marks = ", ".join("?" for _ in _NAMES)
        updates = ", ".join(f"{name} = excluded.{name}" for name in _NAMES[1:])
        self._do(
            f"INSERT INTO rollout ({_COLUMNS}) VALUES ({marks}) "
            f"ON CONFLICT (id) DO UPDATE SET {updates}",
            [_stored(getattr(rollout, name), name) for name in _NAMES],
        )

    def get(self, id: str) -> Rollout | None:
        row = self._one(f"SELECT {_COLUMNS} FROM rollout WHERE id = ?", (id,))
        return _rollout(row) if row else None

    def active(self, model: ModelName | None = None) -> tuple[Rollout, ...]:
        """Those that have not ended, in the order of their start."""
        rows = self._all(
            f"SELECT {_COLUMNS} FROM rollout WHERE ended_ms IS NULL AND (? IS NULL OR model = ?) "
            "ORDER BY model, number",
            (model, model),
        )
        return tuple(_rollout(row) for row in rows)

    def kept(self, model: ModelName) -> tuple[Rollout, ...]:
        """Those that were aborted with their devices left as they are, in order."""
        rows = self._all(
            f"SELECT {_COLUMNS} FROM rollout WHERE kept = 1 AND model = ? ORDER BY number", (model,)
        )
        return tuple(_rollout(row) for row in rows)

    def release(self, model: ModelName) -> None:
        """From now on what was kept of a model follows its plan like everything else."""
        self._do("UPDATE rollout SET kept = 0 WHERE kept = 1 AND model = ?", (model,))

    def page(
        self, model: ModelName | None = None, after: tuple[str | int, ...] | None = None,
        limit: int = 50,
    ) -> Slice[Rollout]:  # fmt: skip
        """Newest first. Key: (started_ms, id)."""
        started_ms, id = after or (2**62, "")
        rows = self._all(
            f"SELECT {_COLUMNS} FROM rollout WHERE (? IS NULL OR model = ?) "
            "AND (started_ms < ? OR (started_ms = ? AND id > ?)) "
            "ORDER BY started_ms DESC, id LIMIT ?",
            (model, model, started_ms, started_ms, id, limit + 1),
        )
        return cut([_rollout(row) for row in rows], limit, lambda r: (r.started_ms, r.id))

    def count(self, model: ModelName | None = None) -> int:
        return self._number(
            "SELECT count(*) FROM rollout WHERE ? IS NULL OR model = ?", (model, model)
        )

    def not_reached(self, id: str, wave: int, limit: int) -> tuple[NotReached, ...]:
        """Devices of the waves up to `wave` that know of nothing, those heard last first.

        Looks at a thousand of them at most.
        """
        rows = self._all(
            """
            SELECT d.local, d.last_contact_ms FROM
                (SELECT device FROM member WHERE rollout = ? AND wave BETWEEN 1 AND ?
                 AND phase = 'targeted' LIMIT 1000) m
            JOIN device d ON d.id = m.device
            ORDER BY d.last_contact_ms DESC, d.local LIMIT ?
            """,
            (id, wave, limit),
        )
        return tuple(NotReached(*row) for row in rows)

    def not_heard_since_end(self, id: str) -> int:
        """Devices that had activated the candidate and have not been heard since it ended."""
        return self._number(
            """
            SELECT count(*) FROM rollout x CROSS JOIN member m ON m.rollout = x.id
                AND m.wave <= x.wave
            JOIN device d ON d.id = m.device AND d.retired_ms IS NULL
            WHERE x.id = ? AND m.phase IN ('activated', 'healthy', 'unexercised', 'silent')
                AND coalesce(d.last_contact_ms, 0) < x.ended_ms
            """,
            (id,),
        )

    def next_number(self, model: ModelName) -> int:
        return self._number("SELECT max(number) FROM rollout WHERE model = ?", (model,)) + 1

    def next_attempt(self, candidate: Digest) -> int:
        """A higher attempt lifts what devices hold against the candidate."""
        return (
            self._number("SELECT max(attempt) FROM rollout WHERE candidate = ?", (candidate,)) + 1
        )


_JSON: Final = frozenset({"spec", "selector", "waves", "excluded", "verdict", "history"})
_FLAGS: Final = ("shadowing", "accepted", "approved", "kept")


def _stored(value: Any, name: str) -> Any:
    return dump(value) if name in _JSON and value is not None else value


def _rollout(row: Row) -> Rollout:
    named = dict(zip(_NAMES, row, strict=True))
    return Rollout(
        **{
            **named,
            "spec": load(named["spec"], RolloutSpec),
            "selector": load(named["selector"], Selector) if named["selector"] else None,
            "waves": load(named["waves"], tuple[PlannedWave, ...]),
            "excluded": load(named["excluded"], dict[str, int]),
            "verdict": load(named["verdict"], dict[str, Any]) if named["verdict"] else None,
            "history": load(named["history"], tuple[WaveStory, ...]),
            **{name: bool(named[name]) for name in _FLAGS},
        }
    )
