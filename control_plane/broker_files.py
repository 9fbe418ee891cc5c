"""The folder that a broker in production reads: configuration, and what each fleet brings.

    mosquitto.conf
    north/  server.crt  server.key  device-ca.crt  devices.crl  acl
    south/  …

Nothing in it can sign anything. The control plane keeps the files of its fleet current.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from control_plane.mosquitto import (
    MAX_CONNECTIONS,
    Certificates,
    Listener,
    access_list,
    configuration,
)
from control_plane.settings import Settings
from control_plane.signing.durable import replace

CONFIGURATION: Final = "mosquitto.conf"
CERTIFICATE: Final = "server.crt"
KEY: Final = "server.key"
CLIENT_CA: Final = "device-ca.crt"
REVOKED: Final = "devices.crl"
ACL: Final = "acl"
AUTOSAVE_S: Final = 60
DATA: Final = Path("/var/lib/mosquitto")
USER: Final = "mosquitto"


def write_production(
    fleets: Sequence[Settings],
    to: Path,
    *,
    listen: str = "",
    data: Path = DATA,
    user: str = USER,
    max_connections: int = MAX_CONNECTIONS,
) -> tuple[Listener, ...]:
    """Write everything that one broker for these fleets reads; again is the same again.

    `listen`: an address of the broker's machine, "" for all. Raises `InvalidRequest` OUT-S120 for
    fleets that share name or port; then nothing was written. `OSError`.
    """
    listeners = tuple(
        _listener(settings, to / settings.fleet, listen, max_connections) for settings in fleets
    )
    text = configuration(listeners, data=data, autosave_s=AUTOSAVE_S, user=user)
    _folder(to)
    for settings, listener in zip(fleets, listeners, strict=True):
        folder = to / settings.fleet
        copy_certificates(settings.ca, folder)
        _place(folder / ACL, access_list(listener.fleet).encode())
    _place(to / CONFIGURATION, text.encode())
    return listeners


def copy_certificates(ca: Path, to: Path) -> None:
    """What a broker needs of a fleet's certificate folder. Raises `OSError`.

    Each file is replaced whole; the key is readable by the folder's group.
    """
    _folder(to)
    for name in (KEY, CERTIFICATE, CLIENT_CA, REVOKED):
        _place(to / name, (ca / name).read_bytes(), 0o640 if name == KEY else 0o644)


def _listener(of: Settings, folder: Path, host: str, max_connections: int) -> Listener:
    certificates = Certificates(
        folder / CERTIFICATE, folder / KEY, folder / CLIENT_CA, folder / REVOKED
    )
    return Listener(of.fleet, of.broker_port, certificates, folder / ACL, host, max_connections)


def _folder(path: Path) -> None:
    """One that its group may read, whatever the umask; the group is the parent's if it says so."""
    if not path.exists():
        path.mkdir(parents=True)
        path.chmod(path.stat().st_mode & ~0o077 | 0o050)


def _place(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Have `data` in a file of this mode, whatever the umask."""
    try:
        if path.read_bytes() == data:
            return
    except FileNotFoundError:
        pass
    replace(path, data, mode=mode)
    path.chmod(mode)
