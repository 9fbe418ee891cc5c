"""What a power cut, a full disk or a bad card may do to the files of trust, file by file.

Rollback protection rests on three of them: the trusted set, the high-water marks, and a copy of
the marks. Any one may be lost, at any length, and any two but the last that knows a version.
"""

import json
import os
from pathlib import Path

import pytest

from edge_agent import durable
from edge_agent.orders import Orders
from edge_agent.trust import Trust
from protocol.errors import TrustError, Unavailable
from protocol.identifiers import digest_of
from tests.fakes.fleet_trust import DEVICE, FLEET, TOPICS, Device
from tests.fakes.forgery import damage, next_publication

FILES = ("trusted.json", "marks.json", "marks.copy.json")


@pytest.fixture
def old(fleet, device):
    """What was trusted before; the device knows better by now."""
    before = dict(fleet.broker)
    next_publication(fleet)
    device.read(fleet.broker)
    return before


def content(device: Device) -> dict[str, bytes]:
    return {name: (device.directory / "tuf" / name).read_bytes() for name in FILES}


def restore(device: Device, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (device.directory / "tuf" / name).write_bytes(data)


def refuses(device: Device, old: dict[str, bytes]) -> None:
    with pytest.raises((TrustError, Unavailable)) as caught:
        device.read(old)
    assert caught.value.code in ("OUT-T101", "OUT-T109")
    revoked = device.trust.approvals.get(digest_of(b"index of digits/v1"))
    assert revoked is None or revoked.revoked


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_at_any_length_gives_nothing_older_a_chance(fleet, device, old, name):
    whole = content(device)
    length = len(whole[name])
    # Every length near both ends, and a sample of those between: each costs a verification.
    near = {*range(40), *range(length - 40, length)}
    cuts = sorted(cut for cut in near | set(range(0, length, 211)) if 0 <= cut < length)
    for cut in cuts:
        restore(device, whole)
        (device.directory / "tuf" / name).write_bytes(whole[name][:cut])
        device.restart()
        refuses(device, old)
    assert device.read(fleet.broker) or device.trust.approvals
    assert device.trust.approvals[digest_of(b"index of digits/v1")].revoked


@pytest.mark.parametrize("cut", [None, b"", b"{", b"\0" * 4096])
@pytest.mark.parametrize("name", FILES)
def test_one_file_lost_is_made_good(fleet, device, old, name, cut):
    damage(device.directory / "tuf" / name, cut)
    device.restart()
    refuses(device, old)
    fleet.later(hours=1)
    fleet.publish()
    device.read(fleet.broker)
    # All three are as they should be: now any other one may be lost.
    for other in FILES:
        whole = content(device)
        damage(device.directory / "tuf" / other, b"")
        device.restart()
        refuses(device, old)
        restore(device, whole)


@pytest.mark.parametrize("kept", FILES)
def test_any_one_file_that_is_left_protects(fleet, device, old, kept):
    for name in FILES:
        if name != kept:
            damage(device.directory / "tuf" / name, None)
    device.restart()
    refuses(device, old)
    assert device.read(fleet.broker) or device.trust.known


def test_with_all_three_lost_the_floor_of_trusted_time_still_stands(fleet, device, old):
    """What is left of protection: metadata that was current long ago has expired since."""
    fleet.later(days=5)
    fleet.publish()
    device.machine.synchronised = False
    device.read(fleet.broker)
    for name in FILES:
        damage(device.directory / "tuf" / name, None)
    device.restart()
    assert not device.trust.known
    with pytest.raises(Unavailable, match="T121"):
        device.read(old)
    assert device.read(fleet.broker)


def test_with_everything_lost_a_recent_set_is_taken_like_on_a_new_device(fleet, device, old):
    """Said by a test, because it is the limit: a device without memory has none."""
    for name in FILES:
        damage(device.directory / "tuf" / name, None)
    damage(device.directory / "clock.json", None)
    device.restart()
    assert device.read(old)
    assert device.read(fleet.broker)
    assert device.trust.approvals[digest_of(b"index of digits/v1")].revoked


# --- plans and documents, which only the marks know ---------------------------------------------


@pytest.mark.parametrize("lost", ["marks.json", "marks.copy.json", "trusted.json"])
def test_an_older_document_stays_refused_whichever_file_is_lost(fleet, device, lost):
    first = fleet.document(1)
    device.trust.verify_document(first, DEVICE)
    second = fleet.document(2)
    device.trust.verify_document(second, DEVICE)
    damage(device.directory / "tuf" / lost, b"")
    device.restart()
    device.read(fleet.broker)
    with pytest.raises(TrustError, match="T102"):
        device.trust.verify_document(first, DEVICE)
    assert device.trust.recall_document(second).version == 2


@pytest.mark.parametrize("lost", ["marks.json", "marks.copy.json"])
def test_orders_are_recalled_without_a_link_when_a_file_of_marks_is_lost(fleet, device, lost):
    def orders() -> Orders:
        place = device.directory / "documents"
        made = Orders(device.trust, device.clock, TOPICS, DEVICE, place, lambda: 0.5)
        made.load()
        return made

    before = orders()
    before.on_message(TOPICS.document(DEVICE), fleet.document(1))
    before.on_message(TOPICS.plan("digits"), fleet.broker[TOPICS.plan("digits")])
    before.settle((), 0.0)
    assert before.document is not None
    damage(device.directory / "tuf" / lost, b"{")
    device.restart()
    after = orders()
    assert (after.document, after.plans) == (before.document, before.plans)
    assert after.refused == {}


# --- what is on disk when a call returns ---------------------------------------------------------


def test_what_is_trusted_is_synced_before_anybody_acts_on_it(fleet, device, old, monkeypatch):
    """Every file is written beside, synced, renamed, and its folder synced: in this order."""
    fleet.later(hours=1)
    fleet.approve("digits/v3")
    fleet.publish()
    synced: list[str] = []
    renamed: list[str] = []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(descriptor):
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real_sync(descriptor)

    def replace(path, target):
        assert str(path) in synced, "renamed before it was synced"
        renamed.append(target.name)
        return real_replace(path, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    assert device.read(fleet.broker)
    assert renamed == [*FILES, "clock.json"]
    assert synced.count(str(device.directory / "tuf")) == len(FILES)
    assert synced[-1] == str(device.directory)


def test_marks_are_never_written_ahead_of_the_set_that_they_protect(fleet, device, monkeypatch):
    next_publication(fleet)
    seen: list[dict[str, int]] = []
    real = durable.replace

    def watching(path, data):
        real(path, data)
        kept = json.loads((device.directory / "tuf/trusted.json").read_bytes())
        seen.append({"set": len(kept["roles"]), path.name: 1})

    monkeypatch.setattr(durable, "replace", watching)
    device.read(fleet.broker)
    assert [next(key for key in each if key != "set") for each in seen][:3] == list(FILES)


def test_a_copy_that_cannot_be_written_is_tried_again(fleet, device, monkeypatch):
    next_publication(fleet)
    real = durable.replace

    def no_copy(path, data):
        if path.name == "marks.copy.json":
            raise OSError(28, "No space left on device")
        real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(durable, "replace", no_copy)
        with pytest.raises(Unavailable, match="D201"):
            device.read(fleet.broker)
    device.trust.verify_document(fleet.document(1), DEVICE)
    files = content(device)
    assert files["marks.json"] == files["marks.copy.json"]


def test_a_device_that_never_trusted_anything_has_nothing_damaged(tmp_path, fleet):
    fresh = Device(tmp_path / "fresh", fleet.root)
    assert fresh.trust.marks_intact


def test_marks_that_are_both_unreadable_are_made_again_from_the_set(device):
    for name in ("marks.json", "marks.copy.json"):
        damage(device.directory / "tuf" / name, b"{")
    trust = Trust(device.directory / "tuf", device.root, FLEET, device.clock)
    # The set at hand says the same of roles, and they are written again at once.
    assert trust.known
    assert trust.marks_intact
    assert (device.directory / "tuf/marks.json").read_bytes() != b"{"
