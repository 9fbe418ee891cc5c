"""The drift view: what is said of a cohort, by devices or by rows, and when accuracy is shown."""

from dataclasses import replace

import pytest

from control_plane.drift.alarms import Alarm
from control_plane.drift.findings import FoundFeature
from control_plane.web import drift as view
from protocol.codec import encode
from protocol.histogram import CONFIDENCE_BINS
from protocol.members import Basis, Feature, Residual
from protocol.telemetry import DriftWindow, InferenceWindow, Record, stream_name
from tests.fakes.bundles import EDGES, reference_profile

SURE = (0,) * 18 + (40, 60)
"""Rows per bin of confidence."""
KNOTS = ((0.0, 0.0), (1.0, 1.0))


def profile(**more):
    """Of four features, its confidences calibrated."""
    return replace(reference_profile(4, 3), calibration=KNOTS, accuracy=0.97, **more)


def with_residual():
    feature = Feature("residual", EDGES, reference_profile(4, 3).features[0].counts)
    basis = Basis((0.0,) * 4, (1.0,) * 4, ((1.0, 0.0, 0.0, 0.0),))
    return profile(residual=Residual(feature, basis))


def put(api, device, bundle, kind, body, n):
    stream = stream_name(kind, bundle.manifest, bundle.profile_digest)
    record = Record(1, stream, 0, 0, n, {}, t0=0, t1=1)
    api.store.records.ingest(f"north-{device}", [(record, encode(body).decode())])


