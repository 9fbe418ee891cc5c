"""Comparing lists and versions: what differs is named, what does not is not."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.signing.review import (
    Asked,
    Listed,
    anchors,
    beyond,
    compare,
    compare_contracts,
    compare_metrics,
    compare_policies,
    head_of,
    least,
    predecessor,
    terms_changes,
)
from protocol.approval import Approved, ApprovedBundle
from protocol.bundle import Facts, Needs, unfit
from protocol.identifiers import digest_of
from protocol.members import Contract, Limits, Policy, TensorSpec

HEAD = "7:" + "a" * 64
LATER = "12:" + "b" * 64


def listed(reference, content=None, length=9, **terms):
    model, _, version = reference.partition("/")
    digest = digest_of((content or reference).encode())
    return Listed(ApprovedBundle(model, version, digest, Approved(**terms)), length)


def entries(*each):
    return {f"models/{one.bundle.model}/{one.bundle.version}": one for one in each}


V1, V2 = listed("digits/v1"), listed("digits/v2")


@pytest.mark.parametrize(
    "before,after,expected",
    [
        pytest.param([V1], [V1], {}, id="nothing"),
        pytest.param([], [V1], {"v1": "approved"}, id="new"),
        pytest.param([], [listed("digits/v1", state="revoked")], {"v1": "revoked"}, id="born dead"),
        pytest.param([V1], [listed("digits/v1", state="revoked")], {"v1": "revoked"}, id="revoked"),
        pytest.param(
            [listed("digits/v1", state="revoked")], [V1], {"v1": "restored"}, id="restored"
        ),
        pytest.param([V1], [], {"v1": "removed"}, id="removed"),
        pytest.param([V1], [listed("digits/v1", "x")], {"v1": "re-pointed"}, id="re-pointed"),
        pytest.param(
            [V1],
            [listed("digits/v1", "x", state="revoked")],
            {"v1": "re-pointed"},
            id="re-pointed is worse than revoked",
        ),
        pytest.param([V1], [listed("digits/v1", length=10)], {"v1": "terms"}, id="another length"),
        pytest.param([V1], [listed("digits/v1", capture=("x",))], {"v1": "terms"}, id="capture"),
        pytest.param([V1], [listed("digits/v1", audit_head=HEAD)], {"v1": "terms"}, id="only head"),
        pytest.param(
            [listed("digits/v1", state="revoked")],
            [listed("digits/v1", state="revoked", on_device="stop")],
            {"v1": "terms"},
            id="revoked harder",
        ),
        pytest.param([V1], [V2], {"v1": "removed", "v2": "approved"}, id="renamed"),
    ],
)
def test_what_differs_has_a_kind(before, after, expected):
    found = compare(entries(*before), entries(*after))

    assert {each.reference.partition("/")[2]: each.kind for each in found} == expected


bundles = st.builds(
    lambda model, version, content, revoked, length: listed(
        f"{model}/{version}", content, length, state="revoked" if revoked else "approved"
    ),
    st.sampled_from(["digits", "other"]),
    st.sampled_from(["v1", "v2", "v3"]),
    st.sampled_from(["a", "b"]),
    st.booleans(),
    st.integers(1, 2),
)
lists = st.lists(bundles, max_size=6).map(lambda found: entries(*found))


@given(before=lists, after=lists)
def test_differences_are_all_there_is_between_two_lists(before, after):
    found = compare(before, after)
    assert [each.path for each in found] == sorted({each.path for each in found})
    made = dict(before)
    for each in found:
        made.pop(each.path, None)
        if each.after is not None:
            made[each.path] = Listed(each.after, each.length)
    assert made == after
    assert compare(before, before) == ()


# --- what was asked for ---------------------------------------------------------------------------

REVOKED = listed("digits/v1", state="revoked")
APPROVE = Asked("approve", "models/digits/v2")
REVOKE = Asked("revoke", "models/digits/v1", "fallback")


@pytest.mark.parametrize(
    "asked,before,after,says",
    [
        pytest.param(APPROVE, [V1], [V1, V2], "", id="just that"),
        pytest.param(APPROVE, [V1], [V2], "v1: removed", id="another one goes"),
        pytest.param(APPROVE, [V1], [REVOKED, V2], "v1: revoked", id="another one is revoked"),
        pytest.param(APPROVE, [REVOKED], [V1, V2], "v1: restored", id="another one comes back"),
        pytest.param(APPROVE, [], [V1, V2], "v1: approved", id="another one comes with it"),
        pytest.param(APPROVE, [V1], [V1], "says nothing new of digits/v2", id="nothing"),
        pytest.param(
            APPROVE,
            [V2],
            [listed("digits/v2", "x")],
            "v2: re-pointed",
            id="a version never changes",
        ),
        pytest.param(
            APPROVE, [V2], [listed("digits/v2", state="revoked")], "v2: revoked", id="the contrary"
        ),
        pytest.param(
            Asked("approve", "models/digits/v1"), [REVOKED], [V1], "", id="restoring is approving"
        ),
        pytest.param(REVOKE, [V1], [REVOKED], "", id="a revocation"),
        pytest.param(REVOKE, [REVOKED], [V1], "v1: restored", id="a revocation that restores"),
        pytest.param(
            REVOKE,
            [V1],
            [listed("digits/v1", state="revoked", on_device="stop")],
            "v1: revoked",
            id="a harder revocation than was asked for",
        ),
        pytest.param(Asked("renew"), [V1], [V1], "", id="a renewal"),
        pytest.param(Asked("renew"), [V1], [V1, V2], "v2: approved", id="a renewal that adds"),
    ],
)
def test_a_draft_does_what_was_asked_for_and_nothing_else(asked, before, after, says):
    said = beyond(asked, compare(entries(*before), entries(*after)))

    assert says in said
    assert bool(said) == bool(says)


# --- heads of the audit trail ---------------------------------------------------------------------


def test_all_entries_of_a_draft_anchor_one_head():
    one = compare({}, entries(listed("digits/v1", audit_head=HEAD)))
    other = compare({}, entries(listed("digits/v2", audit_head=LATER)))
    assert head_of(one) == HEAD
    assert head_of(()) == ""
    assert head_of(compare(entries(V1), {})) == ""
    with pytest.raises(ValueError, match="different heads"):
        head_of([*one, *other])
    with pytest.raises(ValueError, match="not the head"):
        head_of(compare({}, entries(listed("digits/v1", audit_head="7"))))


def test_what_is_in_force_says_which_heads_were_signed():
    found = anchors([V1, listed("digits/v2", audit_head=HEAD)])
    assert [(each.head, each.where) for each in found] == [(HEAD, "digits/v2")]


# --- two versions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "others,expected",
    [
        pytest.param([], None, id="the first"),
        pytest.param([listed("digits/v9"), listed("digits/v10")], "v10", id="by number"),
        pytest.param(
            [listed("digits/v9", audit_head=LATER), listed("digits/v10", audit_head=HEAD)],
            "v9",
            id="what was signed last",
        ),
        pytest.param([listed("digits/v9", state="revoked"), V1], "v1", id="not a revoked one"),
        pytest.param([listed("other/v9")], None, id="not another model"),
        pytest.param([V2, V1], "v1", id="not itself"),
        pytest.param([listed("digits/1.a"), listed("digits/x")], "1.a", id="names of any form"),
    ],
)
def test_a_version_is_compared_with_the_one_approved_last(others, expected):
    (difference,) = compare({}, entries(V2))
    found = predecessor(others, difference)

    assert (found.bundle.version if found else None) == expected


PIXELS = TensorSpec("pixels", "FP32", (-1, 64), 0.0, 16.0)
LABEL = TensorSpec("label", "INT64", (-1,), role="label")
CONTRACT = Contract((PIXELS,), (LABEL,), ("0", "1"))


@pytest.mark.parametrize(
    "change,expected",
    [
        pytest.param({}, [], id="equal"),
        pytest.param(
            {"inputs": (replace(PIXELS, shape=(-1, 63)),)},
            ["input pixels is float32[-1,63], was float32[-1,64]"],
            id="shape",
        ),
        pytest.param(
            {"inputs": (replace(PIXELS, datatype="FP64"),)},
            ["input pixels is float64[-1,64], was float32[-1,64]"],
            id="type",
        ),
        pytest.param(
            {"inputs": (replace(PIXELS, name="image"),)},
            ["input pixels is gone", "input image is new: float32[-1,64]"],
            id="renamed",
        ),
        pytest.param(
            {"inputs": (PIXELS, replace(PIXELS, name="mask"))},
            ["input mask is new: float32[-1,64]"],
            id="one more",
        ),
        pytest.param(
            {"outputs": (replace(LABEL, role="other"),)},
            ["output label means other, was label"],
            id="meaning",
        ),
        pytest.param({"classes": ("1", "0")}, ["classes come in another order"], id="order"),
        pytest.param(
            {"classes": ("0", "2")},
            ["classes are gone: 1", "classes are new: 2"],
            id="other classes",
        ),
        pytest.param(
            {"absolute_tolerance": 0.5}, ["absolute tolerance 0.5, was 0.0001"], id="tolerance"
        ),
    ],
)
def test_a_changed_contract_says_how(change, expected):
    found = compare_contracts(CONTRACT, replace(CONTRACT, **change))

    assert list(found.changed) == expected
    assert found.ranges == ()


def test_the_range_of_samples_is_no_change_of_the_contract():
    other = replace(CONTRACT, inputs=(replace(PIXELS, minimum=None, maximum=255.0),))
    found = compare_contracts(CONTRACT, other)
    assert found.changed == ()
    assert found.ranges == ("pixels is made for any..255, was 0..16",)


def test_two_inputs_in_another_order_are_a_change():
    mask = replace(PIXELS, name="mask")
    found = compare_contracts(
        replace(CONTRACT, inputs=(PIXELS, mask)), replace(CONTRACT, inputs=(mask, PIXELS))
    )
    assert found.changed == ("inputs come in another order",)


specs = st.builds(
    TensorSpec,
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(["FP32", "INT64"]),
    st.sampled_from([(-1,), (-1, 2)]),
    role=st.sampled_from(["label", "other"]),
)
contracts = st.builds(
    Contract,
    st.lists(specs, min_size=1, max_size=3, unique_by=lambda spec: spec.name).map(tuple),
    st.lists(specs, min_size=1, max_size=3, unique_by=lambda spec: spec.name).map(tuple),
    st.lists(st.sampled_from("xyz"), unique=True).map(tuple),
    absolute_tolerance=st.sampled_from([0.1, 0.2]),
)


@given(was=contracts, now=contracts)
def test_contracts_are_called_unchanged_exactly_when_they_are(was, now):
    assert (compare_contracts(was, now).changed == ()) == (was == now)


def test_a_laxer_policy_is_told():
    was = Policy()
    now = Policy(min_requests=0, limits=Limits(error_share=1.0))
    assert compare_policies(was, was) == ()
    assert compare_policies(was, now) == (
        "min_requests 0, was 50",
        "limits.error_share 1.0, was 0.01",
    )


def test_changed_terms_are_told_but_for_the_head():
    was = Approved(audit_head=HEAD)
    now = Approved(audit_head=LATER, capture=("inputs",), needs=Needs(ram_bytes=5))
    assert terms_changes(was, replace(was, audit_head=LATER)) == ()
    assert terms_changes(was, now) == ("needs.ram_bytes 5, was 0", "capture inputs, was nothing")


def test_metrics_are_told_side_by_side_accuracy_first():
    found = compare_metrics({"loss": 0.2, "accuracy": 0.9}, {"accuracy": 0.8, "recall": 0.7})
    assert [(each.name, each.now, each.was) for each in found] == [
        ("accuracy", 0.9, 0.8),
        ("loss", 0.2, None),
        ("recall", None, 0.7),
    ]


needs = st.builds(
    Needs,
    st.sampled_from([(), ("aarch64",), ("aarch64", "x86_64")]),
    st.sampled_from(["", "1.9", "1.17"]),
    st.sampled_from([0, 10, 20]),
    st.sampled_from(["", "0.2"]),
)
facts = st.builds(
    Facts,
    st.sampled_from(["aarch64", "x86_64"]),
    st.sampled_from(["", "1.9", "1.17"]),
    st.sampled_from([0, 10, 20]),
    st.sampled_from(["", "0.2"]),
)


@given(variants=st.lists(needs, min_size=1, max_size=3), device=facts)
def test_what_any_variant_fits_is_never_excluded(variants, device):
    if any(unfit(each, device) is None for each in variants):
        assert unfit(least(variants), device) is None
    assert least(variants[:1] * 2) == replace(variants[0], arch=tuple(sorted(variants[0].arch)))
