"""The outbox: every record that the control plane does not have yet, durable and counted once.

Three rules carry the guarantee. A random epoch per process start: old rows keep the epoch they
were born in, so no number survives a restart and none can be used twice. A window number is taken
when its first row is committed. And a row is deleted only on the control plane's word that it is
stored safely, lowest number first.

Counts come in by takes: a runner repeats one until it hears that it was committed, and the row
that says so is in the same transaction as the counts.

Long because what writes shares one file, one epoch and one set of open windows.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from edge_agent import baseline, outgoing, quota
from edge_agent.detection import DRIFTED, Detection
from edge_agent.outbox_file import OutboxFile
from edge_agent.outgoing import Held, RowKey
from edge_agent.quota import Room
from edge_agent.windows import ModelCounts, OpenWindow, TakenCounts, bodies_of
from protocol.codec import MAX_UP_UNPACKED, decode, encode, to_wire
from protocol.edetector import DEFAULT_THRESHOLD
from protocol.errors import Unavailable
from protocol.identifiers import Digest, ModelName, digest_hex
from protocol.members import Profile
from protocol.reported import BufferState, DriftState, Outcome, ReportedState
from protocol.telemetry import (
    EVENT_STREAM,
    FINAL,
    STATE_STREAM,
    Body,
    DriftWindow,
    EventWindow,
    InferenceWindow,
    Record,
    StreamAck,
    private,
)

_EPOCH_BITS: Final = 53
_RUNNERS_REMEMBERED: Final = 64
_DETAIL_BYTES: Final = 4096
LOST: Final = "OUT-D503"
"""Problem code of records that were lost with a damaged file."""


class Outbox:
    """Used by one thread. Every method that writes returns when its change is durable.

    They raise `Unavailable` OUT-D501 (full) or OUT-D502 (the storage); nothing has happened then,
    and the call can be repeated. `rng` needs real randomness: epochs must not repeat.

    `window_s` and `min_window_n` say how long windows stay open, unless `signed_windows`: then
    each profile says it of its own. `profile_of` gives the profile of a variant that is installed.
    """

    def __init__(
        self,
        path: Path,
        *,
        rng: random.Random | None = None,
        limit_bytes: int = 32_000_000,
        window_s: float = 3600.0,
        min_window_n: int = 50,
        synchronous: str = "FULL",
        profile_of: Callable[[Digest], Profile | None] = lambda _: None,
        signed_windows: bool = False,
    ) -> None:
        self._rng = rng or random.SystemRandom()
        self._signed_windows = signed_windows
        self._detection = Detection(profile_of)
        self.ln_threshold = DEFAULT_THRESHOLD
        """Evidence of drift, ln e, from which this device says so."""
        self._window_s = window_s
        self._min_window_n = min_window_n
        self._epoch: int | None = None
        self._next: dict[str, int] = {}
        self._open: dict[str, OpenWindow] = {}
        self._rows: int | None = None
        self._state = BufferState(limit_bytes=limit_bytes)
        self._answers = 0
        self.version = 0
        """Grows with every change of what is or may become sendable."""
        self._file = OutboxFile(path, limit_bytes, self._start, synchronous=synchronous)
        self._room = Room(self._file)

    # --- counts ---------------------------------------------------------------------------------

    def acknowledged(self, runner: str) -> int:
        """The last take of this runner that is committed; 0 if none is."""
        with self._file.reading() as db:
            return _taken(db, runner)

    def commit_take(self, take: TakenCounts, now_s: float, now_ms: int) -> None:
        """Add a take to the open windows and remember its number, in one transaction.

        A take that is committed already changes nothing. Raises `ValueError` for counts that do
        not merge with those before them: the runner's mistake.
        """
        self._make_room()
        with self._file.transaction() as db:
            changed: dict[str, OpenWindow] = {}
            if take.seq > _taken(db, take.runner):
                for counts in take.windows:
                    self._add(db, changed, counts, now_s, now_ms)
                db.execute(
                    "INSERT INTO taken(runner, seq, at) VALUES(?,?,?)"
                    " ON CONFLICT(runner) DO UPDATE SET seq=excluded.seq, at=excluded.at",
                    (take.runner, take.seq, now_ms),
                )
                db.execute(
                    "DELETE FROM taken WHERE runner<>:runner AND runner NOT IN"
                    " (SELECT runner FROM taken ORDER BY at DESC, rowid DESC LIMIT :most)",
                    {"runner": take.runner, "most": _RUNNERS_REMEMBERED},
                )
                quota.note(db, "answers", sum(each.inference.answers for each in take.windows))
        for window in changed.values():
            self._remember(window)
        self._changed()

    def close_due(self, now_s: float) -> None:
        """Close the windows that are old enough and hold enough answers; and keep to the quota, a
        piece at a time."""
        self._make_room()
        self._close([window for window in self._open.values() if window.due(now_s)])

    def close_unserved(self, manifests: Collection[Digest]) -> None:
        """Close the windows of variants that no runner holds any more: after a model switch."""
        kept = {digest_hex(manifest)[:16] for manifest in manifests}
        self._close([w for w in self._open.values() if w.stream.split("/")[1] not in kept])

    def close_all(self) -> None:
        """Close every window: the agent stops."""
        self._close(list(self._open.values()))

    def baseline(self, model: ModelName, digest: Digest) -> InferenceWindow | None:
        """What the bundle did in its last 48 closed windows and the open one; None if nothing."""
        with self._file.reading() as db:
            return baseline.total(db, model, digest)

    def drift(self, manifest: Digest) -> DriftState | None:
        """What this variant's detectors of drift say; None before its first closed window, or
        while the storage fails."""
        with contextlib.suppress(Unavailable), self._file.reading() as db:
            return self._detection.state(db, manifest, self.ln_threshold)
        return None

    @property
    def answers(self) -> int:
        """Answers ever committed to this file. Never raises: what was known last, then."""
        with contextlib.suppress(Unavailable), self._file.reading() as db:
            self._answers = _total(db, "answers")
        return self._answers

    # --- states and events ----------------------------------------------------------------------

    def put_state(self, state: ReportedState, now_ms: int) -> int:
        """Record the complete state. Its `order` is assigned here, and returned."""
        self._make_room()
        with self._file.transaction() as db:
            row = db.execute("SELECT value FROM state_order").fetchone()
            order = max(0 if row is None else row[0] + 1, now_ms)
            db.execute(
                "INSERT INTO state_order VALUES(1, :order)"
                " ON CONFLICT(one) DO UPDATE SET value=:order",
                {"order": order},
            )
            number = self._insert_final(db, STATE_STREAM, replace(state, order=order), now_ms)
            last = self._say_losses(db, now_ms)
        self._took(STATE_STREAM, number)
        if last is not None:
            self._took(EVENT_STREAM, last)
        return order

    def put_event(self, code: str, detail: Mapping[str, Any], now_ms: int) -> None:
        """Record that something happened; `detail` is cut when it is too long to travel."""
        self._make_room()
        with self._file.transaction() as db:
            number = self._insert_final(db, EVENT_STREAM, _event(code, detail, now_ms), now_ms)
        self._took(EVENT_STREAM, number)

    def put_outcome(self, outcome: Outcome, now_ms: int) -> None:
        """Record the end of a trial once: a number up to the reported one changes nothing."""
        self._make_room()
        with self._file.transaction() as db:
            if outcome.number <= _reported(db, outcome.model):
                return
            event = EventWindow({outcome.result: 1}, {outcome.result: to_wire(outcome)})
            number = self._insert_final(db, EVENT_STREAM, event, now_ms)
            db.execute(
                "INSERT INTO reported(model, number) VALUES(?,?)"
                " ON CONFLICT(model) DO UPDATE SET number=excluded.number",
                (outcome.model, outcome.number),
            )
        self._took(EVENT_STREAM, number)

    def reported_number(self, model: ModelName) -> int:
        """Number of the last outcome that became a record; 0 if none did.

        Raises `Unavailable` also while outcomes cannot be recorded: whoever waits for that would
        wait with everything else.
        """
        if self._file.problem is not None:
            raise Unavailable(*self._file.problem)
        with self._file.reading() as db:
            return _reported(db, model)

    # --- sending --------------------------------------------------------------------------------

    def sendable(
        self, skip: Callable[[RowKey], bool], *, records: int, body_bytes: int
    ) -> list[Record]:
        """What may be sent now, as `outgoing.sendable`: the newest state, then the oldest rows."""
        with self._file.reading() as db:
            found = outgoing.sendable(
                db, self._live(), skip, records=records, body_bytes=body_bytes
            )
        if found.unreadable:
            self._drop(found.unreadable)
        return found.records

    def held(self, most: int) -> list[Held]:
        """`(epoch, stream, lowest, highest)` of what is still here, at most `most` of them."""
        with self._file.reading() as db:
            return outgoing.held(db, most)

    def delete_safe(self, acks: Sequence[StreamAck]) -> int:
        """Delete what the control plane has stored safely. Returns the number of rows."""
        if not acks:
            return 0
        with self._file.transaction() as db:
            deleted = sum(outgoing.delete_safe(db, self._live(), ack) for ack in acks)
        self._rows = None
        return deleted

    def thin(self, record: Record) -> bool:
        """Give up one row's histograms because it does not fit a message. False if it has none."""
        with self._file.transaction() as db:
            where = (record.e, record.s, record.lo)
            row = db.execute("SELECT body FROM buf WHERE epoch=? AND stream=? AND lo=?", where)
            found = row.fetchone()
            if found is None or record.kind not in ("inference", "drift"):
                return False
            thinned = quota.thin(db, *where, found[0])
            quota.note(db, "thinned", int(thinned))
        self._changed()
        return thinned

    # --- the rest -------------------------------------------------------------------------------

    def state(self) -> BufferState:
        """How full it is, for the reported state. Never raises: what was known last, then."""
        with contextlib.suppress(Unavailable), self._file.reading() as db:
            if self._rows is None:
                self._rows = int(db.execute("SELECT count(*) FROM buf").fetchone()[0])
            self._state = BufferState(
                records=self._rows,
                bytes=self._file.disk_bytes(),
                limit_bytes=self._file.limit_bytes,
                thinned=_total(db, "thinned"),
                merged=_total(db, "merged"),
            )
        return self._state

    @property
    def problem(self) -> tuple[str, str] | None:
        """Code and text of what keeps the outbox from working, or of what it lost; else None."""
        return self._file.problem or ((LOST, self._file.lost) if self._file.lost else None)

    @property
    def growth_bytes(self) -> int:
        """How much larger its file may still become. Never raises."""
        state = self.state()
        return max(state.limit_bytes - state.bytes, 0)

    def resize(self, limit_bytes: int) -> None:
        """Another quota. A smaller one is reached by and by: resolution is given up for it."""
        self._file.resize(limit_bytes)

    def close(self) -> None:
        """Close the file. Windows stay open: without `close_all` they go on as partial rows."""
        self._file.close()

    def _start(self, db: sqlite3.Connection) -> None:
        # What an earlier process (or this one, before a failure) left open is final now.
        self._epoch = None
        self._next = {}
        self._open = {}
        quota.keep_private(db)
        self._changed()

    def _live(self) -> int:
        return outgoing.NO_EPOCH if self._epoch is None else self._epoch

    def _drawn(self) -> int:
        if self._epoch is None:
            # A failed transaction may leave it unused, which harms nobody.
            self._epoch = self._rng.getrandbits(_EPOCH_BITS)
        return self._epoch

    def _add(
        self,
        db: sqlite3.Connection,
        changed: dict[str, OpenWindow],
        counts: ModelCounts,
        now_s: float,
        now_ms: int,
    ) -> None:
        for stream, body in bodies_of(counts):
            before = changed.get(stream) or self._open.get(stream)
            if before is None:
                signed = self._signed_windows
                window = OpenWindow(
                    stream,
                    self._next.get(stream, 0),
                    now_s,
                    now_ms,
                    now_ms,
                    body,
                    counts.model,
                    counts.window_s if signed else self._window_s,
                    counts.window_rows if signed else self._min_window_n,
                )
                if isinstance(body, InferenceWindow):
                    slot = baseline.next_slot(db, counts.model, counts.digest)
                    window = replace(window, slot=slot)
            else:
                window = before.plus(body, now_ms)
            self._put(db, window, window.part, window.body)
            if window.slot is not None and isinstance(window.body, InferenceWindow):
                baseline.keep(db, counts.model, counts.digest, window.slot, now_ms, window.body)
            changed[stream] = window

    def _put(self, db: sqlite3.Connection, window: OpenWindow, part: int, body: Body) -> None:
        db.execute(
            "INSERT INTO buf VALUES(?,?,?,?,?,?,?,?,?) ON CONFLICT(epoch, stream, lo) DO UPDATE"
            " SET part=excluded.part, t1=excluded.t1, n=excluded.n, body=excluded.body",
            (
                self._drawn(),
                window.stream,
                window.number,
                window.number,
                part,
                window.t0_ms,
                window.t1_ms,
                window.n,
                encode(body),
            ),
        )

    def _close(self, windows: Sequence[OpenWindow]) -> None:
        if not windows:
            return
        told: int | None = None
        with self._file.transaction() as db:
            if any(self._open.get(window.stream) is not window for window in windows):
                # The file was opened anew just now: these rows are of an epoch that is over.
                return
            for window in windows:
                body, drifted = window.body, None
                if isinstance(body, DriftWindow):
                    at_ms = window.t1_ms
                    body, drifted = self._detection.step(db, body, at_ms, self.ln_threshold)
                self._put(db, window, FINAL, private(body, window.n))
                if drifted is not None:
                    event = _event(DRIFTED, {"model": window.model, **drifted}, window.t1_ms)
                    after = None if told is None else told + 1
                    told = self._insert_final(db, EVENT_STREAM, event, window.t1_ms, number=after)
        for window in windows:
            del self._open[window.stream]
        if told is not None:
            self._took(EVENT_STREAM, told)
        self._changed()

    def _insert_final(
        self,
        db: sqlite3.Connection,
        stream: str,
        body: Body,
        now_ms: int,
        *,
        number: int | None = None,
    ) -> int:
        """The window's number: `number`, or else the next one."""
        if number is None:
            number = self._next.get(stream, 0)
        row = (self._drawn(), stream, number, number, FINAL, now_ms, now_ms, 1, encode(body))
        db.execute("INSERT INTO buf VALUES(?,?,?,?,?,?,?,?,?)", row)
        return number

    def _make_room(self) -> None:
        if self._room.make(self._live()):
            self._changed()

    def _drop(self, rows: Sequence[RowKey]) -> None:
        """Rows that cannot be read would keep all others from being sent."""
        with self._file.transaction() as db:
            for epoch, stream, lo, _, _ in rows:
                where = (epoch, stream, lo)
                db.execute("DELETE FROM buf WHERE epoch=? AND stream=? AND lo=?", where)
            self._file.lose(db, outgoing.told(rows))
        self._changed()

    def _say_losses(self, db: sqlite3.Connection, now_ms: int) -> int | None:
        """Events for what was lost and nobody has been told; the number of the last."""
        number: int | None = None
        for (detail,) in db.execute("SELECT detail FROM unsaid ORDER BY what").fetchall():
            body = _event(LOST, decode(detail, dict[str, Any], limit=MAX_UP_UNPACKED), now_ms)
            after = None if number is None else number + 1
            number = self._insert_final(db, EVENT_STREAM, body, now_ms, number=after)
        db.execute("DELETE FROM unsaid")
        return number

    def _remember(self, window: OpenWindow) -> None:
        self._open[window.stream] = window
        self._next[window.stream] = window.number + 1

    def _took(self, stream: str, number: int) -> None:
        self._next[stream] = number + 1
        self._changed()

    def _changed(self) -> None:
        self._rows = None
        self.version += 1


def _event(code: str, detail: Mapping[str, Any], now_ms: int) -> EventWindow:
    whole = {"at_ms": now_ms, **detail}
    if len(encode(whole)) > _DETAIL_BYTES:
        whole = {"at_ms": now_ms, "cut": encode(whole)[:_DETAIL_BYTES].decode(errors="replace")}
    return EventWindow({code: 1}, {code: whole})


def _taken(db: sqlite3.Connection, runner: str) -> int:
    row = db.execute("SELECT seq FROM taken WHERE runner=?", (runner,)).fetchone()
    return 0 if row is None else int(row[0])


def _reported(db: sqlite3.Connection, model: ModelName) -> int:
    row = db.execute("SELECT number FROM reported WHERE model=?", (model,)).fetchone()
    return 0 if row is None else int(row[0])


def _total(db: sqlite3.Connection, name: str) -> int:
    row = db.execute("SELECT value FROM total WHERE name=?", (name,)).fetchone()
    return 0 if row is None else int(row[0])
