"""`install-service`: on paper, so that this machine stays as it is."""

import json
import os
from collections.abc import Sequence
from pathlib import PurePosixPath

import pytest

from edge_agent import cli, unit
from edge_agent.technician import enabling
from edge_agent.technician.enabling import Machine
from protocol.errors import Failed, InvalidRequest
from tests.fakes.command_line import Ran, ran

TERMS = unit.Terms(program=PurePosixPath("/opt/outrider/bin/outrider-agent"))


def carried_out(machine, **how):
    todo = enabling.steps(machine, TERMS, **{"start": True, **how})
    for step in todo:
        step.act()
    return [step.what for step in todo]


def enrol(root):
    identity = root / "var/lib/outrider/identity"
    identity.mkdir(parents=True)
    (identity / "enrolment.json").write_text("{}")


def test_a_user_a_folder_and_a_unit_are_made_and_systemd_is_told(tmp_path):
    told: list[Sequence[str]] = []
    enrol(tmp_path)
    assert carried_out(enabling.on_paper(tmp_path, told)) == [
        "user", "folder", "unit", "boot", "start",
    ]  # fmt: skip
    assert [command[0] for command in told] == [
        "useradd", "chown", "systemctl", "systemctl", "systemctl",
    ]  # fmt: skip
    assert told[2:] == [
        ["systemctl", "daemon-reload"],
        ["systemctl", "enable", unit.NAME],
        ["systemctl", "start", unit.NAME],
    ]
    written = tmp_path / "etc/systemd/system" / unit.NAME
    assert written.read_text() == unit.text(TERMS)
    assert (tmp_path / "var/lib/outrider").stat().st_mode & 0o777 == 0o700


def test_what_is_as_it_should_be_is_left_alone(tmp_path):
    enrol(tmp_path)
    carried_out(enabling.on_paper(tmp_path, []))
    told: list[Sequence[str]] = []
    assert carried_out(enabling.on_paper(tmp_path, told, ["outrider"])) == [
        "folder", "boot", "start",
    ]  # fmt: skip
    assert ["systemctl", "start", unit.NAME] in told


def test_a_service_whose_unit_has_changed_is_started_anew(tmp_path):
    enrol(tmp_path)
    path = tmp_path / "etc/systemd/system" / unit.NAME
    path.parent.mkdir(parents=True)
    path.write_text("[Service]\n")
    told: list[Sequence[str]] = []
    carried_out(enabling.on_paper(tmp_path, told))
    assert ["systemctl", "restart", unit.NAME] in told


def test_before_it_is_enrolled_nothing_is_started_and_the_next_step_is_named(tmp_path):
    machine = enabling.on_paper(tmp_path, [])
    assert "start" not in carried_out(machine)
    assert enabling.next_of(machine, TERMS, start=True).startswith("sudo outrider-agent enrol")


def test_no_start_leaves_the_start_to_the_person(tmp_path):
    enrol(tmp_path)
    machine = enabling.on_paper(tmp_path, [])
    assert "start" not in carried_out(machine, start=False)
    assert "systemctl start" in enabling.next_of(machine, TERMS, start=False)


def test_without_root_it_is_refused_before_anything_is_done(tmp_path):
    machine = Machine(
        tmp_path, lambda command: pytest.fail("nothing may run"), False, lambda n: None
    )
    with pytest.raises(InvalidRequest) as raised:
        enabling.require_possible(machine)
    assert (raised.value.code, raised.value.do) == (
        "OUT-D409", "sudo outrider-agent install-service",
    )  # fmt: skip


def test_a_command_that_fails_ends_it_with_what_it_said(tmp_path):
    def run(command):
        raise Failed("OUT-D409", f"{command[0]}: no room")

    machine = Machine(tmp_path, run, True, lambda name: os.geteuid())
    with pytest.raises(Failed) as raised:
        carried_out(machine)
    assert "no room" in raised.value.why


# --- as it is typed -------------------------------------------------------------------------------


def agent(*words: str) -> Ran:
    return ran(cli.run_command, words)


def test_print_only_shows_the_unit(tmp_path):
    result = agent("install-service", "--print", "--user", "edge")
    assert result.exit == 0
    assert "\nUser=edge\n" in result.out


def test_an_image_is_prepared_below_a_root_and_the_commands_are_shown(tmp_path):
    result = agent("install-service", "--root", str(tmp_path))
    assert result.exit == 0
    assert "run     systemctl enable outrider-agent.service\n" in result.out
    assert (tmp_path / "etc/systemd/system" / unit.NAME).exists()


def test_a_dry_run_changes_nothing_and_exits_with_8(tmp_path):
    result = agent("install-service", "--root", str(tmp_path), "--dry-run", "--json")
    said = json.loads(result.out)
    assert (result.exit, said["dry_run"], said["commands"]) == (8, True, [])
    assert [each["step"] for each in said["steps"]] == ["user", "folder", "unit", "boot"]
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_none_is_refused():
    result = agent("install-service", "--print", "--user", "a b")
    assert (result.exit, "OUT-S120" in result.err) == (2, True)
