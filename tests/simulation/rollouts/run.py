"""`make simulate`: thousands of small fleets, and a large one, in virtual time.

    python -m tests.simulation.rollouts.run --seeds 1000 --seed 1 --devices 1000000

Small fleets first: real store, ticker, judge and ingest, a bad network, crashes, people who change
their mind. Everything of a fleet follows from its seed: `--seeds 1 --seed SEED --devices 0` plays
it again. Then rollouts of a good, a slightly bad and a bad model to a large fleet, and the share
of good ones that are aborted. Anything that does not hold is printed; the exit code is 1 then.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import resource
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from typing import Final

from tests.simulation.rollouts.large import GOOD, MODELS, Seen, lines, roll_out
from tests.simulation.rollouts.play import Played, play

WRONG_MOST: Final = 0.05
"""Share of good rollouts that may be aborted."""
REPEATS: Final = 40
REPEATED_DEVICES: Final = 5_000


def main(arguments: Sequence[str]) -> int:
    given = _parser().parse_args(arguments)
    first = given.seed if given.seed is not None else random.SystemRandom().randrange(10**6)
    bad = small_fleets(range(first, first + given.seeds), given.workers) if given.seeds else 0
    if given.devices:
        bad += large_fleet(given.devices, first)
        bad += good_models(min(given.devices, REPEATED_DEVICES), range(first, first + REPEATS))
    return 1 if bad else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="simulate", description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=1000, help="small fleets; 0: none")
    parser.add_argument("--seed", type=int, help="of the first; the others follow by one")
    parser.add_argument(
        "--devices", type=int, default=1_000_000, help="of the large fleet; 0: none"
    )
    parser.add_argument("--workers", type=int, default=2)
    return parser


# --- small fleets -------------------------------------------------------------------------------


def small_fleets(seeds: Sequence[int], workers: int) -> int:
    """How many of them did something that they must not."""
    print(f"small fleets: seeds {seeds[0]} to {seeds[-1]}, {workers} at once", flush=True)
    began = time.monotonic()
    found: list[Played] = []
    with multiprocessing.Pool(workers) as pool:
        for played in pool.imap_unordered(_play, seeds):
            found.append(played)
            if played.wrong:
                _tell(played)
            elif len(found) % 100 == 0:
                print(f"  {len(found)} played", flush=True)
    statuses = Counter(status for each in found for status in each.statuses)
    verdicts = Counter(said for each in found for said in each.verdicts)
    print(f"  rollouts: {_counted(statuses)}")
    print(f"  fleets that saw a verdict: {_counted(verdicts)}")
    bad = sum(bool(each.wrong) for each in found)
    print(
        f"small fleets: {len(found)} played, {sum(each.devices for each in found):,} devices, "
        f"{sum(each.crashed for each in found):,} crashes, "
        f"{sum(each.records for each in found):,} records replayed, {bad} violations, "
        f"{time.monotonic() - began:.0f} s"
    )
    return bad


def _play(seed: int) -> Played:
    try:
        return play(seed)
    except Exception:  # noqa: BLE001 - whatever it is, it is told with its seed
        return Played(seed, 0, {"raised": traceback.format_exc()}, [], set(), 0, 0)


def _tell(played: Played) -> None:
    print(f"seed {played.seed}: VIOLATED, {played.devices} devices")
    for kind, what in played.wrong.items():
        print(f"    {kind}: {what}")
    for each in played.done:
        print(f"      {each}")
    print(f"  again: make simulate ARGS='--seeds 1 --seed {played.seed} --devices 0'", flush=True)


def _counted(found: Counter[str]) -> str:
    return ", ".join(f"{number} {name}" for name, number in found.most_common())


# --- a large fleet ------------------------------------------------------------------------------


def large_fleet(devices: int, seed: int) -> int:
    print(f"a large fleet: seed {seed}", flush=True)
    bad = 0
    for model in MODELS:
        began = time.monotonic()
        seen = roll_out(devices, model, seed)
        print("\n".join(lines(seen)))
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(f"  {time.monotonic() - began:.0f} s, at most {peak_mb:,} MB", flush=True)
        wrong = [*seen.wrong, *expected(seen)]
        for each in wrong:
            print(f"  VIOLATED: {each}")
        bad += bool(wrong)
    return bad


def expected(seen: Seen) -> list[str]:
    """What is wrong with how a rollout went, given what its model does."""
    if seen.model == GOOD:
        return [] if seen.status != "running" else [f"not at an end after {seen.hours} h"]
    if seen.status != "aborted":
        return [f"a {seen.model.name} model is {seen.status}"]
    if seen.exposed * 10 > seen.devices:
        return [f"{seen.exposed:,} devices were exposed to a {seen.model.name} model"]
    return []


def good_models(devices: int, seeds: Sequence[int]) -> int:
    found = [roll_out(devices, GOOD, seed) for seed in seeds]
    aborted = [seed for seed, seen in zip(seeds, found, strict=True) if seen.status == "aborted"]
    wrong = sum(bool(each.wrong) for each in found)
    print(
        f"{len(found)} rollouts of a good model to {devices:,} devices: {len(aborted)} aborted "
        f"{aborted or ''}, {sum(each.status == 'completed' for each in found)} completed, a person "
        f"was asked {sum(each.asked for each in found)} times"
    )
    return wrong + (len(aborted) > WRONG_MOST * len(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
