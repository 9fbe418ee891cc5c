"""A damaged, lost or older cache costs a fetch, never protection."""

import contextlib
import json

import pytest

from control_plane.signing import create
from edge_agent import durable
from protocol.errors import TrustError, Unavailable
from protocol.identifiers import digest_of
from tests.fakes.fleet_trust import DEVICE, START_MS, TOPICS
from tests.fakes.forgery import damage, next_publication, rotate, seal


@pytest.mark.parametrize(
    "content",
    [b"", b"{", None, b'{"roots":{"x":"AA=="}}', b'{"roles":{"models":"AA=="},"under":1}'],
    ids=["emptied", "cut", "deleted", "no number", "no metadata"],
)
def test_a_damaged_cache_does_not_remove_rollback_protection(fleet, device, content):
    old = dict(fleet.broker)
    next_publication(fleet)
    device.read(fleet.broker)
    damage(device.directory / "tuf" / "trusted.json", content)
    device.restart()
    assert not device.trust.known

    with pytest.raises(TrustError, match="trusted before"):
        device.read(old)
    assert not device.trust.known
    assert device.read(fleet.broker)


@pytest.mark.parametrize("content", [b"", b"{", None], ids=["emptied", "cut", "deleted"])
def test_damaged_marks_are_made_again_from_the_cache(fleet, device, content):
    old = dict(fleet.broker)
    next_publication(fleet)
    device.read(fleet.broker)
    damage(device.directory / "tuf" / "marks.json", content)
    device.restart()

    assert device.trust.known
    with pytest.raises(TrustError):
        device.read(old)
    damage(device.directory / "tuf" / "trusted.json", b"")
    device.restart()
    with pytest.raises(TrustError, match="trusted before"):
        device.read(old)


def test_a_half_arrived_set_costs_nothing_at_a_restart(fleet, device):
    approvals = device.trust.approvals
    next_publication(fleet)
    for topic in (TOPICS.tuf("timestamp"), TOPICS.tuf("snapshot")):
        device.trust.offer(topic, fleet.broker[topic])
    with pytest.raises(Unavailable):
        device.trust.refresh()
    device.restart()

    assert device.trust.approvals == approvals


def test_an_old_copy_of_the_cache_does_not_lower_the_marks(fleet, device):
    old, cache = dict(fleet.broker), device.directory / "tuf" / "trusted.json"
    copy = cache.read_bytes()
    next_publication(fleet)
    device.read(fleet.broker)
    cache.write_bytes(copy)
    device.restart()
    fleet.later(hours=1)
    seal(fleet.signer(create.SNAPSHOT_KEY), old, version=START_MS // 60_000 + 50)

    with pytest.raises(TrustError, match="trusted before"):
        device.read(old)


def test_a_damaged_root_on_disk_is_fetched_again(fleet, device):
    rotate(fleet)
    rotate(fleet)
    device.read(fleet.broker)
    file = device.directory / "tuf" / "trusted.json"
    kept = json.loads(file.read_bytes())
    kept["roots"]["2"] = kept["roots"]["3"]
    file.write_text(json.dumps(kept))
    device.restart()

    fleet.later(hours=1)
    fleet.publish()
    device.trust.offer(TOPICS.tuf("timestamp"), fleet.broker[TOPICS.tuf("timestamp")])
    with pytest.raises(Unavailable):
        device.trust.refresh()
    assert device.trust.standing[1] == TOPICS.root(2)
    assert device.read(fleet.broker)
    assert device.trust.root_version == 3


def test_an_old_cache_with_newer_marks_and_a_root_out_of_turn_is_refused_in_the_end(fleet, device):
    old, cache = dict(fleet.broker), device.directory / "tuf" / "trusted.json"
    copy = cache.read_bytes()
    next_publication(fleet)
    device.read(fleet.broker)
    cache.write_bytes(copy)
    device.restart()
    rotate(fleet)
    rotate(fleet)
    fleet_root_3 = fleet.broker[TOPICS.root(3)]
    device.trust.offer(TOPICS.root(3), fleet_root_3)
    for topic, data in old.items():
        device.trust.offer(topic, data)
    with pytest.raises(TrustError):
        device.trust.refresh()
    assert device.read(fleet.broker)


def _full(path, data):
    raise OSError(28, "No space left on device")


def test_a_full_disk_loses_nothing_and_is_tried_again(fleet, device, monkeypatch):
    next_publication(fleet)
    before = device.trust.state()

    with monkeypatch.context() as patch:
        patch.setattr(durable, "replace", _full)
        with pytest.raises(Unavailable, match="D201"):
            device.read(fleet.broker)
        assert device.trust.state() == before
        device.restart()
        assert device.trust.state() == before
    assert device.read(fleet.broker)
    assert device.trust.approvals[digest_of(b"index of digits/v1")].revoked


def test_an_older_chain_of_roots_is_waited_out_after_the_cache_was_lost(fleet, device):
    old = dict(fleet.broker)
    rotate(fleet)
    device.read(fleet.broker)
    damage(device.directory / "tuf" / "trusted.json", b"")
    device.restart()

    with pytest.raises(Unavailable, match="root 2 is missing"):
        device.read(old)
    assert not device.trust.known
    assert device.trust.standing[1] == TOPICS.root(2)
    assert device.read(fleet.broker)


def test_after_a_full_disk_the_same_offers_are_tried_again(fleet, device, monkeypatch):
    next_publication(fleet)
    with monkeypatch.context() as patch:
        patch.setattr(durable, "replace", _full)
        with pytest.raises(Unavailable, match="D201"):
            device.read(fleet.broker)
        with pytest.raises(Unavailable, match="D201"):
            device.trust.verify_document(fleet.document(1), DEVICE)
    assert device.trust.refresh()
    assert device.trust.verify_document(fleet.document(1), DEVICE)


def test_a_full_disk_at_a_restart_that_finds_no_marks(fleet, device, monkeypatch):
    damage(device.directory / "tuf" / "marks.json", None)
    with monkeypatch.context() as patch:
        patch.setattr(durable, "replace", _full)
        device.restart()
    assert device.trust.known


def test_only_three_files_are_kept(fleet, device):
    rotate(fleet)
    device.read(fleet.broker)
    names = sorted(path.name for path in (device.directory / "tuf").iterdir())
    assert names == ["marks.copy.json", "marks.json", "trusted.json"]


@pytest.mark.parametrize("writes", range(5))
def test_a_power_cut_between_any_two_writes(fleet, device, monkeypatch, writes):
    old, before = dict(fleet.broker), device.trust.state()
    next_publication(fleet)
    left = [writes]
    replace = durable.replace

    def cut(path, data):
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        replace(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(durable, "replace", cut)
        with contextlib.suppress(KeyboardInterrupt):
            device.read(fleet.broker)
    device.restart()

    assert device.trust.known
    assert (device.trust.state() == before) is (writes == 0)
    device.read(fleet.broker)
    assert device.trust.approvals[digest_of(b"index of digits/v1")].revoked
    with pytest.raises(TrustError):
        device.read(old)
    damage(device.directory / "tuf" / "trusted.json", b"")
    device.restart()
    with pytest.raises(TrustError, match="trusted before"):
        device.read(old)
