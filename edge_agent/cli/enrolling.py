"""`outrider-agent enrol`: how a device joins a fleet, and keeps its certificate."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_agent import settings as settings_of
from edge_agent.cli.commands import AsJson, Home, write
from protocol.codec import encode
from protocol.errors import InvalidRequest

if TYPE_CHECKING:
    from edge_agent.identity import Identity


def enrol(
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token; without it, the token is asked for.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="This device's name in the fleet.")] = None,
    renew: Annotated[
        bool, typer.Option("--renew", help="The next certificate of a device that is enrolled.")
    ] = False,
    csr_to: Annotated[
        Path | None, typer.Option(help="Without network: write a request file into this folder.")
    ] = None,
    answer: Annotated[
        Path | None, typer.Option(help="Without network: the operator's answer file.")
    ] = None,
    root_digest: Annotated[
        str | None, typer.Option(help="With --answer: the digest that the operator was shown.")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Make this device's key and join a fleet with a one-time token, or renew its certificate."""
    place = settings_of.read(os.environ, home).paths.home
    _require_fitting(token_file, name, renew, csr_to, answer, root_digest)
    with belonging_to_its_owner(place):
        _enrol(token_file, name, renew, csr_to, answer, root_digest, place, as_json)


def _enrol(
    token_file: Path | None,
    name: str | None,
    renew: bool,
    csr_to: Path | None,
    answer: Path | None,
    root_digest: str | None,
    place: Path,
    as_json: bool,
) -> None:
    from edge_agent import offline
    from edge_agent.enrol import enrol as join

    if csr_to is not None:
        file = (
            offline.write_renewal(place, csr_to)
            if renew
            else offline.write_request(place, csr_to, name)
        )
        _tell_request(file, as_json)
        return
    if renew:
        from edge_agent.identity import load
        from edge_agent.renew import renew as ask

        identity = (
            offline.take_renewal(place, answer)
            if answer is not None
            else ask(place, offline.trusted_ms(load(place)))
        )
        if as_json:
            write(encode(identity.public))
        else:
            typer.echo(f"renewed    {identity.local}; cert until {_until(identity)}")
        return
    if answer is not None and root_digest is not None:
        identity = offline.take_answer(place, answer, root_digest)
    else:
        identity = join(_token(token_file), place, name=name)
    if as_json:
        write(encode(identity.public))
        return
    labels = "".join(f", {key}={value}" for key, value in sorted(identity.labels.items()))
    told = f"{identity.local} in fleet {identity.fleet}{labels}"
    if token_file is not None:
        typer.echo(f"enrolled {told}")
        return
    typer.echo("key        made on this device, stays here", err=True)
    typer.echo(f"root.json  matches the {'token' if answer is None else 'digest'}", err=True)
    typer.echo(f"enrolled   {told}; cert until {_until(identity)}")


@contextmanager
def belonging_to_its_owner(home: Path) -> Iterator[None]:
    """What root writes below a state folder of another user is that user's afterwards: its agent
    could not read it otherwise. A link that somebody put there is left as it is."""
    yield
    if os.geteuid() != 0 or not home.is_dir():
        return
    owner = home.stat()
    identity = home / "identity"
    if owner.st_uid == 0 or not identity.is_dir():
        return
    for path in (identity, *identity.iterdir()):
        found = path.lstat()
        alone = stat.S_ISDIR(found.st_mode) or (stat.S_ISREG(found.st_mode) and found.st_nlink == 1)
        if found.st_uid == 0 and alone:
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _require_fitting(
    token_file: Path | None,
    name: str | None,
    renew: bool,
    csr_to: Path | None,
    answer: Path | None,
    root_digest: str | None,
) -> None:
    """Raise `InvalidRequest` OUT-S120 for options of `enrol` that say two things at once."""
    enrols_with_file = answer is not None and not renew
    wrong = {
        "either --csr-to or --answer: first the one, later the other": csr_to and answer,
        "with files there is no token": token_file and (renew or csr_to or answer),
        "the name goes into the request: --csr-to": name and (renew or answer),
        "--root-digest goes with --answer": root_digest and not enrols_with_file,
        "--root-digest is missing: the operator's command showed it": (
            enrols_with_file and not root_digest
        ),
    }
    for why, said in wrong.items():
        if said:
            raise InvalidRequest("OUT-S120", why, do="outrider-agent enrol --help")


def _tell_request(file: Path, as_json: bool) -> None:
    if as_json:
        write(json.dumps({"request": str(file)}).encode())
        return
    typer.echo("key        stays on this device", err=True)
    typer.echo(f"wrote      {file}")
    typer.echo(
        f"next       an operator runs: outrider device sign-request {file.name} --to .", err=True
    )


def _until(identity: Identity) -> str:
    from edge_agent.identity import certificate_until_ms

    until = datetime.fromtimestamp(certificate_until_ms(identity.folder) / 1000, UTC)
    return f"{until.day} {until:%b %Y}"


def _token(file: Path | None) -> str:
    """Never from the command line: others on this machine can read that."""
    if file is None:
        if sys.stdin.isatty():
            text = str(
                typer.prompt("Token (or the text of its QR code)", hide_input=True, err=True)
            )
        else:
            text = sys.stdin.readline()
    else:
        try:
            text = file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            do = "an operator runs: outrider device enrol-token > FILE"
            raise InvalidRequest("OUT-S110", f"no token in {file}", do=do) from error
    return text.strip()
