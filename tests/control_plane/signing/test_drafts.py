"""Drafts: who can complete one, and when its signatures are gone."""

import json

import pytest

from control_plane.signing import create
from control_plane.signing.drafts import Change
from protocol.approval import Approved
from protocol.errors import InvalidRequest
from protocol.identifiers import digest_of
from tests.fakes.fleet_trust import DAY_MS, Device, Fleet
from tests.fakes.quorum import quorum_fleet


@pytest.fixture
def fleet(tmp_path):
    return Fleet(tmp_path / "control-plane")


def versions(fleet):
    return {
        role: json.loads(data)["signed"]["version"]
        for role, data in fleet.repository.metadata().items()
    }


def change(version="v1", **terms):
    return Change("digits", version, digest_of(version.encode()), 7, Approved(**terms))


def sign(fleet, draft):
    return draft.metadata().sign(fleet.approver)


def test_a_draft_is_in_force_at_its_threshold_and_published_by_the_next_tick(fleet):
    fleet.publish()
    draft = fleet.repository.draft((change(),), fleet.now_ms)
    status = fleet.repository.status(draft)
    assert (status.signed, status.needed, status.complete) == (0, 1, False)
    signature = sign(fleet, draft)

    status = fleet.repository.add_signature(
        draft.id, draft.version, signature.keyid, signature.signature
    )

    assert status.complete
    assert fleet.repository.drafts() == ()
    assert digest_of(b"v1") in fleet.repository.approvals()
    assert versions(fleet)["models"] == 1
    assert fleet.repository.restamp(fleet.now_ms)
    assert versions(fleet)["models"] == 2


def test_the_same_changes_are_the_same_draft(fleet):
    first = fleet.repository.draft((change(),), fleet.now_ms)
    assert fleet.repository.draft((change(),), fleet.now_ms + 10**9) == first
    half_expired = fleet.now_ms + 50 * DAY_MS
    assert fleet.repository.draft((change(),), half_expired).data != first.data
    first = fleet.repository.draft((change(),), half_expired)
    fleet.reopen()
    assert fleet.repository.drafts() == (first,)


def test_a_draft_made_on_an_older_list_is_made_again_without_signatures(fleet):
    first = fleet.repository.draft((change("v1"),), fleet.now_ms)
    signature = sign(fleet, first)
    second = fleet.repository.draft((change("v2"),), fleet.now_ms)
    other = sign(fleet, second)
    fleet.repository.add_signature(second.id, second.version, other.keyid, other.signature)

    with pytest.raises(InvalidRequest, match="T111"):
        fleet.repository.add_signature(
            first.id, first.version, signature.keyid, signature.signature
        )
    again = fleet.repository.draft((change("v1"),), fleet.now_ms)
    assert (again.version, again.metadata().signatures) == (3, {})
    assert set(again.metadata().signed.targets) == {"models/digits/v1", "models/digits/v2"}


def test_a_closed_draft_is_gone(fleet):
    draft = fleet.repository.draft((change(),), fleet.now_ms)
    fleet.repository.close_draft(draft.id)
    with pytest.raises(InvalidRequest, match="T111"):
        fleet.repository.add_signature(draft.id, draft.version, "0" * 64, "00")
    assert fleet.repository.drafts() == ()


@pytest.mark.parametrize(
    "spoil,code",
    [
        (
            lambda d, s, f: (
                d.id,
                d.version,
                s.keyid,
                s.signature[2:] + s.signature[:2],
            ),
            "T112",
        ),
        (lambda d, s, f: (d.id, d.version, s.keyid, "garbage"), "T112"),
        (lambda d, s, f: (d.id, d.version, "0" * 64, s.signature), "T112"),
        (lambda d, s, f: (d.id, d.version + 1, s.keyid, s.signature), "T111"),
        (lambda d, s, f: ("0" * 16, d.version, s.keyid, s.signature), "T111"),
        (
            lambda d, s, f: (
                d.id,
                d.version,
                f.signer(create.ROLLOUTS_KEY).public_key.keyid,
                d.metadata().sign(f.signer(create.ROLLOUTS_KEY)).signature,
            ),
            "T112",
        ),
    ],
    ids=["bad", "no hex", "unknown key", "another version", "no such draft", "an online key"],
)
def test_a_signature_that_no_approver_made_of_this_draft_is_refused(fleet, spoil, code):
    draft = fleet.repository.draft((change(),), fleet.now_ms)
    with pytest.raises(InvalidRequest, match=code):
        fleet.repository.add_signature(*spoil(draft, sign(fleet, draft), fleet))
    assert fleet.repository.approvals() == {}
    assert fleet.repository.drafts() == (draft,)


def test_two_of_three_approvers(tmp_path):
    fleet = quorum_fleet(tmp_path)
    ana, bo, _ = fleet.approvers
    draft = fleet.repository.draft((change(),), fleet.now_ms)
    first = draft.metadata().sign(ana)

    status = fleet.repository.add_signature(draft.id, draft.version, first.keyid, first.signature)
    assert (status.signed, status.needed, status.complete) == (1, 2, False)
    assert (status.by, status.missing) == (("ana",), ("bo", "cy"))
    again = fleet.repository.add_signature(draft.id, draft.version, first.keyid, first.signature)
    assert again == status
    assert fleet.repository.approvals() == {}
    assert not fleet.repository.restamp(fleet.now_ms)

    fleet.reopen()
    (draft,) = fleet.repository.drafts()
    second = draft.metadata().sign(bo)
    status = fleet.repository.add_signature(draft.id, draft.version, second.keyid, second.signature)
    assert (status.by, status.complete) == (("ana", "bo"), True)
    device = Device(tmp_path / "device", fleet.root)
    fleet.publish()
    device.read(fleet.broker)
    assert digest_of(b"v1") in device.trust.approvals
