"""A member of the fleet who hears everything that is told to everybody, and counts it."""

from __future__ import annotations

import ssl
import threading
from collections import Counter
from typing import Any, Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from protocol.link import Address

KINDS: Final = ("tuf/#", "plans/+", "deny", "manifests/#", "payloads/#", "frames/#", "ingest/+")


class Listener:
    """What a broker sends because it is retained is not counted: only what is published now."""

    def __init__(self, address: Address, client_id: str, prefix: str) -> None:
        assert address.tls is not None
        self._address = address
        self._prefix = prefix
        self._lock = threading.Lock()
        self._messages: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv311
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(address.tls.ca)
        context.load_cert_chain(address.tls.certificate, address.tls.key)
        self._client.tls_set_context(context)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = self._connected
        self._client.on_message = self._hear

    def start(self) -> None:
        self._client.connect_async(self._address.host, self._address.port)
        self._client.loop_start()

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def heard(self) -> tuple[dict[str, int], dict[str, int]]:
        """Messages and bytes by kind, so far."""
        with self._lock:
            return dict(self._messages), dict(self._bytes)

    def _connected(self, client: mqtt.Client, *_: Any) -> None:
        client.subscribe([(self._prefix + kind, 0) for kind in KINDS])

    def _hear(self, _client: Any, _data: Any, message: mqtt.MQTTMessage) -> None:
        if not message.retain:
            kind = message.topic.removeprefix(self._prefix).split("/")[0]
            with self._lock:
                self._messages[kind] += 1
                self._bytes[kind] += len(message.payload)
