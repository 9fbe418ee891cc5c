"""How a device joins a fleet and stays in it: tokens, requests for certificates, their answers.

The token names the control plane (address and certificate authority) and the root of trust, so a
device that has it takes nothing on faith; the secret in it proves that an operator wants it. What
renews a certificate is the key that the fleet knows the device by; what a device without network
brings and takes home are files of the same content.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from protocol.codec import MAX_TUF_ROLE, decode, encode
from protocol.errors import InvalidRequest, PeerError
from protocol.identifiers import (
    DeviceId,
    Digest,
    FleetName,
    digest,
    digest_of,
    fleet_name,
    label_key,
    label_value,
    local_name,
    split_device_id,
)

PATH: Final = "/v1/enrol"
RENEW: Final = "/v1/renew"
TOKEN_LIFE_MS: Final = 24 * 3_600_000

MAX_TOKEN: Final = 8 * 1024
MAX_CSR: Final = 16 * 1024
MAX_REQUEST: Final = 32 * 1024
MAX_ANSWER: Final = MAX_TUF_ROLE + 64 * 1024
"""Bytes, checked before anything is parsed."""
MAX_PROOF: Final = 256
"""Letters: an ECDSA signature with P-256 has at most 96 in base64, Ed25519 88."""

REQUEST_FILE: Final = ".request.json"
ANSWER_FILE: Final = ".answer.json"
"""What the files of a device without network are called, behind its name."""

_PROOF: Final = b"outrider-renew-v1\0"
_ADDRESS: Final = re.compile(
    r"https://(?P<host>[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:(?P<port>[0-9]{1,5}))?/?"
)
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{32,128}")


@dataclass(frozen=True, slots=True)
class Token:
    """What an operator hands over. One-letter names on the wire: it is also shown as a QR code."""

    u: str
    """Address of the control plane, https://host:port."""
    t: str
    """The secret."""
    r: Digest
    """Digest of root.json."""
    c: str
    """The certificate authority of the control plane's API: DER, base64."""

    def __post_init__(self) -> None:
        _check_url(self.u)
        if not _SECRET.fullmatch(self.t):
            raise ValueError("the secret is 32 to 128 letters of base64url")
        digest(self.r)
        base64.b64decode(self.c, validate=True)

    @property
    def host(self) -> str:
        return self._address["host"].strip("[]")

    @property
    def port(self) -> int:
        return int(self._address["port"] or 443)

    @property
    def _address(self) -> re.Match[str]:
        found = _ADDRESS.fullmatch(self.u)
        assert found, "checked on construction"
        return found

    @property
    def authority(self) -> bytes:
        """DER."""
        return base64.b64decode(self.c, validate=True)


def encode_token(token: Token) -> str:
    return base64.urlsafe_b64encode(encode(token)).decode().rstrip("=")


def decode_token(text: str) -> Token:
    """From what people paste: whitespace anywhere. Raises `InvalidRequest` OUT-A202."""
    compact = "".join(text[: 2 * MAX_TOKEN].split())
    try:
        data = base64.b64decode(
            compact.encode("ascii") + b"=" * (-len(compact) % 4), altchars=b"-_", validate=True
        )
        return decode(data, Token, limit=MAX_TOKEN)
    except (ValueError, binascii.Error, PeerError) as error:
        raise InvalidRequest("OUT-A202", "this is not the text of a token") from error


@dataclass(frozen=True, slots=True)
class EnrolRequest:
    """`POST /v1/enrol`."""

    token: str
    """The secret."""
    csr: str
    """PKCS#10, PEM. Only its public key is used."""
    name: str | None = None

    def __post_init__(self) -> None:
        if not _SECRET.fullmatch(self.token):
            raise ValueError("the secret is 32 to 128 letters of base64url")
        _check_csr(self.csr)
        if self.name is not None:
            local_name(self.name)


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the fleet's MQTT broker is, as devices reach it."""

    host: str
    port: int

    def __post_init__(self) -> None:
        if not 0 < len(self.host) <= 253 or not 0 < self.port < 65_536:
            raise ValueError(f"a broker is host and port, got {self.host!r:.80}:{self.port}")


