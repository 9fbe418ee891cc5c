"""The device's own detectors of drift: stepped when a window closes, kept beside the records.

They live in the outbox's file and move on in the transaction that closes the window, so evidence
and counts never disagree, and a restart goes on where it was. What a device finds is for whoever
stands at it, and also offline; alarms are the control plane's to open, from the same evidence.
"""

from __future__ import annotations

import logging
import math
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, overload

from protocol.edetector import (
    BURN_IN,
    MOST_STREAMS,
    Bets,
    DetectorState,
    all_bets,
    bets_of,
    decode_state,
    encode_state,
    evidence,
    laid_out,
    step,
)
from protocol.identifiers import Digest
from protocol.members import Profile
from protocol.reported import DriftState
from protocol.telemetry import DriftWindow

log = logging.getLogger(__name__)

DRIFTED: Final = "OUT-D601"
"""Problem code of inputs that are not the reference's."""
HYSTERESIS: Final = 5.0
"""Evidence must fall so far below the threshold before it can cross it anew: it is told once."""
_PROFILES: Final = 8
"""Detectors of so many (manifest, profile) are kept: those of versions that ran lately."""
_STATE_BYTES: Final = 262_144
"""And of no more than have this much state together, but always the newest: records need room."""
_BETS_OF: Final = 4
_BETS_OF_STREAMS: Final = 128
"""Bets are kept in memory for so many bundles, and streams together: about a megabyte. Those of a
larger profile are made anew for each window, one stream at a time."""
_NAMED: Final = 5
_NAME_LENGTH: Final = 64

Detail = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Known:
    """What is needed of a profile; the rest of it may be large."""

    names: tuple[str, ...]
    """Of its streams."""
    residual: bool
    bets: Sequence[Bets]

    @property
    def features(self) -> int:
        return len(self.names) - self.residual


class Detection:
    """Used by the outbox's thread, inside its transactions.

    `profile_of` gives the profile of a complete bundle's variant, None where there is none. Its
    `OSError` keeps a window from being looked at, and never from being closed.
    """

    def __init__(self, profile_of: Callable[[Digest], Profile | None]) -> None:
        self._profile_of = profile_of
        self._known: dict[Digest, _Known] = {}

    def step(
        self, db: sqlite3.Connection, window: DriftWindow, now_ms: int, ln_threshold: float
    ) -> tuple[DriftWindow, Detail | None]:
        """Move the detectors on by a closed window. Returns it with what they say, and the detail
        of an event if they crossed the threshold with it."""
        known = self._of(window.manifest)
        if known is None:
            return window, None
        counts = laid_out(window, known.features, residual=known.residual)
        if counts is None:
            return window, None
        where = (window.manifest, window.profile)
        row = db.execute(
            "SELECT since, state FROM detector WHERE manifest=? AND profile=?", where
        ).fetchone()
        since, before = (row[0], _read(row[1])) if row else (0, DetectorState())
        stepped = step(known.bets, before, counts)
        highest = max(stepped.ln_e, default=-math.inf)
        crossed = highest >= ln_threshold and not since
        if crossed:
            since = now_ms
        elif highest < ln_threshold - HYSTERESIS:
            since = 0
        top = stepped.ln_e.index(highest) if highest > 0 else None
        db.execute(
            "INSERT INTO detector VALUES(?,?,?,?,?,?,?,?) ON CONFLICT(manifest, profile)"
            " DO UPDATE SET t=excluded.t, at=excluded.at, since=excluded.since, top=excluded.top,"
            " ln_e=excluded.ln_e, state=excluded.state",
            (
                *where,
                stepped.state.t,
                now_ms,
                since,
                "" if top is None else known.names[top],
                max(0.0, highest),
                encode_state(stepped.state),
            ),
        )
        _forget_old(db)
        said = replace(window, looks=stepped.state.t, evidence=evidence(stepped.ln_e))
        if not crossed:
            return said, None
        return said, _detail(known.names, stepped.ln_e, said.looks, ln_threshold)

    def state(
        self, db: sqlite3.Connection, manifest: Digest, ln_threshold: float
    ) -> DriftState | None:
        """What they say now of this variant's inputs; None before its first window."""
        row = db.execute(
            "SELECT t, at, since, top, ln_e FROM detector"
            " WHERE manifest=? ORDER BY at DESC LIMIT 1",
            (manifest,),
        ).fetchone()
        if row is None:
            return None
        t, at, since, top, ln_e = row
        # The threshold may have changed since the last window.
        since_ms = (since or at) if ln_e >= ln_threshold else 0
        return DriftState(ln_e, top, ln_threshold, t, t >= BURN_IN, since_ms)

    def _of(self, manifest: Digest) -> _Known | None:
        if manifest in self._known:
            # The newest is last.
            self._known[manifest] = self._known.pop(manifest)
            return self._known[manifest]
        try:
            profile = self._profile_of(manifest)
        except OSError as error:
            log.warning("the profile of %s cannot be read: %s", manifest, error)
            return None
        if profile is None or not profile.streams:
            return None
        streams = map(profile.stream, range(profile.streams))
        names = tuple(stream.name[:_NAME_LENGTH] for stream in streams)
        residual = profile.residual is not None
        if profile.streams > _BETS_OF_STREAMS:
            return _Known(names, residual, _Passing(profile))
        known = _Known(names, residual, all_bets(profile))
        self._known[manifest] = known
        while (
            len(self._known) > _BETS_OF
            or sum(len(each.bets) for each in self._known.values()) > _BETS_OF_STREAMS
        ):
            del self._known[next(iter(self._known))]
        return known


class _Passing(Sequence[Bets]):
    """The bets of a large profile, each made when it is asked for."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile

    def __len__(self) -> int:
        return min(self._profile.streams, MOST_STREAMS)

    @overload
    def __getitem__(self, index: int) -> Bets: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Bets]: ...
    def __getitem__(self, index: int | slice) -> Bets | Sequence[Bets]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        return bets_of(self._profile.stream(index))


def _forget_old(db: sqlite3.Connection) -> None:
    rows = db.execute(
        "SELECT manifest, profile, length(state) FROM detector ORDER BY at DESC, manifest"
    ).fetchall()
    used = 0
    for place, (manifest, profile, size) in enumerate(rows):
        used += size
        if place >= _PROFILES or (place and used > _STATE_BYTES):
            db.execute("DELETE FROM detector WHERE manifest=? AND profile=?", (manifest, profile))


def _read(data: bytes) -> DetectorState:
    """The stored state; a new one where it is damaged, or of an agent that bet otherwise."""
    try:
        return decode_state(data)
    except ValueError as error:
        log.warning("a detector starts anew: %s", error)
        return DetectorState()


def _detail(names: Sequence[str], ln_e: Sequence[float], windows: int, threshold: float) -> Detail:
    over = sorted((-value, index) for index, value in enumerate(ln_e) if value >= threshold)
    features = [[names[index], round(-value, 1)] for value, index in over[:_NAMED]]
    return {"features": features, "windows": windows, "threshold": threshold}
