"""Fleets in which something was found: broken sensors and a drifted device; a drifted site."""

from __future__ import annotations

from control_plane.drift.alarms import Alarm, snooze
from control_plane.drift.findings import FoundFeature
from control_plane.store.webhooks import Hook
from protocol.codec import encode
from protocol.identifiers import digest_of
from protocol.reported import ModelState
from protocol.telemetry import DriftWindow, Record, stream_name
from tests.control_plane.web.conftest import NOW_MS, Api
from tests.fakes.bundles import BundleOnDisk

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def alarming(api: Api) -> None:
    """Two alarms that are not resolved, one that is; a webhook with a dead notice."""
    bundle = api.approved("v2")
    for number in range(12):
        name = f"cam-{number:04}"
        api.enrol(name, site="leeds" if number % 2 else "york")
        api.report(name, digits=ModelState(serving=bundle.digest))
    found = [
        (
            "cam-0003",
            "sensor broken",
            "sensor broken on device cam-0003: pixels_0 (2 of the last 3 windows, 11 peers)",
            FoundFeature(0, "pixels_0", 3e-9, 0.61, ""),
        ),
        (
            "cam-0007",
            "device drifted",
            "device cam-0007 drifted: pixels_1, pixels_2, PSI .23",
            FoundFeature(1, "pixels_1", 18.2, 0.23, ""),
        ),
        (
            "cam-0009",
            "sensor broken",
            "sensor broken on device cam-0009: pixels_3 (3 of the last 3 windows, 11 peers)",
            FoundFeature(3, "pixels_3", 1e-12, 1.40, ""),
        ),
    ]
    for name, verdict, sentence, feature in found:
        api.clock[0] += HOUR_MS
        now_ms = api.clock[0]
        alarm = Alarm(
            "",
            0,
            f"device/digits/{bundle.profile_digest[7:23]}/north-{name}",
            "digits",
            bundle.digest,
            bundle.manifest,
            bundle.profile_digest,
            "detector" if verdict == "device drifted" else "peer",
            f"north-{name}",
            verdict,  # type: ignore[arg-type]  # a table
            sentence,
            (feature,),
            opened_ms=now_ms,
            changed_ms=now_ms,
            seen_ms=now_ms,
            by="drift watch",
        )
        kept = api.store.alarms.add(alarm)
        text = f'{{"alarm":"{kept.id}","verdict":"{verdict}","previous":""}}'
        api.store.alarms.add_record(kept.id, digest_of(text.encode()), text, now_ms)
        if name == "cam-0007":
            until_ms = now_ms + 14 * DAY_MS
            api.store.alarms.put(snooze(kept, until_ms, "ana", "moved indoors", now_ms))
    hook = Hook("webhook-77aa10fe", "https://8.8.4.4/alarms", ("alarms",), "ana", api.clock[0])
    api.store.webhooks.add(hook)
    api.store.webhooks.queue(hook.id, 41, "{}", api.clock[0])
    (notice,) = api.store.webhooks.due(api.clock[0], 1)
    api.store.webhooks.failed(notice.id, "it answered 503", None, api.clock[0])
    api.clock[0] += 2 * HOUR_MS


def drifting(api: Api) -> None:
    """Everything that one of three sites sees is in one slot; a third has hardly counted."""
    bundle = api.approved("v2")
    for number in range(14):
        name, site = f"cam-{number:04}", "york" if number > 11 else ("leeds", "hull")[number % 2]
        api.enrol(name, site=site)
        api.report(name, digits=ModelState(serving=bundle.digest))
        inputs(api, name, bundle, 20 if site == "york" else 600, 4 if site == "hull" else None)


def inputs(
    api: Api,
    device: str,
    bundle: BundleOnDisk,
    rows: int,
    slot: int | None = None,
    at_ms: int = NOW_MS - HOUR_MS,
) -> None:
    """A window of rows like the reference, or all of them in one slot of each feature."""
    features = bundle.profile.features
    spread = tuple(tuple(count * rows // 600 for count in f.counts) for f in features)
    single = tuple(tuple(rows * (n == slot) for n in range(len(f.counts))) for f in features)
    counts = spread if slot is None else single
    body = DriftWindow(bundle.manifest, bundle.profile_digest, rows, counts)
    stream = stream_name("drift", bundle.manifest, bundle.profile_digest)
    record = Record(at_ms, stream, 0, 0, rows, {}, t0=at_ms - HOUR_MS, t1=at_ms)
    api.store.records.ingest(f"north-{device}", [(record, encode(body).decode())])
