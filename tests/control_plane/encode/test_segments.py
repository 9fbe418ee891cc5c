"""The numbers of an ONNX file are found where they lie, however they are written."""

from __future__ import annotations

import struct
from itertools import pairwise

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from coding import elements, forms
from control_plane.encode.segments import LEAST, TENSOR_ELEMENTS, find, find_external
from tests.control_plane.encode.sure import column
from tests.fakes import onnx_files
from tests.fakes.onnx_files import attribute, inside, node, tensor, varint

FLOATS = onnx_files.some_floats(50, 1)


def only(model):
    (segment,) = find(model)
    return segment, column(model, segment)


def tensors_of(model):
    """All that onnx finds, with the key that a search is expected to give."""

    def of_graph(graph):
        for each in graph.initializer:
            yield ("T", each.name), each
        for each in graph.sparse_initializer:
            yield ("T", each.values.name), each.values
            yield ("T", each.indices.name, "indices"), each.indices
        for each in graph.node:
            yield from of_node(each, ("N",))

    def of_node(each, prefix):
        for said in each.attribute:
            key = (*prefix, each.op_type, each.output[0], said.name)
            if said.type == onnx.AttributeProto.TENSOR:
                yield key, said.t
            elif said.type == onnx.AttributeProto.GRAPH:
                yield from of_graph(said.g)

    yield from of_graph(model.graph)
    for function in model.functions:
        for each in function.node:
            yield from of_node(each, ("F", function.name))


def runs_of(model):
    def of_nodes(nodes, prefix):
        for each in nodes:
            for said in each.attribute:
                key = (*prefix, each.op_type, each.output[0], said.name)
                yield key, said
                if said.type == onnx.AttributeProto.GRAPH:
                    yield from of_nodes(said.g.node, ("N",))

    yield from of_nodes(model.graph.node, ("N",))
    for function in model.functions:
        yield from of_nodes(function.node, ("F", function.name))


def expected(model):
    """`(key, bytes of the values)` of every column of 64 bytes, as onnx reads them."""
    for key, each in tensors_of(model):
        raw = numpy_helper.to_array(each).tobytes()
        if each.raw_data:
            written = len(each.raw_data)
        elif each.float_data or each.double_data:
            written = len(raw)
        else:
            packed = [*each.int32_data, *each.int64_data, *each.uint64_data]
            written = sum(len(varint(value)) for value in packed)
            raw = np.array([value & (1 << 64) - 1 for value in packed], "<u8").tobytes()
        if written >= LEAST:
            yield key, raw
    for key, said in runs_of(model):
        if len(said.floats) * 5 >= LEAST:
            yield key, np.array(said.floats, "<f4").tobytes()
        if sum(1 + len(varint(value)) for value in said.ints) >= LEAST:
            yield key, np.array(said.ints, "<i8").tobytes()
        if sum(2 + len(value) for value in said.strings) >= LEAST:
            yield key, b"".join(said.strings)


def values_of(model, segment):
    read = column(model, segment)
    if segment.form == forms.STRINGS:
        return b"".join(read.names[place] for place in read.values)
    return read.values.tobytes()


@settings(max_examples=60)
@given(onnx_files.models())
def test_the_scanner_finds_what_onnx_finds(made):
    data = made.SerializeToString()
    found = [(segment.key, values_of(data, segment)) for segment in find(data)]
    assert sorted(found) == sorted(expected(made))


@settings(max_examples=40)
@given(onnx_files.models(), st.data())
def test_segments_are_sorted_disjoint_and_inside_of_the_file(made, data):
    """Also where it is cut short, or a byte of it is wrong."""
    written = bytearray(made.SerializeToString())
    written[data.draw(st.integers(0, len(written) - 1))] = data.draw(st.integers(0, 255))
    part = bytes(written[: data.draw(st.integers(0, len(written)))])
    segments = find(part)
    assert all(each.start >= 0 and each.end - each.start >= LEAST for each in segments)
    assert all(one.end <= other.start for one, other in pairwise(segments))
    assert not segments or segments[-1].end <= len(part)
    for each in segments:
        read = column(part, each)
        assert forms.to_bytes(
            read.values, read.segment.form, read.element, read.segment.tag, read.names
        ) == bytes(part[each.start : each.end])


@given(st.binary(max_size=500))
def test_garbage_gives_no_segments_and_no_error(data):
    assert find(data) == ()
    assert find_external(data) == {}


def test_a_field_that_claims_to_be_longer_than_its_message_ends_the_search_there():
    good = tensor("good", 1, [50], inside(9, FLOATS.tobytes()))
    bad = b"\x0a\x04aaaa\x4a\xff\xff\x03" + bytes(300)
    model = inside(7, inside(5, good) + inside(5, bad) + inside(5, good))
    assert [segment.key for segment in find(model)] == [("T", "good"), ("T", "good")]
    cut = onnx_files.weights(FLOATS, FLOATS)
    assert find(cut[: len(cut) - 40]) == ()


