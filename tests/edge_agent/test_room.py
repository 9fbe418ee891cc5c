"""Room for two runners, for one at a time, or for none: named cases and properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.room import (
    ADDRESSES,
    LEAST_MARGIN,
    MIB,
    MOST_MARGIN,
    RUNNER_BYTES,
    Memory,
    Need,
    address_space,
    keeps_warm,
    kept_for_records,
    margin,
    need_of,
    room,
    runner_bytes,
    shortage,
)
from protocol.bundle import ROLES, Index, Member, Needs, Variant, VariantReference
from protocol.identifiers import digest_of
from protocol.members import SessionOptions

ORDER = ("none", "scarce", "tight", "roomy")
MANIFEST = digest_of(b"manifest")
sizes = st.integers(0, 2**34)


def memory(free: int, total: int = 1024) -> Memory:
    """In MiB."""
    return Memory(free * MIB, total * MIB)


@pytest.mark.parametrize(
    "found, needed, held, decided",
    [
        pytest.param(None, 900, 0, "tight", id="unknown memory: as every device can"),
        pytest.param(memory(400), 60, 60, "roomy", id="plenty: the previous may stay"),
        pytest.param(memory(60 + 64), 60, 60, "roomy", id="two margins are just enough"),
        pytest.param(memory(60 + 63), 60, 60, "tight", id="one less: two only while switching"),
        pytest.param(memory(60 + 32), 60, 60, "tight", id="one margin is just enough"),
        pytest.param(memory(60 + 31), 60, 60, "scarce", id="one less: one at a time"),
        pytest.param(memory(0), 60, 92, "scarce", id="all it takes is held by the one that goes"),
        pytest.param(memory(0), 60, 91, "none", id="not even without the one that runs"),
        pytest.param(memory(60 + 31), 60, 0, "none", id="nothing runs that could make way"),
        pytest.param(memory(76, 64), 60, 60, "tight", id="a tiny machine keeps 16 MiB for itself"),
        pytest.param(
            memory(60 + 127, 65_536), 60, 60, "scarce", id="a large one never more than 128"
        ),
    ],
)
def test_what_the_memory_allows(found, needed, held, decided):
    assert room(found, needed * MIB, held * MIB) == decided


@given(free=sizes, more=sizes, total=sizes, needed=sizes, held=sizes)
def test_more_memory_never_allows_less(free, more, total, needed, held):
    before = room(Memory(free, total), needed, held)
    assert ORDER.index(room(Memory(free + more, total), needed, held)) >= ORDER.index(before)


@given(free=sizes, total=sizes, needed=sizes, more=sizes, held=sizes)
def test_a_larger_model_is_never_allowed_more(free, total, needed, more, held):
    before = room(Memory(free, total), needed, held)
    assert ORDER.index(room(Memory(free, total), needed + more, held)) <= ORDER.index(before)


@given(free=sizes, total=sizes, needed=sizes, held=sizes)
def test_the_margin_is_left_whatever_is_decided(free, total, needed, held):
    found = Memory(free, total)
    left = {"roomy": free - needed, "tight": free - needed, "scarce": free + held - needed}
    decided = room(found, needed, held)
    assert decided == "none" or left[decided] >= margin(found)
    assert LEAST_MARGIN <= margin(found) <= MOST_MARGIN


@given(free=sizes, total=sizes)
def test_what_is_warm_stays_so_longer_than_it_takes_to_get_warm(free, total):
    found = Memory(free, total)
    assert keeps_warm(found, parked=True) or not keeps_warm(found, parked=False)


def test_nothing_is_kept_warm_where_memory_is_unknown():
    assert not keeps_warm(None, parked=False)
    assert not keeps_warm(None, parked=True)


def bundle(model: int, weights: int = 0, ram: int = 0) -> tuple[Index, Variant]:
    members = [
        Member(role, f"{role}.bin", digest_of(role.encode()), model if role == "model" else 10)
        for role in ROLES
        if role != "weights"
    ]
    if weights:
        members.append(Member("weights", "weights.bin", digest_of(b"weights"), weights))
    reference = VariantReference(MANIFEST, 100, Needs(ram_bytes=ram))
    return Index("m", "v1", (reference,)), Variant(tuple(members))


@pytest.mark.parametrize(
    "found, session, need",
    [
        pytest.param(bundle(1000), SessionOptions(), Need(2000), id="a file is held twice"),
        pytest.param(
            bundle(1000, 50 * MIB),
            SessionOptions(),
            Need(2000 + 5 * MIB, 50 * MIB),
            id="large weights stay in their file",
        ),
        pytest.param(
            bundle(1000, 5 * MIB),
            SessionOptions(),
            Need(2000 + 10 * MIB, 5 * MIB),
            id="small ones are packed",
        ),
        pytest.param(
            bundle(1000, 50 * MIB),
            SessionOptions(prepacking="on"),
            Need(2000 + 100 * MIB, 50 * MIB),
            id="large ones too where the policy says so",
        ),
        pytest.param(
            bundle(1000, 5 * MIB),
            SessionOptions(prepacking="off"),
            Need(2000 + MIB // 2, 5 * MIB),
            id="or none",
        ),
        pytest.param(
            bundle(1000, 50 * MIB, ram=RUNNER_BYTES + 7),
            SessionOptions(),
            Need(7, 50 * MIB),
            id="what is signed is the word",
        ),
        pytest.param(bundle(1000, ram=5), SessionOptions(), Need(0), id="but never below nothing"),
    ],
)
def test_what_a_bundle_needs(found, session, need):
    index, variant = found
    assert need_of(index, MANIFEST, variant, session) == need


def test_a_runner_needs_itself_and_all_its_models():
    assert runner_bytes([Need(5, 100), Need(7)]) == RUNNER_BYTES + 12


def test_address_space_is_generous_and_has_an_end():
    total = 512 * MIB
    assert address_space([], total) == ADDRESSES
    assert address_space([Need(10 * MIB, 50 * MIB)], total) == ADDRESSES + 90 * MIB
    assert address_space([Need(10**12)], total) == ADDRESSES + total
    assert address_space([Need(RUNNER_BYTES)], total) < 8 * 1024 * MIB


def test_a_shortage_is_said_in_megabytes():
    assert shortage(memory(100), 90_000_000) == "needs 90 MB of memory, 71 MB can be had"


@pytest.mark.parametrize(
    "growth, free, kept",
    [(0, 10**9, 0), (32_000_000, 10**9, 32_000_000), (32_000_000, 8_000_000, 2_000_000), (5, 0, 0)],
)
def test_records_to_come_never_take_more_than_a_quarter_of_a_small_disk(growth, free, kept):
    assert kept_for_records(growth, free) == kept
