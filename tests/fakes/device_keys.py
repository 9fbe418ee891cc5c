"""Keys of devices, and what a device makes with them: requests and proofs."""

from __future__ import annotations

import base64

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from protocol.enrolment import RenewRequest, proof_bytes

Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def new_key(kind: str = "P-256") -> Key:
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1())


def csr(key: Key) -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    algorithm = hashes.SHA256() if isinstance(key, ec.EllipticCurvePrivateKey) else None
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM).decode()


def signed(key: Key, data: bytes) -> str:
    """A signature, base64."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return base64.b64encode(key.sign(data, ec.ECDSA(hashes.SHA256()))).decode()
    return base64.b64encode(key.sign(data)).decode()


def renewal(key: Key, new: Key | None = None, device: str = "local-cam-1") -> RenewRequest:
    """Proven by `key`, for a certificate of `new` or of the same key."""
    request = csr(new or key)
    return RenewRequest(device, request, signed(key, proof_bytes(device, request)))