def test_attribute_floats_and_ints_are_found_unpacked_as_they_are_written_and_packed_as_well():
    unpacked = b"".join(b"\x3d" + struct.pack("<f", value) for value in FLOATS)
    segment, read = only(onnx_files.model([node("Op", "y", attribute("many", unpacked))]))
    assert (segment.form, segment.tag) == (forms.TAGGED, 0x3D)
    assert segment.key == ("N", "Op", "y", "many")
    assert read.values.tobytes() == FLOATS.tobytes()
    packed = inside(7, FLOATS.tobytes())
    segment, read = only(onnx_files.model([node("Op", "y", attribute("many", packed))]))
    assert (segment.form, segment.element) == (forms.BYTES, elements.F32)
    assert read.values.tobytes() == FLOATS.tobytes()

    numbers = [0, 1, 127, 128, -1, 1 << 40] * 9
    unpacked = b"".join(b"\x40" + varint(value) for value in numbers)
    segment, read = only(onnx_files.model([node("Op", "y", attribute("many", unpacked))]))
    assert (segment.form, segment.tag) == (forms.TAGGED_VARINT, 0x40)
    assert read.values.view("<i8").tolist() == numbers
    packed = inside(8, b"".join(map(varint, numbers)))
    segment, read = only(onnx_files.model([node("Op", "y", attribute("many", packed))]))
    assert segment.form == forms.VARINT
    assert read.values.view("<i8").tolist() == numbers


@pytest.mark.parametrize(
    "number, tag, data_type, dtype", [(4, 0x25, 1, "<f4"), (10, 0x51, 11, "<f8")]
)
def test_typed_floats_of_tensors_are_found_packed_and_unpacked(number, tag, data_type, dtype):
    values = FLOATS.astype(dtype)
    packed = tensor("w", data_type, [50], inside(number, values.tobytes()))
    single = b"".join(bytes([tag]) + each.tobytes() for each in values)
    for data, form in ((packed, forms.BYTES), (tensor("w", data_type, [50], single), forms.TAGGED)):
        segment, read = only(onnx_files.model(tensors=[data]))
        assert (segment.form, segment.key, segment.shape) == (form, ("T", "w"), (50,))
        assert read.values.tobytes() == values.tobytes()


@pytest.mark.parametrize("number", [5, 7, 11])
def test_typed_integers_of_tensors_are_found_packed_and_unpacked(number):
    values = [5, 300, 70_000] * 20
    packed = tensor("w", 7, [60], inside(number, b"".join(map(varint, values))))
    single = b"".join(varint(number << 3) + varint(value) for value in values)
    for data in (packed, tensor("w", 7, [60], single)):
        _, read = only(onnx_files.model(tensors=[data]))
        assert read.values.tolist() == values


@pytest.mark.parametrize("data_type", sorted(TENSOR_ELEMENTS))
def test_raw_data_has_the_element_of_its_type(data_type):
    segment, _ = only(onnx_files.model(tensors=[tensor("w", data_type, [], inside(9, bytes(96)))]))
    assert segment.element == TENSOR_ELEMENTS[data_type]


@pytest.mark.parametrize("data_type", [0, TensorProto.STRING, TensorProto.INT4, 99])
def test_raw_data_of_another_type_is_opaque(data_type):
    segment, _ = only(onnx_files.model(tensors=[tensor("w", data_type, [], inside(9, bytes(96)))]))
    assert segment.element == elements.U8


def test_raw_data_that_is_not_whole_elements_is_opaque():
    segment, read = only(onnx_files.model(tensors=[tensor("w", 1, [], inside(9, bytes(99)))]))
    assert segment.element == elements.U8
    assert len(read.values) == 99


def test_graphs_in_graphs_are_searched_only_so_deep():
    inner = onnx_files.graph(tensors=[tensor("w", 1, [50], inside(9, FLOATS.tobytes()))])
    for _ in range(32):
        inner = onnx_files.graph([node("If", "y", attribute("then", inside(6, inner)))])
    assert [segment.key for segment in find(inside(7, inner))] == [("T", "w")]
    deeper = onnx_files.graph([node("If", "y", attribute("then", inside(6, inner)))])
    assert find(inside(7, deeper)) == ()


def test_external_tensors_are_ranges_of_their_files():
    ranges = [("b", 4096, 400), ("a", 0, 400), ("tiny", 400, 8)]
    found = find_external(onnx_files.external("weights.bin", ranges))
    (segments,) = found.values()
    assert list(found) == ["weights.bin"]
    assert [(each.key, each.start, each.end) for each in segments] == [
        (("T", "a"), 0, 400),
        (("T", "b"), 4096, 4496),
    ]
    assert {each.element for each in segments} == {elements.F32}
    assert find(onnx_files.external("weights.bin", ranges)) == ()


def test_external_tensors_that_overlap_are_one_range():
    found = find_external(onnx_files.external("w", [("a", 0, 400), ("tied", 0, 400)]))
    assert [each.key for each in found["w"]] == [("T", "a")]


@pytest.mark.parametrize("offset", ["-4", "1e3", "9" * 20, "", "٣"])
def test_external_tensors_without_a_place_are_left_out(offset):
    said = [inside(13, inside(1, b"location") + inside(2, b"w"))]
    said.append(inside(13, inside(1, b"offset") + inside(2, offset.encode())))
    assert find_external(onnx_files.model(tensors=[tensor("a", 1, [50], *said)])) == {}


def test_an_external_tensor_without_a_length_has_that_of_its_shape():
    said = inside(13, inside(1, b"location") + inside(2, b"w"))
    found = find_external(onnx_files.model(tensors=[tensor("a", 1, [5, 10], said)]))
    assert [(each.start, each.end) for each in found["w"]] == [(0, 200)]
    huge = tensor("a", 1, [(1 << 63) - 1] * 2000, said)
    assert [each.end for each in find_external(onnx_files.model(tensors=[huge]))["w"]] == [1 << 63]
