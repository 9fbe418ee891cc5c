"""The client against real runners."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_agent.runners import Load, Runners
from edge_agent.sdk import Client
from protocol.errors import Failed, InvalidRequest, OutriderError, Unavailable
from tests.fakes.bundles import make_bundle
from tests.fakes.conditions import eventually

ROWS = np.array([[0.1, -0.2, 0.3, 0.4], [1, 2, 3, 4]], np.float32)
SWAPS = 20


@pytest.fixture
def bundles(tmp_path: Path) -> Callable[..., Load]:
    def make(**wishes: object) -> Load:
        made = make_bundle(tmp_path / "bundles", **wishes)  # type: ignore[arg-type]  # handed on
        return Load(made.model, made.digest, made.manifest, made.path)

    return make


@pytest.fixture
def runners() -> Iterator[Runners]:
    run = Path(tempfile.mkdtemp(prefix="or"))  # socket paths are short
    made = Runners(run, port=0)
    made.adopt()
    yield made
    for view in made.views():
        made.kill(view.id)
    made.close()
    shutil.rmtree(run, ignore_errors=True)


def serve(runners: Runners, load: Load) -> str:
    standby = runners.start((load,))
    runners.promote(standby.id)
    return standby.id


@pytest.fixture(params=["socket", "loopback"])
def new_client(request: pytest.FixtureRequest, runners: Runners) -> Callable[..., Client]:
    def make(model: str = "toy", **wishes: object) -> Client:
        where = (
            {"socket": runners._run / "infer.sock"}
            if request.param == "socket"
            else {"url": f"http://127.0.0.1:{runners.port}"}
        )
        return Client(model, **where, **wishes)  # type: ignore[arg-type]  # handed on as they are

    return make


def test_arrays_go_in_and_come_out(runners, bundles, new_client):
    serve(runners, bundles())
    with new_client() as client:
        by_name = client.infer({"pixels": ROWS})
        alone = client.infer(ROWS)
        chosen = client.infer(ROWS, outputs=["label"])
    assert (by_name.model, by_name.version, by_name.answered_by) == ("toy", "v1", "model")
    assert by_name.outputs["probabilities"].shape == (2, 3)
    assert by_name.outputs["label"].tolist() == by_name.outputs["probabilities"].argmax(1).tolist()
    assert np.array_equal(alone.outputs["probabilities"], by_name.outputs["probabilities"])
    assert list(chosen.outputs) == ["label"]
    alone.outputs["probabilities"][:] = 0  # the caller's own


@pytest.mark.parametrize(
    "inputs, code, family",
    [
        pytest.param({"pixels": ROWS[:, :3]}, "OUT-I102", InvalidRequest, id="shape"),
        pytest.param({"pixels": ROWS.astype(float)}, "OUT-I103", InvalidRequest, id="datatype"),
        pytest.param({"voxels": ROWS}, "OUT-I101", InvalidRequest, id="name"),
        pytest.param({"pixels": [[0.0]]}, "OUT-I103", InvalidRequest, id="a list"),
        pytest.param({"pixels": ROWS.astype(complex)}, "OUT-I103", InvalidRequest, id="complex"),
        pytest.param({"pixels": ROWS * 100}, "OUT-I110", Failed, id="the model fails"),
    ],
)
def test_errors_come_with_their_code_and_of_their_family(
    runners, bundles, new_client, inputs, code, family
):
    serve(runners, bundles(fragile=True))
    with new_client() as client:
        with pytest.raises(OutriderError) as caught:
            client.infer(inputs)
        assert caught.value.code == code
        assert isinstance(caught.value, family)
        assert client.infer(ROWS).version == "v1"


def test_a_model_that_is_not_here_is_named(runners, bundles, new_client):
    serve(runners, bundles())
    with new_client("other/../toy") as client:
        assert not client.ready()
        with pytest.raises(InvalidRequest, match=r"OUT-I107.*other"):
            client.infer({"pixels": ROWS})


def test_metadata_are_asked_for_again_when_the_version_changes(runners, bundles, new_client):
    old = serve(runners, bundles())
    with new_client() as client:
        client.infer(ROWS)
        before = client.metadata()
        assert client.metadata() is before
        assert (before.versions, before.inputs[0].shape) == (("v1",), (-1, 4))
        serve(runners, bundles(version="v2", classes=("a", "b")))
        runners.drain(old)
        eventually(lambda: client.infer(ROWS).version == "v2")
        assert client.metadata().versions == ("v2",)
        assert client.metadata().outputs[1].shape == (-1, 2)


def test_labels_go_back_with_what_was_predicted(runners, bundles, new_client):
    runner = serve(runners, bundles())
    with new_client() as client:
        answer = client.infer(ROWS)
        predicted = answer.outputs["label"]
        sure = answer.outputs["probabilities"].max(axis=1)
        right = client.feedback(predicted, predicted, sure, version=answer.version)
        wrong = client.feedback(["none", "none"], [str(n) for n in predicted], [np.nan, 0.5])
        mixed = client.feedback([b"0", np.int64(1), 2.0], ["0", 1, 3])
        with pytest.raises(InvalidRequest, match=r"OUT-I107.*toy/v9"):
            client.feedback([1], [1], version="v9")
        with pytest.raises(InvalidRequest, match="OUT-I117"):
            client.feedback([1], [1, 2])
    assert (right, wrong, mixed) == (2, 2, 3)
    (windows,) = runners.take(runner, 0).windows
    found = windows.inference
    assert (found.answers, found.labelled, found.correct) == (1, 7, 4)
    assert (sum(found.labelled_bins), sum(found.correct_bins)) == (3, 2)


@pytest.mark.parametrize(
    "labels", [np.zeros((2, 1)), "10", [None], [object()], [np.nan], np.zeros(2, complex)]
)
def test_what_is_no_list_of_labels_is_refused(runners, bundles, new_client, labels):
    serve(runners, bundles())
    with new_client() as client, pytest.raises(InvalidRequest, match="OUT-I117"):
        client.feedback(labels, [1] * len(labels))


def test_no_request_fails_while_versions_change_under_load(runners, bundles, new_client):
    waiting, serving = (runners.start((bundles(version=v),)).id for v in ("v1", "v0"))
    runners.promote(serving)
    seen: list[Counter[str]] = [Counter(), Counter()]
    errors: list[str] = []
    end = threading.Event()

    with new_client() as client:

        def ask(mine: Counter[str]) -> None:
            while not end.is_set():
                try:
                    mine[client.infer(ROWS).version] += 1
                except OutriderError as error:
                    errors.append(str(error))

        threads = [threading.Thread(target=ask, args=(mine,)) for mine in seen]
        for thread in threads:
            thread.start()
        try:
            for swap in range(1, SWAPS + 1):
                runners.promote(waiting)
                runners.park(serving)
                waiting, serving = serving, waiting
                eventually(_answered_more(seen, f"v{swap % 2}", errors))
        finally:
            end.set()
            for thread in threads:
                thread.join()
    assert errors == []
    assert all(mine["v0"] and mine["v1"] for mine in seen)


def _answered_more(seen: list[Counter[str]], version: str, errors: list[str]) -> Callable[[], bool]:
    """Whether every caller got another answer of this version since now, or one failed."""
    before = [mine[version] for mine in seen]
    return lambda: (
        bool(errors) or all(mine[version] > count for mine, count in zip(seen, before, strict=True))
    )


def test_threads_share_a_client_and_a_forked_child_opens_its_own_connection(
    runners, bundles, new_client
):
    serve(runners, bundles())
    with new_client() as client:
        client.infer(ROWS)
        child = os.fork()
        if child == 0:
            version = ""
            try:
                version = client.infer(ROWS).version
            finally:
                os._exit(0 if version == "v1" else 1)  # never back into the test runner
        for _ in range(50):
            assert client.infer(ROWS).version == "v1"
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0


def test_a_client_is_closed_and_used_again(runners, bundles, new_client):
    serve(runners, bundles())
    client = new_client()
    client.infer(ROWS)
    client.close()
    assert client.infer(ROWS).version == "v1"
    client.close()


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8500", "https://127.0.0.1", "http://:8500", "http://a:b"]
)
def test_an_address_that_is_none_is_refused_at_once(url):
    with pytest.raises(InvalidRequest, match="OUT-S120"):
        Client("toy", url=url)


def test_without_an_address_it_asks_the_agent_that_is_named_by_its_home(tmp_path):
    with Client("toy", home=tmp_path) as client, pytest.raises(Unavailable, match=str(tmp_path)):
        client.infer({"pixels": ROWS})
