"""The stock client of the protocol, unmodified, against the real server."""

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.fakes.serving import ELEMENTS, echo, serving

VALUES = {
    "BOOL": np.array([[True, False], [False, True]]),
    "UINT8": np.array([[0, 255], [1, 2]], np.uint8),
    "UINT16": np.array([[0, 65535], [1, 2]], np.uint16),
    "UINT32": np.array([[0, 2**32 - 1], [1, 2]], np.uint32),
    "UINT64": np.array([[0, 2**64 - 1], [1, 2]], np.uint64),
    "INT8": np.array([[-128, 127], [1, 2]], np.int8),
    "INT16": np.array([[-32768, 32767], [1, 2]], np.int16),
    "INT32": np.array([[-(2**31), 2**31 - 1], [1, 2]], np.int32),
    "INT64": np.array([[-(2**63), 2**63 - 1], [1, 2]], np.int64),
    "FP16": np.array([[0.1, -65504.0], [1, 2]], np.float16),
    "FP32": np.array([[0.1, -3.4e38], [1, 2]], np.float32),
    "FP64": np.array([[0.1, -1.7e308], [1, 2]], np.float64),
    "BYTES": np.array([["", "ö"], ["a\0b", "long" * 1000]], np.object_),
}
SPECIAL = np.array([[np.nan, np.inf], [-np.inf, -0.0]])


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    models = {
        name: echo(folder / name / "bundle", tuple(dict.fromkeys(("UINT8", name))))
        for name in ELEMENTS
    }
    with serving(models) as server:
        yield server.port


@pytest.fixture
def client(port):
    with triton.InferenceServerClient(f"localhost:{port}") as made:
        yield made


def given(values: dict[str, np.ndarray], *, binary: bool) -> list[triton.InferInput]:
    inputs = []
    for name, value in values.items():
        inputs.append(triton.InferInput(name, list(value.shape), name))
        inputs[-1].set_data_from_numpy(value, binary_data=binary)
    return inputs


def same(answered: np.ndarray | None, sent: np.ndarray) -> None:
    assert answered is not None
    if sent.dtype == np.object_:
        answered = np.array(
            [e.decode() if isinstance(e, bytes) else e for e in answered.ravel().tolist()], object
        ).reshape(answered.shape)
    assert answered.dtype == sent.dtype
    np.testing.assert_array_equal(answered, sent)


