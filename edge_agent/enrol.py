"""Joining a fleet: a key that never leaves the device, a certificate for it, and a root of trust.

Nothing is taken on faith: the token names the authority of the control plane's certificate and
the digest of root.json. Certificates are not checked against the clock here, because a device
without a battery wakes up in 1970 and knows no better time yet; the token, a day old at most,
names the authority exactly.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge_agent import durable, identity
from edge_agent.identity import (
    BROKER_CA,
    CERTIFICATE,
    ENROLMENT,
    FOLDER,
    KEY,
    ROOT,
    Enrolled,
    Identity,
)
from protocol.codec import decode, encode
from protocol.enrolment import (
    MAX_ANSWER,
    PATH,
    EnrolAnswer,
    EnrolRequest,
    Token,
    decode_token,
)
from protocol.errors import InvalidRequest, OutriderError, PeerError, TrustError, Unavailable
from protocol.identifiers import digest_of, local_name
from protocol.problems import CATALOGUE

TIMEOUT_S: Final = 30.0
_NO_CHECK_TIME: Final = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which `ssl` has no name for."""


def enrol(
    token_text: str, home: Path, *, name: str | None = None, timeout_s: float = TIMEOUT_S
) -> Identity:
    """Enrol this device into `home`; afterwards `identity.load(home)` gives the same.

    Raises `InvalidRequest`: OUT-D404 (enrolled already), OUT-A201/A202/A203/A210 (what the control
    plane says of token, name and request), OUT-S120 (a name that is none); `TrustError`: OUT-T118
    (another server than the token's), OUT-T108 (another root.json); `Unavailable` OUT-N104;
    `PeerError` for an answer that makes no sense; `OSError` when the disk does not take it.
    """
    folder = home / FOLDER
    if (folder / ENROLMENT).exists():
        raise InvalidRequest("OUT-D404", f"as {identity.load(home).device}")
    token = decode_token(token_text)
    if name is not None:
        try:
            local_name(name)
        except ValueError as error:
            raise InvalidRequest("OUT-S120", str(error)) from error
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = _key(folder / KEY)
    request = EnrolRequest(token.t, _csr(key), name)
    answer = _ask(token, encode(request), timeout_s)
    root = answer.root.encode()
    if digest_of(root) != token.r:
        raise TrustError("OUT-T108", f"expected {token.r[:15]}, got {digest_of(root)[:15]}")
    _require_own(answer, key)
    enrolled = Enrolled(
        answer.device, answer.fleet, answer.broker, token.r, answer.dev, answer.labels
    )
    for file, data in (
        (CERTIFICATE, answer.certificate.encode()),
        (BROKER_CA, answer.broker_ca.encode()),
        (ROOT, root),
        (ENROLMENT, encode(enrolled)),  # last: it says that the others are there
    ):
        durable.replace(folder / file, data)
    return Identity(folder, enrolled, root)


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The device's key: the one that an interrupted enrolment left, else a new one, on disk."""
    try:
        kept = serialization.load_pem_private_key(path.read_bytes(), None)
        if isinstance(kept, ec.EllipticCurvePrivateKey):
            return kept
    except (FileNotFoundError, ValueError, TypeError, UnsupportedAlgorithm):
        pass  # none yet, or damaged before anybody signed for it: a new one does no harm
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    # Never readable by anybody else, not even for a moment.
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    durable.sync_directory(path.parent)
    return key


def _csr(key: ec.EllipticCurvePrivateKey) -> str:
    """The control plane decides the name, so the request only proves the key."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "outrider device")])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def _ask(token: Token, body: bytes, timeout_s: float) -> EnrolAnswer:
    connection = http.client.HTTPSConnection(
        token.host, token.port, timeout=timeout_s, context=_trusting(token)
    )
    try:
        connection.request("POST", PATH, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        status, data = response.status, response.read(MAX_ANSWER + 1)
    except ssl.SSLCertVerificationError as error:
        raise TrustError("OUT-T118", error.verify_message) from error
    except (OSError, http.client.HTTPException, socket.gaierror) as error:
        raise Unavailable("OUT-N104", _words(error), place=token.u) from error
    finally:
        connection.close()
    if status != http.client.OK and status != http.client.CREATED:
        raise _refusal(status, data)
    return decode(data, EnrolAnswer, limit=MAX_ANSWER)


def _words(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__


def _trusting(token: Token) -> ssl.SSLContext:
    """Exactly the token's authority, and the host name checked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cadata=token.authority)
    except (ssl.SSLError, ValueError) as error:
        raise InvalidRequest("OUT-A202", "its certificate authority cannot be read") from error
    context.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME)
    return context


def _refusal(status: int, data: bytes) -> OutriderError:
    """The control plane's problem, in its own words where it is one of the catalogue."""
    try:
        body = decode(data, dict[str, Any], limit=MAX_ANSWER)
    except PeerError:
        body = {}
    code, detail = body.get("code"), str(body.get("detail", ""))[:300]
    if isinstance(code, str) and code in CATALOGUE:
        kind = Unavailable if status in (429, 503) else InvalidRequest
        return kind(code, detail, do=str(body.get("help", ""))[:300])
    if status >= 500 or status == 429:
        return Unavailable("OUT-N104", f"the control plane answered {status}")
    return PeerError("OUT-N210", f"the control plane answered {status} {detail}".strip())


def _require_own(answer: EnrolAnswer, key: ec.EllipticCurvePrivateKey) -> None:
    """Raise `PeerError` unless the certificate is for this key and this device."""
    try:
        certificate = x509.load_pem_x509_certificate(answer.certificate.encode())
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        x509.load_pem_x509_certificate(answer.broker_ca.encode())
    except ValueError as error:
        raise PeerError("OUT-N210", f"a certificate cannot be read: {error}") from error
    if certificate.public_key() != key.public_key():
        raise PeerError("OUT-N210", "the certificate is for another key")
    if [name.value for name in names] != [answer.device]:
        raise PeerError("OUT-N210", f"the certificate is not for {answer.device}")
