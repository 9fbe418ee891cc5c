"""The smallest candidate wins, and what cannot win is not tried for long."""

from __future__ import annotations

import numpy as np
import pytest

from coding import methods
from coding.elements import ELEMENTS, F32, I8, I64
from coding.methods import DIFF, ONE_OF, PAIRS, PLAIN, RANKS, SAME, SPARSE, STEPS, VALUES, Context
from coding.sets import ValueSet
from coding.streams import LZMA_BELOW
from control_plane.encode import search, transforms
from control_plane.encode.search import Choice, Effort, Trial, best, choices, promising, trial
from control_plane.encode.transforms import encode

EFFORT = Effort(level=9, lzma=True)


def floats(count, seed=1):
    return np.random.default_rng(seed).standard_normal(count).astype("<f4").view("<u4")


def nudged(x, share, most=3, seed=2):
    rng = np.random.default_rng(seed)
    change = rng.integers(1, most + 1, len(x), x.dtype)
    change[rng.random(len(x)) >= share] = 0
    return x + change


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
@pytest.mark.parametrize("count", [1, 100, 5_000])
def test_the_smallest_candidate_wins(share, count):
    base = floats(count)
    context = Context(ELEMENTS[F32], count, True, base=base)
    x = nudged(base, share)
    found = best(x, context, EFFORT)
    assert np.array_equal(methods.decode(found, context), x)
    every = (
        encode(each.method, x, context, EFFORT.packer, each.window) for each in choices(context)
    )
    assert len(found) == 1 + min(len(data) for data in every if data is not None)


def test_equal_elements_are_one_byte():
    base = floats(100_000)
    assert best(base, Context(ELEMENTS[F32], len(base), True, base=base), EFFORT) == bytes([SAME])


def test_few_differences_are_listed_and_many_are_not():
    base = floats(60_000)
    context = Context(ELEMENTS[F32], len(base), True, base=base)
    assert best(nudged(base, 0.01), context, EFFORT)[0] == SPARSE
    assert best(nudged(base, 1.0, 1 << 20), context, EFFORT)[0] not in (SPARSE, SAME, PLAIN)


def test_where_few_differ_no_look_decides_between_the_ways_to_list_them(monkeypatch):
    asked = set()
    honest = transforms.encode

    def noting(method, x, context, packer, window=None):
        if packer.level == 19:
            asked.add(method)
        return honest(method, x, context, packer, window)

    monkeypatch.setattr(search, "encode", noting)
    base = floats(20_000)
    context = Context(ELEMENTS[F32], len(base), True, base=base)
    trial(nudged(base, 0.3), context, Effort(19, lzma=False, refine=1), choices(context))
    assert {DIFF, SPARSE, PAIRS} <= asked


def test_lzma_that_saves_little_of_a_block_is_not_taken():
    base = floats(60_000)
    context = Context(ELEMENTS[F32], len(base), True, base=base)
    for x in (nudged(base, 1.0, 1_000), nudged(base, 0.2)):
        without, found = (best(x, context, Effort(19, lzma=each)) for each in (False, True))
        assert found == without or len(found) < LZMA_BELOW * len(without)
        assert np.array_equal(methods.decode(found, context), x)


def test_elements_that_moved_are_looked_for_with_all_effort():
    old = np.random.default_rng(6).choice(np.array([0, 1], "<f4"), 90_000).view("<u4")
    x = old[41_000:73_000]
    context = Context(ELEMENTS[F32], len(x), True, window=lambda first, count: old[first:][:count])
    tried = choices(context, [(0, len(old))])
    assert len(trial(x, context, Effort(19, lzma=False, refine=1), tried).data) < 200


def test_small_steps_of_bytes_are_packed_in_two_bits():
    rng = np.random.default_rng(3)
    base = rng.integers(0, 256, 60_000, "u1")
    x = base + rng.choice(np.array([0, 0, 1, 255], "u1"), len(base))
    context = Context(ELEMENTS[I8], len(base), True, base=base)
    assert best(x, context, Effort(19, lzma=False))[0] == PAIRS


def test_numbers_that_grow_are_steps_and_few_values_are_listed():
    rising = np.cumsum(np.random.default_rng(4).integers(0, 9, 9_000)).astype("<u8")
    assert best(rising, Context(ELEMENTS[I64], len(rising), True), EFFORT)[0] == STEPS
    few = np.random.default_rng(5).choice(floats(9), 9_000)
    assert best(few, Context(ELEMENTS[F32], len(few), True), EFFORT)[0] == VALUES


def test_only_what_applies_is_a_choice():
    plain = {each.method for each in choices(Context(ELEMENTS[F32], 9, True))}
    assert plain == {PLAIN, methods.PLANES, methods.ROTATED, VALUES}
    with_set = Context(ELEMENTS[F32], 9, True, values=ValueSet(ELEMENTS[F32], floats(9)), group=3)
    assert {each.method for each in choices(with_set)} == plain | {RANKS, ONE_OF}
    windows = choices(Context(ELEMENTS[F32], 9, True), [(0, 9)])
    assert {each.method for each in windows if each.window} == plain - {VALUES}


def test_a_large_block_gets_all_effort_only_for_what_came_near(monkeypatch):
    asked = []
    honest = transforms.encode

    def noting(method, x, context, packer, window=None):
        asked.append((method, packer.level))
        return honest(method, x, context, packer, window)

    monkeypatch.setattr(search, "encode", noting)
    base = floats(20_000)
    context = Context(ELEMENTS[F32], len(base), True, base=base)
    trial(nudged(base, 1.0, 1_000), context, Effort(9, False, 2), choices(context))
    assert len([1 for method, level in asked if level == 9 and method != SAME]) <= 2
    assert DIFF in {method for method, level in asked if level == search.ROUGH_LEVEL}


def test_what_lost_in_all_first_blocks_is_not_tried_in_the_others():
    far, near, beaten = Choice(PLAIN), Choice(DIFF), Choice(STEPS)
    one = Trial(bytes(100), {far: 200, near: 100, beaten: 101}, {near: 100, beaten: 110})
    other = Trial(bytes(100), {far: 100, near: 100, beaten: 101}, {near: 100, beaten: 110})
    assert promising([one, one], [far, near, beaten]) == (near,)
    assert promising([one, other], [far, near, beaten]) == (far, near)
    assert promising([one], [Choice(SAME)]) == (Choice(SAME),)


def test_a_block_to_which_nothing_promising_applies_is_plain():
    x = floats(300)
    context = Context(ELEMENTS[F32], len(x), True)
    found = trial(x, context, EFFORT, [Choice(VALUES)]).data
    assert np.array_equal(methods.decode(found, context), x)
