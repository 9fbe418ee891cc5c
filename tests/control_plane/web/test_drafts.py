"""Drafts over the API: who signs what, how often it counts, and how a draft ends."""

import json

import pytest
from tuf.api.metadata import Metadata, Targets

from control_plane.audit import split_head
from control_plane.signing import create, keys
from control_plane.signing.drafts import Change
from protocol.approval import Approved
from protocol.identifiers import digest_of
from tests.control_plane.web.conftest import Api


@pytest.fixture
def new_home(quorum_home):
    """Two of ana, bo and cy sign."""
    return quorum_home


def state(api: Api, version: str = "v1"):
    return api.get(f"models/digits/versions/{version}").json()["version"]


def proposed(api: Api, kind: str = "revoke", **more):
    body = {"kind": kind, "version": "" if kind == "renew" else "digits/v1", **more}
    answer = api.post("drafts", body)
    assert answer.status_code == 201, answer.text
    return answer.json()


def sign(api: Api, draft, name: str):
    return api.post(f"drafts/{draft['id']}/signatures", api.signature(draft, f"{name}.pem"))


def in_force(api: Api, draft, *names: str):
    answers = [sign(api, draft, name) for name in names]
    assert [each.status_code for each in answers] == [201] * len(names), answers[-1].text
    api.publish()
    return answers[-1].json()


def events(api: Api):
    return [(record.what, record.why) for record in reversed(api.store.audit.page(limit=100).items)]


def test_two_of_three_approve_and_the_same_key_counts_once(api):
    bundle = api.pushed()
    first = api.sign("digits/v1", "ana.pem").json()
    assert (first["signed"], first["needed"], first["missing"]) == (1, 2, ["bo", "cy"])
    assert api.sign("digits/v1", "ana.pem").json() == first
    assert bundle.digest not in api.parts.repository.approvals()
    assert state(api)["state"] == "draft"

    second = api.sign("digits/v1", "cy.pem").json()

    assert (second["by"], second["complete"]) == (["ana", "cy"], True)
    assert state(api)["state"] == "approved"
    assert [what for what, _ in events(api)] == [
        "model.pushed", "draft.signed", "draft.signed", "model.approved",
    ]  # fmt: skip


def test_the_way_by_version_and_the_general_one_are_the_same_draft(api):
    api.pushed()
    (listed,) = api.get("drafts").json()["items"]
    by_version = api.get("models/digits/versions/v1/draft").json()
    assert api.get(f"drafts/{listed['id']}").json() == by_version
    assert {**listed, "metadata": by_version["metadata"]} == by_version
    assert (listed["kind"], listed["versions"], listed["on_device"]) == (
        "approve", ["digits/v1"], None,
    )  # fmt: skip
    sign(api, listed | {"metadata": by_version["metadata"]}, "bo")
    assert api.sign("digits/v1", "ana.pem").json()["complete"]
    assert api.get("drafts").json()["items"] == []


def test_a_signature_over_an_older_draft_is_refused(api):
    api.pushed("v1")
    api.pushed("v2", weights_seed=1)
    old = api.get("models/digits/versions/v2/draft").json()
    signature = api.signature(old, "ana.pem")
    api.sign("digits/v2", "bo.pem")
    api.sign("digits/v1", "ana.pem")
    done = api.sign("digits/v1", "bo.pem").json()
    assert done["restarted"] == ["digits/v2"]
    api.publish()

    answer = api.post(f"drafts/{old['id']}/signatures", signature)

    assert (answer.status_code, answer.json()["code"]) == (409, "OUT-T111")
    signature["draft"] += 1
    answer = api.post(f"drafts/{old['id']}/signatures", signature)
    assert (answer.status_code, answer.json()["code"]) == (403, "OUT-T112")
    assert state(api, "v2")["signatures"]["signed"] == 0


def test_a_rejected_version_lost_its_signatures_and_may_be_pushed_again(api):
    bundle = api.pushed()
    api.sign("digits/v1", "ana.pem")
    draft = api.get("models/digits/versions/v1/draft").json()
    answer = api.post(f"drafts/{draft['id']}/reject", {"why": "class 8 below floor"})
    assert answer.json() == {"draft": 2, "versions": ["digits/v1"], "discarded": 1}
    shown = state(api)
    assert (shown["state"], shown["why"], shown["signatures"]) == (
        "rejected", "class 8 below floor", None,
    )  # fmt: skip
    for path in ("models/digits/versions/v1/draft", f"drafts/{draft['id']}"):
        assert api.get(path).status_code in (404, 409)
    assert sign(api, draft, "bo").status_code == 404
    assert ("draft.rejected", "class 8 below floor") in events(api)

    api.push(bundle)

    assert state(api)["state"] == "draft"
    assert state(api)["signatures"]["signed"] == 0
    assert state(api)["why"] == ""


