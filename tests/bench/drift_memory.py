"""Resident memory of a process that does nothing but count: part of `make bench NAME=drift-cost`.

Reads `[contract, profile]` as JSON; prints bytes with numpy alone, with what a runner counts with,
and after `ROWS` rows, one at a time. What it measures it imports between two looks.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

ROWS: Final = 5000


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def measure(contract: Any, profile: Any) -> dict[str, int]:
    before = resident()
    from edge_agent.runner.counts import Tally
    from protocol.codec import convert
    from protocol.identifiers import digest_of
    from protocol.members import Contract, Profile

    imported = resident()
    kept = convert(profile, Profile)
    digest = digest_of(b"bench")
    tally = Tally("bench", digest, digest, digest, convert(contract, Contract), kept)
    rows = np.random.default_rng(6).standard_normal((ROWS, len(kept.features)), np.float32)
    outputs: dict[str, Any] = {"label": np.zeros(1, np.int64)}
    for row in rows:
        tally.answered(row[None], outputs, 1, 0.001)
    return {"before": before, "imported": imported, "tracked": resident()}


if __name__ == "__main__":
    print(json.dumps(measure(*json.load(sys.stdin))))
