"""What may be proposed, who must sign it, and what holders are told.

Long because each rule has its own hostile proposal.
"""

import dataclasses
import json
from datetime import timedelta

import pytest
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from control_plane.signing import (
    ceremony,
    ceremony_folder,
    ceremony_rules,
    create,
    own_copy,
    rotation,
)
from control_plane.signing.ceremony import InForce, powers
from control_plane.signing.ceremony_words import describe, signs
from control_plane.signing.own_copy import OwnCopy
from control_plane.signing.rotation import Change
from protocol.errors import InvalidRequest, OutriderError, TrustError
from tests.fakes.fleet_trust import FLEET
from tests.fakes.holders import APPROVERS, HOLDERS, HeldFleet


@pytest.fixture
def fleet(tmp_path):
    return HeldFleet(tmp_path / "control-plane")


@pytest.fixture
def people(fleet):
    return fleet.people


def words(proposal, compared):
    return [" ".join(each for each in line if each) for line in describe(proposal, compared)]


def changed(proposal, role, change, *, resign=()):
    """The proposal with one of its files altered by somebody on the way."""
    metadata = Metadata.from_bytes(proposal.file(role))
    change(metadata.signed)
    for signer in resign:
        metadata.sign(signer, append=True)
    return proposal.with_file(role, create.serialise(metadata))


def refused(proposal, fleet, code="OUT-T124", match=None):
    with pytest.raises(OutriderError, match=match) as caught:
        ceremony_rules.check(proposal, fleet.now)
    assert caught.value.code == code


# --- the first root -------------------------------------------------------------------------------


def test_a_first_root_says_who_may_do_what(fleet):
    state = fleet.repository.in_force()
    found = powers(state)
    assert found.root.said == "2 of ana, bo, cy"
    assert found.models.said == "2 of dan, eve, fay"
    assert found.versions == {"root": 1, "targets": 1, "models": 1}
    root = Metadata[Root].from_bytes(state.root).signed
    assert root.roles["root"].keyids == root.roles["targets"].keyids
    assert root.roles["snapshot"].keyids == root.roles["timestamp"].keyids


def test_a_first_root_is_told_in_words(fleet):
    first = fleet.first()
    told = words(first, None)
    assert told[0] == "root version 1, until 1 Dec 2027"
    assert told[1] == "2 of ana, bo, cy may say who may sign what"
    assert "2 of dan, eve, fay may approve versions" in told
    assert signs(("root", "targets"), first) == "root 1 and targets 1"


@pytest.mark.parametrize(
    "holders, approvers, more",
    [
        (HOLDERS, ("ana", "dan", "eve"), {}),
        (HOLDERS, APPROVERS, {"root_threshold": 4}),
        (HOLDERS, APPROVERS, {"root_threshold": 0}),
        (HOLDERS, APPROVERS, {"approver_threshold": 4}),
        (HOLDERS, (), {}),
    ],
    ids=["a holder approves", "4 of 3", "0 of 3", "4 of 3 approvers", "no approver"],
)
def test_keys_that_make_no_role_are_refused(fleet, holders, approvers, more):
    with pytest.raises(InvalidRequest) as caught:
        fleet.first(holders, approvers, **more)
    assert caught.value.code == "OUT-T117"


def test_two_keys_of_one_name_are_refused(fleet, people):
    key = people.key("gus")
    twin = SSlibKey(key.keyid, key.keytype, key.scheme, key.keyval, {"x-name": "ana"})
    with pytest.raises(InvalidRequest, match="two keys are called ana"):
        fleet.proposed(root=Change([twin], ["cy"]))


def test_the_server_s_key_is_nobody_else_s(fleet, people):
    for role in ("rollouts", "snapshot"):
        key = fleet.online.wanted()[role]
        with pytest.raises(InvalidRequest) as caught:
            fleet.proposed(root=Change([key], ["cy"]))
        assert caught.value.code == "OUT-T117"


# --- signatures -----------------------------------------------------------------------------------


def test_everybody_signs_what_they_may_and_nothing_else(fleet, people):
    first = fleet.first()
    assert ceremony.signable(first, people.key("ana").keyid) == ("root", "targets")
    assert ceremony.signable(first, people.key("dan").keyid) == ("models",)
    with pytest.raises(InvalidRequest) as caught:
        people.sign(first, "stranger")
    assert caught.value.code == "OUT-T112"
    assert "ana, bo, cy, dan, eve, fay" in caught.value.do


