"""What a technician's order comes to: case by case."""

from dataclasses import replace

import pytest

from edge_agent import pinning
from edge_agent.pinning import Standing
from protocol.approval import Approved, ApprovedBundle
from protocol.errors import OutriderError
from protocol.identifiers import digest_of
from protocol.reported import LocalPin, ModelState

NOW_MS = 1_795_000_000_000  # 18 Nov 2026 11:06:40 UTC
V1, V2, V3, V4 = (digest_of(name.encode()) for name in ("v1", "v2", "v3", "v4"))
FACES = digest_of(b"faces")

DIGITS = ModelState(current=V2, previous=V1, serving=V2, target=V2)


def approvals(*revoked):
    named = {V1: ("digits", "v1"), V2: ("digits", "v2"), V3: ("digits", "v3")}
    return {
        d: ApprovedBundle(m, v, d, Approved(state="revoked" if d in revoked else "approved"))
        for d, (m, v) in named.items()
    }


STANDING = Standing(NOW_MS, {"digits": DIGITS}, approvals(), frozenset({V1, V2}))


def with_state(**changes):
    return replace(STANDING, models={"digits": replace(DIGITS, **changes)})


@pytest.mark.parametrize(
    "standing, bundle",
    [
        pytest.param(STANDING, V1, id="from what is proven to what was before it"),
        pytest.param(with_state(serving=V3), V2, id="from a trial to what is proven"),
    ],
)
def test_rollback_goes_to_the_version_before(standing, bundle):
    assert pinning.back(standing, "digits") == bundle


BACK_ON_TRIAL = replace(with_state(serving=V1), pins={"digits": LocalPin(V1)})


@pytest.mark.parametrize(
    "standing",
    [BACK_ON_TRIAL, replace(STANDING, pins={"digits": LocalPin(V1)})],
    ids=["on trial", "not begun"],
)
def test_who_rolls_back_twice_does_not_come_back_to_what_was_wrong(standing):
    assert pinning.back(standing, "digits") == V1


def test_who_is_back_for_good_names_the_version_to_go_to():
    over = with_state(current=V1, previous=V2, serving=V1)
    with pytest.raises(OutriderError) as raised:
        pinning.back(replace(over, pins={"digits": LocalPin(V1)}), "digits")
    assert (raised.value.code, raised.value.do) == (
        "OUT-D408", "another one: outrider-agent pin digits/v2",
    )  # fmt: skip


def test_from_a_version_that_was_pinned_rollback_leads_to_what_is_proven():
    trying = replace(with_state(serving=V3), pins={"digits": LocalPin(V3)})
    assert pinning.back(trying, "digits") == V2


NO_WAY_BACK = {
    "nothing ran before": (with_state(previous=None), "OUT-D408", "nothing ran here before"),
    "removed for room": (replace(STANDING, here=frozenset({V2})), "OUT-D408", "to make room"),
    "revoked": (replace(STANDING, approvals=approvals(V1)), "OUT-T105", "approvers revoked"),
    "denied by operators": (replace(STANDING, denied=frozenset({V1})), "OUT-T105", "deny list"),
    "not listed any more": (replace(STANDING, approvals={}), "OUT-T104", "do not list"),
    "failed here": (
        replace(STANDING, given_up={V1: ("OUT-D310", "confidence 0.31")}), "OUT-D310",
        "a pin does not lift that: confidence 0.31",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NO_WAY_BACK)
def test_a_way_back_that_is_none_is_refused_with_its_reason(case):
    standing, code, why = NO_WAY_BACK[case]
    with pytest.raises(OutriderError) as raised:
        pinning.back(standing, "digits")
    assert (raised.value.code, why in raised.value.why) == (code, True), raised.value.why
    assert raised.value.do


def test_a_version_that_is_here_is_pinned_without_a_link():
    assert pinning.chosen(STANDING, "digits/v1") == ("digits", V1)


def test_a_version_that_is_not_here_is_pinned_where_it_can_be_fetched():
    assert pinning.chosen(replace(STANDING, linked=True), "digits/v3") == ("digits", V3)


@pytest.mark.parametrize(
    "reference, code, why",
    [
        ("digits/v3", "OUT-D407", "here: digits/v1, digits/v2"),
        ("digits/v9", "OUT-D407", "no version digits/v9 is approved; here: digits/v1, digits/v2"),
        ("digits", "OUT-S120", "is not MODEL/VERSION"),
        ("/v1", "OUT-S120", "is not MODEL/VERSION"),
    ],
)
def test_a_version_that_is_not_here_is_refused_with_what_is(reference, code, why):
    with pytest.raises(OutriderError) as raised:
        pinning.chosen(STANDING, reference)
    assert (raised.value.code, why in raised.value.why) == (code, True), raised.value.why


def test_a_revoked_version_is_not_pinned():
    with pytest.raises(OutriderError) as raised:
        pinning.chosen(replace(STANDING, approvals=approvals(V1)), "digits/v1")
    assert raised.value.code == "OUT-T105"


def test_the_only_model_need_not_be_named_others_must():
    two = replace(STANDING, models={"digits": DIGITS, "faces": ModelState(current=FACES)})
    assert pinning.the_model(STANDING, "") == "digits"
    assert pinning.the_model(two, "faces") == "faces"
    for standing, named, code in (
        (two, "", "OUT-S120"),
        (two, "digit", "OUT-S110"),
        (replace(STANDING, models={}), "", "OUT-D408"),
    ):
        with pytest.raises(OutriderError) as raised:
            pinning.the_model(standing, named)
        assert raised.value.code == code


def test_a_pin_keeps_who_and_why_in_one_printable_line():
    pin = pinning.made(
        V1, why="\x1b[31mwrong\nlabels" + "x" * 300, who="tom", until="", now_ms=NOW_MS
    )
    assert pin.why.startswith("[31mwrong labels")
    assert pin.why.isprintable()
    assert len(pin.why) == 200
    assert (pin.who, pin.at_ms, pin.until_ms) == ("tom", NOW_MS, None)


@pytest.mark.parametrize("until", ["3d", "1dec", "2026-12-01"])
def test_a_pin_may_end_by_itself(until):
    pin = pinning.made(V1, why="", who="", until=until, now_ms=NOW_MS)
    assert pin.until_ms is not None
    assert pin.until_ms > NOW_MS


@pytest.mark.parametrize("until", ["soon", "31feb", "2020-01-01", "3 d"])
def test_an_end_that_is_none_or_over_is_refused(until):
    with pytest.raises(OutriderError) as raised:
        pinning.made(V1, why="", who="", until=until, now_ms=NOW_MS)
    assert raised.value.code == "OUT-S120"
