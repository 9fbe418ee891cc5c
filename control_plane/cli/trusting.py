"""What `outrider trust` does: makes, shows, signs and publishes ceremonies."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import typer
from securesystemslib.signer import Key

from control_plane import settings as configuration
from control_plane.cli import ceremonies, screen, showing
from control_plane.cli.commands import connect
from control_plane.cli.own_trust import published
from control_plane.roles import LOCAL
from control_plane.settings import Settings, find_home
from control_plane.signing import (
    ceremony,
    ceremony_folder,
    ceremony_rules,
    expiry,
    keys,
    online_keys,
    rotation,
)
from control_plane.signing.ceremony import Holding, InForce, Proposal, powers
from control_plane.signing.ceremony_words import day
from control_plane.signing.installing import Install
from control_plane.signing.repository import has_root
from control_plane.signing.rotation import Change, majority
from protocol.errors import InvalidRequest, TrustError, Unavailable

NEEDS_LOOK: Final = 8


def init(
    *,
    directory: Path,
    online: Path,
    root: Sequence[Path],
    approver: Sequence[Path],
    root_threshold: int | None,
    approver_threshold: int | None,
    key: Sequence[Path] | None,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    fleet, servers = online_keys.read_public(online)
    proposal = rotation.first(
        fleet,
        _holding("root", root, root_threshold),
        _holding("models", approver, approver_threshold),
        rollouts=servers["rollouts"],
        snapshot=servers["snapshot"],
        now=_now(),
    )
    _made(directory, proposal, key, passphrase_file, as_json=as_json)


def rotate(
    *,
    directory: Path,
    add_root: Sequence[Path] | None,
    remove_root: Sequence[str] | None,
    root_threshold: int | None,
    add_approver: Sequence[Path] | None,
    remove_approver: Sequence[str] | None,
    approver_threshold: int | None,
    online: Path | None,
    key: Sequence[Path] | None,
    passphrase_file: Path | None,
    home: Path | None,
    as_json: bool,
) -> None:
    fleet, base = _in_force(home)
    servers: Mapping[str, Key] = {}
    if online is not None:
        of, servers = online_keys.read_public(online)
        if of != fleet:
            raise TrustError("OUT-T124", f"{online} is of fleet {of}, this is {fleet}")
    proposal = rotation.rotate(
        fleet,
        base,
        _now(),
        root=_change(add_root, remove_root, root_threshold),
        models=_change(add_approver, remove_approver, approver_threshold),
        rollouts=servers.get("rollouts"),
        snapshot=servers.get("snapshot"),
    )
    _made(directory, proposal, key, passphrase_file, as_json=as_json)


def renew(
    *,
    directory: Path,
    role: Sequence[str] | None,
    key: Sequence[Path] | None,
    passphrase_file: Path | None,
    home: Path | None,
    as_json: bool,
) -> None:
    fleet, base = _in_force(home)
    for each in role or ():
        if each not in expiry.OFFLINE:
            raise InvalidRequest("OUT-S120", f"{each} is none of {', '.join(expiry.OFFLINE)}")
    roles = role or expiry.worth_renewing(powers(base).expires, _now())
    if not roles:
        raise TrustError("OUT-T124", "nothing expires before long", do="say which: --role models")
    _made(
        directory,
        rotation.renew(fleet, base, roles, _now()),
        key,
        passphrase_file,
        as_json=as_json,
    )


def sign(
    *,
    directory: Path,
    key: Path,
    passphrase_file: Path | None,
    yes: bool,
    as_json: bool,
) -> None:
    proposal = ceremonies.sign(directory, key, passphrase_file, ask=not yes)
    _tell(directory, proposal, as_json=as_json)


def status(
    *,
    directory: Path | None,
    home: Path | None,
    as_json: bool,
) -> None:
    if directory is not None:
        proposal = ceremony_folder.read(directory)
        ceremony_rules.check(proposal, _now())
        if as_json:
            showing.document(ceremonies.document(proposal))
        else:
            ceremonies.show(proposal)
            ceremonies.tell(proposal)
        if not all(need.complete for need in ceremony.needs(proposal)):
            raise typer.Exit(NEEDS_LOOK)
        return
    fleet, base = _in_force(home)
    found = powers(base)
    expires = {**found.expires, **_online_expiries(home)}
    look = expiry.expiring(expires, _now())
    if as_json:
        showing.document(_document(fleet, found, expires, look))
    else:
        _table(found, expires)
        for each in look:
            do = "outrider trust renew" if each.offline else "does the control plane run?"
            showing.line("!", f"{each.said}: {do}", width=2)
    if look:
        raise typer.Exit(NEEDS_LOOK)


def publish(
    *,
    directory: Path,
    home: Path | None,
    as_json: bool,
) -> None:
    proposal = ceremony_folder.read(directory)
    here = _settings(home)
    if here is not None and not has_root(here.tuf):
        ceremonies.require_made_here(proposal, here.fleet, None)
    else:
        fleet, state = _in_force(home)
        ceremonies.require_made_here(proposal, fleet, state)
    ceremony.require_complete(proposal)
    changed = _publish(proposal, here, home)
    result = proposal.result()
    versions = powers(result).versions
    if as_json:
        showing.document({"changed": changed, **versions})
        return
    said = ", ".join(f"{role} {number}" for role, number in versions.items())
    showing.line("in force" if changed else "already", said)
    if proposal.base is None:
        showing.line("root", f"{ceremonies.fingerprint(result.root)}: new/root.json of the folder")
        showing.line("", "is what every approver starts from: give each a copy")
        screen.hint("Next: outrider serve, or outrider up")


# --- making -------------------------------------------------------------------------------------


def _made(
    directory: Path,
    proposal: Proposal,
    found: Sequence[Path] | None,
    passphrase_file: Path | None,
    *,
    as_json: bool,
) -> None:
    ceremony_folder.write(directory, proposal)
    signed = ceremonies.sign_all(directory, list(found or ()), passphrase_file)
    if not as_json:
        if not found:
            ceremonies.show(proposal)
        showing.line("wrote", f"{directory}: the ceremony; it travels to all who sign")
    _tell(directory, signed, as_json=as_json)


def _tell(directory: Path, proposal: Proposal, *, as_json: bool) -> None:
    if as_json:
        showing.document(ceremonies.document(proposal))
        return
    ceremonies.tell(proposal)
    complete = all(need.complete for need in ceremony.needs(proposal))
    follows = f"publish {directory}" if complete else f"sign {directory} --key KEY"
    screen.hint(f"Next: outrider trust {follows}")


def _holding(role: str, paths: Sequence[Path], threshold: int | None) -> Holding:
    found = [keys.load_public(path) for path in paths]
    by_id = {key.keyid: key for key in found}
    if len(by_id) < len(found):
        raise InvalidRequest("OUT-T117", f"{role}: one key is named twice")
    return Holding(by_id, majority(by_id) if threshold is None else threshold)


def _change(
    add: Sequence[Path] | None, remove: Sequence[str] | None, threshold: int | None
) -> Change:
    return Change([keys.load_public(path) for path in add or ()], remove or (), threshold)


# --- what is in force -----------------------------------------------------------------------------


def _settings(home: Path | None) -> Settings | None:
    """Of a control plane whose files are here; None if it is elsewhere."""
    place = find_home(os.environ, home)
    if not (place / configuration.FILE).exists():
        return None
    return configuration.read(os.environ, home)


def _in_force(home: Path | None) -> tuple[str, InForce]:
    """From the files here, or from the API. Who signs compares it with what they have seen."""
    here = _settings(home)
    if here is not None:
        found = ceremony_folder.read_in_force(here.tuf)
        if found is None:
            raise InvalidRequest("OUT-T116", f"there is none in {here.tuf}")
        return here.fleet, found
    with connect(home) as client:
        roots, roles = published(client)
        if not {"targets", "models"} <= set(roles):
            raise Unavailable("OUT-T109", "nothing was published yet")
        return client.access.fleet, InForce(roots, roles["targets"], roles["models"])


def _online_expiries(home: Path | None) -> dict[str, datetime]:
    here = _settings(home)
    files: dict[str, bytes] = {}
    if here is not None:
        paths = {role: here.tuf / f"{role}.json" for role in ("rollouts", "snapshot", "timestamp")}
        files = {role: path.read_bytes() for role, path in paths.items() if path.exists()}
    else:
        with connect(home) as client:
            _, roles = published(client)
        files = {
            role: roles[role] for role in ("rollouts", "snapshot", "timestamp") if role in roles
        }
    return {role: ceremony.expires(data) for role, data in files.items()}


def _publish(proposal: Proposal, here: Settings | None, home: Path | None) -> bool:
    from control_plane.new_trust import install_here

    files = Install.of(proposal)
    if here is not None:
        try:
            return install_here(here, files, LOCAL, showing.now_ms())
        except Unavailable as error:
            if error.code != "OUT-N106":
                raise
            # It runs: then it does it itself.
    texts = {"root": files.root, "targets": files.targets, "models": files.models}
    body = {role: data.decode() if data is not None else None for role, data in texts.items()}
    with connect(home) as client:
        return bool(client.post("tuf", body)["changed"])


# --- showing --------------------------------------------------------------------------------------


def _table(found: ceremony.Powers, expires: Mapping[str, datetime]) -> None:
    rows = []
    for role in (*expiry.OFFLINE, "rollouts", "snapshot", "timestamp"):
        holding = found.of(role)
        by = holding.said if role in expiry.OFFLINE else "the server"
        until = day(expires[role]) if role in expires else "-"
        rows.append([role, str(found.versions.get(role, "")) or "-", by, until])
    showing.table(["ROLE", ">VERSION", "SIGNED BY", "VALID UNTIL"], rows)


def _document(
    fleet: str,
    found: ceremony.Powers,
    expires: Mapping[str, datetime],
    look: Sequence[expiry.Expiring],
) -> dict[str, Any]:
    soon = {each.role for each in look}
    return {
        "fleet": fleet,
        "roles": [
            {
                "role": role,
                "version": found.versions.get(role),
                "holders": list(found.of(role).names),
                "threshold": found.of(role).threshold,
                "expires": moment.isoformat().replace("+00:00", "Z"),
                "expires_in_s": (moment - _now()) // timedelta(seconds=1),
                "look": role in soon,
            }
            for role, moment in expires.items()
        ],
    }


def _now() -> datetime:
    # Whole seconds: TUF has no others.
    return ceremonies.now().replace(microsecond=0)
