"""Every device finds an entry that it can use, and the hint never grows too large."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from control_plane.encode.making import Ability
from control_plane.encode.offering import WORTH, WORTH_BYTES, chosen, hint_of, is_plain
from protocol import codec
from protocol.identifiers import digest_of
from protocol.payload import (
    FEATURE_BROTLI,
    FEATURE_LZMA,
    FEATURE_PATCH,
    FEATURE_RAW,
    FEATURE_SEGMENTS,
    FEATURE_ZSTD,
    KNOWN_FEATURES,
    MAX_HINT_ENTRIES,
    PLAIN_FEATURES,
    HintEntry,
    frame_count,
)

BASE = digest_of(b"what devices run")
_numbers = itertools.count()


def entry(size: int, features: int, base: str | None = None, memory: int = 10**6) -> HintEntry:
    name = digest_of(f"payload {next(_numbers)}".encode())
    return HintEntry(name, size, frame_count(size), features, memory, base)


PLAIN = entry(100_000, FEATURE_ZSTD)
FULL = entry(90_000, FEATURE_SEGMENTS)
DELTA = entry(40_000, FEATURE_SEGMENTS, BASE)
PACKED = entry(30_000, FEATURE_SEGMENTS | FEATURE_LZMA, BASE)
EVERYTHING = Ability(KNOWN_FEATURES)
WITHOUT_LZMA = Ability(KNOWN_FEATURES & ~FEATURE_LZMA)
NOTHING_SPECIAL = Ability(PLAIN_FEATURES)


def test_the_smallest_comes_first_and_the_one_for_everybody_is_always_there():
    entries = [PLAIN, FULL, DELTA, PACKED]
    assert chosen(entries, [EVERYTHING]) == (PACKED, DELTA, FULL, PLAIN)
    assert chosen(entries, [NOTHING_SPECIAL]) == (PLAIN,)
    assert chosen(entries, []) == (PLAIN,)


def test_a_device_that_cannot_lzma_finds_an_entry_that_it_can_use():
    found = chosen([PLAIN, FULL, DELTA, PACKED], [EVERYTHING, WITHOUT_LZMA])
    assert DELTA in found
    only = chosen([PLAIN, FULL, DELTA, PACKED], [WITHOUT_LZMA])
    assert only == (DELTA, FULL, PLAIN)


def test_a_full_one_that_is_the_smallest_for_nobody_is_not_offered():
    smaller = entry(80_000, FEATURE_BROTLI)
    assert FULL not in chosen([PLAIN, FULL, smaller], [EVERYTHING])
    assert FULL in chosen([PLAIN, FULL, smaller], [EVERYTHING, Ability(FEATURE_SEGMENTS | 3)])


def test_of_several_that_everybody_can_decode_the_smallest_is_offered():
    raw = entry(120_000, FEATURE_RAW)
    assert chosen([raw, PLAIN], [EVERYTHING]) == (PLAIN,)


def test_a_delta_that_saves_too_little_for_a_device_is_not_offered_to_it():
    hardly = entry(int(90_000 * WORTH) + 1, FEATURE_PATCH, BASE)
    assert hardly not in chosen([PLAIN, FULL, hardly], [EVERYTHING])
    assert hardly in chosen([PLAIN, FULL, hardly], [Ability(PLAIN_FEATURES | FEATURE_PATCH)])
    small = entry(2000, FEATURE_ZSTD)
    near = entry(2000 - WORTH_BYTES + 1, FEATURE_PATCH, BASE)
    assert chosen([small, near], [EVERYTHING]) == (small,)


def test_what_needs_more_memory_than_a_device_grants_is_not_for_it():
    hungry = entry(10_000, FEATURE_SEGMENTS, BASE, memory=5_000_000)
    assert hungry in chosen([PLAIN, hungry], [EVERYTHING])
    assert hungry not in chosen([PLAIN, hungry], [Ability(KNOWN_FEATURES, 4_000_000)])


@given(
    st.lists(
        st.tuples(
            st.integers(1, 10**6),
            st.sampled_from([FEATURE_RAW, FEATURE_ZSTD, FEATURE_SEGMENTS, FEATURE_BROTLI]),
            st.booleans(),
        ),
        max_size=12,
    ),
    st.lists(st.integers(0, KNOWN_FEATURES), max_size=4),
)
def test_everybody_finds_the_smallest_full_one_that_it_can_use(drawn, features):
    entries = [
        entry(size, bits, BASE if delta and bits == FEATURE_SEGMENTS else None)
        for size, bits, delta in drawn
    ]
    abilities = [Ability(each | PLAIN_FEATURES) for each in features]
    found = chosen(entries, abilities)
    for ability in abilities:
        mine = [e.size for e in entries if e.base is None and ability.grants(e.features, 0)]
        there = [e.size for e in found if e.base is None and ability.grants(e.features, 0)]
        assert min(there, default=0) == min(mine, default=0)
    assert any(map(is_plain, found)) == any(map(is_plain, entries))
    assert list(found) == sorted(found, key=lambda each: each.size)


MIRRORS = [f"https://mirror-{n}.example/{'x' * 480}/" for n in range(3)]


def test_a_hint_says_where_else_its_payloads_are():
    hint = hint_of([DELTA, PLAIN], ["https://m.example/p/", "/"])
    assert [each.urls for each in hint.entries] == [("https://m.example/p/", "/")] * 2
    assert [each.payload for each in hint.entries] == [DELTA.payload, PLAIN.payload]


def test_a_hint_stays_below_16_kib_with_8_bases_and_4_addresses():
    bases = [digest_of(b"%d" % n) for n in range(8)]
    entries = [
        *(entry(1000 + n, FEATURE_SEGMENTS, base) for n, base in enumerate(bases)),
        *(entry(2000 + n, FEATURE_PATCH, base) for n, base in enumerate(bases)),
        FULL,
        PLAIN,
    ]
    hint = hint_of(entries, [*MIRRORS, "/"])
    assert len(codec.encode(hint)) <= codec.MAX_HINT
    assert [each.payload for each in hint.entries] == [each.payload for each in entries]
    told = [bool(each.urls) for each in hint.entries]
    assert told[0]
    assert told == sorted(told, reverse=True)


def test_of_too_many_entries_the_largest_deltas_are_left_out():
    deltas = [
        entry(1000 + n, FEATURE_SEGMENTS, digest_of(b"%d" % n)) for n in range(MAX_HINT_ENTRIES)
    ]
    hint = hint_of([*deltas, FULL, PLAIN], ["/"])
    assert hint.entries[-2:] == tuple(each for each in hint_of([FULL, PLAIN], ["/"]).entries)
    assert [each.payload for each in hint.entries[:-2]] == [each.payload for each in deltas[:-2]]
