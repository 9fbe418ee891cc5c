"""The peers' side of the drift measurements: sketches, change detectors and reports of others.

    measure.py versions                      which of them can be imported here, as JSON
    measure.py cost                          {"who", "features", "rows", "calls"} per line of
                                             input, processor microseconds per row per line back
    measure.py size WHO FEATURES ROWS        bytes of what it keeps of one window, as JSON
    measure.py memory WHO FEATURES           bytes of memory before, imported and with 5,000 rows
    measure.py streams RULES ROWS ALARMS     river's detectors on .npy [streams, windows, n]
    measure.py sets FILE                     river's tables of numbers as .npz

It imports nothing of the project: it runs in the peers' own environment.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Show = Callable[[int], None]

MODULES: Final = {
    "KLL": ("datasketches", "datasketches"),
    "ddsketch": ("ddsketch", "ddsketch"),
    "ADWIN": ("river.drift", "river"),
    "KSWIN": ("river.drift", "river"),
    "Page-Hinkley": ("river.drift", "river"),
    "whylogs": ("whylogs", "whylogs"),
    "evidently": ("evidently", "evidently"),
}
SLOW: Final = ("KSWIN", "whylogs")
KLL_K: Final = 200
TRACKED: Final = 5000
WARM_UP: Final = 200
CYCLE: Final = 2048
REFERENCE: Final = 1000
SETS: Final = ("WaterFlow", "TrumpApproval", "ImageSegments")


def module(who: str, part: str = "") -> Any:
    return importlib.import_module(part or MODULES[who][0])


def versions() -> dict[str, str]:
    found = {}
    for who, (name, package) in MODULES.items():
        # Some of them fail with errors of their own kind where a dependency is too new.
        with suppress(Exception):
            importlib.import_module(name)
            found[who] = f"{package} {importlib.metadata.version(package)}"
    return found


# --- cost ---------------------------------------------------------------------------------------


def shower(who: str, features: int, rows: int) -> Show | None:
    """Shows it so many rows at once, as often as it is told to; None where it takes no such
    batches. Rows follow each other, `CYCLE` different ones at least, in the form that it asks for,
    which is made beforehand."""
    number = max(1, CYCLE // rows)
    table = np.random.default_rng(1).standard_normal((number, rows, features)).astype(np.float32)
    match who:
        case "KLL":
            sketch = module(who).vector_of_kll_floats_sketches(KLL_K, features)
            return showing(sketch.update, list(table[:, 0] if rows == 1 else table))
        case "whylogs":
            return _whylogs(table)
        case "evidently":
            return _evidently(table[0]) if rows > 1 else None
        case _:
            return _one_by_one(who, table[:, 0]) if rows == 1 else None


def showing(update: Callable[[Any], Any], given: list[Any]) -> Show:
    following = cycle(given)

    def show(calls: int) -> None:
        for each in islice(following, calls):
            update(each)

    return show


def _one_by_one(who: str, table: Array) -> Show:
    one_each = [detector(who) for _ in range(table.shape[1])]
    updates = [each.add if who == "ddsketch" else each.update for each in one_each]

    def update(values: list[float]) -> None:
        for each, value in zip(updates, values, strict=True):
            each(value)

    return showing(update, table.tolist())


def detector(who: str) -> Any:
    """One of them, as it is set by default."""
    match who:
        case "ddsketch":
            return module(who).DDSketch()
        case "ADWIN":
            return module(who).ADWIN()
        case "KSWIN":
            return module(who).KSWIN(seed=1)
        case _:
            return module(who).PageHinkley()


def _whylogs(table: Array) -> Show:
    profile = module("whylogs", "whylogs.core").DatasetProfile()
    names = [f"f{column}" for column in range(table.shape[2])]
    if table.shape[1] == 1:
        rows = [dict(zip(names, row, strict=True)) for row in table[:, 0].tolist()]
        return showing(lambda row: profile.track(row=row), rows)
    frame = module("whylogs", "pandas").DataFrame
    frames = [frame(each, columns=names) for each in table]
    return showing(lambda rows: profile.track(pandas=rows), frames)


def _evidently(table: Array) -> Show:
    pandas = module("evidently", "pandas")
    names = [f"f{column}" for column in range(table.shape[1])]
    known = np.random.default_rng(2).standard_normal((REFERENCE, table.shape[1]))
    reference, current = (pandas.DataFrame(each, columns=names) for each in (known, table))
    preset = module("evidently", "evidently.presets").DataDriftPreset
    report = module("evidently").Report([preset()])
    return showing(lambda rows: report.run(rows, reference), [current])


def serve_costs() -> None:
    """What was shown something goes on from there in the next block."""
    showers: dict[tuple[str, int, int], Show | None] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        key = (asked["who"], asked["features"], asked["rows"])
        if key not in showers:
            showers[key] = shower(*key)
            if (show := showers[key]) is not None:
                # KSWIN tests nothing before its window is full.
                show(WARM_UP if key[2] == 1 else 1)
        show = showers[key]
        print(json.dumps(None if show is None else block(show, asked["calls"], key[2])), flush=True)


def block(show: Show, calls: int, rows: int) -> float:
    started = time.process_time()
    show(calls)
    return (time.process_time() - started) / (calls * rows) * 1e6


# --- size and memory ----------------------------------------------------------------------------


def size(who: str, features: int, rows: int) -> dict[str, int] | None:
    """Bytes of one window as it would be sent, plain and packed; None where nothing is sent."""
    table = np.random.default_rng(3).standard_normal((rows, features)).astype(np.float32)
    if who == "KLL":
        sketches = module(who).vector_of_kll_floats_sketches(KLL_K, features)
        sketches.update(table)
        data = b"".join(sketches.serialize(np.arange(features)))
    elif who == "whylogs":
        profile = module(who, "whylogs.core").DatasetProfile()
        names = [f"f{column}" for column in range(features)]
        profile.track(pandas=module(who, "pandas").DataFrame(table, columns=names))
        data = profile.view().serialize()
    elif who == "ddsketch":
        to_proto = module(who, "ddsketch.pb.proto").DDSketchProto.to_proto
        sketches = [detector(who) for _ in range(features)]
        for sketch, column in zip(sketches, table.T.tolist(), strict=True):
            for value in column:
                sketch.add(value)
        data = b"".join(to_proto(each).SerializeToString() for each in sketches)
    else:
        return None
    packed = importlib.import_module("zstandard").ZstdCompressor(level=3).compress(data)
    return {"plain": len(data), "packed": len(packed)}


def memory(who: str, features: int) -> dict[str, int]:
    """Resident bytes: Python with numpy, with the peer, and after `TRACKED` rows one by one."""
    before = resident()
    module(who)
    imported = resident()
    show = shower(who, features, 1)
    if show is not None:
        show(TRACKED // 10 if who in SLOW else TRACKED)
    return {"before": before, "imported": imported, "tracked": resident()}


def resident() -> int:
    words = Path("/proc/self/statm").read_text().split()
    return int(words[1]) * 4096


# --- streams ------------------------------------------------------------------------------------


def alarms(rules: Sequence[str], rows: Array) -> npt.NDArray[np.bool_]:
    """[rule, stream, window]: whether the detector says so at any row of the window.

    A value that is not finite cannot be given to them, and is left out.
    """
    found = np.zeros((len(rules), *rows.shape[:2]), np.bool_)
    for number, rule in enumerate(rules):
        for stream, windows in enumerate(rows):
            one = detector(rule)
            for window, values in enumerate(windows):
                for value in values[np.isfinite(values)].tolist():
                    one.update(value)
                    if one.drift_detected:
                        found[number, stream, window] = True
    return found


def sets() -> dict[str, Array]:
    loaded = {}
    for name in SETS:
        rows = [
            (given, answer) for given, answer in getattr(module("ADWIN", "river.datasets"), name)()
        ]
        columns = [key for key, value in rows[0][0].items() if isinstance(value, int | float)]
        table = [[float(given[key]) for key in columns] for given, _ in rows]
        answers = [[float(x)] if isinstance(x, int | float) else [] for _, x in rows]
        loaded[name] = np.array([a + b for a, b in zip(table, answers, strict=True)])
    return loaded


def main(arguments: Sequence[str]) -> None:
    match arguments:
        case ["versions"]:
            print(json.dumps(versions()))
        case ["cost"]:
            serve_costs()
        case ["size", who, features, rows]:
            print(json.dumps(size(who, int(features), int(rows))))
        case ["memory", who, features]:
            print(json.dumps(memory(who, int(features))))
        case ["streams", rules, rows, to]:
            np.save(to, alarms(rules.split(","), np.load(rows)))
        case ["sets", to]:
            np.savez(to, **sets())  # type: ignore[arg-type]  # names of arrays, not options
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
