"""The device's own detectors: stepped once per closed window, durable, and told once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from edge_agent import detection, outbox_file, salvage
from edge_agent.buffer import Outbox
from edge_agent.detection import DRIFTED
from edge_agent.parts import Parts
from edge_agent.supervisor import Supervisor
from protocol.bundle import Facts
from protocol.device import DeviceDocument, Settings
from protocol.edetector import BURN_IN, DEFAULT_THRESHOLD, run
from protocol.errors import Unavailable
from protocol.histogram import Counts
from protocol.identifiers import Digest
from protocol.members import Feature, Profile
from protocol.telemetry import DriftWindow, EventWindow, InferenceWindow, Record, read_body
from protocol.topics import Topics
from tests.fakes import telemetry
from tests.fakes.telemetry import MANIFEST, MODEL, PROFILE, Take

REFERENCE = (*(2000,) * 10, 0, 0)
NAMES = ("temperature", "pressure")
REFERENCE_PROFILE = Profile(
    20_000, tuple(Feature(name, tuple(map(float, range(9))), REFERENCE) for name in NAMES)
)
STUCK: Counts = (*(0,) * 4, 50, *(0,) * 7)
HOUR_MS = 3_600_000


def usual(at: int, rows: int = 50) -> Counts:
    drawn = np.random.default_rng(at).multinomial(rows, [0.1] * 10)
    return (*map(int, drawn), 0, 0)


class Device:
    """An outbox whose windows hold one take each."""

    def __init__(self, path: Path, profile_of: Callable[[Digest], Profile | None]) -> None:
        self.path = path
        self.profile_of = profile_of
        self.hours = 0
        self.outbox = self._opened()

    def _opened(self) -> Outbox:
        return Outbox(self.path, window_s=0.0, min_window_n=0, profile_of=self.profile_of)

    def take(self, *features: Counts, manifest: Digest = MANIFEST) -> None:
        """One hour of these counts, not closed yet."""
        self.hours += 1
        rows = sum(features[0])
        window = DriftWindow(manifest, PROFILE, rows, features)
        counts = telemetry.Counts(InferenceWindow(manifest, PROFILE), window)
        take = Take("r-1", self.hours, (counts,))
        self.outbox.commit_take(take, float(self.hours), self.hours * HOUR_MS)

    def hour(self, *features: Counts, manifest: Digest = MANIFEST) -> None:
        self.take(*features, manifest=manifest)
        self.outbox.close_due(float(self.hours))

    def usual_hours(self, count: int) -> None:
        for _ in range(count):
            self.hour(usual(self.hours), usual(self.hours + 1000))

    def restart(self) -> None:
        self.outbox.close()
        self.outbox = self._opened()

    def records(self) -> list[Record]:
        return self.outbox.sendable(lambda _: False, records=500, body_bytes=10_000_000)

    def windows(self) -> list[DriftWindow]:
        found = sorted((r for r in self.records() if r.kind == "drift"), key=lambda r: r.t0)
        bodies = [read_body(record) for record in found]
        return [body for body in bodies if isinstance(body, DriftWindow)]

    def events(self) -> list[dict[str, Any]]:
        found = []
        for record in sorted(self.records(), key=lambda r: r.t0):
            body = read_body(record)
            if isinstance(body, EventWindow):
                assert set(body.counts) == {DRIFTED}
                found.append(body.newest[DRIFTED])
        return found


@pytest.fixture
def device(tmp_path):
    return Device(tmp_path / "outbox.db", lambda _: REFERENCE_PROFILE)


def test_a_closed_window_carries_what_the_detectors_make_of_it(device):
    device.usual_hours(5)
    for hour in range(5):
        device.hour(usual(hour), STUCK)
    windows = device.windows()
    assert [window.looks for window in windows] == list(range(1, 11))
    assert [window.evidence for window in windows[:5]] == [()] * 5
    ((stream, tenths),) = windows[-1].evidence
    assert stream == NAMES.index("pressure")
    last = list(run(REFERENCE_PROFILE, windows))[-1]
    assert tenths == int(10 * last.ln_e[1])


def test_a_restart_of_the_agent_keeps_windows_and_evidence(tmp_path):
    steady = Device(tmp_path / "steady.db", lambda _: REFERENCE_PROFILE)
    restarted = Device(tmp_path / "restarted.db", lambda _: REFERENCE_PROFILE)
    for device in (steady, restarted):
        for hour in range(70):
            device.hour(usual(hour), usual(hour + 1000) if hour < 66 else STUCK)
            if device is restarted and hour % 9 == 3:
                device.restart()
    assert restarted.windows() == steady.windows()
    assert restarted.outbox.drift(MANIFEST) == steady.outbox.drift(MANIFEST)
    assert restarted.windows()[-1].looks == 70


def test_what_a_device_reports_of_itself(device):
    assert device.outbox.drift(MANIFEST) is None
    device.usual_hours(BURN_IN - 1)
    state = device.outbox.drift(MANIFEST)
    assert (state.windows, state.settled, state.since_ms) == (BURN_IN - 1, False, 0)
    device.usual_hours(1)
    assert device.outbox.drift(MANIFEST).settled
    device.hour(STUCK, usual(1))
    state = device.outbox.drift(MANIFEST)
    assert state.ln_e >= DEFAULT_THRESHOLD == state.threshold
    assert (state.feature, state.since_ms) == ("temperature", 61 * HOUR_MS)
    device.outbox.ln_threshold = 39.9
    assert device.outbox.drift(MANIFEST).since_ms == 0
    assert device.outbox.drift(PROFILE) is None


def test_a_first_crossing_is_told_once(device):
    device.usual_hours(BURN_IN)
    for _ in range(3):
        device.hour(STUCK, STUCK)
        device.restart()
    (event,) = device.events()
    assert event["at_ms"] == 61 * HOUR_MS
    assert (event["model"], event["windows"], event["threshold"]) == (MODEL, 61, 15.4)
    assert {name for name, _ in event["features"]} == set(NAMES)
    evidence = [ln_e for _, ln_e in event["features"]]
    assert evidence == sorted(evidence, reverse=True)
    assert evidence[-1] >= 15.4


def test_what_ended_and_comes_back_is_told_again(device):
    device.usual_hours(BURN_IN)
    device.hour(STUCK, usual(1))
    device.usual_hours(120)
    state = device.outbox.drift(MANIFEST)
    assert state.since_ms == 0
    device.hour(STUCK, usual(2))
    assert len(device.events()) == 2


def test_the_threshold_is_the_documents(device):
    device.outbox.ln_threshold = 39.99
    device.usual_hours(BURN_IN)
    device.hour(STUCK, usual(1))
    assert device.events() == []
    device.outbox.ln_threshold = 9.0
    device.hour(STUCK, usual(2))
    (event,) = device.events()
    assert event["threshold"] == 9.0


def test_windows_of_fewer_than_20_rows_step_nothing(device):
    device.usual_hours(2)
    device.hour(usual(9, 19), usual(10, 19))
    device.usual_hours(1)
    looks = [(window.rows, window.looks, bool(window.counts)) for window in device.windows()]
    assert looks == [(50, 1, True), (50, 2, True), (19, 0, False), (50, 3, True)]


def test_the_event_is_in_the_transaction_that_closes_the_window(device, monkeypatch):
    """A power cut before the commit leaves neither; after it, both."""
    device.usual_hours(BURN_IN)
    device.take(STUCK, usual(1))

    class Cut(BaseException):
        pass

    insert = Outbox._insert_final
    seen = []

    def cut(self, db, stream, *rest, **named):
        insert(self, db, stream, *rest, **named)
        final = db.execute("SELECT count(*) FROM buf WHERE stream LIKE 'drift/%'").fetchone()
        seen.append((final[0], db.execute("SELECT max(t) FROM detector").fetchone()[0]))
        raise Cut

    monkeypatch.setattr(Outbox, "_insert_final", cut)
    with pytest.raises(Cut):
        device.outbox.close_due(float(device.hours))
    monkeypatch.undo()
    assert seen == [(61, 61)]
    device.restart()
    assert device.events() == []
    assert device.outbox.drift(MANIFEST).windows == BURN_IN
    device.hour(STUCK, usual(2))
    assert len(device.events()) == 1
    assert device.outbox.drift(MANIFEST).windows == BURN_IN + 1


def test_windows_close_without_a_profile_or_while_it_cannot_be_read(tmp_path, caplog):
    def broken(manifest: Digest) -> Profile | None:
        raise OSError(5, "Input/output error")

    for at, profile_of in enumerate((broken, lambda _: None, lambda _: Profile(9))):
        device = Device(tmp_path / f"{at}.db", profile_of)
        device.usual_hours(1)
        (window,) = device.windows()
        assert (window.looks, window.evidence) == (0, ())
    assert "cannot be read: [Errno 5]" in caplog.text


def test_counts_of_another_form_than_the_profile_are_passed_over(device):
    device.hour((25, 25))
    device.hour((25, 25), usual(1))
    assert [window.looks for window in device.windows()] == [0, 1]
    assert device.windows()[1].evidence == ()


@pytest.mark.parametrize("state", [b"", b"\xc1", b"nonsense"])
def test_a_damaged_detector_starts_anew(device, state):
    device.usual_hours(3)
    device.outbox.close()
    with sqlite3.connect(device.path) as db:
        db.execute("UPDATE detector SET state=?", (state,))
    db.close()
    device.restart()
    device.usual_hours(1)
    assert [window.looks for window in device.windows()] == [1, 2, 3, 1]


def test_detectors_of_the_last_versions_are_kept(tmp_path):
    device = Device(tmp_path / "outbox.db", lambda _: REFERENCE_PROFILE)
    manifests = [f"sha256-{version:064x}" for version in range(10)]
    for manifest in manifests:
        device.hour(usual(1), usual(2), manifest=manifest)
    kept = [device.outbox.drift(manifest) is not None for manifest in manifests]
    assert kept == [False] * 2 + [True] * 8


def test_detectors_of_large_profiles_leave_room_for_records(tmp_path, monkeypatch):
    monkeypatch.setattr(detection, "_STATE_BYTES", 2000)
    device = Device(tmp_path / "outbox.db", lambda _: REFERENCE_PROFILE)
    manifests = [f"sha256-{version:064x}" for version in range(4)]
    for manifest in manifests:
        device.hour(usual(1), usual(2), manifest=manifest)
    kept = [device.outbox.drift(manifest) is not None for manifest in manifests]
    assert kept == [False, False, True, True]
    monkeypatch.setattr(detection, "_STATE_BYTES", 1)
    device.hour(usual(1), usual(2), manifest=manifests[3])
    kept = [device.outbox.drift(manifest) is not None for manifest in manifests]
    assert kept == [False, False, False, True], "the newest always"


def test_bets_are_kept_for_few_streams_and_made_anew_for_more(tmp_path):
    asked: list[Digest] = []

    def profile_of(streams: int) -> Callable[[Digest], Profile]:
        def found(manifest: Digest) -> Profile:
            asked.append(manifest)
            return replace(REFERENCE_PROFILE, features=REFERENCE_PROFILE.features * (streams // 2))

        return found

    for streams, times in ((64, 1), (detection._BETS_OF_STREAMS + 2, 3)):
        asked.clear()
        device = Device(tmp_path / f"{streams}.db", profile_of(streams))
        for hour in range(3):
            device.hour(*[usual(hour)] * streams)
        assert len(asked) == times


def test_a_salvaged_outbox_goes_on_with_its_detectors(device):
    device.usual_hours(5)
    device.outbox.close()
    # The root page of the records; that of the detectors is another.
    with sqlite3.connect(device.path) as db:
        query = "SELECT rootpage FROM sqlite_master WHERE name='buf_age'"
        page = int(db.execute(query).fetchone()[0])
    db.close()
    data = bytearray(device.path.read_bytes())
    data[(page - 1) * 4096 : page * 4096] = b"\xff" * 4096
    device.path.write_bytes(bytes(data))
    device.restart()
    # The damage shows when the page is used; then the file is replaced.
    with pytest.raises(Unavailable):
        device.usual_hours(1)
    device.usual_hours(1)
    assert device.path.with_name("outbox.db.broken").exists()
    assert device.windows()[-1].looks == 6


def test_a_file_of_an_agent_without_detectors_is_salvaged_whole(device, tmp_path):
    device.usual_hours(2)
    device.outbox.close()
    with sqlite3.connect(device.path) as db:
        db.execute("DROP TABLE detector")
    db.close()
    target = sqlite3.connect(tmp_path / "target.db", isolation_level=None)
    for statement in outbox_file._SCHEMA.split(";"):
        target.execute(statement)
    found = salvage.copy_file(device.path, target)
    target.close()
    assert (found.rows, found.whole) == (2, True)


def test_the_threshold_follows_the_device_document():
    """Without one there it is that of every device."""
    orders = SimpleNamespace(document=None)
    outbox = SimpleNamespace(ln_threshold=DEFAULT_THRESHOLD)
    parts = SimpleNamespace(
        device="north-cam-1", address="mq.example:8883", topics=Topics("north"), facts=Facts(),
        orders=orders, outbox=outbox, budget=SimpleNamespace(follow=lambda settings: None),
    )  # fmt: skip
    supervisor = Supervisor(cast(Parts, parts))
    seen = []
    for version, settings in enumerate((Settings(drift_ln_threshold=12.5), Settings())):
        document = DeviceDocument("north", "north-cam-1", version, 1, settings=settings)
        orders.document = document
        supervisor._follow_settings()
        seen.append(outbox.ln_threshold)
    assert seen == [12.5, DEFAULT_THRESHOLD]
