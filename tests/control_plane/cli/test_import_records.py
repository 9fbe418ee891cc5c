"""Records on a stick: from the real agent's export to the store of the control plane."""

from __future__ import annotations

import json
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest
import zstandard
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from control_plane.carried import take as take_in
from edge_agent import cli as agent_cli
from edge_agent import export, offline, settings
from edge_agent.buffer import Outbox
from edge_agent.identity import load
from edge_agent.parts import Parts as RealParts
from edge_agent.renew import signing_key
from edge_agent.technician.carrying import EXPORT, Exporter
from edge_agent.technician.door import Door
from edge_agent.technician.status import Status
from protocol import records_file
from protocol.codec import encode_up, to_wire
from protocol.identifiers import digest_of
from protocol.records_file import Head, put_together, take_apart
from protocol.reported import ReportedState
from protocol.telemetry import EVENT_STREAM, EventWindow, Record, StreamAck, Upload
from tests.control_plane.web.conftest import Api
from tests.fakes.certificates import Authority
from tests.fakes.command_line import Ran, ran
from tests.fakes.telemetry import take

STATE = ReportedState(order=0, agent="0.1.0")


@dataclass
class Device:
    home: Path
    stick: Path
    outbox: Outbox
    answers: int = 0
    seq: int = 0

    def count(self, windows: int) -> None:
        for _ in range(windows):
            self.seq += 1
            self.outbox.commit_take(take(self.seq, 30, rows=30), self.seq, self.seq)
            self.outbox.close_due(self.seq)
            self.answers += 30

    def export(self, *options: str) -> Ran:
        arguments = ["export", "--to", str(self.stick), "--home", str(self.home), *options]
        return ran(agent_cli.run_command, arguments)

    @property
    def files(self) -> list[Path]:
        return sorted(self.stick.iterdir())

    @property
    def records(self) -> list[Record]:
        return self.outbox.sendable(lambda _: False, records=10**6, body_bytes=10**9)


def enrolled(api: Api, outrider, name: str) -> Path:
    """A device that joined by files, as one without network does. Its home."""
    stick, home = api.folder / f"stick-{name}", api.folder / name
    stick.mkdir()
    request = offline.write_request(home, stick, name)
    done = outrider("device", "sign-request", str(request), "--to", str(stick), "--json")
    assert done.exit == 0, done.err
    offline.take_answer(home, stick / f"{name}.answer.json", json.loads(done.out)["root_digest"])
    for file in stick.iterdir():
        file.unlink()
    return home


@pytest.fixture
def device(api, outrider):
    home = enrolled(api, outrider, "cam-1")
    outbox = Outbox(
        home / "outbox.db",
        rng=random.SystemRandom(),
        window_s=0.0,
        min_window_n=0,
        synchronous="OFF",
    )
    yield Device(home, api.folder / "stick-cam-1", outbox)
    outbox.close()


def stored(api: Api) -> int:
    return api.store.records.stored("north-cam-1").get("inference", 0)


def test_a_stick_brings_what_the_link_would_have_and_nothing_is_deleted(api, outrider, device):
    device.count(40)
    device.outbox.put_event("OUT-D201", {"why": "full"}, 1)
    before = device.records
    done = device.export()
    assert (done.exit, done.err) == (0, "")
    assert done.out.startswith("81 records, ")
    assert done.out.endswith("; kept here until the control plane confirms\n")
    assert [file.name for file in device.files] == ["north-cam-1.1.records"]
    assert device.records == before
    imported = outrider("device", "import-records", str(device.stick))
    assert (imported.exit, imported.out.split()) == (
        0,
        ["cam-1", "81", "records,", "81", "of", "them", "new"],
    )
    assert stored(api) == device.answers == 1200
    # It is no contact: the device was not heard of.
    assert api.get("devices/cam-1").json()["device"]["last_contact"] is None
    (event,) = api.store.records.events("north-cam-1")
    assert event.code == "OUT-D201"


def test_a_stick_that_comes_twice_changes_nothing_the_second_time(api, outrider, device):
    device.count(10)
    device.export()
    for new in (20, 0):
        done = outrider("device", "import-records", str(device.files[0]), "--json")
        (file,) = json.loads(done.out)["files"]
        assert (file["records"], file["stored"], file["known"]) == (20, new, 20 - new)
    assert stored(api) == device.answers


def test_the_next_probe_tells_the_device_what_the_stick_brought(api, outrider, device):
    device.count(10)
    device.export()
    outrider("device", "import-records", str(device.stick))
    for epoch, stream, lo, hi in device.outbox.held(10):
        ack = api.store.records.coverage("north-cam-1", epoch, stream, ((lo, hi),))
        assert isinstance(ack, StreamAck)
        device.outbox.delete_safe([ack])
    assert device.records == []


