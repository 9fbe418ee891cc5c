"""Every way to be wrong with binary tensors, and that any bytes at all get an answer."""

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.runner.http11 import Request
from edge_agent.runner.oip import encode_response, inputs_of, parse_request
from edge_agent.runner.server import Application
from protocol.members import TensorSpec
from tests.fakes.serving import echo

INFER = "/v2/models/echo/infer"


@pytest.fixture(scope="module")
def application(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    return Application({"echo": echo(folder / "bundle", ("FP32", "BYTES", "BOOL"))}, "1")


def tensor(name: str, data: bytes | list[Any], **changes: Any) -> dict[str, Any]:
    said: dict[str, Any] = {"name": name, "datatype": name, "shape": [1, 2]}
    if isinstance(data, bytes):
        said["parameters"] = {"binary_data_size": len(data)}
    else:
        said["data"] = data
    return said | changes


FLOATS = struct.pack("<2f", 1, 2)
TEXTS = struct.pack("<I1sI2s", 1, b"a", 2, b"bc")
BOOLS = b"\x01\x00"
REST = (tensor("BYTES", ["a", "b"]), tensor("BOOL", [True, False]))


def ask(application, tail: bytes, *tensors: dict[str, Any], header: str | None = "", **more: Any):
    """(status, answer) for binary data behind the JSON part; `header` None sends none."""
    text = json.dumps({"inputs": tensors, **more}).encode()
    fields = {b"host": "localhost"}
    if header is not None:
        fields[b"inference-header-content-length"] = header or str(len(text))
    answer = application.answer(Request("POST", INFER, fields, True, text + tail), "loopback")
    end = dict(answer.fields).get(b"inference-header-content-length")
    return answer.status, json.loads(answer.body[: None if end is None else int(end)])


def test_binary_and_json_inputs_are_told_apart_by_their_sizes(application):
    status, answer = ask(
        application, FLOATS + TEXTS, tensor("FP32", FLOATS), tensor("BYTES", TEXTS), REST[1]
    )
    assert status == 200
    assert [output["data"] for output in answer["outputs"]] == [[1, 2], ["a", "bc"], [True, False]]


FP32 = tensor("FP32", FLOATS)
HUGE = 2**62


@pytest.mark.parametrize(
    "tail, tensors, header, error",
    [
        pytest.param(FLOATS, [FP32], None, "OUT-I106", id="no header"),
        pytest.param(b"", [FP32], None, "OUT-I106 'FP32' has binary data, but no", id="no tail"),
        pytest.param(FLOATS, [FP32], "1", "OUT-I106", id="header too small"),
        pytest.param(FLOATS, [FP32], "0", "OUT-I106", id="header of nothing"),
        pytest.param(FLOATS, [FP32], "99999", "OUT-I106 inference-header-content-l", id="too long"),
        pytest.param(FLOATS, [FP32], "9" * 400, "OUT-I106 inference-header", id="huge header"),
        pytest.param(FLOATS, [FP32], "-5", "OUT-I106 inference-header", id="negative header"),
        pytest.param(FLOATS, [FP32], "+5", "OUT-I106 inference-header", id="signed header"),
        pytest.param(FLOATS, [FP32], "1e2", "OUT-I106 inference-header", id="float header"),
        pytest.param(FLOATS, [FP32], "²", "OUT-I106 inference-header", id="digit of another kind"),
        pytest.param(FLOATS, [FP32], "5, 5", "OUT-I106 inference-header", id="two headers"),
        pytest.param(FLOATS + b"x", [FP32], "", "OUT-I106 1 bytes follow", id="trailing byte"),
        pytest.param(FLOATS * 2, [FP32], "", "OUT-I106 8 bytes follow", id="trailing tensor"),
        pytest.param(FLOATS[:-1], [FP32], "", "OUT-I106 'FP32' has 8 bytes", id="cut off"),
        pytest.param(b"", [FP32], "", "OUT-I106 'FP32' has 8 bytes", id="nothing behind"),
        pytest.param(b"x", [tensor("FP32", [1, 2])], "", "OUT-I106 1 bytes", id="unclaimed"),
        pytest.param(
            FLOATS,
            [tensor("FP32", FLOATS, parameters={"binary_data_size": -8})],
            "",
            "OUT-I106",
            id="negative size",
        ),
        pytest.param(
            FLOATS,
            [tensor("FP32", FLOATS, parameters={"binary_data_size": HUGE})],
            "",
            "OUT-I106 'FP32' has 4,611,686,018,427,387,904 bytes",
            id="huge size",
        ),
        pytest.param(
            FLOATS,
            [tensor("FP32", FLOATS, parameters={"binary_data_size": 10**40})],
            "",
            "OUT-I106",
            id="size beyond every integer",
        ),
        pytest.param(
            FLOATS,
            [tensor("FP32", FLOATS, parameters={"binary_data_size": "8"})],
            "",
            "OUT-I106",
            id="size as text",
        ),
        pytest.param(
            FLOATS,
            [tensor("FP32", FLOATS, parameters={"binary_data_size": True})],
            "",
            "OUT-I106",
            id="size as bool",
        ),
        pytest.param(
            FLOATS,
            [tensor("FP32", FLOATS, parameters={"binary_data_size": 7.5})],
            "",
            "OUT-I106",
            id="size as fraction",
        ),
        pytest.param(
            FLOATS, [tensor("FP32", FLOATS, parameters=[])], "", "OUT-I106", id="parameters a list"
        ),
        pytest.param(
            FLOATS, [FP32 | {"data": [1, 2]}], "", "OUT-I106 FP32 has data both", id="data twice"
        ),
        pytest.param(FLOATS[:4], [tensor("FP32", FLOATS[:4])], "", "OUT-I104 FP32 has 4", id="few"),
        pytest.param(
            FLOATS * 2, [tensor("FP32", FLOATS * 2)], "", "OUT-I104 FP32 has 16", id="many"
        ),
        pytest.param(b"", [tensor("FP32", b"")], "", "OUT-I104 FP32 has 0 bytes", id="none at all"),
        pytest.param(
            FLOATS,
            [FP32 | {"shape": [2**61, 2]}],
            "",
            "OUT-I102 BYTES has 1 rows",
            id="a shape that overflows",
        ),
        pytest.param(FLOATS, [FP32 | {"shape": [-1, 2]}], "", "OUT-I102", id="negative shape"),
        pytest.param(FLOATS, [FP32 | {"shape": [0, 2]}], "", "OUT-I102", id="empty shape"),
        pytest.param(FLOATS, [FP32 | {"shape": [2]}], "", "OUT-I102", id="flat shape"),
        pytest.param(FLOATS, [FP32 | {"datatype": "FP64"}], "", "OUT-I103", id="other datatype"),
        pytest.param(FLOATS, [FP32 | {"datatype": "BF16"}], "", "OUT-I103", id="unknown datatype"),
        pytest.param(FLOATS, [FP32 | {"name": "x"}], "", "OUT-I101", id="other name"),
        pytest.param(FLOATS * 2, [FP32, FP32], "", "OUT-I101 input FP32 comes more", id="twice"),
    ],
)
def test_a_wrong_size_or_header_is_refused(application, tail, tensors, header, error):
    status, answer = ask(application, tail, *tensors, *REST, header=header)
    assert status == 400
    assert answer["error"].startswith(error)


@pytest.mark.parametrize(
    "name, data, error",
    [
        pytest.param("BOOL", b"\x02\x00", "a BOOL is a byte 0 or 1", id="a bool of two"),
        pytest.param("BOOL", b"\x01", "BOOL has 1 bytes", id="half the bools"),
        pytest.param("BYTES", b"", "BYTES has 0 bytes, too few", id="no texts"),
        pytest.param("BYTES", TEXTS[:5], "BYTES has 5 bytes, too few", id="one text"),
        pytest.param("BYTES", TEXTS[:-1], "an element has 2 bytes, 1 are left", id="cut off"),
        pytest.param("BYTES", TEXTS + bytes(4), "BYTES has 3 values", id="three texts"),
        pytest.param("BYTES", TEXTS + b"\0", "its last length is cut off", id="half a length"),
        pytest.param("BYTES", b"\xff" * 4 + bytes(8), "an element has 4,294", id="4 GB"),
        pytest.param("BYTES", b"\1\0\0\0\xff" + bytes(4), "an element is not UTF", id="no text"),
    ],
)
def test_bytes_that_are_no_values_are_refused(application, name, data, error):
    inputs = {"FP32": tensor("FP32", [1, 2]), "BYTES": REST[0], "BOOL": REST[1]}
    inputs[name] = tensor(name, data)
    status, answer = ask(application, data, *inputs.values())
    assert (status, answer["error"][:9]) == (400, "OUT-I104 ")
    assert error in answer["error"]


def test_nothing_is_made_for_a_shape_that_lies(application):
    tensors = [
        tensor("FP32", FLOATS) | {"shape": [2**61, 2]},
        tensor("BYTES", TEXTS) | {"shape": [2**61, 2]},
        tensor("BOOL", BOOLS) | {"shape": [2**61, 2]},
    ]
    for first in (0, 1, 2):
        ordered = [*tensors[first:], *tensors[:first]]
        tail = b"".join({"FP32": FLOATS, "BYTES": TEXTS, "BOOL": BOOLS}[t["name"]] for t in ordered)
        status, answer = ask(application, tail, *ordered)
        assert (status, answer["error"][:8]) == (400, "OUT-I104")


@pytest.mark.parametrize(
    "more, error",
    [
        ({"parameters": {"binary_data_output": 1}}, "OUT-I106"),
        ({"outputs": [{"name": "FP32_out", "parameters": {"binary_data": "yes"}}]}, "OUT-I106"),
        ({"outputs": [{"name": "FP32_out", "parameters": {"classification": 3}}]}, "OUT-I106"),
        ({"outputs": [{"name": "x"}]}, "OUT-I101"),
    ],
)
def test_wishes_for_outputs_that_cannot_be_met_are_refused(application, more, error):
    status, answer = ask(application, FLOATS, FP32, *REST, **more)
    assert (status, answer["error"][:8]) == (400, error)


@pytest.mark.parametrize(
    "request_wish, output_wish, is_binary",
    [
        (None, None, False),
        (True, None, True),
        (False, None, False),
        (True, False, False),
        (False, True, True),
        (None, True, True),
    ],
)
def test_an_outputs_own_wish_counts_more_than_that_of_the_request(
    application, request_wish, output_wish, is_binary
):
    outputs = [{"name": "FP32_out", "parameters": {"binary_data": output_wish}}]
    parameters = {"binary_data_output": request_wish}
    status, answer = ask(application, FLOATS, FP32, *REST, outputs=outputs, parameters=parameters)
    (output,) = answer["outputs"]
    assert status == 200
    assert output.get("parameters") == ({"binary_data_size": 8} if is_binary else None)
    assert ("data" in output) != is_binary


def test_unknown_parameters_change_nothing(application):
    with_more = FP32 | {"parameters": {"binary_data_size": 8, "x": {"y": [1]}}}
    assert ask(application, FLOATS, with_more, *REST, parameters={"priority": 3})[0] == 200


def only(datatype: str, shape: list[int]) -> bytes:
    """The JSON part of a request with one input of 16 bytes."""
    said = {"name": "x", "datatype": datatype, "shape": shape}
    return json.dumps({"inputs": [said | {"parameters": {"binary_data_size": 16}}]}).encode()


@pytest.mark.parametrize("offset", range(8))
def test_tensors_may_begin_anywhere(offset):
    values = np.array([[1.5, -2.5]])
    text = only("FP64", [1, 2])
    body = text + b" " * offset + values.tobytes()
    array = inputs_of(parse_request(body, str(len(text) + offset)))["x"]
    assert array.flags.aligned
    np.testing.assert_array_equal(array, values)


def test_an_aligned_tensor_is_not_copied():
    text = only("FP32", [4])
    text += b" " * (-len(text) % 8)
    body = bytearray(text + np.arange(4, dtype=np.float32).tobytes())
    array = inputs_of(parse_request(body, str(len(text))))["x"]
    assert np.shares_memory(array, np.frombuffer(body, np.uint8))


KINDS = ("FP16", "INT32", "BYTES")


def test_an_answer_has_its_binary_outputs_in_their_order():
    specs = [TensorSpec(name, kind, (-1,)) for name, kind in zip("abc", KINDS, strict=True)]
    outputs: dict[str, Any] = {
        "c": np.array(["ö"], np.object_),
        "b": np.array([2], np.int32),
        "a": np.array([1], np.float16),
    }
    answer = encode_response("m", "v1", None, specs, outputs, frozenset({"a", "c"}))
    assert answer.json_bytes is not None
    document = json.loads(answer.body[: answer.json_bytes])
    assert [set(output) - {"name", "datatype", "shape"} for output in document["outputs"]] == [
        {"parameters"},
        {"data"},
        {"parameters"},
    ]
    assert answer.body[answer.json_bytes :] == b"\x00\x3c" + b"\x02\0\0\0" + "ö".encode()


KEYS = ["inputs", "outputs", "name", "datatype", "shape", "data", "parameters", "id"]
KEYS += ["binary_data", "binary_data_size", "binary_data_output", "classification"]
SEGMENTS = ["v2", "models", "echo", "versions", "v1", "ready", "infer", "%2F", "%", "..", ""]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["FP32", "BYTES", "BOOL", "FP32_out"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=5,
        )
    ),
    max_leaves=15,
)
TENSOR = st.builds(
    lambda name, shape, size, data: {
        key: value
        for key, value in {
            "name": name,
            "datatype": name,
            "shape": shape,
            "parameters": {"binary_data_size": size},
            "data": data,
        }.items()
        if value is not None
    },
    st.sampled_from(["FP32", "BYTES", "BOOL"]),
    st.just([1, 2]) | st.lists(st.integers(-2, 5), max_size=3),
    st.none() | st.integers(0, 20),
    st.none() | JSON,
)
BODIES = st.builds(
    lambda document, tail: (json.dumps(document).encode(), tail),
    JSON | st.fixed_dictionaries({"inputs": st.lists(TENSOR, max_size=4)}),
    st.binary(max_size=40),
) | st.tuples(st.binary(max_size=200), st.binary(max_size=20))


