"""`make soak`: random faults over real processes, and whether the ten invariants held.

    python -m tests.soak.run --schedules 200 --seed 1 --workers 2

Every schedule follows from its seed, which is printed: `--schedules 1 --seed SEED` plays it again
(the machine's own timing is another each time). Violations are printed with the schedule and the
place of the logs, which are kept then; the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from control_plane.up import end_orphan
from edge_agent.identity import load
from protocol.topics import Topics
from tests.fakes.whole_fleet import NearFleet, processes
from tests.soak.disk import own_mounts
from tests.soak.ground import Ground
from tests.soak.listener import Listener
from tests.soak.play import Played, Run
from tests.soak.schedule import schedule

RESULTS: Final = Path("build/soak.json")
PER_GROUND: Final = 12
"""Runs on one fleet: each leaves a rule in the plan, and a plan has 64."""


def main(arguments: Sequence[str]) -> int:
    given = _parser().parse_args(arguments)
    if given.worker:
        return work([int(seed) for seed in given.worker.split(",")], given.keep)
    first = given.seed if given.seed is not None else random.SystemRandom().randrange(10**6)
    seeds = [first + number for number in range(given.schedules)]
    print(f"soak: seeds {seeds[0]} to {seeds[-1]}, {given.workers} at once", flush=True)
    began = time.monotonic()
    found = _share(seeds, given.workers, keep=given.keep)
    lasted_s = time.monotonic() - began
    bad = [each for each in found if each["wrong"]]
    missing = sorted(set(seeds) - {each["seed"] for each in found})
    given.results.parent.mkdir(exist_ok=True)
    result = {"seeds": seeds, "lasted_s": round(lasted_s, 1), "missing": missing, "runs": found}
    given.results.write_text(json.dumps(result, indent=1))
    faults = Counter(kind for each in found for kind in each["faults"])
    print(f"faults: {', '.join(f'{n} x {kind}' for kind, n in sorted(faults.items()))}")
    print(
        f"soak: {len(found)} schedules, {sum(each['answered'] for each in found)} answers, "
        f"{sum(len(each['wrong']) for each in found)} violations in {len(bad)} of them, "
        f"{lasted_s:.0f} s; {given.results}"
    )
    if any("disk full" in each["faults"] and not each["small_disk"] for each in found):
        print("  disk full was left out: it takes root to mount a small disk")
    for each in bad:
        print(f"  again: make soak ARGS='--schedules 1 --seed {each['seed']}'")
    if missing:
        print(f"  not played, because a worker ended: {missing}")
    return 1 if bad or missing else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--schedules", type=int, default=200)
    parser.add_argument("--seed", type=int, help="of the first; the others follow by one")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="keep logs in any case")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file for what was seen")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser


# --- the one who shares out -----------------------------------------------------------------------


def _share(seeds: Sequence[int], workers: int, *, keep: bool) -> list[dict[str, Any]]:
    """Give each worker process a fleet's worth of seeds at a time."""
    parts = [seeds[at : at + PER_GROUND] for at in range(0, len(seeds), PER_GROUND)]
    if len(parts) < workers:
        parts = [part for at in range(workers) if (part := seeds[at::workers])]
    waiting = list(reversed(parts))
    found: list[dict[str, Any]] = []
    lock = threading.Lock()

    def employ() -> None:
        while True:
            with lock:
                if not waiting:
                    return
                part = waiting.pop()
            for each in _employed(part, keep=keep):
                with lock:
                    found.append(each)
                    _tell(each)

    threads = [threading.Thread(target=employ) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(found, key=lambda each: int(each["seed"]))


def _employed(seeds: Sequence[int], *, keep: bool) -> Any:
    command = [sys.executable, "-m", "tests.soak.run", f"--worker={','.join(map(str, seeds))}"]
    command += ["--keep"] if keep else []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        for line in worker.stdout:
            yield json.loads(line)


def _tell(each: dict[str, Any]) -> None:
    verdict = "ok" if not each["wrong"] else "VIOLATED"
    kinds = ", ".join(each["faults"])
    print(f"seed {each['seed']:>7}  {each['lasted_s']:5.1f} s  {verdict}  {kinds}", flush=True)
    if each["wrong"]:
        for line in (*each["wrong"], "schedule:", *each["schedule"], "done:", *each["said"]):
            print(f"    {line}")
        print(f"    logs: {each['log']}", flush=True)


# --- a worker -------------------------------------------------------------------------------------


def work(seeds: Sequence[int], keep: bool) -> int:
    """Play seeds on one fleet, and write a line of JSON for each to stdout."""
    own_mounts()
    folder = Path(tempfile.mkdtemp(prefix="so-", dir="/tmp"))
    wrong = True
    try:
        with NearFleet(folder) as fleet:
            ground = Ground(fleet)
            ground.prepare()
            identity = load(fleet.devices["listener"].home)
            topics = Topics(identity.fleet)
            listener = Listener(identity.broker, identity.device, topics.prefix)
            listener.start()
            wrong = False
            try:
                for seed in seeds:
                    wrong = _one(ground, listener, seed) or wrong
            except BaseException:
                wrong = True
                raise
            finally:
                listener.stop()
    finally:
        end_orphan(folder / "control" / "broker")
        for pid in processes(folder):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not wrong and not keep:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


def _one(ground: Ground, listener: Listener, seed: int) -> bool:
    """Whether anything was wrong."""
    play = schedule(seed)
    played = Run(ground, listener, play).play()
    line = {
        "seed": seed,
        "wrong": played.wrong,
        "lasted_s": round(played.lasted_s, 1),
        "answered": played.evidence.answered,
        "failed": len(played.evidence.failures),
        "faults": [fault.kind for fault in play.faults],
        "small_disk": played.small_disk,
        "schedule": list(play.lines()),
        "said": played.said,
        "log": played.log,
        "evidence": _shown(played),
    }
    print(json.dumps(line), flush=True)
    return bool(played.wrong)


def _shown(played: Played) -> dict[str, Any]:
    """What a reader of a violation needs; of the many samples the last."""
    shown = asdict(played.evidence)
    shown["samples"] = shown["samples"][-1:]
    return {
        key: sorted(value) if isinstance(value, frozenset) else value
        for key, value in shown.items()
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
