"""All cases of the crash matrix with real processes: `make crash-matrix`.

    python -m tests.faults.run [--jobs N] [--pairs N] [--only TEXT] [--resume FILE]
                               [--minutes N] [--list]

Writes docs/reference/crash-matrix.md of what was played, now or by the file to resume from. Exits 1
if a case fails. That file is of one version of the code: begin an empty one after a change.
"""

from __future__ import annotations

import argparse
import itertools
import math
import multiprocessing as mp
import queue
import random
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.fakes.whole_fleet import short_folder
from tests.faults.cell import Case, Strike, Violation
from tests.faults.interpose import Fault
from tests.faults.page import PAGE, page
from tests.faults.table import ROWS, Row, cells
from tests.faults.world import World

SEED: Final = 20_261_120
PAIRS: Final = 60


@dataclass(frozen=True, slots=True)
class Cell:
    """One case: where it is struck, and perhaps where once more, after the restart."""

    struck: tuple[tuple[Row, Fault], ...]

    @property
    def name(self) -> str:
        journey = self.struck[0][0].journey
        struck = ", then ".join(f"{fault} before {row.name}" for row, fault in self.struck)
        return f"{journey}: {struck}"

    @property
    def twice(self) -> bool:
        return len(self.struck) > 1

    def play(self, world: World) -> str:
        strikes = tuple(Strike(row.operation, row.nth, fault) for row, fault in self.struck)
        return Case(world, self.struck[0][0].journey, strikes).play()


def single() -> list[Cell]:
    return [Cell((cell,)) for cell in cells()]


def pairs(count: int, rng: random.Random) -> list[Cell]:
    """Two crashes: the second one in the process that is started after the first."""
    deadly = [cell for cell in cells() if cell[1] not in ("full", "runner")]
    found: list[Cell] = []
    while len(found) < count:
        first, second = rng.choice(deadly), rng.choice(deadly)
        if first[0].journey == second[0].journey:
            found.append(Cell((first, (_first_of(second[0]), second[1]))))
    return found


def _first_of(row: Row) -> Row:
    """After a restart it may come sooner."""
    return next(each for each in ROWS if each.operation == row.operation)


def sample(count: int, rng: random.Random) -> list[Cell]:
    """Cells of every fault and every kind of operation, evenly."""
    mixed = single()
    rng.shuffle(mixed)
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in mixed:
        (row, fault), *_ = cell.struck
        groups.setdefault((row.operation.kind, fault), []).append(cell)
    rounds = itertools.zip_longest(*groups.values())
    return [cell for found in rounds for cell in found if cell is not None][:count]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="tests.faults.run", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--only", default="", help="cells whose name has this in it")
    parser.add_argument(
        "--resume",
        type=Path,
        help="cells that passed are noted here; those noted already are not played again",
    )
    parser.add_argument("--minutes", type=float, default=math.inf, help="end after so long")
    parser.add_argument("--list", action="store_true")
    given = parser.parse_args(arguments)
    wanted = [*single(), *pairs(given.pairs, random.Random(SEED))]
    wanted = [cell for cell in wanted if given.only in cell.name]
    if given.list:
        print(*(cell.name for cell in wanted), sep="\n")
        return 0
    noted = set(_lines(given.resume))
    before = [cell for cell in wanted if cell.name in noted]
    todo = [cell for cell in wanted if cell.name not in noted]
    # Whoever stops halfway has seen something of everything.
    random.Random(SEED).shuffle(todo)
    until_s = time.monotonic() + 60 * given.minutes
    played = dict.fromkeys(before, "") | play(todo, given.jobs, given.resume, until_s)
    failed = sum(violation != "" for violation in played.values())
    print(f"{len(wanted)} cells: {len(before)} before, {len(played)} in all, {failed} failed")
    if not given.only:
        alone = {cell.struck[0]: not wrong for cell, wrong in played.items() if not cell.twice}
        twice = sum(not wrong for cell, wrong in played.items() if cell.twice)
        PAGE.write_text(page(alone, twice), encoding="utf-8")
    return 1 if failed else 0


def _lines(path: Path | None) -> list[str]:
    return path.read_text().splitlines() if path is not None and path.exists() else []


def play(
    wanted: list[Cell], jobs: int, noted: Path | None = None, until_s: float = math.inf
) -> dict[Cell, str]:
    """What was wrong in each cell that was played before `until_s` (monotonic); "" if nothing.

    Each of the `jobs` is a process with a fleet of its own. What passed goes to the file `noted`.
    """
    context = mp.get_context("spawn")
    todo, done = context.Queue(), context.Queue()
    for number in range(len(wanted)):
        todo.put(number)
    for _ in range(jobs):
        todo.put(None)
    workers = [context.Process(target=_work, args=(wanted, todo, done)) for _ in range(jobs)]
    for worker in workers:
        worker.start()
    try:
        return _collect(wanted, done, noted, workers, until_s)
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()


def _collect(
    wanted: list[Cell], done: Any, noted: Path | None, workers: Sequence[Any], until_s: float
) -> dict[Cell, str]:
    played: dict[Cell, str] = {}
    began = time.monotonic()
    for count in range(1, len(wanted) + 1):
        found = _next(done, workers, until_s)
        if found is None:
            print(f"time is up: {len(wanted) - len(played)} cells are left")
            break
        number, outcome, violation, seconds = found
        cell = wanted[number]
        played[cell] = violation
        minutes = (time.monotonic() - began) / 60
        print(
            f"{count:4}/{len(wanted)} {minutes:5.1f} min {seconds:5.1f} s  {cell.name}: {outcome}"
        )
        if violation:
            print(violation)
        elif noted is not None:
            with noted.open("a") as file:
                file.write(cell.name + "\n")
        sys.stdout.flush()
    return played


def _next(done: Any, workers: Sequence[Any], until_s: float) -> tuple[int, str, str, float] | None:
    """None when time is up. Raises `RuntimeError` when nobody is left who could play."""
    while True:
        try:
            left_s = max(until_s - time.monotonic(), 0)
            found: tuple[int, str, str, float] = done.get(timeout=min(left_s, 5))
        except queue.Empty:
            if time.monotonic() >= until_s:
                return None
            if not any(worker.is_alive() for worker in workers):
                raise RuntimeError("the workers have ended; is there a broker?") from None
        else:
            return found


def _work(wanted: list[Cell], todo: Any, done: Any) -> None:
    # Whoever is told to end puts its broker and its agents away first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with short_folder() as folder, World(Path(folder)) as world:
        for number in iter(todo.get, None):
            began = time.monotonic()
            try:
                outcome, violation = wanted[number].play(world), ""
            except Violation as error:
                outcome, violation = "VIOLATION", str(error)
            except Exception as error:  # noqa: BLE001 - shown, counted as failed; the others go on
                outcome, violation = "ERROR", repr(error)
            done.put((number, outcome, violation, time.monotonic() - began))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
