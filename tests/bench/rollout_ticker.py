"""What a round of the ticker costs with one running rollout, for fleets of 1k to 1M devices.

The real store, ticker, gate and judge; the repository, the broker and the bundles are fakes that
do nothing. The store is filled as a rollout in its second wave leaves it: every device was heard
within the last hour, one in a hundred has been away for longer, failures and returns as usual.
Ingest is not part of it: it costs per message, and is what keeps the counters.

The figure is processor time of a round, the median of `--rounds`, with a second between rounds.
Sizes are measured in turns, so that what else the machine does falls on all of them.
`--sizes 1000,100000,1000000 --rounds 200` change how much.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from control_plane.judging import Judge  # noqa: E402 - after the path is set
from control_plane.rollout.spec import RolloutSpec, WaveSpec  # noqa: E402 - the same
from control_plane.rollout.waves import PlannedWave  # noqa: E402 - the same
from control_plane.signing.adopt import Adopted  # noqa: E402 - the same
from control_plane.store import Store, connections  # noqa: E402 - the same
from control_plane.store.bundles import BundleRow  # noqa: E402 - the same
from control_plane.store.plans import Assignment  # noqa: E402 - the same
from control_plane.store.rollouts import Rollout  # noqa: E402 - the same
from control_plane.store.table import dump  # noqa: E402 - the same
from control_plane.ticker import Ticker  # noqa: E402 - the same
from protocol.approval import Approvals, ApprovedBundle  # noqa: E402 - the same
from protocol.device import DeviceDocument  # noqa: E402 - the same
from protocol.identifiers import Digest, digest_of  # noqa: E402 - the same
from protocol.membership import EVERYONE, position  # noqa: E402 - the same
from protocol.plan import PlanTerms, Wave  # noqa: E402 - the same
from protocol.reported import ModelState, ReportedState  # noqa: E402 - the same
from tests.bench.report import Row, publish  # noqa: E402 - the same

V1, V2 = digest_of(b"v1"), digest_of(b"v2")
SALT = "5a" * 16
HOUR_MS = 3_600_000
NOW_MS = 20_000 * 24 * HOUR_MS
SIZES = (1_000, 100_000, 1_000_000)
ROUNDS = 200
WARM = 50
"""Rounds before the first that counts, once members are sampled and terms are frozen."""
SETTLING_MOST = 5_000
GOAL = 1.5
FIRST, SECOND = EVERYONE // 100, EVERYONE // 10
"""Thresholds of the two waves that have begun."""
SCALE = 10_000
# Of 10,000 devices that have activated.
ENDS = (("healthy", 9_300), ("unexercised", 400), ("activated", 200), ("rolled_back", 100))


class Nowhere:
    """Repository and publisher in one: signs with nothing and keeps nothing."""

    document_key = "key"
    settled = True

    def approvals(self) -> Approvals:
        versions = (("v1", V1), ("v2", V2))
        return {digest: ApprovedBundle("digits", v, digest) for v, digest in versions}

    def roots(self) -> Mapping[int, bytes]:
        return {1: b"root"}

    def metadata(self) -> Mapping[str, bytes]:
        return {"timestamp": b"1"}

    def publish(
        self, plans: Mapping[str, tuple[bytes, PlanTerms]], deny: bytes, now_ms: int
    ) -> bool:
        return False

    def sign_document(self, document: DeviceDocument) -> bytes:
        return b""

    def adopt_retained(self, retained: Mapping[str, bytes], now_ms: int) -> Adopted:
        return Adopted({}, {})

    def keep(self, topic: str, data: bytes) -> None: ...

    def withdraw(self, topic: str) -> None: ...

    def keep_metadata(self, roots: Mapping[int, bytes], roles: Mapping[str, bytes]) -> None: ...

    def offer(self, model: str, file: Digest, payloads: Sequence[object]) -> None: ...


class Offered:
    """Whatever is approved lies ready."""

    def offer(self, bundle: Digest, keeper: object, now_ms: int) -> bool:
        return True


@dataclass(slots=True)
class Fleet:
    """One filled store with its ticker."""

    size: int
    store: Store
    ticker: Ticker
    now_ms: int = NOW_MS

    def round(self) -> float:
        """Milliseconds of processor time."""
        self.now_ms += 1000
        began = time.process_time_ns()
        self.ticker.tick(self.now_ms)
        return (time.process_time_ns() - began) / 1e6

    def settle(self) -> None:
        """Rounds until what the judge does once for a rollout is done, and some more."""
        for _ in range(SETTLING_MOST):
            self.round()
            found = self.store.bets.progress("digits-1")
            if found is not None and found.stage not in ("sampling", "rehearsing"):
                break
        for _ in range(WARM):
            self.round()


def fleet(folder: Path, size: int) -> Fleet:
    path = folder / "store.sqlite"
    store = Store(path)
    for version, digest in (("v1", V1), ("v2", V2)):
        store.bundles.put(BundleRow(digest, "digits", version, 1000, 1, "approved"))
    store.plans.assign("digits", [Assignment(None, V1)])
    waves = (
        PlannedWave(Wave(FIRST), size // 100),
        PlannedWave(Wave(SECOND), size // 10),
        PlannedWave(Wave(EVERYONE), size),
    )
    sizes = (WaveSpec(percent=1), WaveSpec(percent=10), WaveSpec(percent=100))
    spec = RolloutSpec("digits", "v2", waves=sizes, soak_s=86_400, in_progress_timeout_s=86_400)
    store.rollouts.members.listen(NOW_MS - 100 * HOUR_MS)
    store.rollouts.put(
        Rollout(
            "digits-1", "digits", 1, 1, V2, V1, spec, None, SALT, size, waves,
            status="running", wave=2, wave_ms=NOW_MS - HOUR_MS, looked=size,
            started_ms=NOW_MS - 30 * HOUR_MS,
        )
    )  # fmt: skip
    store.close()
    _fill(path, size)
    store = Store(path)
    nowhere = Nowhere()
    ticker = Ticker(
        "north",
        store,
        nowhere,
        nowhere,
        Offered(),
        Judge(store),
        listening_since_ms=lambda: NOW_MS - 100 * HOUR_MS,
    )
    # Documents are out: to hand over all of them is what a start does, once.
    ticker._signed_with = nowhere.document_key
    return Fleet(size, store, ticker)


def _fill(path: Path, size: int) -> None:
    """In the order of the keys, without a journal: a million rows in a minute."""
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -500000"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("BEGIN")
    connection.execute("UPDATE sequence SET value = ? WHERE name = 'fleet'", (size,))
    connection.executemany(
        "INSERT INTO device (id, local, labels, version, since, changed, pins, allow, settings, "
        "enrolled_ms, last_contact_ms, published, state, state_order) "
        "VALUES (?, ?, '{}', 1, 0, ?, '{}', '{}', '{}', 0, ?, 1, ?, 1)",
        _devices(size),
    )
    connection.execute(
        "INSERT INTO running SELECT id, 'digits', json_extract(state, '$.models.digits.serving'), "
        "json_extract(state, '$.models.digits.current') FROM device ORDER BY id"
    )
    connection.executemany(
        "INSERT INTO member (rollout, device, wave, phase, since_ms, began_ms, due_ms) "
        "VALUES ('digits-1', ?1, ?2, ?3, ?4, CASE ?3 WHEN 'activated' THEN ?4 END, "
        "CASE ?3 WHEN 'rolled_back' THEN NULL ELSE ?5 + 10800000 END)",
        _members(size),
    )
    connection.execute("COMMIT")
    connection.close()


def _name(n: int) -> str:
    return f"cam-{n:07}"


def _heard_ms(n: int) -> int:
    """One of a hundred was last heard up to three hours ago, the others within one."""
    return NOW_MS - n * 7_919_000 % ((3 if n % 100 == 0 else 1) * HOUR_MS)


def _devices(size: int) -> Iterator[tuple[object, ...]]:
    states = [
        dump(
            ReportedState(
                1,
                "0.1",
                models={"digits": ModelState(current=digest, serving=digest, target=digest)},
            )
        )
        for digest in (V1, V2)
    ]
    for n in range(size):
        name = _name(n)
        new = position(SALT, f"north-{name}") < SECOND
        yield f"north-{name}", name, n + 1, _heard_ms(n), states[new]


def _members(size: int) -> Iterator[tuple[object, ...]]:
    ends = [phase for phase, share in ENDS for _ in range(share)]
    for n in range(size):
        device = f"north-{_name(n)}"
        place = position(SALT, device)
        wave = 1 if place < FIRST else 2 if place < SECOND else 3
        phase = ends[place % SCALE] if wave < 3 else "targeted"
        yield device, wave, phase, NOW_MS - HOUR_MS, _heard_ms(n)


def ticker_rows(sizes: Sequence[int] = SIZES, rounds: int = ROUNDS) -> list[Row]:
    """One row per size, and the largest against the smallest."""
    with tempfile.TemporaryDirectory() as name, unsynced():
        fleets = []
        for size in sizes:
            began = time.monotonic()
            made = fleet(Path(name) / str(size), size)
            made.settle()
            fleets.append(made)
            print(f"{size:,} devices: filled in {time.monotonic() - began:.0f} s", file=sys.stderr)
        taken: dict[int, list[float]] = {size: [] for size in sizes}
        for _ in range(rounds):
            for each in fleets:
                taken[each.size].append(each.round())
        for each in fleets:
            each.store.close()
    medians = {size: statistics.median(times) for size, times in taken.items()}
    found = []
    for size in sizes:
        slowest = sorted(taken[size])[int(rounds * 0.95)]
        what = f"ticker: a round, {size:,} devices, one rollout (95 % below {slowest:.3g} ms)"
        found.append(Row(what, medians[size], "ms of CPU"))
    least, most = sizes[0], sizes[-1]
    ratio = medians[most] / medians[least]
    found.append(
        Row(
            f"ticker: a round, {most:,} devices against {least:,}",
            medians[most],
            "ms of CPU",
            peer=medians[least],
            against=f"{least:,} devices",
            goal=f"<= {GOAL} x",
            ok=ratio <= GOAL,
        )
    )
    return found


class unsynced:  # noqa: N801 - used like a function
    """Commits do not wait for the disk: processor time is measured, and other work goes on."""

    def __enter__(self) -> None:
        self._before = connections.SYNCHRONOUS
        connections.SYNCHRONOUS = "OFF"

    def __exit__(self, *_: object) -> None:
        connections.SYNCHRONOUS = self._before


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    sizes = [int(size) for size in given.sizes.split(",")]
    return publish("rollout_ticker", ticker_rows(sizes, given.rounds))


if __name__ == "__main__":
    sys.exit(main())
