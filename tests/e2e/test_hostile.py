"""What attackers and faults send to a device, each with everything real around it.

Every case ends in a state that the API shows, with a reason; what runs goes on answering; and as
soon as the truth is told again the device converges.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from control_plane.demo.fleet import Device
from control_plane.fleet.devices import document_of
from control_plane.rollout.plan import terms
from control_plane.wiring import now_ms
from protocol import codec
from protocol.plan import Plan
from protocol.topics import Topics, shard_of
from tests.fakes.site import Site, flipped, other_signature
from tests.fakes.whole_fleet import (
    MODEL,
    FleetHere,
    application,
    ready,
    runners,
    short_folder,
)

pytestmark = pytest.mark.e2e

UNKNOWN = "teleport/1"
SMALL_DISK = 8 * 1024 * 1024


@pytest.fixture(scope="module")
def fleet() -> Iterator[FleetHere]:
    with short_folder() as folder, FleetHere(folder) as fleet:
        fleet.initialise()
        fleet.start_control_plane()
        with contextlib.ExitStack() as mounts:
            # Of a full disk, a small one is full soonest.
            small = folder / "h-2"
            small.mkdir()
            if _mounted(small):
                mounts.callback(subprocess.run, ["umount", "-l", str(small)], check=False)
            fleet.enrol({"x": ("h-1", "h-2")})
            yield fleet
            fleet.stop()


def _mounted(folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def stable(fleet: FleetHere) -> Site:
    """v1 is what `h-1` runs when it is told nothing else."""
    site = Site(fleet)
    site.begin()
    return site


@pytest.fixture
def site(stable: Site) -> Iterator[Site]:
    with stable.besieged():
        yield stable


# --- payloads -----------------------------------------------------------------------------------

ON_THE_WAY = {
    "frame": ("frames/", lambda topic: "/i" not in topic, "OUT-F102"),
    "frame list": ("frames/", lambda topic: "/i" in topic, "OUT-F111"),
    "hint": ("payloads/", lambda topic: True, "OUT-F103"),
    "index and manifest": ("manifests/", lambda topic: True, "OUT-T107"),
}


@pytest.mark.parametrize("part", ON_THE_WAY)
def test_a_tampered_part_of_a_bundle_is_never_used(site, part):
    start, _, code = ON_THE_WAY[part]
    before = site.counters().get(code, 0)
    lists = part == "frame list"
    # Lists are whole digests; frames of a model this small are not.
    only = {"frames/": lambda data: flipped(data) if (len(data) == 32) == lists else data}
    site.lies |= only if start == "frames/" else {start: _broken_json}
    version = site.ship_next()
    site.pin(site.device, version)
    site.until_counted(code, before)
    site.until_more(site.device.application)
    assert not site.runs(site.device, version)
    site.tell_the_truth()
    site.until_runs(site.device, version)


def _broken_json(data: bytes) -> bytes:
    return data[:-1]


# --- what is signed -----------------------------------------------------------------------------


def test_a_tampered_timestamp_is_refused(site):
    topic = site.topics.tuf("timestamp")
    site.say(topic, other_signature(site.retained(topic)))
    site.until_refused("metadata", "OUT-T101")
    site.tell_the_truth()
    site.until_content()


def test_a_tampered_role_is_waited_out_and_reported(site):
    before = site.reported(site.device)["trust"]["models"]
    site.lies["tuf/models"] = flipped
    version = site.ship_next()
    site.until_refused("metadata", "OUT-T109")
    assert site.reported(site.device)["trust"]["models"] == before
    site.tell_the_truth()
    site.until_content()
    site.pin(site.device, version)
    site.until_runs(site.device, version)


def test_a_tampered_plan_and_deny_list_are_not_followed_and_reported(site):
    version = site.ship_next()
    number = site.reported(site.device)["models"][MODEL]["plan_number"]
    site.unpin(site.device)
    site.lies[f"plans/{MODEL}"] = flipped
    site.say(site.topics.deny, flipped(site.retained(site.topics.deny)))
    rollout = site.roll_out(version)
    site.until_refused(f"plan-{MODEL}", "OUT-T106")
    site.until_refused("deny list", "OUT-T106")
    assert site.reported(site.device)["models"][MODEL]["plan_number"] == number
    site.tell_the_truth()
    site.until_runs(site.device, version)
    site.until_ended(rollout)


def test_a_tampered_document_is_refused(site):
    topic = site.topics.document(f"{site.topics.fleet}-{site.device.name}")
    site.say(topic, other_signature(site.retained(topic)))
    site.until_refused("document", "OUT-T102")
    site.tell_the_truth()
    site.until_content()


def test_a_document_from_the_future_is_refused_by_name(site):
    row = site.control.store.devices.get(site.device.name)
    assert row is not None
    honest = document_of(site.topics.fleet, row)
    later = replace(
        honest,
        version=honest.version + 1,
        must_understand=(*honest.must_understand, UNKNOWN),
    )
    site.say(site.topics.document(row.id), site.control.repository.sign_document(later))
    site.until_refused("document", "OUT-D330", UNKNOWN)
    assert site.reported(site.device)["document_version"] == honest.version
    site.tell_the_truth()
    site.until_content()


@pytest.mark.parametrize("listed", [True, False], ids=["its metadata says so", "only it says so"])
def test_a_plan_from_the_future_is_refused_by_name(site, monkeypatch, listed):
    rows = {row.model: row for row in site.control.store.plans.all()}
    honest = codec.decode_signed(rows[MODEL].data, Plan, limit=codec.MAX_PLAN)
    later = replace(
        honest,
        version=honest.version + 1,
        must_understand=(*honest.must_understand, UNKNOWN),
    )
    data = codec.encode(later)
    control = site.control
    with monkeypatch.context() as patched:
        # Otherwise its next tick signs the honest plan again.
        patched.setattr(control.ticker, "tick", lambda _now_ms: None)
        deny = site.retained(site.topics.deny)
        about = terms(later if listed else honest)
        control.repository.publish({MODEL: (data, about)}, deny, now_ms())
        control.publisher.keep(site.topics.plan(MODEL), data)
        control.publisher.keep_metadata(control.repository.roots(), control.repository.metadata())
        control.loop.wake()
        refused = f"rollouts/plan-{MODEL}" if listed else f"plan-{MODEL}"
        site.until_refused(refused, "OUT-D330", UNKNOWN)
    version = site.ship_next()
    site.unpin(site.device)
    rollout = site.roll_out(version)
    site.until_runs(site.device, version)
    site.until_ended(rollout)


# --- garbage ------------------------------------------------------------------------------------

GARBAGE = (
    b"",
    b"{}",
    b"null",
    b"\x00" * 16,
    b"[" * 100_000,
    b'{"v":1e999}',
    random.Random(7).randbytes(70_000),
    b'{"signatures":[],"signed":{}}',
    b"9" * 2_000_000,
)


def test_garbage_on_every_topic_that_a_device_listens_to_is_counted_and_forgotten(site):
    device = f"{site.topics.fleet}-{site.device.name}"
    before = sum(site.counters().values()) - site.counters().get("answers", 0)
    for topic in _listened(site.topics, device):
        for data in GARBAGE:
            site.say(topic, data, retain=False)
    version = site.ship_next()
    site.tell_the_truth()
    site.pin(site.device, version)
    site.until_runs(site.device, version)
    assert sum(site.counters().values()) - site.counters().get("answers", 0) > before


def _listened(topics: Topics, device: str) -> list[str]:
    return [
        topics.tuf("timestamp"),
        topics.root(2),
        topics.deny,
        topics.document(device),
        topics.ack(device),
        topics.ingest(shard_of(device)),
    ]


# --- bundles that are signed and yet no good ----------------------------------------------------

BAD_MODELS: dict[str, dict[str, Any]] = {
    "cut short": {"damage": lambda data: data[: len(data) // 2]},
    "no ONNX at all": {"damage": lambda data: b"not a model"},
    "of an opset to come": {"opset": 99},
}


@pytest.mark.parametrize("fault", BAD_MODELS)
def test_a_model_that_cannot_be_loaded_is_rejected_and_the_one_before_goes_on(site, fault):
    site.unpin(site.device)
    site.until_heads_for(site.stable)
    version, bad = site.ship_bad(**BAD_MODELS[fault])
    site.pin(site.device, version)
    site.until(site.device, lambda: bad in site.notes(), f"done with {version}")
    note, shown = site.notes()[bad], site.model(site.device)
    assert (note["reason"], note["definite"]) == ("OUT-D302", True), note
    assert note["detail"]
    assert (shown["state"], shown["why"]) == ("failed", "OUT-D302"), shown
    assert shown["runs"] == f"{MODEL}/{site.stable}"
    site.unpin(site.device)
    site.until_heads_for(site.stable)


# --- a full disk --------------------------------------------------------------------------------


def test_a_full_disk_is_reported_and_what_runs_goes_on(site):
    small = site.fleet.devices["h-2"]
    if not small.home.is_mount():
        pytest.skip("only root can mount a small disk")
    site.pin(small, "v1")
    site.fleet.start_agent(small)
    site.until(small, lambda: ready(small), "ready")
    answering = application(small)
    site.until_runs(small, "v1")
    version = site.ship_next()
    # Room for records, none for a bundle.
    _fill(small.home / "ballast", leave=700_000)
    site.pin(small, version)
    site.until(small, lambda: site.model(small)["why"] == "OUT-D201", "short of disk")
    assert site.model(small)["runs"] == f"{MODEL}/v1"
    # No room for anything: counts wait in the runner.
    _fill(small.home / "ballast-2", leave=0)
    before = answering.tally.answered
    site.until(small, lambda: "buffer" in _refused_there(site, small), "without a buffer")
    site.until_more(answering)
    assert answering.tally.answered > before
    (small.home / "ballast").unlink()
    (small.home / "ballast-2").unlink()
    site.until(small, lambda: site.refused(small) == {}, "content")
    again = site.ship_next()
    site.pin(small, again)
    site.until_runs(small, again)
    answering.stop()
    answered = answering.tally.answered
    site.until(small, lambda: site.stored(small) == answered, f"stored at {answered}")
    assert answering.tally.failures == []
    assert len(runners(small)) == 1


def _fill(ballast: Path, leave: int) -> None:
    """Take all room of the disk but `leave` bytes."""
    found = os.statvfs(ballast.parent)
    with contextlib.suppress(OSError), ballast.open("wb") as file:
        file.write(bytes(max(found.f_bavail * found.f_frsize - leave, 0)))
    if not leave:
        # What was freed or rounded in between.
        with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(512))


def _refused_there(site: Site, device: Device) -> set[str]:
    """What the device says on the spot: it can record no state now."""
    status = site.fleet.status(device) or {}
    return {each["what"] for each in status.get("state", {}).get("refused", ())}
