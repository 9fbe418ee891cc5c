"""What callers may send to a real runner, and what it makes of it."""

import http.client
import json
import socket
from pathlib import Path

import pytest

from edge_agent.runners import Load, Runners
from tests.fakes.bundles import make_bundle
from tests.fakes.callers import ROW, call, inference

INFER = "/v2/models/toy/infer"
MEBIBYTE = 1024 * 1024


@pytest.fixture
def port(runners, bundles):
    runners.promote(runners.start((bundles(fragile=True),)).id)
    return int(runners.port)


@pytest.fixture(scope="module")
def shared_port(tmp_path_factory):
    """A runner for requests that must leave it as they found it."""
    folder = tmp_path_factory.mktemp("shared")
    runners = Runners(folder / "run", port=0)
    runners.adopt()
    bundle = make_bundle(folder / "bundles", fragile=True)
    load = Load(bundle.model, bundle.digest, bundle.manifest, bundle.path)
    runner = runners.start((load,)).id
    runners.promote(runner)
    yield runners.port
    assert runners.deaths() == ()
    runners.kill(runner)
    runners.close()


def request(**changes) -> bytes:
    tensor = {"name": "pixels", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
    return json.dumps({"inputs": [tensor | changes]}).encode()


def test_the_paths_of_the_protocol_answer(shared_port):
    assert call(shared_port, "GET", "/v2")[1]["name"] == "outrider"
    assert call(shared_port, "GET", "/v2/health/live") == (200, {"live": True})
    assert call(shared_port, "GET", "/v2/health/ready") == (200, {"ready": True})
    assert call(shared_port, "GET", "/v2/models/toy/ready") == (200, {"name": "toy", "ready": True})
    assert call(shared_port, "GET", "/v2/models/toy/versions/v1/ready")[0] == 200
    status, model = call(shared_port, "GET", "/v2/models/toy/versions/v1")
    assert (status, model["name"], model["platform"]) == (200, "toy", "onnx_onnxv1")
    assert model["inputs"] == [{"name": "pixels", "datatype": "FP32", "shape": [-1, 4]}]
    assert call(shared_port, "POST", "/v2/models/toy/versions/v1/infer", inference(ROW))[0] == 200


def test_inference_needs_no_content_type(shared_port):
    connection = http.client.HTTPConnection("127.0.0.1", shared_port, timeout=20)
    connection.putrequest("POST", INFER)
    body = inference(ROW)
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    assert connection.getresponse().status == 200
    connection.close()


@pytest.mark.parametrize(
    "method, path, body, headers, status, error",
    [
        pytest.param(
            "POST",
            INFER,
            request(name="pixel"),
            {},
            400,
            "OUT-I101 no input is called pixel; wanted pixels",
            id="wrong name",
        ),
        pytest.param(
            "POST",
            INFER,
            request(datatype="FP64"),
            {},
            400,
            "OUT-I103 pixels has datatype FP64, wanted FP32",
            id="wrong datatype",
        ),
        pytest.param(
            "POST",
            INFER,
            request(shape=[1, 3], data=[1, 2, 3]),
            {},
            400,
            "OUT-I102 pixels has shape [1,3], wanted [-1,4]",
            id="wrong shape",
        ),
        pytest.param(
            "POST",
            INFER,
            request(data=[1, 2, 3]),
            {},
            400,
            "OUT-I104 pixels has 3 values, its shape [1,4] needs 4",
            id="too few data",
        ),
        pytest.param(
            "POST",
            INFER,
            request(data=[1, 2, 3, float("nan")]),
            {},
            400,
            "OUT-I104 NaN and infinity are not JSON: send them as binary data",
            id="NaN",
        ),
        pytest.param("POST", INFER, b"\x00\xffnonsense", {}, 400, "OUT-I106", id="garbage"),
        pytest.param("POST", INFER, b"", {}, 400, "OUT-I106", id="no body"),
        pytest.param("POST", INFER, b"[" * MEBIBYTE, {}, 400, "OUT-I106", id="deep JSON"),
        pytest.param(
            "POST",
            INFER,
            b'{"inputs":' + b'{"a":' * MEBIBYTE,
            {},
            400,
            "OUT-I106",
            id="deep objects",
        ),
        pytest.param(
            "POST",
            INFER,
            inference(ROW),
            {"Inference-Header-Content-Length": "10"},
            400,
            "OUT-I106",
            id="JSON that ends too early",
        ),
        pytest.param("GET", INFER, None, {}, 405, "OUT-I111", id="wrong method"),
        pytest.param("POST", "/v2", b"{}", {}, 405, "OUT-I111", id="wrong method on metadata"),
        pytest.param("DELETE", "/v2/models/toy", None, {}, 405, "OUT-I111", id="DELETE"),
        pytest.param("GET", "/", None, {}, 404, "OUT-I111 no such path", id="root"),
        pytest.param("GET", "/v2/models/toy/x", None, {}, 404, "OUT-I111", id="unknown path"),
        pytest.param("GET", "/v2/models/toy/versions", None, {}, 404, "OUT-I111", id="no version"),
        pytest.param("GET", "/../../etc/passwd", None, {}, 404, "OUT-I111", id="outside"),
        pytest.param("GET", "/v2/models/%FF%00", None, {}, 404, "OUT-I107", id="odd bytes"),
        pytest.param(
            "POST",
            "/v2/models/other/infer",
            b"{}",
            {},
            404,
            "OUT-I107 no model is called other",
            id="unknown model",
        ),
        pytest.param(
            "GET",
            "/v2/models/toy/versions/v9",
            None,
            {},
            404,
            "OUT-I107 toy/v9 does not run here, v1 does",
            id="unknown version",
        ),
        pytest.param(
            "POST",
            INFER,
            inference(ROW),
            {"Host": "evil.example:8500"},
            403,
            "OUT-I109 Host 'evil.example:8500' is not this machine",
            id="foreign host",
        ),
        pytest.param(
            "POST",
            INFER,
            inference(ROW),
            {"Host": "localhost.evil.example"},
            403,
            "OUT-I109",
            id="host that only begins well",
        ),
        pytest.param("GET", "/v2", None, {"Host": ""}, 403, "OUT-I109", id="empty host"),
        pytest.param("GET", "/v2", None, {"Host": "[::1"}, 403, "OUT-I109", id="broken host"),
        pytest.param(
            "POST",
            INFER,
            inference(ROW),
            {"Origin": "https://evil.example"},
            403,
            "OUT-I109",
            id="foreign origin",
        ),
        pytest.param("GET", "/v2", None, {"Origin": "null"}, 403, "OUT-I109", id="null origin"),
        pytest.param(
            "POST",
            INFER,
            request(data=[11, 2, 3, 4]),
            {},
            500,
            "OUT-I110 toy failed on this input",
            id="model fails",
        ),
    ],
)
def test_what_cannot_be_answered_is_refused_in_json(
    shared_port, method, path, body, headers, status, error
):
    seen, answer = call(shared_port, method, path, body, headers)
    assert seen == status
    assert list(answer) == ["error"]
    assert answer["error"].startswith(error)
    assert call(shared_port, "POST", INFER, inference(ROW))[0] == 200


@pytest.mark.parametrize("host", ["localhost:1234", "127.0.0.1", "127.8.8.8:80", "[::1]:80"])
def test_every_name_of_this_machine_is_welcome(shared_port, host):
    headers = {"Host": host, "Origin": f"http://{host}"}
    assert call(shared_port, "POST", INFER, inference(ROW), headers)[0] == 200


def test_refusals_are_the_callers_and_failures_the_models(runners, port):
    (view,) = runners.views()
    call(port, "POST", INFER, request(name="pixel"))
    call(port, "POST", INFER, request(data=[1, 2, 3, float("nan")]))
    call(port, "POST", INFER, request(data=[11, 2, 3, 4]))
    call(port, "POST", INFER, request(data=[2, 2, 3, 4]))
    call(port, "GET", "/v2/models/toy")
    call(port, "POST", "/v2/models/other/infer", b"{}")
    window = runners.peek(view.id)["toy"]
    assert (window.answers, window.errors, window.refused) == (1, 1, 2)


def test_an_answer_with_nan_is_given_and_counted(runners, bundles):
    runner = runners.start((bundles(scale=100.0),)).id
    runners.promote(runner)
    status, answer = call(runners.port, "POST", INFER, inference((3e38, -3e38, 3e38, -3e38)))
    assert status == 200
    assert None in answer["outputs"][1]["data"]
    assert runners.peek(runner)["toy"].nonfinite == 1


def peak_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


@pytest.mark.parametrize("chunked", [False, True], ids=["with length", "chunked"])
def test_a_body_of_100_mb_is_refused_and_never_held(runners, port, chunked):
    (view,) = runners.views()
    call(port, "POST", INFER, inference(ROW))
    before = peak_bytes(view.pid)
    block = b" " * MEBIBYTE
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {} if chunked else {"Content-Length": str(100 * MEBIBYTE)}
    connection.request("POST", INFER, (block for _ in range(100)), headers, encode_chunked=chunked)
    response = connection.getresponse()
    assert response.status == 413
    assert json.loads(response.read())["error"].startswith("OUT-I105 ")
    connection.close()
    assert peak_bytes(view.pid) - before < 40 * MEBIBYTE
    assert runners.peek(view.id)["toy"].refused == 1


def test_a_caller_that_hangs_up_in_the_middle_harms_nobody(runners, port):
    for sent in (b"POST ", b"POST /v2/models/toy/infer HTTP/1.1\r\nHost: localhost\r\n"):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(sent)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(
            b"POST /v2/models/toy/infer HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Length: 1000\r\n\r\n{"
        )
    assert call(port, "POST", INFER, inference(ROW))[0] == 200
    assert runners.deaths() == ()
