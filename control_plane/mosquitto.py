"""What Mosquitto is told: one configuration for any number of fleets, and an ACL for each.

    one process ─┬─ listener of fleet north ── its CA, its CRL, its ACL: outrider/v1/north/…
                 └─ listener of fleet south ── its CA, its CRL, its ACL: outrider/v1/south/…

Mutual TLS; the certificate's common name is user name and client id. A device reads what is for
everybody of its fleet and its own topics, and writes only its own. Mosquitto confirms what it then
drops for want of a right, so nothing may be concluded from a PUBACK.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protocol.codec import MAX_TUF_ROLE
from protocol.errors import InvalidRequest
from protocol.identifiers import FleetName, fleet_name
from protocol.topics import Topics

MAX_PACKET: Final = 2_200_000
"""Bytes: the largest TUF role (2 MiB) with its topic."""
MAX_CONNECTIONS: Final = 20_000
"""Per fleet. The process needs as many open files: `ulimit -n`."""
MAX_INFLIGHT: Final = 500
MAX_QUEUED: Final = 20_000
MAX_QUEUED_BYTES: Final = 256 * 1024 * 1024
"""For one client that is away. Without it, devices could fill the memory while ingest is down."""
SESSION_LIFE: Final = "30d"


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files that the broker reads: who it is, and whose certificates it accepts."""

    certificate: Path
    key: Path
    client_ca: Path
    revoked: Path | None = None
    """CRL. An expired one refuses everybody, so it is renewed daily."""


@dataclass(frozen=True, slots=True)
class Listener:
    """Where one fleet comes in."""

    fleet: FleetName
    port: int
    certificates: Certificates
    acl: Path
    host: str = ""
    """Address to listen on; "" for all of the machine."""
    max_connections: int = MAX_CONNECTIONS


def control_identity(fleet: FleetName) -> str:
    """Common name of the control plane's certificate.

    Raises `InvalidRequest` for the one fleet in which a device could carry the same name:
    `outrider-control-outrider` would be device `control-outrider` of fleet `outrider`.
    """
    if fleet_name(fleet) == "outrider":
        raise InvalidRequest("OUT-S120", "a fleet cannot be called outrider")
    return f"outrider-control-{fleet}"


def access_list(fleet: FleetName) -> str:
    """Mosquitto's ACL file. `%u` is the user name: a whole device id."""
    prefix = Topics(fleet).prefix
    readable = ("tuf/#", "plans/+", "deny", "manifests/#", "payloads/#", "frames/#", "ingest/+")
    return "\n".join(
        [
            *(f"pattern read {prefix}{topic}" for topic in readable),
            f"pattern read {prefix}devices/%u/#",
            f"pattern write {prefix}up/+/%u/#",
            f"pattern write {prefix}presence/%u",
            "",
            f"user {control_identity(fleet)}",
            f"topic readwrite {prefix}#",
            "",
        ]
    )


def configuration(
    listeners: Sequence[Listener], *, data: Path, autosave_s: int, user: str | None = None
) -> str:
    """mosquitto.conf. What is retained reaches the disk at most `autosave_s` seconds late.

    `user`: whom Mosquitto becomes when root starts it. Raises `InvalidRequest` OUT-S120 unless
    there is at least one listener, and each has a fleet and a port of its own.
    """
    _refuse_shared(listeners)
    lines = [
        # Before the first listener: ACL and anonymity are each listener's own from here on.
        "per_listener_settings true",
        "persistence true",
        f"persistence_location {data.absolute()}/",
        f"autosave_interval {autosave_s}",
        f"persistent_client_expiration {SESSION_LIFE}",
        f"max_packet_size {MAX_PACKET}",
        f"message_size_limit {MAX_TUF_ROLE}",
        f"max_inflight_messages {MAX_INFLIGHT}",
        f"max_queued_messages {MAX_QUEUED}",
        f"max_queued_bytes {MAX_QUEUED_BYTES}",
        "set_tcp_nodelay true",
        "sys_interval 0",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        *([f"user {user}"] if user else []),
    ]
    for each in listeners:
        lines += ["", *_listener(each)]
    return "\n".join(lines) + "\n"


def _listener(of: Listener) -> list[str]:
    files = of.certificates
    return [
        f"# fleet {of.fleet}",
        f"listener {of.port} {of.host}".rstrip(),
        f"certfile {files.certificate.absolute()}",
        f"keyfile {files.key.absolute()}",
        f"cafile {files.client_ca.absolute()}",
        *([f"crlfile {files.revoked.absolute()}"] if files.revoked else []),
        # At least this one.
        "tls_version tlsv1.2",
        "require_certificate true",
        "use_identity_as_username true",
        # Without this, a device could take another's client id and so end its connection.
        "use_username_as_clientid true",
        "allow_anonymous false",
        f"acl_file {of.acl.absolute()}",
        f"max_connections {of.max_connections}",
    ]


def _refuse_shared(listeners: Sequence[Listener]) -> None:
    if not listeners:
        raise InvalidRequest("OUT-S120", "a broker is for at least one fleet")
    seen: dict[object, str] = {}
    for each in listeners:
        for what, value in (("name", each.fleet), ("port", str(each.port))):
            if (what, value) in seen:
                other = seen[what, value]
                raise InvalidRequest(
                    "OUT-S120", f"fleets {other} and {each.fleet} have the same {what}: {value}"
                )
            seen[what, value] = each.fleet
