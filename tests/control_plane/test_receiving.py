import queue
from collections.abc import Callable

import pytest

from control_plane.ingest import Answer, Publication
from control_plane.link import Delivery
from control_plane.receiving import Receiving
from protocol.errors import Unavailable

SOON_S = 10


class Desk:
    """An ingest that does what the test says, and a note of everything in its order."""

    def __init__(self, *outcomes: Answer | Exception):
        self.outcomes = iter(outcomes)
        self.seen: queue.Queue[str] = queue.Queue()

    def handle(self, topic: str, data: bytes) -> Answer:
        outcome = next(self.outcomes)
        self.seen.put(f"handle {topic}")
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def publish(self, topic: str, data: bytes) -> None:
        self.seen.put(f"answer {topic}")

    def delivery(self, topic: str) -> Delivery:
        return Delivery(topic, b"", lambda: self.seen.put(f"acknowledge {topic}"))

    def next(self) -> str:
        return self.seen.get(timeout=SOON_S)


@pytest.fixture
def receive(monkeypatch):
    monkeypatch.setattr("control_plane.receiving.RETRY_S", 0.0)
    running: list[Receiving] = []

    def start(desk: Desk) -> Callable[[str], None]:
        receiving = Receiving(desk, desk.publish)  # type: ignore[arg-type]  # a stand-in
        running.append(receiving)
        receiving.start()
        return lambda topic: receiving.take(desk.delivery(topic))

    yield start
    for each in running:
        each.stop()


def test_a_message_is_stored_then_answered_then_acknowledged(receive):
    desk = Desk(Answer((Publication("ack", b""),)), Answer())
    take = receive(desk)
    take("one")
    take("two")
    said = [desk.next() for _ in range(5)]
    assert said == ["handle one", "answer ack", "acknowledge one", "handle two", "acknowledge two"]


def test_what_cannot_be_stored_now_is_tried_again_before_it_is_acknowledged(receive):
    desk = Desk(Unavailable("OUT-S161"), Unavailable("OUT-S161"), Answer())
    receive(desk)("one")
    assert [desk.next() for _ in range(4)] == ["handle one"] * 3 + ["acknowledge one"]


def test_a_message_that_breaks_ingest_does_not_hold_up_the_others(receive, caplog):
    desk = Desk(KeyError("x"), Answer())
    take = receive(desk)
    take("one")
    take("two")
    said = [desk.next() for _ in range(4)]
    assert said == ["handle one", "acknowledge one", "handle two", "acknowledge two"]
    assert "one" in caplog.text
