"""The generated broker lets devices do what they must, and nothing else."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

import control_plane.broker as module
from control_plane.broker import Broker, Certificates, access_list, control_identity, find
from control_plane.link import Link as ControlLink
from control_plane.retained import Retained
from edge_agent.link import Link
from protocol.errors import InvalidRequest, Unavailable
from protocol.identifiers import digest_of
from protocol.link import Address, Retry, Tls
from protocol.topics import Topics, shard_of
from tests.fakes.certificates import Authority
from tests.fakes.mosquitto import Mosquitto
from tests.fakes.waiting import until

TOPICS = Topics("local")
A, B = "local-a", "local-b"
DIGEST = digest_of(b"")


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    running = Mosquitto.start(tmp_path_factory.mktemp("mosquitto"))
    yield running
    running.stop()


class Client:
    """A device's link that collects what it hears; states are `(connected, why)`."""

    def __init__(self, address: Address, client_id: str, now_ms: int | None = None) -> None:
        self.heard: dict[str, bytes] = {}
        self.states: list[tuple[bool, str]] = []
        self.link = Link(
            address,
            client_id,
            on_message=self.heard.__setitem__,
            on_state=lambda up, why: self.states.append((up, why)),
            retry=Retry(0.01, 0.05),
            rng=random.Random(0),
            now_ms=None if now_ms is None else lambda: now_ms,
        )
        self.link.start()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.link.stop()


def tried(client: Client, times: int = 1) -> None:
    until(lambda: len(client.states) >= times)


def tried_twice(client: Client) -> None:
    tried(client, 2)


class Control:
    def __init__(self, mosquitto: Mosquitto) -> None:
        self.link = ControlLink(
            mosquitto.address(mosquitto.control),
            mosquitto.control,
            on_message=self.hear,
            on_state=lambda up, why: None,
            retry=Retry(0.01, 0.05),
        )
        self.retained = Retained(self.link, TOPICS)
        self.heard: dict[str, bytes] = {}
        self.link.start()
        until(lambda: self.link.connected)

    def hear(self, topic: str, data: bytes) -> None:
        if not self.retained.on_message(topic, data):
            self.heard[topic] = data


@pytest.fixture(scope="module")
def control(mosquitto: Mosquitto) -> Iterator[Control]:
    control = Control(mosquitto)
    yield control
    control.link.stop()


def connected(mosquitto: Mosquitto, device: str) -> Client:
    client = Client(mosquitto.address(device), device)
    until(lambda: client.link.connected)
    return client


FOR_EVERY_DEVICE = (
    TOPICS.tuf("timestamp"),
    TOPICS.root(1),
    TOPICS.plan("m"),
    TOPICS.deny,
    TOPICS.manifest("m", DIGEST),
    TOPICS.hint("m", DIGEST),
    TOPICS.frame("m", DIGEST, 0),
    TOPICS.frame_list("m", DIGEST, 0),
    TOPICS.ingest(3),
    TOPICS.document(A),
    TOPICS.ack(A),
)
NOT_FOR_A = (TOPICS.document(B), TOPICS.ack(B), TOPICS.presence(B))


def test_a_device_reads_what_is_for_it_and_nothing_of_another(mosquitto, control):
    for topic in FOR_EVERY_DEVICE + NOT_FOR_A:
        control.link.publish(topic, b"x", retain=True)
    assert control.link.confirmed(10)
    with connected(mosquitto, A) as device:
        device.link.subscribe(NOT_FOR_A)
        device.link.subscribe([TOPICS.prefix + "#", "#"])
        device.link.subscribe(FOR_EVERY_DEVICE)
        until(lambda: set(FOR_EVERY_DEVICE) <= set(device.heard))
        assert set(NOT_FOR_A).isdisjoint(device.heard)


OWN = (TOPICS.up(A, "records"), TOPICS.up(A, "want"), TOPICS.presence(A))
FORBIDDEN = (
    TOPICS.up(B, "records"),
    TOPICS.presence(B),
    TOPICS.plan("forged"),
    TOPICS.deny,
    TOPICS.tuf("timestamp"),
    TOPICS.manifest("forged", DIGEST),
    TOPICS.hint("forged", DIGEST),
    TOPICS.frame("forged", DIGEST, 0),
    TOPICS.document(A),
    TOPICS.ack(A),
    TOPICS.ingest(shard_of(A)),
    TOPICS.echo("x"),
)


def test_a_device_publishes_as_itself_and_only_upwards(mosquitto, control):
    control.link.subscribe([TOPICS.up_filter(n) for n in range(16)], qos=1)
    control.link.subscribe([*OWN, *FORBIDDEN])
    with connected(mosquitto, A) as device:
        for topic in (*FORBIDDEN, *OWN):
            assert device.link.publish(topic, b"from a")
        until(lambda: all(control.heard.get(topic) == b"from a" for topic in OWN))
    assert b"from a" not in [control.heard.get(topic) for topic in FORBIDDEN]


