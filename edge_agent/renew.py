"""Renewing this device's certificate: with the key that it has, over HTTPS or with files.

The key stays, so key and certificate always fit. The certificate is written last: until then it is
the old one, whose renewal is still due, and everything is asked for once more.
"""

from __future__ import annotations

import base64
import fcntl
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edge_agent import durable
from edge_agent.asking import TIMEOUT_S, ask
from edge_agent.clock import Clock
from edge_agent.enrol import make_csr, require_authority, require_own
from edge_agent.identity import (
    BROKER_CA,
    CERTIFICATE,
    ENROLMENT,
    KEY,
    Identity,
    load,
    validity,
    validity_of,
)
from edge_agent.link import CLOSED_EARLY
from edge_agent.renewal import MOST_URGENT_S, Tries, Validity, due, failed
from edge_agent.technician.status import LinkStatus, RenewalStatus
from protocol.codec import decode, encode
from protocol.enrolment import MAX_ANSWER, RENEW, RenewAnswer, RenewRequest, proof_bytes
from protocol.errors import InvalidRequest, OutriderError, PeerError, TrustError, Unavailable

log = logging.getLogger(__name__)

_NO_SERVER: Final = "where the control plane is was not kept: this device was enrolled earlier"


def request(identity: Identity) -> RenewRequest:
    """Raises `InvalidRequest` OUT-D403 if this device's key cannot be read."""
    key = signing_key(identity.folder)
    csr = make_csr(key)
    proof = key.sign(proof_bytes(identity.device, csr), ec.ECDSA(hashes.SHA256()))
    return RenewRequest(identity.device, csr, base64.b64encode(proof).decode())


def renew(home: Path, now_ms: int, *, timeout_s: float = TIMEOUT_S) -> Identity:
    """Ask the control plane for the next certificate, and keep it. `now_ms` is trusted time.

    Raises `InvalidRequest`: OUT-D403 (no identity), OUT-A211/A212 (the control plane says no);
    `TrustError` OUT-T118 (another server, or an expired one); `Unavailable` OUT-N104, OUT-D201;
    `PeerError` for a certificate that is not this device's next one.
    """
    identity = load(home)
    server = identity.server
    if server is None:
        do = "outrider-agent enrol --renew --csr-to DIR"
        raise Unavailable("OUT-N104", _NO_SERVER, do=do)
    try:
        data = ask(server, RENEW, encode(request(identity)), now_ms=now_ms, timeout_s=timeout_s)
    except ValueError as error:
        raise InvalidRequest("OUT-D403", str(error)) from error
    answer = decode(data, RenewAnswer, limit=MAX_ANSWER)
    return adopt(home, answer, now_ms, proven=True)


def adopt(home: Path, answer: RenewAnswer, now_ms: int, *, proven: bool) -> Identity:
    """Check the next certificate and put it in the place of the present one.

    `proven`: the answer came over TLS from the pinned control plane. Only then does it also say
    which authorities and addresses hold from now on. Raises `PeerError` for what is not this
    device's next certificate, `Unavailable` OUT-D201.
    """
    identity = load(home)
    folder = identity.folder
    with _alone(folder):
        _require_next(folder, identity, answer.certificate, now_ms)
        if proven:
            require_authority(answer.broker_ca)
            require_authority(answer.api_ca)
        enrolled = replace(
            identity.enrolled, broker=answer.broker, url=answer.url, api_ca=answer.api_ca
        )
        files = {
            BROKER_CA: answer.broker_ca.encode(),
            ENROLMENT: encode(enrolled),
        }
        try:
            for name, data in files.items() if proven else ():
                if (folder / name).read_bytes() != data:
                    durable.replace(folder / name, data)
            durable.replace(folder / CERTIFICATE, answer.certificate.encode())
        except OSError as error:
            raise Unavailable("OUT-D201", f"the new certificate: {error}") from error
    return load(home)


def _require_next(folder: Path, identity: Identity, certificate: str, now_ms: int) -> None:
    require_own(certificate, identity.device, signing_key(folder))
    new = validity_of(x509.load_pem_x509_certificate(certificate.encode()))
    if new.until_ms <= max(now_ms, validity(folder).until_ms):
        raise PeerError("OUT-N210", "the new certificate does not last longer than the present one")


