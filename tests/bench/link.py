"""One device behind 2 Mbit/s and 200 ms: seconds to a payload and to a new version, beside curl.

Two network namespaces, an emulated link between them (no loss, 1 % loss, cut every 5 s), a real
Mosquitto, the control plane's own API and nginx on one side, the agent's own link, fetcher, HTTP
source and decoder on the other. The peer is `curl -C -` from nginx, begun again after each cut,
in the same run over the same link. Needs root and /dev/net/tun. `--megabytes 5 --rounds 3
--parts none,loss,cut,updates` change what is done.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from control_plane.broker import find  # noqa: E402 - after the path is set
from control_plane.encode import Encoded  # noqa: E402 - the same
from control_plane.encode.making import Ability, File, make  # noqa: E402 - the same
from edge_agent.abilities import find_abilities  # noqa: E402 - the same
from protocol.errors import Unavailable  # noqa: E402 - the same
from protocol.payload import FRAME_SIZE  # noqa: E402 - the same
from tests.bench.linking import curl_peer, namespaces  # noqa: E402 - the same
from tests.bench.linking.emulator import Conditions  # noqa: E402 - the same
from tests.bench.linking.site import MODEL, Measured, Release, Site, site  # noqa: E402 - the same
from tests.bench.report import Row, publish  # noqa: E402 - the same
from tests.fakes.origin import offer, plain_bundle  # noqa: E402 - the same

CURL: Final = "curl"
MOST_RATIO: Final = 1.05
STATES: Final = {
    "none": ("no loss", Conditions()),
    "loss": ("1 % loss", Conditions(loss=0.01)),
    "cut": ("cut every 5 s", Conditions(cut_every_s=5.0)),
}
Runs = dict[str, list[Measured]]
"""By who brought it."""


@dataclass(frozen=True, slots=True)
class Offered:
    """A real update, its release, and what may travel: full, as delta, and packed by zstd alone."""

    name: str
    release: Release
    full: Encoded
    delta: Encoded | None
    packed: Encoded

    @property
    def everything(self) -> Release:
        payloads = [each for each in (self.delta, self.full, self.packed) if each is not None]
        return replace(self.release, payloads=tuple(payloads))


# --- runs -----------------------------------------------------------------------------------------


def same_bytes(at: Site, release: Release, rounds: int) -> Runs:
    """Everybody brings the same payload, by turns."""
    runs: Runs = {}
    for _ in range(rounds):
        for way in at.ways:
            runs.setdefault(way.name, []).append(at.fetch(release, way))
        runs.setdefault(CURL, []).append(at.curl(release.payload))
    return runs


def random_release(directory: Path, size: int) -> Release:
    """Bytes that nobody packs, so that the payload is as large as the file."""
    before, after = (
        plain_bundle(directory / "bundles", onnx=random.Random(seed).randbytes(size))
        for seed in (1, 2)
    )
    offered = offer(after, directory / "payloads")
    return Release(before, offered, (offered.payloads[MODEL],))


def encoded(directory: Path, name: str, versions: Sequence[bytes]) -> Offered:
    """What a push makes of an update, ONNX before and after, for a device that decodes what this
    machine can."""
    before, after = (plain_bundle(directory / "bundles", onnx=onnx) for onnx in versions)
    offered = offer(after, directory / "payloads")
    old, new = (
        File(
            bundle.path / MODEL,
            next(each.digest for each in bundle.variant.members if each.path == MODEL),
            "model",
        )
        for bundle in (before, after)
    )
    able = frozenset({Ability(find_abilities())})
    # A folder of its own: there it makes and removes what zstd alone gives, under the same name.
    full = make(new, None, able, directory / "made")[0]
    deltas = make(new, old, able, directory / "made", below=full.entry.size)
    packed = offered.payloads[MODEL]
    release = Release(before, offered, (full,))
    return Offered(name, release, full, deltas[0] if deltas else None, packed)


# --- rows -----------------------------------------------------------------------------------------


def rows_of_seconds(state: str, runs: Runs, who: str, goal: bool) -> list[Row]:
    curl = median(runs[CURL], lambda run: run.seconds)
    found = []
    for name, ours in by_us(runs):
        seconds = median(ours, lambda run: run.seconds)
        row = Row(f"{state}: {name}", seconds, "s", curl, who)
        if goal:
            row = replace(row, goal=f"≤ {MOST_RATIO} x", ok=seconds <= MOST_RATIO * curl)
        found.append(row)
    every = [run for _, ours in by_us(runs) for run in ours]
    known_s = median(every, lambda run: run.known_s)
    return [*found, Row(f"{state}: of that, until the payload is known", known_s, "s")]


def rows_of_waste(state: str, runs: Runs, whole: Runs, who: str) -> list[Row]:
    """`whole`: of runs without cuts, which brought the same and wasted nothing."""

    def in_order(name: str) -> float:
        return waste(runs[name], whole[name], lambda run: run.arrived.in_order)

    def in_all(name: str) -> float:
        return waste(runs[name], whole[name], lambda run: run.arrived.tcp_bytes)

    found = []
    for name, _ in by_us(runs):
        lost = in_order(name)
        what, goal = f"{state}: {name}, waste per cut", f"≤ {FRAME_SIZE:,}"
        found.append(Row(what, lost, "B", in_order(CURL), who, goal, lost <= FRAME_SIZE))
        what = f"{state}: {name}, waste per cut with TCP's"
        found.append(Row(what, in_all(name), "B", in_all(CURL), who))
    return found


def rows_of_cpu(state: str, runs: Runs, who: str) -> list[Row]:
    curl = median(runs[CURL], lambda run: run.cpu_s)
    return [
        Row(f"{state}: {name}, device CPU", median(ours, lambda run: run.cpu_s), "s", curl, who)
        for name, ours in by_us(runs)
    ]


def rows_of_update(at: Site, offered: Offered, who: str) -> list[Row]:
    """Seconds until the new version lies there whole and verified, decoding included."""
    peer = at.curl(offered.packed).seconds
    against = f"{who}, zstd: {offered.packed.entry.size:,} B"
    found = []
    for kind, payload in (("full", offered.full), ("delta", offered.delta)):
        if payload is None:
            found.append(Row(f"{offered.name}: {kind}", None, "s", against="none is smaller"))
            continue
        ours = at.fetch(replace(offered.release, payloads=(payload,)), at.as_shipped)
        what = f"{offered.name}: {kind}, {payload.entry.size:,} B"
        found.append(Row(what, ours.seconds, "s", peer, against))
    return found


def waste(runs: Sequence[Measured], whole: Sequence[Measured], of: Callable[..., int]) -> float:
    """Bytes per cut that came in vain: median over the runs, none for one without a cut."""
    needed = median(whole, of)
    lost = [(of(run) - needed) / run.cuts for run in runs if run.cuts]
    return statistics.median(lost) if lost else 0.0


def median(runs: Sequence[Measured], of: Callable[..., float]) -> float:
    return statistics.median(of(run) for run in runs)


def by_us(runs: Runs) -> list[tuple[str, list[Measured]]]:
    return [(name, ours) for name, ours in runs.items() if name != CURL]


# --- all of it ------------------------------------------------------------------------------------


def missing() -> str:
    """What this machine lacks for it; empty: nothing."""
    try:
        find()
    except Unavailable as error:
        return str(error)
    programs = [name for name in ("nginx", "curl") if namespaces.found(name) is None]
    return namespaces.missing() or (f"there is no {programs[0]}" if programs else "")


def measure(directory: Path, parts: Sequence[str], size: int, rounds: int) -> list[Row]:
    who = curl_peer.versions()
    found: list[Row] = []
    runs: dict[str, Runs] = {}
    latest_s, busiest = 0.0, load()
    release = random_release(directory / "random", size)
    for part in [part for part in STATES if part in parts]:
        state, conditions = STATES[part]
        with site(directory / part, conditions, [release]) as at:
            runs[part] = same_bytes(at, release, rounds)
            latest_s, busiest = max(latest_s, at.emulator.latest_s), max(busiest, load())
            state = f"{state}, {at.congestion}"
        found += rows_of_seconds(state, runs[part], who, goal=part == "none")
        if part == "cut" and "none" in runs:
            found += rows_of_waste(state, runs[part], runs["none"], who)
        found += rows_of_cpu(state, runs[part], who)
    if "updates" in parts:
        from tests.bench.linking.updates import updates  # sklearn takes seconds to load

        every = [
            encoded(directory / f"update-{number}", each.name, (each.before, each.after))
            for number, each in enumerate(updates())
        ]
        with site(directory / "updates", Conditions(), [each.everything for each in every]) as at:
            for each in every:
                found += rows_of_update(at, each, who)
            latest_s = max(latest_s, at.emulator.latest_s)
    found.append(Row("the link: latest packet", 1000 * latest_s, "ms late"))
    return [*found, Row("this machine: load", busiest, "processes waiting")]


def load() -> float:
    return os.getloadavg()[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", default="none,loss,cut,updates")
    options = parser.parse_args()
    if why := missing():
        print(f"make bench NAME=link cannot run here: {why}")
        return 2
    # Namespaces outlive whoever made them, unless they are taken away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    with tempfile.TemporaryDirectory(prefix="link-") as name:
        parts, size = options.parts.split(","), int(options.megabytes * 1e6)
        return publish("link", measure(Path(name), parts, size, options.rounds))


if __name__ == "__main__":
    raise SystemExit(main())
