"""Which bytes may travel now: budgets per day and network, hours in local time."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.transfer import (
    HOURS_CLOSED,
    NO_BUDGET,
    NetworkRule,
    Spent,
    Terms,
    held,
    networks,
)
from protocol.device import TransferWindow
from protocol.errors import InvalidRequest

NIGHT = TransferWindow(23 * 60, 5 * 60)
NOON = TransferWindow(12 * 60, 13 * 60)
MB = 1_000_000


def at(hour: int, minute: int = 0, day: int = 20) -> datetime:
    return datetime(2026, 11, day, hour, minute, 30, tzinfo=timezone(timedelta(hours=1)))


def spent(**by_network: int) -> Spent:
    return Spent(date(2026, 11, 20), by_network)


@pytest.mark.parametrize(
    "terms, used, network, needed, code, detail",
    [
        pytest.param(Terms(), spent(), "eth0", 10**12, None, "", id="no terms"),
        pytest.param(Terms(2 * MB), spent(eth0=MB), "eth0", MB, None, "", id="fits exactly"),
        pytest.param(
            Terms(2 * MB),
            spent(eth0=MB),
            "eth0",
            MB + 1,
            NO_BUDGET,
            "needs 1.00 MB, 1.00 MB of 2.00 MB left; goes on at 00:00",
            id="one byte short",
        ),
        pytest.param(
            Terms(2 * MB), spent(wwan0=2 * MB), "eth0", 1, NO_BUDGET, "", id="over all networks"
        ),
        pytest.param(
            Terms(MB), spent(), "eth0", 2 * MB, NO_BUDGET, "a whole day has 1.00 MB", id="too large"
        ),
        pytest.param(
            Terms(None, (), networks("wwan*=1MB")),
            spent(wwan0=MB // 2),
            "wwan0",
            MB,
            NO_BUDGET,
            "500 kB of 1.00 MB left on wwan0",
            id="a network's own budget",
        ),
        pytest.param(
            Terms(None, (), networks("wwan*=1MB")), spent(), "eth0", 9 * MB, None, "", id="another"
        ),
        pytest.param(
            Terms(MB, (NIGHT,), networks("eth*=free")), spent(), "eth0", 9 * MB, None, "", id="free"
        ),
        pytest.param(
            Terms(None, (NIGHT,)), spent(), "eth0", 1, HOURS_CLOSED, "goes on at 23:00", id="closed"
        ),
        pytest.param(Terms(None, (NIGHT, NOON)), spent(), "eth0", 1, None, "", id="open"),
        pytest.param(
            Terms(MB, (NIGHT,)), spent(eth0=MB), "eth0", 1, HOURS_CLOSED, "", id="hours come first"
        ),
    ],
)
def test_a_download_may_travel_or_says_what_it_waits_for(
    terms, used, network, needed, code, detail
):
    now = at(12, 30) if NOON in terms.hours else at(14)
    found = held(terms, used, network, needed, now)
    if code is None:
        assert found is None
    else:
        assert found is not None
        assert found.code == code
        assert detail in found.detail


def test_a_budget_is_new_at_local_midnight():
    used = spent(eth0=2 * MB)
    found = held(Terms(2 * MB), used, "eth0", MB, at(23, 59))
    assert found is not None
    assert found.until == datetime(2026, 11, 21, tzinfo=timezone(timedelta(hours=1)))
    assert held(Terms(2 * MB), used, "eth0", MB, at(0, 0, day=21)) is None


def test_more_than_a_day_has_is_waited_for_by_nobody():
    found = held(Terms(MB), spent(), "eth0", MB + 1, at(1))
    assert found is not None
    assert found.until is None


def test_a_clock_that_goes_back_a_day_gives_no_second_budget():
    used = spent(eth0=MB)
    assert used.on(date(2026, 11, 19)) == used
    assert used.on(date(2026, 11, 18)) == Spent(date(2026, 11, 18)), "it was far ahead: no debt"


@given(
    st.integers(0, 10**7),
    st.lists(st.tuples(st.sampled_from(["eth0", "wwan0"]), st.integers(0, 10**6))),
)
def test_what_is_permitted_never_exceeds_a_budget(limit, moves):
    terms, now = Terms(limit, networks=(NetworkRule("wwan0", limit // 2),)), at(10)
    used = Spent()
    for network, size in moves:
        if held(terms, used, network, size, now) is None:
            used = used.plus(network, size, now.date())
    assert sum(used.by_network.values()) <= limit
    assert used.by_network.get("wwan0", 0) <= limit // 2


@pytest.mark.parametrize(
    "text, rules",
    [
        ("", ()),
        ("wwan*=2MB", (NetworkRule("wwan*", 2 * MB),)),
        (
            " wlan0 = 500 kB , eth*=free ",
            (NetworkRule("wlan0", 500_000), NetworkRule("eth*", None)),
        ),
    ],
)
def test_networks_are_read_from_one_line(text, rules):
    assert networks(text) == rules


@pytest.mark.parametrize("text", ["wwan0", "=2MB", "wwan0=", "wwan0=much", "wwan0=-1", "a=1TB"])
def test_networks_that_cannot_be_read_say_so(text):
    with pytest.raises(InvalidRequest) as refused:
        networks(text)
    assert refused.value.code == "OUT-S120"
