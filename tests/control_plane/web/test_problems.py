import json

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from control_plane.client import problem_of
from control_plane.roles import Principal
from control_plane.store import Store
from control_plane.web.auth import RequireToken, identify
from control_plane.web.faults import answer_errors
from control_plane.web.problems import (
    MEDIA_TYPE,
    FieldError,
    InvalidFields,
    WithFacts,
    body,
    page,
)
from control_plane.web.requests import Traced
from protocol.errors import InvalidRequest, OutriderError, TrustError, Unavailable
from protocol.identifiers import digest_of
from protocol.problems import CATALOGUE

TOKEN = "a-token"


def identified(token: bytes) -> Principal:
    if token != TOKEN.encode():
        raise InvalidRequest("OUT-A101", "it is not a token of this control plane")
    return Principal("eva", "admin")


def app_that_raises(error: BaseException) -> TestClient:
    app = FastAPI()
    answer_errors(app)
    app.add_middleware(RequireToken, identify=identified)
    app.add_middleware(Traced)

    @app.get("/v1/thing")
    def thing(number: int = 0) -> None:
        raise error

    return TestClient(
        app, raise_server_exceptions=False, headers={"Authorization": f"Bearer {TOKEN}"}
    )


def test_a_problem_says_what_the_catalogue_says_and_what_happened():
    error = InvalidRequest("OUT-S110", "no model named digit", do="a similar name: digits")
    assert body(error, "req-1") == {
        "type": "/problems/OUT-S110",
        "status": 404,
        "code": "OUT-S110",
        "title": "No such thing",
        "detail": "no model named digit",
        "help": "a similar name: digits",
        "request_id": "req-1",
    }


def test_facts_and_place_of_what_is_in_the_way_are_members_of_the_problem():
    error = WithFacts(
        "OUT-R201",
        "digits-7 already rolls out digits here",
        instance="/v1/fleets/north/rollouts/digits-7",
        devices=142,
    )
    said = body(error, "req-1")
    assert said["devices"] == 142
    assert said["instance"] == "/v1/fleets/north/rollouts/digits-7"


def test_each_wrong_field_has_its_pointer():
    error = InvalidFields(
        [FieldError("#/to", "value missing", 46), FieldError("#/waves/0", "is empty")], "OUT-S101"
    )
    said = body(error, "req-1")
    assert said["errors"] == [
        {"pointer": "#/to", "detail": "value missing", "offset": 46},
        {"pointer": "#/waves/0", "detail": "is empty"},
    ]
    assert said["detail"] == "to: value missing; waves/0: is empty"


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("OUT-S110", "no model named digit", do="a similar name: digits"),
        TrustError("OUT-T104", "ana signed; bo or cy is missing"),
        Unavailable("OUT-N102", "connection refused"),
        InvalidRequest("OUT-R203"),
    ],
    ids=lambda error: error.code,
)
def test_a_client_raises_the_same_words_that_the_server_raised(error: OutriderError):
    answer = app_that_raises(error).get("/v1/thing")
    assert answer.status_code == error.problem.status
    assert answer.headers["content-type"] == MEDIA_TYPE
    received = problem_of(answer.json())
    assert (received.code, received.why, received.do) == (error.code, error.why, error.do)
    assert received.document == answer.json()
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_a_code_that_this_client_does_not_know_keeps_its_words():
    received = problem_of({"code": "OUT-Z900", "title": "Too windy", "detail": "9 Bft"})
    assert received.code == "OUT-S160"
    assert received.why == "OUT-Z900: Too windy: 9 Bft"


def test_what_can_be_retried_says_when():
    assert app_that_raises(Unavailable("OUT-N102")).get("/v1/thing").headers["retry-after"] == "2"


def test_a_fault_of_ours_leaks_nothing_but_an_id_that_the_log_has(caplog):
    answer = app_that_raises(RuntimeError("password=hunter2")).get("/v1/thing")
    assert answer.status_code == 500
    assert answer.json()["code"] == "OUT-S160"
    assert "hunter2" not in answer.text
    assert answer.json()["request_id"] in caplog.text
    assert "hunter2" in caplog.text


@pytest.mark.parametrize(
    "path, method, status, code",
    [
        ("/v1/thing?number=x", "GET", 422, "OUT-S120"),
        ("/v1/other", "GET", 404, "OUT-S111"),
        ("/v1/thing", "POST", 405, "OUT-S111"),
    ],
)
def test_refusals_of_the_framework_have_the_same_form(path, method, status, code):
    answer = app_that_raises(InvalidRequest("OUT-S110")).request(method, path)
    assert (answer.status_code, answer.json()["status"]) == (status, status)
    assert answer.json()["code"] == code
    assert answer.headers["content-type"] == MEDIA_TYPE


def test_a_wrong_query_parameter_is_named():
    answer = app_that_raises(InvalidRequest("OUT-S110")).get("/v1/thing?number=x")
    (error,) = answer.json()["errors"]
    assert error["pointer"] == "?number"


@pytest.mark.parametrize(
    "header",
    [None, "Bearer wrong", "Bearer", "Basic a-token", "a-token", "Bearer \xe9", f"Bearer {TOKEN}x"],
)
def test_without_the_token_nothing_is_answered(header):
    client = app_that_raises(InvalidRequest("OUT-S110"))
    del client.headers["authorization"]
    sent = {} if header is None else {"Authorization": header.encode("latin-1")}
    answer = client.get("/v1/thing", headers=sent)
    assert answer.status_code == 401
    assert answer.json()["code"] == "OUT-A101"
    assert answer.headers["www-authenticate"] == "Bearer"


def test_an_empty_token_of_ours_lets_nobody_in(tmp_path):
    app = FastAPI()
    store = Store(tmp_path / "store.sqlite")
    store.people.create(digest_of(b""), "eva", "admin", 0)
    app.add_middleware(RequireToken, identify=lambda token: identify(store.people, token, 1))
    answer = TestClient(app).get("/v1/thing", headers={"Authorization": "Bearer "})
    store.close()
    assert answer.status_code == 401


def test_every_code_has_a_page():
    for code in CATALOGUE:
        said = page(code)
        assert said["code"] == code
        assert json.dumps(said)
    with pytest.raises(InvalidRequest):
        page("OUT-Z900")
