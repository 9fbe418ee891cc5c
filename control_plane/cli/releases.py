"""`outrider model`: what people decide about versions. Approvers sign, operators only take away.

approver  approve, reject, revoke       needs a key, and somebody else's where two must sign
operator  withdraw, deny, undeny        at once
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from control_plane import settings as configuration
from control_plane.access import read_remote
from control_plane.cli import asking, screen, showing
from control_plane.cli.catalog import Reference, app, path_of
from control_plane.cli.commands import AsJson, Home, Why, Yes, command, connect
from control_plane.client import segment
from control_plane.settings import Settings
from control_plane.signing.review import OnDevice
from protocol.errors import InvalidRequest
from protocol.wording import share

__all__ = ["app"]

Key = Annotated[
    Path | None, typer.Option(help="Your key (PEM); the development keys in turn without it.")
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(help="Read the key's passphrase from this file's first line, do not ask."),
]
AuditLost = Annotated[
    bool,
    typer.Option(
        "--audit-lost",
        help="Go on although records that approvers signed are gone: a backup was restored.",
    ),
]
_SIGNED = 11


@command(app)
def approve(
    reference: Annotated[str | None, typer.Argument(help="model/version")] = None,
    renewal: Annotated[
        bool, typer.Option("--renewal", help="No version: sign the same list again, for 90 days.")
    ] = False,
    key: Key = None,
    passphrase_file: PassphraseFile = None,
    audit_lost: AuditLost = False,
    yes: Yes = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Verify with your own TUF client what your signature would allow, then sign."""
    from control_plane.cli import approving

    if renewal == (reference is not None):
        raise InvalidRequest("OUT-S120", "name a version, or --renewal")
    settings = _settings(home)
    how = approving.How(key, passphrase_file, _ask(settings, key, yes), True, audit_lost)
    with connect(home) as client:
        if reference is None:
            signed = approving.renew(client, settings, how)
        else:
            signed = approving.approve(client, settings, reference, how)
    if as_json:
        showing.document(signed)
        return
    if signed["complete"]:
        what = f"approved {reference}" if reference else "renewed the list of models"
        screen.result(f"{what} ({_by(signed)})")
    else:
        showing.line("signed", f"{_counted(signed)}; {_missing(signed)}", width=_SIGNED)
    _tell_restarted(signed)


@command(app)
def reject(reference: Reference, why: Why = "", home: Home = None, as_json: AsJson = False) -> None:
    """Close what approvers are asked to sign about a version. Signatures are discarded."""
    path_of(reference)
    with connect(home) as client:
        found = client.get("drafts", version=reference)["items"]
        if not found:
            raise InvalidRequest(
                "OUT-S110",
                f"no draft of {reference} is open",
                do=f"outrider model show {reference}",
            )
        closed = [
            client.post(f"drafts/{segment(each['id'])}/reject", {"why": why}) for each in found
        ]
    if as_json:
        showing.document({"items": closed})
        return
    for each in closed:
        discarded = showing.plural(each["discarded"], "signature")
        text = f"draft {each['draft']} closed, {discarded} discarded"
        showing.line("rejected", text, width=_SIGNED)


@command(app)
def withdraw(
    reference: Reference, why: Why = "", home: Home = None, as_json: AsJson = False
) -> None:
    """Take back a version that is not approved. It can be pushed again, also mended."""
    with connect(home) as client:
        found = client.post(f"{path_of(reference)}/withdraw", {"why": why})
    if as_json:
        showing.document(found)
        return
    showing.line("withdrawn", f"{reference}; its name is free again", width=_SIGNED)


@command(app)
def revoke(
    reference: Reference,
    why: Annotated[str, typer.Option(help="For the record, and for the other approvers.")],
    on_device: Annotated[
        OnDevice, typer.Option(help="What a device does that runs it.")
    ] = "fallback",
    key: Key = None,
    passphrase_file: PassphraseFile = None,
    audit_lost: AuditLost = False,
    yes: Yes = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Take a version away for good. As many approvers sign as for an approval."""
    from control_plane.cli import approving

    settings = _settings(home)
    how = approving.How(key, passphrase_file, _ask(settings, key, yes), True, audit_lost)
    with connect(home) as client:
        version = client.get(path_of(reference))["version"]
        signed = approving.revoke(client, settings, reference, on_device, why, how)
    if as_json:
        showing.document(signed)
        return
    run = _run(version["devices"])
    if signed["complete"]:
        ends = {"stop": "stops answering with it", "fallback": "falls back", "report": "reports it"}
        screen.result(f"revoked {reference} ({_by(signed)})")
        showing.line("devices", f"{run}; whoever does {ends[on_device]}", width=_SIGNED)
    else:
        showing.line("signed", f"{_counted(signed)}: not in force yet. {run}.", width=_SIGNED)
        screen.hint(f"next       {' or '.join(signed['missing'])}: the same command")
        if not version["denied"]:
            screen.hint(f"sooner     an operator can: outrider model deny {reference}")
            screen.hint("           (falls back, never stops)")
    _tell_restarted(signed)


@command(app)
def deny(
    reference: Reference,
    why: Why = "",
    yes: Yes = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Have no device start a version, and whoever runs it fall back. At once; never stops."""
    path = path_of(reference)
    with connect(home) as client:
        devices = client.get(path)["version"]["devices"]
        what = f"{_run(devices)} now and would fall back."
        asking.confirm(what, devices, whole_fleet=False, yes=yes, verb="Deny")
        denial = client.put(f"{path}/denial", {"why": why})
    if as_json:
        showing.document(denial)
        return
    showing.line("denied", f"{reference}; {_run(denial['devices'])} now", width=_SIGNED)
    screen.hint(f"back       outrider model undeny {reference}")


@command(app)
def undeny(reference: Reference, home: Home = None, as_json: AsJson = False) -> None:
    """Lift a denial: devices may run the version again where plans say so."""
    with connect(home) as client:
        denial = client.delete(f"{path_of(reference)}/denial")
    if as_json:
        showing.document(denial)
        return
    showing.line("allowed", f"{reference}; plans decide again", width=_SIGNED)


def _settings(home: Path | None) -> Settings:
    """Of the control plane that lives there; or what can be said of one elsewhere."""
    place = configuration.find_home(os.environ, home)
    if not (place / configuration.FILE).exists():
        remote = read_remote(place)
        if remote is not None:
            return Settings(place, remote.fleet)
    return configuration.read(os.environ, home)


def _ask(settings: Settings, key: Path | None, yes: bool) -> bool:
    """A development key lies on this machine without a password: asking would protect nothing."""
    return not yes and not (settings.dev and key is None)


def _counted(signed: dict[str, Any]) -> str:
    return share(signed["signed"], signed["needed"])


def _by(signed: dict[str, Any]) -> str:
    return f"{_counted(signed)}: {', '.join(signed['by'])}"


def _missing(signed: dict[str, Any]) -> str:
    """ "bo or cy is missing"."""
    left, names = signed["needed"] - signed["signed"], signed["missing"]
    if left == 1:
        return f"{' or '.join(names)} is missing"
    return f"{left} of {', '.join(names)} are missing"


def _run(devices: int) -> str:
    return "1 device runs it" if devices == 1 else f"{showing.plural(devices, 'device')} run it"


def _tell_restarted(signed: dict[str, Any]) -> None:
    if signed["restarted"]:
        names = ", ".join(signed["restarted"])
        screen.hint(f"again      {names}: the list has changed, so signatures start anew")
