"""What it costs a device to watch its inputs: processor time, bytes and memory, beside sketches,
change detectors and reports of others.

Ours is what a runner does with every answer (`Tally`), in blocks of rows that have all their folds
in them. `inputs`: a model whose answers are not counted, as bare as monitoring can be; `inputs and
residual`: and the error of their principal components; `everything`: and the answers of a
classifier, as an agent does it. Peers run in an environment of their own (drift_peers), in a
process that takes turns with this one, and get their rows in the form that they ask for. A figure
is the lowest tenth of all blocks.

`--features 10,30,200 --batches 1,32,1024 --rounds 60` change the sizes, `--no-peer` leaves others
out, `--quick` makes all of it small.

Long because time, bytes and memory of one kind of watching are one table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parents[2]))

from edge_agent.packing import pack
from edge_agent.runner.counts import Tally
from protocol import edetector
from protocol.batch import encode_batch
from protocol.codec import encode_up, to_wire
from protocol.identifiers import digest_of
from protocol.members import Contract, Profile, TensorSpec
from protocol.telemetry import DriftWindow, Record, Upload, stream_name
from tests.bench.drift_rivals import MEASURE, python, versions
from tests.bench.report import Row, publish

Rows = npt.NDArray[np.float32]
Show = Callable[[int], None]

FEATURES: Final = (10, 30, 200)
BATCHES: Final = (1, 32, 1024)
ROUNDS: Final = 60
QUICK_ROUNDS: Final = 5
SAMPLES: Final = 5000
FACTORS: Final = 3
"""Columns of real tables depend on each other: these are sums of so many and of noise."""

CYCLE: Final = 2048
"""Different rows, shown again and again."""
GOALS_US: Final = {10: 0.5, 30: 1.0}
"""One row at a time, by features."""
PEER_GOAL: Final = 0.5
BYTES_GOAL: Final = 450
BYTES_FEATURES: Final = 30
TOGETHER: Final = 24
"""Windows in one message: a day."""

MANIFEST, PROFILE = digest_of(b"manifest"), digest_of(b"profile")
HOUR_MS: Final = 3_600_000


# --- ours -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Watching:
    """A model with so many monitored columns, and rows for it [samples, columns]."""

    contract: Contract
    profile: Profile
    rows: Rows

    @classmethod
    def of(cls, features: int, *, answers: bool, residual: bool) -> Watching:
        # The builder brings the control plane with it; memory is measured without that.
        from control_plane.catalog.profile import make_profile

        rows = _rows(SAMPLES, features, np.random.default_rng(1))
        contract = _contract(features, answers)
        profile = make_profile(contract, {"x": rows}, _outputs(contract, SAMPLES)).profile
        return cls(contract, profile if residual else replace(profile, residual=None), rows)

    def tally(self) -> Tally:
        return Tally("bench", digest_of(b"index"), MANIFEST, PROFILE, self.contract, self.profile)

    def shower(self, rows: int) -> Show:
        """Counts answers to so many rows, one after the other, as often as it is told to."""
        answered = self.tally().answered
        outputs = _outputs(self.contract, rows)
        following = cycle([self.rows[n : n + rows].copy() for n in range(0, CYCLE, rows)])

        def show(calls: int) -> None:
            for given in islice(following, calls):
                answered(given, outputs, rows, 0.001)

        return show

    def window(self, rows: int, rng: np.random.Generator) -> DriftWindow:
        """What a device makes of so many new rows."""
        tally = self.tally()
        new = _rows(rows, len(self.profile.features), rng)
        tally.answered(new, _outputs(self.contract, rows), rows, 0.001)
        collected = tally.collect()
        assert collected is not None
        return collected.drift


def _rows(count: int, columns: int, rng: np.random.Generator) -> Rows:
    loads = np.random.default_rng(2).standard_normal((FACTORS, columns))
    values = rng.standard_normal((count, FACTORS)) @ loads + rng.standard_normal((count, columns))
    return values.astype(np.float32)


def _contract(features: int, answers: bool) -> Contract:
    inputs = (TensorSpec("x", "FP32", (-1, features), -30.0, 30.0),)
    label = TensorSpec("label", "INT64", (-1,), role="label")
    if not answers:
        return Contract(inputs, (label,))
    probabilities = TensorSpec("probabilities", "FP32", (-1, 3), role="probabilities")
    return Contract(inputs, (label, probabilities), ("a", "b", "c"))


def _outputs(contract: Contract, rows: int) -> dict[str, npt.NDArray[Any]]:
    outputs: dict[str, npt.NDArray[Any]] = {"label": np.zeros(rows, np.int64)}
    if contract.classes:
        table = np.random.default_rng(3).dirichlet(np.ones(3), rows)
        outputs["probabilities"] = table.astype(np.float32)
    return outputs


KINDS: Final = {
    "inputs": (False, False),
    "inputs and residual": (False, True),
    "everything": (True, True),
}
"""Whether answers are counted, and whether the residual is."""


def block(show: Show, calls: int, rows: int) -> float:
    """Processor microseconds per row."""
    started = time.process_time()
    show(calls)
    return (time.process_time() - started) / (calls * rows) * 1e6


def lowest(values: Sequence[float]) -> float:
    """The lowest tenth: what other processes do to a block only ever adds to it."""
    return sorted(values)[len(values) // 10]


# --- peers ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Effort:
    """How much of a peer is measured: slow ones are as slow in a few blocks."""

    calls: int
    rounds: int
    most_features: int = 10**6


PEERS: Final = {
    "KLL": Effort(2048, 10**6),
    "ddsketch": Effort(256, 20),
    "ADWIN": Effort(512, 20),
    "Page-Hinkley": Effort(512, 20),
    "KSWIN": Effort(4, 3),
    "whylogs": Effort(64, 5),
    "evidently": Effort(1, 1, 30),
}


class Others:
    """The peers' process. One question at a time."""

    def __init__(self, process: subprocess.Popen[str], known: dict[str, str]) -> None:
        self._process = process
        self.known = known

    def block(self, who: str, features: int, rows: int, calls: int) -> float | None:
        """Microseconds per row; None for what takes no such batches."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"who": who, "features": features, "rows": rows, "calls": calls}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return None if answer is None else float(answer)


@dataclass(frozen=True, slots=True)
class Installed:
    """What there is in the peers' environment, by name: package and version."""

    known: dict[str, str] = field(default_factory=dict)
    interpreter: Path | None = None

    def asked(self, *arguments: str) -> Any:
        """What their side says, from a process of its own; None where it says nothing."""
        command = [str(self.interpreter), str(MEASURE), *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        return json.loads(done.stdout) if done.returncode == 0 else None


@contextmanager
def others(installed: Installed) -> Iterator[Others | None]:
    if installed.interpreter is None:
        yield None
        return
    command = [str(installed.interpreter), str(MEASURE), "cost"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Others(process, installed.known)
        finally:
            process.kill()


# --- processor time -------------------------------------------------------------------------------


def cost_rows(
    features: Sequence[int], batches: Sequence[int], rounds: int, peers: Others | None
) -> Iterator[Row]:
    for columns in features:
        watching = {
            kind: Watching.of(columns, answers=answers, residual=residual)
            for kind, (answers, residual) in KINDS.items()
        }
        for rows in batches:
            yield from _cost_rows(watching, columns, rows, rounds, peers)


def _cost_rows(
    watching: dict[str, Watching], columns: int, rows: int, rounds: int, peers: Others | None
) -> Iterator[Row]:
    # Several folds of one-row requests, so that each block has its share of them.
    calls = 2 * CYCLE if rows == 1 else max(4, 4 * CYCLE // rows)
    showers = {kind: each.shower(rows) for kind, each in watching.items()}
    ours: dict[str, list[float]] = {kind: [] for kind in showers}
    theirs: dict[str, list[float]] = {}
    for show in showers.values():
        show(calls)
    for number in range(rounds):
        for kind, show in showers.items():
            ours[kind].append(block(show, calls, rows))
        for who in peers.known if peers else ():
            effort = PEERS[who]
            if peers is None or number >= effort.rounds or columns > effort.most_features:
                continue
            its = peers.block(who, columns, rows, max(1, effort.calls // rows))
            if its is not None:
                theirs.setdefault(who, []).append(its)
    what = f"{columns} features, {rows:,} row{'s' if rows > 1 else ''} at once"
    goal = GOALS_US.get(columns) if rows == 1 else None
    for kind, values in ours.items():
        found = lowest(values)
        held = goal if kind != "everything" else None
        yield Row(
            f"{kind}: {what}",
            found,
            "µs CPU per row",
            goal=f"<= {held:g} µs" if held else "",
            ok=found <= held if held else None,
        )
    if peers is None:
        return
    by_cost = sorted((lowest(values), who) for who, values in theirs.items())
    for place, (its, who) in enumerate(by_cost):
        # None of them has a residual: the goal is for the same work.
        for kind in ("inputs", "inputs and residual")[: 2 if place == 0 else 1]:
            mine = lowest(ours[kind])
            held = PEER_GOAL if (rows, place, kind) == (1, 0, "inputs") else None
            yield Row(
                f"{kind}: {what}",
                mine,
                "µs CPU per row",
                its,
                _named(who, peers.known[who]),
                f"<= {held:g} x" if held else "",
                mine <= held * its if held else None,
            )


def _named(who: str, package: str) -> str:
    return package if package.startswith(who) else f"{who}, {package}"


# --- bytes, memory, the detector ------------------------------------------------------------------


def upload_of(windows: Sequence[DriftWindow]) -> Upload:
    stream = stream_name("drift", MANIFEST, PROFILE)
    records = [
        Record(
            2**52 + 1,
            stream,
            place,
            place,
            window.rows,
            to_wire(window),
            t0=1_790_000_000_000 + place * HOUR_MS,
            t1=1_790_000_000_000 + (place + 1) * HOUR_MS,
        )
        for place, window in enumerate(windows)
    ]
    return Upload(1, tuple(records))


def byte_rows(features: Sequence[int], installed: Installed) -> Iterator[Row]:
    rng = np.random.default_rng(4)
    for columns in features:
        watching = Watching.of(columns, answers=False, residual=True)
        for rows in (50, 1000):
            what = f"a window of {rows:,} rows, {columns} features and residual"
            windows = [watching.window(rows, rng) for _ in range(TOGETHER)]
            one, day = upload_of(windows[:1]), upload_of(windows)
            alone = len(encode_batch(one, pack))
            held = columns == BYTES_FEATURES
            yield Row(f"{what}: JSON", len(encode_up(one)), "bytes")
            yield Row(f"{what}: zstd JSON", len(encode_up(one, pack)), "bytes")
            yield Row(
                f"{what}: binary",
                alone,
                "bytes",
                goal=f"<= {BYTES_GOAL}" if held else "",
                ok=alone <= BYTES_GOAL if held else None,
            )
            together = len(encode_batch(day, pack)) / TOGETHER
            yield Row(f"{what}: binary, {TOGETHER} in one message", together, "bytes each")
            for who in installed.known:
                its = installed.asked("size", who, str(columns), str(rows))
                if its is not None:
                    by = f"{_named(who, installed.known[who])}, zstd"
                    yield Row(f"{what}: binary", alone, "bytes", float(its["packed"]), by)


def detector_rows(features: Sequence[int], rounds: int) -> Iterator[Row]:
    rng = np.random.default_rng(5)
    for columns in features:
        watching = Watching.of(columns, answers=False, residual=True)
        spent, state = _detector(watching, rounds, rng)
        what = f"{columns} features and residual"
        yield Row(f"e-detector, a window of {what}", spent, "µs CPU")
        yield Row(f"e-detector's state, {what}", len(edetector.encode_state(state)), "bytes")


def _detector(
    watching: Watching, rounds: int, rng: np.random.Generator
) -> tuple[float, edetector.DetectorState]:
    """Microseconds of a step after burn-in, and the state then."""
    bets = edetector.all_bets(watching.profile)
    counts = edetector.histograms(watching.window(50, rng), watching.profile)
    assert counts is not None
    state = edetector.DetectorState()
    for _ in range(edetector.BURN_IN + 1):
        state = edetector.step(bets, state, counts).state

    def show(calls: int) -> None:
        for _ in range(calls):
            edetector.step(bets, state, counts)

    return lowest([block(show, 5, 1) for _ in range(rounds)]), state


def memory_rows(features: Sequence[int], installed: Installed) -> Iterator[Row]:
    """Each in a process of its own: the interpreter with numpy, with the library, and in use."""
    for columns in features:
        watching = Watching.of(columns, answers=False, residual=True)
        given = json.dumps([to_wire(watching.contract), to_wire(watching.profile)])
        command = [sys.executable, str(Path(__file__).with_name("drift_memory.py"))]
        done = subprocess.run(command, input=given, check=True, capture_output=True, text=True)
        mine = json.loads(done.stdout)
        what = f"{columns} features"
        added, whole = (mine["tracked"] - mine["before"]) / 1e6, mine["tracked"] / 1e6
        yield Row(f"memory of a process that watches {what}", whole, "MB resident")
        yield Row(f"of it beyond Python and numpy, {what}", added, "MB resident")
        for who in installed.known:
            its = installed.asked("memory", who, str(columns))
            if its is not None:
                yield Row(
                    f"of it beyond Python and numpy, {what}",
                    added,
                    "MB resident",
                    (its["tracked"] - its["before"]) / 1e6,
                    _named(who, installed.known[who]),
                )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0] if __doc__ else None)
    parser.add_argument("--features", default=",".join(map(str, FEATURES)))
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)))
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--quick", action="store_true", help="few rounds, 10 and 30 features")
    given = parser.parse_args(arguments)
    features = tuple(map(int, given.features.split(",")))
    if given.quick:
        features = features[:2]
    rounds = given.rounds or (QUICK_ROUNDS if given.quick else ROUNDS)
    interpreter = None if given.no_peer else python()
    installed = Installed(versions(interpreter), interpreter) if interpreter else Installed()
    rows: list[Row] = []
    with others(installed) as peers:
        batches = tuple(map(int, given.batches.split(",")))
        rows += cost_rows(features, batches, rounds, peers)
    rows += detector_rows(features, rounds)
    rows += byte_rows(features, installed)
    rows += memory_rows(features, installed)
    return publish("drift-cost", rows)


if __name__ == "__main__":
    sys.exit(main())
