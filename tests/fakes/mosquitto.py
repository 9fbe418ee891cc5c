"""A real Mosquitto on a free port, configured as a fleet's broker is, with throw-away keys.

And one for several fleets, with the files that `outrider broker config` writes.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from control_plane import broker_files
from control_plane.broker import Broker, find
from control_plane.fleet.authority import Authority as FleetAuthority
from control_plane.fleet.certificates import recorded
from control_plane.mosquitto import Certificates, control_identity
from control_plane.settings import Settings
from protocol.link import Address, Tls
from protocol.topics import Topics
from tests.fakes.certificates import Authority
from tests.fakes.waiting import until


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True, slots=True)
class Mosquitto:
    """A running broker and both authorities: `servers` signed it, `devices` signs clients."""

    broker: Broker
    fleet: str
    servers: Authority
    devices: Authority

    @classmethod
    def start(cls, directory: Path, fleet: str = "local", autosave_s: int = 1) -> Mosquitto:
        servers = Authority.create(directory / "ca", "broker")
        devices = Authority.create(directory / "ca", "device")
        certificate, key = servers.issue("broker", server=True)
        broker = Broker(
            directory / "broker",
            fleet,
            Certificates(certificate, key, devices.ca),
            port=free_port(),
            autosave_s=autosave_s,
        )
        broker.start()
        return cls(broker, fleet, servers, devices)

    @property
    def topics(self) -> Topics:
        return Topics(self.fleet)

    @property
    def control(self) -> str:
        return control_identity(self.fleet)

    def address(self, identity: str) -> Address:
        """How a client whose certificate names `identity` gets here."""
        return Address(
            self.broker.host, self.broker.port, self.devices.client(identity, self.servers)
        )

    def stop(self) -> None:
        self.broker.stop()


@dataclass(frozen=True, slots=True)
class Member:
    """A device of a fleet: its certificate as the fleet's own authority made it."""

    id: str
    tls: Tls
    serial: str


@dataclass
class SharedBroker:
    """One Mosquitto for several fleets, each with a real authority of its own."""

    directory: Path
    fleets: dict[str, Settings] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def create(cls, directory: Path, names: Sequence[str], now_ms: int) -> SharedBroker:
        """Everything is made and written; nothing runs."""
        made = cls(directory)
        for name in names:
            home = directory / name
            FleetAuthority.create(home / "ca", name, now_ms)
            made.fleets[name] = Settings(home, name, broker_port=free_port())
        made.write()
        return made

    def write(self) -> None:
        # Root's Mosquitto would become a user who can read nothing here.
        user = "root" if os.geteuid() == 0 else "nobody"
        broker_files.write_production(
            list(self.fleets.values()),
            self.directory / "broker",
            listen="127.0.0.1",
            data=self.directory,
            user=user,
        )

    def start(self) -> None:
        configuration = self.directory / "broker" / broker_files.CONFIGURATION
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [find(), "-c", configuration], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until(lambda: all(self._answers(of.broker_port) for of in self.fleets.values()))

    def reload(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)
            self.process = None

    def authority(self, fleet: str) -> FleetAuthority:
        return FleetAuthority(self.fleets[fleet].ca, fleet)

    def member(self, fleet: str, device: str) -> Member:
        authority, now_ms = self.authority(fleet), time.time_ns() // 1_000_000
        key = ec.generate_private_key(ec.SECP256R1())
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        csr = request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        pem = authority.sign_csr(csr, device, now_ms)
        serial = recorded(pem, device, now_ms).serial
        place = self.directory / f"{device}-{serial[:8]}"
        place.with_suffix(".crt").write_bytes(pem)
        place.with_suffix(".key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        ca = authority.certificate("broker-ca")
        return Member(device, Tls(ca, place.with_suffix(".crt"), place.with_suffix(".key")), serial)

    def control(self, fleet: str) -> Member:
        return Member(control_identity(fleet), self.authority(fleet).control, "")

    def address(self, fleet: str, member: Member) -> Address:
        """Of a fleet's listener, met with somebody's certificate by whoever believes its name."""
        tls = Tls(
            self.authority(fleet).certificate("broker-ca"), member.tls.certificate, member.tls.key
        )
        return Address("127.0.0.1", self.fleets[fleet].broker_port, tls)

    def revoke(self, fleet: str, revoked: Mapping[str, int], now_ms: int) -> None:
        """Issue a list, hand it to the broker, have it read."""
        authority = self.authority(fleet)
        authority.issue_crl(tuple(revoked.items()), now_ms)
        broker_files.copy_certificates(authority.directory, self.directory / "broker" / fleet)
        self.reload()

    def _answers(self, port: int) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "log").read_text()
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return True
        except OSError:
            return False
