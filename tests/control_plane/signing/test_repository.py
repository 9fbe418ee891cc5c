"""The control plane's own side: what is signed when, and what is left alone."""

import json
import stat
import threading

import pytest

from control_plane.signing import create, keys
from control_plane.signing.drafts import Change
from control_plane.signing.repository import Repository
from protocol import codec
from protocol.approval import Approved
from protocol.device import DeviceDocument
from protocol.errors import InvalidRequest, TrustError
from protocol.identifiers import digest_of
from tests.fakes.fleet_trust import FLEET, START_MS, Device, Fleet


@pytest.fixture
def fleet(tmp_path):
    return Fleet(tmp_path / "control-plane")


def versions(fleet):
    return {
        role: json.loads(data)["signed"]["version"]
        for role, data in fleet.repository.metadata().items()
    }


def signed(fleet, role):
    return json.loads(fleet.repository.metadata()[role])["signed"]


def test_a_development_fleet_has_the_roles_and_files_of_a_real_one(fleet):
    assert sorted(path.name for path in fleet.keys.iterdir()) == [
        "approver-dev.pem",
        "online-rollouts.pem",
        "online-snapshot.pem",
        "root-1.pem",
    ]
    for path in fleet.keys.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    fleet.publish()
    root = json.loads(fleet.root)["signed"]
    assert root["consistent_snapshot"] is False
    assert {role: each["threshold"] for role, each in root["roles"].items()} == dict.fromkeys(
        ("root", "targets", "snapshot", "timestamp"), 1
    )
    assert root["roles"]["root"] == root["roles"]["targets"]
    assert root["roles"]["snapshot"] == root["roles"]["timestamp"]
    assert root["roles"]["snapshot"] != root["roles"]["root"]
    delegations = signed(fleet, "targets")["delegations"]
    assert [(r["name"], r["paths"], r["terminating"]) for r in delegations["roles"]] == [
        ("models", ["models/*/*"], True),
        ("rollouts", ["rollouts/*"], True),
    ]
    holders = {tuple(r["keyids"]) for r in delegations["roles"]}
    assert len(holders) == 2
    assert signed(fleet, "targets")["targets"] == {}


def test_expiries_are_those_of_the_study(fleet):
    fleet.publish()
    days = {
        role: signed(fleet, role)["expires"][:10]
        for role in ("targets", "models", "rollouts", "snapshot", "timestamp")
    }
    assert days == {
        "targets": "2028-01-05",
        "models": "2027-03-01",
        "rollouts": "2026-12-15",
        "snapshot": "2026-12-15",
        "timestamp": "2026-12-04",
    }
    assert json.loads(fleet.root)["signed"]["expires"] == "2027-12-01T12:00:00Z"
    assert signed(fleet, "timestamp")["x-issued"] == "2026-12-01T12:00:00Z"


def test_keys_are_never_overwritten(fleet, tmp_path):
    with pytest.raises(FileExistsError):
        Repository.create_dev(tmp_path / "again", fleet.keys, FLEET, START_MS)


def test_nothing_is_published_before_the_first_plan(fleet):
    assert fleet.repository.metadata() == {}
    assert not fleet.repository.restamp(fleet.now_ms)


def test_timestamp_is_last(fleet):
    fleet.publish()
    assert list(fleet.repository.metadata())[-2:] == ["snapshot", "timestamp"]


def test_publishing_the_same_again_signs_nothing(fleet):
    fleet.publish()
    before = fleet.repository.metadata()

    assert not fleet.repository.publish(fleet.plans, fleet.deny, fleet.now_ms)
    assert fleet.repository.metadata() == before


def test_versions_are_minutes_or_one_more(fleet):
    minutes = START_MS // 60_000
    seen = []
    for _ in range(3):
        fleet.plan("digits", digest_of(b"x"))
        fleet.publish()
        seen.append(versions(fleet)["rollouts"])
    assert seen == [minutes, minutes + 1, minutes + 2]
    fleet.later(hours=1)
    fleet.plan("digits", digest_of(b"x"))
    fleet.publish()
    assert versions(fleet)["rollouts"] == versions(fleet)["timestamp"] == minutes + 60


