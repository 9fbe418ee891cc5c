"""200 devices fetch one 5 MB payload: what leaves the control plane, how long, at what cost.

Real Mosquitto over mutual TLS, the agent's own link and fetcher, four processes of devices. The
peer is nginx serving the same file over TLS to as many curl processes, in the same run. Only
ratios of one run mean anything. `--devices 1,50,200 --megabytes 5` change the sizes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import queue
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from control_plane.link import Link as ControlLink  # noqa: E402 - after the path is set
from control_plane.publisher import Publisher  # noqa: E402 - the same
from control_plane.retained import Retained  # noqa: E402 - the same
from edge_agent.fetch import Fetcher  # noqa: E402 - the same
from edge_agent.link import Link  # noqa: E402 - the same
from protocol.bundle import Facts  # noqa: E402 - the same
from protocol.link import Address  # noqa: E402 - the same
from protocol.topics import Topics  # noqa: E402 - the same
from tests.bench.report import Row, publish  # noqa: E402 - the same
from tests.fakes.certificates import Authority  # noqa: E402 - the same
from tests.fakes.mosquitto import Mosquitto, free_port  # noqa: E402 - the same
from tests.fakes.origin import Offer, PlainBundle, offer, plain_bundle  # noqa: E402 - the same

PROCESSES = 4
TIMEOUT_S = 300.0
TOPICS = Topics("local")


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one run with a number of devices."""

    seconds: float
    server_cpu_s: float
    device_cpu_s: float
    payload_bytes: int
    other_bytes: int


# --- ours -----------------------------------------------------------------------------------------


def devices(
    names: Sequence[str], addresses: dict[str, Address], home: Path, bundle: PlainBundle, gate: Any
) -> None:
    """One process: link and fetcher of each of the devices, all driven by this thread."""
    arrived: queue.SimpleQueue[tuple[int, str, bytes]] = queue.SimpleQueue()
    links, fetchers = [], []
    for number, name in enumerate(names):

        def heard(topic: str, data: bytes, number: int = number) -> None:
            arrived.put((number, topic, data))

        link = Link(addresses[name], name, on_message=heard, on_state=lambda up, why: None)
        approvals = {bundle.digest: bundle.approved}
        (home / name).mkdir(parents=True)
        rng = random.Random(name)
        fetcher = Fetcher(
            link,
            TOPICS,
            name,
            home / name,
            Facts(),
            lambda approvals=approvals: approvals,  # type: ignore[misc] # one per device
            rng,
            on_wake=lambda number=number: arrived.put((number, "", b"")),  # type: ignore[misc] # same
        )
        links.append(link)
        fetchers.append(fetcher)
        link.start()
    while not all(link.connected for link in links):
        time.sleep(0.01)
    gate.wait()
    cpu = time.process_time()
    for fetcher in fetchers:
        fetcher.ensure(bundle.model, bundle.digest)
        fetcher.tick(time.monotonic())
    left = set(range(len(fetchers)))
    while left:
        try:
            number, topic, data = arrived.get(timeout=1)
        except queue.Empty:
            for number in left:
                fetchers[number].tick(time.monotonic())
            continue
        if not topic or not fetchers[number].on_message(topic, data):
            fetchers[number].tick(time.monotonic())
            if fetchers[number].status().done:
                left.discard(number)
    (home / f"{names[0]}.cpu").write_text(str(time.process_time() - cpu))
    gate.wait()
    for link in links:
        link.stop()


def run_ours(mosquitto: Mosquitto, offered: Offer, count: int, directory: Path) -> Cost:
    control = Control(mosquitto)
    names = [f"local-{n}" for n in range(count)]
    addresses = {name: mosquitto.address(name) for name in names}
    shares = [names[n::PROCESSES] for n in range(PROCESSES)]
    shares = [share for share in shares if share]
    gate = multiprocessing.Barrier(len(shares) + 1)
    home = directory / f"devices-{count}"
    workers = [
        multiprocessing.Process(
            target=devices, args=(share, addresses, home, offered.bundle, gate), daemon=True
        )
        for share in shares
    ]
    for worker in workers:
        worker.start()
    gate.wait(TIMEOUT_S)
    pid = mosquitto.broker.pid
    began, cpu = time.monotonic(), cpu_of(pid)
    control.offer(offered)
    gate.wait(TIMEOUT_S)
    seconds, broker_cpu = time.monotonic() - began, cpu_of(pid) - cpu
    for worker in workers:
        worker.join(TIMEOUT_S)
    device_cpu = sum(float(path.read_text()) for path in home.glob("*.cpu"))
    payload = sum(control.publisher.origin_bytes.values())
    control.clear()
    return Cost(seconds, broker_cpu, device_cpu, payload, control.publisher.other_bytes)


