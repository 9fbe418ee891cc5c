"""`resolve()`: the one reading of a plan, on both sides of the wire."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec
from protocol.approval import Approved, ApprovedBundle
from protocol.bundle import Facts, Needs
from protocol.device import DeviceDocument, Pin, TransferWindow
from protocol.errors import NotUnderstood, PeerError
from protocol.membership import EVERYONE, position
from protocol.plan import Ended, Local, Plan, Rollout, Rule, Wave, resolve
from protocol.selector import Selector

V1, V2, V3, FALLBACK = ("sha256-" + str(n) * 64 for n in (1, 2, 3, 9))
SALT = "0" * 32
DEVICE = "north-cam-1"
PLACE = position(SALT, DEVICE)
LEEDS = Selector("eq", "site", ("leeds",))

APPROVALS = {
    digest: ApprovedBundle("digits", f"v{n}", digest)
    for n, digest in ((1, V1), (2, V2), (3, V3), (9, FALLBACK))
}
DOCUMENT = DeviceDocument("north", DEVICE, 1, since=5, labels={"site": "leeds"})
LOCAL = Local(now_ms=1_000)


def rollout(threshold=EVERYONE, **changes):
    wave = changes.pop("wave", Wave(threshold))
    return replace(Rollout("digits-1", 1, V2, SALT, 5, wave), **changes)


def plan(*rules, ended=None, needs=("plan/1", "selector/1")):
    return Plan("north", "digits", 1, 1, rules, ended, needs)


def run(plan, document=DOCUMENT, approvals=APPROVALS, denied=frozenset(), local=LOCAL):
    return [
        c.digest for c in resolve(plan, document, approvals, denied, local, "digits").candidates
    ]


ROLLING = plan(Rule(None, V1, rollout()))


@pytest.mark.parametrize(
    "plan, expected",
    [
        pytest.param(None, [], id="no plan assigns nothing"),
        pytest.param(plan(), [], id="a plan without rules assigns nothing"),
        pytest.param(plan(Rule(None, V1)), [V1], id="stable"),
        pytest.param(
            plan(Rule(LEEDS, V1), Rule(None, V2)), [V1], id="the first rule that matches wins"
        ),
        pytest.param(
            plan(Rule(Selector("not", of=(LEEDS,)), V1), Rule(None, V2)),
            [V2],
            id="a rule that does not match is passed over",
        ),
        pytest.param(ROLLING, [V2, V1], id="in the wave: candidate, then stable"),
        pytest.param(plan(Rule(None, V1, rollout(PLACE))), [V1], id="at the threshold is out"),
        pytest.param(
            plan(Rule(None, V1, rollout(PLACE + 1))), [V2, V1], id="below the threshold is in"
        ),
        pytest.param(
            plan(Rule(None, V1, rollout(wave=Wave(0, include=("cam-1",))))),
            [V2, V1],
            id="include beats the threshold",
        ),
        pytest.param(
            plan(Rule(None, V1, rollout(wave=Wave(EVERYONE, ("cam-1",), ("cam-1",))))),
            [V1],
            id="exclude beats include",
        ),
        pytest.param(
            plan(Rule(None, V1, rollout(wave=Wave(0, (), (), "site", {"leeds": EVERYONE})))),
            [V2, V1],
            id="a threshold per label value",
        ),
        pytest.param(
            plan(Rule(None, V1, rollout(wave=Wave(0, (), (), "site", {"york": EVERYONE})))),
            [V1],
            id="a label value without its own threshold uses the common one",
        ),
        pytest.param(
            plan(Rule(None, V1, rollout(EVERYONE - 1, as_of=4))),
            [V1],
            id="labels changed after the start: out below everyone",
        ),
        pytest.param(
            plan(Rule(None, V1, rollout(EVERYONE, as_of=4))),
            [V2, V1],
            id="labels changed after the start: in with everyone",
        ),
        pytest.param(
            plan(Rule(None, V1, rollout(holdback=EVERYONE - PLACE))),
            [V1],
            id="held back as control",
        ),
        pytest.param(
            plan(Rule(None, V1, rollout(holdback=EVERYONE - PLACE - 1))),
            [V2, V1],
            id="just below the control cohort",
        ),
    ],
)
def test_a_plan_is_read_as_written(plan, expected):
    assert run(plan) == expected


def pinned(digest, until=None):
    return replace(DOCUMENT, pins={"digits": Pin(digest, until)})


@pytest.mark.parametrize(
    "document, local, expected",
    [
        pytest.param(None, LOCAL, [], id="without a verified document nothing is assigned"),
        pytest.param(None, replace(LOCAL, pin=Pin(V3)), [V3], id="except what a technician pinned"),
        pytest.param(pinned(V3), LOCAL, [V3, V2, V1], id="a pin comes before the rollout"),
        pytest.param(pinned(V3, 1_000), LOCAL, [V2, V1], id="a pin that has run out"),
        pytest.param(
            pinned(V3), replace(LOCAL, pin=Pin(V1)), [V1, V3, V2], id="the technician comes first"
        ),
        pytest.param(
            replace(DOCUMENT, pins={"other": Pin(V3)}), LOCAL, [V2, V1], id="another model's pin"
        ),
        pytest.param(
            DOCUMENT, replace(LOCAL, fallback=FALLBACK), [V2, V1, FALLBACK], id="fallback is last"
        ),
        pytest.param(
            DOCUMENT, replace(LOCAL, denied=frozenset({V2})), [V1], id="denied here, stable remains"
        ),
        pytest.param(
            pinned(V3),
            replace(LOCAL, denied=frozenset({V3})),
            [V2, V1],
            id="a pin does not override a denial",
        ),
    ],
)
def test_pins_come_first_and_what_the_device_denied_is_left_out(document, local, expected):
    assert run(ROLLING, document, local=local) == expected


@pytest.mark.parametrize(
    "approvals, denied, why",
    [
        pytest.param({V1: APPROVALS[V1]}, frozenset(), "not approved", id="not approved"),
        pytest.param(
            APPROVALS | {V2: replace(APPROVALS[V2], terms=Approved("revoked"))},
            frozenset(),
            "revoked",
            id="revoked",
        ),
        pytest.param(APPROVALS, frozenset({V2}), "denied", id="denied by operators"),
        pytest.param(
            APPROVALS | {V2: replace(APPROVALS[V2], terms=Approved(needs=Needs(("z80",))))},
            frozenset(),
            "unfit",
            id="unfit",
        ),
    ],
)
def test_what_may_not_run_is_dropped_with_its_reason(approvals, denied, why):
    local = replace(LOCAL, facts=Facts(arch="x86_64"))
    resolution = resolve(ROLLING, DOCUMENT, approvals, denied, local, "digits")
    assert [c.digest for c in resolution.candidates] == [V1]
    assert [(d.digest, d.why) for d in resolution.dropped] == [(V2, why)]


def test_a_device_that_left_the_selector_keeps_the_candidate_until_the_end():
    going = plan(Rule(Selector("eq", "site", ("york",)), V1, rollout()), Rule(None, V1))
    assert run(going) == [V1]
    assert run(going, local=replace(LOCAL, trial=V2)) == [V2, V1]
    assert run(going, local=replace(LOCAL, current=V2, previous=V1)) == [V2, V1]
    ended = plan(Rule(None, V1), ended=Ended("digits-1", V2, "aborted"))
    assert run(ended, local=replace(LOCAL, current=V2, previous=V1)) == [V1]


def test_a_device_whose_labels_changed_after_activating_keeps_the_candidate():
    going = plan(Rule(None, V1, rollout(EVERYONE - 1, as_of=4)))
    assert run(going, local=replace(LOCAL, trial=V2)) == [V2, V1]


def test_an_aborted_candidate_goes_back_even_where_no_rule_is_left():
    ended = plan(ended=Ended("digits-1", V2, "aborted"))
    assert run(ended, local=replace(LOCAL, current=V2, previous=V1)) == [V1]
    assert run(ended, local=replace(LOCAL, current=V3, previous=V1)) == []
    completed = plan(ended=Ended("digits-1", V2, "completed"))
    assert run(completed, local=replace(LOCAL, current=V2, previous=V1)) == []


def test_windows_and_shadows_reach_the_device():
    window = (TransferWindow(60, 300), TransferWindow(1380, 120))
    going = plan(
        Rule(None, V1, rollout(window=window, require_shadow=True, shadow_rows=200)),
        needs=("plan/1", "shadow/1", "window/1"),
    )
    sent = codec.decode_signed(codec.encode(going), Plan, limit=codec.MAX_PLAN)
    choice = resolve(sent, DOCUMENT, APPROVALS, frozenset(), LOCAL, "digits").choice
    assert choice is not None
    assert (choice.window, choice.require_shadow, choice.shadow_rows) == (window, True, 200)


def test_what_this_version_cannot_honour_is_refused_not_ignored():
    going = codec.encode(plan(Rule(None, V1), needs=("plan/1", "hovering/1")))
    with pytest.raises(NotUnderstood) as caught:
        codec.decode_signed(going, Plan, limit=codec.MAX_PLAN)
    assert caught.value.names == ("hovering/1",)


@pytest.mark.parametrize(
    "change",
    [
        {"salt": "x"},
        {"candidate": "v2"},
        {"wave": {"threshold": EVERYONE + 1}},
        {"wave": {"threshold": -1}},
        {"wave": {"threshold": 1, "include": ["A"]}},
        {"wave": {"threshold": 1, "include": ["a"] * 201}},
        {"id": ""},
        {"holdback": 0.5},
        {"window": [{"start_minute": 1, "stop_minute": 1441}]},
        {"window": [{"start_minute": 1, "stop_minute": 1}]},
        {"window": [{"start_minute": n, "stop_minute": 1440} for n in range(65)]},
    ],
)
def test_a_malformed_rollout_is_the_peers_fault(change):
    with pytest.raises(PeerError):
        codec.convert(codec.to_wire(rollout()) | change, Rollout)


@given(st.integers(0, EVERYONE), st.integers(0, EVERYONE))
def test_a_device_that_is_in_stays_in_when_the_wave_grows(a, b):
    small, large = sorted((a, b))
    labels = DOCUMENT.selectable
    if rollout(small).takes(DEVICE, "cam-1", labels, 5):
        assert rollout(large).takes(DEVICE, "cam-1", labels, 5)


def test_a_plan_survives_the_wire():
    whole = plan(
        Rule(LEEDS, V1, rollout(wave=Wave(5, ("a",), ("b",), "site", {"leeds": 7}), holdback=3)),
        Rule(None, V2),
        ended=Ended("digits-0", V3, "aborted"),
    )
    assert codec.decode_signed(codec.encode(whole), Plan, limit=codec.MAX_PLAN) == whole
