"""ONNX files in every shape that numbers have in them, and twins that differ in one way.

Written with `onnx` where it writes what a test needs, and field by field where it does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Numbers = NDArray[Any]

UNPACKED_FLOATS, UNPACKED_INTS, STRINGS = 0x3D, 0x40, 0x4A
"""Tags of AttributeProto.floats, ints and strings, as they are written."""


# Field by field ---------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def whole(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def inside(number: int, value: bytes) -> bytes:
    """A field of bytes: a string, a message, packed numbers."""
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(name: str, data_type: int, dims: Sequence[int], *data: bytes) -> bytes:
    """TensorProto, `data` being whole fields."""
    said = [whole(1, dim) for dim in dims] + [whole(2, data_type), inside(8, name.encode())]
    return b"".join([*said, *data])


def attribute(name: str, *data: bytes) -> bytes:
    return inside(1, name.encode()) + b"".join(data)


def node(operator: str, output: str, *attributes: bytes) -> bytes:
    fields = [inside(2, output.encode()), inside(4, operator.encode())]
    return b"".join([*fields, *(inside(5, each) for each in attributes)])


def graph(nodes: Sequence[bytes] = (), tensors: Sequence[bytes] = ()) -> bytes:
    return b"".join([*(inside(1, each) for each in nodes), *(inside(5, each) for each in tensors)])


def model(nodes: Sequence[bytes] = (), tensors: Sequence[bytes] = (), head: str = "") -> bytes:
    """ModelProto; `head` is its producer's name, which shifts whatever follows."""
    said = whole(1, 10) + inside(2, head.encode())
    return said + inside(7, graph(nodes, tensors)) + inside(8, whole(2, 17))


def weights(*arrays: Numbers, names: Sequence[str] = (), head: str = "") -> bytes:
    """A model of nothing but float32 tensors, in raw data."""
    named = names or [f"w{place}" for place in range(len(arrays))]
    tensors = [
        tensor(name, TensorProto.FLOAT, array.shape, inside(9, array.astype("<f4").tobytes()))
        for name, array in zip(named, arrays, strict=True)
    ]
    return model(tensors=tensors, head=head)


def some_floats(count: int, seed: int) -> Numbers:
    return np.random.default_rng(seed).standard_normal(count).astype("<f4")


def trained_on(array: Numbers, seed: int, share: float = 1e-3) -> Numbers:
    noise = np.random.default_rng(seed).standard_normal(array.shape)
    return (array * (1 + share * noise)).astype(array.dtype)


# Models that onnx writes ------------------------------------------------------------------------

_TYPES = ("<f4", "<f8", "<f2", "<i8", "<i4", "<i2", "<i1", "<u1", "<u2", "<u4", "<u8")


@st.composite
def tensors(draw: st.DrawFn) -> onnx.TensorProto:
    """Of any type, in raw data or in the field of its type."""
    dtype = draw(st.sampled_from(_TYPES))
    shape = draw(st.lists(st.integers(1, 12), max_size=3))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    array = np.frombuffer(rng.bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize), dtype)
    array = array.reshape(shape)
    name = draw(st.text("abc.:/", min_size=1, max_size=8))
    typed = dtype in ("<f4", "<f8", "<i8", "<i4", "<u8") and draw(st.booleans())
    made = numpy_helper.from_array(array, name)
    if typed:
        values = array.reshape(-1).tolist()
        made = helper.make_tensor(name, made.data_type, array.shape, values)
    return made


@st.composite
def nodes(draw: st.DrawFn, depth: int = 1) -> onnx.NodeProto:
    """With repeated attributes, tensors and subgraphs in attributes."""
    given: dict[str, Any] = {}
    if draw(st.booleans()):
        count = draw(st.integers(1, 40))
        given["floats"] = some_floats(count, count).tolist()
    if draw(st.booleans()):
        numbers = st.integers(-(1 << 63), (1 << 63) - 1)
        given["ints"] = draw(st.lists(numbers, min_size=1, max_size=60))
    if draw(st.booleans()):
        given["strings"] = draw(st.lists(st.sampled_from(["LEAF", "JJ", "", "J" * 74]), min_size=1))
    if draw(st.booleans()):
        given["value"] = draw(tensors())
    if depth and draw(st.booleans()):
        given["body"] = draw(graphs(depth - 1))
    return helper.make_node("Made", [], [draw(st.text("xyz", min_size=1, max_size=3))], **given)


@st.composite
def graphs(draw: st.DrawFn, depth: int = 1) -> onnx.GraphProto:
    made = st.lists(nodes(depth), max_size=3)
    initializers = draw(st.lists(tensors(), max_size=4))
    return helper.make_graph(draw(made), "g", [], [], initializers)


