"""The real outbox, uplink, ingest and records under random schedules of everything that fails.

What is counted are atoms: take k carries 2^k in `refused`, so a stored sum names exactly the
takes in it, and a take stored twice shows as a wrong sum. The network keeps every message for
ever: any of them, and any ack, may arrive at any time, repeatedly, or never.

Long because the model, its checks and the wrong variants are read together.
"""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from pathlib import Path

import pytest

from control_plane.store import records
from control_plane.unpack import unpack
from edge_agent import buffer, coarsen, outgoing, quota
from edge_agent.buffer import Outbox
from edge_agent.uplink import Uplink
from protocol.batch import read_upload
from protocol.codec import MAX_DOWN, decode, encode, encode_up
from protocol.reported import ReportedState
from protocol.telemetry import (
    BLOCKS,
    FINAL,
    Hello,
    Record,
    Upload,
    merge_records,
)
from tests.fakes.receiver import Receiver, RecordsFile
from tests.fakes.telemetry import Counts, Take, compress, drift, inference

SEEDS = range(100, 112)
STEPS = 80
ATOMS = 48
"""Bits that fit below 2^53."""
BUDGET_S = 1.2
"""Per seed; a slow machine explores less, and finishes every schedule it began."""


class World:
    """One device, one control plane, the network between them, and copies of both disks."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.folder = folder
        self.now = 0.0
        self.atoms = 0
        self.seq = 0
        self.rolled_back = 0
        """Atoms that a rollback of the device's disk destroyed."""
        self.delivered = 0
        """Atoms of records that the present control plane took."""
        self.uploads: list[bytes] = []
        self.acks: list[bytes] = []
        self.hellos: list[bytes] = []
        self.image: Path | None = None
        self.synced = folder / "synced.db"
        self.backup = folder / "backup.db"
        self.backup_atoms = 0
        self.generation = 0
        self.control = self._start_control()
        # Backups are configured from the start: nothing is safe before the first one.
        self.control.records.mark_backup(0)
        self.control.file.copy_to(self.backup)
        self._start_agent()
        self._save(self.synced)

    # --- the device -----------------------------------------------------------------------------

    @property
    def path(self) -> Path:
        return self.folder / "outbox.db"

    def _start_agent(self) -> None:
        rng = random.Random(self.rng.getrandbits(64))
        # What a power cut takes is decided here, not by the disk.
        self.outbox = Outbox(self.path, rng=rng, window_s=10.0, min_window_n=0, synchronous="OFF")
        self.outbox.state()
        self.uplink = Uplink(self.outbox, rng=rng, compress=compress, resend_s=2.0, spread_s=0.0)
        self.uplink.on_connected(self.now)
        self.runner = f"r-{self.rng.getrandbits(40)}"
        self.seq = 0

    def checkpoint(self) -> None:
        if self.atoms >= ATOMS:
            return
        self.seq += 1
        answers = self.rng.choice((1, 19, 20, 60))
        counts = Counts(inference(answers, mark=1 << self.atoms), drift(answers))
        take = Take(self.runner, self.seq, (counts,))
        for _ in range(self.rng.choice((1, 1, 2))):
            self.outbox.commit_take(take, self.now, int(self.now * 1000))
        self.atoms += 1

    def close(self) -> None:
        self.now += 10.0
        self.outbox.close_due(self.now)

    def say(self) -> None:
        self.outbox.put_state(ReportedState(order=0, agent="1"), int(self.now * 1000))
        self.outbox.put_event("OUT-D201", {"at": self.now}, int(self.now * 1000))

    def send(self) -> None:
        self.now += self.rng.choice((0.1, 5.0, 300.0))
        message = self.uplink.due(self.now)
        if message is not None:
            self.uploads.append(message)

    def export(self) -> None:
        """Some of what may be sent, on a stick: it arrives whenever somebody plugs it in."""
        rows = self.outbox.sendable(lambda _: False, records=500, body_bytes=10**6)
        if rows:
            some = self.rng.sample(rows, self.rng.randint(1, min(3, len(rows))))
            self.uploads.append(encode_up(Upload(1, tuple(some)), compress))

    def reconnect(self) -> None:
        self.uplink.on_disconnected()
        self.uplink.on_connected(self.now)

    def restart(self) -> None:
        self.outbox.close()
        self._start_agent()

    def stop_and_start(self) -> None:
        self.outbox.close_all()
        self.restart()

    def sync(self) -> None:
        self._save(self.synced)

    def save_image(self) -> None:
        if self.image is None:
            self.image = self.folder / "image.db"
            self._save(self.image)

    def power_cut(self) -> None:
        self._roll_back(self.synced)

    def restore_image(self) -> None:
        if self.image is not None:
            self._roll_back(self.image)

    def squeeze(self) -> None:
        """The real thing: for a moment there is hardly any room."""
        self.outbox.resize(self.rng.choice((60_000, 120_000)))
        # At no time at all: no window is old enough to be closed.
        self.outbox.close_due(-1.0)
        self.outbox.resize(32_000_000)

    def coarsen(self) -> None:
        """Merge any complete aligned block, not only the one that is next."""
        closed = [r for r in self._rows() if r.part == FINAL and r.kind in ("inference", "drift")]
        blocks: dict[tuple[int, str, int, int], list[Record]] = {}
        for size in BLOCKS[1:4]:
            for record in closed:
                key = (record.e, record.s, size, record.lo // size)
                if record.hi // size == record.lo // size:
                    blocks.setdefault(key, []).append(record)
        complete = [
            members
            for (_, _, size, _), members in sorted(blocks.items())
            if len(members) > 1 and sum(r.hi - r.lo + 1 for r in members) == size
        ]
        if not complete:
            return
        merged = merge_records(self.rng.choice(complete))
        self.outbox.close()
        with sqlite3.connect(self.path) as db:
            db.execute(
                "DELETE FROM buf WHERE epoch=? AND stream=? AND lo BETWEEN ? AND ?",
                (merged.e, merged.s, merged.lo, merged.hi),
            )
            db.execute(
                "INSERT INTO buf VALUES(?,?,?,?,?,?,?,?,?)",
                (merged.e, merged.s, merged.lo, merged.hi, merged.part, merged.t0, merged.t1,
                 merged.n, encode(merged.b)),
            )  # fmt: skip
        db.close()
        self._start_agent()

    def _rows(self) -> list[Record]:
        with sqlite3.connect(self.path) as db:
            rows = db.execute("SELECT epoch, stream, lo, hi, n, body, part, t0, t1 FROM buf")
            found = [
                Record(e, s, lo, hi, n, json.loads(body), part, t0, t1)
                for e, s, lo, hi, n, body, part, t0, t1 in rows
            ]
        db.close()
        return found

    def _save(self, target: Path) -> None:
        target.unlink(missing_ok=True)
        with sqlite3.connect(self.path) as source, sqlite3.connect(target) as copy:
            source.backup(copy)
        source.close()
        copy.close()

    def _roll_back(self, source: Path) -> None:
        before = atoms_of(self._rows())
        self.outbox.close()
        for leftover in self.folder.glob("outbox.db*"):
            leftover.unlink()
        shutil.copy(source, self.path)
        shutil.copy(source, self.synced) if source != self.synced else None
        self._start_agent()
        self.rolled_back |= before & ~atoms_of(self._rows())

    # --- the network ----------------------------------------------------------------------------

    def deliver(self) -> None:
        if not self.uploads:
            return
        # New ones more often, but every one that ever was may come again.
        recent = self.rng.random() < 0.4
        self._receive(self.uploads[-1] if recent else self.rng.choice(self.uploads))

    def answer(self) -> None:
        if not self.acks:
            return
        recent = self.rng.random() < 0.6
        self.uplink.on_ack(self.now, self.acks[-1] if recent else self.rng.choice(self.acks))

    def greet(self) -> None:
        self.uplink.on_hello(self.now, self.rng.choice(self.hellos))

    def _receive(self, upload: bytes) -> None:
        taken = read_upload(upload, unpack)
        acks = self.control.receive(upload)
        self.delivered |= atoms_of(list(taken.x))
        self.check()
        # The ack is published after the commit, and may never get anywhere.
        self.acks.extend(acks)

    # --- the control plane ----------------------------------------------------------------------

    def _start_control(self) -> Receiver:
        self.generation += 1
        file = RecordsFile(self.folder / "store.db")
        control = Receiver(file, seed=self.generation * 1000 + self.rng.getrandbits(8))
        hello = decode(control.ingest.hellos([0])[0].data, Hello, limit=MAX_DOWN)
        # Every other one greets as those did that read no binary batches.
        self.hellos.append(encode(hello if self.generation % 2 else replace(hello, codecs=(1, 2))))
        return control

    def restart_control(self) -> None:
        self.control.file.close()
        self.control = self._start_control()

    def back_up(self) -> None:
        number = self.control.records.ingest_number()
        self.control.file.copy_to(self.backup)
        self.control.records.mark_backup(number)
        self.backup_atoms = self.delivered

    def restore_control(self) -> None:
        self.control.file.close()
        for leftover in self.folder.glob("store.db*"):
            leftover.unlink()
        shutil.copy(self.backup, self.folder / "store.db")
        self.control = self._start_control()
        self.delivered = self.backup_atoms

    # --- what must hold -------------------------------------------------------------------------

    def stored(self) -> int:
        db = self.control.file.connection()
        query = "SELECT coalesce(sum(json_extract(body, '$.refused')), 0) FROM record"
        return int(db.execute(query + " WHERE stream LIKE 'inference/%'").fetchone()[0])

    def check(self) -> None:
        assert self.stored() == self.delivered, "stored is not what was delivered, once"

    def finish(self) -> None:
        """Without faults from here on everything that still exists is stored."""
        self.uplink.on_hello(self.now, self.hellos[-1])
        self.stop_and_start()
        self.back_up()
        for _ in range(400):
            self.now += 3600.0
            message = self.uplink.due(self.now)
            if message is None:
                self.back_up()
                self.reconnect()
                message = self.uplink.due(self.now)
                assert message is not None
            for ack in self.control.receive(message):
                self.uplink.on_ack(self.now, ack)
            self.delivered |= atoms_of(list(read_upload(message, unpack).x))
            self.check()
            if self.outbox.state().records == 0:
                break
        assert self.outbox.state().records == 0, "everything is acknowledged in the end"
        missing = ((1 << self.atoms) - 1) & ~self.stored() & ~self.rolled_back
        assert missing == 0, f"takes {missing:b} are nowhere"
        assert self.control.records.conflicts() == 0


def atoms_of(rows: list[Record]) -> int:
    marks = (r.b.get("refused", 0) for r in rows if r.kind == "inference")
    return reduce(int.__or__, marks, 0)


WEIGHTS: dict[Callable[[World], None], float] = {
    World.checkpoint: 8,
    World.close: 5,
    World.send: 8,
    World.export: 6,
    World.deliver: 12,
    World.answer: 8,
    World.coarsen: 4,
    World.squeeze: 2,
    World.greet: 2,
    World.say: 2,
    World.reconnect: 2,
    World.sync: 4,
    World.back_up: 2,
    World.restart: 1,
    World.stop_and_start: 1,
    World.power_cut: 2,
    World.save_image: 1,
    World.restore_image: 1,
    World.restart_control: 1,
    World.restore_control: 0.5,
}


def explore(folder: Path, name: int) -> None:
    """One schedule. Raises `AssertionError` with its steps where something does not hold."""
    folder.mkdir()
    world = World(folder, name)
    trace = []
    # Every other device has room enough: where all windows are merged, some things never happen.
    weights = WEIGHTS if name % 2 else {**WEIGHTS, World.squeeze: 0}
    try:
        for _ in range(STEPS):
            (step,) = world.rng.choices(list(weights), list(weights.values()))
            trace.append(step.__name__)
            step(world)
            world.check()
        world.finish()
    except Exception as failure:
        raise AssertionError(f"schedule {name}: {' '.join(trace)}: {failure}") from failure
    finally:
        world.outbox.close()
        world.control.file.close()
        shutil.rmtree(folder)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_count_is_stored_exactly_once_whatever_fails(tmp_path, seed):
    began = time.monotonic()
    schedules = 0
    while schedules == 0 or time.monotonic() - began < BUDGET_S:
        explore(tmp_path / "world", seed * 1000 + schedules)
        schedules += 1
    print(f"seed {seed}: {schedules} schedules of {STEPS} steps")


def ignore_the_part(record, rows):
    return any(lo <= record.lo and hi >= record.hi for lo, hi, _, _ in rows)


def by_exact_range(record, rows):
    return any((lo, hi) == (record.lo, record.hi) for lo, hi, _, _ in rows)


def by_first_window(record, rows):
    return any(lo == record.lo for lo, _, _, _ in rows)


def delete_what_is_stored(db, live, ack, right=outgoing.delete_safe):
    return right(db, live, replace(ack, safe=ack.have))


def one_epoch_for_ever(outbox):
    outbox._epoch = 1
    return 1


def every_take_counts(db, runner):
    return 0


def merge_any_neighbours(rows, kinds, most, unfit=()):
    closed = [row for row in rows() if row[1].split("/")[0] in kinds and row[4] == FINAL]
    return tuple(
        coarsen.Block(a[0], a[1], a[2], b[3], a[5])
        for a, b in zip(closed[::2], closed[1::2], strict=False)
        if a[:2] == b[:2] and b[2] == a[3] + 1
    )


WRONG: dict[str, tuple[object, str, Callable[..., object]]] = {
    "the first version of a partial window wins": (records, "is_covered", ignore_the_part),
    "a block is a record of its own": (records, "is_covered", by_exact_range),
    "windows are known by their first number": (records, "is_covered", by_first_window),
    "deleted when stored, not when safe": (outgoing, "delete_safe", delete_what_is_stored),
    "an epoch that survives restarts": (Outbox, "_drawn", one_epoch_for_ever),
    "a repeated take counts again": (buffer, "_taken", every_take_counts),
    "any neighbours are merged": (quota, "plan", merge_any_neighbours),
}


@pytest.mark.parametrize("variant", WRONG)
def test_the_explorer_finds_protocols_that_lose_or_double_counts(tmp_path, monkeypatch, variant):
    owner, name, wrong = WRONG[variant]
    monkeypatch.setattr(owner, name, wrong)

    def schedules():
        for schedule in range(200):
            explore(tmp_path / "world", schedule)

    # The last two: what no record can be, where merging went wrong.
    found = (
        r"stored is not|are nowhere|in the end|a single window can be partial|not an aligned block"
    )
    with pytest.raises(AssertionError, match=found):
        schedules()
