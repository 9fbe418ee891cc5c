import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient

from control_plane.store import Store
from control_plane.web.faults import answer_errors
from control_plane.web.idempotency import KEPT_MS, Repeatable
from control_plane.web.requests import Traced
from protocol.errors import InvalidRequest

SOON_S = 10


class Counter:
    """An app whose POST counts, may refuse, and may be held up in the middle."""

    def __init__(self, store: Store):
        self.done = 0
        self.now_ms = 1_000_000
        self.refusing = False
        self.inside = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        app = FastAPI()
        app.state.parts = SimpleNamespace(store=store, now_ms=lambda: self.now_ms)
        answer_errors(app)
        app.add_middleware(Traced)
        router = APIRouter(route_class=Repeatable)

        @router.post("/count", status_code=201)
        def count(by: dict[str, int]) -> dict[str, int]:
            self.inside.set()
            self.go_on.wait(SOON_S)
            if self.refusing:
                raise InvalidRequest("OUT-R203")
            self.done += by.get("by", 1)
            return {"count": self.done}

        app.include_router(router)
        self.client = TestClient(app, raise_server_exceptions=False)

    def post(self, key, body=None):
        headers = {"Idempotency-Key": key} if key is not None else {}
        return self.client.post("/count", json=body or {"by": 1}, headers=headers)


@pytest.fixture
def counter(tmp_path):
    store = Store(tmp_path / "store.sqlite")
    yield Counter(store)
    store.close()


def test_the_same_request_again_gets_the_same_answer_and_does_nothing(counter):
    first, second = counter.post("k"), counter.post("k")
    assert (first.status_code, first.json()) == (201, {"count": 1})
    assert (second.status_code, second.json()) == (201, {"count": 1})
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert second.headers["content-type"] == "application/json"


def test_another_body_under_the_same_key_is_refused(counter):
    counter.post("k")
    answer = counter.post("k", {"by": 5})
    assert (answer.status_code, answer.json()["code"]) == (422, "OUT-S140")


def test_while_the_first_request_runs_a_second_one_is_told_so(counter):
    counter.go_on.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(counter.post, "k")
        assert counter.inside.wait(SOON_S)
        second = counter.post("k")
        counter.go_on.set()
        assert (second.status_code, second.json()["code"]) == (409, "OUT-S141")
        assert first.result().json() == {"count": 1}


def test_a_refused_request_may_be_repeated_under_its_key(counter):
    counter.refusing = True
    assert counter.post("k").status_code == 409
    counter.refusing = False
    assert counter.post("k").json() == {"count": 1}


def test_an_invalid_request_leaves_its_key_free(counter):
    assert counter.post("k", {"by": "x"}).status_code == 422
    assert counter.post("k").json() == {"count": 1}


def test_a_key_is_forgotten_after_a_day(counter):
    counter.post("k")
    counter.now_ms += KEPT_MS + 1
    assert counter.post("k").json() == {"count": 2}


@pytest.mark.parametrize("key", ["", "x" * 129])
def test_a_key_has_a_length(counter, key):
    answer = counter.post(key)
    assert (answer.status_code, answer.json()["code"]) == (422, "OUT-S120")


def test_without_a_key_every_request_counts(counter):
    counter.post(None)
    assert counter.post(None).json() == {"count": 2}
