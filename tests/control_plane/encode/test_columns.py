"""A column is numbers only where they would be written like that again."""

from __future__ import annotations

import mmap

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding import elements, forms
from control_plane.encode import columns
from control_plane.encode.columns import part, renamed
from control_plane.encode.segments import Segment, find
from tests.control_plane.encode.sure import column
from tests.fakes import onnx_files
from tests.fakes.onnx_files import attribute, inside, node, tensor, varint

FLOATS = onnx_files.some_floats(100, 1)


def segment(form, element=elements.U8, tag=0, start=0, end=100):
    return Segment(start, end, form, element, tag, ("T", "w"), ())


@given(st.binary(min_size=1, max_size=200), st.sampled_from(range(5)))
def test_whatever_is_read_is_written_the_same_again(data, form):
    element = {forms.STRINGS: elements.U8, forms.TAGGED: elements.F32}.get(form, elements.I64)
    read = column(data, segment(form, element, data[0] & 0x7F, 0, len(data)))
    again = forms.to_bytes(
        read.values, read.segment.form, read.element, read.segment.tag, read.names
    )
    assert again == data


def test_a_varint_that_is_longer_than_needed_makes_its_column_opaque():
    run = b"".join(b"\x40" + varint(value) for value in range(60))
    model = onnx_files.model([node("Op", "y", attribute("n", run + b"\x40\x81\x00"))])
    (found,) = find(model)
    read = column(model, found)
    assert (read.segment.form, read.segment.element) == (forms.BYTES, elements.U8)
    assert (read.start, read.end) == (found.start, found.end)
    assert read.values.tobytes() == model[found.start : found.end]


def test_more_strings_than_a_column_may_name_make_it_opaque():
    strings = [b"%d" % number for number in range(300)]
    run = b"".join(inside(9, each) for each in strings)
    model = onnx_files.model([node("Op", "y", attribute("s", run))])
    (found,) = find(model)
    assert column(model, found).segment.form == forms.BYTES


@pytest.mark.parametrize("start, end", [(50, 101), (-1, 20), (40, 40), (60, 20)])
def test_a_segment_outside_of_its_file_is_no_column(start, end):
    assert columns.column(bytes(100), segment(forms.BYTES, start=start, end=end)) is None


def test_columns_are_read_from_a_mapped_file_at_odd_places(tmp_path):
    for head in ("", "x", "xx", "xxx"):
        path = tmp_path / "model"
        path.write_bytes(onnx_files.weights(FLOATS, head=head))
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        (found,) = find(data)
        read = column(data, found)
        assert read.values.tobytes() == FLOATS.tobytes()
        del read
        data.close()


def test_a_part_of_a_column_lies_where_its_elements_do():
    single = b"".join(b"\x3d" + each.tobytes() for each in FLOATS)
    model = onnx_files.model(tensors=[tensor("w", 1, [100], inside(9, FLOATS.tobytes()))])
    (found,) = find(model)
    some = part(column(model, found), 10, 20)
    assert model[some.start : some.end] == FLOATS[10:20].tobytes()
    model = onnx_files.model([node("Op", "y", attribute("f", single))])
    (found,) = find(model)
    some = part(column(model, found), 10, 20)
    assert model[some.start : some.end] == single[50:100]
    assert some.values.tobytes() == FLOATS[10:20].tobytes()


def test_strings_keep_what_they_say_under_other_names():
    run = b"".join(inside(9, each) for each in (b"LEAF", b"BRANCH") * 20)
    model = onnx_files.model([node("Op", "y", attribute("s", run))])
    (found,) = find(model)
    read = renamed(column(model, found), (b"A", b"LEAF", b"BRANCH"))
    assert [read.names[place] for place in read.values[:2]] == [b"LEAF", b"BRANCH"]
    assert read.segment == found
    assert np.array_equal(np.unique(read.values), [1, 2])
