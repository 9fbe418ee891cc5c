"""A spec says what it means, and errors name the field."""

from __future__ import annotations

import pytest

from control_plane.rollout.spec import (
    DEFAULT_ERROR,
    TRANSITIONS,
    Condition,
    WaveSpec,
    read_spec,
)
from protocol.errors import InvalidRequest

BASE = {"version": "digits/v2"}


def test_the_example_of_the_documentation():
    spec = read_spec(
        {
            "kind": "rollout",
            "model": "digits",
            "version": "v2",
            "to": "site in (leeds, york)",
            "waves": [
                {"devices": 12, "soak": "24h"},
                {"percent": 25, "soak": "24h", "per": "site"},
                {"percent": 100},
            ],
            "silent_after": "3h",
            "error_condition": {"bad": "> 10 %", "denominator": "activated", "min_completed": 10},
            "success_condition": {"healthy": ">= 95 %", "denominator": "activated"},
            "on_failure": "abort rollback",
            "deadline": "14d",
        }
    )
    assert (spec.model, spec.version) == ("digits", "v2")
    assert spec.waves == (
        WaveSpec(devices=12, soak_s=86_400),
        WaveSpec(percent=25, soak_s=86_400, per="site"),
        WaveSpec(percent=100),
    )
    assert spec.error_condition == DEFAULT_ERROR
    assert (spec.silent_after_s, spec.deadline_s) == (10_800, 14 * 86_400)
    assert (spec.soak_of(1), spec.soak_of(3)) == (86_400, 0)


@pytest.mark.parametrize(
    "waves, expected",
    [
        (["1", "3", "100%"], [(1, None), (3, None), (None, 100)]),
        ("1,3,100%", [(1, None), (3, None), (None, 100)]),
        ([1, "25 %", "all"], [(1, None), (None, 25), (None, 100)]),
        ([{"share": "12.5%"}, "100%"], [(None, 12.5), (None, 100)]),
        (None, [(None, 100)]),
    ],
)
def test_how_waves_may_be_written(waves, expected):
    spec = read_spec({**BASE, "waves": waves})
    assert [(w.devices, w.percent) for w in spec.waves] == expected


@pytest.mark.parametrize(
    "text, seconds",
    [("90", 90), (90, 90), ("30 s", 30), ("15 min", 900), ("6h", 21_600), ("14d", 1_209_600)],
)
def test_how_durations_may_be_written(text, seconds):
    assert read_spec({**BASE, "soak": text}).soak_s == seconds


@pytest.mark.parametrize(
    "body, code, names",
    [
        ({}, "OUT-S120", "version"),
        ({"version": "digits"}, "OUT-S120", "version"),
        ({"version": "digits/v2", "model": "letters"}, "OUT-S120", "model"),
        ({**BASE, "to": 5}, "OUT-S120", "to"),
        ({**BASE, "soak_time": "24h"}, "OUT-S120", "soak_time"),
        ({**BASE, "waves": []}, "OUT-S120", "waves"),
        ({**BASE, "waves": ["0", "100%"]}, "OUT-S120", "waves[1]"),
        ({**BASE, "waves": ["101%"]}, "OUT-S120", "waves[1]"),
        ({**BASE, "waves": [True]}, "OUT-S120", "waves[1]"),
        ({**BASE, "waves": ["5", "3", "100%"]}, "OUT-S120", "waves[2]"),
        ({**BASE, "waves": ["100%", "100%"]}, "OUT-S120", "waves[2]"),
        ({**BASE, "waves": [{"devices": 3, "percent": 5}]}, "OUT-S120", "waves[1]"),
        ({**BASE, "waves": [{"devices": "10%"}]}, "OUT-S120", "waves[1].devices"),
        ({**BASE, "waves": [{"percent": 5, "per": "Site"}]}, "OUT-S120", "waves[1].per"),
        ({**BASE, "waves": [{"devices": 3, "soak_time": "1h"}]}, "OUT-S120", "soak_time"),
        ({**BASE, "waves": [{"devices": 3, "soak": "long"}]}, "OUT-S120", "waves[1].soak"),
        ({**BASE, "soak": "-5"}, "OUT-S120", "soak"),
        ({**BASE, "soak": True}, "OUT-S120", "soak"),
        ({**BASE, "silent_after": 0}, "OUT-S120", "silent_after"),
        ({**BASE, "deadline": "900d"}, "OUT-S120", "deadline"),
        ({**BASE, "on_failure": "hope"}, "OUT-S120", "on_failure"),
        ({**BASE, "error_condition": {"bad": "10 %"}}, "OUT-S121", "error_condition.bad"),
        ({**BASE, "error_condition": {"bad": "> 110 %"}}, "OUT-S121", "error_condition.bad"),
        ({**BASE, "error_condition": {"bad": "< 10 %"}}, "OUT-S121", "error_condition.bad"),
        ({**BASE, "error_condition": 5}, "OUT-S121", "error_condition"),
        (
            {**BASE, "error_condition": {"bad": "> 1 %", "denominator": "completed"}},
            "OUT-S121",
            "error_condition.denominator",
        ),
        (
            {**BASE, "error_condition": {"bad": "> 1 %", "min_completed": 0}},
            "OUT-S120",
            "min_completed",
        ),
        (
            {**BASE, "success_condition": {"healthy": "< 5 %"}},
            "OUT-S121",
            "success_condition.healthy",
        ),
        (
            {**BASE, "success_condition": {"healthy": "> 5 %", "phases": ["failed"]}},
            "OUT-S120",
            "success_condition.phases",
        ),
    ],
)
def test_errors_name_the_field(body, code, names):
    with pytest.raises(InvalidRequest) as caught:
        read_spec(body)
    assert caught.value.code == code
    assert names in caught.value.why


def test_an_unknown_field_suggests_the_right_one():
    with pytest.raises(InvalidRequest) as caught:
        read_spec({**BASE, "waves": [{"devices": 3, "soak_time": "24h"}]})
    assert caught.value.do == "the field is called soak"


@pytest.mark.parametrize(
    "operator, percent, part, whole, holds",
    [
        (">", 10, 1, 10, False),
        (">", 10, 2, 10, True),
        (">=", 95, 19, 20, True),
        (">=", 95, 94, 99, False),
        (">", 0, 1, 1000, True),
        (">=", 0.1, 1, 1000, True),
    ],
)
def test_shares_compare_without_rounding(operator, percent, part, whole, holds):
    assert Condition(("failed",), operator, percent).holds(part, whole) == holds


def test_what_has_ended_stays_ended():
    assert TRANSITIONS["completed"] == TRANSITIONS["aborted"] == frozenset()
    assert set().union(*TRANSITIONS.values()) <= set(TRANSITIONS)
