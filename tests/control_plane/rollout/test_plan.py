"""From what is stable and what rolls out to one small signed plan."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.rollout.plan import (
    NOBODY,
    Going,
    Stable,
    completed,
    content,
    make_plan,
    numbered,
    terms,
)
from control_plane.rollout.sizes import default_waves
from control_plane.rollout.waves import Target, plan_waves
from protocol import codec
from protocol.device import DeviceDocument, TransferWindow
from protocol.errors import InvalidRequest
from protocol.membership import EVERYONE
from protocol.plan import Ended, HealthOverride, Local, Plan, Wave, resolve
from protocol.selector import Selector
from tests.fakes.virtual_fleet import MODEL, approve, bundle

SALT = "0123456789abcdef" * 2
V1, V2, V3 = (bundle(v) for v in ("v1", "v2", "v3"))
APPROVALS = approve("v1", "v2", "v3")
LEEDS = Selector("eq", label="site", values=("leeds",))
YORK = Selector("eq", label="site", values=("york",))
NIGHT = TransferWindow(60, 300)
ALL = Wave(EVERYONE)
ALL_V1 = (Stable(None, V1),)


def going(wave: Wave = ALL, **more) -> Going:
    return Going(
        **{
            "selector": None, "id": "digits-7", "attempt": 1, "candidate": V2, "salt": SALT,
            "as_of": 5, "wave": wave, **more,
        }
    )  # fmt: skip


def plan_of(stables=ALL_V1, rollouts=(), ended=None, kept=()) -> Plan:
    return make_plan("north", MODEL, stables, rollouts, ended, kept)


def chosen(plan: Plan, current=V1, previous=None, site="leeds") -> str | None:
    """What a device that runs `current` heads for."""
    document = DeviceDocument("north", "north-cam-1", 1, 1, {"site": site})
    local = Local(0, current=current, previous=previous)
    found = resolve(plan, document, APPROVALS, frozenset(), local, MODEL).choice
    return found.digest if found else None


@pytest.mark.parametrize(
    "more, names",
    [
        ({}, ()),
        ({"window": (NIGHT,)}, ("window/1",)),
        ({"require_shadow": True, "shadow_rows": 200}, ("shadow/1",)),
        ({"require_shadow": True, "window": (NIGHT,)}, ("shadow/1", "window/1")),
        ({"holdback": 2**50, "health": HealthOverride(crashes=0)}, ()),
    ],
)
def test_a_plan_names_what_an_agent_must_understand_of_it_and_nothing_else(more, names):
    plan = plan_of(rollouts=[going(**more)])
    assert plan.must_understand == ("plan/1", "selector/1", *names)
    assert terms(plan).must_understand == ("selector/1", *names)
    assert set(plan.must_understand) <= codec.FEATURES


def test_what_a_rollout_asks_for_travels_in_each_of_its_rules():
    more: dict[str, Any] = {
        "holdback": 2**50, "require_shadow": True, "shadow_rows": 200, "window": (NIGHT,),
        "health": HealthOverride(crashes=0), "plan_max_age_s": 600,
    }  # fmt: skip
    plan = plan_of((Stable(LEEDS, V3), Stable(None, V1)), [going(**more)])
    rollouts = [rule.rollout for rule in plan.rules if rule.rollout]
    assert len(rollouts) == 2
    for each in rollouts:
        assert {name: getattr(each, name) for name in more} == more
    assert [rule.stable for rule in plan.rules] == [V3, V1, V3, V1]


def test_a_plan_survives_its_way_over_the_wire():
    plan = plan_of(rollouts=[going(require_shadow=True, window=(NIGHT,), holdback=9)])
    assert codec.decode_signed(codec.encode(plan), Plan, limit=codec.MAX_PLAN) == plan


@pytest.mark.parametrize(
    "current, heads_for",
    [(V2, V2), (V1, V1), (V3, V1)],
    ids=["who runs it keeps it", "who does not never gets it", "others follow what is stable"],
)
def test_a_kept_rollout_takes_nobody_and_leaves_who_runs_it(current, heads_for):
    kept = going(NOBODY)
    plan = plan_of(ended=Ended("digits-7", V2, "aborted"), kept=[kept])
    assert chosen(plan, current=current, previous=V1) == heads_for
    assert chosen(plan_of(), current=V2, previous=V1) == V1


def test_a_rollout_wins_over_what_an_earlier_one_left_behind():
    later = going(id="digits-8", candidate=V3)
    plan = plan_of(rollouts=[later], kept=[going(NOBODY)])
    assert chosen(plan, current=V2, previous=V1) == V3
    waiting = plan_of(rollouts=[going(Wave(0), id="digits-8", candidate=V3)], kept=[going(NOBODY)])
    assert chosen(waiting, current=V2, previous=V1) == V2


def test_a_kept_rollout_of_one_site_does_not_hold_devices_of_others_that_never_had_it():
    plan = plan_of(kept=[going(NOBODY, selector=LEEDS)])
    assert chosen(plan, current=V1, site="york") == V1
    assert len(plan.rules) == 2


def test_more_rules_than_a_plan_holds_are_refused():
    sites = [
        Stable(Selector("eq", label="site", values=(f"s{n}",)), V1 if n % 2 else V3)
        for n in range(40)
    ]
    with pytest.raises(InvalidRequest, match="more than 64 rules"):
        plan_of(tuple(sites), [going()])


def test_numbers_rise_only_when_a_plan_says_something_else():
    first = numbered(plan_of(), None, 60_000 * 100)
    assert first is not None
    assert (first.version, first.number) == (100, 1)
    assert numbered(plan_of(), first, 60_000 * 500) is None
    second = numbered(plan_of(rollouts=[going()]), first, 60_000 * 50)
    assert second is not None
    assert (second.version, second.number) == (101, 2)


@pytest.mark.parametrize(
    "before, selector, after",
    [
        ((), None, [(None, V2)]),
        (ALL_V1, LEEDS, [(LEEDS, V2), (None, V1)]),
        ((Stable(LEEDS, V1), Stable(None, V3)), LEEDS, [(LEEDS, V2), (None, V3)]),
        ((Stable(LEEDS, V1), Stable(None, V2)), LEEDS, [(None, V2)]),
        ((Stable(LEEDS, V1), Stable(YORK, V3), Stable(None, V1)), None, [(None, V2)]),
    ],
)
def test_completion_makes_the_candidate_stable_for_its_selector(before, selector, after):
    assert [(each.selector, each.digest) for each in completed(before, selector, V2)] == after


def size_of(devices: int, wave: int) -> int:
    specs = default_waves(devices)
    targets = [Target(f"north-cam-{n}", {"site": "leeds"}) for n in range(devices)]
    planned = plan_waves(specs, targets, SALT)
    return len(content(plan_of(rollouts=[going(planned[wave].wave)])))


def test_a_plan_is_as_large_for_ten_devices_as_for_ten_thousand():
    sizes = {size_of(devices, 1) for devices in (10, 100, 10_000)}
    assert max(sizes) - min(sizes) < 20
    assert max(sizes) < 600


@given(st.lists(st.sampled_from([V1, V2, V3]), max_size=6), st.booleans())
def test_a_plan_is_a_function_of_what_is_wanted(digests, shadowing):
    stables = tuple(
        Stable(Selector("eq", label="site", values=(f"s{n}",)), digest)
        for n, digest in enumerate(digests)
    )
    rollouts = [going(require_shadow=shadowing)]
    one, other = plan_of(stables, rollouts), plan_of(stables, rollouts)
    assert content(one) == content(other)
    assert numbered(other, numbered(one, None, 0), 0) is None
