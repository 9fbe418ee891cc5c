"""The link's identity on a real broker: replaced while it runs, refused when it has expired."""

import random
import socket
from collections.abc import Iterator
from datetime import timedelta

import pytest

from edge_agent.link import CLOSED_EARLY, WORTH_BYTES, Link
from protocol.link import Address, Retry, Tls
from tests.fakes.mosquitto import Mosquitto
from tests.fakes.waiting import until

PREFIX = "outrider/v1/local/"
DEVICE = "local-cam"
PRESENCE = f"{PREFIX}presence/{DEVICE}"
QUICKLY = Retry(0.01, 0.05)


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory) -> Iterator[Mosquitto]:
    running = Mosquitto.start(tmp_path_factory.mktemp("mosquitto"))
    yield running
    running.stop()


class Ear:
    def __init__(self) -> None:
        self.states: list[tuple[bool, str]] = []
        self.heard: list[tuple[str, bytes]] = []

    def state(self, connected: bool, why: str) -> None:
        self.states.append((connected, why))

    def message(self, topic: str, data: bytes) -> None:
        self.heard.append((topic, data))


@pytest.fixture
def links():
    """Links to be stopped at the end."""
    made: list[Link] = []
    yield made
    for link in made:
        link.stop()


def connect(links: list[Link], address: Address, name: str, ear: Ear, **options) -> Link:
    link = Link(
        address,
        name,
        on_message=ear.message,
        on_state=ear.state,
        retry=QUICKLY,
        now_ms=lambda: 0,
        **options,
    )
    links.append(link)
    link.start()
    return link


def identity(mosquitto: Mosquitto, folder, **options) -> Tls:
    """Files of one device, at fixed places."""
    certificate, key = mosquitto.devices.issue(DEVICE, **options)
    placed = Tls(mosquitto.servers.ca, folder / "device.crt", folder / "device.key")
    placed.key.write_bytes(key.read_bytes())
    placed.certificate.write_bytes(certificate.read_bytes())
    return placed


def address(mosquitto: Mosquitto, tls: Tls) -> Address:
    there = mosquitto.address(mosquitto.control)
    return Address(there.host, there.port, tls)


def test_a_renewed_identity_is_used_after_one_orderly_reconnect(mosquitto, links, tmp_path):
    control, ear = Ear(), Ear()
    watcher = connect(links, mosquitto.address(mosquitto.control), mosquitto.control, control)
    watcher.subscribe([PRESENCE, PREFIX + "end"])
    here = address(mosquitto, identity(mosquitto, tmp_path))
    link = connect(links, here, DEVICE, ear, will=(PRESENCE, b"gone"))
    link.subscribe([PREFIX + "deny"])
    until(lambda: ear.states == [(True, "")])

    identity(mosquitto, tmp_path)  # a new pair in the place of the old
    link.renew_identity(here)
    until(lambda: len(ear.states) == 3)
    assert ear.states == [(True, ""), (False, "the certificate was renewed"), (True, "")]

    # What was subscribed still is, the will was not said, and it happened once.
    watcher.publish(PREFIX + "deny", b"1", retain=True)
    until(lambda: (PREFIX + "deny", b"1") in ear.heard)
    watcher.publish(PREFIX + "deny", b"", retain=True)
    watcher.publish(PREFIX + "end", b"x")
    until(lambda: (PREFIX + "end", b"x") in control.heard)
    assert (PRESENCE, b"gone") not in control.heard
    assert len(ear.states) == 3


def test_an_identity_that_is_renewed_while_there_is_no_link_serves_the_next_one(
    mosquitto, links, tmp_path
):
    ear = Ear()
    expired = identity(mosquitto, tmp_path, valid=timedelta(hours=-1))
    link = connect(links, address(mosquitto, expired), DEVICE, ear)
    # An expired certificate looks like this, and is why a device that knows no time asks anew.
    until(lambda: (False, CLOSED_EARLY) in ear.states)
    assert (True, "") not in ear.states

    link.renew_identity(address(mosquitto, identity(mosquitto, tmp_path)))
    until(lambda: (True, "") in ear.states)
    connected = ear.states.index((True, ""))
    assert ear.states[connected:] == [(True, "")]


class NoPauses(random.Random):
    """Notes how long each pause could have been."""

    def __init__(self) -> None:
        super().__init__(1)
        self.longest: list[float] = []

    def uniform(self, a: float, b: float) -> float:
        self.longest.append(b)
        return 0.0


def test_a_connection_that_brought_something_is_made_again_at_once_and_others_are_not(
    mosquitto, links, tmp_path
):
    ear, pauses = Ear(), NoPauses()
    watcher = connect(links, mosquitto.address(mosquitto.control), mosquitto.control, Ear())
    until(lambda: watcher.connected)
    here = address(mosquitto, identity(mosquitto, tmp_path))
    retry = Retry(0.01, 600)
    link = Link(here, DEVICE, on_message=ear.message, on_state=ear.state, retry=retry, rng=pauses)
    links.append(link)
    link.start()
    link.subscribe([PREFIX + "deny"])
    for data in (b"", b"", b"x" * WORTH_BYTES, b""):
        before = len(pauses.longest)
        until(lambda: link.connected)
        if data:
            watcher.publish(PREFIX + "deny", data)
            until(lambda: ear.heard)
        link.renew_identity(here)  # it ends
        until(lambda: len(pauses.longest) == before + 1)  # noqa: B023 - called in this turn only
    assert pauses.longest == [retry.ceiling(n) for n in (0, 1, -1, 0)]


def test_a_broker_whose_certificate_expired_in_trusted_time_is_left(mosquitto, links, tmp_path):
    ear = Ear()
    tls = identity(mosquitto, tmp_path)
    link = Link(
        address(mosquitto, tls),
        DEVICE,
        on_message=ear.message,
        on_state=ear.state,
        retry=QUICKLY,
        now_ms=lambda: 4_000_000_000_000,
    )
    links.append(link)
    link.start()
    until(lambda: ear.states)
    assert ear.states[0] == (False, "the broker's certificate has expired")


def test_a_cut_while_the_connection_is_made_is_no_refusal(mosquitto, links, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as hung_up:
        ear = Ear()
        there = Address("127.0.0.1", hung_up.getsockname()[1], identity(mosquitto, tmp_path))
        link = Link(there, DEVICE, on_message=ear.message, on_state=ear.state, retry=QUICKLY)
        links.append(link)
        link.start()
        caller, _ = hung_up.accept()
        caller.recv(1)
        caller.shutdown(socket.SHUT_WR)
        until(lambda: ear.states)
        caller.close()
    assert ear.states[0] == (False, "the connection was lost while it was made")