def test_merged_windows_and_fine_ones_of_an_earlier_stick_count_once(api, outrider, device):
    device.count(16)
    device.export()
    outrider("device", "import-records", str(device.stick))
    device.count(100)
    device.outbox.resize(150_000)
    device.outbox.close_due(1e9)
    device.count(4)
    assert device.outbox.state().merged > 0
    device.export()
    outrider("device", "import-records", str(device.stick))
    assert stored(api) == device.answers == 3600


def test_a_state_on_a_stick_is_the_newest_only_if_it_is(api, outrider, device):
    device.outbox.put_state(replace(STATE, agent="9"), 50)
    device.export()
    device.outbox.put_state(replace(STATE, agent="10"), 60)
    newer = device.records
    api.store.devices.put_state("north-cam-1", replace(STATE, order=60, agent="10"), 60)
    outrider("device", "import-records", str(device.stick))
    found = api.get("devices/cam-1").json()["reported"]
    assert found["agent"] == "10"
    assert newer


def test_the_running_agent_exports_through_its_door(api, outrider, device):
    device.count(12)

    # From here on the outbox belongs to the supervisor's thread, whoever asks.
    device.outbox.close()
    loop = ThreadPoolExecutor(1)

    class Supervisor:
        def errand(self, work):
            return loop.submit(work).result()

    class Clock:
        def now_ms(self):
            return 77

    class Parts:
        outbox = device.outbox
        clock = Clock()

    exporter = Exporter(device.home, cast(RealParts, Parts()), Supervisor())
    paths = settings.read({}, device.home).paths
    paths.run.mkdir()
    state = Status("north-cam-1", "north", 0, STATE)
    door = Door(paths.socket, lambda: state, {EXPORT: exporter.export})
    try:
        done = device.export("--json")
    finally:
        door.close()
        shutil.rmtree(paths.run)
        loop.submit(device.outbox.close).result()
        loop.shutdown()
    told = json.loads(done.out)
    assert (told["records"], told["files"]) == (24, ["north-cam-1.1.records"])
    assert take_apart(device.files[0].read_bytes()).head.made_ms == 77
    assert outrider("device", "import-records", str(device.stick)).exit == 0
    assert stored(api) == device.answers


def test_an_open_window_of_a_dead_agent_goes_without_histograms_if_it_has_few(device):
    device.outbox.close()
    outbox = Outbox(device.home / "outbox.db", rng=random.SystemRandom())
    outbox.commit_take(take(1, 7, rows=7, runner="r-9"), 0.0, 1)
    outbox.close()
    (page,) = export.stored(device.home / "outbox.db")
    assert {record.n for record in page} == {7}
    assert not any(record.b.get("confidence") or record.b.get("counts") for record in page)


def test_many_records_are_several_files_and_a_shorter_export_removes_what_is_over(
    api, outrider, device, monkeypatch
):
    monkeypatch.setattr(export, "_MOST_BYTES", 1000)
    monkeypatch.setattr(export, "MAX_RECORDS", 10)
    device.count(60)
    device.export()
    assert len(device.files) > 2
    done = outrider("device", "import-records", str(device.stick))
    assert done.exit == 0
    assert stored(api) == device.answers
    monkeypatch.undo()
    device.export("--home", str(device.home))
    assert [file.name for file in device.files] == ["north-cam-1.1.records"]


def test_a_device_that_holds_nothing_says_so_in_a_file_of_its_own(outrider, device):
    done = device.export()
    assert done.exit == 0
    assert done.out.startswith("0 records, ")
    imported = outrider("device", "import-records", str(device.stick))
    assert imported.out.split() == ["cam-1", "0", "records,", "0", "of", "them", "new"]


def test_an_export_to_no_folder_is_d505(device):
    done = ran(
        agent_cli.run_command,
        ["export", "--to", str(device.stick / "nowhere"), "--home", str(device.home)],
    )
    assert done.exit == 2
    assert "OUT-D505" in done.err


def test_a_link_on_the_stick_is_not_followed(device):
    device.count(1)
    victim = device.home / "victim"
    victim.write_text("mine")
    (device.stick / "north-cam-1.1.records.new").symlink_to(victim)
    (device.stick / "north-cam-1.1.records").symlink_to(victim)
    assert device.export().exit == 0
    assert victim.read_text() == "mine"
    assert not (device.stick / "north-cam-1.1.records").is_symlink()


# --- what is refused ------------------------------------------------------------------------------