def test_a_withdrawn_version_frees_its_name(api):
    first = api.pushed()
    api.sign("digits/v1", "ana.pem")
    shown = api.post("models/digits/versions/v1/withdraw", {"why": "wrong data"}).json()
    assert (shown["state"], shown["why"]) == ("withdrawn", "wrong data")
    assert api.post("models/digits/versions/v1/withdraw").json() == shown
    assert api.get("drafts").json()["items"] == []

    other = api.pushed("v1", weights_seed=7)

    assert other.digest != first.digest
    assert (state(api)["digest"], state(api)["state"]) == (other.digest, "draft")
    assert api.store.bundles.get(first.digest) is None
    assert [what for what, _ in events(api)][-2:] == ["model.withdrawn", "model.pushed"]


def test_what_approvers_have_approved_cannot_be_withdrawn(api):
    api.approved()
    answer = api.post("models/digits/versions/v1/withdraw", {})
    assert (answer.status_code, answer.json()["code"]) == (409, "OUT-T111")
    assert state(api)["state"] == "approved"


def test_a_rejected_version_keeps_its_name(api):
    api.pushed()
    draft = api.get("models/digits/versions/v1/draft").json()
    api.post(f"drafts/{draft['id']}/reject", {})
    answer = api.call("POST", "bundles", content=api.packed(api.bundle(weights_seed=7)))
    assert (answer.status_code, answer.json()["code"]) == (409, "OUT-B130")


def test_a_revocation_is_in_force_when_as_many_have_signed_as_for_an_approval(api):
    bundle = api.approved()
    draft = proposed(api, on_device="stop", why="CVE-2026-1")
    assert (draft["kind"], draft["on_device"], draft["why"]) == ("revoke", "stop", "CVE-2026-1")
    sign(api, draft, "bo")
    pending = state(api)["pending"]
    assert (state(api)["state"], pending["id"], pending["signatures"]["by"]) == (
        "approved", draft["id"], ["bo"],
    )  # fmt: skip
    assert not api.parts.repository.approvals()[bundle.digest].revoked
    assert (
        proposed(api, on_device="stop", why="another reason")
        == api.get(f"drafts/{draft['id']}").json()
    )

    assert in_force(api, draft, "ana")["complete"]

    revoked = api.parts.repository.approvals()[bundle.digest]
    assert (revoked.revoked, revoked.terms.on_device) == (True, "stop")
    shown = state(api)
    assert (shown["state"], shown["on_device"], shown["why"], shown["pending"]) == (
        "revoked", "stop", "CVE-2026-1", None,
    )  # fmt: skip
    assert ("model.revoked", "CVE-2026-1") in events(api)


def test_one_revocation_of_a_version_at_a_time(api):
    api.approved()
    gentle = proposed(api, on_device="report")
    hard = proposed(api, on_device="stop")
    assert gentle["id"] != hard["id"]
    sign(api, gentle, "ana")
    answer = api.post("drafts", {"kind": "revoke", "version": "digits/v1", "on_device": "stop"})
    assert (answer.status_code, answer.json()["code"]) == (409, "OUT-T111")
    assert "--on-device report" in answer.json()["detail"]
    api.post(f"drafts/{gentle['id']}/reject", {})
    assert proposed(api, on_device="stop")["id"] == hard["id"]
    assert state(api)["state"] == "approved"


def test_a_revoked_version_can_be_revoked_harder_and_restored(api):
    bundle = api.approved()
    in_force(api, proposed(api), "ana", "bo")
    answer = api.post("drafts", {"kind": "revoke", "version": "digits/v1"})
    assert (answer.status_code, answer.json()["code"]) == (409, "OUT-T111")
    in_force(api, proposed(api, on_device="stop"), "ana", "bo")
    assert state(api)["on_device"] == "stop"

    draft = api.get("models/digits/versions/v1/draft").json()
    assert draft["kind"] == "restore"
    in_force(api, draft, "bo", "cy")

    assert not api.parts.repository.approvals()[bundle.digest].revoked
    assert (state(api)["state"], state(api)["on_device"]) == ("approved", None)