class Control:
    """Link and publisher, as `serve` wires them."""

    def __init__(self, mosquitto: Mosquitto) -> None:
        self.link = ControlLink(
            mosquitto.address(mosquitto.control),
            mosquitto.control,
            on_message=self._hear,
            on_state=lambda up, why: None,
        )
        self.retained = Retained(self.link, TOPICS)
        self.publisher = Publisher(self.link, TOPICS, self.retained)
        self.link.start()
        while not self.link.connected:
            time.sleep(0.01)
        self._kept: list[str] = []

    def _hear(self, topic: str, data: bytes) -> None:
        self.retained.on_message(topic, data)

    def offer(self, offered: Offer) -> None:
        files, bundle = offered.bundle.files, offered.bundle
        self.publisher.keep(TOPICS.manifest(bundle.model, bundle.digest), files["index.json"])
        self.publisher.keep(TOPICS.manifest(bundle.model, bundle.manifest), files["manifest.json"])
        for member in bundle.variant.members:
            self.publisher.offer(bundle.model, member.digest, [offered.payloads[member.path]])
        self._work()
        self._kept = list(offered.retained())

    def clear(self) -> None:
        """Leave the broker as it was, for the next run."""
        for topic in self._kept:
            self.link.publish(topic, b"", retain=True)
        self.link.confirmed(30)
        self.link.stop()

    def _work(self) -> None:
        while not self.publisher.work(time.monotonic()):
            pass


# --- peer -----------------------------------------------------------------------------------------

NGINX = """
daemon off; master_process off; worker_processes 1; pid {home}/pid; error_log {home}/error crit;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on;
  client_body_temp_path {home}/b; proxy_temp_path {home}/p; fastcgi_temp_path {home}/f;
  uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
  server {{ listen 127.0.0.1:{port} ssl; root {root};
    ssl_certificate {certificate}; ssl_certificate_key {key};
    ssl_client_certificate {ca}; ssl_verify_client on; }}
}}
"""


@contextmanager
def nginx(directory: Path, root: Path, servers: Authority, clients: Authority) -> Iterator[Any]:
    """`(process, port)` of an nginx that serves `root` to holders of a device certificate."""
    directory.mkdir()
    certificate, key = servers.issue("nginx", server=True)
    port = free_port()
    configuration = directory / "nginx.conf"
    configuration.write_text(
        NGINX.format(
            home=directory, port=port, root=root, certificate=certificate, key=key, ca=clients.ca
        )
    )
    program = found("nginx") or "nginx"
    process = subprocess.Popen([program, "-c", configuration, "-p", directory])
    try:
        time.sleep(0.5)
        yield process, port
    finally:
        process.terminate()
        process.wait()


def found(program: str) -> str | None:
    return shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")


def run_peer(mosquitto: Mosquitto, file: Path, count: int, directory: Path) -> Cost | None:
    if not (found("nginx") and found("curl")):
        return None
    clients = mosquitto.devices
    certificate, key = clients.issue("local-curl")
    home = directory / f"nginx-{count}"
    with nginx(home, file.parent, mosquitto.servers, clients) as (server, port):
        out = home / "out"
        out.mkdir()
        command = ["curl", "-s", "-f", "--cacert", mosquitto.servers.ca, "--cert", certificate]
        command += ["--key", key, f"https://127.0.0.1:{port}/{file.name}"]
        cpu, children = cpu_of(server.pid), os.times()
        began = time.monotonic()
        fetches = [
            subprocess.Popen([*map(str, command), "-o", str(out / str(n))]) for n in range(count)
        ]
        if any(fetch.wait(TIMEOUT_S) for fetch in fetches):
            raise SystemExit("curl failed")
        seconds = time.monotonic() - began
        after = os.times()
        spent = after.children_user + after.children_system
        spent -= children.children_user + children.children_system
        sent = sum(path.stat().st_size for path in out.iterdir())
        cost = Cost(seconds, cpu_of(server.pid) - cpu, spent, sent, 0)
        shutil.rmtree(out)
    return cost


def cpu_of(pid: int | None) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- rows -----------------------------------------------------------------------------------------


def rows(count: int, ours: Cost, peer: Cost | None, payload: int) -> list[Row]:
    who = "nginx + curl" if peer else "skipped: no nginx or no curl here"
    devices = f"{count} device{'s' if count > 1 else ''}"
    share = ours.payload_bytes / payload
    return [
        Row(
            f"{devices}: origin bytes / payload",
            share,
            "x",
            peer.payload_bytes / payload if peer else None,
            who,
            "≤ 1.02",
            share <= 1.02,
        ),
        Row(f"{devices}: metadata", ours.other_bytes, "B"),
        Row(f"{devices}: time to all", ours.seconds, "s", peer.seconds if peer else None, who),
        Row(
            f"{devices}: server CPU",
            ours.server_cpu_s,
            "s",
            peer.server_cpu_s if peer else None,
            who,
        ),
        Row(
            f"{devices}: device CPU",
            ours.device_cpu_s,
            "s",
            peer.device_cpu_s if peer else None,
            who,
        ),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--devices", default="1,50,200")
    parser.add_argument("--megabytes", type=float, default=5)
    options = parser.parse_args()
    found_rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="fanout-") as name:
        directory = Path(name)
        size = int(options.megabytes * 1e6)
        # Random bytes do not pack, so the payload is as large as the file.
        bundle = plain_bundle(directory / "origin", onnx=random.Random(1).randbytes(size))
        offered = offer(bundle, directory / "payloads")
        payload = sum(encoded.entry.size for encoded in offered.payloads.values())
        mosquitto = Mosquitto.start(directory, autosave_s=30)
        try:
            for count in map(int, options.devices.split(",")):
                ours = run_ours(mosquitto, offered, count, directory)
                peer = run_peer(mosquitto, bundle.path / "model.onnx", count, directory)
                found_rows += rows(count, ours, peer, payload)
                shutil.rmtree(directory / f"devices-{count}")
        finally:
            mosquitto.stop()
    return publish("fanout", found_rows)


if __name__ == "__main__":
    raise SystemExit(main())
