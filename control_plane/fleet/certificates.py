"""Certificates of devices, as they are recorded, and proofs that somebody holds their keys."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from control_plane.store.certificates import Certificate
from protocol.enrolment import RenewRequest, proof_bytes
from protocol.identifiers import DeviceId, digest_of

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


def recorded(pem: bytes, device: DeviceId, now_ms: int) -> Certificate:
    """What is kept of a certificate that was just issued."""
    certificate = x509.load_pem_x509_certificate(pem)
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey), "we signed it"
    return Certificate(
        f"{certificate.serial_number:x}",
        device,
        digest_of(certificate.public_bytes(serialization.Encoding.DER)),
        key_text(key),
        int(certificate.not_valid_after_utc.timestamp() * 1000),
        now_ms,
    )


def key_text(key: PublicKey) -> str:
    """PEM: equal keys give equal text."""
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()


def proves(key: str, request: RenewRequest) -> bool:
    """Whether a renewal was signed with the private half of this key (PEM)."""
    loaded = serialization.load_pem_public_key(key.encode())
    return signs(loaded, request.signature, proof_bytes(request.device, request.csr))


def signs(key: object, signature: bytes, signed: bytes) -> bool:
    """Whether a signature is by the private half of a device's key."""
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, signed, ec.ECDSA(hashes.SHA256()))
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, signed)
        else:
            return False
    except InvalidSignature:
        return False
    return True
