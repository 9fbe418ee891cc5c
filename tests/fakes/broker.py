"""An MQTT broker in memory: retained messages, QoS 1, wills, kept sessions, and faults.

Messages wait in one queue per link until `run` hands them over, in the caller's thread: what a
test does between two runs is its choice of interleaving. With `running()` a thread does it.
"""

from __future__ import annotations

import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from control_plane.link import Delivery


@dataclass(frozen=True, slots=True)
class Faults:
    """Shares of messages on their way to subscribers, from 0 to 1. A drop is of QoS 0 only."""

    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0


@dataclass(slots=True)
class _Message:
    topic: str
    data: bytes
    qos: int


@dataclass(slots=True, eq=False)
class _Session:
    topics: dict[str, int] = field(default_factory=dict)
    queue: deque[_Message] = field(default_factory=deque)
    unacknowledged: dict[int, _Message] = field(default_factory=dict)
    number: int = 0


class Broker:
    """`retained` and `published` (all that came in, in order) are for tests to look at."""

    def __init__(self, rng: random.Random | None = None, faults: Faults = Faults()) -> None:
        self.retained: dict[str, bytes] = {}
        self.published: list[tuple[str, bytes]] = []
        self.faults = faults
        self.up = True
        self.refuses: Callable[[str, str], bool] = lambda client, topic: False
        """Rights: whether a client's publish to a topic is dropped (and confirmed all the same)."""
        self._rng = rng or random.Random(0)
        self._known: list[FakeLink] = []
        self._links: list[FakeLink] = []
        self._sessions: dict[str, _Session] = {}
        self._lock = threading.RLock()
        self._work = threading.Condition(self._lock)

    def run(self) -> None:
        """Deliver until nothing moves any more."""
        while self._step():
            pass

    @contextmanager
    def running(self) -> Iterator[None]:
        """Deliver on a thread of its own meanwhile, like a broker does."""
        stopping = threading.Event()

        def serve() -> None:
            while not stopping.is_set():
                if not self._step():
                    with self._work:
                        self._work.wait(0.01)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()

    def cut(self, client_id: str, why: str = "cut") -> None:
        """End a client's connection without a goodbye: its will is published."""
        for link in [link for link in self._links if link.client_id == client_id]:
            link.lost(why)
            if link.will is not None:
                self.publish(*link.will, qos=1, retain=True)

    def stop(self) -> None:
        """Go down: links are lost and stay so until `start`."""
        self.up = False
        for link in list(self._links):
            link.lost("broker stopped")

    def start(self, *, lose: Callable[[str], bool] = lambda topic: False) -> None:
        """Come back, without the retained messages for whose topic `lose` holds."""
        self.retained = {t: data for t, data in self.retained.items() if not lose(t)}
        self.up = True

    # --- what links call ------------------------------------------------------------------------

    def attach(self, link: FakeLink) -> _Session:
        with self._lock:
            self._links.append(link)
            if not link.keeps_session:
                return _Session()
            session = self._sessions.setdefault(link.client_id, _Session())
            # What was not acknowledged comes again, first.
            session.queue.extendleft(reversed(session.unacknowledged.values()))
            session.unacknowledged.clear()
            return session

    def detach(self, link: FakeLink) -> None:
        with self._lock:
            if link in self._links:
                self._links.remove(link)

    def publish(self, topic: str, data: bytes, *, qos: int, retain: bool) -> None:
        with self._work:
            self.published.append((topic, data))
            if retain:
                self.retained.pop(topic, None)
                if data:
                    self.retained[topic] = data
            present = [link.session for link in self._links if link.session is not None]
            away = [session for session in self._sessions.values() if session not in present]
            for session in (*present, *away):
                granted = [q for filter_, q in session.topics.items() if matches(filter_, topic)]
                given = min(qos, max(granted, default=0))
                if granted and (given or session in present):
                    self._queue(session, _Message(topic, data, given))
            self._work.notify_all()

    def subscribed(self, session: _Session, topic: str, qos: int) -> None:
        with self._work:
            session.topics[topic] = qos
            for name, data in list(self.retained.items()):
                if matches(topic, name):
                    self._queue(session, _Message(name, data, qos))
            self._work.notify_all()

    def _queue(self, session: _Session, message: _Message) -> None:
        faults, rng = self.faults, self._rng
        if message.qos == 0 and rng.random() < faults.drop:
            return
        copies = 2 if rng.random() < faults.duplicate else 1
        for _ in range(copies):
            if session.queue and rng.random() < faults.reorder:
                session.queue.insert(rng.randrange(len(session.queue)), message)
            else:
                session.queue.append(message)

    def _step(self) -> bool:
        """Let links come up and deliver one message to each; whether anything happened."""
        moved = False
        with self._lock:
            known = list(self._known)
        for link in known:
            moved |= link.turn()
        return moved

    def know(self, link: FakeLink) -> None:
        """A started link: the broker lets it in whenever it can."""
        with self._lock:
            self._known.append(link)


