"""What is subscribed is what should be, with as few packets as that takes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from edge_agent.subscriptions import UNSUBSCRIBE_TOGETHER, Subscriptions


class Wire:
    """Packets, as they would be sent."""

    def __init__(self) -> None:
        self.said: list[tuple[str, tuple[str, ...]]] = []

    def subscribe(self, topics: Sequence[str], qos: int = 0) -> None:
        self.said.append(("subscribe", tuple(topics)))

    def unsubscribe(self, topics: Sequence[str]) -> None:
        self.said.append(("unsubscribe", tuple(topics)))


@pytest.fixture
def wire() -> Wire:
    return Wire()


def test_what_is_wanted_is_asked_for_once(wire):
    subscriptions = Subscriptions(wire)
    for _ in range(3):
        subscriptions.follow(("a", "b"), ("hint",))
    assert wire.said == [("subscribe", ("a", "b"))]


def test_an_answer_is_expected_once_and_only_where_somebody_asked(wire):
    subscriptions = Subscriptions(wire)
    subscriptions.follow(("a",), ())
    assert subscriptions.take("b") is None
    assert subscriptions.take("a") is True
    assert subscriptions.take("a") is False, "it comes as often as it is published"


def test_what_is_still_wanted_after_its_answer_is_asked_for_anew(wire):
    subscriptions = Subscriptions(wire)
    subscriptions.follow(("a",), ())
    subscriptions.take("a")
    subscriptions.follow(("a",), ())
    assert wire.said == [("subscribe", ("a",)), ("subscribe", ("a",))]


def test_after_silence_everything_that_is_wanted_is_asked_for_anew(wire):
    subscriptions = Subscriptions(wire)
    subscriptions.follow(("a", "b"), ())
    subscriptions.again()
    subscriptions.follow(("b",), ("a",))
    assert wire.said[1:] == [("subscribe", ("b",))]
    assert subscriptions.take("a") is False


def test_unsubscribing_waits_for_company_unless_it_is_about_all(wire):
    subscriptions = Subscriptions(wire)
    topics = tuple("abcdef")
    subscriptions.follow(topics, ())
    for gone in range(1, UNSUBSCRIBE_TOGETHER):
        subscriptions.follow(topics[gone:], ())
    assert wire.said[1:] == []
    subscriptions.follow(topics[UNSUBSCRIBE_TOGETHER:], ())
    assert wire.said[1:] == [("unsubscribe", topics[:UNSUBSCRIBE_TOGETHER])]
    subscriptions.follow(topics[-1:], (), all_of_them=True)
    assert wire.said[2:] == [("unsubscribe", topics[UNSUBSCRIBE_TOGETHER:-1])]


def test_what_is_kept_stays_if_it_is_there_and_is_not_asked_for_if_not(wire):
    subscriptions = Subscriptions(wire)
    subscriptions.follow(("hint",), ())
    subscriptions.follow((), ("hint", "other", None), all_of_them=True)
    assert wire.said == [("subscribe", ("hint",))]
