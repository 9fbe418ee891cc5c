"""The fleet's certificate authorities, in one folder. EC P-256 throughout.

    broker CA ─▶ server.crt    the broker, as devices see it
    device CA ─▶ devices       common name = device id, client certificates only
              ├▶ control.crt   the control plane, as the broker sees it
              └▶ devices.crl   whose certificates the broker refuses
    api CA    ─▶ api.crt       the API; devices trust it through their token

Three, so that none can speak for another: a device's certificate never passes for a server's.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from control_plane.fleet.certificates import PublicKey
from control_plane.fleet.revocation import RevocationList, following
from control_plane.mosquitto import control_identity
from control_plane.signing.durable import replace
from protocol.enrolment import MAX_CSR
from protocol.errors import InvalidRequest
from protocol.identifiers import DeviceId, FleetName, digest_of, split_device_id
from protocol.link import Tls

LOOPBACK: Final = ("127.0.0.1", "localhost")
CA_LIFE: Final = timedelta(days=3650)
LEAF_LIFE: Final = timedelta(days=730)
_BACKDATED: Final = timedelta(hours=1)
"""A peer whose clock is a little behind still finds a new certificate valid."""
_CAS: Final = ("broker-ca", "device-ca", "api-ca")
_SERVERS: Final = (("server", "broker-ca"), ("api", "api-ca"))


@dataclass(frozen=True, slots=True)
class Authority:
    """Reads and writes `<directory>/<name>.{crt,key}`; keys are 0600. Times are Unix ms."""

    directory: Path
    fleet: FleetName

    @classmethod
    def create(
        cls, directory: Path, fleet: FleetName, now_ms: int, hosts: Sequence[str] = ()
    ) -> Authority:
        """Make all authorities, and the certificates of this machine's servers.

        `hosts` are names and addresses by which devices reach broker and API, besides loopback.
        """
        authority = cls(directory, fleet)
        control_identity(fleet)
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in _CAS:
            key = ec.generate_private_key(ec.SECP256R1())
            subject = _name(f"outrider {fleet} {name}")
            builder = _builder(subject, subject, key.public_key(), now_ms, CA_LIFE)
            builder = builder.add_extension(
                x509.BasicConstraints(ca=True, path_length=0), critical=True
            ).add_extension(_usage(authority=True), critical=True)
            authority._keep(name, builder.sign(key, hashes.SHA256()), key)
        authority.issue_servers(now_ms, hosts)
        authority.issue_crl((), now_ms)
        return authority

    def issue_servers(self, now_ms: int, hosts: Sequence[str] = ()) -> None:
        """New keys and certificates for broker, API and the control plane's own link."""
        names = tuple(dict.fromkeys((*LOOPBACK, *hosts)))
        for name, ca in _SERVERS:
            key = ec.generate_private_key(ec.SECP256R1())
            common = f"outrider {self.fleet} {name}"
            self._keep(name, self._leaf(ca, common, key.public_key(), now_ms, hosts=names), key)
        key = ec.generate_private_key(ec.SECP256R1())
        common = control_identity(self.fleet)
        self._keep("control", self._leaf("device-ca", common, key.public_key(), now_ms), key)

    def renewal_due(self, now_ms: int, hosts: Iterable[str] = ()) -> bool:
        """Whether a server certificate has less than half of its life left, lacks one of `hosts`,
        comes from the future (the clock was wrong), or is not of the key beside it (the power was
        cut between the two)."""
        now = _time(now_ms)
        for name in ("server", "api", "control"):
            certificate = self._load(name)
            begun = certificate.not_valid_before_utc <= now
            if not begun or certificate.not_valid_after_utc < now + LEAF_LIFE / 2:
                return True
            if not self._is_pair(name, certificate):
                return True
        wanted = {_spelled(host) for host in hosts}
        return any(not wanted <= set(_hosts(self._load(name))) for name, _ in _SERVERS)

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names and addresses for which both servers' certificates are valid."""
        found = [_hosts(self._load(name)) for name, _ in _SERVERS]
        return tuple(name for name in found[0] if all(name in each for each in found))

    def issue_crl(self, revoked: Iterable[tuple[str, int]], now_ms: int) -> RevocationList:
        """A new revocation list of the device CA: `(serial, revoked ms)` of each certificate."""
        numbers = following(self.revocation_list(), now_ms)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._load("device-ca").subject)
            .last_update(_time(numbers.from_ms))
            .next_update(_time(numbers.until_ms))
            .add_extension(x509.CRLNumber(numbers.number), critical=False)
        )
        for serial, at_ms in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(int(serial, 16))
            builder = builder.add_revoked_certificate(entry.revocation_date(_time(at_ms)).build())
        signed = builder.sign(self._signer("device-ca"), hashes.SHA256())
        replace(self.crl, signed.public_bytes(serialization.Encoding.PEM))
        return _read_crl(signed)

    def revocation_list(self) -> RevocationList | None:
        """The one in force; None if there is none that can be read."""
        try:
            return _read_crl(x509.load_pem_x509_crl(self.crl.read_bytes()))
        except (FileNotFoundError, ValueError):
            return None

    def sign_csr(self, csr: bytes, device: DeviceId, now_ms: int) -> bytes:
        """A device's certificate, PEM, valid for two years.

        Only the public key is taken from the request. Raises `InvalidRequest` OUT-A210 for one
        that cannot be read, was not signed by that key, or has another kind of key than P-256 or
        Ed25519; OUT-A203 for the control plane's own name; `ValueError` for a device of another
        fleet.
        """
        if split_device_id(device)[0] != self.fleet:
            raise ValueError(f"{device} is not a device of fleet {self.fleet}")
        if device == control_identity(self.fleet):
            raise InvalidRequest("OUT-A203", f"{device} is the control plane")
        certificate = self._leaf("device-ca", device, public_key(csr), now_ms)
        return certificate.public_bytes(serialization.Encoding.PEM)

    def certificate(self, name: str) -> Path:
        """Path of `broker-ca`, `device-ca`, `api-ca`, `server`, `api` or `control`."""
        return self.directory / f"{name}.crt"

    def key(self, name: str) -> Path:
        return self.directory / f"{name}.key"

    @property
    def crl(self) -> Path:
        return self.directory / "devices.crl"

    @property
    def control(self) -> Tls:
        """How the control plane reaches the broker."""
        return Tls(self.certificate("broker-ca"), self.certificate("control"), self.key("control"))

    @property
    def broker_ca(self) -> bytes:
        return self.certificate("broker-ca").read_bytes()

    @property
    def api_ca(self) -> bytes:
        return self.certificate("api-ca").read_bytes()

    @property
    def api_ca_der(self) -> bytes:
        return self._load("api-ca").public_bytes(serialization.Encoding.DER)

    def _leaf(
        self,
        ca: str,
        common: str,
        key: PublicKey,
        now_ms: int,
        *,
        hosts: Sequence[str] | None = None,
    ) -> x509.Certificate:
        """A server's certificate with `hosts`, a client's without."""
        issuer, signer = self._load(ca), self._signer(ca)
        purpose = (
            ExtendedKeyUsageOID.CLIENT_AUTH if hosts is None else ExtendedKeyUsageOID.SERVER_AUTH
        )
        builder = (
            _builder(_name(common), issuer.subject, key, now_ms, LEAF_LIFE)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
                critical=False,
            )
        )
        if hosts is not None:
            alternatives = x509.SubjectAlternativeName([_host(name) for name in hosts])
            builder = builder.add_extension(alternatives, critical=False)
        return builder.sign(signer, hashes.SHA256())

    def _load(self, name: str) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.certificate(name).read_bytes())

    def _signer(self, ca: str) -> ec.EllipticCurvePrivateKey:
        signer = serialization.load_pem_private_key(self.key(ca).read_bytes(), None)
        if not isinstance(signer, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{ca}.key is not an EC key")
        return signer

    def _is_pair(self, name: str, certificate: x509.Certificate) -> bool:
        try:
            return self._signer(name).public_key() == certificate.public_key()
        except (FileNotFoundError, ValueError):
            return False

    def _keep(
        self, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
    ) -> None:
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        replace(self.key(name), private, mode=0o600)
        replace(self.certificate(name), certificate.public_bytes(serialization.Encoding.PEM))


def public_key(csr: bytes) -> PublicKey:
    """The key that a certificate request proves to hold. Raises `InvalidRequest` OUT-A210."""
    if len(csr) > MAX_CSR:
        raise InvalidRequest("OUT-A210", f"{len(csr):,} bytes, at most {MAX_CSR:,}")
    try:
        request = x509.load_pem_x509_csr(csr)
        key = request.public_key()
        signed = request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise InvalidRequest("OUT-A210", "it cannot be read") from error
    if not isinstance(key, ed25519.Ed25519PublicKey) and not (
        isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    ):
        raise InvalidRequest("OUT-A210", "the key is neither P-256 nor Ed25519")
    if not signed:
        raise InvalidRequest("OUT-A210", "it is not signed by its own key")
    return key


def fingerprint(certificate: bytes) -> str:
    """SHA-256 of a PEM certificate's DER, as a digest."""
    loaded = x509.load_pem_x509_certificate(certificate)
    return digest_of(loaded.public_bytes(serialization.Encoding.DER))


def _read_crl(crl: x509.CertificateRevocationList) -> RevocationList:
    until = crl.next_update_utc
    try:
        number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        number = 0
    return RevocationList(
        number,
        int(crl.last_update_utc.timestamp() * 1000),
        int(until.timestamp() * 1000) if until else 0,
        frozenset(f"{each.serial_number:x}" for each in crl),
    )


def _hosts(certificate: x509.Certificate) -> list[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(each.value) for each in names]


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, now_ms: int, life: timedelta
) -> x509.CertificateBuilder:
    now = _time(now_ms)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _host(name: str) -> x509.GeneralName:
    kinds: tuple[Callable[[str], x509.GeneralName], ...] = (
        lambda text: x509.IPAddress(ipaddress.ip_address(text)),
        x509.DNSName,
    )
    try:
        return kinds[0](name)
    except ValueError:
        return kinds[1](name)


def _spelled(host: str) -> str:
    """As a certificate gives it back: addresses have several forms."""
    return str(_host(host).value)


def _time(now_ms: int) -> datetime:
    return datetime.fromtimestamp(now_ms // 1000, UTC)
