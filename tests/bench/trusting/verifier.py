"""One measured process: verify what a fleet publishes, say what it cost. Imports are part of that.

    python -m tests.bench.trusting.verifier ours|tuf|dsse|nothing FOLDER STATE [URL]

`ours` is the agent's trust code, fed as over MQTT. `tuf` is stock `tuf.ngclient` with its own
fetcher, over HTTP from URL. `dsse` verifies one envelope with fixed keys and a counter: no
rotation of keys, no freshness, no revocation of keys, no consistency between documents.

With an empty STATE it goes through all publications; with one that an earlier process left it
starts from that (`warm start`). Prints JSON: CPU ms and bytes by publication, resident kB.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))

PUBLICATIONS = ("cold", "re-stamp", "plan change", "approval")
WARM = "warm start"
FLEET = "local"
PLAN = "rollouts/plan-camera"
THRESHOLD = 2


@dataclass
class Cost:
    import_ms: float = 0.0
    cpu_ms: dict[str, float] = field(default_factory=dict)
    received_bytes: dict[str, int] = field(default_factory=dict)
    rss_kb: int = 0

    @contextmanager
    def of(self, step: str) -> Iterator[None]:
        began = time.process_time()
        yield
        self.cpu_ms[step] = (time.process_time() - began) * 1000


def ours(cost: Cost, folder: Path, state: Path, steps: tuple[str, ...]) -> None:
    from edge_agent.clock import Clock
    from edge_agent.trust import Trust
    from protocol.topics import Topics

    cost.import_ms = time.process_time() * 1000
    topics = Topics(FLEET)
    root = (folder / "0/root/1.json").read_bytes()
    clock = Clock(state / "clock.json", trust_wall=True)
    trust = None
    for step in steps:
        here = folder_of(folder, step)
        received = 0
        with cost.of(step):
            if trust is None:
                trust = Trust(state / "tuf", root, FLEET, clock)
            wanted = [topics.tuf("timestamp")]
            while wanted:
                topic = wanted.pop()
                data = (here / f"{topic.rpartition('/')[2]}.json").read_bytes()
                trust.offer(topic, data)
                received += packet_bytes(topic, data)
                wanted = wanted or list(trust.wanted())
            trust.refresh()
            assert trust.plans
            assert trust.approvals
        cost.received_bytes[step] = received


def packet_bytes(topic: str, data: bytes) -> int:
    """Of an MQTT PUBLISH with QoS 0."""
    rest = 2 + len(topic) + len(data)
    return 1 + (1 if rest < 128 else 2 if rest < 16_384 else 3) + rest


def stock(cost: Cost, folder: Path, state: Path, steps: tuple[str, ...], url: str) -> None:
    from tuf.ngclient import Updater

    cost.import_ms = time.process_time() * 1000
    root = (folder / "0/root/1.json").read_bytes()
    for step in steps:
        with cost.of(step):
            base = f"{url}/{folder_of(folder, step).name}/"
            # Made anew for each refresh: that is how ngclient is used.
            updater = Updater(str(state), base, str(state), f"{base}targets/", bootstrap=root)
            updater.refresh()
            assert updater.get_targetinfo(PLAN)
            assert updater.get_targetinfo("models/camera/v1")


def dsse(cost: Cost, folder: Path, state: Path, steps: tuple[str, ...]) -> None:
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import Key

    cost.import_ms = time.process_time() * 1000
    keys = [
        Key.from_dict(keyid, value)
        for keyid, value in json.loads((folder / "keys.json").read_bytes()).items()
    ]
    counter_file = state / "counter"
    for step in steps:
        data = (folder_of(folder, step) / "everything.dsse").read_bytes()
        with cost.of(step):
            envelope = Envelope.from_dict(json.loads(data))
            envelope.verify(keys, THRESHOLD)
            document = json.loads(envelope.payload)
            last = int(counter_file.read_text()) if counter_file.exists() else 0
            assert document["counter"] >= last
            counter_file.write_text(str(document["counter"]))
            assert document["approved"]
        cost.received_bytes[step] = len(data)


def nothing(cost: Cost, *_: object) -> None:
    """A Python that has read this file."""
    cost.import_ms = time.process_time() * 1000


def folder_of(folder: Path, step: str) -> Path:
    return folder / str(PUBLICATIONS.index(PUBLICATIONS[-1] if step == WARM else step))


def resident_kb() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def main(arguments: list[str]) -> None:
    who, folder, state, *more = arguments
    verify: dict[str, Callable[..., None]] = {
        "ours": ours,
        "tuf": stock,
        "dsse": dsse,
        "nothing": nothing,
    }
    place = Path(state)
    steps = (WARM,) if place.exists() else PUBLICATIONS
    place.mkdir(parents=True, exist_ok=True)
    cost = Cost()
    verify[who](cost, Path(folder), place, steps, *more)
    cost.rss_kb = resident_kb()
    print(json.dumps(asdict(cost)))


if __name__ == "__main__":
    main(sys.argv[1:])
