"""The approver's side: what is shown is what is signed, and nothing else can be."""

from datetime import UTC, datetime, timedelta

import pytest
from tuf.api.metadata import DelegatedRole, Delegations, Key, Metadata, TargetFile, Targets
from tuf.api.serialization.json import JSONSerializer

from control_plane.audit import Record, head_of, line_of
from control_plane.signing import create
from control_plane.signing.approve import Approver, audit, lost_heads
from control_plane.signing.drafts import Change
from protocol.approval import Approved
from protocol.errors import InvalidRequest, TrustError, Unavailable
from protocol.identifiers import digest_of
from tests.fakes.fleet_trust import START_MS, Fleet

NOW = datetime.fromtimestamp(START_MS / 1000, UTC)


@pytest.fixture
def fleet(tmp_path):
    fleet = Fleet(tmp_path / "control-plane")
    fleet.approve("digits/v1")
    fleet.publish()
    return fleet


@pytest.fixture
def approver(tmp_path, fleet):
    return Approver(tmp_path / "approver", fleet.root)


def change(version, content=b"x", **terms):
    return Change("digits", version, digest_of(content), 9, Approved(**terms))


def review(fleet, approver, draft, now=NOW):
    return approver.review(fleet.repository.roots(), fleet.repository.metadata(), draft, now)


def test_approve_over_the_api_in_both_directions(fleet, approver):
    draft = fleet.repository.draft((change("v2"),), fleet.now_ms)
    shown = review(fleet, approver, draft.data)
    (difference,) = shown.differences
    assert (difference.kind, difference.path, difference.length) == (
        "approved",
        "models/digits/v2",
        9,
    )
    assert shown.find(digest_of(b"x")) is difference
    assert (shown.root, shown.trusted, shown.version, shown.needed) == (1, 2, 3, 1)

    keyid, signature = approver.sign(shown, fleet.approver)

    assert fleet.repository.add_signature(draft.id, shown.version, keyid, signature).complete
    fleet.repository.restamp(fleet.now_ms)
    again = fleet.repository.draft((change("v3"),), fleet.now_ms)
    assert review(fleet, approver, again.data).trusted == 3


@pytest.mark.parametrize(
    "changes,expected",
    [
        ([change("v2")], [("approved", "v2")]),
        ([change("v2", state="revoked")], [("revoked", "v2")]),
        ([change("v1", b"index of digits/v1", state="revoked")], [("revoked", "v1")]),
        ([change("v1", b"another")], [("re-pointed", "v1")]),
        ([change("v1", b"index of digits/v1", capture=("inputs",))], [("terms", "v1")]),
        ([Change("digits", "v1", digest_of(b"x"), 9, None)], [("removed", "v1")]),
        (
            [change("v2"), Change("digits", "v1", digest_of(b"x"), 9, None)],
            [("removed", "v1"), ("approved", "v2")],
        ),
    ],
    ids=["new", "new and revoked", "revoked", "re-pointed", "terms", "removed", "two"],
)
def test_every_changed_entry_is_shown(fleet, approver, changes, expected):
    draft = fleet.repository.draft(tuple(changes), fleet.now_ms)
    shown = review(fleet, approver, draft.data).differences

    assert [(each.kind, each.path.rpartition("/")[2]) for each in shown] == expected


def test_a_restored_version_is_called_that(fleet, approver):
    fleet.approve("digits/v1", Approved(state="revoked"))
    fleet.publish()
    draft = fleet.repository.draft((change("v1", b"index of digits/v1"),), fleet.now_ms)
    (difference,) = review(fleet, approver, draft.data).differences
    # The length differs too, which is no reason to call it anything else.
    assert difference.kind == "restored"


def edited(fleet, edit):
    draft = fleet.repository.draft((change("v2"),), fleet.now_ms)
    metadata = draft.metadata()
    edit(metadata.signed)
    return metadata.to_bytes(JSONSerializer(compact=True))


def entry(custom=None, **unknown):
    fields = {"custom": custom, **unknown} if custom is not None else unknown
    return TargetFile(4, {"sha256": "0" * 64}, "models/digits/v9", fields)


def put(target):
    return lambda signed: signed.targets.__setitem__(target.path, target)


