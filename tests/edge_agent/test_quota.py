"""The quota: what is on disk stays below it, shrinks again, and costs no count."""

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edge_agent.buffer import Outbox
from edge_agent.outbox_file import LOG_BYTES
from protocol.errors import Unavailable
from protocol.histogram import LATENCY_SLOTS
from protocol.reported import ReportedState
from protocol.telemetry import DriftWindow, InferenceWindow, Record, StreamAck
from tests.fakes.telemetry import MANIFEST, PROFILE, Counts, Take

FEATURES = 50
STATE = ReportedState(order=0, agent="0.1.0")


def on_disk(path: Path) -> int:
    return sum(each.stat().st_size for each in path.parent.glob(f"{path.name}*"))


def spread(rng: random.Random, n: int, slots: int) -> tuple[int, ...]:
    counts = [0] * slots
    for _ in range(n):
        counts[min(slots - 1, int(abs(rng.gauss(slots / 2, slots / 5))))] += 1
    return tuple(counts)


def windows(rng: random.Random, number: int = 20) -> list[Counts]:
    """What a model with fifty features counts in a minute: about 60 answers."""
    found = []
    for _ in range(number):
        n = rng.randint(45, 75)
        answered = InferenceWindow(
            MANIFEST,
            PROFILE,
            answers=n,
            rows=n,
            latency=spread(rng, n, LATENCY_SLOTS),
            confidence=spread(rng, n, 20),
            classes=spread(rng, n, 10),
        )
        table = tuple(spread(rng, n, 12) for _ in range(FEATURES))
        found.append(Counts(answered, DriftWindow(MANIFEST, PROFILE, n, table)))
    return found


