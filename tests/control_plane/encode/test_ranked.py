"""A value set is told where it pays and where there is room for it; elsewhere nothing changes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coding import forms, ops
from coding.elements import BF16, ELEMENTS, F16, F32, F64, I32
from coding.limits import MAX_GATHERED
from control_plane.encode import blocks, ranked
from control_plane.encode.columns import Read
from control_plane.encode.search import Effort
from control_plane.encode.sources import Sources, base_column
from tests.control_plane.encode.test_container import table_of, written
from tests.control_plane.encode.test_layout import laid_out
from tests.control_plane.encode.test_sources import both
from tests.fakes.onnx_files import forest, some_trees, walk

QUICK = Effort(3, lzma=False, refine=1)
TREES = some_trees(60, 1, depth=7)
# Features are not kept where a leaf has one.
UNHELD = {"nodes_featureids": (walk(TREES[0])[0].index(True), 3)}
# Of few features thresholds come again and again; values of leaves never do.
FOREST, OLD = (forest(TREES[:count], count, features=2) for count in (60, 50))
FOREST_UNHELD, OLD_UNHELD = (
    forest(TREES[:count], count, features=2, change=UNHELD) for count in (60, 50)
)
TWO = both(FOREST, forest(TREES[:40], 5, features=1))


def found_in(layout, tell=lambda _: None):
    with ThreadPoolExecutor(1) as pool:
        return ranked.ranked(layout, Sources(layout), QUICK, pool, tell)


def without_sets(layout, place):
    with ThreadPoolExecutor(1) as pool:
        source = Sources(layout).numbers(layout.parts[place])
        return list(blocks.written(source, QUICK, pool))


def thresholds(layout):
    """`(place, part)` of the first column of them."""
    parts = enumerate(layout.parts)
    return next(each for each in parts if getattr(each[1], "role", None) == "threshold")


def sets_of(found):
    return [one.set for one in found.values() if one.set is not None]


def checked(layout):
    """What has no set is written as if there were none."""
    found = found_in(layout)
    for place, one in found.items():
        if one.set is None:
            assert one.blocks == without_sets(layout, place)
    return found


@settings(max_examples=20)
@given(st.integers(1, 60), st.integers(1, 9), st.booleans())
def test_a_column_has_a_set_only_where_that_takes_fewer_bytes_than_none(trees, features, based):
    layout = laid_out(forest(TREES[:trees], 3, features=features), OLD if based else None)
    for place, one in found_in(layout).items():
        plain = without_sets(layout, place)
        if one.set is None:
            assert (one.blocks, one.proposal) == (plain, None)
        else:
            assert len(one.blocks) == len(plain)
            size = len(one.proposal.front) + sum(map(len, one.blocks))
            assert size + ranked._SET_BYTES < sum(map(len, plain))


def test_thresholds_that_come_again_have_a_set_and_values_of_leaves_that_do_not_have_none():
    layout = laid_out(FOREST)
    roles = [(layout.parts[place].role, one) for place, one in found_in(layout).items()]
    (leaf_values, values), (threshold, one) = roles
    assert (leaf_values, values.set, threshold) == ("leaf value", None, "threshold")
    assert one.set == ops.Set(F32, one.proposal.new, ensemble=0)


@pytest.mark.parametrize(
    "element, may_have", [(F32, True), (F64, True), (F16, False), (BF16, False), (I32, False)]
)
def test_only_floats_of_four_and_eight_bytes_may_have_a_set(element, may_have):
    layout = laid_out(FOREST)
    place, part = thresholds(layout)
    segment = replace(part.read.segment, form=forms.BYTES, element=element)
    # Zeros at leaves stay zeros.
    read = Read(segment, (part.read.values >> np.uint32(16)).astype(ELEMENTS[element].dtype))
    parts = list(layout.parts)
    parts[place] = replace(part, read=read)
    assert (place in found_in(replace(layout, parts=tuple(parts)))) == may_have


@pytest.mark.parametrize(
    "target, base, per_feature, has_base",
    [
        (FOREST, None, True, False),
        (FOREST, OLD, True, True),
        (FOREST, OLD_UNHELD, True, False),
        (FOREST_UNHELD, OLD, False, True),
    ],
    ids=["no base", "features of both kept", "only of the file", "only of the base"],
)
def test_a_set_starts_from_the_base_where_that_says_as_much(target, base, per_feature, has_base):
    layout = laid_out(target, base)
    place, part = thresholds(layout)
    found = found_in(layout)[place].set
    assert found.ensemble == (0 if per_feature else None)
    assert found.base == (base_column(part.base) if has_base else None)
    assert found.base_ensemble == (0 if per_feature and has_base else None)


def test_a_base_of_more_values_than_a_set_may_be_made_of_is_left_out(monkeypatch):
    layout = laid_out(FOREST, OLD)
    (with_base,) = sets_of(found_in(layout))
    every = with_base.base.count + with_base.new
    for most, is_there in ((every, True), (every - 1, False)):
        monkeypatch.setattr(ranked, "MAX_VALUES", most)
        assert (with_base in sets_of(found_in(layout))) == is_there
    monkeypatch.setattr(ranked, "MAX_VALUES", with_base.base.count - 1)
    (without_base,) = sets_of(found_in(layout))
    assert without_base.base is None


def test_there_are_no_more_sets_than_a_payload_may_name(monkeypatch):
    """Columns behind the last set are left to be written like all others."""
    layout = laid_out(TWO)
    every = found_in(layout)
    assert [one.set is not None for one in every.values()] == [False, True] * 2
    monkeypatch.setattr(ranked, "MAX_SETS", 1)
    found = found_in(layout)
    assert list(found) == list(every)[:2]
    assert sets_of(found) == sets_of(every)[:1]


def test_all_sets_together_have_no_more_values_than_a_decoder_takes(monkeypatch):
    """Where the best set is too large a smaller one takes its place."""
    layout = laid_out(TWO)
    one, other = sets_of(found_in(layout))
    for most in (one.new + other.new, one.new + other.new - 1, one.new - 1, 0):
        monkeypatch.setattr(ranked, "MAX_VALUES", most)
        sets = sets_of(checked(layout))
        assert sum(each.new for each in sets) <= most
        assert (sets == [one, other]) == (most == one.new + other.new)
        assert bool(sets) == (most > 0)


def test_sets_leave_room_for_all_else_that_a_device_keeps(monkeypatch):
    """Pools are not known yet: they get the most that they may have."""
    layout = laid_out(TWO)
    one, other = sets_of(found_in(layout))
    told = table_of(written(TWO), TWO)
    assert (told.sets, told.pools) == ((one, other), ())
    # A byte may be lost in the flags of each ensemble.
    whole = told.kept_bytes + MAX_GATHERED
    for room in (whole + len(told.ensembles), whole - 1, told.kept_bytes):
        monkeypatch.setattr(ranked, "MAX_FRONT", room)
        sets = sets_of(checked(layout))
        assert (sets == [one, other]) == (room > whole)
        assert bool(sets) == (room >= whole - 1)


def test_the_bytes_of_each_column_are_told_once():
    layout = laid_out(FOREST)
    told: list[int] = []
    found_in(layout, told.append)
    trees = layout.ensembles[0]
    leaf_values = 2 * (len(trees.leaves) - trees.branches)
    assert sum(told) == 4 * (trees.branches + leaf_values)
