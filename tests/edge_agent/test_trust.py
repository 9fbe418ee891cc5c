"""From the control plane's repository to what a device trusts, without attackers."""

import contextlib
import json
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope

from control_plane.signing.drafts import Change
from protocol.approval import Approved
from protocol.bundle import Needs
from protocol.device import PAYLOAD_TYPE
from protocol.errors import NotUnderstood, TrustError, Unavailable
from protocol.identifiers import digest_of
from protocol.plan import PlanTerms
from protocol.selector import Selector
from tests.fakes.fleet_trust import DEVICE, START_MS, TOPICS, Device, Fleet


@pytest.fixture
def fleet(tmp_path):
    return Fleet(tmp_path / "control-plane")


@pytest.fixture
def device(tmp_path, fleet):
    return Device(tmp_path / "device", fleet.root)


def test_a_device_learns_what_is_approved_planned_and_denied(fleet, device):
    v1 = fleet.approve("digits/v1", Approved(needs=Needs(arch=("aarch64",))))
    data = fleet.plan("digits", v1, PlanTerms(Selector("exists", "site")))
    fleet.publish()

    assert device.read(fleet.broker)

    approved = device.trust.approvals[v1]
    assert (approved.model, approved.version, approved.revoked) == ("digits", "v1", False)
    assert approved.terms.needs.arch == ("aarch64",)
    assert device.trust.plans["digits"].terms.selector == Selector("exists", "site")
    assert device.trust.verify_plan("digits", data).rules[0].stable == v1
    assert device.trust.verify_deny(fleet.deny).denied == ()
    assert not device.trust.models_expired()
    assert device.trust.timestamp_fresh()
    state = device.trust.state()
    assert (state.root, state.models) == (1, 2)
    assert state.rollouts == state.snapshot == state.timestamp == START_MS // 60_000
    assert state.fresh_until == "2026-12-04T12:00:00Z"
    assert state.models_until == "2027-03-01T12:00:00Z"


def test_nothing_is_trusted_before_anything_arrived(device):
    assert not device.trust.known
    assert not device.trust.refresh()
    assert device.trust.models_expired()
    assert not device.trust.timestamp_fresh()
    assert device.trust.issued_ms is None
    assert device.trust.wanted() == ()
    assert device.trust.state().root == 1


def test_other_topics_are_not_taken(device):
    assert not device.trust.offer(TOPICS.plan("digits"), b"{}")
    assert not device.trust.offer(TOPICS.document(DEVICE), b"{}")
    assert not device.trust.offer("outrider/v1/south/tuf/timestamp", b"{}")


def test_the_same_messages_again_are_nothing_new(fleet, device):
    fleet.publish()
    assert device.read(fleet.broker)
    assert not device.read(fleet.broker)


def test_a_restart_keeps_what_was_trusted_without_any_message(fleet, device):
    v1 = fleet.approve("digits/v1")
    fleet.publish()
    device.read(fleet.broker)
    state = device.trust.state()

    device.restart()

    assert device.trust.state() == state
    assert v1 in device.trust.approvals


def test_only_what_is_behind_is_fetched(fleet, device):
    stamp = TOPICS.tuf("timestamp")
    fleet.publish()
    device.trust.offer(stamp, fleet.broker[stamp])
    assert device.trust.wanted() == tuple(
        TOPICS.tuf(role) for role in ("snapshot", "targets", "models", "rollouts")
    )
    device.read(fleet.broker)
    assert device.trust.wanted() == ()

    fleet.later(hours=13)
    fleet.repository.restamp(fleet.now_ms)
    fleet.put()
    device.trust.offer(stamp, fleet.broker[stamp])
    assert device.trust.wanted() == ()
    assert device.trust.refresh()

    fleet.later(hours=1)
    fleet.plan("digits", digest_of(b"x"))
    fleet.publish()
    device.trust.offer(stamp, fleet.broker[stamp])
    assert device.trust.wanted() == (TOPICS.tuf("snapshot"),)
    device.trust.offer(TOPICS.tuf("snapshot"), fleet.broker[TOPICS.tuf("snapshot")])
    assert device.trust.wanted() == (TOPICS.tuf("rollouts"),)
    device.trust.offer(TOPICS.tuf("rollouts"), fleet.broker[TOPICS.tuf("rollouts")])
    assert device.trust.wanted() == ()
    assert device.trust.refresh()
    assert "digits" in device.trust.plans


