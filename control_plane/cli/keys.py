"""`outrider keys`: signing keys, made by their holders on their own machines."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from control_plane.cli import screen, showing
from control_plane.cli.commands import AsJson, Home, PassphraseFile, command, group
from control_plane.settings import read
from protocol.errors import InvalidRequest

app = group("Signing keys: made by their holders, on their own machines.")


@command(app)
def generate(
    file: Annotated[Path, typer.Argument(help="Where to write the key, as ana.pem.")],
    name: Annotated[str, typer.Option(help="Whose it is; others will see it.")],
    passphrase_file: PassphraseFile = None,
    unencrypted: Annotated[
        bool, typer.Option("--unencrypted", help="Whoever gets the file can sign.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make an Ed25519 key, and beside it the .pub that a ceremony needs."""
    from control_plane.cli import passphrases
    from control_plane.signing import keys

    public = keys.public_path(file)
    if public == file:
        raise InvalidRequest("OUT-S120", f"{file} is the name of a public key", do="name it .pem")
    for path in (file, public):
        if path.exists():
            raise InvalidRequest("OUT-S151", f"{path} is there already")
    keys.require_name(name)
    password = None if unencrypted else passphrases.new(file, passphrase_file)
    key = keys.generate(file, name, password).public_key
    keys.write_public(public, key)
    if as_json:
        showing.document(keys.public(key))
        return
    kind = "not encrypted: keep it from others" if unencrypted else "encrypted; keep it offline"
    showing.line("private", f"{file}, {kind}")
    showing.line("public", f"{public}: hand it to whoever makes the ceremony")
    showing.line("key", f"{key.keyid[: keys.SHORT]} of {name}")


@command(app)
def show(
    file: Annotated[Path, typer.Argument(help="A key, private or public.")],
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Whose key it is, and its id. Of a private key, the .pub beside it is read first."""
    from control_plane.cli import passphrases
    from control_plane.signing import keys

    public = keys.public_path(file)
    if public.exists():
        key = keys.load_public(public)
    else:
        key = passphrases.signer(file, passphrase_file).public_key
    if as_json:
        showing.document(keys.public(key))
        return
    showing.line("key", f"{key.keyid[: keys.SHORT]} of {keys.holder(key)}")
    showing.line("id", key.keyid)
    showing.line("scheme", key.scheme)


@command(app)
def online(
    role: Annotated[
        list[str] | None,
        typer.Option(help="rollouts or snapshot (which signs timestamp too); both without it."),
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Make new keys of the server, on the server. They wait until a ceremony names them."""
    from control_plane.signing import keys
    from control_plane.signing.create import ONLINE
    from control_plane.signing.online_keys import OnlineKeys

    settings = read(os.environ, home)
    own = OnlineKeys(settings.keys)
    chosen = role or list(ONLINE)
    for which in chosen:
        if which not in ONLINE:
            raise InvalidRequest("OUT-S120", f"{which} is none of {', '.join(ONLINE)}")
    for which in chosen:
        if not own.path(which, following=True).exists():
            own.generate(which, following=True)
    public = own.write_public(settings.fleet)
    if as_json:
        showing.document({which: keys.public(key) for which, key in own.wanted().items()})
        return
    for which in chosen:
        showing.line("new", f"key {own.wanted()[which].keyid[: keys.SHORT]} of {which}, waiting")
    showing.line("public", str(public))
    screen.hint("Next: outrider trust rotate DIR --online online.pub")
