"""Two fleets on one broker, with the very files that `outrider broker config` writes."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from control_plane.fleet.authority import Authority
from control_plane.fleet.revocation import DAY_MS
from control_plane.link import Link as ControlLink
from control_plane.mosquitto import MAX_PACKET
from edge_agent.link import Link
from protocol.codec import MAX_TUF_ROLE
from protocol.link import Address, Retry, Tls
from protocol.topics import Topics
from tests.fakes.certificates import Authority as Rogue
from tests.fakes.mosquitto import Member, SharedBroker
from tests.fakes.waiting import until

NORTH, SOUTH = Topics("north"), Topics("south")


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedBroker]:
    made = SharedBroker.create(tmp_path_factory.mktemp("shared"), ("north", "south"), now_ms())
    made.start()
    yield made
    made.stop()


class Client:
    """A link that collects what it hears; states are `(connected, why)`."""

    def __init__(self, address: Address, name: str, *, control: bool = False) -> None:
        self.heard: dict[str, bytes] = {}
        self.states: list[tuple[bool, str]] = []
        kind = ControlLink if control else Link
        self.link = kind(
            address,
            name,
            on_message=self.heard.__setitem__,
            on_state=lambda up, why: self.states.append((up, why)),
            retry=Retry(0.01, 0.05),
            rng=random.Random(0),
        )

    def __enter__(self) -> Client:
        self.link.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.link.stop()

    def got_in(self) -> bool:
        """Whether it is let in, once that is known."""
        until(lambda: len(self.states) >= 2 or any(up for up, _ in self.states))
        return any(up for up, _ in self.states)


def until_said(sender: Client, topic: str, data: bytes, listener: Client) -> None:
    """Say it until it is heard: the listener's subscription may still be on its way."""
    until(lambda: sender.link.publish(topic, data) and listener.heard.get(topic) == data)


def all_in(*clients: Client) -> bool:
    return all(each.got_in() for each in clients)


def client(broker: SharedBroker, fleet: str, member: Member, name: str = "") -> Client:
    """Somebody at the listener of a fleet."""
    control = member.id.startswith("outrider-control-")
    return Client(broker.address(fleet, member), name or member.id, control=control)


def gets_in(broker: SharedBroker, fleet: str, member: Member, name: str = "") -> bool:
    with client(broker, fleet, member, name) as attempt:
        return attempt.got_in()


def test_each_fleet_has_its_own_way_in(broker):
    for fleet in ("north", "south"):
        assert gets_in(broker, fleet, broker.member(fleet, f"{fleet}-a"))
        assert gets_in(broker, fleet, broker.control(fleet))


def test_nobody_of_one_fleet_gets_into_the_other_not_even_its_control_plane(broker):
    assert not gets_in(broker, "south", broker.member("north", "north-a"))
    assert not gets_in(broker, "south", broker.control("north"))
    assert not gets_in(broker, "north", broker.control("south"))


def test_a_device_neither_reads_nor_writes_what_is_of_the_other_fleet(broker):
    south = broker.member("south", "south-a")
    theirs = (SOUTH.tuf("timestamp"), SOUTH.plan("m"), SOUTH.document("south-a"), SOUTH.deny)
    with (
        client(broker, "south", broker.control("south")) as control,
        client(broker, "south", south) as witness,
        client(broker, "north", broker.member("north", "north-a")) as device,
    ):
        assert all_in(control, witness, device)
        for topic in theirs:
            control.link.publish(topic, b"south", retain=True)
        witness.link.subscribe(theirs)
        until(lambda: set(theirs) <= set(witness.heard))
        device.link.subscribe([*theirs, f"{SOUTH.prefix}#"])
        control.link.subscribe([f"{SOUTH.prefix}#"])
        for topic in (*theirs, SOUTH.up("south-a", "records"), f"{SOUTH.prefix}presence/north-a"):
            device.link.publish(topic, b"north")
        # What it may do comes last: when it has happened, all of that has been decided.
        device.link.subscribe([NORTH.tuf("timestamp")])
        with client(broker, "north", broker.control("north")) as own:
            assert own.got_in()
            own.link.publish(NORTH.tuf("timestamp"), b"mine", retain=True)
            until(lambda: device.heard.get(NORTH.tuf("timestamp")) == b"mine")
        until_said(witness, SOUTH.up("south-a", "records"), b"last", control)
        assert set(device.heard) == {NORTH.tuf("timestamp")}
        assert b"north" not in control.heard.values()
        assert b"north" not in witness.heard.values()


