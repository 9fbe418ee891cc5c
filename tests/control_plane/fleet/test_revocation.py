"""When a revocation list is issued, what the next one says, and when to worry: tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.fleet.revocation import (
    BACKDATED_MS,
    DAY_MS,
    LIFE_MS,
    RevocationList,
    alarm,
    due,
    following,
    said,
)

NOW_MS = 1_795_000_000_000
HOUR_MS = 3_600_000


def listed(age_ms: int = 0, serials: tuple[str, ...] = ("a1",), number: int = 7) -> RevocationList:
    """A list that was issued `age_ms` ago."""
    from_ms = NOW_MS - age_ms - BACKDATED_MS
    return RevocationList(number, from_ms, from_ms + BACKDATED_MS + LIFE_MS, frozenset(serials))


@pytest.mark.parametrize(
    "current, revoked, wanted",
    [
        pytest.param(None, (), True, id="there is none"),
        pytest.param(listed(), ("a1",), False, id="new and complete"),
        pytest.param(listed(), (), False, id="one entry has expired since"),
        pytest.param(listed(), ("a1", "b2"), True, id="something was revoked"),
        pytest.param(listed(DAY_MS - HOUR_MS), ("a1",), False, id="not a day old"),
        pytest.param(listed(DAY_MS), ("a1",), True, id="a day old"),
        pytest.param(listed(40 * DAY_MS), ("a1",), True, id="expired"),
        pytest.param(listed(-2 * DAY_MS), ("a1",), True, id="from the day after tomorrow"),
    ],
)
def test_a_list_is_issued_daily_and_when_something_was_revoked(current, revoked, wanted):
    assert due(current, revoked, NOW_MS) is wanted


@pytest.mark.parametrize("current", [None, listed(), listed(3 * DAY_MS), listed(-DAY_MS)])
def test_a_new_list_is_not_due_again(current):
    numbers = following(current, NOW_MS)
    made = RevocationList(numbers.number, numbers.from_ms, numbers.until_ms, frozenset({"b2"}))
    assert not due(made, ("b2",), NOW_MS)
    assert numbers.from_ms <= NOW_MS
    assert LIFE_MS - HOUR_MS <= numbers.until_ms - NOW_MS <= LIFE_MS + HOUR_MS


@given(st.lists(st.integers(0, 5_000), min_size=1, max_size=50))
def test_of_many_lists_in_a_row_each_is_later_than_the_one_before(pauses):
    now_ms, current = NOW_MS, None
    for pause in pauses:
        numbers = following(current, now_ms)
        assert numbers.from_ms % 1000 == 0
        if current is not None:
            assert numbers.number > current.number
            assert numbers.from_ms // 1000 > current.from_ms // 1000
        current = RevocationList(numbers.number, numbers.from_ms, numbers.until_ms)
        now_ms += pause
    assert current is not None
    assert current.from_ms <= now_ms


def test_a_clock_that_was_wrong_costs_no_list_that_is_not_valid_yet():
    ahead = listed(-400 * DAY_MS)
    numbers = following(ahead, NOW_MS)
    assert numbers.from_ms <= NOW_MS < numbers.until_ms
    assert numbers.number > ahead.number


@pytest.mark.parametrize(
    "age_days, words",
    [
        (0, ""),
        (22, ""),
        (24, "expires in 6 d"),
        (31, "expired 1 d ago: no device gets in"),
    ],
)
def test_less_than_a_week_is_worth_an_alarm(age_days, words):
    found = alarm(listed(age_days * DAY_MS), NOW_MS)
    assert words in found
    assert bool(words) == bool(found)


def test_no_list_at_all_is_worth_one_too():
    assert alarm(None, NOW_MS)


def test_what_is_in_force_is_said_with_its_end():
    assert said(listed(), NOW_MS) == "1 revoked, list 7 until 18 Dec 11:06 UTC"
