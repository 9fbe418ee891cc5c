"""The agent's MQTT link: one connection at a time, made again with full jitter for ever.

One thread of ours drives paho, one client object per connection, so nothing of an old connection
can leak into a new one. What is subscribed stays subscribed: every connection starts with it.
Publishing without a connection does nothing and says so: everything that goes up is either sent
again until the control plane acknowledges it, or outdated by then.
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
from typing import Any, Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from protocol.link import KEEPALIVE_S, Address, Retry, Tls, in_packets

_log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S: Final = 10.0
STOP_TIMEOUT_S: Final = 15.0
CLOSED_EARLY: Final = "the broker closed the connection before accepting it"
"""How a certificate that the broker does not accept looks from here, among other things."""
WORTH_BYTES: Final = 32 * 1024
"""A connection that brought so much was worth making, however soon it was cut."""
_LOOP_S: Final = 0.5
_NO_CHECK_TIME: Final = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME: certificates are checked against trusted time instead."""

OnMessage = Callable[[str, bytes], None]
OnState = Callable[[bool, str], None]
Clock = Callable[[], int]


class Link:
    """`on_message(topic, data)` and `on_state(connected, why)` run on the link's thread.

    They may block: then nothing more is read from the socket, and TCP holds the broker back.
    Topics given to `subscribe` are those to keep; subscribing one again makes the broker send its
    retained message again.
    """

    def __init__(
        self,
        address: Address,
        client_id: str,
        *,
        on_message: OnMessage,
        on_state: OnState,
        will: tuple[str, bytes] | None = None,
        retry: Retry = Retry(),
        rng: random.Random | None = None,
        now_ms: Clock | None = None,
    ) -> None:
        """`now_ms` is trusted time, which replaces the system clock in TLS checks."""
        self._address = address
        self._client_id = client_id
        self._on_message = on_message
        self._on_state = on_state
        self._will = will
        self._retry = retry
        self._rng = rng or random.Random()
        self._now_ms = now_ms
        self._lock = threading.Lock()
        self._topics: dict[str, int] = {}
        self._client: mqtt.Client | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._refused = ""
        self._renewed = threading.Event()
        self._next_s = 0.0
        self._brought_bytes = 0

    @property
    def connected(self) -> bool:
        return self._client is not None

    @property
    def local_address(self) -> str:
        """Of this end of the connection; empty without one."""
        client = self._client
        connection = client.socket() if client is not None else None
        if not isinstance(connection, socket.socket):
            return ""
        try:
            return str(connection.getsockname()[0])
        except OSError:
            return ""  # it has just been closed

    @property
    def next_try_s(self) -> float:
        """Seconds until the next try to connect; 0 while one is under way, or needless."""
        return max(0.0, self._next_s - time.monotonic()) if self._client is None else 0.0

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="link", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send what is queued, say goodbye (so no will is sent), and end the thread."""
        self._stopping.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(STOP_TIMEOUT_S)

    def renew_identity(self, address: Address) -> None:
        """Connect anew, once, with what the files of `address` hold by now."""
        self._address = address
        self._renewed.set()

    def subscribe(self, topics: Sequence[str], qos: int = 0) -> None:
        with self._lock:
            self._topics.update(dict.fromkeys(topics, qos))
            if self._client is not None:
                _subscribe(self._client, topics, qos)

    def unsubscribe(self, topics: Sequence[str]) -> None:
        with self._lock:
            for topic in topics:
                self._topics.pop(topic, None)
            if self._client is not None:
                for group in in_packets(topics):
                    self._client.unsubscribe(list(group))

    def publish(self, topic: str, data: bytes, *, qos: int = 1, retain: bool = False) -> bool:
        """Whether it was handed to a connection. Even then only the other side can confirm it."""
        client = self._client
        if client is None:
            return False
        return client.publish(topic, data, qos, retain).rc is MQTTErrorCode.MQTT_ERR_SUCCESS

    # --- the link's thread --------------------------------------------------------------------

    def _run(self) -> None:
        attempt = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                why = self._connection()
            # A fault of ours in a callback must not leave the device deaf.
            except Exception as error:  # noqa: BLE001 - logged; the next connection starts afresh
                _log.exception("link")
                why = f"{type(error).__name__}: {error}"
            self._lost(why)
            # A broker that accepts and drops at once is met with growing pauses, too.
            lasted = time.monotonic() - began
            useful = lasted > self._retry.most_s or self._brought_bytes >= WORTH_BYTES
            attempt = 0 if useful else attempt + 1
            pause_s = self._rng.uniform(0, self._retry.ceiling(attempt - 1))
            self._next_s = time.monotonic() + pause_s
            self._stopping.wait(pause_s)

    def _connection(self) -> str:
        """Serve one connection until it ends; the reason, for people."""
        self._brought_bytes = 0
        self._renewed.clear()  # before the files are read: what comes later is for the next one
        client = self._new_client()
        self._refused = ""
        try:
            client.connect(self._address.host, self._address.port, KEEPALIVE_S)
            self._check_validity(client)
        except (OSError, ValueError) as error:
            self._abandon(client)
            return _explain(error)
        outcome = MQTTErrorCode.MQTT_ERR_SUCCESS
        while outcome is MQTTErrorCode.MQTT_ERR_SUCCESS and not self._leaving:
            outcome = client.loop(_LOOP_S)
        if self._leaving and outcome is MQTTErrorCode.MQTT_ERR_SUCCESS:
            _leave(client)
            self._abandon(client)
            return "stopped" if self._stopping.is_set() else "the certificate was renewed"
        self._abandon(client)
        if self._client is None:
            return self._refused or CLOSED_EARLY
        return mqtt.error_string(outcome)

    @property
    def _leaving(self) -> bool:
        return self._stopping.is_set() or self._renewed.is_set()

    def _new_client(self) -> mqtt.Client:
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            clean_session=True,
            protocol=mqtt.MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        if self._address.tls is not None:
            client.tls_set_context(_tls_context(self._address.tls, self._now_ms is None))
        if self._will is not None:
            topic, data = self._will
            client.will_set(topic, data, qos=1, retain=True)
        client.on_connect = self._accepted
        client.on_message = self._received
        client.on_socket_open = _without_delay
        # With this set, paho leaves writing to our thread instead of writing on the caller's.
        client.on_socket_register_write = lambda *_: None
        return client

    def _accepted(self, client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _p: Any) -> None:
        if reason.is_failure:
            self._refused = f"refused: {reason}"
            return
        with self._lock:
            self._client = client
            for qos in (0, 1):
                _subscribe(client, [t for t, q in self._topics.items() if q == qos], qos)
        self._on_state(True, "")

    def _received(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        self._brought_bytes += len(message.payload)
        with suppress(UnicodeDecodeError):  # such a topic is nobody's
            self._on_message(message.topic, bytes(message.payload))

    def _lost(self, why: str) -> None:
        with self._lock:
            self._client = None
        self._on_state(False, why)

    def _abandon(self, client: mqtt.Client) -> None:
        with suppress(OSError, AttributeError):
            client.socket().close()  # type: ignore[union-attr] # None without a connection

    def _check_validity(self, client: mqtt.Client) -> None:
        connection = client.socket()
        if self._now_ms is None or not isinstance(connection, ssl.SSLSocket):
            return
        certificate = connection.getpeercert() or {}
        # Trusted time is a lower bound, so "not yet valid" would say nothing.
        if self._now_ms() / 1000 > ssl.cert_time_to_seconds(str(certificate["notAfter"])):
            raise ConnectionError("the broker's certificate has expired")


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


def _tls_context(tls: Tls, check_time: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(tls.ca)
    context.load_cert_chain(tls.certificate, tls.key)
    if not check_time:
        context.verify_flags |= _NO_CHECK_TIME
    return context


def _subscribe(client: mqtt.Client, topics: Sequence[str], qos: int) -> None:
    for group in in_packets(topics):
        client.subscribe([(topic, qos) for topic in group])


def _without_delay(_client: Any, _data: Any, connection: Any) -> None:
    """Small requests go out at once (Nagle and delayed ACKs cost 40 ms each)."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _explain(error: Exception) -> str:
    if isinstance(error, ssl.SSLEOFError):
        # Nobody said no: whoever refuses a certificate sends an alert.
        return "the connection was lost while it was made"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {getattr(error, 'verify_message', '') or error.reason or error}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
