"""What systemd is told, over both kinds of sockets that it uses."""

import os
import socket
from contextlib import closing

import pytest

from edge_agent.notify import Notify, from_environment


class Systemd:
    """The other end."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)

    @property
    def heard(self) -> list[str]:
        found = []
        try:
            while True:
                found.append(self.socket.recv(4096).decode())
        except BlockingIOError:
            return found


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(params=["a path", "an abstract name"])
def address(request, tmp_path):
    if request.param == "a path":
        return str(tmp_path / "notify")
    return f"@outrider-test-{os.getpid()}"


@pytest.fixture
def systemd(address):
    found = Systemd(address)
    with closing(found.socket):
        yield found


def test_the_first_turn_means_ready_and_words_are_said_when_they_change(systemd, address):
    notify = Notify(address)
    assert systemd.heard == []
    notify.turned("digits/v2 runs\nnormally")
    notify.turned("digits/v2 runs normally")
    notify.turned("no link")
    assert systemd.heard == ["READY=1\nSTATUS=digits/v2 runs normally", "STATUS=no link"]
    notify.stopping()
    (said,) = systemd.heard
    assert said.startswith("STOPPING=1\n")


def test_signs_of_life_come_with_progress_only_and_not_more_often_than_needed(systemd, address):
    clock = Clock()
    notify = Notify(address, 8.0, clock)
    notify.alive()
    notify.alive()
    assert systemd.heard == ["WATCHDOG=1"]
    for _ in range(8):
        clock.now_s += 1.0  # more often than twice in an interval, as systemd recommends
        notify.alive()
    assert len(systemd.heard) >= 4
    clock.now_s += 60.0
    assert systemd.heard == []
    notify.turned("late")
    assert systemd.heard[0] == "WATCHDOG=1"


def test_a_loop_may_wait_for_a_fraction_of_the_watchdog():
    assert Notify("@nobody", 2.0).patience_s == 0.5
    assert Notify("@nobody").patience_s is None


def test_without_somebody_who_listens_nothing_is_sent_and_nothing_fails(tmp_path, caplog):
    Notify().turned("well")
    deaf = Notify(str(tmp_path / "gone"), 2.0)
    deaf.turned("well")
    deaf.stopping()
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    "given, watched",
    [
        ({}, None),
        ({"WATCHDOG_USEC": "4000000"}, 1.0),
        ({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "7"}, 1.0),
        ({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_the_environment_says_what_is_wanted_and_runners_do_not_inherit_it(given, watched):
    environment = {"NOTIFY_SOCKET": "@x", **given, "PATH": "/bin"}
    assert from_environment(environment, 7).patience_s == watched
    assert environment == {"PATH": "/bin"}
