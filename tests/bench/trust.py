"""What trust costs: devices that verify, a broker with a thousand of them, TLS or none.

Devices: the agent's trust code beside stock `tuf.ngclient` over HTTP and a bare DSSE verifier, one
process each, with 10 and 1,000 approved versions. Broker: Mosquitto with mutual TLS beside the
same without TLS, and nginx that is polled over mutual TLS. All in one run, medians; only ratios of
one run mean anything. `--targets 10 --connections 100 --repeat 3` change the sizes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from control_plane.broker import find  # noqa: E402 - after the path is set
from protocol.link import Address  # noqa: E402 - the same
from protocol.topics import Topics  # noqa: E402 - the same
from tests.bench import fanout  # noqa: E402 - the same
from tests.bench.report import Row, publish  # noqa: E402 - the same
from tests.bench.trusting import crowd, publications  # noqa: E402 - the same
from tests.bench.trusting.device import ENVELOPE  # noqa: E402 - the same
from tests.bench.trusting.verifier import PUBLICATIONS, WARM  # noqa: E402 - the same
from tests.fakes.mosquitto import Mosquitto, free_port  # noqa: E402 - the same

FLEET = publications.FLEET
STOCK = "tuf.ngclient over HTTP"
BARE = "bare DSSE verifier"
NO_TLS = "the same without TLS"
POLLED = "nginx, polled once, mutual TLS"
TIMEOUT_S = 120.0
FILES_LEFT = 100
"""File descriptors for all but connections."""

Measured = dict[str, float]


# --- devices --------------------------------------------------------------------------------------


class Served(SimpleHTTPRequestHandler):
    """Counts what it sends, by the first part of the path."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    sent: ClassVar[Counter[str]] = Counter()

    def handle_one_request(self) -> None:
        writer, count = self.wfile, 0
        write = writer.write

        def counted(data: Any) -> int:
            nonlocal count
            count += len(data)
            return write(data)

        writer.write = counted  # type: ignore[method-assign] # restored below
        try:
            super().handle_one_request()
        finally:
            writer.write = write  # type: ignore[method-assign] # as it was
        if count:
            self.sent[self.path.split("/")[1]] += count

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def http_server(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Served, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def verify(who: str, published: publications.Published, state: Path, url: str) -> Measured:
    """Of a process that starts with nothing, and of one that starts from what that one left."""
    found: Measured = {}
    for process in ("cold", WARM):
        Served.sent.clear()
        cost = child("verifier", who, published.folder, state, *([url] if who == "tuf" else []))
        bytes_of = cost["received_bytes"] or {
            step: Served.sent[str(PUBLICATIONS.index(PUBLICATIONS[-1] if step == WARM else step))]
            for step in cost["cpu_ms"]
        }
        found |= {f"CPU ms, {step}": value for step, value in cost["cpu_ms"].items()}
        found |= {f"bytes, {step}": value for step, value in bytes_of.items()}
        found |= {f"RSS MB, {process}": cost["rss_kb"] / 1000, "CPU ms, imports": cost["import_ms"]}
    return found


def verifier_rows(directory: Path, targets: int, repeat: int) -> list[Row]:
    published = publications.publish(directory / f"fleet-{targets}", targets)
    runs: dict[str, list[Measured]] = {"ours": [], "tuf": [], "dsse": []}
    with http_server(published.folder) as url:
        for number in range(repeat):
            for who, found in runs.items():
                found.append(verify(who, published, directory / f"{who}-{targets}-{number}", url))
    ours, tuf, dsse = (medians(found) for found in runs.values())
    rows = []
    for what, value in ours.items():
        kind, _, step = what.partition(", ")
        name = f"{targets:,} targets: {kind.split()[0]}, {step}"
        unit = {"CPU ms": "ms", "RSS MB": "MB"}.get(kind, "B")
        rows.append(Row(name, value, unit, tuf[what], STOCK))
        # Nothing about freshness can be told by one envelope.
        if step != "re-stamp":
            rows.append(Row(name, value, unit, dsse[what], BARE))
    return rows


def bare_python(directory: Path, repeat: int) -> Row:
    costs = [child("verifier", "nothing", directory, directory / "n") for _ in range(repeat)]
    return Row("bare Python: RSS", statistics.median(cost["rss_kb"] for cost in costs) / 1000, "MB")


def child(module: str, *arguments: object) -> Any:
    command = [sys.executable, "-m", f"tests.bench.trusting.{module}", *map(str, arguments)]
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )
    if result.returncode:
        raise SystemExit(f"{' '.join(command)}\n{result.stderr}")
    return json.loads(result.stdout)


