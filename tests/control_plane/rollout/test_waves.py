"""Thresholds take exactly the devices that the operator asked for, and waves only grow.

Long because every rule of the layout has its property here.
"""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from math import ceil

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from control_plane.rollout.sizes import Holdback, WaveSpec
from control_plane.rollout.spec import RolloutSpec
from control_plane.rollout.waves import (
    Target,
    check_names,
    held_devices,
    lay_out,
    plan_waves,
    settle,
    wave_of,
)
from protocol import codec
from protocol.errors import InvalidRequest
from protocol.membership import EVERYONE, position
from protocol.plan import Rollout

SALT = "00112233445566778899aabbccddeeff"
ALL = WaveSpec(percent=100)
SPEC = RolloutSpec("digits", "v2")


def targets(sites: dict[str, int], label: str = "site") -> list[Target]:
    return [
        Target(f"north-{site or 'none'}-{n}", {label: site} if site else {})
        for site, count in sites.items()
        for n in range(count)
    ]


def local(target: Target) -> str:
    return target.device.partition("-")[2]


def taken(planned, devices, salt=SALT, since=0, holdback=0) -> list[list[str]]:
    """Devices per wave, as the devices themselves decide."""
    found = []
    for each in planned:
        rollout = Rollout(
            "digits-1", 1, "sha256-" + "0" * 64, salt, 5, each.wave, holdback=holdback
        )
        found.append(
            [t.device for t in devices if rollout.takes(t.device, local(t), t.labels, since)]
        )
    return found


@pytest.mark.parametrize(
    "specs, sizes",
    [
        ([WaveSpec(devices=20), ALL], [20, 312]),
        ([WaveSpec(devices=1), WaveSpec(devices=3), ALL], [1, 3, 312]),
        ([WaveSpec(percent=37), ALL], [ceil(0.37 * 312), 312]),
        ([WaveSpec(devices=12), WaveSpec(percent=25), ALL], [12, 78, 312]),
        ([WaveSpec(percent=0.001), ALL], [1, 312]),
        ([WaveSpec(devices=3), WaveSpec(devices=312)], [3, 312]),
        ([WaveSpec(devices=3), WaveSpec(devices=5000)], [3, 312]),
        ([WaveSpec(devices=500), ALL], [312, 312]),
        ([WaveSpec(devices=80), WaveSpec(percent=25), ALL], [80, 80, 312]),
        ([ALL], [312]),
        ([WaveSpec(names=("leeds-3", "york-9")), ALL], [2, 312]),
        ([WaveSpec(names=("leeds-3", "york-9")), WaveSpec(devices=12), ALL], [2, 12, 312]),
        ([WaveSpec(devices=12), WaveSpec(names=("leeds-3",)), ALL], [12, (12, 13), 312]),
        ([WaveSpec(names=("leeds-3", "york-9")), WaveSpec(devices=1), ALL], [2, 2, 312]),
        (
            [WaveSpec(devices=12, exclude=("leeds-3",)), WaveSpec(devices=40), ALL],
            [12, 40, 312],
        ),
    ],
    ids=lambda value: (
        str([(w.devices or w.names or f"{w.percent}%") for w in value])
        if isinstance(value[0], WaveSpec)
        else None
    ),
)
def test_waves_have_exactly_the_size_that_was_asked_for(specs, sizes):
    devices = targets({"leeds": 200, "york": 112})
    planned = plan_waves(specs, devices, SALT)
    found = [len(each) for each in taken(planned, devices)]
    assert [each.devices for each in planned] == found
    for size, count in zip(sizes, found, strict=True):
        assert count in (size if isinstance(size, tuple) else (size,))


