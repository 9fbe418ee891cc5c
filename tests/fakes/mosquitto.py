"""A real Mosquitto on a free port, configured as a fleet's broker is, with throw-away keys."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from control_plane.broker import Broker, Certificates, control_identity
from protocol.link import Address
from protocol.topics import Topics
from tests.fakes.certificates import Authority


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