def medians(found: Sequence[Measured]) -> Measured:
    return {what: statistics.median(each[what] for each in found) for what in found[0]}


# --- broker ---------------------------------------------------------------------------------------


class Brokers:
    """One Mosquitto as a fleet has it, and the same without TLS: names are taken on trust there."""

    def __init__(self, directory: Path) -> None:
        self._secure = Mosquitto.start(directory / "tls", FLEET, autosave_s=1800)
        self._secure.broker.stop()
        self._plain = directory / "plain"
        self._plain.mkdir()
        self.mosquitto = self._secure

    @contextmanager
    def running(self, *, tls: bool) -> Iterator[tuple[int, Callable[[str], Address]]]:
        """`(process id, addresses by name)`."""
        if not tls:
            with self._running_plain() as found:
                yield found
            return
        broker = self._secure.broker
        broker.start()
        try:
            assert broker.pid is not None
            yield broker.pid, self._secure.address
        finally:
            broker.stop()

    @contextmanager
    def _running_plain(self) -> Iterator[tuple[int, Callable[[str], Address]]]:
        port = free_port()
        changed = {
            "listener": f"listener {port} 127.0.0.1",
            "allow_anonymous": "allow_anonymous true",
            "persistence_location": f"persistence_location {self._plain}/",
        }
        lines = [
            changed.get(line.partition(" ")[0], line)
            for line in self._secure.broker.write_files().read_text().splitlines()
            if not line.startswith(_ABOUT_TLS)
        ]
        file = self._plain / "mosquitto.conf"
        file.write_text("\n".join(lines) + "\n")
        process = subprocess.Popen([str(find()), "-c", str(file)], stderr=subprocess.DEVNULL)
        try:
            wait_for(port)
            yield process.pid, lambda _: Address("127.0.0.1", port)
        finally:
            process.terminate()
            process.wait()


_ABOUT_TLS = (
    "certfile",
    "keyfile",
    "cafile",
    "crlfile",
    "tls_version",
    "require_certificate",
    "use_identity_as_username",
    "use_username_as_clientid",  # our agents have no user name but their certificate's
)


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit(f"nothing listens on {port}")


def retained(published: publications.Published, publication: str) -> dict[str, bytes]:
    """Topic to bytes."""
    topics, folder = Topics(FLEET), published.of(publication)
    roles = ("rollouts", "models", "targets", "snapshot", "timestamp")
    return {
        topics.root(1): (folder / "root/1.json").read_bytes(),
        topics.plan(publications.MODEL): (folder / "plan.json").read_bytes(),
        **{topics.tuf(role): (folder / f"{role}.json").read_bytes() for role in roles},
    }


async def crowd_once(
    pid: int, addresses: dict[str, Address], control: Address, name: str, files: dict[str, bytes]
) -> Measured:
    topics = Topics(FLEET)
    async with crowd.control(control, name) as publisher:
        for topic, data in files.items():
            await publisher.publish(topic, data)
        everybody = crowd.Crowd(topics, publications.MODEL)
        storm = await everybody.connect(addresses, pid)
        stamped = await everybody.restamp(publisher, files[topics.tuf("timestamp")], pid)
        planned = await everybody.change_plan(publisher, files, pid)
        everybody.close()
    return {
        "connect all, s": storm.seconds,
        "one connect, median, ms": storm.median_ms,
        "one connect, 95 % below, ms": storm.most_ms,
        "connect all: server CPU, s": storm.server_cpu_s,
        "server RSS per connection, kB": storm.server_kb_each,
        **_spread("re-stamp", stamped),
        **_spread("plan change", planned),
    }


def _spread(what: str, spread: crowd.Spread) -> Measured:
    return {
        f"{what}: to all, s": spread.seconds,
        f"{what}: server CPU, s": spread.server_cpu_s,
        f"{what}: bytes per device, B": spread.bytes_each,
    }


def polled(
    directory: Path, published: publications.Published, brokers: Brokers, count: int
) -> Measured:
    """What nginx spends when each device asks once; that is due whether or not there is news."""
    if not fanout.found("nginx"):
        return {}
    secure = brokers.mosquitto
    files = {"re-stamp": ["timestamp.json"]}
    files["plan change"] = [*files["re-stamp"], "snapshot.json", "rollouts.json", "plan.json"]
    found: Measured = {}
    home = directory / "nginx"
    folder = published.of("plan change")
    with fanout.nginx(home, folder, secure.servers, secure.devices) as (server, port):
        address = replace(secure.address("local-poller"), port=port)
        for what, paths in files.items():
            spread = asyncio.run(crowd.poll(address, paths, count, server.pid))
            found |= _spread(what, spread)
    shutil.rmtree(home)
    return found


