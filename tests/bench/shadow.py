"""What it costs those who ask that a candidate runs beside what answers them.

One runner serves, a standby holds the same model. In turn, nothing is copied, or copies of requests
are moved to the standby once a second as an agent does. CPU is that of the serving process, from
`/proc`; requests come one after the other from another process that shares the cores. The standby's
CPU is a share of one core. `--seconds 4 --rounds 7` change the sizes; of each figure the least of
all rounds counts, since other work on the machine only ever adds to it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from edge_agent.runners import Load, Runners  # noqa: E402 - after the path is set
from edge_agent.shadow import EVERY_S, MOVE_S  # noqa: E402 - the same
from protocol.members import Profile  # noqa: E402 - the same
from tests.bench.report import Row, publish  # noqa: E402 - the same
from tests.bench.serving import Cost, as_binary, cpu_of, ours, series  # noqa: E402 - the same
from tests.fakes.bundles import make_bundle  # noqa: E402 - the same

SIZES = {"48 bytes": 12, "600 kB": 150_528}
"""Of one request's input: a row of a table, and an image."""
FIGURES = {"CPU per request": "cpu_us", "median": "p50_us", "99 % below": "p99_us"}


@dataclass
class Beside:
    cpu_share: float = 0.0
    rows_per_second: float = 0.0


@contextmanager
def moving(runners: Runners, serving: str, standby: str, pid: int, base: Load) -> Iterator[Beside]:
    """What a supervisor does while a candidate is to shadow."""
    end, found = threading.Event(), Beside()
    before = runners.shadow(standby, "toy", base, ()).shadow.rows
    began, cpu = time.perf_counter(), cpu_of(pid)

    def move() -> None:
        while not end.is_set():
            if runners.shadow(standby, "toy", base, ()).hungry:
                samples = runners.sample(serving, "toy", EVERY_S)
                runners.shadow(standby, "toy", base, samples)
            end.wait(MOVE_S)

    thread = threading.Thread(target=move)
    thread.start()
    try:
        yield found
    finally:
        end.set()
        thread.join()
        runners.unsample(serving, "toy")
        seconds = time.perf_counter() - began
        found.cpu_share = (cpu_of(pid) - cpu) / seconds
        rows = runners.shadow(standby, "toy", base, ()).shadow.rows
        found.rows_per_second = (rows - before) / seconds


def measure(
    directory: Path, client: Executor, what: str, features: int, seconds: float, number: int
) -> list[Row]:
    bundle = make_bundle(directory, features=features, profile=Profile(1, ()))
    load = Load(bundle.model, bundle.digest, bundle.manifest, bundle.path)
    request = as_binary("toy", [0.1] * features)
    with ours(directory, load) as (runners, pid):
        (serving,) = (view.id for view in runners.views())
        standby = runners.start((load,))
        where = ("127.0.0.1", runners.port)

        def ask(count: int) -> Cost:
            return client.submit(series, pid, where, request, 1, count).result()

        count = round(seconds * ask(200).per_second)
        alone: list[Cost] = []
        copied: list[Cost] = []
        besides: list[Beside] = []
        for _ in range(number):
            alone.append(ask(count))
            with moving(runners, serving, standby.id, standby.pid, load) as beside:
                copied.append(ask(count))
            besides.append(beside)
    who = "nothing is copied"
    share = max(beside.cpu_share for beside in besides)
    rows = [
        Row(f"{what}: {name}", _least(copied, figure), "µs", _least(alone, figure), who)
        for name, figure in FIGURES.items()
    ]
    return [
        *rows,
        Row(f"{what}: standby, of one core", share, "", None, "", "≤ 0.11", share <= 0.11),
        Row(f"{what}: rows compared", max(b.rows_per_second for b in besides), "/s"),
    ]


def _least(costs: list[Cost], figure: str) -> float:
    return min(float(getattr(cost, figure)) for cost in costs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    rows: list[Row] = []
    with ProcessPoolExecutor(1, get_context("spawn")) as client:
        for what, features in SIZES.items():
            with tempfile.TemporaryDirectory(prefix="shadow-") as name:
                folder = Path(name)
                rows += measure(folder, client, what, features, options.seconds, options.rounds)
    return publish("shadow", rows)


if __name__ == "__main__":
    raise SystemExit(main())