@pytest.mark.parametrize(
    "sites, percent, each",
    [
        ({"leeds": 100, "york": 40}, 25, {"leeds": 25, "york": 10}),
        ({"leeds": 3, "york": 1}, 25, {"leeds": 1, "york": 1}),
        ({"leeds": 8, "": 4}, 50, {"leeds": 4, "": 2}),
    ],
)
def test_a_share_per_site_is_a_share_of_each_site(sites, percent, each):
    devices = targets(sites)
    planned = plan_waves([WaveSpec(percent=percent, per="site"), ALL], devices, SALT)
    first = taken(planned, devices)[0]
    for site, count in each.items():
        assert sum(name.startswith(f"north-{site or 'none'}-") for name in first) == count


def test_a_share_per_site_counts_the_devices_that_a_list_has_named():
    devices = targets({"leeds": 100, "york": 40})
    named = WaveSpec(names=("leeds-1", "leeds-2", "york-1"))
    planned = plan_waves([named, WaveSpec(percent=25, per="site"), ALL], devices, SALT)
    second = taken(planned, devices)[1]
    assert sum(name.startswith("north-leeds-") for name in second) == 25
    assert sum(name.startswith("north-york-") for name in second) == 10
    assert {"north-leeds-1", "north-leeds-2", "north-york-1"} <= set(second)


def test_a_number_after_a_share_per_site_still_is_that_number():
    devices = targets({"leeds": 60, "york": 60})
    specs = [WaveSpec(devices=10), WaveSpec(percent=20, per="site"), WaveSpec(devices=50), ALL]
    sizes = [len(each) for each in taken(plan_waves(specs, devices, SALT), devices)]
    assert sizes[0] == 10
    assert 24 <= sizes[1] <= 30
    assert sizes[2:] == [50, 120]


def test_an_excluded_device_waits_for_a_wave_that_does_not_exclude_it():
    devices = targets({"leeds": 40})
    without = plan_waves([WaveSpec(devices=5), ALL], devices, SALT)
    unwanted = taken(without, devices)[0][0].partition("-")[2]
    specs = [WaveSpec(devices=5, exclude=(unwanted,)), WaveSpec(devices=10), ALL]
    waves = taken(plan_waves(specs, devices, SALT), devices)
    assert [len(each) for each in waves] == [5, 10, 40]
    assert f"north-{unwanted}" not in waves[0]
    # Its position is among the lowest, so it is the first that comes in.
    assert f"north-{unwanted}" in waves[1]


def test_a_device_that_is_no_longer_excluded_does_not_make_a_wave_too_large():
    devices = targets({"leeds": 40})
    lowest = taken(plan_waves([WaveSpec(devices=8), ALL], devices, SALT), devices)[0]
    exclude = tuple(device.partition("-")[2] for device in lowest)
    specs = [WaveSpec(devices=20, exclude=exclude), WaveSpec(devices=22), ALL]
    assert [len(each) for each in taken(plan_waves(specs, devices, SALT), devices)] == [20, 22, 40]


@pytest.mark.parametrize(
    "specs",
    [
        [WaveSpec(devices=3)],
        [WaveSpec(percent=50)],
        [WaveSpec(percent=50, per="site")],
        [WaveSpec(names=("leeds-1",))],
    ],
)
def test_a_last_wave_that_leaves_devices_out_is_refused(specs):
    with pytest.raises(InvalidRequest, match="S120"):
        plan_waves(specs, targets({"leeds": 8}), SALT)


def test_a_named_device_that_the_rollout_does_not_change_is_refused():
    with pytest.raises(InvalidRequest, match=r"waves\[1\]\.devices: leeds-9 is not changed"):
        plan_waves([WaveSpec(names=("leeds-9",)), ALL], targets({"leeds": 8}), SALT)


@pytest.mark.parametrize(
    "spec, where",
    [
        (WaveSpec(names=("cam-l",)), "waves[1].devices"),
        (WaveSpec(devices=1, exclude=("cam-l",)), "waves[1].exclude"),
    ],
)
def test_a_name_that_no_device_has_is_refused_with_a_similar_one(spec, where):
    with pytest.raises(InvalidRequest) as caught:
        check_names([spec, ALL], {"cam-1", "press-7"})
    assert (caught.value.code, caught.value.why) == ("OUT-S120", f"{where}: no device named cam-l")
    assert caught.value.do == "a similar name: cam-1"


