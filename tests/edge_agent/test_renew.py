"""The next certificate, over real HTTPS on loopback: taken whole, or the old one stays."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from control_plane.fleet.authority import Authority
from edge_agent import durable, enrol, identity
from edge_agent.renew import adopt, renew, request
from protocol.codec import encode
from protocol.enrolment import Broker
from protocol.errors import InvalidRequest, PeerError, TrustError, Unavailable
from tests.fakes.renewals import DAY_MS, RenewingPlane, pair, renewing_plane

NOW_MS = int(time.time() * 1000)


@pytest.fixture
def plane(tmp_path):
    with renewing_plane(tmp_path / "ca", NOW_MS) as plane:
        yield plane


@pytest.fixture
def home(tmp_path, plane):
    plane.device(tmp_path / "device")
    return tmp_path / "device"


def files(home: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (home / "identity").iterdir()}


def until_ms(home: Path) -> int:
    return identity.certificate_until_ms(home / "identity")


def test_a_renewed_certificate_is_for_the_same_device_and_key_and_lasts_longer(plane, home):
    key, before = (home / "identity/device.key").read_bytes(), until_ms(home)
    renewed = renew(home, NOW_MS)
    assert renewed == identity.load(home)
    assert renewed.device == "local-cam-1"
    assert (home / "identity/device.key").read_bytes() == key
    assert until_ms(home) == before + 500 * DAY_MS
    own, certified = pair(home / "identity")
    assert own == certified


def test_an_expired_certificate_is_renewed_by_its_key(tmp_path, plane):
    plane.device(tmp_path / "old", age_days=800, name="cam-2")
    assert until_ms(tmp_path / "old") < NOW_MS
    renew(tmp_path / "old", NOW_MS)
    assert until_ms(tmp_path / "old") > NOW_MS


def test_no_secret_is_sent(plane, home):
    renew(home, NOW_MS)
    key = (home / "identity/device.key").read_bytes()
    sent = encode(plane.requests[0])
    assert b"PRIVATE" not in sent
    assert not any(line in sent for line in key.splitlines()[1:-1])


def test_addresses_and_authorities_of_the_answer_hold_from_now_on(plane, home, tmp_path):
    # As a control plane does that changes its authorities: old and new side by side.
    other = Authority.create(tmp_path / "next", "local", NOW_MS)
    plane.changes = {
        "broker": Broker("mq.example", 8884),
        "url": "https://cp.example:8400",
        "broker_ca": (plane.authority.broker_ca + other.broker_ca).decode(),
        "api_ca": other.certificate("api-ca").read_text(),
    }
    renewed = renew(home, NOW_MS)
    assert (renewed.broker.host, renewed.broker.port) == ("mq.example", 8884)
    assert renewed.server is not None
    assert (renewed.server.host, renewed.server.port) == ("cp.example", 8400)
    assert renewed.server.authority == other.certificate("api-ca").read_text()
    assert (home / "identity/broker-ca.crt").read_bytes().count(b"BEGIN") == 2
    assert identity.load(home) == renewed


def another_key(plane: RenewingPlane) -> str:
    csr = request(plane.device(plane.authority.directory / "else", name="cam-9")).csr
    return plane.authority.sign_csr(csr.encode(), "local-cam-1", NOW_MS).decode()


def another_device(plane: RenewingPlane) -> str:
    csr = plane.requests[-1].csr
    return plane.authority.sign_csr(csr.encode(), "local-cam-2", NOW_MS).decode()


def as_long(plane: RenewingPlane, days: float) -> str:
    csr = plane.requests[-1].csr
    when = NOW_MS - int(days * DAY_MS)
    return plane.authority.sign_csr(csr.encode(), "local-cam-1", when).decode()


@pytest.mark.parametrize(
    "change, why",
    [
        pytest.param(lambda p: {"certificate": "none"}, "cannot be read", id="no certificate"),
        pytest.param(lambda p: {"certificate": another_key(p)}, "another key", id="another key"),
        pytest.param(
            lambda p: {"certificate": another_device(p)}, "not for local-cam-1", id="another device"
        ),
        pytest.param(
            lambda p: {"certificate": as_long(p, 500)}, "does not last longer", id="as long"
        ),
        pytest.param(
            lambda p: {"certificate": as_long(p, 600)}, "does not last longer", id="shorter"
        ),
        pytest.param(lambda p: {"broker_ca": "none"}, "authority", id="no broker authority"),
        pytest.param(
            lambda p: {"broker_ca": p.authority.certificate("server").read_text()},
            "authority",
            id="a server's certificate for an authority",
        ),
        pytest.param(lambda p: {"api_ca": ""}, "authority", id="no api authority"),
    ],
)
def test_an_answer_that_is_not_this_devices_next_identity_changes_nothing(plane, home, change, why):
    before = files(home)
    plane.requests.append(request(identity.load(home)))
    plane.changes = change(plane)
    with pytest.raises(PeerError, match=why):
        renew(home, NOW_MS)
    assert files(home) == before


@pytest.mark.parametrize(
    "status, body, family",
    [
        (200, b"", PeerError),
        (200, b'"' + b"x" * 3_000_000, PeerError),
        (403, b'{"code": "OUT-A212", "detail": "retired 2 Nov"}', InvalidRequest),
        (403, b'{"code": "OUT-A211"}', InvalidRequest),
        (404, b"<html>", PeerError),
        (500, b"", Unavailable),
        (503, b'{"code": "OUT-S161", "detail": "busy"}', Unavailable),
    ],
)
def test_every_other_answer_ends_in_an_error_people_can_read(plane, home, status, body, family):
    before = files(home)
    plane.raw = (status, body)
    with pytest.raises(family):
        renew(home, NOW_MS)
    assert files(home) == before


def test_another_key_is_no_proof(plane, home):
    (home / "identity/device.key").unlink()
    enrol.device_key(home / "identity/device.key")
    with pytest.raises(InvalidRequest, match="A211"):
        renew(home, NOW_MS)


def test_a_server_of_another_authority_gets_no_request(plane, home, tmp_path):
    with renewing_plane(tmp_path / "evil", NOW_MS) as evil:
        mine = identity.load(home).enrolled
        path = home / "identity/enrolment.json"
        path.write_bytes(encode(replace(mine, url=evil.url)))
        with pytest.raises(TrustError, match="T118"):
            renew(home, NOW_MS)
        assert evil.requests == []


def test_a_server_certificate_that_expired_in_trusted_time_gets_no_request(plane, home):
    with pytest.raises(TrustError, match="expired"):
        renew(home, NOW_MS + 731 * DAY_MS)
    assert plane.requests == []


def test_a_server_whose_certificate_looks_like_the_future_is_spoken_to(plane, home):
    # Trusted time is a lower bound: a device that was off for years knows no better.
    assert renew(home, 0).device == "local-cam-1"


def test_nobody_listening_is_worth_a_retry(plane, home):
    mine = identity.load(home).enrolled
    path = home / "identity/enrolment.json"
    path.write_bytes(encode(replace(mine, url="https://127.0.0.1:1")))
    with pytest.raises(Unavailable, match=r"N104.*127.0.0.1:1"):
        renew(home, NOW_MS)


def test_a_device_of_an_older_agent_does_not_know_where_to_ask_and_says_so(plane, home):
    mine = identity.load(home).enrolled
    old = encode(replace(mine, url="", api_ca=""))
    path = home / "identity/enrolment.json"
    assert b"url" not in old
    path.write_bytes(old)
    with pytest.raises(Unavailable, match="N104") as caught:
        renew(home, NOW_MS)
    assert "--csr-to" in caught.value.do


def test_offline_only_the_certificate_is_taken(plane, home, tmp_path):
    other = Authority.create(tmp_path / "next", "local", NOW_MS)
    plane.changes = {
        "broker": Broker("evil.example", 1),
        "url": "https://evil.example",
        "broker_ca": other.broker_ca.decode(),
        "api_ca": other.certificate("api-ca").read_text(),
    }
    before = files(home)
    adopt(home, plane.renewed(request(identity.load(home))), NOW_MS, proven=False)
    after = files(home)
    assert after.pop("device.crt") != before.pop("device.crt")
    assert after == before


# --- power cuts -------------------------------------------------------------------------------


class PowerCut(BaseException):
    pass


@pytest.mark.parametrize("step", range(12))
def test_power_lost_at_any_operation_leaves_an_identity_that_works_and_renews(
    plane, home, tmp_path, monkeypatch, step
):
    other = Authority.create(tmp_path / "next", "local", NOW_MS)
    plane.changes = {
        "broker": Broker("mq.example", 8884),
        "broker_ca": (plane.authority.broker_ca + other.broker_ca).decode(),
    }
    left = [step]
    real_open, real_replace, real_sync = Path.open, Path.replace, durable.sync_directory

    def tick() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise PowerCut

    def opening(path, *mode, **options):
        if path.name.endswith(".new"):
            tick()
        return real_open(path, *mode, **options)

    def replacing(path, target):
        try:
            tick()
        except PowerCut:
            with real_open(path, "r+b") as file:  # what was not synced is cut short
                file.truncate(file.seek(0, 2) // 2)
            raise
        return real_replace(path, target)

    def syncing(directory):
        tick()
        real_sync(directory)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", opening)
        patch.setattr(Path, "replace", replacing)
        patch.setattr(durable, "sync_directory", syncing)
        done = True
        try:
            renew(home, NOW_MS)
        except PowerCut:
            done = False
    assert done is (step >= 9)  # three files, three operations each

    found = identity.load(home)
    assert found.device == "local-cam-1"
    own, certified = pair(home / "identity")
    assert own == certified
    tls = found.broker.tls
    assert tls is not None
    assert tls.ca.read_bytes().startswith(plane.authority.broker_ca)
    renewed = until_ms(home) > NOW_MS + 700 * DAY_MS
    if renewed:
        # The certificate is the last thing written: with it, everything else is there.
        assert found.broker.host == "mq.example"
    else:
        assert renew(home, NOW_MS).broker.host == "mq.example"


def test_a_full_disk_is_tried_again_and_changes_nothing(plane, home, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    before = files(home)
    with monkeypatch.context() as patch:
        patch.setattr(durable, "replace", full)
        with pytest.raises(Unavailable, match="D201"):
            renew(home, NOW_MS)
    assert files(home) == before
    assert renew(home, NOW_MS).device == "local-cam-1"
