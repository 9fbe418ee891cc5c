"""Joining a fleet: a key that never leaves the device, a certificate for it, and a root of trust.

Nothing is taken on faith: the token names the authority of the control plane's certificate and
the digest of root.json. Certificates are not checked against the clock here, because a device
without a battery wakes up in 1970 and knows no better time yet; the token, a day old at most,
names the authority exactly.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge_agent import durable, identity
from edge_agent.asking import TIMEOUT_S, Server, ask
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
    decode_token,
)
from protocol.errors import InvalidRequest, PeerError, TrustError
from protocol.identifiers import Digest, digest_of, local_name


def enrol(
    token_text: str, home: Path, *, name: str | None = None, timeout_s: float = TIMEOUT_S
) -> Identity:
    """Enrol this device into `home`; afterwards `identity.load(home)` gives the same.

    Raises `InvalidRequest`: OUT-D404 (enrolled already), OUT-A201/A202/A203/A210 (what the control
    plane says of token, name and request), OUT-S120 (a name that is none); `TrustError`: OUT-T118
    (another server than the token's), OUT-T108 (another root.json); `Unavailable` OUT-N104;
    `PeerError` for an answer that makes no sense; `OSError` when the disk does not take it.
    """
    folder = unenrolled(home)
    token = decode_token(token_text)
    if name is not None:
        require_name(name)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = device_key(folder / KEY)
    request = EnrolRequest(token.t, make_csr(key), name)
    try:
        server = Server(token.u, token.host, token.port, token.authority)
        # A device without a battery knows no time yet that certificates could be checked against.
        data = ask(server, PATH, encode(request), now_ms=None, timeout_s=timeout_s)
    except ValueError as error:
        raise InvalidRequest("OUT-A202", str(error)) from error
    answer = decode(data, EnrolAnswer, limit=MAX_ANSWER)
    authority = ssl.DER_cert_to_PEM_cert(token.authority)
    return settle(folder, answer, key, token.r, url=token.u, api_ca=authority)


def unenrolled(home: Path) -> Path:
    """Where the identity goes. Raises `InvalidRequest` OUT-D404 if there is one."""
    folder = home / FOLDER
    if (folder / ENROLMENT).exists():
        raise InvalidRequest("OUT-D404", f"as {identity.load(home).device}")
    return folder


def require_name(name: str) -> None:
    """Raises `InvalidRequest` OUT-S120 for what is no device's name."""
    try:
        local_name(name)
    except ValueError as error:
        raise InvalidRequest("OUT-S120", str(error)) from error


def settle(
    folder: Path,
    answer: EnrolAnswer,
    key: ec.EllipticCurvePrivateKey,
    digest: Digest,
    *,
    url: str,
    api_ca: str,
) -> Identity:
    """Check an answer and keep it. `digest` is that of the root.json that people vouch for.

    Raises `TrustError` OUT-T108 for another root.json, `PeerError` for an identity that is not
    this device's, `OSError`.
    """
    root = answer.root.encode()
    if digest_of(root) != digest:
        raise TrustError("OUT-T108", f"expected {digest[:15]}, got {digest_of(root)[:15]}")
    require_own(answer.certificate, answer.device, key)
    require_authority(answer.broker_ca)
    enrolled = Enrolled(
        answer.device,
        answer.fleet,
        answer.broker,
        digest,
        answer.dev,
        answer.labels,
        url,
        api_ca,
    )
    for file, data in (
        (CERTIFICATE, answer.certificate.encode()),
        (BROKER_CA, answer.broker_ca.encode()),
        (ROOT, root),
        (ENROLMENT, encode(enrolled)),  # last: it says that the others are there
    ):
        durable.replace(folder / file, data)
    return Identity(folder, enrolled, root)


def device_key(path: Path) -> ec.EllipticCurvePrivateKey:
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


def make_csr(key: ec.EllipticCurvePrivateKey) -> str:
    """The control plane decides the name, so the request only proves the key."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "outrider device")])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def require_own(certificate_pem: str, device: str, key: ec.EllipticCurvePrivateKey) -> None:
    """Raise `PeerError` unless the certificate is for this key and this device."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError as error:
        raise PeerError("OUT-N210", f"the certificate cannot be read: {error}") from error
    if certificate.public_key() != key.public_key():
        raise PeerError("OUT-N210", "the certificate is for another key")
    if [name.value for name in names] != [device]:
        raise PeerError("OUT-N210", f"the certificate is not for {device}")


def require_authority(pem: str) -> None:
    """Raise `PeerError` unless this is one certificate of an authority, or several."""
    try:
        for certificate in x509.load_pem_x509_certificates(pem.encode()):
            if not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
                raise ValueError("it is no authority")
    except (ValueError, x509.ExtensionNotFound) as error:
        raise PeerError("OUT-N210", f"the authority cannot be read: {error}") from error
