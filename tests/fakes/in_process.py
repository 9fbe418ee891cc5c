"""An application that runs the toy model in itself: `python -m tests.fakes.in_process HOME`.

Says in a line of JSON which version it begins with, and asks for 400 rows in turn, with short
pauses. A line `count` is answered with what it got so far; after any other, or at the end of its
input, it closes and says that for the last time.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np

from edge_agent.sdk import Local
from protocol.errors import OutriderError

PAUSE_S = 0.002


def main() -> None:
    rows = np.random.default_rng(1).normal(size=(400, 1, 4)).astype(np.float32)
    answered: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    end = threading.Event()

    def listen() -> None:
        for line in sys.stdin:
            if line.strip() == "count":
                print(json.dumps({"answered": answered, "errors": errors}), flush=True)
            else:
                break
        end.set()

    with Local("toy", home=Path(sys.argv[1]), wait_s=60) as local:
        print(json.dumps({"version": local.version}), flush=True)
        threading.Thread(target=listen, daemon=True).start()
        turn = 0
        while not end.wait(PAUSE_S):
            turn += 1
            try:
                answered[local.infer(rows[turn % len(rows)]).version] += 1
            except OutriderError as error:
                errors[error.code] += 1
    print(json.dumps({"answered": answered, "errors": errors}), flush=True)


if __name__ == "__main__":
    main()