def spread(feature, rows):
    return tuple(count * rows // sum(feature.counts) for count in feature.counts)


def inputs(api, device, bundle, *, rows=600, moved=(), residual=None):
    """As the reference, but for features `moved`, whose rows are all in the fourth slot.
    `residual`: the slot of all residuals; as the reference where there is one and none is given."""
    features = bundle.profile.features
    single = tuple(rows * (slot == 4) for slot in range(len(features[0].counts)))
    counts = tuple(single if f.name in moved else spread(f, rows) for f in features)
    known = bundle.profile.residual
    errors = spread(known.feature, rows) if known else ()
    if known and residual is not None:
        errors = tuple(rows * (slot == residual) for slot in range(len(known.feature.counts)))
    body = DriftWindow(bundle.manifest, bundle.profile_digest, rows, counts, errors)
    put(api, device, bundle, "drift", body, rows)


def answers(api, device, bundle, *, labelled=0, correct=0):
    body = InferenceWindow(
        bundle.manifest,
        bundle.profile_digest,
        answers=sum(SURE),
        rows=sum(SURE),
        confidence=SURE,
        labelled=labelled,
        correct=correct,
    )
    assert len(SURE) == CONFIDENCE_BINS
    put(api, device, bundle, "inference", body, sum(SURE))


def alarm(bundle, subject, kind="peer", verdict="sensor broken"):
    about = "device" if kind in ("peer", "detector") else "cohort"
    found = (FoundFeature(1, "pixels_1", 1e-9, 0.6, ""),)
    return Alarm(
        "", 0, f"{about}/digits/{bundle.profile_digest[7:23]}/{subject}", "digits", bundle.digest,
        bundle.manifest, bundle.profile_digest, kind, subject, verdict, "said", found,
    )  # fmt: skip


@pytest.fixture
def fleet(api):
    for number in range(6):
        api.enrol(f"a-{number}", site="a")
    for number in range(3):
        api.enrol(f"b-{number}", site="b")
    return api


def shown(api, **asked):
    items = api.get("models/digits/drift", version="v1", **asked).json()["items"]
    return {each["cohort"]: each for each in items}


def test_from_five_devices_on_the_device_is_the_unit(fleet):
    bundle = fleet.pushed(profile=profile())
    for number in range(6):
        inputs(fleet, f"a-{number}", bundle)
    for number in range(3):
        inputs(fleet, f"b-{number}", bundle, moved=("pixels_1", "pixels_3"))
    cohorts = shown(fleet, by="site")
    a, b = cohorts["site=a"], cohorts["site=b"]
    assert (a["verdict"], a["unit"], a["devices"]) == ("no drift", "devices", 6)
    assert a["sentence"] == "no drift in cohort site=a: 6 devices, 3,600 rows"
    assert (b["verdict"], b["unit"], b["features_drifted"]) == ("cohort drifted", "rows", 2)
    said = f"{b['psi']:.2f}"
    assert b["sentence"] == (
        f"cohort site=b drifted: 2 of 4 features, PSI {said}, 3 devices"
    )  # fmt: skip


def test_one_device_does_not_call_the_other_five(fleet):
    bundle = fleet.pushed(profile=profile())
    for number in range(6):
        rows, moved = (600, ()) if number else (60_000, ("pixels_1",))
        inputs(fleet, f"a-{number}", bundle, rows=rows, moved=moved)
    assert shown(fleet)["all"]["verdict"] == "no drift"


def test_half_of_a_cohort_is_said_to_be_half(api):
    bundle = api.pushed(profile=profile())
    for number in range(14):
        api.enrol(f"a-{number:02d}", site="a")
        inputs(api, f"a-{number:02d}", bundle, moved=("pixels_2",) if number % 2 else ())
    (cohort,) = shown(api, by="site").values()
    assert cohort["verdict"] == "half of the cohort drifted"
    assert cohort["sentence"] == (
        "half of the cohort site=a drifted: 7 of 14 devices, pixels_2"
    )  # fmt: skip


def test_what_only_the_residual_shows_is_said_in_words(fleet):
    bundle = fleet.pushed(profile=with_residual())
    for number in range(6):
        inputs(fleet, f"a-{number}", bundle, residual=4)
    cohort = shown(fleet)["all"]
    assert (cohort["verdict"], cohort["features_drifted"]) == ("cohort drifted", 0)
    assert "0 of 4 features and how they go together" in cohort["sentence"]
    assert [each["name"] for each in cohort["worst"] if each["drifted"]] == ["residual"]


def test_windows_with_another_residual_are_left_out(fleet):
    bundle = fleet.pushed(profile=with_residual())
    for number in range(6):
        inputs(fleet, f"a-{number}", bundle)
    odd = DriftWindow(bundle.manifest, bundle.profile_digest, 9, (), (9,))
    put(fleet, "b-0", bundle, "drift", odd, 9)
    cohort = shown(fleet)["all"]
    assert (cohort["rows"], cohort["unfit_windows"]) == (3600, 1)


def test_accuracy_is_estimated_from_confidences(fleet):
    bundle = fleet.pushed(profile=profile())
    inputs(fleet, "a-0", bundle)
    answers(fleet, "a-0", bundle)
    cohort = shown(fleet)["all"]
    assert cohort["accuracy"] == {
        "estimated": pytest.approx(0.4 * 0.925 + 0.6 * 0.975),
        "reference": 0.97,
        "measured": None,
        "labelled": 0,
    }


def test_the_estimate_is_hidden_while_inputs_drift(fleet):
    bundle = fleet.pushed(profile=profile())
    inputs(fleet, "a-0", bundle, moved=("pixels_1",))
    inputs(fleet, "b-0", bundle, rows=20)
    for device in ("a-0", "b-0"):
        answers(fleet, device, bundle)
    cohorts = shown(fleet, by="site")
    assert cohorts["site=a"]["verdict"] == "cohort drifted"
    assert cohorts["site=b"]["verdict"] == "not enough data"
    assert cohorts["site=a"]["accuracy"]["estimated"] is None
    assert cohorts["site=b"]["accuracy"]["estimated"] is None


@pytest.mark.parametrize(
    "subject, kind, hidden",
    [
        ("north-a-0", "peer", True),
        ("north-b-0", "peer", False),
        ("site=a", "cohort", True),
        ("site=b", "cohort", False),
        ("not site", "cohort", False),
        ("sitemap=a", "cohort", True),
        ("all", "cohort", True),
    ],
)
def test_the_estimate_is_hidden_while_an_alarm_may_concern_the_cohort(fleet, subject, kind, hidden):
    bundle = fleet.pushed(profile=profile())
    inputs(fleet, "a-0", bundle)
    answers(fleet, "a-0", bundle)
    fleet.store.alarms.add(alarm(bundle, subject, kind))
    cohort = shown(fleet, by="site")["site=a"]
    assert cohort["verdict"] == "no drift"
    assert (cohort["accuracy"]["estimated"] is None) is hidden
    assert cohort["alarms"] == (["alarm-1"] if hidden else [])


def test_an_alarm_of_another_version_concerns_nobody_here(fleet):
    bundle, other = fleet.pushed(profile=profile()), fleet.pushed("v2")
    inputs(fleet, "a-0", bundle)
    fleet.store.alarms.add(alarm(other, "north-a-0"))
    assert shown(fleet)["all"]["alarms"] == []


def test_broken_sensors_are_named_with_their_devices(fleet):
    bundle = fleet.pushed(profile=profile())
    inputs(fleet, "a-0", bundle)
    fleet.store.alarms.add(alarm(bundle, "north-a-0"))
    fleet.store.alarms.add(alarm(bundle, "north-a-1", "detector", "device drifted"))
    cohort = shown(fleet)["all"]
    assert cohort["broken"] == [{"device": "north-a-0", "features": ["pixels_1"]}]
    assert cohort["alarms"] == ["alarm-1", "alarm-2"]


def test_labels_measure_accuracy_whatever_the_inputs_do(fleet):
    bundle = fleet.pushed(profile=profile())
    inputs(fleet, "a-0", bundle, moved=("pixels_1",))
    answers(fleet, "a-0", bundle, labelled=40, correct=31)
    answers(fleet, "a-1", bundle, labelled=40, correct=33)
    accuracy = shown(fleet)["all"]["accuracy"]
    assert (accuracy["measured"], accuracy["labelled"]) == (0.8, 80)
    assert accuracy["estimated"] is None


def test_a_model_of_which_nobody_knows_the_accuracy_says_nothing_of_it(fleet):
    bundle = fleet.pushed()
    inputs(fleet, "a-0", bundle)
    answers(fleet, "a-0", bundle)
    assert shown(fleet)["all"]["accuracy"] is None


def test_of_a_large_cohort_some_devices_are_looked_at_one_by_one(fleet, monkeypatch):
    monkeypatch.setattr(view, "MOST_TABLES", 5)
    bundle = fleet.pushed(profile=profile())
    for number in range(6):
        inputs(fleet, f"a-{number}", bundle)
    cohort = shown(fleet, by="site")["site=a"]
    assert (cohort["devices"], cohort["unit"], cohort["rows"]) == (6, "devices", 3600)
