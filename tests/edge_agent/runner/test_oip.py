import json

import numpy as np
import pytest

from edge_agent.runner.oip import (
    encode_error,
    encode_metadata,
    encode_response,
    inputs_of,
    parse_request,
)
from protocol.errors import InvalidRequest
from protocol.members import Contract, TensorSpec


def tensor(datatype: str, shape: list[int], data: str) -> bytes:
    return b'{"inputs":[{"name":"x","datatype":"%s","shape":%s,"data":%s}]}' % (
        datatype.encode(),
        json.dumps(shape).encode(),
        data.encode(),
    )


def decoded(body: bytes):
    return inputs_of(parse_request(body))["x"]


@pytest.mark.parametrize(
    "datatype, shape, data, expected",
    [
        pytest.param("FP32", [1, 2], "[1.5, 2]", np.array([[1.5, 2]], np.float32), id="flat"),
        pytest.param(
            "FP32", [2, 2], "[[1,2],[3,4]]", np.array([[1, 2], [3, 4]], np.float32), id="nested"
        ),
        pytest.param("FP64", [1], "[1e300]", np.array([1e300]), id="double"),
        pytest.param("INT64", [1], "[9223372036854775807]", np.array([2**63 - 1]), id="int64"),
        pytest.param(
            "UINT64", [1], "[18446744073709551615]", np.array([2**64 - 1], np.uint64), id="uint64"
        ),
        pytest.param("INT8", [2], "[-128, 127]", np.array([-128, 127], np.int8), id="int8"),
        pytest.param("BOOL", [2], "[true,false]", np.array([True, False]), id="bool"),
        pytest.param("BYTES", [1], '["ö"]', np.array(["ö"], object), id="text"),
        pytest.param("FP32", [], "[7]", np.array(7, np.float32), id="scalar"),
    ],
)
def test_json_becomes_an_array_of_its_datatype(datatype, shape, data, expected):
    array = decoded(tensor(datatype, shape, data))
    assert array.dtype == expected.dtype
    np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize(
    "datatype, shape, data",
    [
        pytest.param("FP32", [1, 2], "[1]", id="too few"),
        pytest.param("FP32", [1, 2], "[1,2,3]", id="too many"),
        pytest.param("FP32", [2, 2], "[[1,2],[3]]", id="ragged"),
        pytest.param("FP32", [2, 3], "[[1,2],[3,4],[5,6]]", id="nested the other way"),
        pytest.param("FP32", [1, 2], "[[[1,2]]]", id="too deep"),
        pytest.param("FP32", [1], "[1e39]", id="beyond float32"),
        pytest.param("FP16", [1], "[1e6]", id="beyond float16"),
        pytest.param("FP64", [1], "[1e999]", id="beyond float64"),
        pytest.param("FP32", [1], "[null]", id="null"),
        pytest.param("FP32", [1], '["1"]', id="text for a number"),
        pytest.param("FP32", [1], "[true]", id="bool for a number"),
        pytest.param("INT64", [1], "[1.5]", id="fraction for an integer"),
        pytest.param("UINT8", [1], "[256]", id="beyond uint8"),
        pytest.param("UINT8", [1], "[-1]", id="negative for unsigned"),
        pytest.param("INT64", [1], "[99999999999999999999999]", id="beyond int64"),
        pytest.param("BOOL", [1], "[1]", id="number for a bool"),
        pytest.param("BYTES", [1], "[1]", id="number for text"),
        pytest.param("FP32", [1], "5", id="not a list"),
        pytest.param("FP32", [1], "{}", id="an object"),
        pytest.param("FP32", [1], "[NaN]", id="NaN"),
        pytest.param("FP32", [1], "[1, -Infinity]", id="infinity"),
    ],
)
def test_values_that_do_not_fit_are_refused_as_data(datatype, shape, data):
    with pytest.raises(InvalidRequest) as caught:
        decoded(tensor(datatype, shape, data))
    assert caught.value.code == "OUT-I104"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x00\xff\xfe", id="noise"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"{}", id="no inputs"),
        pytest.param(b'{"inputs":3}', id="inputs a number"),
        pytest.param(b'{"inputs":[{"name":"x"}]}', id="half a tensor"),
        pytest.param(b'{"inputs":' + b"[" * 200_000, id="deep"),
        pytest.param(b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", id="deep and unknown"),
        pytest.param(
            b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1.5],"data":[1]}]}',
            id="fractional shape",
        ),
        pytest.param(
            b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1%s],"data":[1]}]}' % (b"0" * 50),
            id="huge shape",
        ),
        pytest.param(b'{"inputs":[' + b'{"name":"x"},' * 100 + b"{}]}", id="many tensors"),
        pytest.param(b'{"inputs":[],"id":"%s"}' % (b"x" * 300), id="long id"),
    ],
)
def test_what_is_not_a_request_is_malformed(body):
    with pytest.raises(InvalidRequest) as caught:
        parse_request(body)
    assert caught.value.code == "OUT-I106"


def test_deep_data_are_never_followed_deeper_than_the_shape():
    body = tensor("FP32", [1, 1], "[" * 900 + "1" + "]" * 900)
    with pytest.raises(InvalidRequest) as caught:
        decoded(body)
    assert caught.value.code == "OUT-I104"


def test_an_answer_carries_the_callers_id_and_null_for_what_json_cannot_say():
    spec = TensorSpec("scores", "FP32", (-1, 2))
    scores = np.array([[0.5, np.nan]], np.float32)
    body = encode_response("toy", "v1", "q-1", (spec,), {"scores": scores})
    assert body.json_bytes is None
    assert json.loads(body.body) == {
        "model_name": "toy",
        "model_version": "v1",
        "id": "q-1",
        "outputs": [{"name": "scores", "datatype": "FP32", "shape": [1, 2], "data": [0.5, None]}],
    }


def test_metadata_are_those_of_the_protocol():
    contract = Contract((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "INT64", (-1,)),))
    assert json.loads(encode_metadata("toy", "v1", contract)) == {
        "name": "toy",
        "versions": ["v1"],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "y", "datatype": "INT64", "shape": [-1]}],
    }


def test_an_error_is_its_code_and_its_reason():
    error = InvalidRequest("OUT-I102", "pixels has shape [1,63], wanted [-1,64]")
    assert json.loads(encode_error(error)) == {
        "error": "OUT-I102 pixels has shape [1,63], wanted [-1,64]"
    }
