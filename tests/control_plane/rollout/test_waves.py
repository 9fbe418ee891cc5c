"""Thresholds take exactly the devices that the operator asked for, and waves only grow."""

from __future__ import annotations

from itertools import pairwise
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.rollout.spec import WaveSpec
from control_plane.rollout.waves import Target, plan_waves, wave_of
from protocol.errors import InvalidRequest
from protocol.membership import EVERYONE
from protocol.plan import Rollout

SALT = "00112233445566778899aabbccddeeff"
ALL = WaveSpec(percent=100)


def targets(sites: dict[str, int], label: str = "site") -> list[Target]:
    return [
        Target(f"north-{site or 'none'}-{n}", {label: site} if site else {})
        for site, count in sites.items()
        for n in range(count)
    ]


def taken(planned, devices, salt=SALT, since=0) -> list[list[str]]:
    """Devices per wave, as the devices themselves decide."""
    found = []
    for each in planned:
        rollout = Rollout("digits-1", 1, "sha256-" + "0" * 64, salt, 5, each.wave)
        found.append(
            [
                t.device
                for t in devices
                if rollout.takes(t.device, t.device.partition("-")[2], t.labels, since)
            ]
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
    ],
    ids=lambda value: (
        str([(w.devices or f"{w.percent}%") for w in value])
        if isinstance(value[0], WaveSpec)
        else None
    ),
)
def test_waves_have_exactly_the_size_that_was_asked_for(specs, sizes):
    devices = targets({"leeds": 200, "york": 112})
    planned = plan_waves(specs, devices, SALT)
    assert [len(each) for each in taken(planned, devices)] == sizes
    assert [each.devices for each in planned] == sizes


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


def test_a_number_after_a_share_per_site_still_is_that_number():
    devices = targets({"leeds": 60, "york": 60})
    specs = [WaveSpec(devices=10), WaveSpec(percent=20, per="site"), WaveSpec(devices=50), ALL]
    sizes = [len(each) for each in taken(plan_waves(specs, devices, SALT), devices)]
    assert sizes[0] == 10
    assert 24 <= sizes[1] <= 30
    assert sizes[2:] == [50, 120]


@pytest.mark.parametrize(
    "specs", [[WaveSpec(devices=3)], [WaveSpec(percent=50)], [WaveSpec(percent=50, per="site")]]
)
def test_a_last_wave_that_leaves_devices_out_is_refused(specs):
    with pytest.raises(InvalidRequest, match="S120"):
        plan_waves(specs, targets({"leeds": 8}), SALT)


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


sizes = st.one_of(
    st.integers(1, 60).map(lambda n: WaveSpec(devices=n)),
    st.integers(1, 99).map(lambda n: WaveSpec(percent=n)),
    st.integers(1, 99).map(lambda n: WaveSpec(percent=n, per="site")),
)


@settings(max_examples=60)
@given(
    st.lists(sizes, max_size=5),
    st.lists(st.sampled_from(["", "a", "b", "c"]), min_size=1, max_size=50),
    st.binary(min_size=16, max_size=16).map(bytes.hex),
)
def test_who_is_in_stays_in_and_numbers_are_exact(specs, sites, salt):
    devices = [Target(f"north-d{n}", {"site": s} if s else {}) for n, s in enumerate(sites)]
    planned = plan_waves([*specs, ALL], devices, salt)
    members = [set(each) for each in taken(planned, devices, salt)]
    for earlier, later in pairwise(members):
        assert earlier <= later
    inside = 0
    for spec, wave, found in zip(specs, planned, members, strict=False):
        assert wave.devices == len(found)
        if spec.devices is not None:
            assert len(found) == max(inside, min(spec.devices, len(devices)))
        inside = len(found)
    assert len(members[-1]) == len(devices)
    for target in devices:
        first = next(n for n, found in enumerate(members, start=1) if target.device in found)
        assert wave_of(planned, salt, target.device, target.labels) == first
