"""The local door: who may open it, and what comes through."""

import contextlib
import socket
import stat
import threading
from pathlib import Path

import pytest

from edge_agent.technician.door import Door, Line, ask, command
from edge_agent.technician.status import Status
from protocol.errors import OutriderError, TrustError, Unavailable
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


# --- commands that take a while -------------------------------------------------------------------


def talk(place, carry_out, name="greet"):
    door = Door(place, lambda: SAID, {"greet": carry_out})
    try:
        return list(command(place, name, {"who": "you"}))
    finally:
        door.close()


def test_a_command_gets_its_options_and_its_lines_come_through_in_order(place):
    def greet(options, tell):
        for number in range(3):
            tell(Line("said", {"to": options["who"], "number": number}))
        tell(Line("end", {"exit": 0}))

    lines = talk(place, greet)
    assert lines == [*(Line("said", {"to": "you", "number": n}) for n in range(3)),
                     Line("end", {"exit": 0})]  # fmt: skip


def test_a_problem_is_raised_as_it_was_with_what_to_do(place):
    def greet(options, tell):
        tell(Line("said"))
        raise TrustError("OUT-T110", "models 11; this device trusts 12", do="make another")

    with pytest.raises(OutriderError) as raised:
        talk(place, greet)
    error = raised.value
    assert (error.code, error.why, error.do) == (
        "OUT-T110", "models 11; this device trusts 12", "make another",
    )  # fmt: skip


def test_a_fault_of_ours_is_said_and_the_door_stays_open(place):
    def greet(options, tell):
        raise ZeroDivisionError("oh")

    door = Door(place, lambda: SAID, {"greet": greet})
    try:
        for _ in range(2):
            with pytest.raises(OutriderError) as raised:
                list(command(place, "greet", {}))
            assert raised.value.code == "OUT-S160"
        assert ask(place) == SAID
    finally:
        door.close()


def test_a_command_goes_on_when_whoever_asked_has_gone(place):
    gone, done = threading.Event(), threading.Event()

    def greet(options, tell):
        gone.wait(10)
        for _ in range(100):
            tell(Line("said", {"text": "x" * 10_000}))
        done.set()

    door = Door(place, lambda: SAID, {"greet": greet})
    try:
        with socket.socket(socket.AF_UNIX) as visitor:
            visitor.connect(str(place))
            visitor.sendall(b'{"command":"greet"}\n')
        gone.set()
        assert done.wait(10)
    finally:
        door.close()


def test_status_is_answered_while_a_command_takes_its_time(place):
    begun, over = threading.Event(), threading.Event()

    def greet(options, tell):
        begun.set()
        over.wait(10)

    door = Door(place, lambda: SAID, {"greet": greet})
    asking = threading.Thread(target=hear, args=(place,))
    try:
        asking.start()
        assert begun.wait(10)
        assert ask(place) == SAID
    finally:
        over.set()
        asking.join()
        door.close()


def hear(place):
    with contextlib.suppress(Unavailable):  # it says nothing, not even that it has ended
        list(command(place, "greet", {}))


@pytest.mark.parametrize("name", ["rollback", "STATUS"])
def test_a_command_that_is_not_known_is_not_answered(place, name):
    with pytest.raises(Unavailable):
        talk(place, lambda options, tell: None, name)


def test_a_command_without_an_agent_is_d401(place):
    with pytest.raises(Unavailable) as raised:
        list(command(place, "greet", {}))
    assert raised.value.code == "OUT-D401"
    assert "outrider-agent run" in raised.value.do


@pytest.mark.parametrize("words", [b"{", b"[]", b'{"command":1}', b"x" * 20_000, b"\xff"])
def test_garbage_at_the_door_does_no_harm(place, words):
    door = Door(place, lambda: SAID, {"greet": lambda options, tell: None})
    try:
        with socket.socket(socket.AF_UNIX) as visitor:
            visitor.settimeout(10)
            visitor.connect(str(place))
            visitor.sendall(words + b"\n")
            with contextlib.suppress(ConnectionResetError):
                assert visitor.recv(1024) == b""
        assert ask(place) == SAID
    finally:
        door.close()
