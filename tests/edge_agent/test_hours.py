"""Hours of the day in local time: across midnight, and where clocks change."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.hours import is_open, next_opening, opens_ms, said
from protocol.device import TransferWindow

NIGHT = TransferWindow(23 * 60, 5 * 60)
NOON = TransferWindow(12 * 60, 13 * 60)
EARLY = TransferWindow(60, 5 * 60)
BERLIN = ZoneInfo("Europe/Berlin")
"""Its clocks go from 02:00 to 03:00 on 28 March 2027, and from 03:00 to 02:00 on 31 October."""


def at(hour: int, minute: int = 0, day: int = 20) -> datetime:
    return datetime(2026, 11, day, hour, minute, 30, tzinfo=timezone(timedelta(hours=1)))


def local(zone: ZoneInfo) -> Callable[[int], datetime]:
    return lambda at_ms: datetime.fromtimestamp(at_ms / 1000, zone)


def ms(text: str, zone: ZoneInfo = BERLIN, fold: int = 0) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp() * 1000)


@pytest.mark.parametrize(
    "hours, now, opens",
    [
        ((), at(3), None),
        ((NIGHT,), at(23), None),
        ((NIGHT,), at(4, 59), None),
        ((NIGHT,), at(5), at(23)),
        ((NOON, NIGHT), at(6), at(12)),
        ((NOON,), at(13), at(12, day=21)),
    ],
)
def test_hours_cross_midnight_and_the_next_opening_is_the_nearest(hours, now, opens):
    found = next_opening(hours, now)
    assert found == (opens.replace(second=0) if opens else None)


minutes = st.integers(0, 1439)
windows = st.lists(
    st.tuples(minutes, minutes).filter(lambda w: w[0] != w[1]), min_size=1, max_size=4
)


@given(windows, minutes)
def test_what_waits_for_an_opening_finds_it_open(pairs, minute):
    hours, now = [TransferWindow(*pair) for pair in pairs], at(0) + timedelta(minutes=minute)
    opens = next_opening(hours, now) or now
    assert now - timedelta(minutes=1) < opens <= now + timedelta(days=1)
    assert next_opening(hours, opens) is None


@pytest.mark.parametrize(
    "hours, now, opens",
    [
        pytest.param((EARLY,), "2027-03-27T04:59", None, id="open"),
        pytest.param((EARLY,), "2027-03-27T05:00", "2027-03-28T01:00", id="tomorrow"),
        pytest.param((EARLY,), "2027-03-28T01:30", None, id="open before the hour is left out"),
        pytest.param((EARLY,), "2027-03-28T03:30", None, id="and after it"),
        pytest.param((EARLY,), "2027-03-28T12:00", "2027-03-29T01:00", id="the day after"),
        pytest.param(
            (TransferWindow(150, 240),),
            "2027-03-28T01:00",
            "2027-03-28T03:00",
            id="a window that begins in the hour left out opens when that is over",
        ),
        pytest.param(
            (TransferWindow(120, 180),),
            "2027-03-28T01:00",
            "2027-03-29T02:00",
            id="one that lies wholly in it does not open that day",
        ),
        pytest.param(
            (TransferWindow(360, 420),),
            "2027-03-27T12:00",
            "2027-03-28T06:00",
            id="a night with an hour less",
        ),
        pytest.param(
            (TransferWindow(360, 420),),
            "2027-10-30T12:00",
            "2027-10-31T06:00",
            id="a night with an hour more",
        ),
        pytest.param((NIGHT,), "2027-10-31T12:00", "2027-10-31T23:00", id="across midnight"),
    ],
)
def test_a_window_is_one_of_the_wall_clock(hours, now, opens):
    assert opens_ms(hours, ms(now), local(BERLIN)) == (ms(opens) if opens else None)


def test_an_hour_that_comes_twice_is_open_twice():
    hours = (TransferWindow(130, 140),)
    first, again = ms("2027-10-31T02:10"), ms("2027-10-31T02:10", fold=1)
    assert again - first == 3_600_000
    assert opens_ms(hours, first, local(BERLIN)) is None
    assert opens_ms(hours, first + 600_000, local(BERLIN)) == again
    assert opens_ms(hours, again, local(BERLIN)) is None


@given(
    windows, st.integers(0, 366 * 1440), st.sampled_from(["Europe/Berlin", "Australia/Lord_Howe"])
)
def test_the_next_opening_is_the_first_minute_that_is_open(pairs, minute, name):
    hours = [TransferWindow(*pair) for pair in pairs]
    there = local(ZoneInfo(name))
    now_ms = ms("2027-01-01T00:00", ZoneInfo("UTC")) + minute * 60_000 + 12_345
    opens = opens_ms(hours, now_ms, there)
    if opens is None:
        assert is_open(hours, there(now_ms))
        return
    assert is_open(hours, there(opens))
    assert not any(
        is_open(hours, there(each)) for each in range(now_ms, opens, max((opens - now_ms) // 7, 1))
    )


def test_windows_are_said_as_people_write_them():
    assert said((EARLY, NIGHT)) == "01:00-05:00 or 23:00-05:00"
    assert is_open((), datetime(2027, 1, 1, tzinfo=UTC))
