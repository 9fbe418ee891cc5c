"""Certificates and revocation lists that renew themselves, and those who are told of it."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest
from cryptography import x509

from control_plane.fleet.authority import Authority
from control_plane.fleet.revocation import DAY_MS
from control_plane.upkeep import Upkeep, reload_by
from protocol.errors import Unavailable

NOW_MS = 1_795_000_000_000


class World:
    """A certificate folder, what is revoked, a clock, and a note of who was told what."""

    def __init__(self, home: Path, **options: object) -> None:
        self.authority = Authority.create(home / "ca", "local", NOW_MS, ["old.example"])
        self.now_ms = NOW_MS
        self.listed: dict[str, int] = {}
        self.told: list[str] = []
        self.broken = False
        self.options = options
        self.restart()

    def restart(self) -> None:
        self.upkeep = Upkeep(
            self.authority,
            self,
            lambda: self.now_ms,
            reload_broker=self._broker,
            reload_api=lambda: self.told.append("api"),
            **self.options,  # type: ignore[arg-type]  # a table
        )

    def revoked(self, _unexpired_at_ms: int) -> tuple[tuple[str, int], ...]:
        return tuple(self.listed.items())

    def _broker(self) -> None:
        if self.broken:
            raise Unavailable("OUT-N107", "systemctl: no")
        self.told.append("broker")

    def step(self) -> list[str]:
        self.told.clear()
        self.upkeep.step()
        return self.told

    def certificate(self, name: str) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.authority.certificate(name).read_bytes())


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_a_new_process_tells_the_broker_once_since_the_last_may_not_have(world):
    assert world.step() == ["broker"]
    assert world.step() == []
    world.restart()
    assert world.step() == ["broker"]


def test_a_list_is_issued_every_day_and_the_broker_reads_it(world):
    world.step()
    first = world.upkeep.current
    world.now_ms += DAY_MS
    assert world.step() == ["broker"]
    assert world.upkeep.current == world.authority.revocation_list() != first
    assert world.step() == []


def test_a_revocation_is_on_the_list_at_the_next_step(world):
    world.step()
    world.listed["a1"] = world.now_ms
    assert world.step() == ["broker"]
    assert world.upkeep.current.serials == {"a1"}
    assert world.step() == []


def test_a_broker_that_was_not_told_is_told_until_it_is(world):
    world.step()
    world.listed["a1"] = world.now_ms
    world.broken = True
    for _ in range(2):
        with pytest.raises(Unavailable, match="N107"):
            world.step()
    assert world.authority.revocation_list().serials == {"a1"}
    world.broken = False
    assert world.step() == ["broker"]


def test_a_list_that_was_lost_is_made_again(world):
    world.step()
    world.authority.crl.unlink()
    assert world.step() == ["broker"]
    assert world.authority.revocation_list() is not None


def test_servers_get_new_certificates_at_half_of_their_life_under_all_their_names(world):
    world.step()
    before = {name: world.certificate(name) for name in ("server", "api", "control")}
    world.now_ms += 366 * DAY_MS
    assert sorted(world.step()) == ["api", "broker"]
    for name, old in before.items():
        assert world.certificate(name).not_valid_after_utc > old.not_valid_after_utc
    assert set(world.authority.hosts) == {"127.0.0.1", "localhost", "old.example"}
    assert world.step() == []


def test_a_name_that_is_added_to_the_settings_is_in_the_certificates_at_the_next_start(tmp_path):
    world = World(tmp_path, hosts=["new.example", "10.0.0.7"])
    assert sorted(world.step()) == ["broker"]
    assert {"new.example", "10.0.0.7", "old.example"} <= set(world.authority.hosts)
    assert world.step() == []


def test_an_interrupted_renewal_is_begun_again(world):
    world.step()
    world.authority.key("api").write_bytes(world.authority.key("server").read_bytes())
    assert sorted(world.step()) == ["api", "broker"]
    assert not world.authority.renewal_due(world.now_ms)


def test_copies_for_a_broker_elsewhere_are_kept_current_and_sign_nothing(tmp_path):
    copies = tmp_path / "broker" / "local"
    world = World(tmp_path, broker_files=copies)
    world.step()
    world.listed["a1"] = world.now_ms
    world.step()
    assert {path.name for path in copies.iterdir()} == {
        "server.crt",
        "server.key",
        "device-ca.crt",
        "devices.crl",
    }
    for path in copies.iterdir():
        assert path.read_bytes() == (world.authority.directory / path.name).read_bytes()
    assert stat.S_IMODE((copies / "server.key").stat().st_mode) & 0o007 == 0
    keys = {world.authority.key(name).read_bytes() for name in ("device-ca", "broker-ca", "api-ca")}
    assert not keys & {path.read_bytes() for path in copies.iterdir()}


def test_a_command_that_fails_says_its_last_words(tmp_path):
    note = tmp_path / "ran"
    reload_by([sys.executable, "-c", f"open({str(note)!r}, 'w')"])
    assert note.exists()
    reload_by([])
    with pytest.raises(Unavailable, match=r"N107.*no such unit"):
        reload_by([sys.executable, "-c", "import sys; sys.exit('hello\\nno such unit')"])
    with pytest.raises(Unavailable, match="N107"):
        reload_by([str(tmp_path / "missing")])