def test_too_many_sites_for_a_plan_are_refused():
    devices = [Target(f"north-d{n}", {"site": f"s{n}"}) for n in range(501)]
    with pytest.raises(InvalidRequest, match="S120"):
        plan_waves([WaveSpec(percent=50, per="site"), ALL], devices, SALT)


def test_the_last_wave_is_everyone_also_those_who_come_later():
    devices = targets({"leeds": 8})
    planned = plan_waves([WaveSpec(devices=3), WaveSpec(devices=8)], devices, SALT)
    assert planned[-1].wave.threshold == EVERYONE
    assert [len(each) for each in taken(planned, devices, since=99)] == [0, 8]
    assert wave_of(planned, SALT, "north-late", {}, late=True) == 2


def test_another_salt_is_another_canary():
    devices = targets({"leeds": 200})
    first = [
        frozenset(taken(plan_waves([WaveSpec(devices=5), ALL], devices, salt), devices, salt)[0])
        for salt in ("a" * 32, "b" * 32)
    ]
    assert first[0] != first[1]


def test_a_wave_of_a_million_devices_is_a_few_numbers():
    devices = targets({"leeds": 2_000, "york": 1_000})
    specs = [WaveSpec(devices=12), WaveSpec(percent=25, per="site"), ALL]
    assert all(len(codec.encode(each.wave)) < 120 for each in plan_waves(specs, devices, SALT))


# --- what is held back ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "holdback, of, held",
    [
        (None, 300, 0),
        (Holdback(devices=20), 300, 20),
        (Holdback(percent=5), 300, 15),
        (Holdback(percent=5), 301, 16),
        (Holdback(percent=0.001), 300, 1),
        (Holdback(), 300, 20),
        (Holdback(), 1_000, 50),
        (Holdback(), 1_000_000, 500),
    ],
)
def test_exactly_as_many_devices_as_asked_for_are_held_back(holdback, of, held):
    assert held_devices(holdback, of) == held
    devices = targets({"leeds": min(of, 400)})
    if of > len(devices):
        return
    layout = lay_out(dataclasses.replace(SPEC, holdback=holdback, waves=(ALL,)), devices, SALT)
    assert layout.held == held
    assert layout.waves[-1].devices == of - held
    last = taken(layout.waves, devices, holdback=layout.holdback)[-1]
    assert len(last) == of - held


@pytest.mark.parametrize("holdback", [Holdback(devices=8), Holdback(devices=9), Holdback()])
def test_a_holdback_that_leaves_no_device_is_refused(holdback):
    spec = dataclasses.replace(SPEC, holdback=holdback, waves=(ALL,))
    with pytest.raises(InvalidRequest, match="holdback"):
        lay_out(spec, targets({"leeds": 8}), SALT)


def test_a_device_that_is_named_takes_part_and_is_never_held_back():
    devices = targets({"leeds": 40})
    held = lay_out(
        dataclasses.replace(SPEC, holdback=Holdback(devices=5), waves=(ALL,)), devices, SALT
    )
    outside = {t.device for t in devices} - set(
        taken(held.waves, devices, holdback=held.holdback)[-1]
    )
    named = sorted(outside)[0].partition("-")[2]
    spec = dataclasses.replace(
        SPEC, holdback=Holdback(devices=5), waves=(WaveSpec(names=(named,)), ALL)
    )
    layout = lay_out(spec, devices, SALT)
    waves = taken(layout.waves, devices, holdback=layout.holdback)
    assert waves[0] == [f"north-{named}"]
    assert len(waves[1]) == 35
    assert f"north-{named}" in waves[1]


# --- all together ---------------------------------------------------------------------------------

