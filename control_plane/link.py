"""The control plane's MQTT link: like a device's, but it keeps its session and acknowledges late.

A message that must not be lost (QoS 1) is handed in as a `Delivery` and acknowledged to the
broker only after its content is committed; a broker keeps what is not, also while nobody is here.
Acknowledgements belong to the connection that delivered: a late one can never confirm another
message. Publishing waits while too much is unconfirmed, so brokers are never flooded into
dropping what they confirmed.
"""

from __future__ import annotations

import logging
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from protocol.link import KEEPALIVE_S, Address, Retry, Tls, in_packets

_log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S: Final = 10.0
STOP_TIMEOUT_S: Final = 15.0
UNCONFIRMED: Final = 64
"""Messages sent and not yet confirmed by the broker: 4 MiB of frames."""
_LOOP_S: Final = 0.5

OnMessage = Callable[[str, bytes], None]
OnState = Callable[[bool, str], None]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A QoS 1 message. Delivered again, perhaps twice, until `acknowledge` was called."""

    topic: str
    data: bytes
    acknowledge: Callable[[], None]
    """Any thread may call it, once, after the content is safe."""


OnDelivery = Callable[[Delivery], None]


class Link:
    """`on_message` gets QoS 0 messages, `on_delivery` those of QoS 1, on the link's thread.

    One link per certificate: brokers make the certificate's name the client id, so a second link
    would end the first one's connection, and so on.

    Without `on_delivery` the session is clean and every message goes to `on_message`. With it,
    `client_id` names a session that the broker keeps.
    """

    def __init__(
        self,
        address: Address,
        client_id: str,
        *,
        on_message: OnMessage,
        on_state: OnState,
        on_delivery: OnDelivery | None = None,
        will: tuple[str, bytes] | None = None,
        retry: Retry = Retry(),
        rng: random.Random | None = None,
    ) -> None:
        self._address = address
        self._client_id = client_id
        self._on_message = on_message
        self._on_state = on_state
        self._on_delivery = on_delivery
        self._will = will
        self._retry = retry
        self._rng = rng or random.Random()
        self._changed = threading.Condition()
        self._topics: dict[str, int] = {}
        self._client: mqtt.Client | None = None
        self._unconfirmed = 0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._refused = ""

    @property
    def connected(self) -> bool:
        return self._client is not None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="link", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send what is queued, say goodbye (so no will is sent), and end the thread."""
        self._stopping.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(STOP_TIMEOUT_S)

    def subscribe(self, topics: Sequence[str], qos: int = 0) -> None:
        with self._changed:
            self._topics.update(dict.fromkeys(topics, qos))
            if self._client is not None:
                _subscribe(self._client, topics, qos)

    def unsubscribe(self, topics: Sequence[str]) -> None:
        with self._changed:
            for topic in topics:
                self._topics.pop(topic, None)
            if self._client is not None:
                for group in in_packets(topics):
                    self._client.unsubscribe(list(group))

    def publish(self, topic: str, data: bytes, *, qos: int = 1, retain: bool = False) -> bool:
        """Whether it was handed to a connection. Waits while `UNCONFIRMED` messages are.

        Never waits on the link's own thread, which is the one that hears confirmations.
        """
        with self._changed:
            if threading.current_thread() is not self._thread:
                self._changed.wait_for(
                    lambda: self._unconfirmed < UNCONFIRMED or self._client is None
                )
            client = self._client
            if client is None:
                return False
            self._unconfirmed += qos > 0
        return client.publish(topic, data, qos, retain).rc is MQTTErrorCode.MQTT_ERR_SUCCESS

    def confirmed(self, timeout_s: float) -> bool:
        """Wait until the broker has confirmed all that was published; False when it did not."""
        with self._changed:
            self._changed.wait_for(lambda: not self._unconfirmed or self._client is None, timeout_s)
            return self._client is not None and not self._unconfirmed

    # --- the link's thread --------------------------------------------------------------------

    def _run(self) -> None:
        attempt = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                why = self._connection()
            # A fault of ours in a callback must not leave the control plane deaf.
            except Exception as error:  # noqa: BLE001 - logged; the next connection starts afresh
                _log.exception("link")
                why = f"{type(error).__name__}: {error}"
            self._lost(why)
            lasted = time.monotonic() - began
            attempt = 0 if lasted > self._retry.most_s else attempt + 1
            self._stopping.wait(self._rng.uniform(0, self._retry.ceiling(attempt - 1)))

    def _connection(self) -> str:
        """Serve one connection until it ends; the reason, for people."""
        client = self._new_client()
        self._refused = ""
        try:
            client.connect(self._address.host, self._address.port, KEEPALIVE_S)
        except (OSError, ValueError) as error:
            return str(error) or type(error).__name__
        outcome = MQTTErrorCode.MQTT_ERR_SUCCESS
        while outcome is MQTTErrorCode.MQTT_ERR_SUCCESS and not self._stopping.is_set():
            outcome = client.loop(_LOOP_S)
        accepted = self._client is not None
        if self._stopping.is_set():
            _leave(client)
        with suppress(OSError, AttributeError):
            client.socket().close()  # type: ignore[union-attr] # None once it is closed
        if not accepted:
            return self._refused or "the broker closed the connection before accepting it"
        return "stopped" if self._stopping.is_set() else mqtt.error_string(outcome)

    def _new_client(self) -> mqtt.Client:
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            clean_session=self._on_delivery is None,
            protocol=mqtt.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=self._on_delivery is not None,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(UNCONFIRMED)
        if self._address.tls is not None:
            client.tls_set_context(_tls_context(self._address.tls))
        if self._will is not None:
            topic, data = self._will
            client.will_set(topic, data, qos=1, retain=True)
        client.on_connect = self._accepted
        client.on_message = self._received
        client.on_publish = self._confirmed
        client.on_socket_open = _without_delay
        # With this set, paho leaves writing to our thread instead of writing on the caller's.
        client.on_socket_register_write = lambda *_: None
        return client

    def _accepted(self, client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _p: Any) -> None:
        if reason.is_failure:
            self._refused = f"refused: {reason}"
            return
        with self._changed:
            self._client = client
            self._unconfirmed = 0
            for qos in (0, 1):
                _subscribe(client, [t for t, q in self._topics.items() if q == qos], qos)
        self._on_state(True, "")

    def _received(self, client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            return  # nobody's topic
        data = bytes(message.payload)
        if self._on_delivery is None or message.qos == 0:
            self._on_message(topic, data)
            return
        number = message.mid
        self._on_delivery(Delivery(topic, data, lambda: self._acknowledge(client, number)))

    def _acknowledge(self, client: mqtt.Client, number: int) -> None:
        if client is self._client:
            client.ack(number, 1)

    def _confirmed(self, _client: Any, _data: Any, _number: int, _reason: Any, _p: Any) -> None:
        with self._changed:
            self._unconfirmed = max(0, self._unconfirmed - 1)
            self._changed.notify_all()

    def _lost(self, why: str) -> None:
        with self._changed:
            self._client = None
            self._unconfirmed = 0
            self._changed.notify_all()
        self._on_state(False, why)


def _leave(client: mqtt.Client) -> None:
    deadline = time.monotonic() + CONNECT_TIMEOUT_S
    outcome = MQTTErrorCode.MQTT_ERR_SUCCESS
    said = False
    while time.monotonic() < deadline and outcome is MQTTErrorCode.MQTT_ERR_SUCCESS:
        if not client.want_write():
            if said:
                return
            client.disconnect()
            said = True
        outcome = client.loop(_LOOP_S)


def _tls_context(tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(tls.ca)
    context.load_cert_chain(tls.certificate, tls.key)
    return context


def _subscribe(client: mqtt.Client, topics: Sequence[str], qos: int) -> None:
    for group in in_packets(topics):
        client.subscribe([(topic, qos) for topic in group])


def _without_delay(_client: Any, _data: Any, connection: Any) -> None:
    """Small requests go out at once (Nagle and delayed ACKs cost 40 ms each)."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
