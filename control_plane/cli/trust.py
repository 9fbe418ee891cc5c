"""`outrider trust`: who may sign what in a fleet. One ceremony folder travels to all who sign.

What the commands do is in `trusting`, which loads TUF; these lines do not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from control_plane.cli.commands import AsJson, Home, PassphraseFile, Yes, command, group

app = group("Who may sign what: ceremonies, signatures, expiry.")

_FOLDER: Final = "Folder of the ceremony."

Folder = Annotated[Path, typer.Argument(help=_FOLDER)]
SignNow = Annotated[
    list[Path] | None,
    typer.Option("--key", help="Sign with this key at once; again for further ones."),
]
Online = Annotated[Path, typer.Option(help="The server's keys/online.pub.")]
MaybeOnline = Annotated[
    Path | None, typer.Option(help="The server's keys/online.pub, with its new keys.")
]
Public = list[Path] | None


@command(app)
def init(
    directory: Folder,
    online: Online,
    root: Annotated[list[Path], typer.Option(help="Public key of a root holder; again for each.")],
    approver: Annotated[
        list[Path], typer.Option(help="Public key of an approver; again for each.")
    ],
    root_threshold: Annotated[
        int | None, typer.Option(help="How many root holders must sign; more than half.")
    ] = None,
    approver_threshold: Annotated[
        int | None, typer.Option(help="How many approvers must sign; more than half.")
    ] = None,
    key: SignNow = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Make the ceremony of a fleet's first root of trust. Away from the server."""
    from control_plane.cli import trusting

    trusting.init(
        directory=directory,
        online=online,
        root=root,
        approver=approver,
        root_threshold=root_threshold,
        approver_threshold=approver_threshold,
        key=key,
        passphrase_file=passphrase_file,
        as_json=as_json,
    )


@command(app)
def rotate(
    directory: Folder,
    add_root: Annotated[Public, typer.Option(help="Public key of a new root holder.")] = None,
    remove_root: Annotated[
        list[str] | None, typer.Option(help="Name of a root holder, or of a key id 8 digits.")
    ] = None,
    root_threshold: Annotated[int | None, typer.Option(help="As it is without it.")] = None,
    add_approver: Annotated[Public, typer.Option(help="Public key of a new approver.")] = None,
    remove_approver: Annotated[list[str] | None, typer.Option(help="Name of an approver.")] = None,
    approver_threshold: Annotated[int | None, typer.Option(help="As it is without it.")] = None,
    online: MaybeOnline = None,
    key: SignNow = None,
    passphrase_file: PassphraseFile = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Make a ceremony that changes who may sign what."""
    from control_plane.cli import trusting

    trusting.rotate(
        directory=directory,
        add_root=add_root,
        remove_root=remove_root,
        root_threshold=root_threshold,
        add_approver=add_approver,
        remove_approver=remove_approver,
        approver_threshold=approver_threshold,
        online=online,
        key=key,
        passphrase_file=passphrase_file,
        home=home,
        as_json=as_json,
    )


@command(app)
def renew(
    directory: Folder,
    role: Annotated[
        list[str] | None,
        typer.Option(help="root, targets or models; without it those that expire before long."),
    ] = None,
    key: SignNow = None,
    passphrase_file: PassphraseFile = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Make a ceremony that changes nothing but until when signatures are valid."""
    from control_plane.cli import trusting

    trusting.renew(
        directory=directory,
        role=role,
        key=key,
        passphrase_file=passphrase_file,
        home=home,
        as_json=as_json,
    )


@command(app)
def sign(
    directory: Folder,
    key: Annotated[Path, typer.Option(help="Your private key.")],
    passphrase_file: PassphraseFile = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """See what a ceremony would change, and sign what your key may sign."""
    from control_plane.cli import trusting

    trusting.sign(
        directory=directory,
        key=key,
        passphrase_file=passphrase_file,
        yes=yes,
        as_json=as_json,
    )


@command(app)
def status(
    directory: Annotated[Path | None, typer.Argument(help=_FOLDER)] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Who may sign what, and until when; or how far a ceremony is. Exit 8: look at it."""
    from control_plane.cli import trusting

    trusting.status(
        directory=directory,
        home=home,
        as_json=as_json,
    )


@command(app)
def publish(directory: Folder, home: Home = None, as_json: AsJson = False) -> None:
    """Verify a finished ceremony and put it in force, through the API or on a stopped server."""
    from control_plane.cli import trusting

    trusting.publish(
        directory=directory,
        home=home,
        as_json=as_json,
    )
