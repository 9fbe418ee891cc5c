"""Every endpoint, asked by every role and by nobody: allowed as docs/reference/roles.md says.

The page is generated from the code and kept in the repository: what a role may do changes there,
where people see it. Endpoints come from the application, so a new one is covered by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from control_plane.roles import ROLES
from control_plane.web.app import max_body
from control_plane.web.attempts import Limits
from control_plane.web.auth import PUBLIC
from control_plane.web.permissions import endpoints
from protocol.enrolment import PATH as ENROL
from protocol.enrolment import RENEW
from protocol.identifiers import digest_of
from protocol.payload import PAYLOAD_PATH
from tests.control_plane.web.conftest import Api

PAGE = Path(__file__).parents[3] / "docs/reference/roles.md"
FLEET = "/v1/fleets/{fleet}"
DAY_MS = 86_400_000
NAMES = {"fleet": "north", "device": "cam-1", "model": "digits", "version": "v1"}

Endpoint = tuple[str, str]


def table() -> dict[Endpoint, dict[str, bool]]:
    """What the page says: `(method, path)` to role to whether it may."""
    rows = re.findall(r"^\| `(\w+) (\S+)` \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    found = {}
    for method, path, cells in rows:
        _, *marks = (cell.strip() for cell in cells.split("|"))
        found[method, f"{FLEET}{path}"] = dict(zip(ROLES, (m == "yes" for m in marks), strict=True))
    return found


def of_the_application(api: Api, below: str = FLEET) -> Iterator[Endpoint]:
    for each in endpoints(api.client.app.routes, below):  # type: ignore[attr-defined]  # FastAPI
        for method in each.methods:
            yield method, each.path


def filled(path: str) -> str:
    return re.sub(r"\{(\w+)(:\w+)?\}", lambda found: NAMES.get(found[1], "x"), path)


def call(api: Api, endpoint: Endpoint, token: str | None, **more: object) -> httpx.Response:
    """Without a body: whoever may is told what is missing, whoever may not is not."""
    method, path = endpoint
    headers = {"Authorization": f"Bearer {token}" if token else ""}
    return api.call(method, filled(path), headers=headers, **more)


@pytest.fixture
def tokens(api: Api) -> dict[str, str]:
    """By role; also of somebody whose token was revoked, and one whose token has expired."""
    # Wrong tokens are limited: another test's business.
    api.parts.attempts.limits = Limits(most=100_000, most_together=100_000)
    people, now_ms = api.store.people, api.clock[0]
    made: dict[str, str] = {}
    for role in ROLES:
        made[role] = f"token-of-{role}"
        people.create(digest_of(made[role].encode()), role, role, now_ms)
    for name, expires_ms in (("revoked", None), ("expired", now_ms)):
        made[name] = f"token-of-{name}"
        people.create(digest_of(made[name].encode()), name, "admin", now_ms - DAY_MS, expires_ms)
    people.revoke("revoked", now_ms)
    return made


def test_the_page_has_every_endpoint(api: Api):
    assert set(table()) == set(of_the_application(api)), "run `make docs`, read the difference"
    assert len(table()) > 40


def test_every_role_may_what_the_page_says_and_nothing_else(api: Api, tokens: dict[str, str]):
    wrong = []
    for endpoint, roles in table().items():
        for role, may in roles.items():
            answer = call(api, endpoint, tokens[role])
            code = answer.json().get("code", "") if answer.is_error else ""
            if may:
                fine = answer.status_code not in (401, 403) and answer.status_code < 500
            else:
                fine = (answer.status_code, code) == (403, "OUT-A204")
            if not fine:
                wrong.append(f"{role}: {' '.join(endpoint)}: {answer.status_code} {code}")
    assert wrong == []


@pytest.mark.parametrize(
    "token, code",
    [
        (None, "OUT-A101"),
        ("no-token-of-anybody", "OUT-A101"),
        ("token-of-revoked", "OUT-A102"),
        ("token-of-expired", "OUT-A102"),
    ],
)
def test_without_a_valid_token_nothing_is_answered(api: Api, tokens, token, code):
    answers = {
        endpoint: call(api, endpoint, token) for endpoint in (*table(), ("GET", "/v1/anything"))
    }
    wrong = [
        f"{' '.join(endpoint)}: {answer.status_code} {answer.text[:80]}"
        for endpoint, answer in answers.items()
        if (answer.status_code, answer.json()["code"]) != (401, code)
    ]
    assert wrong == []


def test_what_is_public_is_what_is_listed(api: Api):
    found = {path for _, path in of_the_application(api, "/")}
    public = {path for path in found if not path.startswith(FLEET)}
    assert public <= {*PUBLIC, "/problems/{code}", f"{PAYLOAD_PATH}{{name}}"}


@pytest.mark.parametrize(
    "role, endpoint, why, do",
    [
        (
            "viewer",
            ("POST", f"{FLEET}/rollouts/{{rollout}}/abort"),
            "role viewer may not abort a rollout: viewer is viewer in fleet north",
            "ask an operator",
        ),
        (
            "operator",
            ("GET", f"{FLEET}/people"),
            "role operator may not see: who may call the API: operator is operator in fleet north",
            "ask an admin",
        ),
        (
            "operator",
            ("POST", f"{FLEET}/models/{{model}}/versions/{{version}}/signatures"),
            "role operator may not add an approver's signature:"
            " operator is operator in fleet north",
            "ask an approver",
        ),
    ],
)
def test_a_refusal_says_who_may_not_do_what_and_whom_to_ask(api, tokens, role, endpoint, why, do):
    said = call(api, endpoint, tokens[role]).json()
    assert (said["detail"], said["help"]) == (why, do)


def test_no_endpoint_takes_more_than_it_may(api: Api, tokens: dict[str, str]):
    """Said in advance: refused before a byte is read. More than was said: never read to the end."""
    wrong = []
    for endpoint in (*table(), ("POST", ENROL), ("POST", RENEW)):
        method, path = endpoint
        limit = max_body(method, filled(path))
        headers = {
            "Authorization": f"Bearer {tokens['admin']}",
            "Content-Length": str(limit + 1),
            "Content-Type": "application/json",
        }
        answer = api.call(method, filled(path), headers=headers, content=b"")
        if (answer.status_code, answer.json().get("code")) != (413, "OUT-N211"):
            wrong.append(f"{method} {path}: {answer.status_code}")
    assert wrong == []


def test_bodies_that_do_not_say_how_long_they_are_are_cut_off(api: Api, tokens: dict[str, str]):
    wrong, taken = [], 0
    for endpoint in (*table(), ("POST", ENROL), ("POST", RENEW)):
        method, path = endpoint
        limit = max_body(method, filled(path))
        if limit > 1024 * 1024:
            # A bundle: too much to send here. It is checked by the same lines.
            continue
        sent = 0

        def blocks(limit: int = limit) -> Iterator[bytes]:
            nonlocal sent
            while sent <= 2 * limit:
                sent += 16_384
                yield b"[" * 16_384

        headers = {
            "Authorization": f"Bearer {tokens['admin']}",
            "Content-Type": "application/json",
        }
        answer = api.call(method, filled(path), headers=headers, content=blocks())
        taken += answer.status_code == 413
        if answer.status_code >= 500:
            wrong.append(f"{method} {path}: {answer.status_code}")
    assert wrong == []
    # Those that read no body at all answer as if there was none.
    assert taken > 10