@settings(max_examples=150, deadline=None)
@given(BODIES, st.none() | st.just("right") | st.text(max_size=8), st.sampled_from([None, "gzip"]))
def test_any_bytes_get_an_answer_of_the_protocol(application, body, header, encoding):
    text, tail = body
    fields = {b"host": "localhost"}
    if header is not None:
        length = str(len(text)) if header == "right" else header
        fields[b"inference-header-content-length"] = length
    if encoding is not None:
        fields[b"content-encoding"] = encoding
    answer = application.answer(Request("POST", INFER, fields, True, text + tail), "loopback")
    assert 200 <= answer.status < 500
    if answer.status != 200:
        assert list(json.loads(answer.body)) == ["error"]
    assert len(answer.body) < 10_000


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["GET", "POST", "HEAD", "OPTIONS", "PUT", "TRACE"]),
    st.lists(st.sampled_from(SEGMENTS) | st.text(max_size=5), max_size=7),
    st.sampled_from(["", "?", "?a=b", "#", "//"]),
)
def test_any_path_gets_an_answer_of_the_protocol(application, method, parts, end):
    target = "/" + "/".join(parts) + end
    answer = application.answer(
        Request(method, target, {b"host": "localhost"}, True, b""), "loopback"
    )
    assert 200 <= answer.status < 500
    assert isinstance(json.loads(answer.body), dict)
