"""One measured process: connect to a broker, learn what the fleet says, verify it.

    python -m tests.bench.trusting.device agent|dsse HOST PORT NAME STATE FOLDER [CA CERT KEY]

`agent` is the agent's own link and trust code. `dsse` is paho and a bare DSSE verifier, which
subscribes to one topic. Prints JSON: CPU ms in all and after the imports, resident kB.
"""

from __future__ import annotations

import json
import queue
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))

from protocol.link import Address, Tls  # noqa: E402 - after the path is set
from protocol.topics import Topics  # noqa: E402 - the same
from tests.bench.trusting.verifier import FLEET, THRESHOLD, resident_kb  # noqa: E402 - the same

WAIT_S = 60.0
ENVELOPE = Topics(FLEET).deny
"""Any topic that a device may read and the agent does not use in this measurement."""

Arrived = queue.SimpleQueue[tuple[str, bytes]]


def agent(address: Address, name: str, state: Path, folder: Path) -> float:
    from edge_agent.clock import Clock
    from edge_agent.link import Link
    from edge_agent.trust import Trust

    imported = time.process_time()
    clock = Clock(state / "clock.json", trust_wall=True)
    trust = Trust(state / "tuf", (folder / "0/root/1.json").read_bytes(), FLEET, clock)
    arrived: Arrived = queue.SimpleQueue()
    link = Link(
        address,
        name,
        on_message=lambda topic, data: arrived.put((topic, data)),
        on_state=lambda up, why: None,
        now_ms=clock.now_ms,
    )
    link.subscribe(trust.standing)
    link.start()
    asked: set[str] = set()
    while not trust.known:
        topic, data = arrived.get(timeout=WAIT_S)
        if topic in asked:
            link.unsubscribe([topic])
            asked.discard(topic)
        trust.offer(topic, data)
        wanted = set(trust.wanted())
        link.subscribe(sorted(wanted - asked))
        asked |= wanted
        if not wanted:
            trust.refresh()
    assert trust.approvals
    return imported


def dsse(address: Address, name: str, state: Path, folder: Path) -> float:
    import paho.mqtt.client as mqtt
    from paho.mqtt.enums import CallbackAPIVersion
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import Key

    imported = time.process_time()
    keys = [
        Key.from_dict(keyid, value)
        for keyid, value in json.loads((folder / "keys.json").read_bytes()).items()
    ]
    arrived: Arrived = queue.SimpleQueue()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name)
    if address.tls is not None:
        tls = address.tls
        client.tls_set(str(tls.ca), str(tls.certificate), str(tls.key))
    client.on_message = lambda _c, _u, message: arrived.put((message.topic, bytes(message.payload)))
    client.connect(address.host, address.port)
    client.subscribe(ENVELOPE)
    client.loop_start()
    _, data = arrived.get(timeout=WAIT_S)
    envelope = Envelope.from_dict(json.loads(data))
    envelope.verify(keys, THRESHOLD)
    assert json.loads(envelope.payload)["approved"]
    (state / "counter").write_text("1")
    return imported


def main(arguments: list[str]) -> None:
    who, host, port, name, state, folder, *tls = arguments
    paths = list(map(Path, tls))
    address = Address(host, int(port), Tls(*paths) if paths else None)
    Path(state).mkdir(parents=True, exist_ok=True)
    run = {"agent": agent, "dsse": dsse}[who]
    imported = run(address, name, Path(state), Path(folder))
    spent = time.process_time()
    found = {"cpu_ms": spent * 1000, "after_imports_ms": (spent - imported) * 1000}
    print(json.dumps({**found, "rss_kb": resident_kb()}))


if __name__ == "__main__":
    main(sys.argv[1:])