def signing_key(folder: Path) -> ec.EllipticCurvePrivateKey:
    """This device's key. Raises `InvalidRequest` OUT-D403 if it cannot be read."""
    try:
        key = serialization.load_pem_private_key((folder / KEY).read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidRequest("OUT-D403", f"{KEY} cannot be read") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidRequest("OUT-D403", f"{KEY} is another kind of key")
    return key


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """The agent and a technician's command may both have an answer."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class Renewal:
    """Keeps the certificate of a running agent young. All calls come from the supervisor's thread;
    what waits for the network has a thread of its own."""

    def __init__(
        self,
        home: Path,
        identity: Identity,
        clock: Clock,
        *,
        on_renewed: Callable[[Identity], None],
        on_wake: Callable[[], None],
        random: Callable[[], float],
        first_s: float,
        ask: Callable[[Path, int], object] = renew,
    ) -> None:
        """`on_renewed` is told once of each new certificate, whoever put it there. `first_s` is
        the upper bound of the first pause after a failure. Raises `OSError`, `ValueError` for a
        certificate that cannot be read."""
        self._home = home
        self._identity = identity
        self._clock = clock
        self._on_renewed = on_renewed
        self._on_wake = on_wake
        self._random = random
        self._first_s = first_s
        self._ask = ask
        self._path = identity.folder / CERTIFICATE
        self._seen = self._stat()
        self._validity = validity(identity.folder)
        self._tries = Tries()
        self.counters: Counter[str] = Counter()
        """Failures by problem code, since the agent started."""
        self._asking: threading.Thread | None = None
        self._failure: OutriderError | None = None

    @property
    def validity(self) -> Validity:
        return self._validity

    def turn(self, link: LinkStatus) -> None:
        """Take in what happened, and ask if it is time."""
        now_ms, now_s = self._clock.now_ms(), self._clock.monotonic()
        if self._asking is not None:
            if self._asking.is_alive():
                return
            self._asking = None
            self._note(now_ms, now_s)
        self._look()
        closed = not link.connected and link.why == CLOSED_EARLY
        doubted = closed and self._clock.basis == "floor"
        device = self._identity.device
        if due(self._validity, device, self._tries, now_ms, now_s, doubted=doubted):
            self._begin(now_ms)

    def status(self, now_ms: int) -> RenewalStatus:
        tries = self._tries
        return RenewalStatus(
            tries.failures, tries.since_ms, tries.code, tries.why, self._validity.urgent(now_ms)
        )

    def _begin(self, now_ms: int) -> None:
        log.info("asking for the next certificate")
        self._failure = None
        # A daemon: a control plane that does not answer keeps nobody from stopping.
        self._asking = threading.Thread(
            target=self._work, args=(now_ms,), name="renewal", daemon=True
        )
        self._asking.start()

    def _work(self, now_ms: int) -> None:
        try:
            self._ask(self._home, now_ms)
        except OutriderError as error:
            self._failure = error
        except OSError as error:
            self._failure = Unavailable("OUT-D201", str(error))
        # A fault of ours is tried again like any other failure; the log has it.
        except Exception as error:
            log.exception("renewal")
            self._failure = Unavailable("OUT-S160", f"{type(error).__name__}: {error}")
        self._on_wake()

    def _note(self, now_ms: int, now_s: float) -> None:
        error = self._failure
        if error is None:
            # Where clocks differ the new one may be past its middle, too: no reason to ask at once.
            self._tries = replace(self._tries, next_s=now_s + MOST_URGENT_S)
            return
        log.warning("the certificate was not renewed: %s", error)
        self.counters[f"renewal {error.code}"] += 1
        self._tries = failed(
            self._tries,
            self._validity,
            error.code,
            error.why,
            now_ms=now_ms,
            now_s=now_s,
            random=self._random(),
            first_s=self._first_s,
        )

    def _look(self) -> None:
        """Whether there is another certificate than before."""
        seen = self._stat()
        if seen == self._seen or seen is None:
            return
        try:
            found = validity(self._identity.folder)
            identity = load(self._home)
        except (OSError, ValueError, OutriderError, TrustError) as error:
            log.warning("the identity cannot be read: %s", error)
            return
        self._seen = seen
        if found == self._validity:
            return
        log.info("the certificate was renewed")
        self._tries = Tries(next_s=self._tries.next_s)
        self._validity, self._identity = found, identity
        self._on_renewed(identity)

    def _stat(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns
