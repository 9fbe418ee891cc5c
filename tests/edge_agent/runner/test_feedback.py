"""True labels that come later: what is counted of them, and what is refused."""

from __future__ import annotations

import gzip
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.runner.blame import Notebook
from edge_agent.runner.feedback import MOST_ROWS, parse_feedback
from edge_agent.runner.served import Served
from edge_agent.runner.views import Load
from protocol.errors import Failed, InvalidRequest
from protocol.members import Policy
from protocol.reported import Answering
from protocol.rules import Rules
from tests.fakes.bundles import make_bundle
from tests.fakes.callers import ROW, call, inference
from tests.fakes.serving import serving


def body(**said: Any) -> bytes:
    return json.dumps({"labels": [1, 0], "predictions": [1, 1]} | said).encode()


@pytest.mark.parametrize(
    "label, prediction, same",
    [
        ("3", 3, True),
        (3.0, "3", True),
        (3, 3.0, True),
        (-0.0, 0, True),
        ("cat", "cat", True),
        (2.5, "2.5", True),
        (True, "True", True),
        ("cat", "Cat", False),
        ("3.0", 3, False),
        ("03", 3, False),
        (2**62, 2**62 + 1, False),
        ("", " ", False),
    ],
)
def test_a_number_and_its_text_are_one_label(label, prediction, same):
    for pair in ((label, prediction), (prediction, label)):
        found = parse_feedback(body(labels=[pair[0]], predictions=[pair[1]]))
        assert found.correct.tolist() == [same]
        assert (found.confidence, found.version) == (None, None)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_each_row_is_compared_with_its_own_label(pairs):
    found = parse_feedback(
        body(labels=[str(a) for a, _ in pairs], predictions=[float(b) for _, b in pairs])
    )
    assert found.correct.tolist() == [a == b for a, b in pairs]


def test_confidences_are_kept_where_they_are_known():
    found = parse_feedback(body(confidences=[0.5, None], model_version="v1", more="ignored"))
    assert found.confidence is not None
    assert found.confidence.dtype == np.float32
    assert (found.confidence[0], np.isnan(found.confidence[1])) == (0.5, True)
    assert found.version == "v1"


@pytest.mark.parametrize(
    "refused, why",
    [
        pytest.param(b"", "truncated", id="nothing"),
        pytest.param(b"\xff", "malformed", id="no JSON"),
        pytest.param(b'{"labels":' + b"[" * 100_000, "array", id="deep"),
        pytest.param(b'{"labels":[1]}', "predictions", id="no predictions"),
        pytest.param(body(labels=[], predictions=[]), "0 labels, wanted 1 to", id="none"),
        pytest.param(body(labels=[1]), "1 labels, 2 predictions", id="fewer labels"),
        pytest.param(body(confidences=[0.5]), "2 predictions, 1 confidences", id="fewer"),
        pytest.param(body(labels=[None, 1]), "null", id="no label"),
        pytest.param(body(labels=[[1], [1]]), "array", id="nested"),
        pytest.param(body(labels="10"), "Expected `array`", id="text"),
        pytest.param(body(confidences=[0.5, 1.01]), "from 0 to 1", id="too sure"),
        pytest.param(body(confidences=[0.5, -1e300]), "from 0 to 1", id="negative"),
        pytest.param(
            b'{"labels":[1,0],"predictions":[1,NaN]}', "OUT-I117", id="NaN, which is not JSON"
        ),
        pytest.param(
            body(labels=[1] * (MOST_ROWS + 1), predictions=[1] * (MOST_ROWS + 1)),
            "10,001 labels, wanted 1 to 10,000",
            id="many labels at once",
        ),
    ],
)
def test_what_is_no_feedback_is_refused(refused, why):
    with pytest.raises(InvalidRequest, match=why) as caught:
        parse_feedback(refused)
    assert caught.value.code == "OUT-I117"


@given(st.binary(max_size=80))
def test_bytes_are_feedback_or_refused(data):
    with suppress(InvalidRequest):
        assert len(parse_feedback(data).correct) > 0


# --- over HTTP ---

PATH = "/v2/models/toy/feedback"


def loaded(folder: Path, answering: Answering = "model", policy: Policy | None = None) -> Served:
    made = make_bundle(folder / "bundles", policy=policy)
    load = Load("toy", made.digest, made.manifest, made.path, answering=answering)
    notebook = Notebook(folder / "blame", [("toy", load.digest)])
    return Served(load, 0, notebook, lambda *_: None)


@pytest.fixture
def served(tmp_path):
    return loaded(tmp_path)


@pytest.fixture
def port(served):
    with serving({"toy": served}) as made:
        yield made.port


def test_labels_are_counted_and_the_answer_says_how_many(port, served):
    answer = {"model_name": "toy", "model_version": "v1", "counted": 2}
    said = body(confidences=[0.97, 0.97], model_version="v1")
    assert call(port, "POST", PATH, said) == (200, answer)
    versioned = "/v2/models/toy/versions/v1/feedback"
    packed = {"Content-Encoding": "gzip"}
    assert call(port, "POST", versioned, gzip.compress(body()), packed) == (200, answer)
    found = served.tally.peek()
    assert (found.labelled, found.correct, found.answers, found.refused) == (4, 2, 0, 0)
    assert (found.labelled_bins[19], found.correct_bins[19]) == (2, 1)


@pytest.mark.parametrize(
    "path, said, status, error",
    [
        pytest.param(PATH, body(model_version="v9"), 404, "OUT-I107 toy/v9 does not", id="body"),
        pytest.param(
            "/v2/models/toy/versions/v9/feedback", body(), 404, "OUT-I107 toy/v9", id="path"
        ),
        pytest.param("/v2/models/other/feedback", body(), 404, "OUT-I107", id="model"),
        pytest.param(PATH, body(labels=[1]), 400, "OUT-I117 1 labels", id="no feedback"),
        pytest.param(PATH + "/more", body(), 404, "OUT-I111", id="no such path"),
    ],
)
def test_feedback_of_another_version_is_refused(port, served, path, said, status, error):
    code, answer = call(port, "POST", path, said)
    assert code == status
    assert answer["error"].startswith(error)
    assert served.tally.collect() is None


def test_feedback_is_posted(port, served):
    assert call(port, "GET", PATH)[0] == 405
    assert served.tally.collect() is None


@pytest.mark.parametrize("answering", ["rules", "refuses"])
def test_there_is_no_feedback_while_the_model_does_not_answer(tmp_path, answering):
    toy: dict[str, Any] = {"label": (0,), "probabilities": (1.0, 0.0, 0.0)}
    served = loaded(tmp_path, answering, Policy(rules=Rules(toy)))
    with pytest.raises(Failed, match="OUT-D352"):
        served.feedback(body())
    with serving({"toy": served}) as server:
        assert call(server.port, "POST", PATH, body())[0] == 503
    assert served.tally.collect() is None


def test_an_answer_still_comes_with_what_was_asked(port):
    status, answer = call(port, "POST", "/v2/models/toy/infer", inference(ROW))
    assert (status, answer["model_version"]) == (200, "v1")
