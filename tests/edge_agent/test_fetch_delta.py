"""A delta is tried once, costs no more than itself when it fails, and never begins a loop."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from edge_agent import fetch, members
from edge_agent.decode import decode
from edge_agent.transfer import NO_BUDGET
from protocol import codec
from protocol.errors import Unavailable
from protocol.identifiers import digest_of
from protocol.payload import (
    FEATURE_PATCH,
    FRAME_SIZE,
    PLAIN_FEATURES,
    Hint,
    HintEntry,
)
from tests.fakes.fetching import TOPICS, Purse, World, make_world
from tests.fakes.origin import Offer, PlainBundle, offer, plain_bundle
from tests.fakes.patching import patch

BEFORE = random.Random(1).randbytes(300_000)
AFTER = BEFORE[:100_000] + b"a few bytes that are new" + BEFORE[100_000:]
WRONG = AFTER[:-1] + bytes([AFTER[-1] ^ 1])


@dataclass
class Update:
    """A device that has a bundle, and is offered the next one as a delta and whole."""

    world: World
    before: PlainBundle
    delta: HintEntry
    full: HintEntry

    def restart(self, **changes: object) -> None:
        self.world.device.stop()
        for name, value in changes.items():
            setattr(self.world.device, name, value)
        self.world.device.start()
        self.world.ensure()

    def offer(self, *entries: HintEntry) -> None:
        hint = self.world.offer.hint("model.onnx")
        self.world.broker.retained[hint] = codec.encode(Hint(entries))

    def asked(self, entry: HintEntry) -> int:
        topics = self.world.device.link.asked.items()
        return sum(times for topic, times in topics if f"/frames/toy/{entry.payload}" in topic)

    @property
    def counters(self) -> dict[str, int]:
        return dict(self.world.device.fetcher.counters)

    @property
    def here(self) -> Path:
        return self.world.device.partial(self.world.offer.bundle)


def publish(world: World, data: bytes, base: bytes | None = BEFORE) -> HintEntry:
    frames = [data[at : at + FRAME_SIZE] for at in range(0, len(data), FRAME_SIZE)]
    joined = b"".join(bytes.fromhex(digest_of(frame)[7:]) for frame in frames)
    start = None if base is None else digest_of(base)
    entry = HintEntry(digest_of(joined), len(data), len(frames), FEATURE_PATCH, 10**6, start)
    for number, frame in enumerate(frames):
        world.broker.retained[TOPICS.frame("toy", entry.payload, number)] = frame
    world.broker.retained[TOPICS.frame_list("toy", entry.payload, 0)] = joined
    return entry


@pytest.fixture(scope="module")
def offered(tmp_path_factory: pytest.TempPathFactory) -> Offer:
    origin = tmp_path_factory.mktemp("origin")
    bundle = plain_bundle(origin / "bundles", onnx=AFTER, version="v2")
    return offer(bundle, origin / "payloads")


@pytest.fixture
def update(offered: Offer, tmp_path: Path) -> Iterator[Update]:
    world = make_world(offered, tmp_path / "bundles")
    before = plain_bundle(world.device.bundles, onnx=BEFORE)
    delta = publish(world, patch(AFTER, BEFORE))
    full = world.model.entry
    found = Update(world, before, delta, full)
    found.offer(delta, full)
    found.restart(known=PLAIN_FEATURES | FEATURE_PATCH)
    yield found
    world.device.stop()


def test_a_delta_from_what_the_device_runs_becomes_the_signed_file(update):
    update.world.finish()
    assert update.asked(update.full) == 0
    assert update.counters == {}
    assert update.world.device.fetcher.fetched["fetched delta bytes"] == update.delta.size


def test_an_agent_that_cannot_decode_deltas_never_tries_one(update):
    update.restart(known=PLAIN_FEATURES)
    update.world.finish()
    assert update.asked(update.delta) == 0


def test_a_delta_from_what_is_not_here_is_never_tried(update):
    shutil.rmtree(update.before.path)
    update.world.finish()
    assert update.asked(update.delta) == 0


def test_a_damaged_base_only_costs_the_delta(update):
    model = update.before.path / "model.onnx"
    model.write_bytes(b"?" + BEFORE[1:])
    update.world.finish()
    assert update.counters == {"OUT-F104": 1}


def test_a_base_is_held_until_its_delta_is_decoded(update):
    frames = [topic for topic in update.world.broker.retained if update.delta.payload in topic]
    kept = {topic: update.world.broker.retained.pop(topic) for topic in frames}
    update.offer(update.delta)
    update.world.device.until(lambda: list(update.here.glob(".b-*")))
    shutil.rmtree(update.before.path)
    update.world.broker.retained |= kept
    update.restart()
    update.world.finish()
    assert update.asked(update.full) == 0


def test_nothing_is_left_of_a_delta_but_the_file(update):
    update.world.finish()
    assert {path.name for path in update.here.iterdir()} == set(update.world.offer.bundle.files)


def test_of_a_delta_that_was_no_good_only_the_refusal_is_left(update):
    bad = publish(update.world, patch(WRONG, BEFORE, AFTER))
    update.offer(bad, update.full)
    update.world.finish()
    left = {path.name for path in update.here.iterdir()} - set(update.world.offer.bundle.files)
    assert left == {f".x-{bad.payload}", f".b-{digest_of(BEFORE)}"}


def test_a_payload_that_decodes_to_something_else_is_never_tried_again_also_after_a_restart(update):
    bad = publish(update.world, patch(WRONG, BEFORE, AFTER))
    update.offer(bad)
    update.world.device.until(lambda: update.counters.get("OUT-T103"))
    update.restart()
    for _ in range(600):
        update.world.device.turn(5)
    assert update.asked(bad) == 0
    assert "OUT-T103" not in update.counters
    update.offer(bad, update.full)
    update.world.device.until(update.world.whole, turns=4000)
    assert update.asked(bad) == 0


def test_with_only_bad_payloads_the_fetch_pauses_and_asks_for_nothing(update):
    update.offer(publish(update.world, b"no payload" * 100))
    update.world.device.until(lambda: update.counters.get("OUT-F110"))
    for _ in range(720):
        update.world.device.turn(5)
    assert update.counters["OUT-F110"] == 1
    assert update.counters["OUT-F101"] < 30
    assert update.world.device.fetcher.status().problem[0] == "OUT-F101"


def test_decoding_that_is_cut_short_is_tried_again_and_not_for_ever(update, monkeypatch):
    tries = []

    def dying(payload: Path, *rest: object, **more: object) -> None:
        if update.delta.payload in payload.name:
            tries.append(payload)
            raise Unavailable("OUT-F109", "signal 9")
        decode(payload, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(members, "decode", dying)
    update.world.device.until(update.world.whole, turns=2000)
    assert len(tries) == fetch.MOST_DEATHS
    assert update.asked(update.delta) == update.delta.frames + 1, "one list, and no frame twice"


def test_a_payload_that_the_disk_has_damaged_is_no_bad_one(update, monkeypatch):
    """Fetched again is what is wrong, and nothing else."""
    tries = []

    def damaging(payload: Path, *rest: object, **more: object) -> None:
        if update.delta.payload in payload.name:
            tries.append(payload)
            if len(tries) == 1:
                with payload.open("r+b") as file:
                    file.seek(-1, os.SEEK_END)
                    file.write(b"?")
        decode(payload, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(members, "decode", damaging)
    update.world.finish()
    assert (len(tries), update.asked(update.full)) == (2, 0)
    assert update.counters == {"OUT-F109": 1}
    assert not list(update.here.glob(".x-*"))


def test_a_delta_that_fits_the_budget_is_taken_where_the_full_one_does_not(update):
    update.offer(update.full, update.delta)
    update.restart(permits=Purse(update.delta.size + 20_000))
    update.world.finish()
    assert update.asked(update.full) == 0


def test_after_a_refused_delta_the_full_payload_waits_for_its_budget(update):
    bad = publish(update.world, patch(WRONG, BEFORE, AFTER))
    purse = Purse(bad.size + 20_000)
    update.offer(bad, update.full)
    update.restart(permits=purse)
    device = update.world.device
    device.until(lambda: (device.fetcher.status().problem or "?")[0] == NO_BUDGET)
    for _ in range(100):
        device.turn(60)
    assert update.asked(update.full) == 0
    purse.left = 10**9
    device.until(update.world.whole)


def test_entries_that_need_more_memory_than_there_is_are_not_tried(update):
    large = replace(update.delta, decode_memory=8_000_001)
    update.offer(large, update.full)
    update.world.finish()
    assert update.asked(large) == 0