def test_a_name_of_the_other_fleet_under_its_own_authority_gives_no_rights(broker):
    """Whoever has the key of one fleet's authority can sign any name, and gets nothing by it."""
    south = broker.control("south")
    with client(broker, "south", south) as control:
        assert control.got_in()
        control.link.subscribe([SOUTH.plan("m")])
        control.link.publish(SOUTH.plan("m"), b"right", retain=True)
        until(lambda: control.heard.get(SOUTH.plan("m")) == b"right")
    forged = as_signed_by(broker, "north", south.id)
    own = f"{NORTH.prefix}up/0/{south.id}/records"
    with (
        client(broker, "north", broker.control("north")) as witness,
        client(broker, "north", forged) as thief,
    ):
        assert all_in(witness, thief)
        witness.link.subscribe([own])
        thief.link.subscribe([SOUTH.plan("m"), f"{SOUTH.prefix}#", "#"])
        thief.link.publish(SOUTH.plan("m"), b"forged", retain=True)
        # What any name of this fleet may write comes last: the rest has been decided by then.
        until_said(thief, own, b"done", witness)
        assert not [topic for topic in thief.heard if topic.startswith(SOUTH.prefix)]
    with client(broker, "south", south) as control:
        assert control.got_in()
        control.link.subscribe([SOUTH.plan("m")])
        until(lambda: control.heard.get(SOUTH.plan("m")) == b"right")


def as_signed_by(broker: SharedBroker, fleet: str, name: str) -> Member:
    """What an authority whose key was stolen signs: any name."""
    made = broker.member(fleet, f"{fleet}-thief")
    authority = broker.authority(fleet)
    key = x509.load_pem_x509_certificate(made.tls.certificate.read_bytes()).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    certificate = authority._leaf("device-ca", name, key, now_ms())
    path = broker.directory / f"{fleet}-as-{name}.crt"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return Member(name, Tls(made.tls.ca, path, made.tls.key), "")


def test_without_a_certificate_or_with_a_strangers_nobody_gets_in(broker, tmp_path):
    port = broker.fleets["north"].broker_port
    with Client(Address("127.0.0.1", port), "north-a") as bare:
        assert not bare.got_in()
    rogue = Rogue.create(tmp_path, "rogue")
    certificate, key = rogue.issue("north-a")
    ca = broker.authority("north").certificate("broker-ca")
    with Client(Address("127.0.0.1", port, Tls(ca, certificate, key)), "north-a") as stranger:
        assert not stranger.got_in()


def test_a_fleets_broker_certificate_is_not_believed_by_the_other(broker):
    member = broker.member("north", "north-a")
    wrong = Tls(broker.authority("south").certificate("broker-ca"), *member_files(member))
    port = broker.fleets["north"].broker_port
    with Client(Address("127.0.0.1", port, wrong), "north-a") as device:
        assert not device.got_in()


def member_files(member: Member) -> tuple[Path, Path]:
    return member.tls.certificate, member.tls.key


def test_a_servers_certificate_does_not_pass_for_a_clients(broker):
    authority = broker.authority("north")
    ca = authority.certificate("broker-ca")
    port = broker.fleets["north"].broker_port
    for name in ("server", "api"):
        tls = Tls(ca, authority.certificate(name), authority.key(name))
        with Client(Address("127.0.0.1", port, tls), "north-a") as server:
            assert not server.got_in()


def test_a_client_id_of_another_device_changes_nothing(broker):
    with client(broker, "north", broker.member("north", "north-b")) as honest:
        assert honest.got_in()
        thief = broker.member("north", "north-a")
        with client(broker, "north", thief, "north-b") as attempt:
            assert attempt.got_in()
            attempt.link.publish(NORTH.up("north-a", "records"), b"x")
            assert honest.states == [(True, "")]