def test_the_next_root_is_a_standing_topic(device):
    assert device.trust.standing == (TOPICS.tuf("timestamp"), TOPICS.root(2))


def test_the_deny_list_and_a_new_plan_replace_the_old(fleet, device):
    fleet.plan("digits", digest_of(b"1"))
    fleet.publish()
    device.read(fleet.broker)
    device.trust.verify_plan("digits", fleet.plans["digits"][0])

    fleet.later(minutes=5)
    data = fleet.plan("digits", digest_of(b"2"))
    fleet.publish()
    device.read(fleet.broker)

    assert device.trust.verify_plan("digits", data).number == 2


def test_what_was_verified_last_is_recalled_from_disk_although_the_target_moved_on(fleet, device):
    old = fleet.plan("digits", digest_of(b"1"))
    deny = fleet.deny
    envelope = fleet.document(1)
    fleet.publish()
    device.read(fleet.broker)
    device.trust.verify_plan("digits", old)
    device.trust.verify_deny(deny)
    device.trust.verify_document(envelope, DEVICE)
    fleet.later(hours=1)
    fleet.plan("digits", digest_of(b"2"))
    fleet.publish()
    device.read(fleet.broker)
    device.restart()

    with pytest.raises(TrustError, match="T106"):
        device.trust.verify_plan("digits", old)
    assert device.trust.recall_plan("digits", old).number == 1
    assert device.trust.recall_deny(deny).version == 1
    assert device.trust.recall_document(envelope).device == DEVICE
    with pytest.raises(TrustError, match="T106"):
        device.trust.recall_plan("digits", old + b" ")
    with pytest.raises(TrustError, match="T102"):
        device.trust.recall_document(fleet.document(9))


def test_an_entry_from_the_future_is_refused_alone_and_told_apart_from_a_delisted_one(
    fleet, device
):
    v1 = fleet.approve("digits/v1")
    v2 = fleet.approve("digits/v2", Approved(must_understand=("quorum/1",)))
    fleet.publish()
    device.read(fleet.broker)

    assert set(device.trust.approvals) == {v1}
    assert device.trust.not_understood == {v2}
    (refused,) = device.trust.refused
    assert (refused.what, refused.code) == ("models/digits/v2", "OUT-D330")
    assert "quorum/1" in refused.detail


def test_a_plan_for_whom_we_cannot_tell_is_refused_alone(fleet, device):
    fleet.plan("digits", digest_of(b"1"))
    fleet.plan("sounds", digest_of(b"1"), PlanTerms(must_understand=("geofence/1",)))
    fleet.publish()
    device.read(fleet.broker)

    assert set(device.trust.plans) == {"digits"}
    assert [each.what for each in device.trust.refused] == ["rollouts/plan-sounds"]


def test_revocation_and_delisting_reach_the_device(fleet, device):
    v1, v2 = fleet.approve("digits/v1"), fleet.approve("digits/v2")
    fleet.publish()
    device.read(fleet.broker)
    fleet.later(hours=1)
    fleet.approve("digits/v1", Approved(state="revoked", on_device="stop"))
    fleet.approve("digits/v2", None)
    fleet.publish()
    device.read(fleet.broker)

    assert device.trust.approvals[v1].revoked
    assert device.trust.approvals[v1].terms.on_device == "stop"
    assert v2 not in device.trust.approvals


