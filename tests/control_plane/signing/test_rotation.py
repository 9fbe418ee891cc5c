"""Rotations as devices live through them: who is followed, who is refused, what goes on."""

import dataclasses

import pytest
from tuf.api.metadata import Metadata, Targets

from control_plane.signing import create, rotation
from control_plane.signing.installing import Install
from control_plane.signing.repository import Repository
from control_plane.signing.rotation import Change
from protocol.errors import Failed, OutriderError, TrustError
from protocol.identifiers import digest_of
from tests.fakes.fleet_trust import DEVICE, FLEET, TOPICS, Device
from tests.fakes.forgery import seal
from tests.fakes.holders import HeldFleet

V1 = digest_of(b"index of digits/v1")


@pytest.fixture
def fleet(tmp_path):
    fleet = HeldFleet(tmp_path / "control-plane")
    fleet.plan("digits", fleet.approve("digits/v1"))
    fleet.publish()
    return fleet


@pytest.fixture
def device(tmp_path, fleet):
    device = Device(tmp_path / "device", fleet.root)
    device.read(fleet.broker)
    return device


def follows(fleet, device):
    device.machine.wall_ms = fleet.now_ms
    assert device.read(fleet.broker)
    device.restart()
    assert device.trust.known
    assert V1 in device.trust.approvals


def refused(fleet, proposal, match=None, code="OUT-T124"):
    before = fleet.repository.in_force(), dict(fleet.repository.metadata())
    with pytest.raises(OutriderError, match=match) as caught:
        fleet.install(proposal)
    assert caught.value.code == code
    assert (fleet.repository.in_force(), fleet.repository.metadata()) == before


def test_an_approver_is_replaced_and_devices_follow(fleet, device):
    fleet.rotate("ana", "bo", "eve", "fay", models=fleet.replaced("dan", "gus"))
    follows(fleet, device)

    fleet.approvers = [fleet.people.signer(name) for name in ("gus", "eve")]
    fleet.later(hours=1)
    fleet.plan("digits", fleet.approve("digits/v2"))
    fleet.publish()
    follows(fleet, device)
    assert digest_of(b"index of digits/v2") in device.trust.approvals


def test_a_replaced_approver_s_signature_counts_no_more(fleet):
    fleet.rotate("ana", "bo", "eve", "fay", models=fleet.replaced("dan", "gus"))
    fleet.approvers = [fleet.people.signer(name) for name in ("dan", "eve")]
    with pytest.raises(OutriderError):
        fleet.approve("digits/v2")


def test_all_root_keys_are_replaced_over_five_rotations_while_a_device_is_away(fleet, device):
    holders = ["ana", "bo", "cy"]
    for out, new in zip(
        ("ana", "bo", "cy", "gus", "hal"), ("gus", "hal", "ivy", "jo", "kim"), strict=True
    ):
        fleet.later(days=30)
        others = [name for name in holders if name != out]
        fleet.rotate(*others, root=fleet.replaced(out, new))
        holders = [*others, new]
    assert not {"ana", "bo", "cy"} & set(holders)
    assert fleet.repository.in_force().newest == 6

    fleet.plan("digits", V1)
    fleet.publish()
    follows(fleet, device)
    assert device.trust.root_version == 6


def test_a_lost_root_key_is_replaced_by_the_two_others(fleet, device):
    fleet.rotate("bo", "cy", root=fleet.replaced("ana", "gus"))
    follows(fleet, device)


def test_with_two_root_keys_lost_nothing_can_be_changed(fleet):
    proposal = fleet.proposed(root=Change(fleet.people.keys("gus", "hal"), ["ana", "bo"]))
    signed = fleet.people.sign(proposal, "cy", "gus", "hal")
    refused(fleet, signed, "ana or bo is missing", "OUT-T123")


def test_renewal_changes_nothing_but_until_when(fleet, device):
    fleet.later(days=80)
    state = fleet.repository.in_force()
    proposal = rotation.renew(FLEET, state, ["root", "targets", "models"], fleet.now)
    assert fleet.install(fleet.people.sign(proposal, "ana", "cy", "dan", "fay"))
    fleet.plan("digits", V1)
    fleet.publish()
    follows(fleet, device)
    assert fleet.repository.expiring(fleet.now_ms) == ()


def test_expiring_roles_are_named(fleet):
    fleet.later(days=65)
    assert [each.role for each in fleet.repository.expiring(fleet.now_ms)] == [
        "timestamp",
        "rollouts",
        "snapshot",
        "models",
    ]


# --- online keys ----------------------------------------------------------------------------------