def test_garbage_on_the_next_root_from_a_device_is_not_retained(broker):
    with (
        client(broker, "north", broker.member("north", "north-a")) as device,
        client(broker, "north", broker.control("north")) as control,
    ):
        assert all_in(device, control)
        control.link.subscribe([NORTH.up("north-a", "records")])
        for number in range(1, 4):
            device.link.publish(NORTH.root(number), b"garbage", retain=True)
        until_said(device, NORTH.up("north-a", "records"), b"done", control)
        control.link.subscribe([NORTH.root(number) for number in range(1, 4)])
        control.link.publish(NORTH.tuf("models"), b"x", retain=True)
        control.link.subscribe([NORTH.tuf("models")])
        until(lambda: NORTH.tuf("models") in control.heard)
        assert not {NORTH.root(number) for number in range(1, 4)} & set(control.heard)


def test_the_largest_role_gets_through_and_a_larger_packet_ends_the_connection(broker):
    with (
        client(broker, "north", broker.control("north")) as control,
        client(broker, "north", broker.member("north", "north-a")) as device,
    ):
        assert all_in(control, device)
        device.link.subscribe([NORTH.tuf("targets")])
        control.link.publish(NORTH.tuf("targets"), b"r" * MAX_TUF_ROLE, retain=True)
        until(lambda: len(device.heard.get(NORTH.tuf("targets"), b"")) == MAX_TUF_ROLE)
        device.link.publish(NORTH.up("north-a", "records"), b"x" * (MAX_PACKET + 1))
        until(lambda: (False,) in [state[:1] for state in device.states])


# --- revocation: each with a broker of its own ---------------------------------------------------


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[SharedBroker]:
    made = SharedBroker.create(tmp_path, ("north", "south"), now_ms())
    made.start()
    yield made
    made.stop()


def until_refused(broker: SharedBroker, fleet: str, member: Member) -> None:
    until(lambda: not gets_in(broker, fleet, member))


def test_a_revoked_certificate_is_refused_from_the_reload_on(alone):
    a, b = alone.member("north", "north-a"), alone.member("north", "north-b")
    assert gets_in(alone, "north", a)
    at_ms = now_ms()
    alone.revoke("north", {a.serial: at_ms}, at_ms)
    until_refused(alone, "north", a)
    assert gets_in(alone, "north", b)
    assert gets_in(alone, "north", alone.control("north"))
    assert gets_in(alone, "south", alone.member("south", "south-a"))
    # The broker keeps every list that it ever read, and both are issued in the same second.
    alone.revoke("north", {a.serial: at_ms, b.serial: at_ms}, at_ms)
    until_refused(alone, "north", b)
    assert not gets_in(alone, "north", a)
    renewed = alone.member("north", "north-b")
    assert gets_in(alone, "north", renewed)


def test_an_expired_list_refuses_every_device_of_its_fleet_and_a_new_one_lets_them_in(alone):
    a, other = alone.member("north", "north-a"), alone.member("south", "south-a")
    alone.stop()
    authority = alone.authority("north")
    authority.crl.unlink()
    authority.issue_crl((), now_ms() - 31 * DAY_MS)
    alone.write()
    alone.start()
    assert not gets_in(alone, "north", a)
    assert not gets_in(alone, "north", alone.control("north"))
    assert gets_in(alone, "south", other)
    alone.revoke("north", {}, now_ms())
    until(lambda: gets_in(alone, "north", a))


def test_new_server_certificates_are_shown_from_the_reload_on(alone):
    member, ca = alone.member("north", "north-a"), alone.authority("north")
    # Under another authority, so that it can be seen which one the broker shows.
    other = Authority.create(alone.directory / "fresh", "north", now_ms())
    for name in ("broker-ca", "server"):
        shutil.copy(other.certificate(name), ca.certificate(name))
        shutil.copy(other.key(name), ca.key(name))
    assert not gets_in(alone, "north", member)
    alone.revoke("north", {}, now_ms())
    until(lambda: gets_in(alone, "north", member))
