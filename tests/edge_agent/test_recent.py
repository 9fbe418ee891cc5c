"""The last records in memory, and what goes to the journal."""

import logging
import os
import sys

import pytest

from edge_agent import journald
from edge_agent.recent import MAX_TEXT, Recent

events = logging.getLogger(journald.EVENTS)
internals = logging.getLogger("edge_agent.supervisor")


@pytest.fixture
def recent():
    handler = Recent(most=3)
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler
    root.removeHandler(handler)
    root.setLevel(before)


def test_everybody_reads_what_happened_and_what_went_wrong_internals_only_on_request(recent):
    events.info("digits/v2 answers")
    internals.info("row 14")
    internals.warning("buffer: full")
    assert [each.text for each in recent.read()] == ["digits/v2 answers", "buffer: full"]
    assert [each.text for each in recent.read(everything=True)][1] == "row 14"


def test_only_the_last_are_kept_each_with_its_number_and_bounded(recent):
    for number in range(5):
        events.info("%d %s", number, "x" * 1000)
    kept = recent.read()
    assert [each.n for each in kept] == [3, 4, 5]
    assert all(len(each.text) == MAX_TEXT for each in kept)
    assert [each.n for each in recent.read(after=4)] == [5]
    assert [each.n for each in recent.read(most=1)] == [5]
    assert recent.read(most=0) == []
    assert recent.read(since_ms=kept[-1].at_ms + 1) == []


def test_an_exception_is_named(recent):
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        internals.exception("counts")
    assert recent.read()[-1].text == "counts (ZeroDivisionError)"


@pytest.mark.parametrize(
    "level, number",
    [
        (logging.DEBUG, 7),
        (logging.INFO, 6),
        (logging.WARNING, 4),
        (logging.ERROR, 3),
        (logging.CRITICAL, 2),
    ],
)
def test_the_journal_gets_priorities_and_no_times(level, number):
    record = logging.LogRecord("edge_agent.link", level, "", 0, "one\ntwo", (), None)
    text = journald.Prefixed().format(record)
    assert text == f"<{number}>[edge_agent.link] one\n<{number}>two"


def test_events_have_no_module_in_front_and_traces_keep_their_priority():
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        seen = sys.exc_info()
    record = logging.LogRecord(journald.EVENTS, logging.ERROR, "", 0, "oh", (), seen)
    lines = journald.Prefixed().format(record).splitlines()
    assert lines[0] == "<3>oh"
    assert all(line.startswith("<3>") for line in lines)


def test_stderr_is_the_journal_only_if_it_is_the_very_file_that_systemd_named(tmp_path):
    with (tmp_path / "journal").open("w") as file:
        found = os.fstat(file.fileno())
        named = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert journald.is_stderr(named, file.fileno())
        assert not journald.is_stderr({}, file.fileno())
        assert not journald.is_stderr({"JOURNAL_STREAM": "8:1"}, file.fileno())
    assert not journald.is_stderr(named, 9999)
