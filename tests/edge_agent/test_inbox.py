"""The inbox: in order, in bounded memory, never in the supervisor's way."""

from __future__ import annotations

import threading

from edge_agent.inbox import CAPACITY, Inbox, LinkChanged, Message
from tests.fakes.waiting import until


def test_what_comes_is_taken_in_order():
    inbox = Inbox()
    inbox.link_changed(True, "")
    inbox.message("a", b"1")
    inbox.message("b", b"2")
    assert inbox.take(0) == [LinkChanged(True, ""), Message("a", b"1"), Message("b", b"2")]
    assert inbox.take(0) == []


def test_a_wake_ends_the_wait_and_brings_nothing():
    inbox = Inbox()
    waker = threading.Timer(0.05, inbox.wake)
    waker.start()
    assert inbox.take(30) == []


def test_a_full_inbox_holds_the_link_back_until_there_is_room():
    inbox = Inbox()
    for n in range(CAPACITY):
        inbox.message("t", bytes([n % 256]))
    done = threading.Event()

    def link() -> None:
        inbox.message("t", b"last")
        done.set()

    threading.Thread(target=link, daemon=True).start()
    assert not done.is_set()
    inbox.wake()  # does not block, though there is no room
    assert len(inbox.take(0)) >= CAPACITY
    until(done.is_set)
    assert inbox.take(1)[-1:] in ([Message("t", b"last")], [])
