"""`outrider drift show`: one line per cohort, and below it what a line has no room for."""

import json

import pytest

from control_plane.cli import drift_showing
from tests.control_plane.cli.drift_scenes import HOUR_MS, inputs
from tests.control_plane.web.conftest import NOW_MS


def item(**more):
    known = {
        "cohort": "site=a", "verdict": "no drift", "devices": 12, "rows": 84_113, "psi": 0.004,
        "features_drifted": 0, "features": 64, "accuracy": None, "broken": [], "alarms": [],
        "unfit_windows": 0, "sentence": "said",
    }  # fmt: skip
    return known | more


def accuracy(estimated=None, reference=None, measured=None, labelled=0):
    return {
        "estimated": estimated, "reference": reference, "measured": measured, "labelled": labelled,
    }  # fmt: skip


@pytest.mark.parametrize(
    "more, row",
    [
        ({}, ("site=a", "no drift", "12", "84,113", "0 of 64", "-", "-")),
        (
            {"verdict": "cohort drifted", "features_drifted": 41, "psi": 0.384},
            ("site=a", "cohort drifted", "12", "84,113", "41 of 64", ".38", "-"),
        ),
        (
            {"verdict": "not enough data", "psi": None, "devices": 1, "rows": 41},
            ("site=a", "not enough data", "1", "41", "-", "-", "-"),
        ),
    ],
)
def test_a_cohort_is_one_row(more, row):
    assert drift_showing.row(item(**more)) == row


@pytest.mark.parametrize(
    "more, said",
    [
        ({"accuracy": accuracy(estimated=0.931)}, "about .93"),
        (
            {"accuracy": accuracy(estimated=0.931, measured=0.9, labelled=1203)},
            ".90 of 1,203 labels",
        ),
        ({"accuracy": accuracy(measured=1.0, labelled=1)}, "1.00 of 1 label"),
        (
            {"accuracy": accuracy(reference=0.97), "verdict": "cohort drifted"},
            "not shown: inputs drifted",
        ),
        (
            {"accuracy": accuracy(reference=0.97), "verdict": "half of the cohort drifted"},
            "not shown: inputs drifted",
        ),
        ({"accuracy": accuracy(reference=0.97), "alarms": ["alarm-1"]}, "not shown: alarm"),
        ({"accuracy": accuracy(reference=0.97)}, "-"),
    ],
)  # fmt: skip
def test_accuracy_is_shown_only_where_it_means_something(more, said):
    assert drift_showing.accuracy(item(**more)) == said


def test_below_the_table_stands_what_has_no_room_in_it():
    half = item(
        cohort="site=b", verdict="half of the cohort drifted", alarms=["alarm-10", "alarm-9"],
        sentence="half of the cohort site=b drifted: 12 of 24 devices, flow", unfit_windows=1,
    )  # fmt: skip
    first = item(
        broken=[{"device": "north-a-1", "features": ["f1", "f2", "f3", "f4"]}], alarms=["alarm-9"]
    )
    assert list(drift_showing.notes([first, half])) == [
        "sensor broken on device north-a-1: f1, f2, f3",
        "half of the cohort site=b drifted: 12 of 24 devices, flow",
        "site=b: 1 window of other bins left out",
        "alarms: alarm-9, alarm-10",
    ]


def test_cohorts_are_a_table_in_80_columns(api, outrider):
    bundle = api.pushed()
    for name, site in (("a-1", "a"), ("b-1", "b")):
        api.enrol(name, site=site)
    inputs(api, "a-1", bundle, 600, None)
    inputs(api, "b-1", bundle, 600, 4)
    shown = outrider("drift", "show", "digits", "--by", "site", "--version", "v1")
    assert (shown.exit, shown.err) == (0, "")
    title, a, b = shown.out.splitlines()
    assert title.split() == [name.removeprefix(">") for name in drift_showing.COLUMNS]
    assert a.split() == ["site=a", "no", "drift", "1", "600", "0", "of", "4", "-", "-"]
    assert b.split()[:3] == ["site=b", "cohort", "drifted"]
    assert max(map(len, shown.out.splitlines())) <= 80


@pytest.mark.parametrize("since, rows", [("24h", 600), ("3d", 1200), ("2000-01-01", 1200)])
def test_windows_of_the_last_day_count_unless_asked_for_more(api, outrider, since, rows):
    bundle = api.pushed()
    api.enrol("a-1", site="a")
    inputs(api, "a-1", bundle, 600, None)
    inputs(api, "a-1", bundle, 600, None, NOW_MS - 48 * HOUR_MS)
    asked = outrider("drift", "show", "digits", "--version", "v1", "--since", since, "--json")
    (cohort,) = json.loads(asked.out)["items"]
    assert cohort["rows"] == rows


def test_a_model_that_no_device_runs_says_so(api, outrider):
    api.pushed()
    assert outrider("drift", "show", "digits").out == "no device runs digits\n"


def test_a_moment_that_is_none_is_refused_with_the_forms_there_are(api, outrider):
    refused = outrider("drift", "show", "digits", "--since", "yesterday")
    assert (refused.exit, refused.out) == (2, "")
    assert "--since yesterday" in refused.err
    assert "24h" in refused.err
