"""One device at its end of the link: brings a bundle as an agent does, and says how long it took.

    python -m tests.bench.linking.device TASK

Link, inbox, fetcher, ways, HTTP source and decoder are the agent's own, with the waits that an
agent in production has. Prints `ready` when connected, begins when a line is read, then prints
JSON (`Fetched`). What an agent does besides (trust, plans, runners, reports) is left out, and so
is what it would send meanwhile.
"""

from __future__ import annotations

import json
import random
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))

from edge_agent.abilities import find_abilities  # noqa: E402 - after the path is set
from edge_agent.bringing import Bringing  # noqa: E402 - the same
from edge_agent.clock import Clock  # noqa: E402 - the same
from edge_agent.fetch import Fetcher  # noqa: E402 - the same
from edge_agent.http_source import HttpSource  # noqa: E402 - the same
from edge_agent.identity import load  # noqa: E402 - the same
from edge_agent.inbox import Inbox, Message  # noqa: E402 - the same
from edge_agent.link import Link  # noqa: E402 - the same
from edge_agent.proofs import Proofs  # noqa: E402 - the same
from edge_agent.settings import Intervals  # noqa: E402 - the same
from edge_agent.ways import Transport, Ways  # noqa: E402 - the same
from protocol.approval import ApprovedBundle  # noqa: E402 - the same
from protocol.bundle import Facts  # noqa: E402 - the same
from protocol.identifiers import digest  # noqa: E402 - the same
from protocol.link import Retry  # noqa: E402 - the same
from protocol.topics import Topics  # noqa: E402 - the same

MOST_S = 600.0


@dataclass(frozen=True, slots=True)
class Task:
    """What to bring, from where. Paths are those of this machine."""

    home: str
    """What enrolment left, and `bundles`, with the bundles that the device has already."""
    model: str
    bundle: str
    transports: tuple[Transport, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Fetched:
    seconds: float
    """From wanting the bundle until all its files are here, verified."""
    known_s: float
    """Of that: until the payload is known that is fetched, by index, manifest and hint."""
    cpu_s: float
    """Of this process; decoding of deltas has one of its own."""


class Device:
    """What `edge_agent.wiring` builds, as far as a fetch needs it."""

    def __init__(self, task: Task) -> None:
        self.task = task
        home, rng, intervals = Path(task.home), random.Random(task.seed), Intervals()
        identity = load(home)
        clock = Clock(home / "clock.json", trust_wall=True)
        self.turn_s = intervals.turn
        self.inbox = Inbox()
        self.link = Link(
            identity.broker,
            identity.device,
            on_message=self.inbox.message,
            on_state=self.inbox.link_changed,
            retry=Retry(most_s=intervals.reconnect),
            rng=rng,
            now_ms=clock.now_ms,
        )
        bundle = digest(task.bundle)
        approved = {bundle: ApprovedBundle(task.model, "v2", bundle)}
        timeout_s = intervals.frame_timeout
        proofs = Proofs(identity)
        source = HttpSource(proofs, clock.now_ms, on_wake=self.inbox.wake, timeout_s=timeout_s)
        self.fetcher = Fetcher(
            self.link,
            Topics(identity.fleet),
            identity.device,
            home / "bundles",
            Facts(),
            lambda: approved,
            rng,
            frame_timeout_s=timeout_s,
            want_interval_s=intervals.want,
            on_wake=self.inbox.wake,
            known=find_abilities(),
            bringing=Bringing(
                Ways(task.transports, rest_s=timeout_s),
                source if "http" in task.transports else None,
                proofs,
                rng,
                timeout_s=timeout_s,
            ),
        )

    def connect(self) -> None:
        self.link.start()
        while not self.link.connected:
            self.listen()

    def listen(self) -> None:
        for item in self.inbox.take(self.turn_s):
            if isinstance(item, Message):
                self.fetcher.on_message(item.topic, item.data)

    def bring(self) -> Fetched:
        began, cpu = time.monotonic(), time.process_time()
        known_s = 0.0
        self.fetcher.ensure(self.task.model, digest(self.task.bundle))
        while True:
            self.fetcher.tick(time.monotonic())
            status, passed_s = self.fetcher.status(), time.monotonic() - began
            if status.progress is not None:
                known_s = known_s or passed_s
            if status.done:
                return Fetched(passed_s, known_s, time.process_time() - cpu)
            if passed_s > MOST_S:
                raise SystemExit(f"never: {status}, {dict(self.fetcher.counters)}")
            self.listen()

    def stop(self) -> None:
        self.fetcher.close()
        self.link.stop()


def main(arguments: list[str]) -> None:
    device = Device(Task(**json.loads(Path(arguments[0]).read_bytes())))
    device.connect()
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(asdict(device.bring())), flush=True)
    device.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