def test_what_was_never_approved_cannot_be_revoked(api):
    api.pushed()
    answer = api.post("drafts", {"kind": "revoke", "version": "digits/v1"})
    assert (answer.status_code, answer.json()["code"]) == (409, "OUT-T104")


def test_the_list_is_renewed_without_a_change(api):
    api.approved()
    api.clock[0] += 40 * 86_400_000
    api.publish()
    before = api.parts.repository.approvals()
    draft = proposed(api, "renew")
    assert (draft["kind"], draft["versions"], draft["draft"]) == ("renew", [], 3)
    assert in_force(api, draft, "ana", "cy")["complete"]
    assert api.parts.repository.approvals() == before
    assert api.get("tuf/models.json").json()["signed"]["version"] == 3
    assert api.get("drafts").json()["items"] == []
    assert events(api)[-1] == ("models.renewed", "")


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "renew", "version": "digits/v1"},
        {"kind": "revoke"},
        {"kind": "approve", "version": "digits"},
        {"kind": "remove", "version": "digits/v1"},
        {"kind": "revoke", "version": "digits/v1", "on_device": "explode"},
        {"kind": "revoke", "version": "digits/v1", "why": "x" * 501},
        {"kind": "revoke", "version": "digits/v1", "surprise": 1},
    ],
    ids=["renew one", "revoke what", "no version", "kind", "on device", "long why", "unknown"],
)
def test_a_proposal_that_makes_no_sense_is_refused(api, body):
    api.approved()
    answer = api.post("drafts", body)
    assert (answer.status_code, answer.json()["code"]) == (422, "OUT-S120")


def test_an_unknown_draft_is_not_found(api):
    api.pushed()
    for name in ("0" * 16, "..%2f..%2fconfig", "x" * 300):
        assert api.get(f"drafts/{name}").status_code == 404
        assert api.post(f"drafts/{name}/reject", {}).status_code == 404


# --- the audit trail ------------------------------------------------------------------------------


def head_of(api: Api, draft):
    found = api.get(f"drafts/{draft['id']}").json()["metadata"]
    return json.loads(found)["signed"]["targets"]["models/digits/v1"]["custom"]["audit_head"]


def test_a_draft_anchors_the_trail_as_it_was_when_it_was_made(api):
    api.pushed()
    draft = api.get("models/digits/versions/v1/draft").json()
    head = head_of(api, draft)
    assert split_head(head)[0] == 1
    api.enrol("cam-1")
    api.put("devices/cam-1/pins/digits", {"version": "digits/v1"})
    sign(api, draft, "ana")
    assert api.store.audit.head() != head

    again = api.get("models/digits/versions/v1/draft").json()

    assert (again["id"], again["signatures"]["signed"]) == (draft["id"], 1)
    assert head_of(api, again) == head
    in_force(api, again, "bo")
    (listed,) = api.parts.repository.approvals().values()
    assert listed.terms.audit_head == head
    later = head_of(api, proposed(api))
    assert split_head(later)[0] > split_head(head)[0]


# --- what is left over ----------------------------------------------------------------------------


def test_a_draft_whose_change_is_in_force_already_is_closed(api):
    """A restored backup: what its drafts ask for was signed meanwhile."""
    bundle = api.approved()
    length = api.parts.blobs.path(bundle.digest).stat().st_size
    change = Change("digits", "v1", bundle.digest, length, Approved())
    api.parts.repository.draft((change,), api.clock[0])
    assert api.get("drafts").json()["items"] == []
    assert api.parts.repository.drafts() == ()


def test_a_draft_of_several_changes_is_shown_as_that(api):
    api.approved()
    changes = tuple(Change("digits", each, digest_of(each.encode()), 9) for each in ("v8", "v9"))
    api.parts.repository.draft(changes, api.clock[0])
    (listed,) = api.get("drafts").json()["items"]
    assert (listed["kind"], listed["versions"]) == ("change", ["digits/v8", "digits/v9"])


def test_an_online_key_signs_no_draft(api):
    api.approved()
    draft = proposed(api)
    signer = keys.load(api.parts.settings.keys / create.ROLLOUTS_KEY)
    made = Metadata[Targets].from_bytes(draft["metadata"].encode()).sign(signer)
    body = {"draft": draft["draft"], "signature": {"keyid": made.keyid, "sig": made.signature}}
    answer = api.post(f"drafts/{draft['id']}/signatures", body)
    assert (answer.status_code, answer.json()["code"]) == (403, "OUT-T112")