def delegate(signed):
    key = Key.from_dict(
        "a", {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": "0" * 64}}
    )
    role = DelegatedRole("more", ["a"], 1, True, paths=["models/*/*"])
    signed.delegations = Delegations({"a": key}, {"more": role})


@pytest.mark.parametrize(
    "edit",
    [
        lambda signed: setattr(signed, "version", 2),
        lambda signed: setattr(signed, "version", 4),
        lambda signed: setattr(signed, "version", 2**53),
        lambda signed: setattr(signed, "expires", NOW + timedelta(days=3650)),
        lambda signed: setattr(signed, "expires", NOW - timedelta(days=1)),
        lambda signed: signed.unrecognized_fields.update({"x": 1}),
        delegate,
        put(entry({"state": "blessed"})),
        put(entry({"state": "approved", "surprise": 1})),
        put(entry({"must_understand": ["future/1"]})),
        put(entry("text")),
        put(entry(x=1)),
        put(TargetFile(4, {"sha512": "0" * 128}, "models/digits/v9")),
        put(TargetFile(4, {"sha256": "0" * 64}, "rollouts/plan-digits")),
        put(TargetFile(4, {"sha256": "0" * 64}, "models/../v9")),
    ],
    ids=[
        "same version",
        "skipped version",
        "last version",
        "lasts ten years",
        "expired",
        "unknown member",
        "delegation",
        "unknown state",
        "unknown term",
        "future",
        "no object",
        "unknown field",
        "another hash",
        "a plan",
        "no model",
    ],
)
def test_what_cannot_be_shown_cannot_be_signed(fleet, approver, edit):
    with pytest.raises(TrustError, match="T114"):
        review(fleet, approver, edited(fleet, edit))


@pytest.mark.parametrize("data", [b"", b"garbage", b"{}", b" " * 3_000_000])
def test_garbage_is_no_draft(fleet, approver, data):
    with pytest.raises(TrustError, match="T114"):
        review(fleet, approver, data)
    with pytest.raises(TrustError, match="T114"):
        review(fleet, approver, fleet.repository.metadata()["timestamp"])


def test_metadata_of_another_fleet_is_refused(fleet, approver, tmp_path):
    other = Fleet(tmp_path / "other")
    other.publish()
    draft = other.repository.draft((change("v2"),), other.now_ms)
    with pytest.raises(TrustError, match="T101"):
        review(other, approver, draft.data)


def test_the_approver_remembers_what_was_in_force(fleet, approver):
    draft = fleet.repository.draft((change("v2"),), fleet.now_ms)
    old = fleet.repository.metadata()
    fleet.later(hours=1)
    fleet.approve("digits/v1", Approved(state="revoked"))
    fleet.publish()
    newer = fleet.repository.draft((change("v2"),), fleet.now_ms)
    review(fleet, approver, newer.data)

    with pytest.raises(TrustError, match="T101"):
        approver.review(fleet.repository.roots(), old, draft.data, NOW)


def test_missing_metadata_is_asked_for_again(fleet, approver):
    draft = fleet.repository.draft((change("v2"),), fleet.now_ms)
    metadata = fleet.repository.metadata()
    del metadata["models"]
    with pytest.raises(Unavailable, match="T109"):
        approver.review(fleet.repository.roots(), metadata, draft.data, NOW)


def test_an_expired_list_can_be_succeeded(fleet, approver):
    fleet.later(days=120)
    fleet.repository.restamp(fleet.now_ms)
    draft = fleet.repository.draft((change("v2"),), fleet.now_ms)
    now = datetime.fromtimestamp(fleet.now_ms / 1000, UTC)

    assert review(fleet, approver, draft.data, now).version == 3


def test_only_an_approver_s_key_signs(fleet, approver):
    draft = fleet.repository.draft((change("v2"),), fleet.now_ms)
    shown = review(fleet, approver, draft.data)
    for file in (create.ROLLOUTS_KEY, create.SNAPSHOT_KEY, create.ROOT_KEY):
        with pytest.raises(InvalidRequest, match="T112"):
            approver.sign(shown, fleet.signer(file))


def test_signatures_on_the_draft_do_not_change_what_is_signed(fleet, approver):
    draft = fleet.repository.draft((change("v2"),), fleet.now_ms)
    metadata = Metadata[Targets].from_bytes(draft.data)
    metadata.sign(fleet.signer(create.ROLLOUTS_KEY))
    with_signature = metadata.to_bytes(JSONSerializer(compact=True))

    assert approver.sign(review(fleet, approver, with_signature), fleet.approver) == approver.sign(
        review(fleet, approver, draft.data), fleet.approver
    )


# --- the audit trail ------------------------------------------------------------------------------


def trail(records):
    """So many records, chained."""
    lines, previous = [], ""
    for number in range(1, records + 1):
        lines.append(line_of(Record(number, 0, "ana", "x", "y", previous=previous)))
        previous = lines[-1].hash
    return lines


def heads(lines):
    return [head_of(number, line.hash) for number, line in enumerate(lines, start=1)]


def anchored(fleet, approver, head, *, in_force=""):
    """A draft that anchors `head`, over a list that anchors another."""
    if in_force:
        fleet.approve("digits/v8", Approved(audit_head=in_force))
        fleet.publish()
    draft = fleet.repository.draft((change("v2"),), fleet.now_ms, head)
    return review(fleet, approver, draft.data)


def test_the_head_is_signed_and_is_no_reason_to_draft_anew(fleet, approver):
    one, two = heads(trail(2))
    draft = fleet.repository.draft((change("v2"),), fleet.now_ms, one)
    assert fleet.repository.draft((change("v2"),), fleet.now_ms, two) == draft
    assert fleet.repository.draft((change("v2"),), fleet.now_ms) == draft
    shown = review(fleet, approver, draft.data)
    assert shown.audit_head == shown.differences[0].after.terms.audit_head == one


def test_a_trail_that_goes_on_from_what_was_signed_is_whole(fleet, approver):
    lines = trail(5)
    known = heads(lines)
    found = audit(anchored(fleet, approver, known[3], in_force=known[1]), iter(lines))
    assert (found.records, found.anchored, found.problems) == (5, 4, ())


def test_a_fleet_without_a_trail_anchors_nothing(fleet, approver):
    assert audit(anchored(fleet, approver, ""), []).head == ""


@pytest.mark.parametrize(
    "signed,lines,says",
    [
        pytest.param(4, 3, "ends at 3", id="shorter than the draft says"),
        pytest.param(2, 1, "ends at 1", id="shorter than what is in force"),
        pytest.param(0, 5, "says nothing", id="the draft leaves it out"),
    ],
)
def test_a_trail_that_does_not_go_on_is_not_anchored(fleet, approver, signed, lines, says):
    whole = trail(5)
    head = heads(whole)[signed - 1] if signed else ""
    shown = anchored(fleet, approver, head, in_force=heads(whole)[1])
    with pytest.raises(TrustError, match=f"S170.*{says}"):
        audit(shown, whole[:lines])


def test_what_is_known_to_be_lost_is_not_missed_again(fleet, approver):
    before, after = trail(3), [*trail(1)]
    for number in (2, 3, 4):
        after.append(line_of(Record(number, 9, "bo", "x", "y", previous=after[-1].hash)))
    lost = heads(before)[2]
    shown = anchored(fleet, approver, heads(after)[3], in_force=lost)
    with pytest.raises(TrustError, match=r"S170.*digits/v8"):
        audit(shown, after, approver.lost())

    assert lost_heads(shown, after) == {lost}
    approver.note_lost({lost})

    assert audit(shown, after, approver.lost()).problems == ()
    with pytest.raises(TrustError, match="S170"):
        audit(shown, after[:3], approver.lost())


def test_entries_that_disagree_on_the_head_are_not_signed(fleet, approver):
    one, two = heads(trail(2))
    draft = fleet.repository.draft((change("v2"), change("v3")), fleet.now_ms, one)
    metadata = draft.metadata()
    metadata.signed.targets["models/digits/v3"].unrecognized_fields["custom"]["audit_head"] = two
    shown = review(fleet, approver, metadata.to_bytes(JSONSerializer(compact=True)))
    for act in (lambda: audit(shown, trail(2)), lambda: approver.sign(shown, fleet.approver)):
        with pytest.raises(TrustError, match=r"T114.*different heads"):
            act()


def test_entries_from_the_future_are_no_news_where_they_stay_as_they_are(fleet, approver):
    """Approvers with newer tools listed something: older ones can go on with everything else."""
    future = Approved(must_understand=("future/1",))
    fleet.change(Change("digits", "v9", digest_of(b"v9"), 9, future))
    fleet.publish()
    shown = review(fleet, approver, fleet.repository.draft((change("v2"),), fleet.now_ms).data)
    assert [each.path for each in shown.differences] == ["models/digits/v2"]
