"""`outrider drift explain`: numbers in words, drawn, computed again, and whether that agrees."""

import json
from typing import Any

import httpx
import pytest

from control_plane import cli
from control_plane.cli import drift_explaining
from control_plane.client import Access, Client
from control_plane.drift.picture import compared
from control_plane.drift.record import replay, sealed
from protocol.wording import rfc3339
from tests.control_plane.drift.test_record import FOUND
from tests.fakes.command_line import Ran, ran


def explanation(kind: str, *, edited: bool = False, hours: int | None = None) -> dict[str, Any]:
    """What the API says of an alarm."""
    record, _, rows, profile = FOUND[kind]()
    digest, text = sealed(record, "alarm-17")
    record = json.loads(text)
    if edited:
        record["threshold"]["value"] /= 2
    replayed = replay(record, rows if hours is None else rows[:hours], profile)
    found = replayed.measured
    return {
        "record": record,
        "digest": digest,
        "replayed": {
            "same": replayed.same,
            "said": replayed.said,
            "statistic": found.statistic,
            "windows": found.windows,
            "devices": found.devices,
            "rows": found.rows,
            "found": found.beyond,
        },
        "course": [{"at": rfc3339(each.at_ms), "value": each.value} for each in found.course],
        "threshold": record["threshold"],
        "compared": [
            {
                "name": each.name,
                "counts": list(each.counts),
                "against": list(each.against),
                "what": each.what,
                "slots": list(each.slots),
            }
            for each in compared(found.shown, profile)
        ],
    }


@pytest.fixture
def explained(monkeypatch):
    """`explained(body, "--json")`: the command, answered with this explanation."""

    def run(body: dict[str, Any], *words: str, encoding: str = "utf-8") -> Ran:
        def answer(request: httpx.Request) -> httpx.Response:
            assert request.url.path == "/v1/fleets/north/alarms/alarm-17/explanation"
            return httpx.Response(200, json=body)

        nobody = Access("http://nowhere", "north", "token")
        monkeypatch.setattr(
            drift_explaining,
            "connect",
            lambda home: Client(nobody, transport=httpx.MockTransport(answer)),
        )
        return ran(cli.run, ["drift", "explain", "alarm-17", *words], encoding=encoding)

    return run


@pytest.mark.parametrize("kind", FOUND)
def test_an_alarm_is_told_and_drawn(explained, kind):
    body = explanation(kind)
    said = explained(body)
    assert (said.exit, said.err) == (0, "")
    lines = said.out.splitlines()
    labels = [line[:10].strip() for line in lines if line[0] != " "]
    assert labels == [
        "verdict", "inputs", "statistic", "threshold", "budget", "plot", "record", "replay",
    ]  # fmt: skip
    assert lines[0].startswith(f"verdict   {body['record']['sentence']}, 14 Nov 2023 ")
    assert lines[-1].startswith("replay    recomputed from ")
    assert lines[-1].endswith(" stored windows: same")
    assert any("█" in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_a_terminal_without_utf_8_gets_a_plot_all_the_same(explained):
    said = explained(explanation("peer"), encoding="ascii")
    assert said.out.isascii()
    assert any("@" in line for line in said.out.splitlines())


def test_a_record_that_was_changed_is_told_and_is_exit_1(explained):
    body = explanation("peer", edited=True)
    said = explained(body)
    assert said.exit == 1
    _, replayed = said.out.split("\nreplay    ")
    assert "it differs; the record is not what" in replayed
    assert "\n          now temperature: p " in replayed
    as_json = explained(body, "--json")
    assert (as_json.exit, json.loads(as_json.out)) == (1, body)


def test_what_is_left_of_the_windows_is_told(explained):
    said = explained(explanation("detector", hours=10))
    assert said.exit == 1
    assert "80 of 90 stored windows are gone or were merged since" in said.out
    assert "now pressure: ln e" in said.out


def test_a_picture_is_written_as_its_name_says(explained, tmp_path):
    svg, png = tmp_path / "alarm.svg", tmp_path / "alarm.png"
    said = explained(explanation("peer"), "--json", "-q", "--plot", str(svg))
    assert (said.exit, said.err) == (0, "")
    assert svg.read_text().startswith("<svg ")
    said = explained(explanation("peer"), "--plot", str(png))
    assert said.err == f"wrote {png}\n"
    assert png.read_bytes().startswith(b"\x89PNG")


def test_a_picture_of_another_kind_is_refused_before_anything_is_asked(explained, tmp_path):
    said = explained({}, "--plot", str(tmp_path / "alarm.gif"))
    assert said.exit == 2
    assert "FILE.svg or FILE.png" in said.err
    assert not list(tmp_path.iterdir())
