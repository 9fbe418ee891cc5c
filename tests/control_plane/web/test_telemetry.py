from dataclasses import replace

import pytest

from control_plane.web.parts import PartHealth
from protocol.codec import encode
from protocol.identifiers import MAX_INT
from protocol.reported import ModelState
from protocol.telemetry import DriftWindow, InferenceWindow, Record, stream_name


def stored(api, device, bundle, kind, body, n, *, window=0, t0=0, t1=1):
    stream = stream_name(kind, bundle.manifest, bundle.profile_digest)
    record = Record(1, stream, window, window, n, {}, t0=t0, t1=t1)
    api.store.records.ingest(f"north-{device}", [(record, encode(body).decode())])


def answers(api, device, bundle, n, **more):
    body = InferenceWindow(bundle.manifest, bundle.profile_digest, answers=n)
    stored(api, device, bundle, "inference", body, n, **more)


def inputs(api, device, bundle, rows, slot, **more):
    """`rows` rows whose values all fall into one slot of every feature, or as the reference."""
    features = bundle.profile.features
    spread = [tuple(count * rows // bundle.profile.rows for count in f.counts) for f in features]
    single = [tuple(rows * (n == slot) for n in range(len(f.counts))) for f in features]
    counts = tuple(spread if slot is None else single)
    body = DriftWindow(bundle.manifest, bundle.profile_digest, rows, counts)
    stored(api, device, bundle, "drift", body, rows, **more)


@pytest.fixture
def fleet(api):
    for site in ("a", "b"):
        for number in (1, 2):
            api.enrol(f"{site}-{number}", site=site)
    api.enrol("c-1")
    return api


def test_totals_are_sums_over_stored_records(fleet):
    first, second = fleet.pushed("v1"), fleet.pushed("v2", weights_seed=1)
    answers(fleet, "a-1", first, 30)
    answers(fleet, "a-1", first, 12, window=1)
    answers(fleet, "b-1", second, 8)
    totals = fleet.get("records").json()
    assert totals["answers"] == 50
    assert totals["devices"] == [
        {"device": "north-a-1", "answers": 42},
        {"device": "north-b-1", "answers": 8},
    ]
    by_bundle = {each["version"]: each["answers"] for each in totals["bundles"]}
    assert by_bundle == {"v1": 42, "v2": 8}
    only = fleet.get("records", version="digits/v2").json()
    assert (only["answers"], [each["version"] for each in only["bundles"]]) == (8, ["v2"])


def test_one_device_shows_what_is_stored_and_what_is_missing(fleet):
    bundle = fleet.pushed()
    answers(fleet, "a-1", bundle, 30)
    answers(fleet, "a-1", bundle, 5, window=2)
    shown = fleet.get("devices/a-1/records").json()
    assert shown["stored"] == {"inference": 35}
    assert [(gap["lo"], gap["hi"], gap["lost"]) for gap in shown["missing"]] == [(1, 1, False)]


def test_drift_names_the_site_that_drifts_and_not_the_other(fleet):
    bundle = fleet.pushed()
    for device in ("a-1", "a-2"):
        inputs(fleet, device, bundle, 600, None)
    for device in ("b-1", "b-2"):
        inputs(fleet, device, bundle, 300, 4)
    shown = fleet.get("models/digits/drift", by="site", version="v1").json()
    cohorts = {each["cohort"]: each for each in shown["items"]}
    assert {name: each["verdict"] for name, each in cohorts.items()} == {
        "site=a": "no drift",
        "site=b": "cohort drifted",
        "not site": "not enough data",
    }
    drifted = cohorts["site=b"]
    assert (drifted["features_drifted"], drifted["features"]) == (4, 4)
    assert (drifted["rows"], drifted["devices"]) == (600, 2)
    assert drifted["psi"] == drifted["worst"][0]["psi"] > 0.02
    assert cohorts["not site"]["psi"] is None


def test_without_a_label_all_devices_are_one_cohort(fleet):
    bundle = fleet.pushed()
    inputs(fleet, "a-1", bundle, 600, None)
    (cohort,) = fleet.get("models/digits/drift", version="v1").json()["items"]
    assert (cohort["cohort"], cohort["verdict"]) == ("all", "no drift")


def test_drift_is_of_the_version_that_most_devices_run(fleet):
    first, second = fleet.pushed("v1"), fleet.pushed("v2", weights_seed=1)
    assert fleet.get("models/digits/drift").json() == {
        "model": "digits", "version": None, "items": [],
    }  # fmt: skip
    for name, bundle in (("a-1", first), ("b-1", second), ("b-2", second)):
        fleet.report(name, digits=ModelState(serving=bundle.digest))
    assert fleet.get("models/digits/drift").json()["version"] == "v2"


def test_drift_looks_at_a_time_range(fleet):
    bundle = fleet.pushed()
    inputs(fleet, "a-1", bundle, 600, None, t0=0, t1=1_000)
    inputs(fleet, "a-1", bundle, 600, 4, window=1, t0=50_000, t1=51_000)
    early = {"version": "v1", "until": "1970-01-01T00:00:10Z"}
    late = {"version": "v1", "since": "1970-01-01T00:00:10Z"}
    (cohort,) = fleet.get("models/digits/drift", **early).json()["items"]
    assert cohort["verdict"] == "no drift"
    (cohort,) = fleet.get("models/digits/drift", **late).json()["items"]
    assert cohort["verdict"] == "cohort drifted"


def test_events_are_read_on_from_the_last_one_seen(fleet):
    for number in range(3):
        topic = f"rollouts/digits-{number}"
        fleet.store.events.append(topic, "rollout.started", {"n": number}, fleet.clock[0])
    first = fleet.get("events", limit=2).json()
    assert [event["data"]["n"] for event in first["items"]] == [0, 1]
    rest = fleet.get("events", since=first["last_id"]).json()
    assert [event["data"]["n"] for event in rest["items"]] == [2]
    assert fleet.get("events", since=rest["last_id"]).json() == {
        "items": [], "last_id": rest["last_id"], "reset": False,
    }  # fmt: skip
    chosen = fleet.get("events", topic="rollouts/digits-0, rollouts/digits-2").json()
    assert [event["data"]["n"] for event in chosen["items"]] == [0, 2]


def test_events_say_when_some_are_no_longer_kept(fleet):
    for _ in range(2):
        fleet.store.events.append("rollouts/x", "rollout.started", {}, 1000)
    last = fleet.store.events.append("rollouts/x", "rollout.started", {}, fleet.clock[0])
    fleet.store.events.forget(2000)
    assert fleet.get("events", since=1).json()["reset"] is True
    assert fleet.get("events", since=last - 1).json()["reset"] is False
    assert fleet.get("events").json()["reset"] is False


def test_health_is_told_part_by_part_without_a_token(fleet):
    del fleet.client.headers["authorization"]
    assert fleet.get("/v1/health").json()["ready"] is True
    fleet.health["broker"] = PartHealth(False, "connection refused")
    shown = fleet.get("/v1/health")
    assert shown.status_code == 200
    assert shown.json()["ready"] is False
    assert shown.json()["broker"]["connected"] is False
    assert shown.json()["parts"]["broker"]["detail"] == "connection refused"


def test_large_counts_stay_exact(fleet):
    bundle = fleet.pushed()
    body = InferenceWindow(bundle.manifest, bundle.profile_digest, answers=MAX_INT - 1)
    stored(fleet, "a-1", bundle, "inference", replace(body), MAX_INT - 1)
    assert fleet.get("records").json()["answers"] == MAX_INT - 1
