"""When a device asks for its next certificate: tables and properties, no clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.renewal import (
    FIRST_S,
    FROM,
    MOST_S,
    MOST_URGENT_S,
    SPREAD,
    Tries,
    Validity,
    begins_ms,
    due,
    failed,
)

DAY_MS = 86_400_000
FROM_MS = 1_795_000_000_000
LIFE_MS = 730 * DAY_MS
CERTIFICATE = Validity(FROM_MS, FROM_MS + LIFE_MS, "ab" * 32)
DEVICE = "north-cam-1"


def at(share: float) -> int:
    return FROM_MS + int(LIFE_MS * share)


@pytest.mark.parametrize(
    "share, now_s, doubted, expected",
    [
        pytest.param(0.0, 0.0, False, False, id="new"),
        pytest.param(FROM - 0.001, 0.0, False, False, id="not yet half of its life"),
        pytest.param(FROM + SPREAD, 0.0, False, True, id="every device's moment has passed"),
        pytest.param(0.95, 0.0, False, True, id="almost over"),
        pytest.param(1.5, 0.0, False, True, id="expired"),
        pytest.param(0.1, 0.0, True, True, id="young, but the broker takes nothing"),
        pytest.param(1.5, -1.0, True, False, id="a pause holds in every case"),
    ],
)
def test_due(share, now_s, doubted, expected):
    tries = Tries(next_s=0.0)
    assert due(CERTIFICATE, DEVICE, tries, at(share), now_s, doubted=doubted) is expected


def test_a_fleet_of_one_day_spreads_and_a_restart_does_not_change_a_devices_moment():
    moments = [
        begins_ms(Validity(FROM_MS, FROM_MS + LIFE_MS, f"{n:064x}"), f"north-cam-{n}")
        for n in range(2000)
    ]
    days = {(moment - FROM_MS) // DAY_MS for moment in moments}
    assert min(moments) >= at(FROM)
    assert max(moments) <= at(FROM + SPREAD)
    assert len(days) > 65  # of 73: no day of the tenth is left out by much
    assert begins_ms(CERTIFICATE, DEVICE) == begins_ms(CERTIFICATE, DEVICE)


def test_another_certificate_has_another_moment():
    others = {begins_ms(Validity(FROM_MS, FROM_MS + LIFE_MS, f"{n}"), DEVICE) for n in range(20)}
    assert len(others) == 20


@given(
    failures=st.integers(0, 10_000),
    share=st.floats(0, 3),
    random=st.floats(0, 1, exclude_max=True),
)
def test_a_failure_pauses_and_never_for_long_when_it_is_urgent(failures, share, random):
    before = Tries(failures, 5 if failures else 0)
    now_ms = at(share)
    tries = failed(before, CERTIFICATE, "OUT-N104", "x", now_ms=now_ms, now_s=100, random=random)
    most = MOST_URGENT_S if CERTIFICATE.urgent(now_ms) else MOST_S
    ceiling = min(FIRST_S * 2.0 ** min(failures, 32), most)
    assert 100 + ceiling / 2 <= tries.next_s <= 100 + ceiling
    assert tries.failures == failures + 1
    assert not due(CERTIFICATE, DEVICE, tries, now_ms, 100)


def test_what_failed_first_is_remembered_with_the_last_reason():
    once = failed(Tries(), CERTIFICATE, "OUT-N104", "a", now_ms=7, now_s=0, random=0.5)
    twice = failed(once, CERTIFICATE, "OUT-T118", "b", now_ms=9, now_s=0, random=0.5)
    assert (twice.failures, twice.since_ms, twice.code, twice.why) == (2, 7, "OUT-T118", "b")


@pytest.mark.parametrize("share, urgent", [(0.89, False), (0.91, True), (1.0, True), (4.0, True)])
def test_urgent(share, urgent):
    assert CERTIFICATE.urgent(at(share)) is urgent


def test_a_certificate_of_no_length_is_expired_and_breaks_nothing():
    point = Validity(FROM_MS, FROM_MS)
    assert due(point, DEVICE, Tries(), FROM_MS, 0)
    assert not point.urgent(FROM_MS - DAY_MS)