def test_the_rollouts_key_is_replaced_and_documents_are_signed_anew(fleet, device):
    document = fleet.document(3)
    device.trust.verify_document(document, DEVICE)
    key = fleet.repository.document_key
    fleet.rotate("ana", "bo", online=["rollouts"])
    assert fleet.repository.document_key != key
    follows(fleet, device)

    with pytest.raises(TrustError):
        device.trust.verify_document(document, DEVICE)
    # The same version as before, since nothing in it has changed.
    assert device.trust.verify_document(fleet.document(3), DEVICE).version == 3


def test_the_key_that_waits_is_used_from_the_moment_that_targets_names_it(fleet):
    waiting = fleet.online.path("rollouts", following=True)
    proposal = fleet.people.sign(fleet.proposed(online=["rollouts"]), "ana")
    before = fleet.repository.document_key
    fleet.repository.publish(fleet.plans, fleet.deny, fleet.now_ms)
    assert fleet.repository.document_key == before
    assert waiting.exists()

    assert fleet.install(fleet.people.sign(proposal, "bo"))
    assert not waiting.exists()
    fleet.reopen()
    assert fleet.repository.document_key != before


def test_a_key_that_this_server_does_not_have_is_refused(fleet, tmp_path):
    servers = HeldFleet(tmp_path / "other").online.wanted()
    for rollouts, snapshot in ((servers["rollouts"], None), (None, servers["snapshot"])):
        proposal = rotation.rotate(
            FLEET, fleet.repository.in_force(), fleet.now, rollouts=rollouts, snapshot=snapshot
        )
        signed = fleet.people.sign(proposal, "ana", "bo")
        refused(fleet, signed, "this server does not have")


def fast_forward(fleet, device):
    """Whoever stole the keys raises versions to the end of the range, on devices and here."""
    broker = dict(fleet.broker)
    rollouts = Metadata[Targets].from_bytes(broker[TOPICS.tuf("rollouts")])
    rollouts.signed.version = 2**52
    rollouts.sign(fleet.signer(create.ROLLOUTS_KEY))
    broker[TOPICS.tuf("rollouts")] = create.serialise(rollouts)
    seal(fleet.signer(create.SNAPSHOT_KEY), broker, version=2**52)
    device.read(broker)
    assert device.trust.state().timestamp == 2**52
    assert device.trust.state().rollouts == 2**52
    # The control plane started while the lie was retained, and believed it.
    fleet.repository.adopt_retained(broker, fleet.now_ms)
    return broker


def test_stolen_online_keys_that_pushed_versions_ahead_are_recovered_from(fleet, device):
    lie = fast_forward(fleet, device)
    fleet.later(hours=1)
    fleet.rotate("ana", "cy", online=["rollouts", "snapshot"])
    follows(fleet, device)
    state = device.trust.state()
    assert max(state.timestamp, state.snapshot, state.rollouts) < 2**52
    # What the thief still signs is worth nothing, here and on devices.
    before = fleet.repository.metadata()
    assert not fleet.repository.adopt_retained(lie, fleet.now_ms).changed
    assert fleet.repository.metadata() == before
    fleet.later(hours=1)
    fleet.plan("digits", V1)
    fleet.publish()
    follows(fleet, device)


@pytest.mark.parametrize("which", ["rollouts", "snapshot"])
def test_replacing_one_online_key_goes_on_from_honest_versions(fleet, device, which):
    fleet.later(hours=1)
    fleet.rotate("ana", "cy", online=[which])
    follows(fleet, device)


def test_snapshot_and_timestamp_never_have_different_keys(fleet):
    """The timestamp key alone would leave a lie about the snapshot in force."""
    proposal = fleet.proposed(online=["snapshot"])
    root = Metadata.from_bytes(proposal.root).signed
    assert root.roles["snapshot"].keyids == root.roles["timestamp"].keyids
    before = fleet.repository.in_force()
    root.roles["snapshot"].keyids = Metadata.from_bytes(before.root).signed.roles["snapshot"].keyids
    old = Metadata.from_bytes(before.root).signed
    root.keys |= {keyid: old.keys[keyid] for keyid in old.roles["snapshot"].keyids}
    forged = proposal.with_file("root", create.serialise(Metadata(root)))
    refused(fleet, fleet.people.sign(forged, "ana", "bo"), "always have the same keys")