class FakeLink:
    """The shape of `edge_agent.link.Link` and `control_plane.link.Link`, on a `Broker`."""

    def __init__(
        self,
        broker: Broker,
        client_id: str,
        *,
        on_message: Callable[[str, bytes], None],
        on_state: Callable[[bool, str], None] = lambda connected, why: None,
        on_delivery: Callable[[Delivery], None] | None = None,
        will: tuple[str, bytes] | None = None,
    ) -> None:
        self.client_id = client_id
        self.will = will
        self.keeps_session = on_delivery is not None
        self.session: _Session | None = None
        self.wants = False
        self.subscribes = 0
        self.asked: Counter[str] = Counter()
        """How often each topic was subscribed."""
        self._broker = broker
        self._on_message = on_message
        self._on_state = on_state
        self._on_delivery = on_delivery
        self._topics: dict[str, int] = {}

    @property
    def connected(self) -> bool:
        return self.session is not None

    @property
    def topics(self) -> frozenset[str]:
        return frozenset(self._topics)

    def start(self) -> None:
        self.wants = True
        self._broker.know(self)
        self.turn()

    def stop(self) -> None:
        self.wants = False
        self._broker.detach(self)
        if self.session is not None:
            self.session = None
            self._on_state(False, "stopped")

    def subscribe(self, topics: Sequence[str], qos: int = 0) -> None:
        self.subscribes += len(topics)
        self.asked.update(topics)
        self._topics.update(dict.fromkeys(topics, qos))
        if self.session is not None:
            for topic in topics:
                self._broker.subscribed(self.session, topic, qos)

    def unsubscribe(self, topics: Sequence[str]) -> None:
        for topic in topics:
            self._topics.pop(topic, None)
            if self.session is not None:
                self.session.topics.pop(topic, None)

    def publish(self, topic: str, data: bytes, *, qos: int = 1, retain: bool = False) -> bool:
        if self.session is None:
            return False
        if not self._broker.refuses(self.client_id, topic):
            self._broker.publish(topic, data, qos=qos, retain=retain)
        return True

    def confirmed(self, timeout_s: float) -> bool:
        return self.connected

    # --- what the broker calls ------------------------------------------------------------------

    def turn(self) -> bool:
        """Connect if it can, else hand in one message; whether anything happened."""
        if self.session is None:
            return self._connect()
        try:
            message = self.session.queue.popleft()
        except IndexError:
            return False
        if message.qos == 0 or self._on_delivery is None:
            self._on_message(message.topic, message.data)
        else:
            self._deliver(self.session, message, self._on_delivery)
        return True

    def lost(self, why: str) -> None:
        self._broker.detach(self)
        if self.session is not None:
            self.session = None
            self._on_state(False, why)

    def _connect(self) -> bool:
        if not (self.wants and self._broker.up):
            return False
        self.session = self._broker.attach(self)
        for topic, qos in list(self._topics.items()):
            self._broker.subscribed(self.session, topic, qos)
        self._on_state(True, "")
        return True

    def _deliver(
        self, session: _Session, message: _Message, receiver: Callable[[Delivery], None]
    ) -> None:
        session.number += 1
        number = session.number
        session.unacknowledged[number] = message

        def acknowledge() -> None:
            # Of an old connection: the message is on its way again and keeps its place.
            if self.session is session:
                session.unacknowledged.pop(number, None)

        receiver(Delivery(message.topic, message.data, acknowledge))


def matches(filter_: str, topic: str) -> bool:
    """Whether an MQTT topic filter with `+` and `#` covers a topic."""
    wanted, levels = filter_.split("/"), topic.split("/")
    for place, level in enumerate(wanted):
        if level == "#":
            return True
        if place >= len(levels) or level not in ("+", levels[place]):
            return False
    return len(wanted) == len(levels)
