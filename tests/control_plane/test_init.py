import os
import stat
import subprocess
import sys

import pytest

from control_plane import settings as configuration
from control_plane.access import access
from control_plane.init import init, init_dev
from control_plane.signing import create
from control_plane.signing.online_keys import read_public
from control_plane.signing.quorum import Quorum, dev_warning, quorum
from control_plane.signing.repository import Repository
from control_plane.up import PID, end_orphan, up
from control_plane.wiring import ControlPlane
from protocol.errors import InvalidRequest


def test_a_new_home_can_be_read_back_and_called(tmp_path):
    made = init_dev(tmp_path / "cp", "north", api_port=0, broker_port=0)
    assert configuration.read({}, tmp_path / "cp") == made
    assert made.dev
    assert 0 not in (made.api_port, made.broker_port)
    assert made.api_port != made.broker_port
    found = access(tmp_path / "cp")
    assert found.url == f"https://127.0.0.1:{made.api_port}"
    assert len(found.token) >= 40
    assert list(tmp_path.iterdir()) == [tmp_path / "cp"]


def test_secrets_are_readable_by_their_owner_only(tmp_path):
    made = init_dev(tmp_path / "cp")
    for path in (made.operator_token, *made.keys.glob("*.pem"), *made.ca.glob("*.key")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(made.home.stat().st_mode) == 0o700


@pytest.mark.parametrize("content", ["config.yaml", "something else"])
def test_what_is_there_is_never_overwritten(tmp_path, content):
    (tmp_path / content).write_text("mine")
    with pytest.raises(InvalidRequest) as refused:
        init_dev(tmp_path)
    assert refused.value.code == "OUT-S151"
    assert [path.name for path in tmp_path.iterdir()] == [content]


def test_an_empty_folder_and_the_rest_of_a_broken_start_are_no_obstacle(tmp_path):
    (tmp_path / "cp").mkdir()
    (tmp_path / ".cp.init").mkdir()
    (tmp_path / ".cp.init" / "half").write_text("")
    init_dev(tmp_path / "cp")
    assert not (tmp_path / ".cp.init").exists()


@pytest.mark.parametrize("fleet", ["Bad Name", "outrider", ""])
def test_a_name_that_no_fleet_can_have_leaves_nothing_behind(tmp_path, fleet):
    with pytest.raises(InvalidRequest) as refused:
        init_dev(tmp_path / "cp", fleet)
    assert refused.value.code == "OUT-S120"
    assert list(tmp_path.iterdir()) == []


def test_without_dev_there_are_the_server_s_own_keys_and_no_root(tmp_path):
    made = init(tmp_path / "cp", "north", api_port=0, broker_port=0, host="localhost")
    assert configuration.read({}, tmp_path / "cp") == made
    assert not made.dev
    assert sorted(path.name for path in made.keys.iterdir()) == [
        "online-rollouts.pem",
        "online-snapshot.pem",
        "online.pub",
    ]
    fleet, found = read_public(made.keys / "online.pub")
    assert fleet == "north"
    assert set(found) == {"rollouts", "snapshot"}
    assert "PRIVATE" not in (made.keys / "online.pub").read_text()
    for path in (made.operator_token, *made.keys.glob("*.pem"), *made.ca.glob("*.key")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_without_a_root_nothing_is_served(tmp_path):
    made = init(tmp_path / "cp", "north", api_port=0, broker_port=0)
    for start in (lambda: ControlPlane(made), lambda: up(made, print)):
        with pytest.raises(InvalidRequest) as refused:
            start()
        assert (refused.value.code, refused.value.problem.exit) == ("OUT-T116", 3)
    assert not made.broker.exists()


@pytest.mark.parametrize(
    "names, needed", [("ana", 1), ("ana,bo", 2), ("cy,bo,ana", 2), ("a,b,c,d", 3)]
)
def test_named_approvers_have_a_key_each_and_more_than_half_must_sign(tmp_path, names, needed):
    people = names.split(",")
    made = init_dev(tmp_path / "cp", approvers=people)
    assert quorum(made.tuf) == Quorum(needed, tuple(sorted(people)))
    files = [made.keys / f"{name}.pem" for name in sorted(people)]
    assert create.dev_approver_keys(made.keys) == tuple(files)
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    models = Repository.open(made.tuf, made.keys, made.fleet)
    assert models.approvals() == {}


def test_without_names_one_key_approves(tmp_path):
    made = init_dev(tmp_path / "cp")
    assert quorum(made.tuf) == Quorum(1, ("dev keys",))
    assert create.dev_approver_keys(made.keys) == (made.keys / create.APPROVER_KEY,)


@pytest.mark.parametrize(
    "people, said",
    [
        ([], "threshold 1: anyone on this machine can ship a model"),
        (["ana"], "threshold 1: anyone on this machine can ship a model"),
        (
            ["ana", "bo", "cy"],
            "threshold 2 of 3, all on this machine: anyone here can ship a model",
        ),
    ],
)
def test_the_warning_about_development_keys_says_what_the_metadata_says(tmp_path, people, said):
    assert dev_warning(init_dev(tmp_path / "cp", approvers=people).tuf) == said


@pytest.mark.parametrize(
    "names", [["ana", "ana"], [""], ["ana", "../bo"], ["Ana"], ["root-1"], ["a" * 33]]
)
def test_names_that_are_no_two_approvers_leave_nothing_behind(tmp_path, names):
    with pytest.raises(InvalidRequest) as refused:
        init_dev(tmp_path / "cp", approvers=names)
    assert refused.value.code == "OUT-T117"
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_took_over_the_number_of_a_dead_broker_is_left_alone(tmp_path):
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        (tmp_path / PID).write_text(str(sleeper.pid))
        end_orphan(tmp_path)
        os.kill(sleeper.pid, 0)
        assert sleeper.poll() is None
        assert not (tmp_path / PID).exists()
    finally:
        sleeper.communicate(b"\n")


@pytest.mark.parametrize("content", [None, "", "not a number", "999999999"])
def test_no_usable_number_of_a_broker_is_no_obstacle(tmp_path, content):
    if content is not None:
        (tmp_path / PID).write_text(content)
    end_orphan(tmp_path)