def test_a_backup_from_before_a_rotation_goes_on_if_the_new_keys_are_in_it(fleet, tmp_path):
    for which in ("rollouts", "snapshot"):
        fleet.online.generate(which, following=True)
    fleet.backup(tmp_path / "with")
    fleet.later(hours=1)
    fleet.rotate("ana", "bo")
    retained = dict(fleet.broker)

    fleet.restore(tmp_path / "with")
    adopted = fleet.repository.adopt_retained(retained, fleet.now_ms)
    assert adopted.after["targets"] == 2
    fleet.later(hours=1)
    fleet.publish()
    device = Device(tmp_path / "late", fleet.root)
    follows(fleet, device)
    fleet.reopen()
    assert not fleet.online.path("snapshot", following=True).exists()


def test_a_backup_without_the_new_keys_refuses_to_sign(fleet, tmp_path):
    fleet.backup(tmp_path / "without")
    fleet.later(hours=1)
    fleet.rotate("ana", "bo", online=["rollouts", "snapshot"])
    retained = dict(fleet.broker)
    fleet.restore(tmp_path / "without")
    fleet.repository.adopt_retained(retained, fleet.now_ms)
    with pytest.raises(Failed, match="is not here"):
        fleet.repository.publish({}, fleet.deny, fleet.now_ms)
    with pytest.raises(TrustError, match="online key"):
        fleet.reopen()
    # The way out is another rotation, from here.
    fleet.repository = Repository.open(fleet.tuf, fleet.keys, FLEET, signs=False)
    fleet.rotate("bo", "cy", online=["rollouts", "snapshot"])
    follows(fleet, Device(tmp_path / "late", fleet.root))


# --- what publish refuses -------------------------------------------------------------------------


def test_without_the_threshold_nothing_is_installed(fleet):
    proposal = fleet.proposed(models=fleet.replaced("dan", "gus"))
    for signers in (("ana",), ("ana", "bo"), ("ana", "bo", "eve"), ("eve", "fay", "gus")):
        refused(fleet, fleet.people.sign(proposal, *signers), "missing", "OUT-T123")


def test_new_approvers_without_models_signed_again_are_refused(fleet, device):
    proposal = fleet.people.sign(
        fleet.proposed(models=Change(fleet.people.keys("gus", "hal"), ["dan", "eve"])), "ana", "bo"
    )
    bare = dataclasses.replace(proposal, models=None)
    refused(fleet, bare, "models was not signed again")
    fleet.later(hours=1)
    fleet.approve("digits/v2")
    fleet.publish()
    follows(fleet, device)


def test_another_fleet_s_ceremony_is_refused(fleet, tmp_path):
    other = HeldFleet(tmp_path / "other")
    proposal = other.people.sign(other.proposed(models=Change(threshold=3)), "ana", "bo")
    with pytest.raises(TrustError):
        fleet.install(proposal)


def test_a_ceremony_from_before_the_last_one_is_refused(fleet):
    late = fleet.people.sign(fleet.proposed(root=fleet.replaced("cy", "gus")), "ana", "bo")
    fleet.rotate("ana", "bo", root=fleet.replaced("cy", "hal"))
    refused(fleet, late, "older than what is in force")


def test_a_ceremony_from_before_the_last_approval_is_refused_if_it_lists_versions(fleet):
    late = fleet.people.sign(
        fleet.proposed(models=fleet.replaced("dan", "gus")), "ana", "bo", "eve", "fay"
    )
    fleet.approve("digits/v2")
    refused(fleet, late, "models 3 is older than what is in force, models 3")


def test_what_is_in_force_already_changes_nothing(fleet):
    proposal = fleet.people.sign(
        fleet.proposed(models=Change([fleet.people.key("gus")])), "bo", "cy"
    )
    assert fleet.install(proposal)
    before = fleet.repository.metadata()
    assert not fleet.install(proposal)
    assert fleet.repository.metadata() == before


def test_an_expired_ceremony_is_refused(fleet):
    proposal = fleet.people.sign(
        rotation.renew(FLEET, fleet.repository.in_force(), ["models"], fleet.now), "dan", "eve"
    )
    fleet.later(days=91)
    refused(fleet, proposal, "expired")


def test_a_second_first_root_is_refused(fleet):
    first = fleet.people.sign(fleet.first(), "ana", "bo", "dan", "eve")
    with pytest.raises(TrustError, match="already"):
        type(fleet.repository).found(fleet.tuf, fleet.keys, FLEET, Install.of(first), fleet.now_ms)


def test_approvals_go_on_from_a_list_that_was_signed_again(fleet):
    proposal = rotation.renew(FLEET, fleet.repository.in_force(), ["models"], fleet.now)
    fleet.install(fleet.people.sign(proposal, "dan", "eve"))
    assert fleet.approve("digits/v2") in fleet.repository.approvals()
