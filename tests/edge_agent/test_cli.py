"""`outrider-agent` as a technician types it."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from edge_agent import cli, installed
from edge_agent.settings import read
from edge_agent.technician.door import Door
from edge_agent.technician.status import LinkStatus, Status
from protocol.bundle import Facts
from protocol.identifiers import digest_of
from protocol.reported import ModelState, ReportedState
from tests.edge_agent.test_enrol import ControlPlane, serve
from tests.fakes.command_line import Ran, ran

NOW_MS = 1_795_000_000_000
COMMANDS = (
    "enrol", "run", "status", "doctor", "logs", "install", "export", "rollback", "pin", "unpin",
    "install-service",
)  # fmt: skip


def agent(*words: str, **more: object) -> Ran:
    return ran(cli.run_command, words, **more)  # type: ignore[arg-type]  # passed on


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("OUTRIDER_AGENT_HOME", str(tmp_path / "device"))
    return tmp_path / "device"


@pytest.fixture
def control_plane(tmp_path) -> Iterator[ControlPlane]:
    yield from serve(tmp_path / "ca", time.time_ns() // 1_000_000)


# --- enrol ----------------------------------------------------------------------------------------


def test_a_device_enrols_with_a_file(control_plane, home, tmp_path):
    file = tmp_path / "token"
    file.write_text(control_plane.token() + "\n")
    result = agent("enrol", "--token-file", str(file), "--name", "dev-7f3a")
    assert result == Ran(0, "enrolled dev-7f3a in fleet local, site=home\n", "")
    again = agent("enrol", "--token-file", str(file))
    assert (again.exit, again.out) == (5, "")
    assert again.err.startswith("error[OUT-D404]: this device is enrolled already\n")


def test_a_technician_types_the_token_unseen_and_reads_what_was_checked(
    control_plane, home, monkeypatch
):
    asked = []

    def prompt(text: str, **how: object) -> str:
        asked.append((text, how["hide_input"], how["err"]))
        return str(control_plane.token())

    monkeypatch.setattr("edge_agent.cli.typer.prompt", prompt)
    result = agent("enrol", "--name", "dev-7f3a", answers="")
    assert asked == [("Token (or the text of its QR code)", True, True)]
    assert result.exit == 0
    assert result.err.splitlines() == [
        "key        made on this device, stays here",
        "root.json  matches the token",
    ]
    agreed = r"enrolled   dev-7f3a in fleet local, site=home; cert until \d+ [A-Z][a-z]{2} \d{4}\n"
    assert re.fullmatch(agreed, result.out)


def test_a_token_may_come_from_a_pipe_and_the_result_may_be_json(control_plane, home):
    words = ("enrol", "--name", "dev-7f3a", "--json")
    result = agent(*words, piped=control_plane.token() + "\n")
    assert result.exit == 0
    said = json.loads(result.out)
    assert (said["name"], said["fleet"], said["labels"]) == ("dev-7f3a", "local", {"site": "home"})
    assert "BEGIN" not in result.out, "nothing secret"


@pytest.mark.parametrize(
    "exit, code, words",
    [
        (2, "OUT-S120", "enroll"),
        (2, "OUT-S120", "status --wach"),
        (2, "OUT-S120", "run --port eight"),
        (2, "OUT-S120", "enrol --token-file token --name CAM"),
        (3, "OUT-S110", "enrol --token-file missing"),
        (4, "OUT-A202", "enrol --token-file garbage"),
        (4, "OUT-D405", "enrol --token-file token --home /proc/none"),
        (7, "OUT-D401", "status"),
        (7, "OUT-N104", "enrol --token-file gone"),
    ],
)
def test_errors_have_their_exit_code_and_say_it_in_both_forms(
    control_plane, home, tmp_path, monkeypatch, exit, code, words
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").write_text(control_plane.token())
    (tmp_path / "garbage").write_text("not a token")
    (tmp_path / "gone").write_text(control_plane.token(u="https://127.0.0.1:1"))
    said = agent(*words.split())
    assert (said.exit, said.out) == (exit, ""), said.err
    assert said.err.startswith(f"error[{code}]: ")
    assert "\n  do:  " in said.err
    as_json = agent(*words.split(), "--json")
    if "run" not in words:
        assert (as_json.exit, as_json.out) == (exit, "")
        assert json.loads(as_json.err)["code"] == code


# --- status ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "models, exit, first",
    [
        (
            {"digits": ModelState(serving=digest_of(b"v1"), since_ms=NOW_MS - 40_000)},
            0,
            "* dev-7f3a: digits/v1 runs normally since 11:06 UTC (40 s)",
        ),
        ({}, 8, "! dev-7f3a: no model is assigned"),
        ({"digits": ModelState()}, 1, "! dev-7f3a: no working model for digits"),
    ],
)
def test_status_asks_the_running_agent(home, models, exit, first):
    said = Status(
        "local-dev-7f3a",
        "local",
        NOW_MS,
        ReportedState(1, "0.1", facts=Facts(arch="x86_64"), models=models),
        LinkStatus(True, "mq:8883", NOW_MS - 1000),
        {digest_of(b"v1"): "digits/v1"},
    )
    place = read(os.environ).paths.socket
    place.parent.mkdir(parents=True)
    door = Door(place, lambda: said)
    try:
        result = agent("status")
        as_json = agent("status", "--json")
    finally:
        door.close()
    assert (result.exit, result.err) == (exit, "")
    assert result.out.splitlines()[0] == first
    assert (as_json.exit, as_json.err) == (exit, "")
    assert json.loads(as_json.out)["device"] == "local-dev-7f3a"


# --- run ------------------------------------------------------------------------------------------


def test_the_daemon_takes_the_place_of_the_command(home, monkeypatch):
    became = []

    class Became(Exception):
        pass

    def execv(path: str, words: list[str]) -> None:
        became.append(words)
        raise Became

    monkeypatch.setattr("edge_agent.daemon.os.execv", execv)
    for variable in (installed.VARIABLE, "MALLOC_ARENA_MAX"):
        monkeypatch.setenv(variable, "")  # so that it is taken back
    with pytest.raises(Became):
        agent("run", "--port", "8555", "--broker", "site:8883", "--listen", "[::]:8600", "-v")
    with pytest.raises(Became):
        agent("run")
    command = [sys.executable, "-P", "-m", "edge_agent.daemon", str(home)]
    assert became == [
        [*command, "8555", "site:8883", "[::]:8600", "-", "1"],
        [*command, "8500", "-", "-", "-", "0"],
    ]


def test_versions_are_looked_up_before_the_daemon_lives_for_months(monkeypatch):
    monkeypatch.setenv(installed.VARIABLE, "outrider==0.0.1")
    assert installed.version_of("outrider") == "0.0.1"
    assert installed.version_of("onnxruntime") == importlib.metadata.version("onnxruntime")
    installed.remember()
    look = (
        "import sys; from edge_agent.installed import OF_INTEREST, version_of;"
        "print(*map(version_of, OF_INTEREST), 'importlib.metadata' in sys.modules)"
    )
    versions = [importlib.metadata.version(name) for name in installed.OF_INTEREST]
    words = subprocess.check_output([sys.executable, "-c", look], text=True).split()
    assert words == [*versions, "False"]


def test_an_agent_that_is_not_enrolled_says_so(home):
    result = subprocess.run(
        [sys.executable, "-m", "edge_agent", "run"], capture_output=True, text=True
    )
    assert (result.returncode, result.stdout) == (3, "")
    assert result.stderr.splitlines() == [
        "error[OUT-D403]: this device is not enrolled",
        *[line for line in result.stderr.splitlines() if line.startswith(("  why", "       "))],
        "  do:  outrider-agent enrol --token-file FILE",
    ]


def test_the_daemon_loads_neither_a_command_line_nor_what_runs_models():
    heavy = {"typer", "click", "rich", "pydantic", "numpy", "onnxruntime", "asyncio", "httpx"}
    look = (
        "import sys, edge_agent.daemon, edge_agent.wiring;"
        f"print(sorted({heavy!r} & set(m.partition('.')[0] for m in sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", look], text=True) == "[]\n"


# --- help -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    result = agent(name, "--help")
    assert (result.exit, result.err) == (0, "")
    assert result.out.startswith(f"Usage: outrider-agent {name} ")
    assert max(map(len, result.out.splitlines())) <= 80
    assert ("--json" in result.out) == (name != "run")


def test_the_commands_are_the_agreed_ones():
    result = agent()
    assert (result.exit, result.out) == (2, "")
    assert re.findall(r"^  ([a-z][a-z-]+) ", result.err, re.MULTILINE) == list(COMMANDS)
