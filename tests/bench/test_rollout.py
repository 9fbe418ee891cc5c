"""The parts of the rollout benchmark that need no broker."""

from __future__ import annotations

import base64
import json

import pytest

from protocol import codec
from protocol.device import DeviceDocument
from protocol.topics import Topics
from tests.bench import rollout
from tests.bench.report import Row
from tests.bench.rollout_fanout import MODEL, named, size, stage
from tests.bench.trusting.publications import FLEET


def test_a_stage_advance_is_the_same_four_messages_for_any_fleet(tmp_path):
    few, many = (stage(tmp_path / str(count), count) for count in (5, 60))
    topics = Topics(FLEET)
    changed = {topics.plan(MODEL), *map(topics.tuf, ("rollouts", "snapshot", "timestamp"))}
    assert set(few.advance) == set(many.advance) == changed
    assert size(many.advance) <= 1.05 * size(few.advance)
    # They are changes of what lies there already.
    assert all(many.before[topic] != data for topic, data in many.advance.items())


def test_the_peer_tells_each_device_its_version(tmp_path):
    made = stage(tmp_path, 5)
    assert set(made.documents) == {Topics(FLEET).document(name) for name in named(5)}
    for topic, data in made.documents.items():
        payload = base64.b64decode(json.loads(data)["payload"])
        document = codec.decode_signed(payload, DeviceDocument, limit=codec.MAX_DEVICE_DOCUMENT)
        assert Topics(FLEET).document(document.device) == topic
        assert set(document.pins) == {MODEL}


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--parts", "ticker", "--sizes", "10,20", "--rounds", "3"], [("ticker", (10, 20), 3)]),
        (["--parts", "gates,fanout", "--quick"], [("fanout", 500), ("gates", None, True)]),
        (["--parts", "gates", "--repeats", "10=2,30=1"], [("gates", {10: 2, 30: 1}, False)]),
        ([], [("fanout", 10_000), ("ticker", (1_000, 100_000, 1_000_000), 200),
              ("gates", None, False)]),
    ],
    ids=["one part", "two, quickly", "repeats", "everything"],
)  # fmt: skip
def test_parts_and_sizes_are_chosen_by_options(monkeypatch, arguments, expected):
    ran = []

    def part(name):
        def run(*given):
            ran.append((name, *given))
            return [Row(name, 1.0, "s")]

        return run

    published = []
    for name in rollout.PARTS:
        function = {"fanout": "fanout_rows", "ticker": "ticker_rows", "gates": "gate_rows"}[name]
        monkeypatch.setattr(rollout, function, part(name))

    def keep(name, rows):
        published.append((name, rows))
        return 0

    monkeypatch.setattr(rollout, "publish", keep)
    assert rollout.main(arguments) == 0
    assert ran == expected
    assert [row.what for row in published[0][1]] == [each[0] for each in expected]


def test_a_part_that_does_not_exist_is_refused(capsys):
    with pytest.raises(SystemExit):
        rollout.main(["--parts", "speed"])
    assert "no part named speed; there are fanout, ticker, gates" in capsys.readouterr().err
