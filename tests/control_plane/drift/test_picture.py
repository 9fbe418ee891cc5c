import json
import re
from xml.etree import ElementTree

import pytest

from control_plane.cli.drawing import write_png
from control_plane.drift import explaining
from control_plane.drift.measuring import Point
from control_plane.drift.picture import (
    WIDTH,
    Compared,
    Line,
    Rect,
    Text,
    compared,
    lines,
    names_of_slots,
    shapes,
    svg,
)
from control_plane.drift.record import replay, sealed
from protocol.errors import InvalidRequest
from protocol.members import Feature
from tests.control_plane.drift.test_record import FOUND, a_split_cohort

WIDE = Compared("wide", (5,) * 67, (6,) * 67, "reference", (*map(str, range(66)), "NaN"))


@pytest.fixture(scope="module", params=FOUND)
def found(request):
    """`(record, replayed, profile)`."""
    record, _, rows, profile = FOUND[request.param]()
    record = json.loads(sealed(record, "alarm-17")[1])
    return record, replay(record, rows, profile), profile


def drawn(found):
    record, replayed, profile = found
    sides = compared(replayed.measured.shown, profile)
    return shapes(record, replayed.said, replayed.measured.course, sides)


def texts(sheet):
    return " ".join(each.text for each in sheet if isinstance(each, Text))


def test_a_picture_is_well_formed_and_names_what_it_shows(found):
    record, replayed, _ = found
    root = ElementTree.fromstring(svg(drawn(found), record["sentence"]))
    said = " ".join(each.text or "" for each in root.iter("{http://www.w3.org/2000/svg}text"))
    assert root.findtext("{http://www.w3.org/2000/svg}title") == record["sentence"]
    assert "alarm-17" in said
    assert "digits/v2" in said
    assert replayed.said in said
    assert "1 false alarm a year" in said
    for shown in replayed.measured.shown:
        assert shown.name in said
        assert shown.what in said


def test_what_is_named_is_never_markup(found):
    record, _, _ = found
    hostile = Compared('<script>"&', (1, 2), (3, 4), "<b>", ("<", ">"))
    sheet = shapes({**record, "sentence": "<i>", "subject": "&"}, "<u>", (), [hostile])
    ElementTree.fromstring(svg(sheet, "<title>"))


def test_everything_is_on_the_sheet(found):
    sheet, *rest = drawn(found)
    for each in rest:
        match each:
            case Rect(x, y, width, height):
                assert 0 <= x <= x + width <= WIDTH
                assert 0 <= y <= y + height <= sheet.height
            case Line(x, y, to_x, to_y):
                assert 0 <= min(x, to_x) <= max(x, to_x) <= WIDTH
                assert 0 <= min(y, to_y) <= max(y, to_y) <= sheet.height
            case Text(x, y):
                assert 0 <= x <= WIDTH
                assert 0 < y <= sheet.height


def test_the_threshold_is_a_line_that_evidence_is_above_or_below(found):
    sheet = drawn(found)
    (bar,) = [each for each in sheet if isinstance(each, Line) and each.style == "bar"]
    course = [each for each in sheet if isinstance(each, Line) and each.style == "course"]
    assert course[-1].to_y < bar.y


def test_bars_are_as_high_as_their_shares():
    record = FOUND["cohort"]()[0]
    side = Compared("x", (10, 30, 0), (50, 50, 0), "reference", ("a", "other", "missing"))
    sheet = shapes(record, "same", (), [side])
    one = [e for e in sheet if isinstance(e, Rect) and e.style == "one" and e.width != 9]
    other = [e for e in sheet if isinstance(e, Rect) and e.style == "other" and e.width != 9]
    assert [each.height / one[1].height for each in one] == pytest.approx([1 / 3, 1])
    assert [each.height / one[1].height for each in other] == pytest.approx([2 / 3, 2 / 3])


def test_a_p_of_zero_has_a_place():
    record = FOUND["peer"]()[0]
    sheet = shapes(record, "same", [Point(0, 0.0), Point(1, 1.0)], [])
    assert all(each.y >= 0 for each in sheet if isinstance(each, Line))


def test_slots_are_named_by_their_edges_or_words():
    number = Feature("x", (0.0, 1.5), (1, 2, 3, 4, 5))
    assert names_of_slots(number) == ("< 0", "0 to 1.5", "from 1.5", "inf", "NaN")
    words = Feature("city", (), (1, 2, 3), "words", ("Leeds",))
    assert names_of_slots(words) == ("Leeds", "other", "missing")


# --- a terminal ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ascii", [False, True])
def test_lines_fit_a_terminal(found, ascii):
    record, replayed, profile = found
    sides = [*compared(replayed.measured.shown, profile), WIDE]
    course = [Point(n, n / 9) for n in range(500)]
    told = lines(record, course, sides, 80, ascii=ascii)
    assert max(map(len, told)) <= 80
    assert told[1].startswith(sides[0].name)
    assert not ascii or "".join(told).isascii()


def test_the_numbers_of_an_alarm_are_said_in_words():
    said = {}
    for kind, make in FOUND.items():
        record, measured, _, _ = make()
        amounts = measured.windows, measured.devices, measured.rows
        said[kind] = [
            explaining.inputs(record, *amounts),
            next(explaining.statistic(record)),
            explaining.threshold(record),
            explaining.budget(record),
        ]
    assert said["peer"][0] == "3 slots of 1 h, 60 windows of 20 devices, 12,000 rows"
    assert re.fullmatch(
        r"temperature: p \de-\d+ \(chi-square \d+\.\d, scaled \d\.\d, \d\.\d df\), PSI \d\.\d\d",
        said["peer"][1],
    )
    assert said["peer"][2:] == [
        "p < 5.6e-05, in 3 of 3 slots",
        "1 false alarm a year: .25 for peers, over 3,000 streams",
    ]
    assert said["detector"][0] == "90 windows of 1 device, 4,500 rows"
    assert said["detector"][1].startswith("pressure: ln e ")
    assert said["detector"][2:] == [
        "ln e from 9.4 on",
        "1 false alarm a year: .5 for detectors, over 6,000 starts of detectors a year",
    ]
    assert said["cohort"][1].startswith("flow: p ")
    assert said["cohort"][2].endswith("over the day's 6 tests at q 0.00068; and PSI above .02")
    assert said["part"][1].startswith("temperature: p ")
    assert "(8 and 8 devices, " in said["part"][1]


def test_a_cohort_without_some_devices_says_so():
    record, *_ = a_split_cohort()
    record["query"]["left_out"] = ["north-cam-1"]
    assert explaining.inputs(record, 1, 1, 1).endswith("1 row, 1 left out")


# --- a file of pixels ----------------------------------------------------------------------------


def test_a_png_is_a_picture(found, tmp_path):
    from PIL import Image

    sheet = drawn(found)
    write_png(sheet, tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as image:
        assert image.format == "PNG"
        assert image.size == (2 * WIDTH, round(2 * sheet[0].height))
        assert len(image.getcolors(maxcolors=2**24) or ()) > 5


def test_without_pillow_a_png_says_what_to_write_instead(found, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(InvalidRequest, match="Pillow") as caught:
        write_png(drawn(found), tmp_path / "x.png")
    assert caught.value.code == "OUT-S120"
    assert "x.svg" in caught.value.do
    assert "outrider[plots]" in caught.value.do
