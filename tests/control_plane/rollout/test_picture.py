"""Pictures of records: well-formed, readable in light and dark, and the same in a terminal."""

from __future__ import annotations

import dataclasses
from xml.etree import ElementTree

import pytest

from control_plane.rollout import record as records
from control_plane.rollout.gate import judge
from control_plane.rollout.phase import Counts
from control_plane.rollout.picture import MOST_SERIES, lines, svg
from control_plane.rollout.spec import read_spec
from tests.control_plane.rollout.bets import CONFIDENCE, ERRORS, HOUR, LATENCY, compared, evidence

SPEC = read_spec({"version": "digits/v2", "waves": ["30", "100%"]})
XML = "{http://www.w3.org/2000/svg}"


def recorded(found, rollout="digits-7"):
    judgement = judge(SPEC, found, 1, now_ms=30 * HOUR, soak_ms=HOUR)
    return records.record(judgement, {"rollout": rollout})


SLOW = recorded(
    evidence(
        Counts(healthy=30),
        *(compared(LATENCY, 10, 90, LATENCY.margin + 0.1, hour=500 + n) for n in range(3)),
        watched=[CONFIDENCE, ERRORS, LATENCY],
        eligible=(30, 270),
    )
)
NOTHING = recorded(evidence(Counts(targeted=30)))


@pytest.mark.parametrize("record", [SLOW, NOTHING], ids=["scores", "nothing"])
def test_a_picture_is_a_document_of_its_own(record):
    picture = svg(record)
    root = ElementTree.fromstring(picture)
    assert root.tag == f"{XML}svg"
    assert "prefers-color-scheme:dark" in picture
    assert "http" not in picture.replace("http://www.w3.org/2000/svg", "")
    assert "<script" not in picture
    assert root.findtext(f"{XML}title") == record["sentence"]


def test_a_picture_shows_slots_of_both_sides_and_evidence_against_its_threshold():
    root = ElementTree.fromstring(svg(SLOW))
    bars = [each.get("class") for each in root.iter(f"{XML}rect")]
    assert bars.count("new") == sum(number > 0 for number in slow_row()["a"])
    assert bars.count("old") == sum(number > 0 for number in slow_row()["b"])
    (course,) = root.iter(f"{XML}polyline")
    assert len(course.get("points", "").split()) == 3
    thresholds = [each for each in root.iter(f"{XML}line") if each.get("class") == "bar"]
    assert len(thresholds) == 1
    words = " ".join(words_in(root))
    for said in ("latency after 1 d", "30 new", "270 old", "fails from 5.5"):
        assert said in words


def words_in(root):
    return [each.text or "" for each in root.iter(f"{XML}text")]


def slow_row():
    return next(row for row in SLOW["figures"]["scores"] if row["metric"] == "latency")


def test_what_is_drawn_stays_inside():
    root = ElementTree.fromstring(svg(SLOW))
    height = float(root.get("height", 0))
    for each in root.iter(f"{XML}rect"):
        top = float(each.get("y", 0))
        assert top >= 0
        assert top + float(each.get("height", 0)) <= height


def test_names_that_look_like_markup_are_text():
    record = {**SLOW, "rollout": "<script>&", "sentence": '"><b>'}
    root = ElementTree.fromstring(svg(record))
    assert any(words.startswith("<script>&") for words in words_in(root))


def test_lines_show_the_same_with_blocks():
    found = lines(SLOW, 80)
    assert found[0] == "latency after 1 d"
    assert found[1].endswith("30 devices, better to worse")
    assert "█" in found[1]
    assert found[2].endswith(" 270")
    assert found[3].startswith("  ln M ")
    assert found[3].endswith("█")
    assert found[4].startswith("  guard, worse: ln M")
    assert found[-1] == "  watch, no data"


def test_lines_without_blocks_are_ascii():
    found = "\n".join(lines(SLOW, 80, ascii=True))
    assert found.isascii()
    assert "@" in found


@pytest.mark.parametrize("width", [12, 40, 80, 200])
def test_lines_fit_the_width(width):
    assert all(len(line) <= width for line in lines(SLOW, width))


def test_a_long_course_is_drawn_in_as_many_characters_as_there_are():
    many = [compared(LATENCY, 1, 9, 0.0, hour=500 + n) for n in range(200)]
    record = recorded(evidence(Counts(healthy=200), *many, watched=[LATENCY], eligible=(200, 1800)))
    course = next(line for line in lines(record, 50) if line.startswith("  ln M"))
    assert len(course) <= 50


def test_many_series_are_counted_and_the_worst_come_first():
    parts = [
        dataclasses.replace(LATENCY, key=f"class_mix.{n}+/86400", metric="class_mix", part=n)
        for n in range(MOST_SERIES + 5)
    ]
    bad = compared(parts[-1], 30, 270, 1.0)
    record = recorded(evidence(Counts(healthy=30), bad, watched=parts, eligible=(30, 270)))
    found = lines(record, 80)
    assert found[0] == f"share of class {MOST_SERIES + 4} upwards after 1 d"
    assert found[-1] == "and 5 more series"
    assert "and 5 more series" in svg(record)


def test_a_picture_says_the_whole_sentence():
    root = ElementTree.fromstring(svg(SLOW))
    assert SLOW["sentence"] in " ".join(words_in(root))