class Site:
    """A device without a link, and its minutes."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self.path = path
        self.limit_bytes = limit_bytes
        self.rng = random.Random(11)
        self.windows = windows(self.rng)
        self.answers = 0
        self.minutes = 0
        self.most = 0
        self.starts = 0
        self.start()

    def start(self) -> None:
        self.starts += 1
        self.seq = 0
        self.outbox = Outbox(
            self.path,
            rng=random.Random(self.rng.getrandbits(64)),
            limit_bytes=self.limit_bytes,
            window_s=60.0,
            min_window_n=0,
            # Nobody cuts the power here.
            synchronous="OFF",
        )

    def minute(self) -> None:
        self.minutes += 1
        self.seq += 1
        counts = self.rng.choice(self.windows)
        take = Take(f"r-{self.starts}", self.seq, (counts,))
        self.outbox.commit_take(take, self.minutes * 60.0, self.minutes * 60_000)
        self.outbox.close_due((self.minutes + 1) * 60.0)
        self.answers += counts.inference.answers
        self.most = max(self.most, on_disk(self.path))

    def many(self, minutes: int) -> None:
        for _ in range(minutes):
            self.minute()

    def restart(self, *, orderly: bool) -> None:
        if orderly:
            self.outbox.close_all()
        self.outbox.close()
        self.start()

    def counted(self) -> dict[str, int]:
        with closing(sqlite3.connect(self.path)) as db:
            rows = db.execute("SELECT stream, sum(n) FROM buf GROUP BY stream").fetchall()
        return {stream.split("/")[0]: n for stream, n in rows}

    def check(self) -> None:
        counted = self.counted()
        assert counted["inference"] == self.answers
        assert counted["drift"] == self.answers
        assert self.most <= self.limit_bytes


@pytest.fixture
def path(tmp_path):
    return tmp_path / "outbox.db"


def ready(outbox: Outbox) -> list[Record]:
    return outbox.sendable(lambda _: False, records=10**6, body_bytes=10**9)


def acknowledge(outbox: Outbox) -> None:
    for row in sorted(ready(outbox), key=lambda r: (r.e, r.s, r.lo)):
        part = () if row.part == 2**31 - 1 else ((row.lo, row.part, True),)
        safe = () if part else ((row.lo, row.hi),)
        outbox.delete_safe([StreamAck(row.e, row.s, safe, safe, part)])


def test_days_offline_stay_below_the_quota_with_every_count_and_histogram(path):
    # A thirtieth of thirty days in twenty megabytes; the whole of it is in tests/e2e.
    site = Site(path, 20_000_000 // 15)
    for day in range(4):
        for _ in range(120):
            site.minute()
        site.restart(orderly=day % 2 == 0)
    site.check()
    state = site.outbox.state()
    assert state.merged > 0
    assert state.thinned == 0
    assert state.bytes == on_disk(path) <= site.limit_bytes


def test_what_cannot_be_merged_loses_its_histograms_and_keeps_its_counts(path):
    """Restarts every hour: one window per epoch, and nothing that merges."""
    site = Site(path, 400_000)
    for hour in range(150):
        site.minute()
        site.restart(orderly=hour % 3 == 0)
    site.check()
    state = site.outbox.state()
    assert state.merged == 0
    assert state.thinned > 0
    with closing(sqlite3.connect(path)) as db:
        oldest = db.execute("SELECT length(body) FROM buf ORDER BY t0 LIMIT 1").fetchone()[0]
        newest = db.execute("SELECT length(body) FROM buf ORDER BY t0 DESC LIMIT 1").fetchone()[0]
    assert oldest < 400 < newest


def test_the_file_shrinks_once_the_control_plane_has_everything(path):
    site = Site(path, 2_000_000)
    for _ in range(300):
        site.minute()
    full = on_disk(path)
    assert full > 800_000
    acknowledge(site.outbox)
    for _ in range(20):
        site.outbox.close_due(0.0)
    assert on_disk(path) < full / 4
    assert site.outbox.state().records <= 2


def test_a_smaller_quota_is_reached_by_and_by_with_every_count(path):
    site = Site(path, 4_000_000)
    for _ in range(400):
        site.minute()
    assert on_disk(path) > 1_500_000
    site.outbox.resize(1_000_000)
    site.limit_bytes = 4_000_000
    for _ in range(60):
        site.outbox.close_due(0.0)
    assert on_disk(path) <= 1_000_000
    site.check()
    site.limit_bytes, site.most = 1_000_000, 0
    for _ in range(100):
        site.minute()
    site.check()


def test_a_log_that_somebody_keeps_open_is_bounded_and_stops_nothing_for_good(path):
    site = Site(path, 1_000_000)
    site.minute()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM buf").fetchall()
        with pytest.raises(Unavailable) as refused:
            site.many(200)
        assert refused.value.code == "OUT-D501"
        assert "another process" in refused.value.why
        assert site.most <= site.limit_bytes
        assert site.outbox.problem is not None
    before = site.answers
    site.seq -= 1
    site.minute()
    assert site.answers > before
    assert site.outbox.problem is None


def test_a_file_of_an_earlier_agent_is_made_to_shrink(path):
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE total(name TEXT PRIMARY KEY, value INTEGER NOT NULL)")
        db.execute("INSERT INTO total VALUES('answers', 7)")
        db.commit()
    outbox = Outbox(path)
    assert outbox.answers == 7
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    outbox.close()


def test_events_are_merged_last_and_keep_their_counts(path):
    outbox = Outbox(path, limit_bytes=150_000, window_s=0.0, min_window_n=0, synchronous="OFF")
    for number in range(1200):
        outbox.put_event("OUT-D201", {"why": "x" * 60, "number": number}, number)
    events = [record for record in ready(outbox) if record.kind == "events"]
    assert sum(record.n for record in events) == 1200
    assert len(events) < 1200
    assert on_disk(path) <= 150_000
    newest = max(events, key=lambda record: record.lo)
    assert newest.b["newest"]["OUT-D201"]["number"] == 1199
    outbox.close()


def test_the_newest_state_is_kept_when_older_ones_are_given_up(path):
    outbox = Outbox(path, limit_bytes=150_000, synchronous="OFF")
    orders = [outbox.put_state(STATE, number) for number in range(1, 900)]
    states = [record for record in ready(outbox) if record.kind == "state"]
    assert len(states) < 900
    assert max(record.b["order"] for record in states) == orders[-1]
    outbox.close()


def test_the_log_has_room_of_its_own_within_the_quota(path):
    outbox = Outbox(path)
    outbox.state()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert outbox.state().limit_bytes == 32_000_000
    assert LOG_BYTES <= 32_000_000 / 16
    outbox.close()
