"""What can be done to a running fleet with what was stolen from it.

`Thief` copied the online keys; `Intruder` has a certificate and nothing else. `offer` takes the
control plane's place with the broker.
"""

from __future__ import annotations

import functools
import json
import ssl
import threading
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as mqtt
import zstandard
from paho.mqtt.enums import CallbackAPIVersion
from securesystemslib.dsse import Envelope
from tuf.api.metadata import Metadata

from control_plane.fleet.devices import document_of
from control_plane.signing import create, keys
from protocol import codec
from protocol.device import PAYLOAD_TYPE
from protocol.identifiers import Digest
from protocol.link import Address
from protocol.payload import (
    FEATURE_ZSTD,
    FRAME_SIZE,
    MAX_BLOCK,
    Hint,
    HintEntry,
    build_lists,
    frame_count,
)
from protocol.topics import TUF_ROLES
from tests.fakes.fleet_trust import TOPICS
from tests.fakes.forgery import seal, serialise
from tests.fakes.site import Site
from tests.fakes.whole_fleet import MODEL

WAIT_S = 10.0
BOMB = 1024 * 1024 * 1024


class Thief:
    """Signs with the online keys, and publishes as the control plane does."""

    def __init__(self, site: Site) -> None:
        folder = site.control.settings.keys
        self.site = site
        self.rollouts = keys.load(folder / create.ROLLOUTS_KEY)
        self.snapshot = keys.load(folder / create.SNAPSHOT_KEY)
        self.documents = 0
        """Published so far: an honest one needs a higher version to be heard again."""

    def role(self, name: str) -> bytes:
        return self.site.retained(self.site.topics.tuf(name))

    def changed(self, role: str, change: Callable[[Any], None]) -> bytes:
        """A role as it is retained, changed and signed with the key of rollouts."""
        metadata = Metadata[Any].from_bytes(self.role(role))
        change(metadata.signed)
        metadata.sign(self.rollouts)
        data: bytes = serialise(metadata)
        return data

    def tell(self, *, now_ms: int | None = None, **roles: bytes) -> None:
        """Publish these roles, with a snapshot and a timestamp of their own."""
        told = {TOPICS.tuf(role): roles.get(role) or self.role(role) for role in TUF_ROLES}
        seal(self.snapshot, told, now_ms=now_ms)
        for role in (*sorted(roles), "snapshot", "timestamp"):
            self.site.say(self.site.topics.tuf(role), told[TOPICS.tuf(role)])

    def document(self, *, of: str | None = None, **values: Any) -> None:
        """Publish a document for the site's device; `of` another device, or with other settings
        than there are."""
        row = self.site.control.store.devices.get(self.site.device.name)
        assert row is not None
        honest = document_of(self.site.topics.fleet, row)
        wire = {**codec.to_wire(honest), "version": honest.version + 1, **codec.to_wire(values)}
        if of is not None:
            wire["device"] = f"{self.site.topics.fleet}-{of}"
        self.site.say(self.site.topics.document(row.id), self.sealed(wire))
        self.documents += 1

    def sealed(self, document: dict[str, Any]) -> bytes:
        envelope = Envelope(codec.encode(document), PAYLOAD_TYPE, {})
        envelope.sign(self.rollouts)
        return json.dumps(envelope.to_dict()).encode()


class Intruder:
    """An MQTT client of its own; use as a context manager. `heard` is what the broker gave it."""

    def __init__(self, address: Address, client_id: str) -> None:
        assert address.tls is not None
        self.name = client_id
        self.heard: dict[str, bytes] = {}
        self._decided = threading.Event()
        self._in = False
        self._address = address
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv311
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(address.tls.ca)
        context.load_cert_chain(address.tls.certificate, address.tls.key)
        self._client.tls_set_context(context)
        self._client.on_connect = self._connected
        self._client.on_disconnect = lambda *_: self._decided.set()
        self._client.on_connect_fail = lambda *_: self._decided.set()
        self._client.on_message = self._hear

    def __enter__(self) -> Intruder:
        assert self.knock(), "it was not let in"
        return self

    def knock(self) -> bool:
        """Whether the broker accepts it."""
        try:
            self._client.connect(self._address.host, self._address.port)
        except OSError:
            return False
        self._client.loop_start()
        assert self._decided.wait(WAIT_S), "the broker says nothing"
        if not self._in:
            self._client.loop_stop()
        return self._in

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, data: bytes, *, retain: bool = False) -> None:
        """Returns once the broker has confirmed it, which proves nothing."""
        said = self._client.publish(topic, data, qos=1, retain=retain)
        said.wait_for_publish(WAIT_S)
        assert said.is_published()

    def subscribe(self, *topics: str) -> None:
        self._client.subscribe([(topic, 0) for topic in topics])

    def _connected(self, _c: Any, _d: Any, _f: Any, reason: Any, _p: Any) -> None:
        self._in = not reason.is_failure
        self._decided.set()

    def _hear(self, _client: Any, _data: Any, message: mqtt.MQTTMessage) -> None:
        self.heard[message.topic] = bytes(message.payload)


@functools.cache
def bomb() -> bytes:
    """Zeros without end, in a frame that does not say how many."""
    packer = zstandard.ZstdCompressor(level=1, write_content_size=False).compressobj()
    zeros = bytes(1024 * 1024)
    return b"".join(packer.compress(zeros) for _ in range(BOMB // len(zeros))) + packer.flush()


def offer(site: Site, file: Digest, payload: bytes) -> None:
    """Retain a payload as the only one for a file."""
    frames = [payload[at : at + FRAME_SIZE] for at in range(0, len(payload), FRAME_SIZE)]
    name, lists = build_lists(frames)
    for number, frame in enumerate(frames):
        site.say(site.topics.frame(MODEL, name, number), frame)
    for number, each in enumerate(lists):
        site.say(site.topics.frame_list(MODEL, name, number), each)
    size = len(payload)
    entry = HintEntry(name, size, frame_count(size), FEATURE_ZSTD, MAX_BLOCK)
    site.say(site.topics.hint(MODEL, file), codec.encode(Hint((entry,))))
