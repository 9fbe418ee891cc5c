"""Puts a finished ceremony in force on this server, on record."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

from control_plane.settings import Settings
from control_plane.signing.ceremony import InForce, powers
from control_plane.signing.installing import Install
from control_plane.signing.repository import Repository, has_root
from control_plane.store import Store
from control_plane.web.listener import listen
from protocol.identifiers import digest_of

TOPIC: Final = "trust"
CHANGED: Final = "trust.changed"


def install(repository: Repository, store: Store, files: Install, who: str, now_ms: int) -> bool:
    """False if it is in force already. Raises what `Repository.install` raises."""
    with store.write():
        before = repository.in_force()
        if not repository.install(files, now_ms):
            return False
        _note(store, who, before, repository.in_force(), now_ms)
        return True


def install_here(settings: Settings, files: Install, who: str, now_ms: int) -> bool:
    """On the files of a control plane that does not run; its first root too.

    Raises `Unavailable` OUT-N106 if it runs, and what `Repository.install` raises.
    """
    # Without a root none can run.
    alone = _stopped(settings) if has_root(settings.tuf) else contextlib.nullcontext()
    with alone, contextlib.closing(Store(settings.store)) as store:
        if has_root(settings.tuf):
            repository = Repository.open(settings.tuf, settings.keys, settings.fleet, signs=False)
            return install(repository, store, files, who, now_ms)
        with store.write():
            repository = Repository.found(
                settings.tuf, settings.keys, settings.fleet, files, now_ms
            )
            _note(store, who, None, repository.in_force(), now_ms)
        return True


@contextlib.contextmanager
def _stopped(settings: Settings) -> Iterator[None]:
    """While its port is ours, no control plane of these files runs."""
    listener = listen(settings.api_host, settings.api_port)
    try:
        yield
    finally:
        listener.close()


def _note(store: Store, who: str, before: InForce | None, after: InForce, now_ms: int) -> None:
    said = _said(after)
    store.happened(
        who,
        TOPIC,
        CHANGED,
        said["versions"],
        now_ms,
        before=_said(before) if before is not None else None,
        after=said,
        evidence=digest_of(after.root),
    )


def _said(state: InForce) -> dict[str, Any]:
    found = powers(state)
    roles = {role: found.of(role) for role in ("root", "models", "rollouts", "snapshot")}
    return {
        "versions": dict(found.versions),
        "keys": {
            role: {"threshold": each.threshold, "keyids": sorted(each.keys)}
            for role, each in roles.items()
        },
    }
