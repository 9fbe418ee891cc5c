"""Who this device is: files that enrolment wrote, read back whole or not at all.

enrolment.json is written last, so where it is, everything else is too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from edge_agent.asking import Server
from edge_agent.renewal import Validity
from protocol.codec import decode
from protocol.enrolment import MAX_ANSWER, Broker
from protocol.errors import InvalidRequest, PeerError
from protocol.identifiers import DeviceId, Digest, FleetName, digest_of, split_device_id
from protocol.link import Address, Tls

FOLDER: Final = "identity"
KEY: Final = "device.key"
CERTIFICATE: Final = "device.crt"
BROKER_CA: Final = "broker-ca.crt"
ROOT: Final = "root.json"
ENROLMENT: Final = "enrolment.json"


@dataclass(frozen=True, slots=True)
class Enrolled:
    """enrolment.json."""

    device: DeviceId
    fleet: FleetName
    broker: Broker
    root: Digest
    """Of root.json, as the token said."""
    dev: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    """As bound to the token; the device document says what holds now."""
    url: str = ""
    """Address of the control plane, https://host:port. Files of older agents lack it."""
    api_ca: str = ""
    """The certificate authority of the control plane's API, PEM."""

    def __post_init__(self) -> None:
        if split_device_id(self.device)[0] != self.fleet:
            raise ValueError(f"{self.device!r:.80} is not a device of fleet {self.fleet!r:.40}")
        _ = urlsplit(self.url).port  # a ValueError for what is no port


@dataclass(frozen=True, slots=True)
class Identity:
    folder: Path
    enrolled: Enrolled
    root: bytes
    """root.json: what the trust of this device starts from."""

    @property
    def device(self) -> DeviceId:
        return self.enrolled.device

    @property
    def local(self) -> str:
        """The part of the device id that people use inside the fleet."""
        return split_device_id(self.device)[1]

    @property
    def fleet(self) -> FleetName:
        return self.enrolled.fleet

    @property
    def dev(self) -> bool:
        return self.enrolled.dev

    @property
    def labels(self) -> dict[str, str]:
        return self.enrolled.labels

    @property
    def broker(self) -> Address:
        tls = Tls(self.folder / BROKER_CA, self.folder / CERTIFICATE, self.folder / KEY)
        return Address(self.enrolled.broker.host, self.enrolled.broker.port, tls)

    @property
    def server(self) -> Server | None:
        """Where certificates are renewed, if enrolment said so."""
        parts = urlsplit(self.enrolled.url)
        if not self.enrolled.api_ca or not parts.hostname:
            return None
        return Server(self.enrolled.url, parts.hostname, parts.port or 443, self.enrolled.api_ca)

    @property
    def public(self) -> dict[str, Any]:
        """What `outrider-agent enrol --json` prints: nothing secret."""
        return {
            "device": self.device,
            "name": self.local,
            "fleet": self.fleet,
            "labels": self.labels,
            "broker": {"host": self.enrolled.broker.host, "port": self.enrolled.broker.port},
            "root": self.enrolled.root,
            "dev": self.dev,
        }


def load(home: Path) -> Identity:
    """Raises `InvalidRequest` OUT-D403 when this device is not enrolled, or files are damaged."""
    folder = home / FOLDER
    path = folder / ENROLMENT
    try:
        enrolled = decode(path.read_bytes(), Enrolled, limit=MAX_ANSWER)
        root = (folder / ROOT).read_bytes()
        missing = [n for n in (KEY, CERTIFICATE, BROKER_CA) if not (folder / n).is_file()]
    except FileNotFoundError as error:
        name = Path(error.filename).name
        why = f"nothing in {folder}" if name == ENROLMENT else f"{name} is not in {folder}"
        raise InvalidRequest("OUT-D403", why) from error
    except OSError as error:
        raise InvalidRequest("OUT-D403", f"{error.filename}: {error.strerror}") from error
    except PeerError as error:
        raise InvalidRequest("OUT-D403", f"{ENROLMENT} is damaged: {error.why}") from error
    if missing:
        raise InvalidRequest("OUT-D403", f"{missing[0]} is not in {folder}")
    if digest_of(root) != enrolled.root:
        raise InvalidRequest("OUT-D403", f"{ROOT} is not the one of the enrolment")
    return Identity(folder, enrolled, root)


def certificate_until_ms(folder: Path) -> int:
    """When this device's certificate expires. Raises `OSError`, `ValueError`."""
    return validity(folder).until_ms


def validity(folder: Path) -> Validity:
    """Of this device's certificate. Raises `OSError`, `ValueError`."""
    return validity_of(x509.load_pem_x509_certificate((folder / CERTIFICATE).read_bytes()))


def validity_of(certificate: x509.Certificate) -> Validity:
    return Validity(
        int(certificate.not_valid_before_utc.timestamp() * 1000),
        int(certificate.not_valid_after_utc.timestamp() * 1000),
        certificate.fingerprint(hashes.SHA256()).hex(),
    )
