"""A power cut at any moment of an installation leaves the old or the new, never a mixture."""

import contextlib
import os
import shutil
from pathlib import Path

import pytest

from control_plane.signing import installing
from control_plane.signing.create import ONLINE
from control_plane.signing.installing import FILE, Install
from control_plane.signing.online_keys import OnlineKeys
from control_plane.signing.repository import Repository, has_root
from control_plane.signing.rotation import Change
from protocol.errors import InvalidRequest, TrustError
from tests.fakes.fleet_trust import FLEET, Device
from tests.fakes.holders import HeldFleet


class PowerCutError(BaseException):
    """Nothing in the code under test may catch it."""


class Cut:
    """The machine dies just before the `at`-th change of the disk."""

    def __init__(self, monkeypatch, at):
        self.left = at
        self.changes = 0
        for name in ("rename", "replace", "unlink", "remove", "mkdir"):
            real = getattr(os, name)
            monkeypatch.setattr(os, name, self._dying(real))

    def _dying(self, real):
        def change(*arguments, **more):
            self.changes += 1
            if self.changes > self.left:
                raise PowerCutError
            return real(*arguments, **more)

        return change


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A fleet, and a ceremony that touches everything: root, targets, models, both online keys."""
    fleet = HeldFleet(tmp_path_factory.mktemp("fleet") / "home")
    fleet.plan("digits", fleet.approve("digits/v1"))
    fleet.publish()
    proposal = fleet.proposed(
        root=fleet.replaced("ana", "gus"),
        models=Change(fleet.people.keys("hal", "ivy"), ["dan", "eve"]),
        online=ONLINE,
    )
    signed = fleet.people.sign(proposal, "ana", "bo", "gus", "hal", "ivy")
    return fleet, Install.of(signed)


def everything(home: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(home)): path.read_bytes()
        for path in sorted(home.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


@pytest.mark.parametrize("at", range(40))
def test_every_prefix_of_an_installation_recovers(prepared, tmp_path, monkeypatch, at):
    fleet, files = prepared
    home = tmp_path / "home"
    shutil.copytree(fleet.home, home)
    tuf, keys = home / "tuf", home / "keys"
    device = Device(tmp_path / "device", fleet.root)
    device.read(fleet.broker)
    before = fleet.repository.in_force()
    repository = Repository.open(tuf, keys, FLEET)
    now_ms = fleet.now_ms + 3_600_000

    with monkeypatch.context() as patch:
        cut = Cut(patch, at)
        try:
            repository.install(files, now_ms)
        except PowerCutError:
            pass
        else:
            assert cut.changes <= at

    opened = Repository.open(tuf, keys, FLEET)
    state = opened.in_force()
    new = (state.newest, state.targets, state.models) == (2, files.targets, files.models)
    old = (state.newest, state.targets, state.models) == (1, before.targets, before.models)
    assert new or old
    assert not (tuf / FILE).exists()
    if old:
        assert opened.install(files, now_ms)
    opened.publish(fleet.plans, fleet.deny, now_ms)
    assert opened.in_force().newest == 2
    fleet_after = {**fleet.broker}
    topics = opened._topics
    for number, data in opened.roots().items():
        fleet_after[topics.root(number)] = data
    for role, data in opened.metadata().items():
        fleet_after[topics.tuf(role)] = data
    device.machine.wall_ms = now_ms
    assert device.read(fleet_after)
    assert device.trust.root_version == 2


def test_the_prefixes_reach_the_end(prepared, tmp_path, monkeypatch):
    """Else the test above would not have tried all of them."""
    fleet, files = prepared
    shutil.copytree(fleet.home, tmp_path / "home")
    repository = Repository.open(tmp_path / "home/tuf", tmp_path / "home/keys", FLEET)
    cut = Cut(monkeypatch, 1000)
    repository.install(files, fleet.now_ms + 3_600_000)
    assert 10 < cut.changes < 40


@pytest.mark.parametrize("at", range(20))
def test_every_prefix_of_a_first_root_recovers(tmp_path, monkeypatch, at):
    fleet = HeldFleet(tmp_path / "fleet")
    first = Install.of(fleet.people.sign(fleet.first(), "ana", "bo", "dan", "eve"))
    tuf = tmp_path / "tuf"
    with monkeypatch.context() as patch:
        Cut(patch, at)
        with contextlib.suppress(PowerCutError):
            Repository.found(tuf, fleet.keys, FLEET, first, fleet.now_ms)
    if not has_root(tuf):
        with pytest.raises(InvalidRequest) as caught:
            Repository.open(tuf, fleet.keys, FLEET)
        assert caught.value.code == "OUT-T116"
        Repository.found(tuf, fleet.keys, FLEET, first, fleet.now_ms)
    assert Repository.open(tuf, fleet.keys, FLEET).in_force().newest == 1


def test_what_approvers_signed_since_is_not_undone_by_an_installation_that_lingers(tmp_path):
    """Its end may be lost in a power cut: it must not come back later."""
    fleet = HeldFleet(tmp_path / "fleet")
    lingering = Install(models=fleet.repository.in_force().models)
    fleet.approve("digits/v2")
    state = fleet.repository.in_force()
    installing.begin(fleet.tuf, lingering)
    fleet.reopen()
    assert fleet.repository.in_force() == state
    assert not (fleet.tuf / FILE).exists()


def test_a_damaged_installation_is_not_taken_for_one(tmp_path):
    fleet = HeldFleet(tmp_path / "fleet")
    (fleet.tuf / FILE).write_text("garbage")
    with pytest.raises(TrustError) as caught:
        fleet.reopen()
    assert caught.value.code == "OUT-T101"


def test_a_full_disk_refuses_an_installation_whole(prepared, tmp_path, monkeypatch):
    fleet, files = prepared
    shutil.copytree(fleet.home, tmp_path / "home")
    repository = Repository.open(tmp_path / "home/tuf", tmp_path / "home/keys", FLEET)
    before = everything(tmp_path / "home")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            repository.install(files, fleet.now_ms)
    assert everything(tmp_path / "home") == before
    assert repository.install(files, fleet.now_ms + 3_600_000)


def test_the_server_s_keys_for_a_ceremony_are_the_ones_that_wait(tmp_path):
    keys = OnlineKeys(tmp_path)
    first = {which: keys.generate(which) for which in ONLINE}
    assert keys.wanted() == first
    following = keys.generate("snapshot", following=True)
    assert keys.wanted() == {"rollouts": first["rollouts"], "snapshot": following}
