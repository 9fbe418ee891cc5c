"""Whatever somebody does to the trail who can write the store: behind an anchor it shows."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.audit import (
    Anchor,
    Line,
    Record,
    exported,
    head_of,
    imported,
    line_of,
    split_head,
    verify,
)
from protocol.errors import PeerError


def trail(count, *, who="ana"):
    lines, previous = [], ""
    for number in range(1, count + 1):
        record = Record(
            number,
            1_795_000_000_000 + number,
            who,
            "device.pinned",
            "devices/cam-1",
            {"document": number},
            why="glare",
            previous=previous,
        )
        line = line_of(record)
        lines.append(line)
        previous = line.hash
    return lines


def heads(lines):
    return [head_of(number, line.hash) for number, line in enumerate(lines, start=1)]


def anchor(lines, number):
    return Anchor(heads(lines)[number - 1], "models/digits/v1")


def test_a_trail_that_nobody_touched_is_whole():
    lines = trail(5)
    found = verify(lines, [anchor(lines, 3)])
    assert found.problems == ()
    assert (found.records, found.head, found.anchored) == (5, heads(lines)[-1], 3)


def test_an_empty_trail_is_whole_as_long_as_nobody_signed_for_it():
    assert verify([]).problems == ()
    assert verify([], [anchor(trail(1), 1)]).problems


def edited(lines):
    text = lines[1].text.replace("glare", "blind")
    return [lines[0], Line(text, lines[1].hash), *lines[2:]]


def edited_with_its_hash(lines):
    text = lines[1].text.replace("glare", "blind")
    return [lines[0], Line(text, line_of_text(text)), *lines[2:]]


def line_of_text(text):
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


TOUCHED = {
    "edited": (edited, "record 2 was edited"),
    "edited, hash made again": (edited_with_its_hash, "record 3 does not follow"),
    "first removed": (lambda lines: lines[1:], "record 1 was removed"),
    "middle removed": (lambda lines: [*lines[:1], *lines[3:]], "records 2 to 3 were removed"),
    "two exchanged": (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], "stands behind"),
    "one repeated": (lambda lines: [*lines[:2], lines[1], *lines[2:]], "stands behind"),
    "shorter than signed": (lambda lines: lines[:3], "the trail ends at 3"),
    "unreadable": (lambda lines: [lines[0], Line("{}", ""), *lines[2:]], "record 2 cannot be read"),
    "written anew": (lambda lines: trail(5, who="bo"), "record 4 is not the one"),
    "nothing left": (lambda lines: [], "the trail ends at 0"),
}


@pytest.mark.parametrize("touch, said", TOUCHED.values(), ids=TOUCHED)
def test_what_was_done_to_a_trail_is_told(touch, said):
    lines = trail(5)
    problems = verify(touch(lines), [anchor(lines, 4)]).problems
    assert any(said in each for each in problems), problems


def test_behind_the_last_anchor_a_shorter_trail_cannot_be_told_from_an_early_one():
    lines = trail(5)
    assert verify(lines[:3], [anchor(lines, 3)]).problems == ()


def test_a_head_that_is_none_is_told():
    assert "names a head that is none" in verify(trail(1), [Anchor("7", "models/a/b")]).problems[0]


@given(
    st.integers(2, 8).flatmap(
        lambda n: st.tuples(st.just(n), st.permutations(range(n)), st.integers(0, n))
    )
)
def test_any_other_order_or_subset_of_records_before_an_anchor_is_found(case):
    count, order, kept = case
    lines = trail(count)
    touched = [lines[place] for place in order][:kept]
    whole = touched == lines
    assert (verify(touched, [anchor(lines, count)]).problems == ()) == whole


@given(st.data())
def test_any_edit_of_any_byte_is_found(data):
    lines = trail(3)
    place = data.draw(st.integers(0, 2))
    text = lines[place].text
    at = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.characters(codec="ascii").filter(lambda c: c != text[at]))
    changed = Line(text[:at] + letter + text[at + 1 :], lines[place].hash)
    touched = [*lines[:place], changed, *lines[place + 1 :]]
    assert verify(touched, [anchor(lines, 3)]).problems


def test_no_more_faults_are_listed_than_asked_for():
    lines = [dataclasses.replace(line, hash="0" * 64) for line in trail(50)]
    problems = verify(lines, most=5).problems
    assert len(problems) == 6
    assert problems[-1].endswith("more")


def test_an_exported_line_holds_the_very_bytes():
    for line in trail(3):
        assert imported(exported(line).rstrip(b"\n")) == line


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'{"hash":1,"record":{}}', b"\xff"])
def test_what_is_no_exported_line_is_refused(data):
    with pytest.raises(PeerError):
        imported(data)


@pytest.mark.parametrize("text", ["", "1", "0:" + "a" * 64, "1:" + "A" * 64, "1:" + "a" * 63])
def test_what_is_no_head_is_refused(text):
    with pytest.raises(ValueError):
        split_head(text)
