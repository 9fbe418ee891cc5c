"""Tables, labelled lines and bars, within 80 columns."""

import json
from datetime import datetime

import pytest

from control_plane.cli import bar, device_pages, devices, screen, showing
from protocol.errors import InvalidRequest
from protocol.wording import size_of
from tests.fakes.command_line import Stream, ran

NOW_MS = 1_795_000_000_000  # 18 Nov 2026


def shown(draw, *arguments, **more) -> str:
    def command(_) -> int:
        draw(*arguments, **more)
        return 0

    return ran(command, []).out


@pytest.mark.parametrize(
    "text, width, short",
    [
        ("cam-0117", 8, "cam-0117"),
        ("cam-north-0117", 10, "cam-…-0117"[:4] + "…" + "-0117"),
        ("abcdef", 3, "a…f"),
    ],
)
def test_the_ends_of_a_name_stay(text, width, short):
    assert showing.shortened(text, width) == short
    assert len(showing.shortened(text, width)) <= width


def test_the_widest_column_gives_way_until_a_table_fits():
    rows = [["cam-" + "x" * 60 + "-0117", "digits/v1", "7"], ["b", "digits/v2", "12,000"]]
    lines = shown(showing.table, ["DEVICE", "RUNS", ">ANSWERS"], rows).splitlines()
    assert max(map(len, lines)) == 80
    assert lines[1].startswith("cam-xxx")
    assert "…" in lines[1]
    assert [line[-8:] for line in lines] == [" ANSWERS", "       7", "  12,000"]


def test_a_long_text_goes_on_below_itself():
    lines = shown(showing.line, "contract", "float32[-1,64] " * 8).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("contract float32")
    assert lines[1].startswith("         float32")


@pytest.mark.parametrize(
    "done, total, seconds, text",
    [
        (0, 1_260_000, 9.0, "upload   ░░░░░░░░░░░░░░░░░░░░  0 B of 1.26 MB"),
        (880_000, 1_260_000, 4.6, "upload   █████████████░░░░░░░  880 kB of 1.26 MB  2 s left"),
        (1_200_000, 1_260_000, 0.5, "upload   ███████████████████░  1.20 of 1.26 MB"),
        (1_260_000, 1_260_000, 9.0, "upload   ████████████████████  1.26 of 1.26 MB"),
    ],
)
def test_a_bar_says_how_far_it_is(done, total, seconds, text):
    assert bar.drawn("upload", done, total, seconds, size_of) == text


def test_a_bar_is_only_drawn_on_a_terminal_and_leaves_nothing(monkeypatch):
    def work(_) -> int:
        with bar.Bar("checks") as drawn:
            drawn(9, 20)
        return 0

    monkeypatch.setenv("TERM", "xterm")
    assert ran(work, []).err == ""
    assert ran(work, [], terminal=True).err.endswith("9 of 20\r\x1b[K")
    monkeypatch.setenv("TERM", "dumb")
    assert ran(work, [], terminal=True).err == ""


def test_what_a_terminal_cannot_show_is_replaced():
    ascii, utf8 = Stream("ascii"), Stream("utf-8")
    assert screen.readable("├─ cam…7 ö", ascii) == "|- cam~7 ?"
    assert screen.readable("├─ cam…7 ö", utf8) == "├─ cam…7 ö"


@pytest.mark.parametrize(
    "text, at",
    [
        ("1dec", "2026-12-01T00:00:00+00:00"),
        ("18nov", "2027-11-18T00:00:00+00:00"),
        ("2026-12-01", "2026-12-01T00:00:00+00:00"),
        ("2026-12-01T10:00+02:00", "2026-12-01T10:00:00+02:00"),
        ("14d", "2026-12-02T11:06:40+00:00"),
        ("6h", "2026-11-18T17:06:40+00:00"),
    ],
)
def test_the_end_of_a_pin(text, at):
    assert devices._moment(text, NOW_MS) == datetime.fromisoformat(at)


@pytest.mark.parametrize("text", ["", "d", "yesterday", "99999d", "32dec", "29feb", "-1d"])
def test_what_is_no_end_of_a_pin(text):
    with pytest.raises(InvalidRequest) as raised:
        devices._moment(text, NOW_MS)
    assert raised.value.code == "OUT-S120"


def test_missing_records_are_counted_by_what_became_of_them():
    gap = {"epoch": 1, "stream": "i", "lo": 3, "hi": 5, "lost": False}
    records = {
        "stored": {"inference": 48_211},
        "missing": [gap, {**gap, "lo": 9, "hi": 9, "lost": True}],
    }
    assert device_pages._records(records) == "48,211 answers, 3 windows still expected, 1 lost"
    assert json.dumps(records)