@dataclass(frozen=True, slots=True)
class EnrolAnswer:
    """What a device is from now on. Certificates are PEM; `root` is root.json, byte for byte."""

    device: DeviceId
    fleet: FleetName
    certificate: str
    broker_ca: str
    broker: Broker
    root: str
    dev: bool = False
    """Whether the fleet's keys are development keys."""
    labels: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_own(self.device, self.fleet, self.labels)


def proof_bytes(device: DeviceId, csr: str) -> bytes:
    """What a renewal signs with the key of the certificate that it renews."""
    return _PROOF + device.encode() + b"\0" + csr.encode()


@dataclass(frozen=True, slots=True)
class RenewRequest:
    """`POST /v1/renew`. The request may be for the same key or for a new one."""

    device: DeviceId
    csr: str
    """PKCS#10, PEM. Only its public key is used."""
    proof: str
    """Signature over `proof_bytes(device, csr)` by the key of the present certificate, base64.

    ECDSA with SHA-256 (DER) for P-256, plain Ed25519 otherwise."""

    def __post_init__(self) -> None:
        split_device_id(self.device)
        _check_csr(self.csr)
        if not 0 < len(self.proof) <= MAX_PROOF:
            raise ValueError(f"a proof has 1 to {MAX_PROOF} letters")
        base64.b64decode(self.proof, validate=True)

    @property
    def signature(self) -> bytes:
        return base64.b64decode(self.proof, validate=True)


@dataclass(frozen=True, slots=True)
class RenewAnswer:
    """The next certificate, and where everything is by now. Certificates and CAs are PEM.

    Without network this is what the answer file of a renewal holds, as it is.
    """

    certificate: str
    broker_ca: str
    api_ca: str
    broker: Broker
    url: str
    """Address of the control plane, https://host:port."""

    def __post_init__(self) -> None:
        _check_url(self.url)


@dataclass(frozen=True, slots=True)
class OfflineRequest:
    """`<name>.request.json`: what a device without network asks for.

    With `device` and `proof` it asks for the next certificate of that device, as `RenewRequest`
    does; without them it asks to be enrolled, under `name` if it has one.
    """

    csr: str
    name: str | None = None
    device: DeviceId | None = None
    proof: str | None = None

    def __post_init__(self) -> None:
        _check_csr(self.csr)
        if self.name is not None:
            local_name(self.name)
        if (self.device is None) != (self.proof is None):
            raise ValueError("a renewal has both device and proof")
        _ = self.renewal

    @property
    def renewal(self) -> RenewRequest | None:
        """None asks for enrolment."""
        if self.device is None or self.proof is None:
            return None
        return RenewRequest(self.device, self.csr, self.proof)


@dataclass(frozen=True, slots=True)
class OfflineAnswer:
    """`<name>.answer.json` of an enrolment: the answer, and what a token would have said.

    Nothing in it can be trusted for being in it: the technician compares `root_digest` with what
    the operator's command showed, which is what makes `root` trusted.
    """

    device: DeviceId
    fleet: FleetName
    certificate: str
    broker_ca: str
    broker: Broker
    root: str
    url: str
    """Address of the control plane, https://host:port."""
    api_ca: str
    """PEM."""
    root_digest: Digest
    dev: bool = False
    labels: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_own(self.device, self.fleet, self.labels)
        _check_url(self.url)
        if digest_of(self.root.encode()) != digest(self.root_digest):
            raise ValueError("the digest is not that of root.json")


def _check_csr(csr: str) -> None:
    if len(csr) > MAX_CSR:
        raise ValueError(f"a certificate request has at most {MAX_CSR:,} letters")


def _check_url(url: str) -> None:
    found = _ADDRESS.fullmatch(url)
    if not found or not 0 < int(found["port"] or 443) < 65_536:
        raise ValueError(f"the address is https://host:port, got {url!r:.80}")


def _check_own(device: DeviceId, fleet: FleetName, labels: Mapping[str, str]) -> None:
    if split_device_id(device)[0] != fleet_name(fleet):
        raise ValueError(f"{device!r:.80} is not a device of fleet {fleet}")
    for key, value in labels.items():
        label_key(key)
        label_value(value)
