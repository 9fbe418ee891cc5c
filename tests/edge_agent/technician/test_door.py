"""The local door: who may open it, and what comes through."""

import socket
import stat
from pathlib import Path

import pytest

from edge_agent.technician.door import Door, ask
from edge_agent.technician.status import Status
from protocol.errors import Unavailable
from protocol.reported import ReportedState

SAID = Status("north-cam-0117", "north", 1_795_000_000_000, ReportedState(7, "0.1"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "agent.sock"


def test_a_status_comes_through_unchanged(place):
    door = Door(place, lambda: SAID)
    try:
        assert ask(place) == SAID
        assert ask(place) == SAID
    finally:
        door.close()


def test_only_its_user_may_open_it(place):
    door = Door(place, lambda: SAID)
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    door.close()


def test_a_socket_that_a_killed_agent_left_is_replaced(place):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(place))
    with pytest.raises(Unavailable):
        ask(place)
    door = Door(place, lambda: SAID)
    assert ask(place) == SAID
    door.close()


def test_other_words_are_answered_with_nothing(place):
    door = Door(place, lambda: SAID)
    try:
        with socket.socket(socket.AF_UNIX) as visitor:
            visitor.connect(str(place))
            visitor.sendall(b"rollback please\n")
            assert visitor.recv(1024) == b""
    finally:
        door.close()


def test_a_closed_door_is_d401(place):
    Door(place, lambda: SAID).close()
    for path in (place, place.with_name("none.sock")):
        with pytest.raises(Unavailable) as raised:
            ask(path)
        assert raised.value.code == "OUT-D401"
