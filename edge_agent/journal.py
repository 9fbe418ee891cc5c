"""What a device remembers of one model across restarts, and its bytes in one of two slots.

`current` is always proven: only a commit, a rollback and a rescue change it, never an activation.
A slot holds `magic, sequence, length, SHA-256, JSON`, zero-padded; whatever is torn or damaged
has a wrong checksum, and the other slot counts.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, Literal

from protocol import codec
from protocol.errors import PeerError
from protocol.identifiers import Count, Digest, ModelName, digest, model_name
from protocol.reported import MAX_NOTES, Answering, Outcome

SLOT_BYTES: Final = 32 * 1024
MAX_OUTCOMES: Final = 6
MAX_TRIALS: Final = 8
MAX_DETAIL: Final = 300
"""Characters of a detail; with it a full journal fits a slot, however JSON escapes it."""

MARKS: Final = 10
"""A health window is this many marks of healthy running time."""

_HEAD: Final = struct.Struct("<4sQI32s")
_MAGIC: Final = b"OUJ1"

Revocation = Literal["stop", "fallback"]


@dataclass(frozen=True, slots=True)
class Note:
    """What is remembered of one bundle: how far its trial got, or why it was given up.

    While a trial lasts, `reason` is None and the counters run. A reason ends it.
    """

    loads: Count = 0
    """Times the bundle entered a process since it last ran well for a while."""
    marks: Count = 0
    """Tenths of the health window of healthy running, and beyond them while requests miss."""
    crashes: Count = 0
    """Runner deaths charged to it: of the trial, or since the last mark of a committed bundle."""
    requests: Count = 0
    """Answers of the trial up to the last mark."""
    activated: bool = False
    reason: str | None = None
    """Problem code."""
    detail: str = ""
    definite: bool = False
    until_ms: Count | None = None
    """Trusted time until which an unclear reason keeps it away."""
    fails: Count = 0
    attempt: Count = 0
    allow: Count = 0
    agent: str = ""
    """Agent version that gave it up."""
    rollout: str | None = None
    since_ms: Count = 0
    """When its trial began."""
    revoked: Revocation | None = None
    """A revocation that was once seen: a lost metadata cache must not undo it."""
    answering: Answering = "model"
    """What answers where this bundle serves, since the model itself works no longer."""
    toward: Digest | None = None
    """Fallback that its signed policy sends this device to while the reason stands."""
    returns: Count = 0
    """Times it was left by itself, not long after each other, although it had been committed."""
    returned_ms: Count = 0
    """When it was left last, in trusted time."""

    def __post_init__(self) -> None:
        if self.toward is not None:
            digest(self.toward)

    @property
    def impaired(self) -> bool:
        """Whether what is committed is held not to work, although it stays what was proven."""
        return self.answering != "model" or self.toward is not None

    @property
    def settled(self) -> Note:
        """What stays of it once the bundle runs well: whose word it was, a revocation, and how
        often it has stopped working well."""
        return Note(
            attempt=self.attempt,
            allow=self.allow,
            rollout=self.rollout,
            since_ms=self.since_ms,
            revoked=self.revoked,
            returns=self.returns,
            returned_ms=self.returned_ms,
        )

    @property
    def trying(self) -> bool:
        """Whether a trial has begun and nothing has ended it."""
        return self.reason is None and bool(self.loads or self.marks or self.crashes)


@dataclass(frozen=True, slots=True)
class Journal:
    """One model on this device."""

    model: ModelName
    seq: Count = 0
    current: Digest | None = None
    """Committed: it was proven here."""
    previous: Digest | None = None
    """Committed before."""
    notes: tuple[tuple[Digest, Note], ...] = ()
    """Oldest first."""
    outcomes: tuple[Outcome, ...] = ()
    trials: tuple[Count, ...] = ()
    """Trusted times (ms) of the last trials that the thrash guard counts."""
    tried: Digest | None = None
    """Bundle of the last trial."""
    since_ms: Count = 0
    """When `current` was committed."""
    unexercised: bool = False
    """Whether `current` was committed without enough traffic to judge it."""

    def __post_init__(self) -> None:
        model_name(self.model)
        for value in (self.current, self.previous, self.tried, *(name for name, _ in self.notes)):
            if value is not None:
                digest(value)

    @property
    def slots(self) -> tuple[Digest, ...]:
        return tuple(value for value in (self.current, self.previous) if value is not None)

    def note(self, bundle: Digest) -> Note:
        return next((note for name, note in self.notes if name == bundle), Note())

    def with_note(self, bundle: Digest, note: Note, keep: Iterable[Digest] = ()) -> Journal:
        """Set (or, if it says nothing, remove) a note; at most 8 are kept.

        The notes of the slots, of `bundle` and of `keep` are never given up. Of the others those
        go first that hold nothing against their bundle, then unclear ones, then the oldest.
        """
        others = [(name, other) for name, other in self.notes if name != bundle]
        if note != Note():
            others.append((bundle, replace(note, detail=note.detail[:MAX_DETAIL])))
        safe = {*self.slots, bundle, *keep}
        while len(others) > MAX_NOTES:
            spare = [entry for entry in others if entry[0] not in safe] or others[:-1]
            others.remove(min(spare, key=lambda entry: _worth(entry[1])))
        return replace(self, notes=tuple(others))

    def with_outcome(self, outcome: Outcome) -> Journal:
        outcome = replace(outcome, detail=outcome.detail[:MAX_DETAIL])
        return replace(self, outcomes=(*self.outcomes, outcome)[-MAX_OUTCOMES:])

    def with_trial(self, bundle: Digest, at_ms: int | None) -> Journal:
        """Remember the trial of `bundle`; `at_ms` None: one that the guard does not count."""
        times = self.trials if at_ms is None else (*self.trials, at_ms)[-MAX_TRIALS:]
        return replace(self, tried=bundle, trials=times)

    def next_number(self, reported: int) -> int:
        """Number of the next outcome. Both sources, since a torn slot falls back a generation."""
        return max((reported, *(outcome.number for outcome in self.outcomes))) + 1


def _worth(note: Note) -> tuple[bool, bool, bool]:
    return (note.revoked is not None, note.definite, note.reason is not None)


def encode_slot(journal: Journal) -> bytes:
    """Exactly `SLOT_BYTES`. Raises `ValueError` if it does not fit, which bounds rule out."""
    body = codec.encode(journal)
    if _HEAD.size + len(body) > SLOT_BYTES:
        raise ValueError(f"a journal of {len(body):,} bytes does not fit its slot")
    head = _HEAD.pack(_MAGIC, journal.seq, len(body), _checksum(journal.seq, body))
    return (head + body).ljust(SLOT_BYTES, b"\0")


def decode_slot(data: bytes) -> Journal | None:
    """The journal of a slot; None for one that is empty, torn or damaged."""
    if len(data) < _HEAD.size:
        return None
    magic, seq, length, checksum = _HEAD.unpack_from(data)
    body = data[_HEAD.size : _HEAD.size + length]
    if magic != _MAGIC or len(body) != length or _checksum(seq, body) != checksum:
        return None
    try:
        journal = codec.decode(body, Journal, limit=SLOT_BYTES)
    except PeerError:
        return None
    return journal if journal.seq == seq else None


def _checksum(seq: int, body: bytes) -> bytes:
    return hashlib.sha256(struct.pack("<QI", seq, len(body)) + body).digest()
