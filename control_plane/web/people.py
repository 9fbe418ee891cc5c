"""People and programs that may call the API: made and revoked by admins; and who is asking."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from pydantic import AwareDatetime, ConfigDict

from control_plane.people import Login, encode_login, new_token, person_name
from control_plane.roles import ALLOWS, PERMISSIONS, Permission, Role
from control_plane.store.people import Person as Row
from control_plane.web.cursors import DEFAULT_LIMIT, MAX_LIMIT, Page, after, cursor
from control_plane.web.parts import Here, Parts
from control_plane.web.permissions import Who, needs
from control_plane.web.problems import FieldError, InvalidFields
from control_plane.web.unknown import unknown
from protocol.errors import InvalidRequest
from protocol.identifiers import Digest, digest_of
from protocol.wording import rfc3339

router = APIRouter(tags=["people"])
"""No idempotency keys: an answer has a secret, and answers are kept. Revoke what got lost."""

State = Literal["valid", "expired", "revoked"]


@dataclass(frozen=True, slots=True)
class NewPerson:
    """`expires` null: the token is valid until it is revoked."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    name: str
    role: Role
    expires: AwareDatetime | None = None


@dataclass(frozen=True, slots=True)
class Person:
    """The valid token of a name, or its newest. `used` is precise to a minute; null: never."""

    name: str
    role: Role
    state: State
    created: str
    expires: str | None
    used: str | None


@dataclass(frozen=True, slots=True)
class NewLogin:
    """`login` is text to hand over: whoever has it is this person. It is not shown again."""

    person: Person
    login: str


@dataclass(frozen=True, slots=True)
class Myself:
    name: str
    role: Role
    permissions: list[Permission]
    fleet: str


@router.get("/whoami", summary="Who is asking", dependencies=[needs("read")])
def get_whoami(parts: Here, who: Who) -> Myself:
    allowed = [each for each in PERMISSIONS if each in ALLOWS[who.role]]
    return Myself(who.name, who.role, allowed, parts.settings.fleet)


@router.get("/people", summary="Who may call the API", dependencies=[needs("administer")])
def list_people(
    parts: Here,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    cursor: str | None = None,
) -> Page[Person]:
    """By name. `local` is whoever may read the control plane's own folder."""
    now_ms = parts.now_ms()
    tokens = sorted(parts.store.people.all(), key=lambda row: (row.name, row.valid(now_ms)))
    newest = {row.name: row for row in tokens}
    start = after(cursor, "people")
    rest = [row for name, row in newest.items() if start is None or name > str(start[0])]
    return Page([_shown(row, now_ms) for row in rest[:limit]], _next(rest, limit), len(newest))


@router.post(
    "/people",
    summary="Let somebody call the API",
    status_code=201,
    dependencies=[needs("administer")],
)
def create_person(asked: NewPerson, parts: Here, who: Who, response: Response) -> NewLogin:
    """Only the hash of the token is kept. 409 OUT-A205 while the name has a valid one."""
    now_ms = parts.now_ms()
    expires_ms = _expiry(asked, now_ms)
    token = new_token()
    with parts.store.write():
        row = parts.store.people.create(
            digest_of(token.encode()), asked.name, asked.role, now_ms, expires_ms
        )
        person = _shown(row, now_ms)
        about = {"name": row.name, "role": row.role, "expires": person.expires}
        parts.store.happened(who.name, f"people/{row.name}", "person.created", about, now_ms)
    response.headers["Cache-Control"] = "no-store"
    return NewLogin(person, encode_login(_login(parts, token)))


@router.delete("/people/{name}", summary="Revoke a token", dependencies=[needs("administer")])
def revoke_person(name: str, parts: Here, who: Who) -> Person:
    """At once, for every request that follows. Nothing changes if it is not valid any more.

    409 OUT-A206 if it is the last valid token of an admin.
    """
    now_ms = parts.now_ms()
    with parts.store.write():
        people = parts.store.people
        before = people.named(name)
        if not before:
            raise unknown("person", name, [row.name for row in people.all()])
        valid = next((row for row in before if row.valid(now_ms)), None)
        if valid is None:
            return _shown(before[-1], now_ms)
        if valid.role == "admin":
            _require_another_admin(parts, name, now_ms)
        people.revoke(name, now_ms)
        about = {"name": name, "role": valid.role}
        parts.store.happened(who.name, f"people/{name}", "person.revoked", about, now_ms)
        return _shown(replace(valid, revoked_ms=now_ms), now_ms)


def _require_another_admin(parts: Parts, name: str, now_ms: int) -> None:
    for row in parts.store.people.all():
        if row.role == "admin" and row.name != name and row.valid(now_ms):
            return
    raise InvalidRequest("OUT-A206", f"{name} is the only admin with a valid token")


def _expiry(asked: NewPerson, now_ms: int) -> int | None:
    errors = []
    try:
        person_name(asked.name)
    except ValueError as error:
        errors.append(FieldError("#/name", str(error)))
    expires_ms = int(asked.expires.timestamp() * 1000) if asked.expires else None
    if expires_ms is not None and expires_ms <= now_ms:
        errors.append(FieldError("#/expires", "is over already"))
    if errors:
        raise InvalidFields(errors)
    return expires_ms


def _login(parts: Parts, token: str) -> Login:
    enrolment = parts.enrolment
    authority = base64.b64encode(enrolment.authority.api_ca_der).decode()
    return Login(enrolment.api, token, parts.settings.fleet, authority, _root(parts))


def _root(parts: Parts) -> Digest | None:
    """The newest; none before the ceremony."""
    roots = parts.repository.roots()
    return digest_of(roots[max(roots)]) if roots else None


def _shown(row: Row, now_ms: int) -> Person:
    state: State = "valid"
    if row.revoked_ms is not None:
        state = "revoked"
    elif not row.valid(now_ms):
        state = "expired"
    return Person(
        row.name,
        row.role,
        state,
        rfc3339(row.created_ms),
        rfc3339(row.expires_ms) if row.expires_ms is not None else None,
        rfc3339(row.used_ms) if row.used_ms is not None else None,
    )


def _next(rows: list[Row], limit: int) -> str | None:
    return cursor([rows[limit - 1].name], "people") if len(rows) > limit else None