def test_who_is_missing_is_said_by_name(fleet, people):
    signed = people.sign(fleet.first(), "ana")
    said = {need.file: need.said for need in ceremony.needs(signed)}
    assert said == {
        "root 1": "1 of 2; bo or cy is missing",
        "targets 1": "1 of 2; bo or cy is missing",
        "models 1": "0 of 2; 2 of dan, eve, fay are missing",
    }
    with pytest.raises(TrustError, match="bo or cy is missing") as caught:
        ceremony.require_complete(signed)
    assert caught.value.code == "OUT-T123"
    ceremony.require_complete(people.sign(signed, "cy", "dan", "fay"))


def test_one_holder_who_signs_twice_counts_once(fleet, people):
    signed = people.sign(fleet.first(), "ana", "ana")
    assert ceremony.needs(signed)[0].signed == ("ana",)


def test_a_next_root_takes_the_threshold_of_old_and_new_keys(fleet, people):
    replaced = fleet.proposed(root=Change(people.keys("gus", "hal"), ["bo", "cy"]))
    by = [(need.file, need.by) for need in ceremony.needs(replaced)]
    assert by[:2] == [("root 2", "holders of root 1"), ("root 2", "holders of root 2")]
    for too_few in (("ana", "gus", "hal"), ("ana", "bo"), ("bo", "cy")):
        with pytest.raises(TrustError):
            ceremony.require_complete(people.sign(replaced, *too_few))
    ceremony.require_complete(people.sign(replaced, "ana", "bo", "gus"))


# --- changes in words -----------------------------------------------------------------------------


def test_exactly_what_changes_is_said(fleet, people):
    proposal = fleet.proposed(
        root=fleet.replaced("cy", "gus"), models=fleet.replaced("dan", "hal"), online=["snapshot"]
    )
    told = "\n".join(words(proposal, powers(proposal.base)))
    for said in (
        "root version 1 -> 2",
        "2 of ana, bo, cy -> 2 of ana, bo, gus may say who may sign what",
        f"- cy (key {people.key('cy').keyid[:8]})",
        f"+ gus (key {people.key('gus').keyid[:8]})",
        "targets version 1 -> 2",
        "2 of dan, eve, fay -> 2 of eve, fay, hal may approve versions",
        "rollouts the server's key stays",
        "snapshot the server's key changes",
    ):
        assert said in told


def test_a_threshold_of_one_is_pointed_out(fleet):
    proposal = fleet.proposed(root=Change(threshold=1))
    assert "careful one key alone is enough for root" in words(proposal, powers(proposal.base))


def test_what_others_changed_since_the_reader_looked_is_said_too(fleet, people):
    before = powers(fleet.repository.in_force())
    fleet.rotate("ana", "bo", "eve", "fay", models=fleet.replaced("dan", "hal"))
    proposal = fleet.proposed(models=Change(threshold=3))
    told = "\n".join(words(proposal, before))
    assert "targets version 1 -> 3" in told
    assert "2 of dan, eve, fay -> 3 of eve, fay, hal" in told


# --- refusals -------------------------------------------------------------------------------------


def extra(signed):
    signed.unrecognized_fields["x-hidden"] = 1


def longer(signed):
    signed.expires += timedelta(days=40)


def expired(signed):
    signed.expires -= timedelta(days=500)


def jump(signed):
    signed.version += 1


def back(signed):
    signed.version -= 1


@pytest.mark.parametrize("role", ["root", "targets", "models"])
@pytest.mark.parametrize("change", [extra, longer, expired, jump], ids=lambda f: f.__name__)
def test_what_cannot_be_shown_or_does_not_follow_is_refused(fleet, role, change):
    refused(changed(fleet.first(), role, change), fleet)


def test_an_older_version_is_refused(fleet):
    proposal = fleet.proposed(models=Change(threshold=3))
    refused(changed(proposal, "targets", back), fleet, match="older than what is in force")


def weak_online(root):
    root.roles["timestamp"].keyids.append(root.roles["root"].keyids[0])


def only_timestamp(root):
    root.roles["timestamp"].keyids = [root.roles["root"].keyids[0]]


def unused_key(root):
    key = CryptoSigner.generate_ed25519().public_key
    root.keys[key.keyid] = key


