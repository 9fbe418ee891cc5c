"""Which way is tried next."""

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.ways import AFTER_A_CUT_S, MQTT, REST_MOST_S, Way, Ways

URLS = ("https://a.example/", "/")
A, PLANE = (Way("http", url) for url in URLS)


def test_the_order_of_the_device_and_then_of_the_hint_counts():
    assert Ways().choose(URLS, True, 0) == MQTT
    assert Ways().choose(URLS, False, 0) == A
    assert Ways(("http", "mqtt")).choose(URLS, True, 0) == A
    assert Ways(("http", "mqtt")).choose((), True, 0) == MQTT
    assert Ways(("http",)).choose((), True, 0) is None
    assert Ways(("mqtt",)).choose(URLS, False, 0) is None


def test_a_way_that_failed_rests_and_the_next_one_is_tried():
    ways = Ways()
    ways.failed(MQTT, 0, 0.5)
    assert ways.choose(URLS, True, 0) == A
    ways.failed(A, 0, 0.5)
    assert ways.choose(URLS, True, 0) == PLANE
    ways.failed(PLANE, 0, 0.5)
    assert ways.choose(URLS, True, 0) == MQTT, "listening costs nothing"
    assert ways.choose(URLS, False, 0) is None
    assert ways.choose(URLS, False, 60) == A


@given(st.lists(st.floats(0, 0.999), min_size=2, max_size=30))
def test_each_way_rests_longer_each_time_up_to_an_hour(chances):
    ways = Ways()
    for times, chance in enumerate(chances):
        ways.failed(A, 0, chance)
        longest = min(30 * 2**times, REST_MOST_S)
        assert longest / 10 <= ways.rests_s(A, 0) <= longest


def test_a_way_that_is_cut_after_it_brought_something_is_tried_again_after_a_moment():
    ways = Ways()
    for _ in range(5):
        assert ways.failed(A, 0, 0.9) == 0
    ways.worked(A)
    assert 0 < ways.failed(A, 0, 0.9) <= AFTER_A_CUT_S
    assert ways.rests_s(A, 0) == 0
    assert ways.choose(URLS, False, 0) == A
    assert ways.failed(A, 0, 0.9) == 0
    assert ways.rests_s(A, 0) > AFTER_A_CUT_S, "nothing came since"


def test_a_server_that_asks_to_be_left_alone_rests_also_after_it_brought_something():
    ways = Ways()
    ways.worked(A)
    ways.failed(A, 0, 0.9, at_least_s=500)
    assert ways.rests_s(A, 0) == 500


def test_a_way_that_brought_what_was_wrong_is_not_spared():
    ways = Ways()
    ways.worked(A)
    ways.spoilt(A)
    ways.failed(A, 0, 0.9)
    assert ways.rests_s(A, 0) > AFTER_A_CUT_S


def test_a_server_that_asks_to_be_left_alone_is():
    ways = Ways()
    ways.failed(A, 0, 0.0, at_least_s=500)
    assert ways.rests_s(A, 0) == 500
    assert ways.soon_s(URLS[:1], 100) == 400
    assert ways.soon_s((), 100) == float("inf")