@st.composite
def models(draw: st.DrawFn) -> onnx.ModelProto:
    made = helper.make_model(draw(graphs()))
    if draw(st.booleans()):
        body = draw(st.lists(nodes(0), min_size=1, max_size=2))
        opset = [helper.make_opsetid("", 17)]
        made.functions.append(helper.make_function("own", "f", [], ["x"], body, opset))
    if draw(st.booleans()):
        values = numpy_helper.from_array(some_floats(40, 5), "sparse")
        indices = numpy_helper.from_array(np.arange(40, dtype="<i8"), "")
        sparse = helper.make_sparse_tensor(values, indices, [100])
        made.graph.sparse_initializer.append(sparse)
    return made


def external(location: str, ranges: Sequence[tuple[str, int, int]]) -> bytes:
    """A model whose float32 tensors (name, offset, length) lie in another file."""
    made = []
    for name, offset, length in ranges:
        each = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[length // 4])
        each.data_location = TensorProto.EXTERNAL
        said = {"location": location, "offset": str(offset), "length": str(length)}
        for key, value in said.items():
            each.external_data.add(key=key, value=value)
        made.append(each)
    whole_graph = helper.make_graph([], "g", [], [], made)
    written: bytes = helper.make_model(whole_graph).SerializeToString()
    return written


# Forests ----------------------------------------------------------------------------------------

Tree = tuple["Tree", "Tree"] | None
"""A branch with its true and its false child; None is a leaf."""


def some_tree(rng: np.random.Generator, depth: int) -> Tree:
    if depth == 0 or rng.random() < 0.15:
        return None
    return some_tree(rng, depth - 1), some_tree(rng, depth - 1)


def some_trees(count: int, seed: int, depth: int = 6) -> list[Tree]:
    """Trees of at least one branch."""
    rng = np.random.default_rng(seed)
    return [(some_tree(rng, depth), some_tree(rng, depth)) for _ in range(count)]


def walk(tree: Tree, breadth_first: bool = False) -> tuple[list[bool], list[int], list[int]]:
    """Leaf flags and ids of true and false children, node by node, the slow way."""
    order: list[Tree] = []
    children: list[tuple[int, int]] = []
    if breadth_first:
        order, at = [tree], 0
        while at < len(order):
            branch = order[at]
            children.append((len(order), len(order) + 1) if branch else (0, 0))
            order += branch or ()
            at += 1
    else:

        def visit(each: Tree) -> int:
            own = len(order)
            order.append(each)
            children.append((0, 0))
            if each:
                children[own] = visit(each[0]), visit(each[1])
            return own

        visit(tree)
    return [each is None for each in order], *map(list, zip(*children, strict=True))  # type: ignore[return-value]


def forest(
    trees: Sequence[Tree],
    seed: int = 0,
    *,
    classes: int = 2,
    features: int = 30,
    breadth_first: bool = False,
    first_tree: int = 0,
    output: str = "label",
    change: Mapping[str, tuple[int, object]] | None = None,
) -> bytes:
    """A TreeEnsembleClassifier, written by onnx. `change` sets one number of an attribute."""
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {
        name: []
        for name in (
            *("nodes_treeids", "nodes_nodeids", "nodes_featureids", "nodes_hitrates"),
            *("nodes_modes", "nodes_values", "nodes_truenodeids", "nodes_falsenodeids"),
            *("class_treeids", "class_nodeids", "class_ids", "class_weights"),
        )
    }
    for number, tree in enumerate(trees, first_tree):
        leaves, true, false = walk(tree, breadth_first)
        for place, leaf in enumerate(leaves):
            columns["nodes_treeids"].append(number)
            columns["nodes_nodeids"].append(place)
            columns["nodes_featureids"].append(0 if leaf else int(rng.integers(features)))
            columns["nodes_hitrates"].append(1.0)
            columns["nodes_modes"].append("LEAF" if leaf else "BRANCH_LEQ")
            columns["nodes_values"].append(0.0 if leaf else float(rng.integers(1, 400)) ** 0.5)
            columns["nodes_truenodeids"].append(true[place])
            columns["nodes_falsenodeids"].append(false[place])
            if leaf:
                columns["class_treeids"] += [number] * classes
                columns["class_nodeids"] += [place] * classes
                columns["class_ids"] += range(classes)
                columns["class_weights"] += rng.random(classes).astype("<f4").tolist()
    for name, (place, value) in (change or {}).items():
        columns[name][place] = value
    made = helper.make_node(
        "TreeEnsembleClassifier", ["x"], [output], domain="ai.onnx.ml", **columns
    )
    written: bytes = helper.make_model(
        helper.make_graph([made], "g", [], []),
        opset_imports=[helper.make_opsetid("ai.onnx.ml", 3)],
    ).SerializeToString()
    return written


def sklearn_forest(trees: int, seed: int = 0, rows: int = 200) -> bytes:
    """What skl2onnx writes for a random forest."""
    from skl2onnx import to_onnx
    from sklearn.ensemble import RandomForestClassifier

    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 6)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] * x[:, 2] > 0).astype(int) + (x[:, 3] > 1)
    fitted = RandomForestClassifier(trees, random_state=seed).fit(x, y)
    written: bytes = to_onnx(fitted, x[:1]).SerializeToString()
    return written
