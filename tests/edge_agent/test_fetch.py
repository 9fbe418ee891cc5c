"""A bundle arrives whole, whatever the broker retains, loses, repeats or makes up.

Long because every kind of damage has its case, and all cases share one world.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.partial import Partial
from edge_agent.transfer import HOURS_CLOSED, NO_BUDGET
from protocol import codec
from protocol.approval import Approved, ApprovedBundle
from protocol.bundle import Needs
from protocol.identifiers import digest_of
from protocol.payload import FEATURE_RAW, FRAME_SIZE, MAX_BLOCK, Header, Hint, HintEntry
from protocol.reported import Progress
from tests.fakes.broker import Faults
from tests.fakes.fetching import DEVICE, TIMEOUT_S, TOPICS, WANT_S, Device, Purse, World, make_world
from tests.fakes.origin import Offer, offer, plain_bundle


@pytest.fixture(scope="module")
def offered(tmp_path_factory: pytest.TempPathFactory) -> Offer:
    origin = tmp_path_factory.mktemp("origin")
    return offer(plain_bundle(origin / "bundles"), origin / "payloads")


@pytest.fixture
def world(offered: Offer, tmp_path: Path) -> Iterator[World]:
    world = make_world(offered, tmp_path / "bundles")
    yield world
    world.device.stop()


# --- the straight way -------------------------------------------------------------------------


def test_a_bundle_arrives_with_all_its_files_and_nothing_else(world):
    world.finish()
    assert world.device.fetcher.status().problem is None
    assert world.device.fetcher.counters == {}
    assert world.device.wants() == []


def test_every_frame_is_asked_for_once(world):
    world.finish()
    topics = len(world.broker.retained)
    assert world.device.link.subscribes == topics


def test_wanting_it_again_changes_nothing(world):
    world.ensure()
    world.ensure()
    world.device.until(world.whole)
    world.ensure()
    world.device.turn()
    assert world.device.done


def test_what_is_wanted_no_more_is_unsubscribed(world):
    world.ensure()
    world.device.fetcher.tick(1.0)
    assert world.device.link.topics
    world.device.fetcher.forget()
    assert not world.device.link.topics
    assert world.device.fetcher.status().digest is None


def test_progress_counts_the_frames_of_the_file_that_is_coming(world):
    del world.broker.retained[world.topics_of_frames[-1]]
    world.ensure()
    world.device.turn()
    world.device.turn()
    world.device.until(lambda: world.device.fetcher.status().progress is not None)
    frames = world.model.entry.frames
    world.device.until(lambda: world.device.fetcher.status().progress.frames == frames - 1)
    assert world.device.fetcher.status().progress.of == frames


def test_messages_of_other_topics_are_not_the_fetchers(world):
    assert not world.device.fetcher.on_message(TOPICS.plan("toy"), b"{}")
    assert world.device.fetcher.on_message(TOPICS.manifest("toy", digest_of(b"")), b"?")


def test_a_file_that_another_bundle_has_is_linked_and_not_fetched(world, tmp_path):
    other = plain_bundle(world.device.bundles, version="v2")
    world.finish()
    here = world.device.partial(world.offer.bundle) / "model.onnx"
    assert here.samefile(other.path / "model.onnx")
    others = len(world.broker.retained) - len(world.topics_of_frames) - 2
    assert world.device.link.subscribes == others


def test_a_damaged_file_of_another_bundle_is_fetched(world):
    other = plain_bundle(world.device.bundles, version="v2")
    data = bytearray((other.path / "model.onnx").read_bytes())
    data[0] ^= 1
    (other.path / "model.onnx").write_bytes(data)
    world.finish()


def problem(world: World) -> str | None:
    held_up = world.device.fetcher.status().problem
    return held_up[0] if held_up else None


def asked(world: World) -> set[str]:
    return set(world.device.link.topics)


# --- what can be wrong ------------------------------------------------------------------------


def tampered(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


DAMAGE = {
    "tampered": tampered,
    "one byte longer": lambda data: data + b"x",
    "one byte shorter": lambda data: data[:-1],
    "megabytes": lambda data: bytes(2_000_000),
    "not JSON": lambda data: b"\xff\x00",
}


def targets(offered: Offer) -> dict[str, tuple[str, str]]:
    """What is damaged, and the code that says so."""
    bundle, encoded = offered.bundle, offered.payloads["model.onnx"]
    return {
        "index": (TOPICS.manifest("toy", bundle.digest), "OUT-T107"),
        "manifest": (TOPICS.manifest("toy", bundle.manifest), "OUT-T107"),
        "hint": (offered.hint("model.onnx"), "OUT-F103"),
        "frame list": (next(iter(offered.lists(encoded))), "OUT-F111"),
        "frame": (list(offered.frames(encoded))[3], "OUT-F102"),
        "last frame": (list(offered.frames(encoded))[-1], "OUT-F102"),
    }


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("what", ["index", "manifest", "hint", "frame list", "frame", "last frame"])
def test_damage_is_counted_and_the_bundle_arrives_once_it_is_repaired(world, what, damage):
    topic, code = targets(world.offer)[what]
    good = world.broker.retained[topic]
    world.broker.retained[topic] = damage(good)
    world.ensure()
    world.device.until(lambda: world.device.fetcher.counters.get(code))
    assert not world.device.done
    world.broker.retained[topic] = good
    world.device.until(world.whole, turns=2000)


@pytest.mark.parametrize("what", ["index", "manifest", "hint", "frame list", "frame"])
def test_damage_that_stays_is_never_a_tight_loop(world, what):
    topic, code = targets(world.offer)[what]
    world.broker.retained[topic] = tampered(world.broker.retained[topic])
    world.ensure()
    hour = 3600
    for _ in range(hour):
        world.device.turn(1)
    assert 3 <= world.device.fetcher.counters[code] <= 150
    assert not world.device.done
    assert len(world.device.wants()) <= hour / WANT_S + 1


def test_a_tampered_frame_makes_the_device_ask_for_a_look(world):
    topic, code = targets(world.offer)["frame"]
    world.broker.retained[topic] = tampered(world.broker.retained[topic])
    world.ensure()
    world.device.until(lambda: world.device.fetcher.counters[code] >= 3)
    (want,) = world.device.wants()
    assert want.payload == world.model.entry.payload
    assert any(low <= 3 <= high for low, high in want.ranges)


def test_a_lost_frame_is_wanted_and_accepted_when_it_is_published_again(world):
    topic = world.topics_of_frames[4]
    frame = world.broker.retained.pop(topic)
    world.ensure()
    world.device.until(world.device.wants)
    assert problem(world) == "OUT-F101"
    assert world.device.wants()[0].ranges == ((4, 4),)
    world.broker.publish(topic, frame, qos=1, retain=True)
    world.device.until(world.whole, turns=30)


def test_a_lost_hint_is_accepted_as_soon_as_it_is_published(world):
    topic = world.offer.hint("model.onnx")
    hint = world.broker.retained.pop(topic)
    world.ensure()
    world.device.until(lambda: world.device.fetcher.status().problem)
    assert problem(world) == "OUT-F101"
    world.broker.publish(topic, hint, qos=1, retain=True)
    world.device.until(world.whole, turns=60, step=0)


def test_time_without_a_connection_does_not_count(world):
    world.broker.retained.pop(world.topics_of_frames[0])
    world.ensure()
    for _ in range(3):
        world.device.turn()
    world.broker.stop()
    for _ in range(100):
        world.device.turn(60)
    assert problem(world) == "OUT-N102"
    assert world.device.fetcher.counters == {}
    world.broker.start()
    world.device.until(world.device.wants)


@given(st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0, 0.5), st.integers(0, 2**16))
@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_dropped_repeated_and_reordered_messages_only_delay(
    offered, tmp_path, drop, duplicate, reorder, seed
):
    bundles = tmp_path / str(seed)
    shutil.rmtree(bundles, ignore_errors=True)
    world = make_world(offered, bundles, Faults(drop, duplicate, reorder))
    world.ensure()
    world.device.until(world.whole, turns=2000, step=5)
    world.device.stop()


def test_a_cut_link_only_delays(world):
    world.ensure()
    while not world.whole():
        world.device.fetcher.tick(world.device.now)
        for _ in range(3):
            world.broker._step()
        world.device.fetcher._worker.wait(20)
        world.broker.cut(DEVICE)
        world.device.now += 0.1


# --- hints that cannot be believed --------------------------------------------------------------


def with_hint(world: World, *entries: HintEntry) -> None:
    world.broker.retained[world.offer.hint("model.onnx")] = codec.encode(Hint(entries))


def other_payload(world: World, data: bytes) -> HintEntry:
    """An entry for the model whose frames are whatever somebody made up."""
    frames = [data[at : at + FRAME_SIZE] for at in range(0, len(data), FRAME_SIZE)]
    joined = b"".join(bytes.fromhex(digest_of(frame)[7:]) for frame in frames)
    entry = HintEntry(digest_of(joined), len(data), len(frames), FEATURE_RAW, MAX_BLOCK)
    for number, frame in enumerate(frames):
        world.broker.retained[TOPICS.frame("toy", entry.payload, number)] = frame
    world.broker.retained[TOPICS.frame_list("toy", entry.payload, 0)] = joined
    return entry


def test_entries_that_cannot_be_used_are_skipped_without_a_request(world):
    good = world.model.entry
    size = len(world.offer.bundle.files["model.onnx"])
    too_large = int(size * 1.02) + 2 * FRAME_SIZE
    skipped = [
        replace(good, payload=digest_of(b"future"), features=1 << 9),
        replace(
            good,
            payload=digest_of(b"large"),
            size=too_large,
            frames=-(-too_large // FRAME_SIZE),
        ),
        replace(good, payload=digest_of(b"base"), base=digest_of(b"which")),
        replace(good, payload=digest_of(b"memory"), decode_memory=10**9),
    ]
    with_hint(world, *skipped, good)
    seen: list[str] = []
    world.device.link.subscribe = spying(world.device.link.subscribe, seen)
    world.finish()
    assert not [t for t in seen for entry in skipped if entry.payload in t]


def spying(subscribe: Callable[..., None], seen: list[str]) -> Callable[..., None]:
    def spy(topics: list[str], qos: int = 0) -> None:
        seen.extend(topics)
        subscribe(topics, qos)

    return spy


def test_only_unusable_entries_are_reported_and_asked_about_slowly(world):
    with_hint(world, replace(world.model.entry, features=1 << 9))
    world.ensure()
    for _ in range(600):
        world.device.turn(1)
    assert problem(world) == "OUT-F101"
    assert world.device.fetcher.counters["OUT-F101"] < 20


def forged(world: World) -> bytes:
    file = world.offer.bundle.files["model.onnx"]
    digest = digest_of(file)
    return Header(FEATURE_RAW, None, digest, len(file), MAX_BLOCK).pack() + bytes(len(file))


BAD_PAYLOADS = {
    "another file": (forged, "OUT-T103"),
    "no payload at all": (lambda world: b"?" * 100_000, "OUT-F110"),
}


@pytest.mark.parametrize("make, code", BAD_PAYLOADS.values(), ids=BAD_PAYLOADS)
def test_a_payload_that_is_not_the_signed_file_is_dropped_for_the_next_one(world, make, code):
    bad = other_payload(world, make(world))
    with_hint(world, bad, world.model.entry)
    world.finish()
    assert world.device.fetcher.counters == {code: 1}


def test_a_payload_that_did_not_decode_is_never_fetched_again(world):
    with_hint(world, other_payload(world, forged(world)))
    world.ensure()
    for _ in range(3600):
        world.device.turn(1)
    assert world.device.fetcher.counters["OUT-T103"] == 1
    assert problem(world) == "OUT-F101"
    with_hint(world, world.model.entry)
    world.device.until(world.whole, turns=4000)


def test_a_cleared_frame_means_the_next_payload(world):
    gone = other_payload(world, forged(world))
    with_hint(world, gone, world.model.entry)
    for number in range(1, gone.frames):
        del world.broker.retained[TOPICS.frame("toy", gone.payload, number)]
    world.ensure()
    world.device.until(lambda: TOPICS.frame("toy", gone.payload, 1) in asked(world))
    world.broker.publish(TOPICS.frame("toy", gone.payload, 1), b"", qos=1, retain=True)
    world.device.until(world.whole, turns=30)
    assert world.device.fetcher.counters == {"OUT-F101": 1}


def test_silence_means_the_next_payload(world):
    silent = other_payload(world, forged(world))
    with_hint(world, silent, world.model.entry)
    for number in range(silent.frames):
        del world.broker.retained[TOPICS.frame("toy", silent.payload, number)]
    world.ensure()
    world.device.until(world.whole, turns=60)
    assert [want.payload for want in world.device.wants()] == [silent.payload]


# --- restarts and disks -----------------------------------------------------------------------


def test_a_restart_at_any_frame_goes_on_with_what_lies_there(offered, tmp_path):
    frames = list(offered.frames(offered.payloads["model.onnx"]))
    for number in range(len(frames) + 1):
        world = make_world(offered, tmp_path / str(number))
        kept = dict(world.broker.retained)
        for topic in frames[number:]:
            del world.broker.retained[topic]
        world.ensure()
        reached(world.device, number)
        world.device.stop()
        world.broker.retained = {t: d for t, d in kept.items() if t not in frames[:number]}
        world.device.start()
        world.finish()
        world.device.stop()


def reached(device: Device, frames: int) -> None:
    device.until(lambda: device.done or arrived(device) >= frames)


def arrived(device: Device) -> int:
    progress = device.fetcher.status().progress
    return progress.frames if progress is not None and progress.of > 1 else -1


def test_what_was_damaged_on_disk_meanwhile_is_fetched_again(world):
    missing = world.topics_of_frames[-1]
    last = world.broker.retained.pop(missing)
    world.ensure()
    world.device.until(lambda: arrived(world.device) == world.model.entry.frames - 1)
    world.device.stop()
    (file,) = world.device.partial(world.offer.bundle).glob(".p-*[0-9a-f]")
    data = bytearray(file.read_bytes())
    data[FRAME_SIZE + 5] ^= 1
    file.write_bytes(data)
    world.broker.retained[missing] = last
    world.device.start()
    world.finish()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_reported_and_keeps_what_came(world, monkeypatch, code):
    write = Partial.write
    full = True

    def failing(self: Partial, number: int, frame: bytes) -> None:
        if full and number == 5:
            raise OSError(code, "full")
        write(self, number, frame)

    monkeypatch.setattr(Partial, "write", failing)
    world.ensure()
    world.device.until(lambda: world.device.fetcher.status().problem)
    assert problem(world) == "OUT-D201"
    assert arrived(world.device) >= 4
    full = False
    world.device.until(world.whole)


def test_a_disk_that_is_full_while_decoding_keeps_the_payload(world, monkeypatch):
    def failing(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("edge_agent.members.decode", failing)
    world.ensure()
    world.device.until(lambda: world.device.fetcher.counters["OUT-D201"] >= 2)
    assert list(world.device.partial(world.offer.bundle).glob(".p-*"))
    monkeypatch.undo()
    world.device.until(world.whole, turns=2000)


# --- what is refused before anything is fetched -----------------------------------------------


def test_what_is_not_approved_is_not_fetched(world):
    world.device.approvals.clear()
    world.ensure()
    world.device.turn()
    assert problem(world) == "OUT-T104"
    assert not world.device.link.topics
    world.device.approvals[world.offer.bundle.digest] = world.offer.bundle.approved
    world.device.until(world.whole)


def test_what_is_revoked_is_not_fetched(world):
    digest = world.offer.bundle.digest
    world.device.approvals[digest] = ApprovedBundle("toy", "v1", digest, Approved("revoked"))
    world.ensure()
    world.device.turn()
    assert problem(world) == "OUT-T105"


def test_a_bundle_without_a_fitting_variant_says_so(tmp_path):
    bundle = plain_bundle(tmp_path / "origin", needs=Needs(arch=("riscv64",)))
    world = make_world(offer(bundle, tmp_path / "payloads"), tmp_path / "bundles")
    world.ensure()
    world.device.until(lambda: world.device.fetcher.status().problem)
    assert problem(world) == "OUT-D302"
    world.device.stop()


def test_a_link_that_is_away_for_long_is_what_holds_a_download_up(world):
    world.ensure()
    world.device.turn()
    world.broker.stop()
    world.device.turn(1)
    world.device.turn(TIMEOUT_S - 2)
    assert problem(world) is None
    world.device.turn(2)
    assert problem(world) == "OUT-N102"
    world.broker.start()
    world.finish()
    assert problem(world) is None


# --- budgets and hours ------------------------------------------------------------------------


@pytest.fixture
def poor(offered: Offer, tmp_path: Path) -> Iterator[tuple[World, Purse]]:
    purse = Purse(0)
    world = make_world(offered, tmp_path / "bundles")
    world.device.stop()
    world.device.permits = purse
    world.device.start()
    yield world, purse
    world.device.stop()


def frames_asked(world: World, payload: str = "") -> int:
    topics = world.device.link.asked.items()
    return sum(times for topic, times in topics if f"/frames/toy/{payload}" in topic)


def hour(world: World) -> None:
    for _ in range(3600):
        world.device.turn(1)


def test_without_budget_no_frame_is_asked_for_and_no_loop_begins(poor):
    world, purse = poor
    world.ensure()
    world.device.until(lambda: problem(world) == NO_BUDGET)
    before = world.device.link.subscribes
    hour(world)
    assert frames_asked(world) == 0
    assert world.device.link.subscribes == before
    assert world.device.wants() == []
    assert world.device.fetcher.counters == {}, "waiting as told is nobody's fault"
    purse.left = 10**9
    world.device.until(world.whole)
    assert problem(world) is None


def test_outside_its_hours_a_download_pauses_and_goes_on_where_it_was(poor):
    world, purse = poor
    purse.left = 10**9
    world.ensure()
    world.device.until(lambda: frames_asked(world) >= 4, step=0)
    purse.closed = True
    world.device.turn(1)
    at_closing = frames_asked(world)
    hour(world)
    assert problem(world) == HOURS_CLOSED
    assert frames_asked(world) == at_closing
    purse.closed = False
    world.finish()


def test_a_budget_for_the_smaller_payload_is_never_spent_on_the_larger_one(poor):
    world, purse = poor
    small = world.model.entry
    large = other_payload(world, bytes(small.size + 10_000))
    with_hint(world, large, small)
    purse.left = small.size
    world.ensure()
    world.device.until(world.whole)
    assert frames_asked(world, large.payload) == 0
    assert frames_asked(world, small.payload) > 0


def test_what_lies_here_already_needs_no_budget(poor):
    world, purse = poor
    purse.left = 10**9
    world.ensure()
    del world.broker.retained[world.topics_of_frames[-1]]
    last = world.model.entry.frames - 1
    world.device.until(lambda: Progress(last, last + 1) == world.device.fetcher.status().progress)
    world.broker.retained = world.offer.retained()
    world.device.stop()
    world.device.start()
    purse.left = FRAME_SIZE
    world.finish()
