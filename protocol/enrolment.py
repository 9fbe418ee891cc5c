"""How a device joins a fleet: the token people carry, and the one request it is good for.

The token names the control plane (address and certificate authority) and the root of trust, so a
device that has it takes nothing on faith; the secret in it proves that an operator wants it.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Final

from protocol.codec import MAX_TUF_ROLE, decode, encode
from protocol.errors import InvalidRequest, PeerError
from protocol.identifiers import (
    DeviceId,
    Digest,
    FleetName,
    digest,
    fleet_name,
    label_key,
    label_value,
    local_name,
    split_device_id,
)

PATH: Final = "/v1/enrol"
TOKEN_LIFE_MS: Final = 24 * 3_600_000

MAX_TOKEN: Final = 8 * 1024
MAX_CSR: Final = 16 * 1024
MAX_REQUEST: Final = 32 * 1024
MAX_ANSWER: Final = MAX_TUF_ROLE + 64 * 1024
"""Bytes, checked before anything is parsed."""

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
        if not _ADDRESS.fullmatch(self.u) or not 0 < self.port < 65_536:
            raise ValueError(f"the address is https://host:port, got {self.u!r:.80}")
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
        if len(self.csr) > MAX_CSR:
            raise ValueError(f"a certificate request has at most {MAX_CSR:,} letters")
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
        if split_device_id(self.device)[0] != fleet_name(self.fleet):
            raise ValueError(f"{self.device!r:.80} is not a device of fleet {self.fleet}")
        for key, value in self.labels.items():
            label_key(key)
            label_value(value)
