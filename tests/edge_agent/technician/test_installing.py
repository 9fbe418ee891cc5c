"""What a technician sees of an installation, word for word."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from edge_agent import cli
from edge_agent.settings import read
from edge_agent.technician.door import Door, Line
from edge_agent.technician.installing import progress
from edge_agent.technician.status import Status
from protocol.errors import TrustError
from protocol.reported import ReportedState
from tests.fakes.command_line import Ran, ran

STATUS = Status("north-cam-1", "north", 0, ReportedState(1, "0.1"))
BEGINNING = (
    Line("stick", {"made": "made 18 Nov 10:02 UTC for site = leeds"}),
    Line("trust", {"needed": 2, "newer": True}),
)
V2 = {"name": "digits/v2"}
PROOF = {"golden": 32, "probation_seconds": 1800}


class Agent:
    """A running agent that says what a test gives it."""

    said: tuple[Line, ...] = ()
    error: TrustError | None = None

    def install(self, options, tell):
        self.folder = options["from"]
        for line in self.said:
            tell(line)
        if self.error is not None:
            raise self.error
        tell(Line("end", {"exit": 0}))


@pytest.fixture
def agent(tmp_path, monkeypatch) -> Iterator[Agent]:
    monkeypatch.setenv("OUTRIDER_AGENT_HOME", str(tmp_path / "device"))
    monkeypatch.chdir(tmp_path)
    place = read(os.environ).paths.socket
    place.parent.mkdir(parents=True)
    agent = Agent()
    door = Door(place, lambda: STATUS, {"install": agent.install})
    yield agent
    door.close()


def install(*words: str, **more: object) -> Ran:
    return ran(cli.run_command, ["install", "--from", "usb", *words], **more)  # type: ignore[arg-type]  # passed on


def test_an_installation_is_told_as_agreed(agent, tmp_path):
    agent.said = (
        *BEGINNING,
        Line("copying", {"done_bytes": 1, "total_bytes": 9100}),
        Line("model", {**V2, "how": "here", "size_bytes": 9100}),
        Line("trying", {"phase": "probing"}),
        Line("model", {**V2, "how": "activated", **PROOF}),
    )
    result = install()
    assert (result.exit, result.err) == (0, "")
    assert result.out.splitlines() == [
        "stick      made 18 Nov 10:02 UTC for site = leeds",
        "trust      2 of 2 signatures, versions newer than here; freshness not",
        "           checked: a person carried it",
        "digits/v2  9.10 kB, digest matches, 32 of 32 golden vectors",
        "           activated, on probation for 30 min",
    ]
    assert agent.folder == str(tmp_path / "usb"), "the agent has another working folder"


@pytest.mark.parametrize(
    "end, text",
    [
        ({"how": "runs"}, "digits/v2  runs here already"),
        ({"how": "waits", "code": "OUT-D340", "detail": "soon"}, "digits/v2  waits: OUT-D340 soon"),
        ({"how": "waits"}, "digits/v2  starts by itself; look: outrider-agent status"),
        ({"how": "failed", "code": "OUT-D301", "detail": "3 of 8"},
         "digits/v2  failed here: OUT-D301 3 of 8"),
        ({"how": "refused", "code": "OUT-T104", "detail": "no"},
         "digits/v2  refused: OUT-T104 no"),
    ],
)  # fmt: skip
def test_each_end_has_its_words(agent, end, text):
    agent.said = (Line("model", {**V2, **end}),)
    assert install().out.splitlines() == [text]


def test_json_is_one_document(agent):
    agent.said = (
        *BEGINNING,
        Line("copying", {"done_bytes": 1, "total_bytes": 9100}),
        Line("model", {**V2, "how": "here", "size_bytes": 9100}),
        Line("model", {**V2, "how": "activated", **PROOF}),
    )
    result = install("--json")
    assert (result.exit, result.err) == (0, "")
    said = json.loads(result.out)
    assert said["models"] == [{**V2, "how": "activated", "size_bytes": 9100, **PROOF}]
    assert said["trust"] == {"needed": 2, "newer": True}


def test_a_refusal_has_its_exit_code_in_both_forms(agent):
    agent.said = BEGINNING[:1]
    agent.error = TrustError("OUT-T110", "models 11; this device trusts 12")
    result = install()
    assert result.exit == 6
    assert result.err.splitlines() == [
        "error[OUT-T110]: the stick is older than this device",
        "  why: models 11; this device trusts 12",
        "  do:  make a new one: outrider export usb",
    ]
    as_json = install("--json")
    assert (as_json.exit, as_json.out) == (6, "")
    assert json.loads(as_json.err)["code"] == "OUT-T110"


def test_without_an_agent_it_says_how_to_start_one(tmp_path, monkeypatch):
    monkeypatch.setenv("OUTRIDER_AGENT_HOME", str(tmp_path / "device"))
    result = install()
    assert (result.exit, result.out) == (7, "")
    assert result.err.startswith("error[OUT-D401]: the agent is not running\n")
    assert "outrider-agent run" in result.err


def test_what_passes_is_drawn_on_a_terminal_only(agent):
    copying = Line("copying", {"done_bytes": 1_000_000, "total_bytes": 2_260_000})
    assert progress(copying) == "copying    1.00 of 2.26 MB"
    assert progress(BEGINNING[0]) is None
    agent.said = (copying,)
    assert install().err == ""
    assert "1.00 of 2.26 MB" in install(terminal=True).err
