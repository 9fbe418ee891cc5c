"""`outrider auth`: who may call the API, and one's own access to a control plane elsewhere."""

from __future__ import annotations

import os
import ssl
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from control_plane import access, settings
from control_plane.access import Remote
from control_plane.cli import screen, showing
from control_plane.cli.commands import AsJson, Cursor, Home, client_of, command, connect, group
from control_plane.client import Client, segment
from control_plane.people import Login, decode_login
from control_plane.roles import ROLES
from control_plane.settings import find_home
from control_plane.signing import durable
from protocol.errors import InvalidRequest, TrustError
from protocol.identifiers import Digest, digest_of, short
from protocol.wording import date, moment

app = group("Who may call the API, in which role; and your own access to it.")

Person = Annotated[str, typer.Argument(help="A person, or a program.")]

_DAYS: Final = 90


@command(app)
def create(
    name: Person,
    role: Annotated[str, typer.Option(help=f"One of {', '.join(ROLES)}.")],
    expires: Annotated[str, typer.Option(help="90d, 12h, 2027-01-31 or never.")] = f"{_DAYS}d",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Print a login text, once: whoever has it is this person until it expires."""
    end = _end(expires, showing.now_ms())
    body = {"name": name, "role": role, "expires": end.isoformat() if end else None}
    with connect(home) as client:
        made = client.post("people", body)
    if as_json:
        showing.document(made)
        return
    screen.result(made["login"])
    until = f"until {_day(made['person']['expires'])}" if end else "until it is revoked"
    screen.hint(f"{name} is {role} {until}; this text is not shown again")
    screen.hint("where they work: outrider auth login --token-file FILE")


@command(app, "list")
def list_people(cursor: Cursor = None, home: Home = None, as_json: AsJson = False) -> None:
    """Who may call the API, in which role, and when they did last."""
    with connect(home) as client:
        page = client.get("people", limit=showing.MOST_ROWS, cursor=cursor)
    if as_json:
        showing.document(page)
        return
    now_ms = showing.now_ms()
    rows = [
        [
            each["name"],
            each["role"],
            each["state"],
            moment(showing.moment_ms(each["used"]), now_ms) if each["used"] else "never",
            _until(each),
        ]
        for each in page["items"]
    ]
    showing.table(["NAME", "ROLE", "TOKEN", "LAST USED", "EXPIRES"], rows)
    if page["next_cursor"]:
        screen.hint(f"go on: outrider auth list --cursor {page['next_cursor']}")


@command(app)
def revoke(name: Person, home: Home = None, as_json: AsJson = False) -> None:
    """End somebody's access at once."""
    with connect(home) as client:
        person = client.delete(f"people/{segment(name)}")
    if as_json:
        showing.document(person)
        return
    screen.result(f"{person['state']:<9}{name}, who was {person['role']}")


@command(app)
def whoami(home: Home = None, as_json: AsJson = False) -> None:
    """Who the control plane takes you for, and what you may do."""
    with connect(home) as client:
        found = client.get("whoami")
        url = client.access.url
    if as_json:
        showing.document(found)
        return
    screen.result(f"{found['name']} is {found['role']} in fleet {found['fleet']}, {url}")
    screen.result(f"may      {', '.join(found['permissions'])}")


@command(app)
def login(
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with the login text; without it, the text is asked for."),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(help="Your own copy of root.json; without it, the login text vouches for it."),
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Keep your access to a control plane elsewhere in a folder of yours."""
    place = find_home(os.environ, home)
    _require_free(place)
    asked = decode_login(_text(token_file))
    _require_same(place, asked)
    authority = ssl.DER_cert_to_PEM_cert(asked.authority) if asked.c else None
    remote = Remote(asked.u, asked.f, asked.t, authority)
    own = root.read_bytes() if root else _kept(place)
    with client_of(remote.access) as client:
        found = client.get("whoami")
        first = _root(client, asked.r, own)
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    if first is not None:
        durable.replace(place / access.ROOT, first)
    of_root = digest_of(first) if first is not None else None
    access.write_remote(place, Remote(asked.u, asked.f, asked.t, authority, of_root))
    if as_json:
        showing.document(found)
        return
    if of_root:
        by = "is your own copy" if own is not None else "matches the login text"
        screen.hint(f"root.json  {by}: {short(of_root)}")
    else:
        screen.hint("root.json  there is none yet: log in again after the ceremony")
    screen.result(f"{found['name']} is {found['role']} in fleet {found['fleet']}, {asked.u}")
    if token_file is not None:
        screen.hint(f"{token_file} is not needed any more: remove it")


@command(app)
def logout(home: Home = None) -> None:
    """Forget your access on this machine. The token stays valid until it is revoked."""
    place = find_home(os.environ, home)
    path = place / access.FILE
    if not path.exists():
        raise InvalidRequest("OUT-S110", f"no {access.FILE} in {place}", do="check --home")
    path.unlink()
    screen.result(f"removed  {path}")
    screen.hint("the token is still valid; an admin ends it: outrider auth revoke")


def _text(file: Path | None) -> str:
    """Never from the command line: others on this machine can read that."""
    if file is None:
        if sys.stdin.isatty():
            return str(typer.prompt("Login text", hide_input=True, err=True))
        return sys.stdin.readline()
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        do = "an admin runs: outrider auth create NAME --role ROLE > FILE"
        raise InvalidRequest("OUT-S110", f"no login text in {file}", do=do) from None


def _require_free(place: Path) -> None:
    """Raises `InvalidRequest` OUT-S151: the commands there use its own token."""
    if (place / settings.FILE).exists():
        do = "choose another folder with --home"
        raise InvalidRequest("OUT-S151", f"{place} is the control plane itself", do=do)


def _require_same(place: Path, asked: Login) -> None:
    """Raises `InvalidRequest` OUT-S151: what an approver remembers is of one fleet."""
    try:
        before = access.read_remote(place)
    except InvalidRequest:
        # It is about to be replaced by one that can be read.
        return
    if before is not None and (before.url, before.fleet) != (asked.u, asked.f):
        raise InvalidRequest(
            "OUT-S151",
            f"{place} is your access to fleet {before.fleet} at {before.url}",
            do="choose another folder with --home",
        )


def _kept(place: Path) -> bytes | None:
    """The root that an earlier login, or the ceremony, left here: a text never replaces it."""
    path = place / access.ROOT
    return path.read_bytes() if path.exists() else None


def _root(client: Client, vouched: Digest | None, own: bytes | None) -> bytes | None:
    """The root to start from; None while the fleet has none.

    Raises `TrustError` OUT-T108 if the control plane does not show the very root that is wanted.
    """
    wanted = digest_of(own) if own is not None else vouched
    if wanted is None:
        return None
    roots: dict[str, Any] = client.get("tuf")["roots"]
    if not roots and own is not None:
        # The ceremony is over, its result not installed yet.
        return own
    for text in roots.values():
        if digest_of(text.encode()) == wanted:
            return str(text).encode()
    said = "your root.json" if own is not None else "the login text"
    raise TrustError(
        "OUT-T108",
        f"none of its {len(roots)} roots is that of {said}, {short(wanted)}",
        do="ask in another way which is right, before you use this access",
    )


def _end(text: str, now_ms: int) -> datetime | None:
    """When a token expires. Raises `InvalidRequest` OUT-S120."""
    if text == "never":
        return None
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    number, unit = text[:-1], text[-1:]
    if number.isdecimal() and len(number) <= 4 and unit in ("d", "h"):
        return now + timedelta(**{"days" if unit == "d" else "hours": int(number)})
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        wanted = "90d, 12h, 2027-01-31 or never"
        raise InvalidRequest("OUT-S120", f"--expires {text}: no such time", do=wanted) from error
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _until(person: dict[str, Any]) -> str:
    """What was revoked has no end any more."""
    if person["state"] == "revoked":
        return ""
    return _day(person["expires"]) if person["expires"] else "never"


def _day(text: str) -> str:
    return date(showing.moment_ms(text) or 0, showing.now_ms())