@pytest.mark.parametrize(
    "hours,changed",
    [
        (11, set()),
        (12, {"timestamp"}),
        (24, {"timestamp", "snapshot", "rollouts"}),
        (24 * 30, {"timestamp", "snapshot", "rollouts"}),
        (-24 * 30, {"timestamp", "snapshot", "rollouts"}),
    ],
)
def test_restamp_signs_what_is_due(fleet, hours, changed):
    fleet.plan("digits", digest_of(b"x"))
    fleet.publish()
    before = fleet.repository.metadata()
    fleet.later(hours=hours)

    assert fleet.repository.restamp(fleet.now_ms) is bool(changed)
    after = fleet.repository.metadata()
    assert {role for role in after if after[role] != before[role]} == changed
    assert not fleet.repository.restamp(fleet.now_ms)


def test_reopened_it_goes_on(fleet, tmp_path):
    fleet.publish()
    before = fleet.repository.metadata(), fleet.repository.roots()
    fleet.reopen()

    assert (fleet.repository.metadata(), fleet.repository.roots()) == before


@pytest.mark.parametrize("written", range(4))
def test_a_power_cut_between_files_is_mended(fleet, tmp_path, monkeypatch, written):
    device = Device(tmp_path / "device", fleet.root)
    fleet.publish()
    device.read(fleet.broker)
    fleet.later(minutes=1)
    fleet.plan("digits", digest_of(b"x"))
    left = [written]
    write = Repository._write

    def cut(self, role, data):
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        write(self, role, data)

    with monkeypatch.context() as patch:
        patch.setattr(Repository, "_write", cut)
        if written < 3:
            with pytest.raises(KeyboardInterrupt):
                fleet.publish()
        else:
            fleet.publish()
    fleet.reopen()
    fleet.put()
    fleet.publish()

    assert device.read(fleet.broker) or written == 3
    assert "digits" in device.trust.plans


def test_the_wrong_online_key_is_noticed_when_opened(fleet, tmp_path):
    other = Fleet(tmp_path / "other")
    (fleet.keys / create.ROLLOUTS_KEY).write_bytes((other.keys / create.ROLLOUTS_KEY).read_bytes())
    with pytest.raises(TrustError, match="role rollouts"):
        fleet.reopen()


def test_an_empty_directory_has_no_root_yet(fleet, tmp_path):
    with pytest.raises(InvalidRequest) as caught:
        Repository.open(tmp_path, fleet.keys, FLEET)
    assert caught.value.code == "OUT-T116"


def test_a_root_alone_is_no_repository(fleet, tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "1.json").write_bytes(fleet.root)
    with pytest.raises(TrustError, match="no repository"):
        Repository.open(tmp_path, fleet.keys, FLEET)


@pytest.mark.parametrize("content", [None, b"", b"garbage"])
def test_an_unreadable_key_says_which(tmp_path, content):
    path = tmp_path / "ana.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidRequest, match=r"T113.*ana\.pem"):
        keys.load(path)


# --- documents ----------------------------------------------------------------------------------


def test_a_document_that_devices_would_refuse_is_not_signed(fleet):
    labels = {f"label-{n}": "x" * 120 for n in range(150)}
    with pytest.raises(InvalidRequest, match="N211"):
        fleet.document(1, labels=labels)
    with pytest.raises(InvalidRequest):
        fleet.repository.sign_document(DeviceDocument("south", "south-a", 1))


def test_the_same_document_gives_the_same_bytes(fleet):
    assert fleet.document(4, labels={"a": "b"}) == fleet.document(4, labels={"a": "b"})
    assert len(fleet.document(4)) < codec.MAX_DEVICE_DOCUMENT


# --- drafts -------------------------------------------------------------------------------------


def change(version="v1", **terms):
    return Change("digits", version, digest_of(version.encode()), 7, Approved(**terms))


def test_routes_and_ticker_may_call_at_once(fleet):
    fleet.publish()
    errors = []

    def read():
        try:
            for _ in range(30):
                metadata = fleet.repository.metadata()
                snapshot = json.loads(metadata["timestamp"])["signed"]["meta"]["snapshot.json"]
                assert snapshot["version"] == json.loads(metadata["snapshot"])["signed"]["version"]
                fleet.repository.draft((change(),), START_MS)
        except Exception as error:  # noqa: BLE001 - whatever it was, the test shows it
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(10):
        fleet.plan("digits", digest_of(bytes([number])))
        fleet.publish()
    for thread in threads:
        thread.join()
    assert errors == []
