"""When the client asks again: a table, and a server that does each of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from edge_agent.sdk import Client
from edge_agent.sdk.connection import Ending, worth_another
from protocol.errors import Failed, Unavailable
from tests.fakes.scripted_server import Act, ScriptedServer

PIXELS = {"pixels": np.zeros((1, 4), np.float32)}


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="or") as folder:
        yield Path(folder) / "infer.sock"


@pytest.mark.parametrize(
    "ending, tries", list(product(("refused", "closed", "slow", "broken"), (1, 2, 3)))
)
def test_only_an_end_before_the_answer_is_worth_one_more_try(ending: Ending, tries: int) -> None:
    assert worth_another(ending, tries) == (tries == 1 and ending in ("refused", "closed"))


@pytest.mark.parametrize(
    "acts, wanted, requests",
    [
        pytest.param(["answer"], None, 1, id="an answer"),
        pytest.param(["close"], None, 2, id="closed before the first byte"),
        pytest.param(["close", "close"], "OUT-I120", 2, id="closed twice"),
        pytest.param(["half"], "OUT-I121", 1, id="closed in the middle of an answer"),
        pytest.param(["error"], "OUT-I110", 1, id="the model failed"),
        pytest.param(["unready"], "OUT-I108", 1, id="not ready"),
        pytest.param(["nonsense"], "OUT-I121", 1, id="no answer at all"),
        pytest.param(["slow"], "OUT-I120", 1, id="no answer in time"),
        pytest.param(["close", "error"], "OUT-I110", 2, id="closed, then an error"),
        pytest.param(["close", "half"], "OUT-I121", 2, id="closed, then half an answer"),
    ],
)
def test_a_request_is_sent_again_once_and_only_if_no_answer_began(
    path: Path, acts: list[Act], wanted: str | None, requests: int
) -> None:
    with ScriptedServer(path, acts) as server:
        with Client("toy", socket=path, timeout_s=0.5 if "slow" in acts else 20) as client:
            if wanted is None:
                answer = client.infer(PIXELS)
                assert answer.outputs["p"].tolist() == [[0.25, 0.75]]
                assert (answer.model, answer.version, answer.answered_by) == ("toy", "v1", "model")
            else:
                later = wanted in ("OUT-I120", "OUT-I108")
                with pytest.raises(Unavailable if later else Failed, match=wanted):
                    client.infer(PIXELS)
        assert server.requests == requests


@pytest.mark.parametrize(
    "acts",
    [
        pytest.param(["answer", "answer", "close", "answer"], id="without a word"),
        pytest.param(["answer", "last", "answer", "answer"], id="announced"),
    ],
)
def test_a_kept_connection_that_ends_is_opened_again(path: Path, acts: list[Act]) -> None:
    with ScriptedServer(path, acts) as server, Client("toy", socket=path) as client:
        for _ in range(3):
            assert client.infer(PIXELS).version == "v1"
        assert server.connections == 2


def test_after_a_failure_the_next_request_is_as_good_as_the_first(path: Path) -> None:
    acts: list[Act] = ["half", "close", "answer"]
    with ScriptedServer(path, acts), Client("toy", socket=path) as client:
        with pytest.raises(Failed, match="OUT-I121"):
            client.infer(PIXELS)
        assert client.infer(PIXELS).version == "v1"


def test_where_nobody_listens_it_says_so_and_what_to_do(path: Path) -> None:
    with Client("toy", socket=path) as client, pytest.raises(Unavailable) as caught:
        client.infer(PIXELS)
    assert caught.value.code == "OUT-I120"
    assert str(path) in caught.value.why
    assert caught.value.do == "outrider-agent status"


def test_a_server_that_comes_up_between_the_two_tries_is_found(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[ScriptedServer] = []

    def start(_: float) -> None:
        started.append(ScriptedServer(path, []).__enter__())

    monkeypatch.setattr("edge_agent.sdk.connection.time.sleep", start)
    with Client("toy", socket=path) as client:
        assert client.infer(PIXELS).version == "v1"
    started[0].__exit__(None, None, None)
