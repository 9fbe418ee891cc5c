"""`outrider-agent logs`: from the agent's memory, and from the system's journal."""

import json
import logging
import os
import stat

import pytest

from edge_agent import cli
from edge_agent.technician import logs
from edge_agent.technician.logs import Entry, Wanted
from tests.fakes.attended import Attended
from tests.fakes.command_line import Ran, ran


@pytest.fixture
def device(tmp_path):
    found = Attended(tmp_path / "device")
    for level, name, text in (
        (logging.INFO, "outrider", "digits/v2 answers"),
        (logging.INFO, "edge_agent.supervisor", "digits: row 14"),
        (logging.WARNING, "outrider", "no link to mq:1: \x1b[2Jno route"),
    ):
        record = logging.LogRecord(name, level, "", 0, text, (), None)
        record.created = 1_795_000_000.0
        found.recent.handle(record)
    return found


def typed(device, *words: str) -> Ran:
    with device.answering():
        return ran(cli.run_command, ["logs", *words, "--home", str(device.home)])


def test_what_happened_is_told_in_words_and_harms_no_terminal(device):
    result = typed(device)
    assert result == Ran(
        0,
        "18 Nov 11:06:40   digits/v2 answers\n18 Nov 11:06:40 ! no link to mq:1:  [2Jno route\n",
        "",
    )


def test_internals_and_what_runners_wrote_come_on_request(device):
    (device.paths.run / "runner.log").write_text("runner 7 oh\n")
    said = typed(device, "-v").out.splitlines()
    assert said[0].endswith("[runner.log] runner 7 oh")
    assert said[2].endswith("[edge_agent.supervisor] digits: row 14")


def test_the_last_lines_and_those_since_a_moment(device):
    assert len(typed(device, "-n", "1").out.splitlines()) == 1
    assert typed(device, "--since", "2026-11-19").out == ""
    refused = typed(device, "--since", "yesterday")
    assert (refused.exit, "OUT-S120" in refused.err) == (2, True)


def test_json_is_one_document(device):
    records = json.loads(typed(device, "--json").out)["records"]
    assert [each["level"] for each in records] == [20, 30]
    assert records[0] == {"at_ms": 1_795_000_000_000, "level": 20, "text": "digits/v2 answers"}


def test_who_follows_is_told_what_comes_and_nothing_twice(device, monkeypatch, capsys):
    more = iter(["digits/v3 answers", None, "digits/v3 stays"])

    def wait():
        text = next(more, "over")
        if text == "over":
            raise KeyboardInterrupt
        if text is not None:
            device.recent.handle(logging.LogRecord("outrider", logging.INFO, "", 0, text, (), None))

    monkeypatch.setattr(logs, "_pause", wait)
    result = typed(device, "--follow", "--json")
    texts = [json.loads(line)["text"] for line in result.out.splitlines()]
    assert texts[0] == "digits/v2 answers"
    assert texts[2:] == ["digits/v3 answers", "digits/v3 stays"]
    assert result.exit == 130


def test_without_an_agent_and_without_a_journal_there_is_nothing_to_tell(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    result = ran(cli.run_command, ["logs", "--home", str(tmp_path)])
    assert (result.exit, "OUT-D401" in result.err) == (7, True)


# --- the journal ----------------------------------------------------------------------------------

LINES = [
    {"PRIORITY": "6", "MESSAGE": "digits/v2 answers", "__REALTIME_TIMESTAMP": "1795000000000000"},
    {"PRIORITY": "6", "MESSAGE": "[edge_agent.link] x", "__REALTIME_TIMESTAMP": "1795000000000000"},
    {"PRIORITY": "4", "MESSAGE": "[edge_agent.link] y", "__REALTIME_TIMESTAMP": "1795000000000000"},
    {"PRIORITY": "3", "MESSAGE": [111, 104, 255], "__REALTIME_TIMESTAMP": "1795000000000000"},
]


@pytest.fixture
def journalctl(tmp_path, monkeypatch):
    """A journal with these lines; it notes what it was asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "lines").write_text("\n".join(map(json.dumps, LINES)) + "\nno json\n[]\n{}\n")
    program = folder / "journalctl"
    program.write_text(f'#!/bin/sh\necho "$@" > {folder}/asked\ncat {folder}/lines\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_an_agent_that_logs_to_the_journal_is_read_there(device, journalctl):
    device.recent.journal = True
    result = typed(device)
    assert [line[16:] for line in result.out.splitlines()] == [
        "  digits/v2 answers", "! [edge_agent.link] y", "! oh�",
    ]  # fmt: skip
    assert "--unit outrider-agent.service" in (journalctl / "asked").read_text()
    assert len(typed(device, "-n", "1").out.splitlines()) == 1


def test_an_agent_that_does_not_is_not(device, journalctl):
    assert "digits/v2 answers" in typed(device).out
    assert not (journalctl / "asked").exists()


def test_the_journal_still_tells_of_an_agent_that_does_not_run(tmp_path, journalctl):
    result = ran(cli.run_command, ["logs", "-v", "--home", str(tmp_path / "none")])
    assert (result.exit, len(result.out.splitlines())) == (0, 4)


def test_a_journal_that_may_not_be_read_gives_way_to_the_agent(device, journalctl):
    device.recent.journal = True
    (journalctl / "lines").write_text("")
    assert "digits/v2 answers" in typed(device).out


def test_what_is_asked_of_journalctl():
    wanted = Wanted(10, 1_795_000_000_500, everything=True, follow=True)
    assert logs.arguments(wanted)[1:] == [
        "--unit", "outrider-agent.service", "--output", "json", "--no-pager", "--quiet",
        "--lines", "10", "--since", "@1795000000.500", "--follow",
    ]  # fmt: skip


def test_a_line_without_a_time_is_shown_all_the_same():
    assert logs.shown(Entry(0, 20, "x")) == " " * 15 + "   x"