def test_a_device_cannot_end_anothers_connection_by_its_client_id(mosquitto):
    with connected(mosquitto, B) as honest:
        thief = Client(mosquitto.address(A), B)
        with thief:
            until(lambda: thief.link.connected)
            thief.link.publish(TOPICS.up(A, "records"), b"x")
            assert honest.states == [(True, "")]


def strangers(mosquitto: Mosquitto, tmp_path: Path) -> dict[str, Tls]:
    other = Authority.create(tmp_path, "other")
    certificate, key = other.issue(A)
    old_certificate, old_key = mosquitto.devices.issue("old", valid=timedelta(days=-1))
    right = mosquitto.devices.client(A, mosquitto.servers)
    return {
        "a stranger's certificate": Tls(mosquitto.servers.ca, certificate, key),
        "an expired certificate": Tls(mosquitto.servers.ca, old_certificate, old_key),
        "a broker that the device does not know": Tls(other.ca, right.certificate, right.key),
    }


def test_strangers_are_refused_and_told_why(mosquitto, tmp_path):
    for tls in strangers(mosquitto, tmp_path).values():
        address = Address(mosquitto.broker.host, mosquitto.broker.port, tls)
        with Client(address, A) as client:
            tried_twice(client)
            assert not any(up for up, _ in client.states)
            assert all(why for _, why in client.states)


def test_without_a_certificate_nobody_gets_in(mosquitto):
    with Client(Address(mosquitto.broker.host, mosquitto.broker.port), A) as client:
        until(lambda: len(client.states) >= 2)
        assert not any(up for up, _ in client.states)


def test_a_broker_certificate_is_checked_against_trusted_time(mosquitto):
    year = 365 * 86_400_000
    for now_ms, accepted in ((year, True), (100 * year, False)):
        with Client(mosquitto.address(A), A, now_ms) as client:
            tried(client)
            assert client.states[0][0] == accepted
            if not accepted:
                assert "expired" in client.states[0][1]


def test_what_is_retained_is_read_back_and_what_is_not_is_left_out(control):
    topics = [TOPICS.frame("m", DIGEST, n) for n in range(100)]
    for topic in topics[:50]:
        control.link.publish(topic, topic.encode(), retain=True)
    assert control.retained.read(topics) == {topic: topic.encode() for topic in topics[:50]}


def test_retained_messages_outlive_a_restart_and_saved_ones_a_kill(tmp_path):
    mosquitto = Mosquitto.start(tmp_path, autosave_s=1)
    control = Control(mosquitto)
    control.link.publish(TOPICS.plan("m"), b"1", retain=True)
    assert control.link.confirmed(10)
    mosquitto.broker.stop()
    assert not mosquitto.broker.running
    mosquitto.broker.start()
    until(lambda: control.link.connected)
    assert control.retained.read([TOPICS.plan("m")]) == {TOPICS.plan("m"): b"1"}
    database = mosquitto.broker.directory / "data" / "mosquitto.db"
    before = database.stat().st_mtime_ns
    control.link.publish(TOPICS.plan("n"), b"2", retain=True)
    until(lambda: database.stat().st_mtime_ns > before)
    mosquitto.broker.kill()
    mosquitto.broker.start()
    until(lambda: control.link.connected)
    assert control.retained.read([TOPICS.plan("m")]) == {TOPICS.plan("m"): b"1"}
    control.link.stop()
    mosquitto.stop()


def test_a_port_that_is_taken_is_said_to_be(mosquitto):
    other = Broker(
        mosquitto.broker.directory,
        "local",
        mosquitto.broker.certificates,
        port=mosquitto.broker.port,
    )
    with pytest.raises(Unavailable) as caught:
        other.start()
    assert caught.value.code == "OUT-N106"


def test_a_broker_that_cannot_start_says_so_in_its_own_words(mosquitto, tmp_path):
    certificates = Certificates(tmp_path / "no.crt", tmp_path / "no.key", tmp_path / "no.ca")
    # One that nobody is given who asks for any: whoever listened there would pass for this broker.
    with pytest.raises(Unavailable, match=r"no\.c"):
        Broker(tmp_path / "broker", "local", certificates, port=18_830).start()


def test_a_chosen_mosquitto_is_used_or_named_as_missing(monkeypatch, tmp_path):
    program = tmp_path / "mosquitto"
    monkeypatch.setenv(module.VARIABLE, str(program))
    with pytest.raises(Unavailable, match="not a program"):
        find()
    program.touch(mode=0o755)
    assert find() == program


def test_without_any_mosquitto_the_message_says_where_it_was_looked_for(monkeypatch, tmp_path):
    monkeypatch.delenv(module.VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(module, "_PLACES", ("build/mosquitto/mosquitto",))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Unavailable) as caught:
        find()
    assert caught.value.code == "OUT-N105"
    unpacked = tmp_path / "build/mosquitto/mosquitto"
    unpacked.parent.mkdir(parents=True)
    unpacked.touch(mode=0o755)
    assert find() == unpacked


def test_no_device_can_carry_the_name_of_the_control_plane():
    assert control_identity("north") == "outrider-control-north"
    with pytest.raises(InvalidRequest):
        access_list("outrider")
