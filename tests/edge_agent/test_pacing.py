"""When the next message goes up: one in flight, full jitter, back-pressure, probes."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.pacing import (
    FORGET_S,
    MAX_PAUSE_S,
    Pacing,
    on_answered,
    on_connected,
    on_disconnected,
    on_expired,
    on_hello,
    on_sent,
    on_told_to_wait,
)

LINKED = on_connected(Pacing(resend_s=30.0, spread_s=60.0), 100.0, 0.5)


def test_nothing_is_sent_without_a_link():
    assert not Pacing().may_send(1e9)
    assert not on_disconnected(LINKED).may_send(1e9)


def test_a_probe_comes_first_and_is_spread():
    assert LINKED.probe
    assert LINKED.at == 130.0
    assert not LINKED.may_send(129.9)
    assert LINKED.may_send(130.0)


@pytest.mark.parametrize(
    "failures, ceiling", [(0, 30.0), (1, 60.0), (3, 240.0), (7, 3600.0), (1000, 3600.0)]
)
def test_the_pause_before_a_resend_is_drawn_below_a_doubling_bound(failures, ceiling):
    before = replace(LINKED, failures=failures)
    assert on_sent(before, 200.0, 0.0).at == 200.0
    assert on_sent(before, 200.0, 0.5).at == 200.0 + ceiling / 2
    assert on_sent(before, 200.0, 0.5).failures == failures + 1


@pytest.mark.parametrize(
    "wait_s, pause", [(None, 0.0), (0.0, 0.0), (12.5, 12.5), (1e9, MAX_PAUSE_S), (-5.0, 0.0)]
)
def test_an_answer_resets_the_pause_to_what_the_ingester_asks(wait_s, pause):
    answered = on_answered(replace(LINKED, failures=9, in_flight=True), 200.0, wait_s)
    assert (answered.at, answered.failures, answered.in_flight) == (200.0 + pause, 0, False)
    assert not answered.probe


def test_a_wait_without_progress_replaces_the_timer_and_keeps_what_is_in_flight():
    waiting = on_told_to_wait(on_sent(LINKED, 200.0, 0.1), 201.0, 50.0)
    assert (waiting.at, waiting.in_flight) == (251.0, True)
    assert on_told_to_wait(on_disconnected(LINKED), 1.0, 5.0).at == math.inf


def test_only_another_ingester_makes_a_device_probe_again():
    known = on_answered(on_hello(LINKED, 140.0, 0.5, 7, 20.0), 150.0, None)
    same = on_hello(known, 160.0, 0.5, 7, 40.0)
    assert not same.probe
    assert same.spread_s == 40.0
    other = on_hello(known, 160.0, 0.5, 8, 40.0)
    assert (other.probe, other.at) == (True, 180.0)


def test_what_is_known_expires_while_linked_only():
    assert LINKED.expired(100.0 + FORGET_S)
    assert not LINKED.expired(99.0 + FORGET_S)
    assert on_expired(LINKED, 50_000.0).may_send(50_000.0)
    assert not on_disconnected(LINKED).expired(1e12)


@given(
    st.lists(st.floats(0, 1, exclude_max=True), max_size=60),
    st.floats(0.1, 100),
)
def test_no_pause_is_longer_than_an_hour(draws, resend_s):
    pacing = replace(LINKED, resend_s=resend_s)
    now = 0.0
    for u in draws:
        pacing = on_sent(pacing, now, u)
        assert now <= pacing.at <= now + MAX_PAUSE_S
        now = pacing.at
