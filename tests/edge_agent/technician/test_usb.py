"""Installing from a stick, with real trust, orders, disk and decoder; the update machine is played.

Whole agents install from sticks in tests/e2e/test_air_gap.py.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import zstandard

from control_plane.encode import encode
from control_plane.signing.drafts import Change
from edge_agent.desired import Trusted, decide
from edge_agent.disk import Disk
from edge_agent.fetch import Fetcher
from edge_agent.filesystem import FileSystem
from edge_agent.journal import Journal
from edge_agent.orders import Orders
from edge_agent.siblings import still_missing
from edge_agent.technician import usb
from edge_agent.technician.door import Line
from edge_agent.technician.status import Status
from edge_agent.technician.usb import Installer
from protocol import codec, stick
from protocol.approval import Approved
from protocol.bundle import Facts
from protocol.errors import OutriderError
from protocol.identifiers import digest_of
from protocol.payload import (
    FEATURE_PATCH,
    FEATURE_RAW,
    FEATURE_ZSTD,
    MAX_BLOCK,
    PLAIN_FEATURES,
    Header,
    Hint,
    HintEntry,
    frame_count,
)
from protocol.plan import Local
from protocol.reported import ModelState, ReportedState
from protocol.stick import Stick
from tests.fakes.bundles import make_bundle
from tests.fakes.fleet_trust import DEVICE, FLEET, TOPICS, Device, Fleet
from tests.fakes.patching import patch

MODEL = "toy"


class Files(FileSystem):
    free = 2**40

    def free_bytes(self, path: Path) -> int:
        return self.free


class NoLink:
    connected = False

    def subscribe(self, topics, qos=0): ...
    def unsubscribe(self, topics): ...
    def publish(self, topic, data, *, qos=1, retain=False):
        return False


class Machine:
    """Supervisor and update machine: takes a bundle that is complete, and lets it serve."""

    def __init__(self, parts: Any) -> None:
        self.parts = parts
        self.errands = 0

    def errand(self, work):
        self.errands += 1
        if self.parts.orders.plans and self.parts.disk.journal(MODEL) is None:
            self.parts.disk.write_journal(Journal(MODEL))
        return work()

    def decisions(self):
        parts = self.parts
        trusted = Trusted(
            parts.orders.plans.get(MODEL), parts.orders.document, parts.trust.approvals
        )
        journal = parts.actor.journal(MODEL)
        return {MODEL: decide(MODEL, trusted, Local(0), journal, agent="1")}

    def status(self) -> Status:
        bundles = self.parts.disk.partials()
        serving = next((b for b in bundles if self.parts.disk.partial_complete(b)), None)
        models = {MODEL: ModelState(serving=serving, target=serving)}
        return Status(DEVICE, FLEET, 0, ReportedState(1, "1", models=models))


class World:
    """One device, one approved bundle that its plan names, and a stick for it."""

    def __init__(self, folder: Path) -> None:
        self.fleet = Fleet(folder / "control")
        self.bundle = make_bundle(folder / "origin", MODEL)
        self.payloads = {
            member.path: encode(self.bundle.path / member.path, member.digest, folder / "payloads")
            for member in self.bundle.variant.members
        }
        index = (self.bundle.path / "index.json").read_bytes()
        self.fleet.change(Change(MODEL, "v1", self.bundle.digest, len(index), Approved()))
        self.fleet.plan(MODEL, self.bundle.digest)
        self.fleet.publish()
        self.device = Device(folder / "device", self.fleet.root)
        home = self.device.directory
        self.files = Files()
        trust, clock = self.device.trust, self.device.clock
        disk = Disk(home, self.files)
        orders = Orders(trust, clock, TOPICS, DEVICE, home / "documents", random.Random(1).random)
        self.parts = SimpleNamespace(
            device=DEVICE, topics=TOPICS, facts=Facts(), clock=clock, dev=False,
            abilities=PLAIN_FEATURES,
            trust=trust, orders=orders, disk=disk,
            fetcher=Fetcher(
                NoLink(), TOPICS, DEVICE, home / "bundles", Facts(), lambda: trust.approvals,
                random.Random(1),
            ),
            actor=SimpleNamespace(journal=lambda model: disk.journal(model) or Journal(model)),
        )  # fmt: skip
        self.machine = Machine(self.parts)
        self.installer = Installer(cast(Any, self.parts), self.machine)
        self.stick = folder / "stick"
        self.write()

    def put(self, path: stick.Path, data: bytes) -> None:
        place = self.stick.joinpath(*path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)

    def write(self) -> None:
        fleet, files = self.fleet, self.bundle.path
        self.put((stick.NOTE,), codec.encode(Stick(FLEET, fleet.now_ms, (DEVICE,), (MODEL,))))
        for role, data in fleet.repository.metadata().items():
            self.put(stick.role(role), data)
        self.put(stick.plan(MODEL), fleet.plans[MODEL][0])
        self.put((stick.DENY,), fleet.deny)
        self.put(stick.document(DEVICE), fleet.document(1))
        self.put(stick.manifest(self.bundle.digest), (files / "index.json").read_bytes())
        self.put(stick.manifest(self.bundle.manifest), (files / "manifest.json").read_bytes())
        for member in self.bundle.variant.members:
            encoded = self.payloads[member.path]
            self.put(stick.hint(MODEL, member.digest), codec.encode(Hint((encoded.entry,))))
            self.put(stick.payload(encoded.entry.payload), encoded.path.read_bytes())

    def install(self) -> list[Line]:
        said: list[Line] = []
        self.installer.install({"from": str(self.stick)}, said.append)
        return said

    def refused(self) -> OutriderError:
        with pytest.raises(OutriderError) as raised:
            self.install()
        return raised.value

    @property
    def whole(self) -> bool:
        return bool(self.parts.disk.partial_complete(self.bundle.digest))

    def substitute(self, role: str, payload: bytes, **claims: Any) -> None:
        """Another payload for a member, and a hint that offers nothing else."""
        member = self.bundle.variant.member(role)
        size = claims.get("size", len(payload))
        name = digest_of(payload)
        entry = {
            "payload": name, "size": size, "frames": frame_count(size),
            "features": FEATURE_ZSTD | FEATURE_RAW, "decode_memory": 0, **claims,
        }  # fmt: skip
        self.put(stick.hint(MODEL, member.digest), json.dumps({"entries": [entry]}).encode())
        self.put(stick.payload(name), payload)


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setattr(usb, "ROOM_S", 0.0)
    monkeypatch.setattr(usb, "WATCHED_S", 5.0)
    return World(tmp_path)


def test_a_bundle_lands_where_the_fetcher_would_have_put_it(world):
    said = world.install()
    assert world.whole
    assert [line.what for line in said if line.what != "copying"] == [
        "stick", "trust", "model", "trying", "model", "end",
    ] or [line.what for line in said if line.what not in ("copying", "trying")] == [
        "stick", "trust", "model", "model", "end",
    ]  # fmt: skip
    assert said[-1].data == {"exit": 0}
    assert world.parts.trust.granted == {world.bundle.digest}


def test_what_lies_here_already_is_not_read_again(world):
    world.install()
    shutil.rmtree(world.stick / "payloads")
    said = world.install()
    here = next(line for line in said if line.data.get("how") == "here")
    assert here.data["size_bytes"] == 0


def test_the_fetcher_leaves_a_bundle_alone_while_it_is_brought(world, monkeypatch):
    fetcher = world.parts.fetcher
    seen = []

    def looked(*arguments):
        fetcher.ensure(MODEL, world.bundle.digest)
        seen.append(fetcher.status().digest)
        return still_missing(*arguments)

    monkeypatch.setattr(usb, "still_missing", looked)
    world.install()
    assert seen == [None]
    fetcher.ensure(MODEL, world.bundle.digest)
    assert fetcher.status().digest == world.bundle.digest, "released"


def test_without_room_it_is_d201_and_the_fetcher_may_go_on(world):
    world.files.free = 1000
    assert world.refused().code == "OUT-D201"
    assert not world.whole
    assert world.parts.trust.granted == frozenset()
    world.parts.fetcher.ensure(MODEL, world.bundle.digest)
    assert world.parts.fetcher.status().digest == world.bundle.digest
    world.files.free = 2**40
    world.install()
    assert world.whole


def test_only_one_installation_at_a_time(world):
    codes = []

    def tell(line):
        if line.what == "stick":
            with pytest.raises(OutriderError) as raised:
                world.install()
            codes.append(raised.value.code)

    world.installer.install({"from": str(world.stick)}, tell)
    assert codes == ["OUT-D406"]
    assert world.whole


def bomb(size: int, claimed: int, target: str) -> bytes:
    head = Header(FEATURE_ZSTD, None, target, claimed, MAX_BLOCK).pack()
    return head + zstandard.ZstdCompressor().compress(bytes(size))


def test_a_decompression_bomb_is_refused_in_bounded_space(world):
    member = world.bundle.variant.member("model")
    world.substitute("model", bomb(256 * 1024 * 1024, member.size, member.digest),
                     features=FEATURE_ZSTD)  # fmt: skip
    error = world.refused()
    assert (error.code, "unpacks to more than" in error.why) == ("OUT-T103", True)
    written = sum(path.stat().st_size for path in world.device.directory.rglob("*"))
    assert written < 2 * 1024 * 1024


@pytest.mark.parametrize("size", [2**53, 2**63, 4 * 1024**3])
def test_a_hint_that_claims_to_be_huge_is_not_followed(world, size):
    world.substitute("model", b"tiny", size=size)
    assert world.refused().code in ("OUT-T119", "OUT-T103")


def test_other_bytes_than_the_signed_ones_are_t103_though_every_digest_on_the_stick_fits(world):
    member = world.bundle.variant.member("model")
    head = Header(FEATURE_RAW, None, member.digest, member.size, MAX_BLOCK).pack()
    world.substitute("model", head + bytes(member.size), features=FEATURE_RAW)
    error = world.refused()
    assert error.code == "OUT-T103"
    assert "outrider export usb" in error.do
    assert not world.whole


@pytest.fixture
def update(world):
    """The device has the version before, and the stick a delta from it besides."""
    world.before = make_bundle(world.device.directory / "bundles", MODEL, "v0", weights_seed=5)
    world.parts.abilities |= FEATURE_PATCH
    member = world.bundle.variant.member("model")
    base = (world.before.path / member.path).read_bytes()
    delta = patch((world.bundle.path / member.path).read_bytes(), base)
    name = digest_of(delta)
    entry = HintEntry(name, len(delta), 1, FEATURE_PATCH, 10**6, digest_of(base))
    full = world.payloads[member.path].entry
    world.put(stick.hint(MODEL, member.digest), codec.encode(Hint((entry, full))))
    world.put(stick.payload(name), delta)
    world.delta, world.full = entry, full
    return world


def test_a_sticks_delta_installs(update):
    update.stick.joinpath(*stick.payload(update.full.payload)).unlink()
    update.install()
    assert update.whole
    directory = update.parts.disk.partial(update.bundle.digest)
    assert {path.name for path in directory.iterdir()} == {
        path.name for path in update.bundle.path.iterdir()
    }


def test_what_has_no_base_here_comes_whole_from_the_stick(update):
    shutil.rmtree(update.before.path)
    update.stick.joinpath(*stick.payload(update.delta.payload)).unlink()
    update.install()
    assert update.whole


@pytest.mark.parametrize("damage", ["the base", "the delta", "cut"])
def test_a_delta_that_does_not_become_the_file_costs_only_itself(update, damage):
    place = update.stick.joinpath(*stick.payload(update.delta.payload))
    if damage == "the base":
        model = update.before.path / "model.onnx"
        model.write_bytes(b"?" + model.read_bytes()[1:])
    elif damage == "the delta":
        place.write_bytes(place.read_bytes()[:-1] + b"?")
    else:
        place.write_bytes(place.read_bytes()[:-1])
    update.install()
    assert update.whole


def test_a_device_that_cannot_decode_deltas_takes_the_whole(update):
    update.parts.abilities = PLAIN_FEATURES
    update.stick.joinpath(*stick.payload(update.delta.payload)).unlink()
    update.install()
    assert update.whole


def test_a_stick_without_the_bundle_that_the_plan_names_is_t119(world):
    world.stick.joinpath(*stick.manifest(world.bundle.digest)).unlink()
    assert world.refused().code == "OUT-T119"


def test_a_stick_of_another_fleet_that_lies_about_it_is_t101(world, tmp_path):
    other = Fleet(tmp_path / "other")
    other.plan(MODEL, other.approve("toy/v1"))
    other.publish()
    for role, data in other.repository.metadata().items():
        world.put(stick.role(role), data)
    assert world.refused().code == "OUT-T101"
    assert not world.parts.trust.known


def test_a_description_that_cannot_be_read_is_t119(world):
    for said in (b"", b"{}", b"[" * 100_000, codec.encode({"v": 9})):
        world.put((stick.NOTE,), said)
        assert world.refused().code == "OUT-T119"


def test_what_is_denied_stays_out(world):
    from protocol.plan import Denied, DenyList

    world.fleet.later(hours=1)
    entry = Denied(MODEL, world.bundle.digest, "recalled")
    world.fleet.deny = codec.encode(DenyList(FLEET, 2, (entry,)))
    world.fleet.publish()
    world.write()
    machine = world.machine

    def decisions():
        orders = world.parts.orders
        trusted = Trusted(
            orders.plans[MODEL], orders.document, world.parts.trust.approvals, orders.deny.digests
        )
        return {MODEL: decide(MODEL, trusted, Local(0), Journal(MODEL), agent="1")}

    machine.decisions = decisions
    error = world.refused()
    assert error.code == "OUT-T105"
    assert not world.whole
    assert world.parts.trust.granted == frozenset()
