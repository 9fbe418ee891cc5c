"""Makes the home of a new control plane: settings, certificates, keys, repository, a token."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from control_plane import settings as configuration
from control_plane.broker import control_identity
from control_plane.fleet.authority import Authority
from control_plane.settings import API_PORT, BROKER_PORT, Settings
from control_plane.signing.create import ONLINE
from control_plane.signing.online_keys import OnlineKeys
from control_plane.signing.repository import Repository
from control_plane.store import Store
from protocol.errors import InvalidRequest
from protocol.identifiers import digest_of, fleet_name

TOKEN_BYTES: Final = 32


def init(
    home: Path,
    fleet: str = "local",
    *,
    api_port: int = API_PORT,
    broker_port: int = BROKER_PORT,
    host: str = "127.0.0.1",
    hosts: Sequence[str] = (),
    now_ms: int | None = None,
) -> Settings:
    """A control plane without a root of trust: keys that approve are not made on a server.

    It has its own keys, and `online.pub` for the ceremony that makes the root. Arguments and
    errors as of `init_dev`.
    """
    settings = _settings(home.absolute(), fleet, host, hosts, api_port, broker_port, dev=False)

    def trust(of: Settings, _now: int) -> None:
        own = OnlineKeys(of.keys)
        for which in ONLINE:
            own.generate(which)
        own.write_public(of.fleet)

    _beside(settings, now_ms, (host, *hosts), trust)
    return settings


def init_dev(
    home: Path,
    fleet: str = "local",
    *,
    api_port: int = API_PORT,
    broker_port: int = BROKER_PORT,
    host: str = "127.0.0.1",
    hosts: Sequence[str] = (),
    approvers: Sequence[str] = (),
    now_ms: int | None = None,
) -> Settings:
    """Everything in place or nothing. Port 0: a free one is chosen and written down.

    `host` is the address that broker and API listen on; `hosts` are further names and addresses
    that their certificates are valid for. `approvers` get a key each, and more than half of them
    must sign; without, one key is enough. Raises `InvalidRequest`: OUT-S151 if there is a control
    plane or anything else in `home`, OUT-S120 for a name that no fleet can have, OUT-T117 for
    names that are no two approvers'.
    """
    settings = _settings(home.absolute(), fleet, host, hosts, api_port, broker_port, dev=True)

    def trust(of: Settings, now: int) -> None:
        Repository.create_dev(of.tuf, of.keys, of.fleet, now, approvers)

    _beside(settings, now_ms, (host, *hosts), trust)
    return settings


def _beside(
    settings: Settings,
    now_ms: int | None,
    hosts: Sequence[str],
    trust: Callable[[Settings, int], None],
) -> None:
    """Made beside and renamed: a power cut never leaves half a control plane."""
    home = settings.home
    now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    beside = home.with_name(f".{home.name}.init")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True, mode=0o700)
    try:
        _make(replace(settings, home=beside), now, hosts, trust)
        if home.exists():
            home.rmdir()
        beside.rename(home)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def refuse_existing(home: Path) -> None:
    """Raises `InvalidRequest` OUT-S151."""
    if (home / configuration.FILE).exists():
        raise InvalidRequest("OUT-S151", str(home))
    if home.exists() and (not home.is_dir() or any(home.iterdir())):
        raise InvalidRequest("OUT-S151", f"{home} is not empty")


def _settings(
    home: Path,
    fleet: str,
    host: str,
    hosts: Sequence[str],
    api_port: int,
    broker_port: int,
    *,
    dev: bool,
) -> Settings:
    refuse_existing(home)
    configuration.require_loopback(dev, host)
    try:
        fleet_name(fleet)
        control_identity(fleet)
        api, broker = _ports(host, api_port, broker_port)
        return configuration.parse(
            {
                "fleet": fleet,
                "dev": dev,
                "api_host": host,
                "api_port": api,
                "broker_host": host,
                "broker_port": broker,
                "hosts": list(hosts),
            },
            home,
        )
    except ValueError as error:
        raise InvalidRequest("OUT-S120", str(error)) from error


def _make(
    settings: Settings, now_ms: int, hosts: Sequence[str], trust: Callable[[Settings, int], None]
) -> None:
    Authority.create(settings.ca, settings.fleet, now_ms, hosts)
    trust(settings, now_ms)
    token = secrets.token_urlsafe(TOKEN_BYTES)
    store = Store(settings.store)
    store.people.keep_local(digest_of(token.encode()), now_ms)
    store.close()
    descriptor = os.open(settings.operator_token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(token + "\n")
    configuration.write(settings)


def _ports(host: str, *wanted: int) -> list[int]:
    """The wanted ports, with free ones for 0. Held open together, so that they differ."""
    held: list[socket.socket] = []
    try:
        ports = []
        for port in wanted:
            if port == 0:
                family = socket.AF_INET6 if ":" in host else socket.AF_INET
                held.append(socket.socket(family))
                held[-1].bind((host, 0))
                port = held[-1].getsockname()[1]  # noqa: PLW2901 - 0 stands for a free one
            ports.append(port)
        return ports
    finally:
        for each in held:
            each.close()