def test_a_bundle_listed_twice_is_revoked_if_either_says_so(fleet, device):
    bundle = fleet.approve("digits/v1")
    fleet.change(Change("digits", "a", bundle, 5, Approved(state="revoked")))
    fleet.change(Change("digits", "z", bundle, 5))
    fleet.publish()
    device.read(fleet.broker)

    assert device.trust.approvals[bundle].revoked


# --- the document -------------------------------------------------------------------------------


def test_documents_are_refused_while_nobody_s_keys_are_known(fleet, device):
    with pytest.raises(Unavailable, match="T109"):
        device.trust.verify_document(fleet.document(1), DEVICE)


def test_a_document_is_accepted_once_per_version_and_again_when_identical(fleet, device):
    fleet.publish()
    device.read(fleet.broker)
    first = fleet.document(5, labels={"site": "leeds"})

    assert device.trust.verify_document(first, DEVICE).labels == {"site": "leeds"}
    assert device.trust.verify_document(first, DEVICE).version == 5
    assert device.trust.verify_document(fleet.document(6), DEVICE).version == 6


# --- order --------------------------------------------------------------------------------------


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_the_order_of_arrival_does_not_matter(tmp_path_factory, data):
    fleet, history = _two_publications(tmp_path_factory)
    device = Device(tmp_path_factory.mktemp("device"), fleet.root)
    if data.draw(st.booleans(), label="knows the first"):
        device.read(history[0])
    topics = [topic for topic in history[1] if "/tuf/" in topic]
    # Each topic's retained message may have been delivered in its old form before.
    stale = data.draw(st.lists(st.sampled_from(topics), unique=True), label="stale first")
    order = [(t, 0) for t in stale] + [(t, 1) for t in data.draw(st.permutations(topics))]
    for topic, number in order:
        if topic in history[number]:
            device.trust.offer(topic, history[number][topic])
        if data.draw(st.booleans(), label="refresh here"):
            _refresh(device)
        if data.draw(st.integers(0, 9), label="restart at 0") == 0:
            # What was offered is forgotten with the process, so it is delivered again.
            device.restart()
            for again, version in order[: order.index((topic, number)) + 1]:
                if again in history[version]:
                    device.trust.offer(again, history[version][again])
    _refresh(device)
    for topic in device.trust.wanted():
        device.trust.offer(topic, history[1][topic])
    _refresh(device)

    reference = Device(tmp_path_factory.mktemp("reference"), fleet.root)
    reference.read(history[1])
    assert device.trust.state() == reference.trust.state()
    assert device.trust.approvals == reference.trust.approvals
    assert device.trust.plans == reference.trust.plans


_PUBLICATIONS: list[tuple[Fleet, list[dict[str, bytes]]]] = []


def _two_publications(tmp_path_factory):
    if not _PUBLICATIONS:
        fleet = Fleet(tmp_path_factory.mktemp("control-plane") / "home")
        v1 = fleet.approve("digits/v1")
        fleet.plan("digits", v1)
        fleet.publish()
        first = dict(fleet.broker)
        fleet.later(hours=1)
        v2 = fleet.approve("digits/v2")
        fleet.plan("digits", v2)
        fleet.publish()
        _PUBLICATIONS.append((fleet, [first, dict(fleet.broker)]))
    return _PUBLICATIONS[0]


def _refresh(device):
    with contextlib.suppress(Unavailable, TrustError):
        device.trust.refresh()


# --- weight -------------------------------------------------------------------------------------


def test_trust_needs_no_numpy():
    code = "import sys, edge_agent.trust; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_document_from_the_future_is_refused_before_its_shape_is_looked_at(fleet, device):
    fleet.publish()
    device.read(fleet.broker)
    payload = b'{"must_understand":["document/9"],"labels":7}'
    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    envelope.sign(fleet.signer("online-rollouts.pem"))

    with pytest.raises(NotUnderstood, match="document/9"):
        device.trust.verify_document(json.dumps(envelope.to_dict()).encode(), DEVICE)
    # It set no mark: an older agent is not locked out of what it understands.
    assert device.trust.verify_document(fleet.document(1), DEVICE).version == 1
