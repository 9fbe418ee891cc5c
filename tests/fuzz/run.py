"""`make fuzz`: payloads that are wrong, decoded in a process that is watched.

    python -m tests.fuzz.run --minutes 10 --seed 1

Everything but a refusal or as many bytes as the header says is a finding: another exception, a
crash, more than 8 MB or 5 seconds. Findings are cut down and kept under tests/fuzz/seeds; the exit
code is then 1. A run follows from its seed, which is printed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random, SystemRandom
from typing import Final

from tests.fuzz.corpus import SEEDS, Case, by_hand, by_the_encoder, keep, kept
from tests.fuzz.mutate import mutated
from tests.fuzz.watch import Watched

MOST_CUTS: Final = 200


def main(arguments: Sequence[str]) -> int:
    given = _parser().parse_args(arguments)
    seed = given.seed if given.seed is not None else SystemRandom().randrange(10**6)
    print(f"fuzz: seed {seed}, {given.minutes:g} minutes", flush=True)
    until = time.monotonic() + 60 * given.minutes
    with Watched() as watched:
        tried, found = fuzz(watched, Random(seed), lambda: time.monotonic() < until, given.keep)
    print(f"{tried:,} payloads, {len(found)} findings")
    return 1 if found else 0


def fuzz(
    watched: Watched, random: Random, goes_on: Callable[[], bool], folder: Path
) -> tuple[int, list[Path]]:
    """`(payloads tried, files of findings)`."""
    cases = [*by_hand(), *by_the_encoder(), *kept(SEEDS)]
    tried, found = 0, list[Path]()
    seen: set[str] = set()
    while goes_on():
        case = mutated(random.choice(cases), random.choice(cases), random)
        written = random.randint(0, case.header.target_size)
        wrong = watched.wrong(case, written)
        tried += 1
        if wrong and wrong not in seen:
            seen.add(wrong)
            path = keep(_smaller(watched, case, written), folder)
            print(f"{path}: {wrong}", flush=True)
            found.append(path)
    return tried, found


def _smaller(watched: Watched, case: Case, written: int) -> Case:
    """The shortest beginning, by halves, that is still wrong."""
    low, high = 0, len(case.body)
    for _ in range(MOST_CUTS):
        if low >= high:
            break
        middle = (low + high) // 2
        if watched.wrong(replace(case, body=case.body[:middle]), written):
            high = middle
        else:
            low = middle + 1
    return replace(case, body=case.body[:high])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--keep", type=Path, default=SEEDS, help="where findings are kept")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
