"""`outrider rollout explain`: scores in words, drawn, computed again, and whether that agrees."""

import json
from typing import Any

import httpx
import pytest

from control_plane import cli
from control_plane.cli import replaying
from control_plane.client import Access, Client
from control_plane.rollout import gate
from control_plane.rollout import record as records
from control_plane.rollout.explaining import explain, gate_rows
from protocol.identifiers import digest_of
from tests.control_plane.rollout.test_picture import SLOW
from tests.fakes.command_line import Ran, ran

DIGEST = digest_of(b"record")
COUNTS = {
    "activated": 100, "healthy": 100, "failed": 0, "rolled_back": 0, "silent": 0, "refused": 0,
}  # fmt: skip


def explanation(**changes: Any) -> dict[str, Any]:
    """What the API says of the record of a slow model."""
    body = {**json.loads(json.dumps(SLOW)), **changes}
    explained = explain(body)
    now = explained.recomputed
    return {
        "record": {
            "digest": DIGEST,
            "number": 3,
            "at": "2026-11-18T10:31:02Z",
            "wave": body["wave"],
            "verdict": body["verdict"],
            "id": body["id"],
            "sentence": body["sentence"],
            "previous": None,
        },
        "counts": COUNTS,
        "gates": gate_rows(now),
        "inputs": body["inputs"],
        "replayed": {
            "same": explained.same,
            "said": explained.sentence,
            "verdict": now.verdict,
            "id": now.id,
            "sentence": now.sentence,
            "rules": gate.GATE,
            "recorded_rules": explained.gate,
            "code": "0.4.1",
        },
    }


@pytest.fixture
def explained(monkeypatch):
    """`explained(body, "--json")`: the command, answered with this explanation."""

    def run(body: dict[str, Any], *words: str, encoding: str = "utf-8") -> Ran:
        def answer(request: httpx.Request) -> httpx.Response:
            if request.url.path.endswith("/explanation"):
                return httpx.Response(200, json=body)
            if request.url.path.endswith(f"/{DIGEST}/picture.svg"):
                return httpx.Response(200, text="<svg/>")
            return httpx.Response(200, json={"items": [], "next_cursor": None, "count": 3})

        nobody = Access("http://nowhere", "north", "token")
        monkeypatch.setattr(
            replaying, "connect", lambda home: Client(nobody, transport=httpx.MockTransport(answer))
        )
        return ran(cli.run, ["rollout", "explain", "digits-8", *words], encoding=encoding)

    return run


def test_scores_are_told_and_drawn(explained):
    said = explained(explanation())
    assert (said.exit, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0].startswith("verdict  fail at 18 Nov")
    assert any(line.startswith("scores   score ") for line in lines)
    assert any("worse" in line for line in lines)
    assert any(line.startswith("plot     ") for line in lines)
    assert any("█" in line for line in lines)
    assert lines[-1] == "replay   recomputed from the record: same verdict"
    assert max(map(len, lines)) <= 80


def test_a_terminal_without_utf_8_gets_a_plot_all_the_same(explained):
    said = explained(explanation(), encoding="ascii")
    assert said.out.isascii()
    assert any("@" in line for line in said.out.splitlines())


def test_a_record_that_was_changed_is_told_and_is_exit_1(explained):
    body = explanation(verdict="pass", id="pass", sentence="All is well.")
    said = explained(body)
    assert said.exit == 1
    _, replayed = said.out.split("\nreplay   ")
    assert replayed.startswith("recomputed from the record: it differs")
    assert "\n         now fail by latency: Latency after 1 d is worse" in replayed
    as_json = explained(body, "--json")
    assert (as_json.exit, json.loads(as_json.out)) == (1, body)


def test_the_picture_of_the_api_is_written(explained, tmp_path):
    file = tmp_path / "verdict.svg"
    said = explained(explanation(), "--json", "-q", "--plot", str(file))
    assert (said.exit, said.err, file.read_text()) == (0, "", "<svg/>")


def test_only_what_matters_most_is_drawn_in_a_terminal(explained, monkeypatch):
    monkeypatch.setattr(replaying, "MOST_DRAWN", 0)
    lines = explained(explanation()).out.splitlines()
    assert "plot     and more: --plot FILE.svg" in lines


def test_the_slow_model_has_a_record():
    # Otherwise nothing above says anything.
    assert records.replay(SLOW).verdict == "fail"
