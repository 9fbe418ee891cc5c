"""Who may call the API: made, listed, revoked; and what the audit trail has of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from control_plane.people import decode_login
from control_plane.roles import ALLOWS, ROLES
from protocol.identifiers import digest_of

DAY_MS = 86_400_000


def moment(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat()


def created(api, name: str = "eva", role: str = "viewer", **more: Any) -> str:
    """The token of a new person."""
    answer = api.post("people", {"name": name, "role": role, **more})
    assert answer.status_code == 201, answer.text
    return decode_login(answer.json()["login"]).t


def bearing(token: str) -> dict[str, dict[str, str]]:
    return {"headers": {"Authorization": f"Bearer {token}"}}


def test_a_login_text_names_the_control_plane_its_root_and_the_person(api):
    answer = api.post("people", {"name": "eva", "role": "operator"})
    assert answer.headers["cache-control"] == "no-store"
    login = decode_login(answer.json()["login"])
    assert (login.u, login.f) == ("https://127.0.0.1:8400", "north")
    assert login.r == digest_of(api.parts.repository.roots()[1])
    assert login.authority == api.parts.enrolment.authority.api_ca_der
    assert api.call("GET", "whoami", **bearing(login.t)).json() == {
        "name": "eva",
        "role": "operator",
        "permissions": ["read", "service", "operate"],
        "fleet": "north",
    }


@pytest.mark.parametrize("role", ROLES)
def test_everybody_may_ask_who_they_are(api, role):
    found = api.call("GET", "whoami", **bearing(created(api, "eva", role))).json()
    assert set(found["permissions"]) == ALLOWS[role]


def test_the_store_has_hashes_only(api):
    token = created(api)
    api.store.close()
    for path in api.parts.settings.home.glob("store.sqlite*"):
        assert token.encode() not in path.read_bytes()


def test_a_list_says_who_has_a_token_and_when_it_was_used(api):
    eva = created(api, "eva", expires=moment(api.clock[0] + DAY_MS))
    created(api, "bo", "admin")
    api.clock[0] += 60_000
    api.call("GET", "whoami", **bearing(eva))
    api.delete("people/bo")
    api.clock[0] += DAY_MS
    page = api.get("people").json()
    assert page["count"] == 3
    assert [(row["name"], row["role"], row["state"]) for row in page["items"]] == [
        ("bo", "admin", "revoked"),
        ("eva", "viewer", "expired"),
        ("local", "admin", "valid"),
    ]
    used = [row["used"] for row in page["items"]]
    assert used[0] is None
    assert used[1].startswith(moment(api.clock[0] - DAY_MS)[:19])
    again = api.get("people", limit=2).json()
    rest = api.get("people", cursor=again["next_cursor"]).json()
    assert [row["name"] for row in (*again["items"], *rest["items"])] == ["bo", "eva", "local"]


def test_a_revoked_token_is_refused_from_the_next_request_on(api):
    eva = created(api)
    assert api.call("GET", "devices", **bearing(eva)).status_code == 200
    assert api.delete("people/eva").json()["state"] == "revoked"
    refused = api.call("GET", "devices", **bearing(eva))
    assert (refused.status_code, refused.json()["code"]) == (401, "OUT-A102")
    # Once more changes nothing, and is on record once.
    assert api.delete("people/eva").json()["state"] == "revoked"
    changes = api.get("audit", about="people").json()["items"]
    assert [each["what"] for each in changes] == ["person.revoked", "person.created"]
    assert {each["who"] for each in changes} == {"local"}


def test_an_expired_token_is_refused(api):
    eva = created(api, expires=moment(api.clock[0] + DAY_MS))
    api.clock[0] += DAY_MS
    refused = api.call("GET", "devices", **bearing(eva))
    assert (refused.status_code, refused.json()["code"]) == (401, "OUT-A102")


def test_a_name_has_one_valid_token(api):
    created(api)
    again = api.post("people", {"name": "eva", "role": "admin"})
    assert (again.status_code, again.json()["code"]) == (409, "OUT-A205")
    api.delete("people/eva")
    token = created(api, role="technician")
    assert api.call("GET", "whoami", **bearing(token)).json()["role"] == "technician"


@pytest.mark.parametrize(
    "asked, pointer",
    [
        ({"name": "Eva", "role": "viewer"}, "#/name"),
        ({"name": "ticker", "role": "viewer"}, "#/name"),
        ({"name": "eva", "role": "root"}, "#/role"),
        ({"name": "eva"}, "#/role"),
        ({"name": "eva", "role": "viewer", "token": "mine"}, "#/token"),
        ({"name": "eva", "role": "viewer", "expires": "2001-01-01T00:00:00Z"}, "#/expires"),
        ({"name": "eva", "role": "viewer", "expires": "2101-01-01T00:00:00"}, "#/expires"),
    ],
)
def test_what_is_wrong_with_a_new_person_is_said(api, asked, pointer):
    answer = api.post("people", asked)
    assert answer.status_code == 422
    assert [each["pointer"] for each in answer.json()["errors"]] == [pointer]
    assert api.get("people").json()["count"] == 1


def test_the_last_admin_cannot_be_revoked(api):
    bo = created(api, "bo", "admin")
    assert api.delete("people/local").json()["state"] == "revoked"
    refused = api.delete("people/bo", **bearing(bo))
    assert (refused.status_code, refused.json()["code"]) == (409, "OUT-A206")
    cy = api.post("people", {"name": "cy", "role": "admin"}, **bearing(bo)).json()
    assert api.delete("people/bo", **bearing(bo)).json()["state"] == "revoked"
    token = decode_login(cy["login"]).t
    # One that expires is an admin until then.
    body = {"name": "di", "role": "admin", "expires": moment(api.clock[0] + DAY_MS)}
    assert api.post("people", body, **bearing(token)).status_code == 201
    api.clock[0] += DAY_MS
    assert api.delete("people/cy", **bearing(token)).json()["code"] == "OUT-A206"


def test_a_name_that_nobody_has_is_said_with_one_like_it(api):
    created(api)
    answer = api.delete("people/eve")
    assert (answer.status_code, answer.json()["code"]) == (404, "OUT-S110")
    assert answer.json()["help"] == "a similar name: eva"


def test_an_answer_is_not_replayed_to_somebody_else(api):
    """A viewer who learns an operator's idempotency key learns nothing by it."""
    key = {"Idempotency-Key": "k-1"}
    first = api.post("devices/cam-1/allow", {"model": "m", "version": "v"}, headers=key)
    assert first.status_code == 404
    api.enrol("cam-1")
    api.approved("v1")
    body = {"model": "digits", "version": "v1"}
    assert api.post("devices/cam-1/allow", body, headers=key).status_code == 200
    eva = bearing(created(api, "eva", "technician"))["headers"]
    other = api.post("devices/cam-1/allow", body, headers={**key, **eva})
    assert (other.status_code, other.json()["code"]) == (422, "OUT-S140")
