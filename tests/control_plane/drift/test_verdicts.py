"""What is said, and when."""

import pytest

from control_plane.drift import verdicts
from control_plane.drift.findings import Finding, FoundFeature
from protocol.identifiers import digest_of

DIGEST = digest_of(b"any")


@pytest.mark.parametrize(
    "fired, outlier, apart, psi, cohort_called, said",
    [
        (False, False, True, 0.9, False, None),
        (False, True, True, 0.0, False, "sensor broken"),
        (True, True, False, 0.0, False, "sensor broken"),
        (True, False, False, 0.9, False, None),
        (True, False, True, 0.02, False, None),
        (True, False, True, 0.03, False, "device drifted"),
        (True, False, None, 0.02, False, None),
        (True, False, None, 0.03, False, "device drifted"),
        (True, True, True, 0.9, True, None),
        (True, False, None, 0.9, True, None),
    ],
)
def test_what_is_said_of_a_device(fired, outlier, apart, psi, cohort_called, said):
    found = verdicts.of_device(
        fired=fired, outlier=outlier, apart=apart, psi=psi, cohort_called=cohort_called
    )
    assert found == said


@pytest.mark.parametrize(
    "fired, reporting, said",
    [
        (0, 0, None),
        (1, 1, None),
        (2, 2, None),
        (2, 3, None),
        (3, 3, "cohort drifted"),
        (1, 3, None),
        (3, 4, "cohort drifted"),
        (2, 4, "half of the cohort drifted"),
        (1, 4, "half of the cohort drifted"),
        (0, 4, None),
    ],
)
def test_what_is_said_of_a_small_cohort_by_its_detectors(fired, reporting, said):
    assert verdicts.of_detectors(fired, reporting) == said


def test_no_more_devices_fire_than_report():
    with pytest.raises(ValueError, match="3 of 2"):
        verdicts.of_detectors(3, 2)


def finding(kind, verdict, subject, features, statistic):
    shown = tuple(
        FoundFeature(index, name, 1e-9, psi, "") for index, (name, psi) in enumerate(features)
    )
    record = {"statistic": statistic}
    return Finding(
        kind, "digits", DIGEST, DIGEST, DIGEST, subject, verdict, "", shown, 1_000, record
    )


def slot(*names, devices=62):
    return {"features": [{"name": name, "devices": devices} for name in names]}


@pytest.mark.parametrize(
    "kind, verdict, subject, features, statistic, said",
    [
        (
            "peer", "sensor broken", "cam-0117", [("temperature", 0.61)],
            {"slots": [slot("temperature"), slot(), slot("flow", "temperature")]},
            "sensor broken on device cam-0117: temperature (2 of the last 3 windows, 61 peers)",
        ),
        (
            "detector", "device drifted", "cam-0117", [("temperature", 0.2), ("flow", 0.61)],
            {"features": [{"name": "temperature", "ln_e": 19.0}]},
            "device cam-0117 drifted: temperature, flow, PSI .61",
        ),
        (
            "cohort", "cohort drifted", "site=b",
            [("a", 0.38), ("b", 0.1), ("c", 0.1), ("residual", 0.1)],
            {"features": [{"devices": 11}, {"devices": 12}]},
            "cohort site=b drifted: a, b, c and 1 more, PSI .38, 12 devices",
        ),
        (
            "cohort", "half of the cohort drifted", "all", [("residual", 1.2)],
            {"devices": [{}, {}, {}, {}]},
            "half of the cohort all drifted: how features go together, PSI 1.20, 4 devices",
        ),
        (
            "part", "half of the cohort drifted", "site=b", [("temperature", 0.38)],
            {"features": [{"low": 9, "high": 12, "drifted": "low"}]},
            "half of the cohort site=b drifted: 9 of 21 devices, temperature",
        ),
    ],
)  # fmt: skip
def test_a_finding_is_told_in_a_sentence(kind, verdict, subject, features, statistic, said):
    assert verdicts.sentence(finding(kind, verdict, subject, features, statistic)) == said


@pytest.mark.parametrize(
    "devices, rows, said",
    [
        (3, 41, "not enough data: 3 devices, 41 rows"),
        (1, 1, "not enough data: 1 device, 1 row"),
        (0, 0, "not enough data: 0 devices, 0 rows"),
    ],
)
def test_what_is_too_little_is_counted(devices, rows, said):
    assert verdicts.not_enough(devices, rows) == said


@pytest.mark.parametrize(
    "value, text", [(0.384, ".38"), (1.2, "1.20"), (0.0, ".00"), (-0.012, "-.01"), (10.5, "10.50")]
)
def test_numbers_have_two_decimals_and_no_leading_zero(value, text):
    assert verdicts.number(value) == text
