"""Bytes of model updates on the air, ours beside the best of other tools.

Really trained models and their updates (`packing.corpus`); each payload is made by the control
plane's encoder for a device that can decode everything, decoded by the devices' own process and
compared byte for byte. Its bytes are all that travels: the header, the table, everything. The
peers (`packing.peers`) are set to their smallest, and the best of them is chosen per case,
afterwards.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[2]))

from control_plane.encode import making
from control_plane.encode.encoded import Encoded
from control_plane.encode.making import File
from protocol.payload import (
    FEATURE_BROTLI,
    FEATURE_BSDIFF,
    FEATURE_PATCH,
    FEATURE_RAW,
    FEATURE_SEGMENTS,
    FEATURE_ZSTD,
    MAX_DECODE_MEMORY,
)
from tests.bench.packing import corpus, decoding, peers, table
from tests.bench.packing.corpus import CASES, Case, Corpus, Missing
from tests.bench.packing.decoding import Cost
from tests.bench.packing.peers import Measured, Peer
from tests.bench.packing.table import Result
from tests.bench.report import BUILD, Row, publish

QUICK: Final = ("5g", "5h", "8a", "9a", "10e")
"""Seconds, once the corpus is there."""
NEARLY_ALL: Final = 0.7
"""A delta above this share of the file: perhaps the file alone is smaller."""
SPEEDS: Final = (
    ("floats", ("floats", "halves"), 60),
    ("trees", ("trees",), 20),
    ("int8", ("integers",), None),
)
"""Kinds of files, and the least MB of output per second of one core."""
TELLING: Final = 4_000_000
"""Smaller files decode within what the starts of two decoders differ by."""
MB: Final = 1e6
CODINGS: Final = {
    FEATURE_RAW: "raw",
    FEATURE_ZSTD: "zstd",
    FEATURE_SEGMENTS: "segments",
    FEATURE_BROTLI: "brotli",
    FEATURE_PATCH: "patch",
    FEATURE_BSDIFF: "bsdiff",
}


@dataclass(frozen=True, slots=True)
class Run:
    result: Result
    cost: Cost
    """Of decoding it."""
    start: Cost
    """Of decoding nothing, at the same time."""
    encoding: float
    """Processor seconds."""

    @property
    def speed(self) -> float:
        """MB of output per second of one core."""
        return self.result.raw / MB / max(self.cost.cpu - self.start.cpu, 1e-3)


def measure(
    case: Case,
    files: Corpus,
    tools: Sequence[Peer],
    known: Measured,
    work: Path,
    nothing: decoding.Nothing,
) -> Run:
    """Raises `Missing` if its files cannot be made here."""
    target = decoding.file_of(files.file(case.target))
    base = decoding.file_of(files.file(case.base)) if case.base else None
    began = time.process_time()
    made, used = smallest(target, base, work / "made")
    encoding = time.process_time() - began
    cost, start = nothing.beside(made, target, used, work / "out")
    on = base.path if base else None
    asked = {
        tool.name: known.bytes_of(tool, target.path, on)
        for tool in tools
        if tool.takes(target.path, on)
    }
    others = {name: size for name, size in asked.items() if size is not None}
    entry = made.entry
    coding = next(name for bit, name in CODINGS.items() if entry.features & bit)
    raw = target.path.stat().st_size
    result = Result(case, raw, entry.size, coding, others)
    made.remove()
    return Run(result, cost, start, encoding)


def smallest(target: File, base: File | None, folder: Path) -> tuple[Encoded, File | None]:
    """What a device would be sent, and the base that it decodes it with."""
    found: list[tuple[Encoded, File | None]] = []
    size = target.path.stat().st_size
    if base is not None:
        found += [(each, base) for each in making.make(target, base, decoding.ALL, folder)]
    if not found or found[0][0].entry.size > NEARLY_ALL * size:
        found += [(each, None) for each in making.make(target, None, decoding.ALL, folder)]
    return min(found, key=lambda each: each[0].entry.size)


def cost_rows(
    runs: Sequence[Run], work: Path, nothing: decoding.Nothing, huge_tensors: int
) -> Iterator[Row]:
    """Processor time without that of a decoder that starts; memory above Python and numpy, and
    above a decoder that has loaded its libraries."""
    start, least = nothing.decode(), decoding.numpy_alone().peak
    yield Row("a decoder starts", start.cpu, "s of CPU")
    for what, kinds, goal in SPEEDS:
        speeds = {
            run.result.case.name: run.speed
            for run in runs
            if run.result.case.kind in kinds and run.result.raw >= TELLING
        }
        if speeds:
            slowest = min(speeds, key=lambda name: speeds[name])
            speed = speeds[slowest]
            text = f"at least {goal}" if goal else ""
            ok = speed >= goal if goal else None
            unit = f"MB/s a core, {slowest}, the slowest of {len(speeds)}"
            yield Row(f"decode {what}", speed, unit, goal=text, ok=ok)
    if runs:
        most = max(runs, key=lambda run: run.cost.peak)
        yield from _peak(f"peak of {most.result.case.name}, the largest", most.cost, start, least)
    if huge_tensors:
        print("a synthetic model", file=sys.stderr, flush=True)
        size, cost, start = decoding.huge(work, nothing, huge_tensors)
        yield from _peak(f"peak of a model of {size / MB:,.0f} MB", cost, start, least)
        speed = size / MB / (cost.cpu - start.cpu)
        yield Row(f"decode a model of {size / MB:,.0f} MB", speed, "MB/s a core")


def _peak(what: str, cost: Cost, start: Cost, least: int) -> Iterator[Row]:
    whole, most = (cost.peak - least) / MB, MAX_DECODE_MEMORY / MB
    unit = "MB above python and numpy"
    yield Row(what, whole, unit, goal=f"at most {most:g}", ok=whole <= most)
    yield Row(f"{what}, without its libraries", (cost.peak - start.peak) / MB, "MB")


def main(arguments: Sequence[str] | None = None, build: Path = BUILD) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--cases", help="some of them, as 2a,5a,10c; all")
    parser.add_argument("--quick", action="store_true", help=f"only {','.join(QUICK)}")
    parser.add_argument("--small", action="store_true", help="without ResNet-18")
    parser.add_argument("--no-peer", action="store_true", help="without other tools")
    parser.add_argument("--no-huge", action="store_true", help="without the model of 500 MB")
    given = parser.parse_args(arguments)
    names = {case.name for case in CASES}
    wanted = set(given.cases.split(",")) if given.cases else set(QUICK) if given.quick else names
    if unknown := sorted(wanted - names):
        parser.error(f"no case named {unknown[0]}; there are {', '.join(sorted(names))}")
    cases = [case for case in CASES if case.name in wanted and not (given.small and case.is_large)]
    torch = corpus.torch_python()
    tools = () if given.no_peer else peers.find(torch[0] if torch else None)
    of = ", ".join(f"{name} {version}" for name, version in corpus.versions().items())
    print(f"corpus by {of}{'' if torch else '; no PyTorch: the CNN is trained with numpy'}")
    files = Corpus(build / "payload-corpus")
    known = Measured(build / "payload-peers.json")
    runs: list[Run] = []
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="payload-") as name:
        work = Path(name)
        nothing = decoding.Nothing(work)
        for case in cases:
            try:
                run = measure(case, files, tools, known, work, nothing)
            except Missing as why:
                rows.append(Row(f"{case.name} {case.what}", None, f"not run: {why}"))
                continue
            runs.append(run)
            print(_progress(run), file=sys.stderr, flush=True)
        results = [run.result for run in runs]
        versions = {tool.name: tool.version for tool in tools}
        rows = [*table.rows(results, versions, whole=len(cases) == len(CASES)), *rows]
        quick = given.quick or given.no_huge or given.small
        rows += cost_rows(runs, work, nothing, 0 if quick else decoding.HUGE_TENSORS)
    encoding = sum(run.encoding for run in runs)
    rows.append(Row("encoding, all cases", encoding, "s of CPU"))
    print(table.wide(results, [tool.name for tool in tools]), end="\n\n")
    return publish("payload", rows, build)


def _progress(run: Run) -> str:
    result = run.result
    times = "" if result.times is None else f", best other / ours {result.times:.3f}"
    best = f" ({result.best[0]})" if result.best else ""
    took = f"{run.encoding:.0f} s to make, {run.cost.cpu:.2f} s to decode"
    return f"{result.case.name}: {result.ours:,} by {result.coding}{times}{best}; {took}"


if __name__ == "__main__":
    sys.exit(main())