NAMES = [f"d{n}" for n in range(50)]
sizes = st.one_of(
    st.integers(1, 60).map(lambda n: WaveSpec(devices=n)),
    st.integers(1, 99).map(lambda n: WaveSpec(percent=n)),
    st.integers(1, 99).map(lambda n: WaveSpec(percent=n, per="site")),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True).map(
        lambda names: WaveSpec(names=tuple(names))
    ),
)


@settings(max_examples=150)
@example(
    specs=[WaveSpec(devices=4), WaveSpec(names=("d4",))],
    sites=[""] * 5, salt="00" * 16, unwanted=[], until=0, held=1,
)  # fmt: skip
@given(
    st.lists(sizes, max_size=5),
    st.lists(st.sampled_from(["", "a", "b", "c"]), min_size=1, max_size=50),
    st.binary(min_size=16, max_size=16).map(bytes.hex),
    st.lists(st.sampled_from(NAMES), max_size=6, unique=True),
    st.integers(0, 5),
    st.integers(0, 45),
)
def test_who_is_in_stays_in_and_budgets_are_never_exceeded(
    specs, sites, salt, unwanted, until, held
):
    """With lists, shares, numbers, exclusions and a control cohort, in any order."""
    devices = [Target(f"north-d{n}", {"site": s} if s else {}) for n, s in enumerate(sites)]
    there = {local(device) for device in devices}
    named = {name for spec in specs for name in spec.names}
    exclude = tuple(name for name in unwanted if name not in named)
    waves = tuple(
        dataclasses.replace(
            spec,
            names=tuple(name for name in spec.names if name in there),
            exclude=exclude if n < until else (),
        )
        for n, spec in enumerate(specs)
        if not spec.names or set(spec.names) & there
    )
    named = {name for spec in waves for name in spec.names}
    holdback = Holdback(devices=held) if 0 < held < len(devices) - len(named) else None
    layout = lay_out(
        dataclasses.replace(SPEC, waves=(*waves, ALL), holdback=holdback), devices, salt
    )
    members = [set(each) for each in taken(layout.waves, devices, salt, holdback=layout.holdback)]
    for earlier, later in pairwise(members):
        assert earlier <= later
    free = len(devices) - layout.held
    end = EVERYONE - layout.holdback
    # Named by a later wave, with a position among those held back: it comes with its name only.
    waiting = {name for name in named if position(salt, f"north-{name}") >= end}
    inside: set[str] = set()
    for spec, wave, found in zip(waves, layout.waves, members, strict=False):
        waiting -= set(spec.names)
        assert wave.devices == len(found)
        assert not (found - inside) & {f"north-{name}" for name in spec.exclude}
        if spec.names:
            assert found == inside | {f"north-{name}" for name in spec.names}
        elif spec.devices is not None:
            assert len(found) <= max(len(inside), spec.devices)
            if not exclude:
                assert len(found) == max(len(inside), min(spec.devices, free - len(waiting)))
        elif spec.per is None:
            assert len(found) <= max(len(inside), ceil(spec.percent * len(devices) / 100))
        inside = found
    assert len(members[-1]) == free == layout.waves[-1].devices
    for target in devices:
        first = next(
            (n for n, found in enumerate(members, start=1) if target.device in found), None
        )
        said = wave_of(layout.waves, salt, target.device, target.labels, holdback=layout.holdback)
        assert said == first


# --- what the spec leaves open --------------------------------------------------------------------


def test_waves_of_the_spec_win_over_the_default_ones():
    own = dataclasses.replace(SPEC, waves=(ALL,))
    assert settle(own, 300) is own
    assert len(settle(SPEC, 300).waves) == 5


def test_a_soak_of_the_spec_is_that_of_every_default_wave():
    spec = settle(dataclasses.replace(SPEC, soak_s=60.0), 5_000)
    assert {spec.soak_of(n) for n in range(1, len(spec.waves) + 1)} == {60.0}
