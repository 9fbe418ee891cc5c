"""What belongs on a stick: whatever a device resolves to, it finds there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.stick import (
    Carried,
    bundles_for,
    bundles_held,
    entries_for,
    plans_for,
    variants_for,
)
from protocol.approval import Approved, ApprovedBundle
from protocol.bundle import Facts, Index, Needs, VariantReference
from protocol.device import DeviceDocument, Pin
from protocol.identifiers import digest_of
from protocol.membership import EVERYONE
from protocol.payload import (
    FEATURE_BROTLI,
    FEATURE_RAW,
    FEATURE_SEGMENTS,
    HintEntry,
    frame_count,
)
from protocol.plan import Local, Plan, Rollout, Rule, Wave, resolve
from protocol.reported import ModelState
from protocol.selector import Selector

NOW_MS = 1_795_000_000_000
A, B, C, D = (digest_of(name) for name in (b"a", b"b", b"c", b"d"))
LEEDS = Selector("eq", "site", ("leeds",))
YORK = Selector("eq", "site", ("york",))
PI = Facts(arch="aarch64", onnxruntime="1.17", ram_bytes=10**9, agent="1.0")


def device(name: str = "cam-1", site: str = "leeds", **more) -> Carried:
    pins = more.pop("pins", {})
    return Carried(DeviceDocument("f", f"f-{name}", 1, labels={"site": site}, pins=pins), **more)


def approved(*bundles: str, **terms) -> dict[str, ApprovedBundle]:
    return {each: ApprovedBundle("m", each[7:11], each, Approved(**terms)) for each in bundles}


def rolling(candidate: str, threshold: int = EVERYONE, name: str = "m") -> Plan:
    rollout = Rollout("r", 1, candidate, "0" * 32, 9, Wave(threshold))
    return Plan("f", name, 1, 1, (Rule(LEEDS, A, rollout), Rule(YORK, D)))


def found(devices, plans, approvals, denied=frozenset(), fallbacks=None):
    wanted = bundles_for(devices, plans, approvals, denied, (fallbacks or {}).get, NOW_MS)
    return {each.bundle for each in wanted}


def test_plans_of_others_stay_at_home():
    mine, other = rolling(B), Plan("f", "n", 1, 1, (Rule(YORK, A),))
    assert plans_for([device()], [mine, other]) == (mine,)
    assert plans_for([device(models={"n": ModelState()})], [mine, other]) == (mine, other)


@pytest.mark.parametrize(
    "devices, plan, expected",
    [
        ([device()], rolling(B), {A, B}),
        ([device()], rolling(B, threshold=0), {A}),
        ([device(site="york")], rolling(B), {D}),
        ([device(), device("cam-2", "york")], rolling(B), {A, B, D}),
        ([device(site="hull")], rolling(B), set()),
        ([device(pins={"m": Pin(C)})], rolling(B), {A, B, C}),
        ([device(pins={"m": Pin(C, until=NOW_MS - 1)})], rolling(B), {A, B}),
    ],
)
def test_what_plan_and_pins_lead_to_is_there(devices, plan, expected):
    assert found(devices, [plan], approved(A, B, C, D)) == expected


def test_a_pin_of_a_model_without_a_plan_counts():
    assert found([device(pins={"m": Pin(C)})], [], approved(C)) == {C}


def test_signed_fallbacks_come_along_and_theirs_too():
    fallbacks = {B: C, C: D, D: C}
    assert found([device()], [rolling(B)], approved(A, B, C, D), fallbacks=fallbacks) == {
        A,
        B,
        C,
        D,
    }


def test_what_may_not_run_is_left_out():
    approvals = approved(A, C) | approved(B, state="revoked")
    assert found([device()], [rolling(B)], approvals, fallbacks={A: B}) == {A}
    assert found([device()], [rolling(B)], approved(A, B), denied=frozenset({A})) == {B}


def test_a_device_that_has_not_said_what_it_is_is_not_called_unfit():
    needs = approved(A, B, needs=Needs(arch=("aarch64",)))
    assert found([device()], [rolling(B)], needs) == {A, B}
    other = replace(PI, arch="x86_64")
    assert found([device(facts=other)], [rolling(B)], needs) == set()


@given(
    place=st.integers(0, EVERYONE),
    site=st.sampled_from(["leeds", "york", "hull"]),
    name=st.sampled_from([f"cam-{n}" for n in range(20)]),
    gone=st.frozensets(st.sampled_from([A, B, D])),
    current=st.sampled_from([None, A, B, D]),
)
def test_every_device_finds_what_it_resolves_to(place, site, name, gone, current):
    approvals = approved(*({A, B, D} - gone))
    carried = device(name, site, facts=PI, models={"m": ModelState(current=current)})
    plan = rolling(B, place)
    local = Local(NOW_MS, PI, current=current)
    resolution = resolve(plan, carried.document, approvals, frozenset(), local, "m")
    assert {each.digest for each in resolution.candidates} <= found([carried], [plan], approvals)


# --- files ----------------------------------------------------------------------------------------


def test_only_the_variant_that_a_device_takes_is_written():
    arm = VariantReference(A, 10, Needs(arch=("aarch64",)))
    index = Index("m", "v1", (arm, VariantReference(B, 10, Needs())))
    assert variants_for(index, [PI]) == (A,)
    assert variants_for(index, [PI, replace(PI, arch="x86_64")]) == (A, B)
    assert variants_for(index, [Facts()]) == (A, B)
    assert variants_for(index, []) == ()


def entry(size: int, base: str | None = None) -> HintEntry:
    name = digest_of(f"{size} {base}".encode())
    return HintEntry(name, size, frame_count(size), FEATURE_RAW, 0, base)


def test_the_full_payload_is_always_there_and_deltas_for_those_who_have_the_base():
    full, larger, delta, other = entry(900), entry(1000), entry(90, C), entry(80, D)
    assert entries_for([other, delta, full, larger], {C}) == (delta, full)
    assert entries_for([larger, full], set()) == (full,)
    assert entries_for([delta], {C}) == ()


def test_sticks_carry_a_payload_that_every_agent_can_read():
    plain, packed = entry(900), replace(entry(600), features=FEATURE_BROTLI)
    larger, delta = entry(950), replace(entry(90, C), features=FEATURE_SEGMENTS)
    assert entries_for([delta, packed, plain, larger], {C}) == (delta, packed, plain)
    assert entries_for([larger, plain, packed], ()) == (packed, plain)
    # Without one it is still of use to those who can read the other.
    assert entries_for([packed], ()) == (packed,)


def test_what_devices_reported_is_what_deltas_start_from():
    states = {"m": ModelState(current=A, previous=B), "n": ModelState(current=C)}
    assert bundles_held([device(models=states), device()]) == {A, B, C}