def crowd_rows(directory: Path, brokers: Brokers, count: int, repeat: int) -> list[Row]:
    published = publications.publish(directory / "crowd", 10)
    files = retained(published, "plan change")
    names = [f"{FLEET}-{number}" for number in range(count)]
    secure = {name: brokers.mosquitto.address(name) for name in names}
    runs: dict[str, list[Measured]] = {"tls": [], "plain": [], "polled": []}
    for _ in range(repeat):
        for kind in ("tls", "plain"):
            with brokers.running(tls=kind == "tls") as (pid, address_of):
                addresses = secure if kind == "tls" else {n: address_of(n) for n in names}
                control = brokers.mosquitto.control
                runs[kind].append(
                    asyncio.run(crowd_once(pid, addresses, address_of(control), control, files))
                )
        runs["polled"].append(polled(directory, published, brokers, count))
    tls, plain, poll = (medians(found) for found in runs.values())
    rows = []
    for what, value in tls.items():
        name, _, unit = what.rpartition(", ")
        name = f"{count:,} connections: {name}"
        rows.append(Row(name, value, unit, plain[what], NO_TLS))
        if what in poll:
            rows.append(Row(name, value, unit, poll[what], POLLED))
    return rows


# --- one device on the broker ---------------------------------------------------------------------


def device_rows(directory: Path, brokers: Brokers, targets: int, repeat: int) -> list[Row]:
    published = publications.publish(directory / f"device-{targets}", targets)
    name = f"{FLEET}-device"
    files = retained(published, "cold")
    files[ENVELOPE] = (published.of("cold") / "everything.dsse").read_bytes()
    runs: dict[tuple[str, bool], list[Measured]] = {}
    control = brokers.mosquitto.control
    with brokers.running(tls=True) as secure, brokers.running(tls=False) as plain:
        places = {True: secure[1], False: plain[1]}
        for address_of in places.values():
            asyncio.run(put(address_of(control), control, files))
        # In turn, so that whatever else the machine does meets all alike.
        for number, tls, who in product(range(repeat), places, ("agent", "dsse")):
            state = directory / f"{who}-{tls}-{targets}-{number}"
            address = places[tls](name)
            at = [address.host, address.port, name, state, published.folder]
            if address.tls is not None:
                at += [address.tls.ca, address.tls.certificate, address.tls.key]
            runs.setdefault((who, tls), []).append(child("device", who, *at))
    found = {key: medians(costs) for key, costs in runs.items()}
    ours = found["agent", True]
    rows = []
    for what, unit in (("cpu_ms", "ms"), ("after_imports_ms", "ms"), ("rss_kb", "kB")):
        text = {"cpu_ms": "CPU", "after_imports_ms": "CPU after imports", "rss_kb": "RSS"}[what]
        name = f"device, {targets:,} targets: {text}"
        rows.append(Row(name, ours[what], unit, found["agent", False][what], NO_TLS))
        against = f"paho and {BARE}, TLS"
        rows.append(Row(name, ours[what], unit, found["dsse", True][what], against))
    return rows


async def put(address: Address, name: str, files: dict[str, bytes]) -> None:
    async with crowd.control(address, name) as publisher:
        for topic, data in files.items():
            await publisher.publish(topic, data)


def connections(wanted: int) -> int:
    """As many as file limits allow, here and in the broker that inherits them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted + FILES_LEFT if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, wanted + FILES_LEFT), hard))
    return min(wanted, most - FILES_LEFT)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--targets", default="10,1000")
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    count = connections(options.connections)
    if count < options.connections:
        print(f"only {count} connections: the limit of open files is lower", file=sys.stderr)
    sizes = [int(size) for size in options.targets.split(",")]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="trust-") as name:
        directory = Path(name)
        rows.append(bare_python(directory, options.repeat))
        for size in sizes:
            rows += verifier_rows(directory, size, options.repeat)
        brokers = Brokers(directory)
        for size in sizes:
            rows += device_rows(directory, brokers, size, options.repeat)
        rows += crowd_rows(directory, brokers, count, options.repeat)
    return publish("trust", rows)


if __name__ == "__main__":
    raise SystemExit(main())
