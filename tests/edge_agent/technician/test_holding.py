"""`rollback`, `pin` and `unpin` as they are typed, through the real door."""

import json
from dataclasses import replace

import pytest

from edge_agent import cli
from edge_agent.journal import Journal, Note
from edge_agent.local_pins import LocalPins
from edge_agent.technician.door import Door, command, speaker
from protocol.errors import InvalidRequest
from tests.fakes.attended import CONNECTED, NOW_MS, STATUS, V1, V2, V3, Attended
from tests.fakes.command_line import Ran, ran


@pytest.fixture
def device(tmp_path, monkeypatch):
    monkeypatch.delenv("SUDO_USER", raising=False)
    return Attended(tmp_path / "device")


def typed(device, *words: str) -> Ran:
    with device.answering():
        return ran(cli.run_command, [*words, "--home", str(device.home)])


def test_rollback_is_in_force_and_durable_when_it_returns(device):
    result = typed(device, "rollback", "--why", "wrong labels")
    assert result.exit == 0, result
    kept = LocalPins(device.home / "documents").pins["digits"]
    assert (kept.digest, kept.why, kept.until_ms, kept.at_ms) == (V1, "wrong labels", None, NOW_MS)
    assert [event for event, _ in device.events] == ["pinned_here"]
    assert device.events[0][1]["model"] == "digits"


def test_what_cannot_be_tried_within_a_moment_goes_on_by_itself(device):
    device.follows = False
    result = typed(device, "rollback")
    assert result.exit == 0
    assert "digits/v1 is loaded and checked; digits/v2 goes on" in " ".join(result.out.split())
    assert LocalPins(device.home / "documents").pins["digits"].digest == V1


def test_a_busy_supervisor_keeps_no_technician_waiting(device):
    device.follows, device.inbox.busy = False, True
    assert typed(device, "rollback").exit == 0
    assert LocalPins(device.home / "documents").pins["digits"].digest == V1


def test_what_the_device_waits_for_is_said(device):
    device.follows = False
    waiting = replace(STATUS.state.models["digits"], waiting="OUT-T121", waiting_detail="14 Nov")
    device.shown = replace(STATUS, state=replace(STATUS.state, models={"digits": waiting}))
    result = typed(device, "pin", "digits/v3")
    assert result.exit == 8
    assert "waits       OUT-T121" in result.out


@pytest.mark.parametrize(
    "sudo, who", [("tom", "tom"), ("", "root")], ids=["through sudo", "as root"]
)
def test_who_ordered_it_is_the_one_the_kernel_names(device, monkeypatch, sudo, who):
    monkeypatch.setattr("edge_agent.technician.door.peer", lambda line: (1, 0))
    if sudo:
        monkeypatch.setenv("SUDO_USER", sudo)
    typed(device, "rollback")
    assert LocalPins(device.home / "documents").pins["digits"].who == who


@pytest.mark.parametrize(
    "user, claimed, who",
    [(0, "tom", "tom"), (0, "", "user-0"), (7, "", "user-7"), (7, "root", "user-7")],
)
def test_only_root_may_speak_for_somebody_else(user, claimed, who):
    assert speaker(user, 7, claimed, lambda number: f"user-{number}") == who


def test_others_give_no_orders_even_where_the_door_stands_open(device, monkeypatch):
    monkeypatch.setattr("edge_agent.technician.door.peer", lambda line: (1, 65534))
    result = typed(device, "rollback")
    assert (result.exit, "OUT-D410" in result.err) == (4, True), result
    assert device.pins.pins == {}
    with pytest.raises(InvalidRequest):
        speaker(65534, 7, "root", str)


def test_the_option_who_is_what_the_door_found_whatever_was_sent(tmp_path, monkeypatch):
    monkeypatch.setattr("edge_agent.technician.door.peer", lambda line: (1, 0))
    heard = []
    door = Door(tmp_path / "s", lambda: STATUS, {"x": lambda options, tell: heard.append(options)})
    try:
        with pytest.raises(Exception, match="D401"):
            list(command(tmp_path / "s", "x", {"who": "tom"}))
    finally:
        door.close()
    assert heard == [{"who": "tom"}]


def test_a_pin_overrides_no_denial_of_this_device(device):
    note = Note(reason="OUT-D310", definite=True, detail="confidence 0.31")
    device.journal = Journal("digits", current=V2, previous=V1, notes=((V1, note),))
    result = typed(device, "rollback")
    assert result.exit == 1
    assert "OUT-D310" in result.err
    assert device.pins.pins == {}


def test_a_version_that_is_not_here_needs_a_link(device):
    device.shown = replace(STATUS, link=replace(CONNECTED, connected=False))
    result = typed(device, "pin", "digits/v3")
    assert (result.exit, "OUT-D407" in result.err) == (3, True), result
    device.shown, device.follows = STATUS, False
    result = typed(device, "pin", "digits/v3", "--until", "1dec", "--json")
    said = json.loads(result.out)
    assert (result.exit, said["bundle"], said["here"]) == (0, V3, False)
    assert said["until_ms"] > NOW_MS


def test_unpin_gives_the_decision_back_and_says_so_upstream(device):
    typed(device, "rollback")
    result = typed(device, "unpin")
    assert result.exit == 0
    assert LocalPins(device.home / "documents").pins == {}
    assert [event for event, _ in device.events] == ["pinned_here", "unpinned_here"]
    again = typed(device, "unpin")
    assert (again.exit, "OUT-S110" in again.err) == (3, True), again


def test_an_agent_that_has_just_started_asks_for_a_second(device):
    bare = replace(STATUS.state, facts=replace(STATUS.state.facts, arch=""))
    device.shown = replace(STATUS, state=bare)
    result = typed(device, "rollback")
    assert (result.exit, "just started" in result.err) == (5, True), result
