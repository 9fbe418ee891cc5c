import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.web.attempts import UNKNOWN, Attempts, Limits, address_of

LIMITS = Limits(most=3, most_together=8, window_s=60.0, addresses=5)
LEAK_S = LIMITS.window_s / LIMITS.most

ADDRESSES = st.sampled_from([f"10.0.0.{number}" for number in range(9)])
MOMENTS = st.floats(0, 10_000, allow_nan=False)
FAILURES = st.lists(st.tuples(ADDRESSES, MOMENTS), max_size=60)
SMALL = st.builds(
    Limits,
    most=st.integers(1, 5),
    most_together=st.integers(1, 20),
    window_s=st.floats(1, 1000),
    addresses=st.integers(1, 6),
)


def failing(attempts: Attempts, address: str, times: int, now_s: float = 0.0) -> None:
    for _ in range(times):
        attempts.failed(address, now_s)


def test_an_address_waits_after_so_many_failures_and_tries_once_each_time_one_has_leaked():
    attempts = Attempts(LIMITS)
    failing(attempts, "a", LIMITS.most - 1)
    assert attempts.wait_s("a", 0.0) == 0
    attempts.failed("a", 0.0)
    assert attempts.wait_s("a", 0.0) == pytest.approx(LEAK_S)
    assert attempts.wait_s("a", LEAK_S / 2) == pytest.approx(LEAK_S / 2)
    assert attempts.wait_s("a", LEAK_S) == 0
    attempts.failed("a", LEAK_S)
    assert attempts.wait_s("a", LEAK_S) == pytest.approx(LEAK_S)


def test_an_address_that_did_not_fail_never_waits_however_many_others_fail():
    attempts = Attempts(LIMITS)
    for number in range(1000):
        attempts.failed(f"10.1.0.{number}", 0.0)
    assert attempts.crowded(0.0)
    assert attempts.wait_s("10.0.0.1", 0.0) == 0


def test_while_very_many_fail_one_failure_is_enough_to_wait():
    attempts = Attempts(LIMITS)
    failing(attempts, "a", 1)
    assert attempts.wait_s("a", 0.0) == 0
    for number in range(LIMITS.most_together - 1):
        attempts.failed(f"b{number}", 0.0)
    failing(attempts, "c", 1)
    assert attempts.wait_s("c", 0.0) == pytest.approx(LEAK_S)
    assert attempts.wait_s("c", LEAK_S) == 0


def test_the_address_that_failed_longest_ago_is_forgotten_first():
    attempts = Attempts(Limits(most=1, addresses=2))
    for address in ("a", "b", "a", "c"):
        attempts.failed(address, 0.0)
    assert [attempts.wait_s(each, 0.0) > 0 for each in "abc"] == [True, False, True]


def test_counts_are_for_people():
    attempts = Attempts(LIMITS)
    failing(attempts, "a", 3)
    attempts.refused()
    assert (attempts.failures, attempts.refusals) == (3, 1)


@given(SMALL, FAILURES)
def test_memory_is_bounded(limits: Limits, failures: list[tuple[str, float]]):
    attempts = Attempts(limits)
    for address, now_s in failures:
        attempts.failed(address, now_s)
        assert len(attempts) <= limits.addresses


@given(SMALL, FAILURES, MOMENTS, ADDRESSES)
def test_whoever_waits_as_long_as_told_may_try(limits, failures, now_s, address):
    attempts = Attempts(limits)
    for each, at_s in failures:
        attempts.failed(each, at_s)
    wait_s = attempts.wait_s(address, now_s)
    # Clocks that jump back leak nothing: waiting counts from the latest moment that was seen.
    latest = max([now_s, *(at_s for _, at_s in failures)])
    assert attempts.wait_s(address, latest + limits.window_s * 1.001) == 0
    if wait_s and latest == now_s:
        assert wait_s <= limits.window_s * 1.001
        assert attempts.wait_s(address, now_s + wait_s * 1.001) == 0


@given(SMALL, FAILURES, st.lists(MOMENTS, min_size=1, max_size=200))
def test_others_never_make_an_address_wait(limits, failures, tries):
    attempts = Attempts(limits)
    moments = iter(sorted(tries))
    for address, at_s in failures:
        attempts.failed(address, at_s)
        assert attempts.wait_s("192.0.2.7", next(moments, 10_000.0)) == 0


@given(SMALL, st.floats(0.01, 5))
def test_a_guesser_who_never_rests_gets_no_more_than_the_limits_say(limits: Limits, step_s: float):
    attempts = Attempts(limits)
    tried, now_s, steps = 0, 0.0, 300
    for number in range(steps):
        now_s = number * step_s
        if attempts.wait_s("a", now_s) == 0:
            attempts.failed("a", now_s)
            tried += 1
    assert tried <= limits.most + now_s * limits.most / limits.window_s + 1


@pytest.mark.parametrize(
    "host, address",
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::9", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("testclient", "testclient"),
        ("", UNKNOWN),
        (None, UNKNOWN),
    ],
)
def test_what_one_customer_has_counts_as_one_address(host, address):
    assert address_of(host) == address


@pytest.mark.parametrize(
    "wrong", [{"most": 0}, {"most_together": 0}, {"window_s": 0}, {"addresses": 0}]
)
def test_limits_that_let_nobody_in_are_refused(wrong):
    with pytest.raises(ValueError):
        Limits(**wrong)
