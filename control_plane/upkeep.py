"""What keeps identities working while nobody looks: certificates of servers, revocation lists.

Everything that is issued lies in the certificate folder first; then whoever uses it is told. A step
compares what is there with what should be, so one that was cut off is finished by the next, in this
process or in another.
"""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from control_plane.broker_files import CERTIFICATE, CLIENT_CA, KEY, REVOKED, copy_certificates
from control_plane.fleet.authority import LOOPBACK, Authority
from control_plane.fleet.revocation import KEPT_MS, RevocationList, due
from protocol.errors import Unavailable
from protocol.identifiers import Digest, digest_of

log = logging.getLogger(__name__)

COMMAND_S: Final = 60.0


class Revoked(Protocol):
    def revoked(self, unexpired_at_ms: int) -> Sequence[tuple[str, int]]:
        """`(serial, revoked ms)` of each certificate that had not expired at a time."""


class Upkeep:
    """Call `step` again and again, from one thread. Times are Unix ms."""

    def __init__(
        self,
        authority: Authority,
        certificates: Revoked,
        now_ms: Callable[[], int],
        *,
        hosts: Sequence[str] = (),
        broker_files: Path | None = None,
        reload_broker: Callable[[], None] = lambda: None,
        reload_api: Callable[[], None] = lambda: None,
    ) -> None:
        """`hosts`: further names of the servers. `broker_files`: a folder with copies of what the
        broker reads, where it cannot read ours. What is called must raise to be called again."""
        self._authority = authority
        self._certificates = certificates
        self._now_ms = now_ms
        self._hosts = tuple(hosts)
        self._broker_files = broker_files
        self._reload_broker = reload_broker
        self._reload_api = reload_api
        # The API reads its certificate at its start; what the broker has read, nobody knows.
        self._api_has: Digest | None = None
        self._broker_has: Digest | None = None
        self.current: RevocationList | None = None
        """The list in force, as of the last step."""

    def issue(self) -> None:
        """Make what is due. Raises `OSError`, `ValueError` for files that are no certificates."""
        authority, now_ms = self._authority, self._now_ms()
        if authority.renewal_due(now_ms, (*LOOPBACK, *self._hosts)):
            # Names that they had once are kept, so that no device loses its way.
            authority.issue_servers(now_ms, self._names())
            log.warning("new certificates for broker, API and link")
        revoked = self._certificates.revoked(now_ms - KEPT_MS)
        self.current = authority.revocation_list()
        if due(self.current, [serial for serial, _ in revoked], now_ms):
            self.current = authority.issue_crl(revoked, now_ms)
            log.info("revocation list %d with %d entries", self.current.number, len(revoked))
        if self._api_has is None:
            self._api_has = self._digest("api.crt")

    def step(self) -> None:
        """Make what is due, and have it taken up.

        Raises what `issue` raises, and `Unavailable` from those who should take it up.
        """
        self.issue()
        now = self._digest("api.crt")
        if now != self._api_has:
            self._reload_api()
            self._api_has = now
        now = self._digest(KEY, CERTIFICATE, CLIENT_CA, REVOKED)
        if now != self._broker_has:
            if self._broker_files is not None:
                copy_certificates(self._authority.directory, self._broker_files)
            self._reload_broker()
            self._broker_has = now

    def _names(self) -> tuple[str, ...]:
        try:
            had = self._authority.hosts
        except (OSError, ValueError):
            had = ()
        return (*had, *self._hosts)

    def _digest(self, *names: str) -> Digest:
        return digest_of(b"".join((self._authority.directory / n).read_bytes() for n in names))


def reload_by(command: Sequence[str]) -> None:
    """Run the operator's command that has a broker read its files again; none: nothing to do.

    Raises `Unavailable` OUT-N107 when it fails; it is tried again.
    """
    if not command:
        return
    try:
        ran = subprocess.run(
            list(command), capture_output=True, text=True, timeout=COMMAND_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable("OUT-N107", f"{command[0]}: {error}") from error
    if ran.returncode != 0:
        lines = ran.stderr.strip().splitlines() or [f"exit {ran.returncode}"]
        raise Unavailable("OUT-N107", f"{command[0]}: {lines[-1][:200]}")
