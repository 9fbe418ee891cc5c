import re

import pytest

from control_plane.web.auth import PUBLIC

METHODS = ("get", "post", "put", "patch", "delete")


def operations(api):
    schema = api.get("/openapi.json").json()
    return [
        (path, method, operation)
        for path, item in schema["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    ]


def test_every_operation_is_described_and_says_its_problems(api):
    found = operations(api)
    assert len(found) > 25
    for path, method, operation in found:
        where = f"{method} {path}"
        assert operation["summary"], where
        assert operation["tags"], where
        problems = [
            answer
            for status, answer in operation["responses"].items()
            if status.startswith(("4", "5"))
        ]
        assert problems, where
        for answer in problems:
            assert list(answer["content"]) == ["application/problem+json"], where


def test_operation_ids_are_unique(api):
    names = [operation["operationId"] for _, _, operation in operations(api)]
    assert len(names) == len(set(names))


def test_every_reference_of_the_description_leads_somewhere(api):
    text = api.get("/openapi.json").text
    schemas = api.get("/openapi.json").json()["components"]["schemas"]
    for name in set(re.findall(r'"#/components/schemas/([^"]+)"', text)):
        assert name in schemas


def test_no_route_answers_without_the_token_unless_it_is_public(api):
    del api.client.headers["authorization"]
    for path, method, _ in operations(api):
        if path in PUBLIC or path.startswith("/problems/"):
            continue
        where = re.sub(r"{[a-z_]+}", "x", path.replace("{fleet}", "north"))
        answer = api.call(method.upper(), where)
        assert (answer.status_code, answer.json()["code"]) == (401, "OUT-A101"), where


def test_a_problem_has_its_page(api):
    del api.client.headers["authorization"]
    assert api.get("/problems/OUT-S130").json()["slug"] == "cursor_invalid"
    answer = api.get("/problems/OUT-Z999")
    assert (answer.status_code, answer.json()["code"]) == (404, "OUT-S110")


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/fleets/north/nothing", "/docs"])
def test_an_unknown_path_is_a_problem_too(api, path):
    answer = api.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "OUT-S111")


def test_a_body_that_is_too_large_is_refused(api):
    answer = api.post("rollouts", {"version": "x" * 2_000_000})
    assert (answer.status_code, answer.json()["code"]) == (413, "OUT-N211")


def test_what_is_no_json_is_refused_as_such(api):
    headers = {"Content-Type": "application/json"}
    answer = api.call("POST", "tokens", content=b"{", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "OUT-S120")
    assert "not JSON" in answer.json()["detail"]


def test_an_operation_that_does_not_exist_is_not_found(api):
    assert api.get("operations/op-9").json()["code"] == "OUT-S110"
