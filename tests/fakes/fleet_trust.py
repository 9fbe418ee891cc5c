"""A control plane's repository, a broker that retains, and devices with a clock of their own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata
from tuf.api.serialization.json import JSONSerializer

from control_plane.signing import create, keys
from control_plane.signing.drafts import Change
from control_plane.signing.repository import Repository
from edge_agent.clock import Clock, Sources
from edge_agent.trust import Trust
from protocol import codec
from protocol.approval import Approved
from protocol.device import DeviceDocument
from protocol.identifiers import Digest, digest_of
from protocol.plan import DenyList, Plan, PlanTerms, Rule
from protocol.topics import Topics

FLEET = "north"
DEVICE = "north-cam-1"
START_MS = int(datetime(2026, 12, 1, 12, tzinfo=UTC).timestamp() * 1000)
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
TOPICS = Topics(FLEET)
APPROVED = Approved()
EVERYONE = PlanTerms()


@dataclass
class Machine:
    """Clocks of one machine, set by hand."""

    wall_ms: int = START_MS
    uptime_s: float = 1000.0
    synchronised: bool = True
    boot: str = "boot-1"

    def sources(self) -> Sources:
        return Sources(
            wall_ms=lambda: self.wall_ms,
            since_boot_s=lambda: self.uptime_s,
            monotonic_s=lambda: self.uptime_s,
            synchronised=lambda: self.synchronised,
            boot=lambda: self.boot,
        )

    def clock(self, file: Path, **options: Any) -> Clock:
        return Clock(file, sources=self.sources(), **options)


@dataclass
class Device:
    directory: Path
    root: bytes
    machine: Machine = field(default_factory=Machine)
    name: str = DEVICE

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.restart()

    def restart(self) -> None:
        self.clock = self.machine.clock(self.directory / "clock.json", earliest_ms=0)
        self.trust = Trust(self.directory / "tuf", self.root, FLEET, self.clock)

    def read(self, retained: dict[str, bytes], topics: Iterable[str] | None = None) -> bool:
        """Offer retained messages and refresh until no further root is at hand."""
        changed = False
        while True:
            before = self.trust.root_version
            for topic in retained if topics is None else topics:
                if topic in retained:
                    self.trust.offer(topic, retained[topic])
            changed = self.trust.refresh() or changed
            if self.trust.root_version == before:
                return changed


class Fleet:
    """`home` holds what a control plane would back up; `broker` is what it has retained."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.now_ms = START_MS
        self.broker: dict[str, bytes] = {}
        self.numbers: dict[str, int] = {}
        self.holders: list[CryptoSigner] = []
        """Of the root keys, in a fleet with quorums."""
        self.approvers: list[CryptoSigner] = []
        """Of a fleet with quorums."""
        self.plans: dict[str, tuple[bytes, PlanTerms]] = {}
        self.deny = codec.encode(DenyList(FLEET, 1))
        self.repository = Repository.create_dev(self.tuf, self.keys, FLEET, self.now_ms)

    @property
    def tuf(self) -> Path:
        return self.home / "tuf"

    @property
    def keys(self) -> Path:
        return self.home / "keys"

    @property
    def root(self) -> bytes:
        return self.repository.roots()[1]

    @property
    def approver(self) -> CryptoSigner:
        return keys.load(self.keys / create.APPROVER_KEY)

    def reopen(self) -> None:
        self.repository = Repository.open(self.tuf, self.keys, FLEET)

    def backup(self, to: Path) -> None:
        shutil.copytree(self.home, to)

    def restore(self, backup: Path) -> None:
        shutil.rmtree(self.home)
        shutil.copytree(backup, self.home)
        self.reopen()

    def later(self, **duration: float) -> None:
        hours = duration.get("days", 0) * 24 + duration.get("hours", 0)
        self.now_ms += int(hours * HOUR_MS + duration.get("minutes", 0) * 60_000)

    def change(self, *changes: Change) -> None:
        """Draft, have as many sign as must, complete."""
        draft = self.repository.draft(changes, self.now_ms)
        complete = False
        for approver in self.approvers[:2] or [self.approver]:
            signature = draft.metadata().sign(approver)
            complete = self.repository.add_signature(
                draft.id, draft.version, signature.keyid, signature.signature
            ).complete
        assert complete

    def approve(self, reference: str, terms: Approved | None = APPROVED) -> Digest:
        model, _, version = reference.partition("/")
        index = f"index of {reference}".encode()
        self.change(Change(model, version, digest_of(index), len(index), terms))
        return digest_of(index)

    def plan(self, model: str, stable: Digest, terms: PlanTerms = EVERYONE) -> bytes:
        number = self.numbers[model] = self.numbers.get(model, 0) + 1
        version = self.now_ms // 60_000 + number
        data = codec.encode(Plan(FLEET, model, version, number, (Rule(None, stable),)))
        self.plans[model] = data, terms
        return data

    def publish(self) -> None:
        """Sign what is due and put everything on the broker."""
        self.repository.publish(self.plans, self.deny, self.now_ms)
        self.put()

    def put(self) -> None:
        for number, data in self.repository.roots().items():
            self.broker[TOPICS.root(number)] = data
        for model, (data, _) in self.plans.items():
            self.broker[TOPICS.plan(model)] = data
        self.broker[TOPICS.deny] = self.deny
        for role, data in self.repository.metadata().items():
            self.broker[TOPICS.tuf(role)] = data

    def document(self, version: int, **values: Any) -> bytes:
        return self.repository.sign_document(
            DeviceDocument(FLEET, values.pop("device", DEVICE), version, **values)
        )

    def signer(self, file: str) -> CryptoSigner:
        return keys.load(self.keys / file)

    def forge(self, role: str, change: Callable[[Any], None], key: CryptoSigner) -> bytes:
        """The role as it is on the broker, changed and signed again with this key."""
        metadata = Metadata[Any].from_bytes(self.broker[TOPICS.tuf(role)])
        change(metadata.signed)
        metadata.sign(key)
        return metadata.to_bytes(JSONSerializer(compact=True))
