from hypothesis import given
from hypothesis import strategies as st

from edge_agent.backoff import BASE_MS, CAP_MS, JITTER, full_jitter, pause_ms

chance = st.floats(0, 1, exclude_max=True)


def test_a_pause_doubles_from_ten_minutes_to_a_day():
    middle = [pause_ms(fails, 0.5) // 60_000 for fails in range(10)]
    assert middle == [10, 20, 40, 80, 160, 320, 640, 1280, 1440, 1440]


@given(st.integers(0, 10**6), chance)
def test_jitter_stays_within_its_share(fails, random):
    assert BASE_MS * (1 - JITTER) <= pause_ms(fails, random) <= CAP_MS * (1 + JITTER)


@given(st.integers(0, 10**6), chance, st.floats(0.01, 100), st.floats(0.01, 1e6))
def test_full_jitter_is_below_its_cap_and_its_doubling_base(attempt, random, base, cap):
    assert 0 <= full_jitter(attempt, base, cap, random) <= min(base * 2.0 ** min(attempt, 60), cap)
