"""Measurements have one form, for people and for programs."""

import json

from tests.bench.report import Row, as_json, publish, table

ROWS = [
    Row("bytes", 1.0, "x", 200.0, "nginx + curl", "≤ 1.02", True),
    Row("time", 3.0, "s", None, "skipped: no nginx here"),
]


def test_the_json_form_has_all_fields_and_the_ratio():
    first, second = json.loads(as_json("fanout", ROWS))["rows"]
    assert first == {
        "what": "bytes",
        "ours": 1.0,
        "peer": 200.0,
        "against": "nginx + curl",
        "ratio": 0.005,
        "unit": "x",
        "goal": "≤ 1.02",
        "ok": True,
    }
    assert (second["peer"], second["ratio"], second["ok"]) == (None, None, None)


def test_the_table_says_what_was_missed():
    assert "MISSED" not in table(ROWS)
    assert "MISSED" in table([Row("bytes", 2.0, "x", goal="≤ 1.02", ok=False)])


def test_a_missed_goal_is_the_exit_code(tmp_path, capsys):
    assert publish("a", ROWS, tmp_path) == 0
    assert publish("b", [*ROWS, Row("bytes", 2.0, "x", goal="≤ 1.02", ok=False)], tmp_path) == 1
    assert json.loads((tmp_path / "b.json").read_text())["name"] == "b"
    assert "nginx" in capsys.readouterr().out
