"""What a technician sees, word for word; figures are masked. The file is tests/golden/agent_cli.

`OUTRIDER_TRANSCRIPTS=write` writes what the commands in the file say now: read the difference.
"""

import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent import cli
from edge_agent.technician import probes
from edge_agent.technician.checks import Unit
from edge_agent.technician.status import Status
from protocol.reported import DriftState
from tests.fakes.attended import CONNECTED, NOW_MS, STATUS, Attended
from tests.fakes.command_line import masked, transcript

GOLDEN = Path(__file__).parents[2] / "golden/agent_cli"
HOUR_MS = 3_600_000


def watched(drift: DriftState) -> Status:
    """With what the detectors of drift say."""
    state = STATUS.state
    models = {name: replace(model, drift=drift) for name, model in state.models.items()}
    return replace(STATUS, state=replace(state, models=models))


def well(device: Attended) -> None:
    """A link, a version to go back to, and inputs as usual."""
    device.shown = watched(DriftState(2.1, "pixels_3", 15.4, 412, settled=True))


def offline(device: Attended) -> None:
    """No link for 9 days; inputs have changed, and the update machine is busy."""
    lost = replace(
        CONNECTED, connected=False, why="no route to host", since_ms=NOW_MS - 220 * HOUR_MS,
        next_try_s=42.0,
    )  # fmt: skip
    since_ms = NOW_MS - 363 * HOUR_MS
    drifted = watched(DriftState(18.2, "pixels_3", 15.4, 412, settled=True, since_ms=since_ms))
    device.shown = replace(drifted, link=lost, detail_until_ms=NOW_MS + 912 * HOUR_MS)
    device.follows = False


def ill(device: Attended) -> None:
    """Everything that doctor can find with a running agent."""
    refused = replace(CONNECTED, connected=False, why="TLS: certificate revoked")
    state = replace(STATUS.state, clock="floor", disk_free_bytes=150_000_000)
    device.shown = replace(STATUS, link=refused, state=state)
    device.differs = "digits: 3 of 32 differ by up to 0.21"
    device.marks_intact = False


CASES = {"technician": well, "technician-offline": offline, "technician-ill": ill}


@pytest.mark.parametrize("name", CASES)
def test_a_transcript_is_as_it_was(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SUDO_USER", "tom")
    monkeypatch.setattr("edge_agent.technician.door.peer", lambda line: (1, 0))
    home = tmp_path / "device"
    monkeypatch.setenv("OUTRIDER_AGENT_HOME", str(home))
    device = Attended(home)
    CASES[name](device)
    _this_machine(monkeypatch)
    for level, text in (
        (logging.INFO, "digits/v2 stays: its probation is over"),
        (logging.WARNING, "digits/v3 rolled back: OUT-D310 confidence 0.31, was 0.97"),
    ):
        record = logging.LogRecord("outrider", level, "", 0, text, (), None)
        record.created = NOW_MS / 1000
        device.recent.handle(record)
    golden = GOLDEN / f"{name}.txt"
    lines = golden.read_text(encoding="utf-8").splitlines()
    with device.answering():
        said = transcript({"outrider-agent": cli.run_command}, lines)
    if os.environ.get("OUTRIDER_TRANSCRIPTS") == "write":
        golden.write_text(said, encoding="utf-8")
    assert masked(said) == masked("\n".join(lines) + "\n")


def _this_machine(monkeypatch) -> None:
    """A device like any other, whatever the tests run on."""
    monkeypatch.setattr(probes, "free_bytes", lambda home: 1_200_000_000)
    monkeypatch.setattr(probes, "unit", lambda: Unit(True, True, True))
    monkeypatch.setattr(
        probes, "folder", lambda home: ("/var/lib/outrider of outrider, mode 0700", ())
    )