def test_it_finds_the_server_and_its_models(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("FP32")
    assert client.is_model_ready("FP32", "v1")
    assert not client.is_model_ready("FP32", "v2")
    assert not client.is_model_ready("other")
    server = client.get_server_metadata()
    assert (server["name"], server["extensions"]) == ("outrider", ["binary_tensor_data"])
    model = client.get_model_metadata("FP32", "v1")
    assert model["versions"] == ["v1"]
    assert model["inputs"][1] == {"name": "FP32", "datatype": "FP32", "shape": [-1, 2]}


@pytest.mark.parametrize("datatype", ELEMENTS)
@pytest.mark.parametrize("binary_in", [True, False], ids=["binary in", "JSON in"])
@pytest.mark.parametrize("binary_out", [True, False, None], ids=["binary", "JSON", "all"])
def test_every_datatype_goes_there_and_back(client, datatype, binary_in, binary_out):
    value = VALUES[datatype][:1]
    values = {"UINT8": np.ones((1, 2), np.uint8), datatype: value}
    wanted = (
        None
        if binary_out is None
        else [triton.InferRequestedOutput(f"{datatype}_out", binary_data=binary_out)]
    )
    result = client.infer(datatype, given(values, binary=binary_in), outputs=wanted, request_id="q")
    same(result.as_numpy(f"{datatype}_out"), value)
    answer = result.get_response()
    assert (answer["model_version"], answer["id"]) == ("v1", "q")
    is_binary = "parameters" in result.get_output(f"{datatype}_out")
    assert is_binary == (binary_out is not False)


def test_rows_of_text_of_any_length_keep_their_places(client):
    values = {"UINT8": np.ones((2, 2), np.uint8), "BYTES": VALUES["BYTES"]}
    result = client.infer("BYTES", given(values, binary=True))
    same(result.as_numpy("BYTES_out"), VALUES["BYTES"])


def test_json_and_binary_go_together(client):
    first = given({"UINT8": np.array([[7, 8]], np.uint8)}, binary=False)
    second = given({"FP64": np.array([[0.5, 0.25]])}, binary=True)
    outputs = [
        triton.InferRequestedOutput("UINT8_out", binary_data=True),
        triton.InferRequestedOutput("FP64_out", binary_data=False),
    ]
    result = client.infer("FP64", [*first, *second], outputs=outputs)
    same(result.as_numpy("UINT8_out"), np.array([[7, 8]], np.uint8))
    same(result.as_numpy("FP64_out"), np.array([[0.5, 0.25]]))


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
def test_binary_data_carry_what_json_cannot_say(client, datatype):
    value = SPECIAL.astype(VALUES[datatype].dtype)
    values = {"UINT8": np.ones((2, 2), np.uint8), datatype: value}
    answered = client.infer(datatype, given(values, binary=True)).as_numpy(f"{datatype}_out")
    assert answered.tobytes() == value.tobytes()


@pytest.mark.parametrize("name", ["gzip", "deflate"])
def test_compressed_requests_are_understood_and_answers_are_plain(client, name):
    values = {"UINT8": np.ones((1, 2), np.uint8), "FP32": VALUES["FP32"][:1]}
    for binary in (True, False):
        result = client.infer(
            "FP32",
            given(values, binary=binary),
            request_compression_algorithm=name,
            response_compression_algorithm=name,
        )
        same(result.as_numpy("FP32_out"), VALUES["FP32"][:1])


@pytest.mark.parametrize(
    "model, version, name, shape, value, status, message",
    [
        ("other", "", "FP32", [1, 2], VALUES["FP32"][:1], "404", "OUT-I107 no model is called"),
        ("FP32", "v7", "FP32", [1, 2], VALUES["FP32"][:1], "404", "OUT-I107 FP32/v7 does not run"),
        ("FP32", "", "FP64", [1, 2], VALUES["FP64"][:1], "400", "OUT-I101 no input is called FP64"),
        ("FP32", "", "FP32", [1, 3], np.ones((1, 3), np.float32), "400", "OUT-I102 FP32 has shape"),
    ],
)
def test_errors_reach_the_caller_in_our_words(
    client, model, version, name, shape, value, status, message
):
    inputs = given({"UINT8": np.ones((1, 2), np.uint8)}, binary=True)
    inputs.append(triton.InferInput(name, shape, name))
    inputs[-1].set_data_from_numpy(value)
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, inputs, version)
    assert caught.value.status() == status
    assert caught.value.message().startswith(message)


def test_extensions_that_are_not_there_are_refused_in_our_words(client):
    shared = triton.InferInput("UINT8", [1, 2], "UINT8")
    shared.set_shared_memory("region", 2)
    values = {"UINT8": np.ones((1, 2), np.uint8), "FP32": VALUES["FP32"][:1]}
    classified = [triton.InferRequestedOutput("FP32_out", class_count=3)]
    placed = [triton.InferRequestedOutput("FP32_out")]
    placed[0].set_shared_memory("region", 8)
    for inputs, outputs, message in (
        ([shared], None, "shared memory"),
        (given(values, binary=True), classified, "classification"),
        (given(values, binary=True), placed, "shared memory"),
    ):
        with pytest.raises(InferenceServerException, match=message) as caught:
            client.infer("FP32", inputs, outputs=outputs)
        assert caught.value.status() == "400"
    with pytest.raises(InferenceServerException, match="OUT-I111"):
        client.get_model_repository_index()
    with pytest.raises(InferenceServerException, match="OUT-I111"):
        client.get_system_shared_memory_status()


def test_requests_of_many_greenlets_are_all_answered(port):
    values = {"UINT8": np.ones((1, 2), np.uint8), "FP32": VALUES["FP32"][:1]}
    with triton.InferenceServerClient(f"localhost:{port}", concurrency=4) as client:
        asked = [client.async_infer("FP32", given(values, binary=True)) for _ in range(50)]
        for each in asked:
            same(each.get_result().as_numpy("FP32_out"), VALUES["FP32"][:1])