def forged(of: Device, batches: list[bytes], key=None, **changes) -> bytes:
    """A file of the device's own making, with something else in it."""
    identity = load(of.home)
    own = signing_key(identity.folder)
    note = Head(
        1,
        "north",
        "north-cam-1",
        1,
        1,
        len(batches),
        tuple(map(len, batches)),
        digest_of(b"".join(batches)),
        (identity.folder / "device.crt").read_text(),
    )
    note = replace(note, **changes)
    signature = (key or own).sign(records_file.signed_bytes(note), ec.ECDSA(hashes.SHA256()))
    return put_together(note, signature, batches)


def batch(**changes) -> bytes:
    fields = {
        "e": 1,
        "s": EVENT_STREAM,
        "lo": 0,
        "hi": 0,
        "n": 1,
        "b": to_wire(EventWindow({"OUT-D201": 1})),
    }
    pack = zstandard.ZstdCompressor().compress
    return encode_up(Upload(1, (Record(**(fields | changes)),)), pack)


def refusal(api: Api, data: bytes) -> tuple[int, str]:
    answer = api.call("POST", "records", content=data)
    assert stored(api) == 0
    assert api.store.records.events("north-cam-1") == []
    return answer.status_code, answer.json()["code"]


def test_another_key_s_signature_is_d504(api, device):
    stranger = ec.generate_private_key(ec.SECP256R1())
    assert refusal(api, forged(device, [batch()], key=stranger)) == (422, "OUT-D504")


def test_another_device_s_name_or_certificate_is_d504(api, outrider, device):
    other = enrolled(api, outrider, "cam-2")
    certificate = (load(other).folder / "device.crt").read_text()
    assert refusal(api, forged(device, [batch()], device="north-cam-2")) == (422, "OUT-D504")
    assert refusal(api, forged(device, [batch()], certificate=certificate)) == (422, "OUT-D504")
    both = forged(device, [batch()], device="north-cam-2", certificate=certificate)
    assert refusal(api, both) == (422, "OUT-D504")


def test_a_certificate_of_another_authority_is_d504(api, device, tmp_path):
    certificate, key_path = Authority.create(tmp_path / "fake").issue("north-cam-1")
    key = serialization.load_pem_private_key(key_path.read_bytes(), None)
    data = forged(device, [batch()], key=key, certificate=certificate.read_text())
    assert refusal(api, data) == (422, "OUT-D504")
    assert refusal(api, forged(device, [batch()], certificate="none")) == (422, "OUT-D504")


def test_a_retired_device_s_stick_is_d504(api, outrider, device):
    device.count(1)
    device.export()
    outrider("device", "retire", "cam-1", "--why", "stolen")
    assert refusal(api, device.files[0].read_bytes()) == (422, "OUT-D504")
    done = outrider("device", "import-records", str(device.stick))
    assert done.exit == 6


def test_a_revoked_certificate_s_stick_is_d504(api, device):
    api.store.certificates.revoke("north-cam-1", api.clock[0], "superseded")
    assert refusal(api, forged(device, [batch()])) == (422, "OUT-D504")


def test_an_expired_certificate_still_proves_who_counted(api, outrider, device):
    device.count(1)
    device.export()
    api.clock[0] += 3 * 365 * 86_400_000
    data = device.files[0].read_bytes()
    found = take_in(api.store, api.parts.enrolment.authority, data, api.clock[0], "ana")
    assert found.stored == 2


def test_what_no_device_sends_is_d505_and_leaves_nothing(api, device):
    for bad in (batch(n=7), b"\x07rubbish", b"\x01{}"):
        assert refusal(api, forged(device, [batch(), bad])) == (422, "OUT-D505")
    assert refusal(api, b"rubbish") == (422, "OUT-D505")
    assert refusal(api, forged(device, [batch()])[:-3]) == (422, "OUT-D505")


def test_one_bad_file_does_not_keep_the_others_out(api, outrider, device):
    device.count(5)
    device.export()
    (device.stick / "aa.1.records").write_bytes(b"rubbish")
    done = outrider("device", "import-records", str(device.stick))
    assert done.exit == 2
    assert "aa.1.records" in done.err
    assert stored(api) == device.answers


def test_an_import_is_on_record_and_needs_the_right_to_service(api, outrider, device):
    device.count(2)
    device.export()
    outrider("device", "import-records", str(device.stick))
    (record,) = (
        each
        for each in api.store.audit.page(about="devices/cam-1", limit=50).items
        if each.what == "device.records_imported"
    )
    assert record.data["records"] == 4
    assert "batches" in record.data


def test_a_folder_without_files_is_d505(outrider, tmp_path):
    done = outrider("device", "import-records", str(tmp_path))
    assert done.exit == 2
    assert "OUT-D505" in done.err
