"""Both ends of a link for one measurement: broker, control plane and nginx behind it, a device
before it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Final

from control_plane.encode import Encoded
from edge_agent.urls import CONTROL_PLANE
from edge_agent.ways import TRANSPORTS, Transport
from protocol import codec
from protocol.payload import PAYLOAD_PATH, Hint
from tests.bench.linking import curl_peer
from tests.bench.linking.device import Fetched, Task
from tests.bench.linking.emulator import Conditions, Counted, Emulator
from tests.bench.linking.namespaces import Side, congestion_control, pair
from tests.bench.linking.origin import Origin, copy_payload, origin
from tests.fakes.origin import Offer, PlainBundle

ROOT: Final = Path(__file__).parents[3]
MODEL: Final = "model.onnx"
_ENDING_S: Final = 60.0
_NUMBERS: Final = count(1)


@dataclass(frozen=True, slots=True)
class Way:
    """How a device is told to bring a payload."""

    name: str
    transports: tuple[Transport, ...]
    urls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Release:
    """A bundle that differs from `before` in its model only, and the payloads of that model that
    are offered, the smallest first."""

    before: PlainBundle
    offer: Offer
    payloads: tuple[Encoded, ...]

    @property
    def payload(self) -> Encoded:
        return self.payloads[0]

    def retained(self, urls: tuple[str, ...]) -> dict[str, bytes]:
        """By topic: what the device asks for on its way, from the index to the frames."""
        kept = self.offer.retained()
        for each in self.payloads:
            kept |= self.offer.lists(each) | self.offer.frames(each)
        return kept | self.hint(urls)

    def hint(self, urls: tuple[str, ...]) -> dict[str, bytes]:
        entries = tuple(replace(each.entry, urls=urls) for each in self.payloads)
        return {self.offer.hint(MODEL): codec.encode(Hint(entries))}


@dataclass(frozen=True, slots=True)
class Measured:
    seconds: float
    cpu_s: float
    """Of the device's process, or of curl."""
    arrived: Counted
    """What reached the device: everything, of whatever protocol."""
    cuts: int
    known_s: float = 0.0
    """Of the seconds: what it took us to learn which payload there is."""


@dataclass(frozen=True, slots=True)
class Site:
    directory: Path
    device: Side
    server: Side
    emulator: Emulator
    origin: Origin

    @property
    def congestion(self) -> str:
        return congestion_control(self.server)

    @property
    def ways(self) -> tuple[Way, ...]:
        """One transport and one address each."""
        mirror = f"https://{self.server.address}:{curl_peer.PORT}{PAYLOAD_PATH}"
        return (
            Way("frames", ("mqtt",), ()),
            Way("HTTP, control plane", ("http",), (CONTROL_PLANE,)),
            Way("HTTP, nginx", ("http",), (mirror,)),
        )

    @property
    def as_shipped(self) -> Way:
        return Way("as shipped", TRANSPORTS, (CONTROL_PLANE,))

    def offer(self, release: Release) -> None:
        """Have broker, control plane and nginx hold it."""
        with self.server.entered():
            self.origin.publish(release.retained(()))
        self.origin.put(release.offer.bundle.model, release.payloads)
        folder = self.directory / "root" / PAYLOAD_PATH.strip("/")
        folder.mkdir(parents=True, exist_ok=True)
        for each in release.payloads:
            copy_payload(each, folder)

    def fetch(self, release: Release, way: Way) -> Measured:
        """A new device with the bundle before brings the release."""
        with self.server.entered():
            self.origin.publish(release.hint(way.urls))
        number = next(_NUMBERS)
        home, bundle = self.directory / f"device-{number}", release.offer.bundle
        bundles = home / "bundles"
        shutil.copytree(self.directory / "device", home)
        shutil.copytree(release.before.path, bundles / release.before.path.name)
        task = Task(str(home), bundle.model, bundle.digest, way.transports, number)
        told = home / "task.json"
        told.write_text(json.dumps(asdict(task)))
        program = ROOT / "tests" / "bench" / "linking" / "device.py"
        # Mirrors are believed by the system's authorities; this is theirs.
        trusted = {"SSL_CERT_FILE": str(self.origin.authority.certificate("api-ca"))}
        with subprocess.Popen(
            self.device.command(sys.executable, program, told),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | trusted,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise SystemExit("the device did not start")
            self.emulator.begin()
            process.stdin.write("\n")
            process.stdin.flush()
            said = process.stdout.readline()
            arrived, cuts = self.emulator.arrived[self.device.tun], self.emulator.cuts
            process.wait(_ENDING_S)
        if not said:
            raise SystemExit("the device did not come to an end")
        fetched = Fetched(**json.loads(said))
        here = bundles / f".{bundle.digest}"
        if {path.name: path.read_bytes() for path in here.iterdir()} != bundle.files:
            raise SystemExit("the device has something else")
        shutil.rmtree(home)
        return Measured(fetched.seconds, fetched.cpu_s, arrived, cuts, fetched.known_s)

    def curl(self, payload: Encoded) -> Measured:
        """The peer brings the payload's bytes."""
        target = self.directory / "curl.out"
        target.unlink(missing_ok=True)
        url = f"https://{self.server.address}:{curl_peer.PORT}{PAYLOAD_PATH}{payload.entry.payload}"
        ca = self.origin.authority.certificate("api-ca")
        self.emulator.begin()
        brought = curl_peer.curl(self.device, url, ca, target, payload.entry.size)
        arrived, cuts = self.emulator.arrived[self.device.tun], self.emulator.cuts
        if target.read_bytes() != payload.path.read_bytes():
            raise SystemExit("curl brought something else")
        return Measured(brought.seconds, brought.cpu_s, arrived, cuts)


@contextmanager
def site(
    directory: Path, conditions: Conditions, releases: Sequence[Release], seed: int = 1
) -> Iterator[Site]:
    """Everything runs, and all releases are offered, for as long as this lasts. `directory` is
    made, and holds all that is written. Raises `OSError`, `OutriderError`."""
    directory.mkdir()
    (directory / "root").mkdir()
    with (
        pair() as (device, server),
        Emulator(device.tun, server.tun, conditions, seed) as link,
        server.entered(),
        origin(directory, server.address) as control,
    ):
        api = control.authority.certificate("api"), control.authority.key("api")
        control.enrol(directory / "device", "cam")
        with curl_peer.nginx(server, directory / "root", directory / "nginx", *api):
            made = Site(directory, device, server, link, control)
            for release in releases:
                made.offer(release)
            yield made
