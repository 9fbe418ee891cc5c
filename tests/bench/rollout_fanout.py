"""A stage advance to 10,000 connected devices: what leaves the control plane, and for how long.

The real ticker and repository make the messages, for a fleet of ten and for a large one. A real
Mosquitto carries them to devices without agents (trusting/crowd.py) that all fetch the new plan as
agents do: timestamp, snapshot, rollouts, plan. The peer is what one would do without thresholds:
one signed, retained document per device that names its version, on the same connections.

Without TLS, which costs both the same per connection; all devices are played by one process, so
its speed bounds the times. `--devices 10000` changes how many.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from control_plane.fleet.devices import document_of  # noqa: E402 - after the path is set
from control_plane.judging import Judge  # noqa: E402 - the same
from control_plane.rollout import operations  # noqa: E402 - the same
from control_plane.rollout.spec import read_spec  # noqa: E402 - the same
from control_plane.signing.repository import Repository  # noqa: E402 - the same
from control_plane.store import Store, connections  # noqa: E402 - the same
from control_plane.store.bundles import BundleRow  # noqa: E402 - the same
from control_plane.store.plans import Assignment  # noqa: E402 - the same
from control_plane.ticker import Ticker  # noqa: E402 - the same
from protocol.approval import ApprovedBundle  # noqa: E402 - the same
from protocol.device import Pin  # noqa: E402 - the same
from protocol.identifiers import Digest, digest_of  # noqa: E402 - the same
from protocol.link import Address  # noqa: E402 - the same
from protocol.topics import Topics  # noqa: E402 - the same
from tests.bench import trust  # noqa: E402 - the same
from tests.bench.fanout import cpu_of  # noqa: E402 - the same
from tests.bench.report import Row, publish  # noqa: E402 - the same
from tests.bench.trusting import crowd  # noqa: E402 - the same
from tests.bench.trusting.publications import FLEET  # noqa: E402 - the same
from tests.fakes.thin_client import ThinClient  # noqa: E402 - the same

DEVICES = 10_000
FEW = 10
"""Devices of the fleet that origin bytes are compared with."""
MODEL = "digits"
VERSIONS = ("v1", "v2")
SALT = "5a" * 16
TOPICS = Topics(FLEET)
IN_FLIGHT = 200
"""Per-device documents on their way at the same time."""
PER_DEVICE = "one retained document per device"
_DAY_MS = 86_400_000


def _bundle(version: str) -> Digest:
    return digest_of(version.encode())


def named(count: int) -> list[str]:
    return [f"{FLEET}-{n:05}" for n in range(count)]


@dataclass
class Kept:
    """Stands for the publisher: what is retained, and which topics have changed."""

    retained: dict[str, bytes] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    settled: bool = True

    def keep(self, topic: str, data: bytes) -> None:
        if self.retained.get(topic) != data:
            self.changed.append(topic)
        self.retained[topic] = data

    def keep_metadata(self, roots: Mapping[int, bytes], roles: Mapping[str, bytes]) -> None:
        for number, data in roots.items():
            self.keep(TOPICS.root(number), data)
        for role, data in roles.items():
            self.keep(TOPICS.tuf(role), data)

    def withdraw(self, topic: str) -> None:
        self.retained.pop(topic, None)

    def offer(self, model: str, file: Digest, payloads: Sequence[object]) -> None: ...


class Offered:
    """Whatever is approved lies with the broker."""

    def offer(self, bundle: Digest, keeper: object, now_ms: int) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Stage:
    """What is retained before a stage advance, what the advance changes, and what telling every
    device by itself takes instead."""

    before: dict[str, bytes]
    advance: dict[str, bytes]
    documents: dict[str, bytes]
    advance_cpu_s: float
    """Of the round that makes it."""
    documents_cpu_s: float
    """Of signing them."""


def stage(folder: Path, devices: int) -> Stage:
    """From the second to the last wave of a rollout, by the ticker."""
    # In the past, so that the repository's roles are valid and due.
    now_ms = time.time_ns() // 1_000_000 - _DAY_MS
    store = Store(folder / f"{devices}.sqlite")
    repository = Repository.create_dev(folder / "tuf", folder / "keys", FLEET, now_ms)
    approvals = {_bundle(v): ApprovedBundle(MODEL, v, _bundle(v)) for v in VERSIONS}
    repository.approvals = lambda: approvals  # type: ignore[method-assign] # no approvers here
    kept = Kept()
    ticker = Ticker(
        FLEET, store, repository, kept, Offered(), Judge(store), listening_since_ms=lambda: 0
    )
    with store.write():
        for version in VERSIONS:
            row = BundleRow(_bundle(version), MODEL, version, 1000, now_ms, "approved")
            store.bundles.put(row)
        store.plans.assign(MODEL, [Assignment(None, _bundle("v1"))])
        for name in named(devices):
            store.devices.enrol(name, {"site": "leeds"}, None, now_ms)
    spec = read_spec({"version": f"{MODEL}/v2", "waves": ["1", "50 %", "100 %"]})
    operations.start_rollout(store, FLEET, spec, approvals, now_ms, lambda: SALT, who="eva")
    while store.rollouts.active()[0].wave == 0:
        # Before the first wave, devices' past is looked at, a bounded piece per round.
        ticker.tick(now_ms)
    operations.promote(store, f"{MODEL}-1", now_ms, who="eva")
    ticker.tick(now_ms)
    before = dict(kept.retained)
    kept.changed.clear()
    now_ms += 60_000
    operations.promote(store, f"{MODEL}-1", now_ms, who="eva")
    began = time.process_time()
    ticker.tick(now_ms)
    advance_cpu_s = time.process_time() - began
    advance = {topic: kept.retained[topic] for topic in kept.changed}
    pins = {MODEL: Pin(_bundle("v2"))}
    wanted = [document_of(FLEET, replace(each, pins=pins)) for each in store.devices.all()]
    began = time.process_time()
    documents = {TOPICS.document(each.device): repository.sign_document(each) for each in wanted}
    store.close()
    return Stage(before, advance, documents, advance_cpu_s, time.process_time() - began)


class Fleet(crowd.Crowd):
    """Devices that also listen for a document of their own."""

    def __init__(self) -> None:
        super().__init__(TOPICS, MODEL)
        self._documents = False

    async def documents(
        self, control: ThinClient, documents: Mapping[str, bytes], pid: int
    ) -> crowd.Spread:
        """Everybody is told by itself."""
        self._documents = True
        before, cpu, began = self._received(), cpu_of(pid), time.monotonic()
        self._expect()
        gate = asyncio.Semaphore(IN_FLIGHT)

        async def one(topic: str, data: bytes) -> None:
            async with gate:
                await control.publish(topic, data)

        await asyncio.gather(*(one(topic, data) for topic, data in documents.items()))
        await self._done.wait()
        self._documents = False
        return crowd.Spread(
            time.monotonic() - began,
            cpu_of(pid) - cpu,
            (self._received() - before) / len(self.clients),
        )

    def _heard(self, client: ThinClient, topic: str, data: bytes) -> None:
        if self._documents:
            if topic == TOPICS.document(client.name):
                self._left -= 1
                if self._left == 0:
                    self._done.set()
            return
        super()._heard(client, topic, data)


async def _measured(
    made: Stage, pid: int, addresses: dict[str, Address], control: Address, name: str
) -> tuple[crowd.Storm, crowd.Spread, crowd.Spread]:
    fleet = Fleet()
    async with crowd.control(control, name) as publisher:
        for topic, data in made.before.items():
            # Documents that are retained already would only lengthen the connecting.
            if topic not in made.documents:
                await publisher.publish(topic, data)
        storm = await fleet.connect(addresses, pid)
        advanced = await fleet.change_plan(publisher, made.advance, pid)
        told = await fleet.documents(publisher, made.documents, pid)
    fleet.close()
    return storm, advanced, told


def size(messages: Mapping[str, bytes]) -> int:
    return sum(len(topic) + len(data) for topic, data in messages.items())


def fanout_rows(wanted: int = DEVICES) -> list[Row]:
    count = trust.connections(wanted)
    if count < wanted:
        print(
            f"only {count:,} of {wanted:,} connections: the limit of open files is lower "
            "(ulimit -n)",
            file=sys.stderr,
        )
    before, connections.SYNCHRONOUS = connections.SYNCHRONOUS, "OFF"
    try:
        with tempfile.TemporaryDirectory(prefix="rollout-") as name:
            folder = Path(name)
            few, many = (stage(folder / str(n), n) for n in (FEW, count))
            brokers = trust.Brokers(folder)
            with brokers.running(tls=False) as (pid, address_of):
                addresses = {each: address_of(each) for each in named(count)}
                control = brokers.mosquitto.control
                storm, ours, theirs = asyncio.run(
                    _measured(many, pid, addresses, address_of(control), control)
                )
    finally:
        connections.SYNCHRONOUS = before
    what = f"stage advance, {count:,} connected"
    messages, told = len(many.advance), len(many.documents)
    origin, grown = size(many.advance), size(many.advance) / size(few.advance)
    return [
        Row(f"{what}: origin messages", messages, "messages", told, PER_DEVICE, "4", messages == 4),
        Row(f"{what}: origin bytes", origin, "B", size(many.documents), PER_DEVICE),
        Row(
            f"{what}: origin bytes", origin, "B", size(few.advance), f"{FEW} devices",
            "<= 1.05 x", grown <= 1.05,
        ),
        Row(
            f"{what}: control plane CPU", many.advance_cpu_s, "s",
            many.documents_cpu_s, "signing one document per device",
        ),
        Row(f"{what}: time to the last device", ours.seconds, "s", theirs.seconds, PER_DEVICE),
        Row(f"{what}: broker CPU", ours.server_cpu_s, "s", theirs.server_cpu_s, PER_DEVICE),
        Row(f"{what}: bytes per device", ours.bytes_each, "B", theirs.bytes_each, PER_DEVICE),
        Row(f"{what}: connecting all before", storm.seconds, "s"),
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--devices", type=int, default=DEVICES)
    return publish("rollout_fanout", fanout_rows(parser.parse_args(arguments).devices))


if __name__ == "__main__":
    sys.exit(main())