def one_key_twice(root):
    key = root.keys[root.roles["root"].keyids[0]]
    twin = SSlibKey("0" * 64, key.keytype, key.scheme, key.keyval, {"x-name": "bob"})
    for role in ("root", "targets"):
        root.add_key(twin, role)


def consistent(root):
    root.consistent_snapshot = True


@pytest.mark.parametrize(
    "change, code",
    [
        (weak_online, "OUT-T124"),
        (only_timestamp, "OUT-T124"),
        (unused_key, "OUT-T124"),
        (consistent, "OUT-T124"),
        (one_key_twice, "OUT-T117"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_root_that_is_not_ours_is_refused(fleet, change, code):
    refused(changed(fleet.first(), "root", change), fleet, code)


def wider_paths(targets):
    targets.delegations.roles["rollouts"].paths = ["*/*"]


def not_terminating(targets):
    targets.delegations.roles["models"].terminating = False


def another_role(targets):
    role = targets.delegations.roles["rollouts"]
    targets.delegations.roles["spare"] = type(role)("spare", role.keyids, 1, True, paths=["x/*"])


def a_target(targets):
    targets.targets["x"] = TargetFile.from_data("x", b"x", ["sha256"])


@pytest.mark.parametrize(
    "change", [wider_paths, not_terminating, another_role, a_target], ids=lambda f: f.__name__
)
def test_targets_that_delegate_anything_else_are_refused(fleet, change):
    refused(changed(fleet.first(), "targets", change), fleet)


def test_a_ceremony_never_changes_what_is_approved(fleet):
    fleet.approve("digits/v1")
    proposal = rotation.renew(FLEET, fleet.repository.in_force(), ["models"], fleet.now)

    def list_another(models):
        models.targets["models/digits/evil"] = TargetFile.from_data(
            "models/digits/evil", b"evil", ["sha256"]
        )

    refused(changed(proposal, "models", list_another), fleet, match="which versions are approved")
    refused(changed(proposal, "models", lambda m: m.targets.clear()), fleet)
    refused(changed(fleet.first(), "models", list_another), fleet)


def test_new_approvers_without_models_signed_again_are_refused(fleet, people):
    """Devices would keep the old list and take nothing more."""
    proposal = fleet.proposed(models=Change(people.keys("gus", "hal"), ["dan", "eve"]))
    assert proposal.models is not None
    without = dataclasses.replace(proposal, models=None)
    refused(without, fleet, match="models was not signed again")


def test_approvers_whose_signatures_still_suffice_need_not_sign_again(fleet, people):
    assert fleet.proposed(models=Change([people.key("gus")])).models is None
    # dan and eve had signed models 1: without eve only one of two is left.
    assert fleet.proposed(models=Change((), ["eve"])).models is not None


def test_new_root_holders_without_targets_signed_again_are_refused(fleet):
    proposal = fleet.proposed(root=fleet.replaced("ana", "gus"))
    without = dataclasses.replace(proposal, targets=None)
    refused(without, fleet, match="targets was not signed again")


def test_a_change_of_nothing_is_refused(fleet, people):
    with pytest.raises(TrustError, match="nothing"):
        fleet.proposed()
    with pytest.raises(InvalidRequest, match="none of root: ana, bo, cy"):
        fleet.proposed(root=Change((), ["zoe"]))
    with pytest.raises(InvalidRequest, match="already"):
        fleet.proposed(root=Change([people.key("bo")]))


def test_a_base_that_its_keys_did_not_sign_is_refused(fleet, tmp_path):
    other = HeldFleet(tmp_path / "other")
    proposal = fleet.proposed(models=Change(threshold=3))
    mine, theirs = fleet.repository.in_force(), other.repository.in_force()
    for base in (
        InForce(mine.roots, theirs.targets, mine.models),
        InForce(mine.roots, mine.targets, theirs.models),
        InForce({1: theirs.root}, mine.targets, mine.models),
        InForce({**mine.roots, 2: theirs.root}, mine.targets, mine.models),
        InForce({**mine.roots, 3: mine.root}, mine.targets, mine.models),
    ):
        refused(dataclasses.replace(proposal, base=base), fleet)


# --- a holder's own copy --------------------------------------------------------------------------


def test_a_holder_notices_another_fleet_a_fork_and_something_older(fleet, tmp_path):
    mine = fleet.repository.in_force()
    other = HeldFleet(tmp_path / "other").repository.in_force()
    fleet.rotate("ana", "bo", root=fleet.replaced("cy", "gus"))
    newer = fleet.repository.in_force()

    ceremony.require_continues(mine, mine)
    ceremony.require_continues(mine, newer)
    for own, base, why in (
        (mine, other, "another root 1"),
        (newer, mine, "your own copy is 2"),
        (InForce({2: newer.root}, newer.targets, newer.models), mine, "none of the roots"),
    ):
        with pytest.raises(TrustError, match=why):
            ceremony.require_continues(own, base)


def test_a_first_root_is_the_same_whoever_has_signed_it(fleet, people):
    first = fleet.first()
    assert ceremony.same_content(first.root, people.sign(first, "ana").root)
    assert not ceremony.same_content(first.root, fleet.first(("ana", "bo", "gus")).root)


def test_the_own_copy_remembers_what_was_seen_and_what_was_signed(fleet, tmp_path):
    path = own_copy.path_of(tmp_path / "ana.pem", FLEET)
    assert path.name == "ana.north.seen.json"
    assert own_copy.read(path) == OwnCopy()
    proposal = fleet.proposed(root=fleet.replaced("cy", "gus"))
    content = {"root 2": ceremony.content(proposal, "root")}
    own_copy.write(path, OwnCopy().after(proposal, content))

    found = own_copy.read(path)
    assert found.state is not None
    assert found.state.newest == 1
    assert found.other(content) == ()
    assert found.other({"root 2": b"another", "targets 2": b"new"}) == ("root 2",)
    path.write_text("garbage")
    with pytest.raises(InvalidRequest):
        own_copy.read(path)


# --- the folder -----------------------------------------------------------------------------------


def test_a_folder_carries_a_ceremony_and_its_signatures(fleet, people, tmp_path):
    folder = tmp_path / "ceremony"
    proposal = fleet.proposed(models=Change([people.key("gus")], ["dan"]))
    ceremony_folder.write(folder, proposal)
    assert ceremony_folder.read(folder) == proposal
    signed = people.sign(ceremony_folder.read(folder), "ana")
    ceremony_folder.write_signatures(folder, signed)
    assert ceremony.needs(ceremony_folder.read(folder))[0].signed == ("ana",)
    with pytest.raises(InvalidRequest) as caught:
        ceremony_folder.write(folder, proposal)
    assert caught.value.code == "OUT-S151"


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "ceremony.json").write_text("garbage"),
        lambda folder: (folder / "ceremony.json").write_text("{}"),
        lambda folder: (folder / "base" / "targets.json").unlink(),
        lambda folder: (folder / "base" / "root" / "x.json").write_text("{}"),
        lambda folder: (folder / "new" / "targets.json").write_text("garbage"),
        lambda folder: (folder / "new" / "targets.json").write_bytes(b" " * 3_000_000),
        lambda folder: (folder / "base" / "root" / "1.json").write_text("{}"),
        lambda folder: (folder / "new" / "models.json").unlink(),
    ],
)
def test_a_damaged_folder_is_refused(fleet, tmp_path, damage):
    folder = tmp_path / "ceremony"
    ceremony_folder.write(folder, fleet.proposed(models=Change(threshold=3)))
    damage(folder)
    with pytest.raises(TrustError) as caught:
        ceremony_rules.check(ceremony_folder.read(folder), fleet.now)
    assert caught.value.code == "OUT-T124"


def test_what_was_tampered_with_after_signing_has_no_signatures(fleet, people, tmp_path):
    folder = tmp_path / "ceremony"
    ceremony_folder.write(
        folder, people.sign(fleet.proposed(models=Change([people.key("gus")])), "ana", "bo")
    )
    path = folder / "new" / "targets.json"
    body = json.loads(path.read_bytes())
    gus, mallory = people.key("gus"), people.key("mallory")
    keys = body["signed"]["delegations"]
    keys["keys"][mallory.keyid] = mallory.to_dict()
    del keys["keys"][gus.keyid]
    models = keys["roles"][0]
    models["keyids"] = [mallory.keyid if k == gus.keyid else k for k in models["keyids"]]
    path.write_text(json.dumps(body))

    proposal = ceremony_folder.read(folder)
    with pytest.raises(TrustError, match="0 of 2"):
        ceremony.require_complete(proposal)
    with pytest.raises(TrustError):
        fleet.install(proposal)
    assert Metadata[Targets].from_bytes(fleet.repository.in_force().targets).signed.version == 1
