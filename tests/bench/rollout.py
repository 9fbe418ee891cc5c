"""What rollouts cost, and what their gates notice: three measurements in one table.

(a) fanout: a stage advance to 10,000 connected devices, against telling each by itself;
(b) ticker: processor time of a round with 1,000 to 1,000,000 devices;
(c) gates: wrong aborts, and what is caught, of whole simulated rollouts.

`--parts fanout,ticker` runs some of them; `--devices`, `--sizes`, `--rounds`, `--repeats 10=200`
and `--quick` make them smaller. Each part is explained in its own module, which also runs alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench.report import Row, publish  # noqa: E402 - after the path is set
from tests.bench.rollout_fanout import DEVICES, fanout_rows  # noqa: E402 - the same
from tests.bench.rollout_gates import gate_rows  # noqa: E402 - the same
from tests.bench.rollout_ticker import ROUNDS, SIZES, ticker_rows  # noqa: E402 - the same

PARTS = ("fanout", "ticker", "gates")
QUICK_DEVICES = 500
QUICK_SIZES = (1_000, 20_000)
QUICK_ROUNDS = 60


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--parts", default=",".join(PARTS), help="some of fanout,ticker,gates")
    parser.add_argument("--quick", action="store_true", help="small sizes, few repetitions")
    parser.add_argument("--devices", type=int, help=f"connected ones; {DEVICES:,}")
    parser.add_argument("--sizes", help="of fleets for the ticker: 1000,100000,1000000")
    parser.add_argument("--rounds", type=int, help=f"of the ticker per fleet; {ROUNDS}")
    parser.add_argument("--repeats", help="of whole rollouts by canaries: 10=200,30=120")
    given = parser.parse_args(arguments)
    parts = given.parts.split(",")
    if unknown := sorted(set(parts) - set(PARTS)):
        parser.error(f"no part named {unknown[0]}; there are {', '.join(PARTS)}")
    rows: list[Row] = []
    if "fanout" in parts:
        rows += fanout_rows(given.devices or (QUICK_DEVICES if given.quick else DEVICES))
    if "ticker" in parts:
        sizes = tuple(map(int, given.sizes.split(","))) if given.sizes else None
        rows += ticker_rows(
            sizes or (QUICK_SIZES if given.quick else SIZES),
            given.rounds or (QUICK_ROUNDS if given.quick else ROUNDS),
        )
    if "gates" in parts:
        rows += gate_rows(_repeats(given.repeats), given.quick)
    return publish("rollout", rows)


def _repeats(text: str | None) -> dict[int, int] | None:
    if text is None:
        return None
    pairs = (each.partition("=") for each in text.split(","))
    return {int(canaries): int(count) for canaries, _, count in pairs}


if __name__ == "__main__":
    sys.exit(main())
