"""A spec says what it means, and errors name the field.

Long because every field of a rollout file has its good and its bad cases here.
"""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.rollout.conditions import UNITS
from control_plane.rollout.sizes import WAVE_FIELDS
from control_plane.rollout.spec import (
    FIELDS,
    NO_SCORES,
    TRANSITIONS,
    Condition,
    Gates,
    Holdback,
    RolloutSpec,
    ShadowSpec,
    WaveSpec,
    read_spec,
)
from control_plane.store.table import dump, load
from protocol.device import TransferWindow
from protocol.errors import InvalidRequest

BASE = {"version": "digits/v2"}
BAD = {"bad": "> 10 %", "denominator": "activated", "min_completed": 10}
GOOD = {"healthy": ">= 95 %", "denominator": "activated", "min_completed": 10}
WHOLE = {
    "kind": "rollout",
    "model": "digits",
    "version": "v2",
    "to": "site in (leeds, york)",
    "waves": [
        {"devices": ["cam-1", "cam-2"], "soak": "12h"},
        {"devices": 12, "soak": "24h", "exclude": ["press-7"]},
        {"percent": 25, "soak": "24h", "per": "site", "approve": True},
        {"percent": 100},
    ],
    "soak": "1h",
    "in_progress_timeout": "6h",
    "silent_after": "3h",
    "maintenance_windows": ["01:00-05:00", "22:30-02:00"],
    "plan_max_age": "2d",
    "error_condition": BAD,
    "success_condition": GOOD,
    "gates": {"error_rate": {"ratio": 1.5}, "confidence": {"sd": 0.1}, "class_mix": "off"},
    "failure_limit": "5 %",
    "holdback": "5 %",
    "shadow": {"rows": 500, "agreement": ">= 98 %"},
    "on_failure": "abort keep",
    "on_insufficient": "pause",
    "insufficient_after": "3d",
    "unproven": "proceed",
    "deadline": "14d",
    "exposures": ["1h", "6h"],
    "season": "7d",
    "supersedes": "digits-7",
}


def test_the_example_with_every_field():
    assert set(WHOLE) == set(FIELDS)
    assert read_spec(WHOLE) == RolloutSpec(
        model="digits",
        version="v2",
        to="site in (leeds, york)",
        waves=(
            WaveSpec(names=("cam-1", "cam-2"), soak_s=43_200),
            WaveSpec(devices=12, soak_s=86_400, exclude=("press-7",)),
            WaveSpec(percent=25, soak_s=86_400, per="site", approve=True),
            WaveSpec(percent=100),
        ),
        soak_s=3_600,
        in_progress_timeout_s=21_600,
        silent_after_s=10_800,
        maintenance_windows=(TransferWindow(60, 300), TransferWindow(1350, 120)),
        plan_max_age_s=172_800,
        error_condition=Condition(("failed", "rolled_back", "silent"), ">", 10),
        success_condition=Condition(("healthy",), ">=", 95),
        gates=Gates(error_rate=1.5, confidence=0.1, class_mix=None),
        failure_limit=0.05,
        holdback=Holdback(percent=5),
        shadow=ShadowSpec(500, 0.98),
        on_failure="abort keep",
        on_insufficient="pause",
        insufficient_after_s=3 * 86_400,
        unproven="proceed",
        deadline_s=14 * 86_400,
        exposures_s=(3_600, 21_600),
        season_s=7 * 86_400,
        supersedes="digits-7",
    )


def test_what_is_not_said_is_as_documented():
    assert read_spec(BASE) == RolloutSpec("digits", "v2")
    spec = read_spec(BASE)
    assert (spec.to, spec.waves, spec.soak_s) == ("all", (), None)
    assert (spec.error_condition, spec.success_condition) == (None, None)
    assert spec.gates == Gates(1.2, 1.2, 1.15, 1.2, 0.05, 1.0)
    assert (spec.failure_limit, spec.silent_after_s) == (0.02, 10_800)
    assert (spec.on_failure, spec.on_insufficient, spec.unproven) == (
        "abort rollback", "wait", "ask",
    )  # fmt: skip
    assert (spec.exposures_s, spec.season_s) == ((21_600, 86_400), 86_400)


def test_a_field_that_says_nothing_is_as_if_it_were_left_out():
    assert read_spec({**dict.fromkeys(FIELDS), **BASE}) == read_spec(BASE)


@pytest.mark.parametrize("body", [BASE, WHOLE], ids=["defaults", "every field"])
def test_a_stored_spec_is_read_back_as_it_was(body):
    spec = read_spec(body)
    assert load(dump(spec), RolloutSpec) == spec


def test_a_spec_that_an_older_version_stored_can_be_read():
    stored = (
        '{"deadline_s":60.0,"error_condition":{"operator":">","percent":20.0,"phases":["failed"]},'
        '"model":"digits","on_failure":"pause","soak_s":5.0,"version":"v2",'
        '"waves":[{"devices":3},{"percent":100.0}]}'
    )
    spec = load(stored, RolloutSpec)
    assert spec.waves == (WaveSpec(devices=3), WaveSpec(percent=100))
    assert (spec.soak_of(1), spec.deadline_s, spec.on_failure) == (5, 60, "pause")
    assert spec.error_condition == Condition(("failed",), ">", 20, "activated", 10)


def test_a_soak_of_a_wave_wins_over_that_of_the_rollout():
    spec = read_spec({**BASE, "soak": "1h", "waves": [{"devices": 1, "soak": 0}, "100%"]})
    assert (spec.soak_of(1), spec.soak_of(2)) == (0, 3_600)


# --- values that may be written in several ways ---------------------------------------------------


@pytest.mark.parametrize(
    "waves, expected",
    [
        (["1", "3", "100%"], [(1, None), (3, None), (None, 100)]),
        ("1,3,100%", [(1, None), (3, None), (None, 100)]),
        ([1, "25 %", "all"], [(1, None), (None, 25), (None, 100)]),
        ([{"share": "12.5%"}, "100%"], [(None, 12.5), (None, 100)]),
        ([{"percent": 12.5}, {"percent": "100 %"}], [(None, 12.5), (None, 100)]),
        (None, []),
    ],
)
def test_how_waves_may_be_written(waves, expected):
    spec = read_spec({**BASE, "waves": waves})
    assert [(w.devices, w.percent) for w in spec.waves] == expected


@pytest.mark.parametrize(
    "text, seconds",
    [
        ("90", 90),
        (90, 90),
        (0.5, 0.5),
        ("30 s", 30),
        ("15 min", 900),
        ("15m", 900),
        ("6h", 21_600),
        ("1.5 h", 5_400),
        ("14d", 1_209_600),
        (0, 0),
    ],
)
def test_how_durations_may_be_written(text, seconds):
    assert read_spec({**BASE, "soak": text}).soak_s == seconds


@pytest.mark.parametrize(
    "gates, expected",
    [
        ("off", NO_SCORES),
        (False, NO_SCORES),  # what YAML makes of the bare word
        ("on", Gates()),
        ({}, Gates()),
        ({"latency": False}, Gates(latency=None)),
        ({"latency": "off"}, Gates(latency=None)),
        ({"latency": True}, Gates()),
        ({"latency": {"ratio": 1.3}}, Gates(latency=1.3)),
        ({"error_rate": {"ratio": 2}}, Gates(error_rate=2)),
        ({"out_of_contract": {"ratio": 1.5}}, Gates(out_of_contract=1.5)),
        ({"class_mix": {"ratio": 1.4}}, Gates(class_mix=1.4)),
        ({"confidence": {"sd": 0.2}}, Gates(confidence=0.2)),
        ({"accuracy": {"points": 2}}, Gates(accuracy=2)),
        ({"drift": {"psi": 0.2}}, Gates(drift=0.2)),
        ({"drift": "on"}, Gates(drift=0.1)),
        ({"drift": "off"}, Gates()),
    ],
)
def test_how_gates_may_be_written(gates, expected):
    assert read_spec({**BASE, "gates": gates}).gates == expected


def test_every_score_has_a_margin_with_a_unit():
    assert set(UNITS) == {each.name for each in dataclasses.fields(Gates)}
    assert NO_SCORES.off
    assert not Gates(None, None, None, None, None, 1.0).off


@pytest.mark.parametrize(
    "text, expected",
    [
        ("5 %", Holdback(percent=5)),
        (20, Holdback(devices=20)),
        ("20", Holdback(devices=20)),
        ("default", Holdback()),
        (True, Holdback()),
        ("off", None),
        (False, None),
        (None, None),
    ],
)
def test_how_a_holdback_may_be_written(text, expected):
    assert read_spec({**BASE, "holdback": text}).holdback == expected


@pytest.mark.parametrize(
    "shadow, expected",
    [
        ({}, ShadowSpec()),
        (True, ShadowSpec(200, 0.95)),
        ({"rows": 50}, ShadowSpec(50, 0.95)),
        ({"agreement": ">= 99.5 %"}, ShadowSpec(200, 0.995)),
        ("off", None),
        (False, None),
    ],
)
def test_how_shadowing_may_be_written(shadow, expected):
    assert read_spec({**BASE, "shadow": shadow}).shadow == expected


@pytest.mark.parametrize(
    "windows, expected",
    [
        (["01:00-05:00"], [(60, 300)]),
        ("01:00-05:00", [(60, 300)]),
        (["22:30-02:00"], [(1350, 120)]),
        (["18:00-24:00", "00:00 - 06:30"], [(1080, 1440), (0, 390)]),
    ],
)
def test_how_maintenance_windows_may_be_written(windows, expected):
    found = read_spec({**BASE, "maintenance_windows": windows}).maintenance_windows
    assert found == tuple(TransferWindow(*each) for each in expected)


def test_a_condition_may_count_other_phases():
    spec = read_spec(
        {
            **BASE,
            "error_condition": {**BAD, "phases": ["failed", "rolled back", "refused"]},
            "success_condition": {**GOOD, "phases": "healthy, unexercised"},
        }
    )
    assert spec.error_condition is not None
    assert spec.success_condition is not None
    assert spec.error_condition.phases == ("failed", "rolled_back", "refused")
    assert spec.success_condition.phases == ("healthy", "unexercised")


# --- what is refused ------------------------------------------------------------------------------


def without(condition, name):
    return {key: value for key, value in condition.items() if key != name}


REFUSED = [
    ({}, "OUT-S120", "version"),
    ({"version": "digits"}, "OUT-S120", "version"),
    ({"version": 2}, "OUT-S120", "version"),
    ({"version": "digits/v2", "model": "letters"}, "OUT-S120", "model"),
    ({"version": "digits/v2", "model": 7}, "OUT-S120", "model"),
    ({**BASE, "kind": "fleet"}, "OUT-S120", "kind"),
    ({**BASE, "to": 5}, "OUT-S120", "to"),
    ({**BASE, "to": " "}, "OUT-S120", "to"),
    ({**BASE, "soak_time": "24h"}, "OUT-S120", "unknown field soak_time"),
    # waves
    ({**BASE, "waves": []}, "OUT-S120", "waves"),
    ({**BASE, "waves": 5}, "OUT-S120", "waves"),
    ({**BASE, "waves": ["1"] * 33}, "OUT-S120", "waves"),
    ({**BASE, "waves": ["0", "100%"]}, "OUT-S120", "waves[1]"),
    ({**BASE, "waves": ["101%"]}, "OUT-S120", "waves[1]"),
    ({**BASE, "waves": [True]}, "OUT-S120", "waves[1]"),
    ({**BASE, "waves": [None]}, "OUT-S120", "waves[1]"),
    ({**BASE, "waves": ["5", "3", "100%"]}, "OUT-S120", "waves[2]"),
    ({**BASE, "waves": ["100%", "100%"]}, "OUT-S120", "waves[2]"),
    ({**BASE, "waves": [{"devices": 3, "percent": 5}]}, "OUT-S120", "waves[1]"),
    ({**BASE, "waves": [{"soak": "1h"}]}, "OUT-S120", "waves[1]"),
    ({**BASE, "waves": [{"devices": "10%"}]}, "OUT-S120", "waves[1].devices"),
    ({**BASE, "waves": [{"devices": []}]}, "OUT-S120", "waves[1].devices"),
    ({**BASE, "waves": [{"devices": ["cam-1", "Cam 2"]}]}, "OUT-S120", "waves[1].devices[2]"),
    ({**BASE, "waves": [{"devices": ["cam-1", 2]}]}, "OUT-S120", "waves[1].devices[2]"),
    ({**BASE, "waves": [{"devices": ["cam-1", "cam-1"]}]}, "OUT-S120", "waves[1].devices"),
    (
        {**BASE, "waves": [{"devices": [f"cam-{n}" for n in range(201)]}]},
        "OUT-S120",
        "waves[1].devices",
    ),
    (
        {**BASE, "waves": [{"devices": [f"{x}-{n}" for n in range(150)]} for x in "ab"]},
        "OUT-S120",
        "waves name at most 200",
    ),
    ({**BASE, "waves": [{"percent": "5"}]}, "OUT-S120", "waves[1].percent"),
    ({**BASE, "waves": [{"percent": 0}]}, "OUT-S120", "waves[1].percent"),
    ({**BASE, "waves": [{"share": 101}]}, "OUT-S120", "waves[1].share"),
    ({**BASE, "waves": [{"percent": 5, "per": "Site"}]}, "OUT-S120", "waves[1].per"),
    ({**BASE, "waves": [{"percent": 5, "per": 5}]}, "OUT-S120", "waves[1].per"),
    ({**BASE, "waves": [{"devices": 5, "per": "site"}]}, "OUT-S120", "waves[1].per"),
    (
        {**BASE, "waves": [{"percent": 5, "per": "site"}, {"percent": 9, "per": "line"}]},
        "OUT-S120",
        "waves",
    ),
    ({**BASE, "waves": [{"devices": 3, "soak_time": "1h"}]}, "OUT-S120", "waves[1].soak_time"),
    ({**BASE, "waves": [{"devices": 3, "soak": "long"}]}, "OUT-S120", "waves[1].soak"),
    ({**BASE, "waves": [{"devices": 3, "approve": "yes"}]}, "OUT-S120", "waves[1].approve"),
    ({**BASE, "waves": [{"devices": 3, "approve": 1}]}, "OUT-S120", "waves[1].approve"),
    (
        {**BASE, "waves": [{"devices": 3, "exclude": "cam-1"}, "all"]},
        "OUT-S120",
        "waves[1].exclude",
    ),
    ({**BASE, "waves": [{"percent": 100, "exclude": ["a"]}]}, "OUT-S120", "waves[1].exclude"),
    (
        {**BASE, "waves": [{"devices": 3}, {"devices": 9, "exclude": ["a"]}, "all"]},
        "OUT-S120",
        "waves[2].exclude has a",
    ),
    (
        {**BASE, "waves": [{"devices": ["b"], "exclude": ["a"]}, "all"]},
        "OUT-S120",
        "waves[1].exclude",
    ),
    (
        {**BASE, "waves": [{"devices": ["a"]}, {"devices": 9, "exclude": ["a"]}, "all"]},
        "OUT-S120",
        "waves[2].exclude has a",
    ),
    # durations
    ({**BASE, "soak": "-5"}, "OUT-S120", "soak"),
    ({**BASE, "soak": True}, "OUT-S120", "soak"),
    ({**BASE, "soak": "1 week"}, "OUT-S120", "soak"),
    ({**BASE, "in_progress_timeout": 0}, "OUT-S120", "in_progress_timeout"),
    ({**BASE, "silent_after": 0}, "OUT-S120", "silent_after"),
    ({**BASE, "silent_after": "often"}, "OUT-S120", "silent_after"),
    ({**BASE, "plan_max_age": "0 s"}, "OUT-S120", "plan_max_age"),
    ({**BASE, "insufficient_after": 0}, "OUT-S120", "insufficient_after"),
    ({**BASE, "deadline": "900d"}, "OUT-S120", "deadline"),
    ({**BASE, "deadline": 0}, "OUT-S120", "deadline"),
    ({**BASE, "season": 0}, "OUT-S120", "season"),
    ({**BASE, "exposures": []}, "OUT-S120", "exposures"),
    ({**BASE, "exposures": ["1h", "soon"]}, "OUT-S120", "exposures[2]"),
    ({**BASE, "exposures": ["6h", "6h"]}, "OUT-S120", "exposures"),
    ({**BASE, "exposures": [1, 2, 3, 4, 5]}, "OUT-S120", "exposures"),
    ({**BASE, "exposures": ["48h"]}, "OUT-S120", "exposures"),
    # windows
    ({**BASE, "maintenance_windows": []}, "OUT-S120", "maintenance_windows"),
    ({**BASE, "maintenance_windows": ["at night"]}, "OUT-S120", "maintenance_windows[1]"),
    ({**BASE, "maintenance_windows": ["1:00-5:00", "5-6"]}, "OUT-S120", "maintenance_windows[2]"),
    ({**BASE, "maintenance_windows": ["05:00-05:00"]}, "OUT-S120", "maintenance_windows[1]"),
    ({**BASE, "maintenance_windows": ["00:00-24:00"]}, "OUT-S120", "maintenance_windows[1]"),
    ({**BASE, "maintenance_windows": ["01:00-25:00"]}, "OUT-S120", "maintenance_windows[1]"),
    ({**BASE, "maintenance_windows": ["01:60-02:00"]}, "OUT-S120", "maintenance_windows[1]"),
    # choices
    ({**BASE, "on_failure": "hope"}, "OUT-S120", "on_failure"),
    ({**BASE, "on_failure": "abort"}, "OUT-S120", "on_failure"),
    ({**BASE, "on_insufficient": "abort rollback"}, "OUT-S120", "on_insufficient"),
    ({**BASE, "unproven": "wait"}, "OUT-S120", "unproven"),
    # shares and limits
    ({**BASE, "failure_limit": 2}, "OUT-S120", "failure_limit"),
    ({**BASE, "failure_limit": 0.02}, "OUT-S120", "failure_limit"),
    ({**BASE, "failure_limit": "0 %"}, "OUT-S120", "failure_limit"),
    ({**BASE, "failure_limit": "51 %"}, "OUT-S120", "failure_limit"),
    ({**BASE, "holdback": "some"}, "OUT-S120", "holdback"),
    ({**BASE, "holdback": 0}, "OUT-S120", "holdback"),
    ({**BASE, "holdback": "60 %"}, "OUT-S120", "holdback"),
    # shadow
    ({**BASE, "shadow": "first"}, "OUT-S120", "shadow"),
    ({**BASE, "shadow": {"row": 5}}, "OUT-S120", "shadow.row"),
    ({**BASE, "shadow": {"rows": 0}}, "OUT-S120", "shadow.rows"),
    ({**BASE, "shadow": {"rows": "many"}}, "OUT-S120", "shadow.rows"),
    ({**BASE, "shadow": {"agreement": "95 %"}}, "OUT-S121", "shadow.agreement"),
    ({**BASE, "shadow": {"agreement": "> 95 %"}}, "OUT-S121", "shadow.agreement"),
    ({**BASE, "shadow": {"agreement": "<= 95 %"}}, "OUT-S121", "shadow.agreement"),
    # gates
    ({**BASE, "gates": 5}, "OUT-S120", "gates"),
    ({**BASE, "gates": {"errors": {"ratio": 2}}}, "OUT-S120", "gates.errors"),
    ({**BASE, "gates": {"latency": 1.2}}, "OUT-S120", "gates.latency"),
    ({**BASE, "gates": {"latency": {"sd": 0.1}}}, "OUT-S120", "gates.latency.sd"),
    ({**BASE, "gates": {"latency": {}}}, "OUT-S120", "gates.latency.ratio"),
    ({**BASE, "gates": {"latency": {"ratio": 1}}}, "OUT-S120", "gates.latency.ratio"),
    ({**BASE, "gates": {"latency": {"ratio": "1.2"}}}, "OUT-S120", "gates.latency.ratio"),
    ({**BASE, "gates": {"latency": {"ratio": float("nan")}}}, "OUT-S120", "gates.latency.ratio"),
    ({**BASE, "gates": {"confidence": {"sd": 0}}}, "OUT-S120", "gates.confidence.sd"),
    ({**BASE, "gates": {"accuracy": {"points": 200}}}, "OUT-S120", "gates.accuracy.points"),
    ({**BASE, "gates": {"drift": {"psi": 0}}}, "OUT-S120", "gates.drift.psi"),
    ({**BASE, "gates": {"drift": 0.1}}, "OUT-S120", "gates.drift"),
    # conditions
    ({**BASE, "error_condition": 5}, "OUT-S121", "error_condition"),
    ({**BASE, "error_condition": "> 10 %"}, "OUT-S121", "error_condition"),
    ({**BASE, "error_condition": without(BAD, "bad")}, "OUT-S121", "error_condition"),
    ({**BASE, "error_condition": without(BAD, "denominator")}, "OUT-S121", "error_condition"),
    ({**BASE, "error_condition": without(BAD, "min_completed")}, "OUT-S121", "error_condition"),
    ({**BASE, "error_condition": {**BAD, "bad": "10 %"}}, "OUT-S121", "error_condition.bad"),
    ({**BASE, "error_condition": {**BAD, "bad": "> 110 %"}}, "OUT-S121", "error_condition.bad"),
    ({**BASE, "error_condition": {**BAD, "bad": "< 10 %"}}, "OUT-S121", "error_condition.bad"),
    (
        {**BASE, "error_condition": {**BAD, "denominator": "completed"}},
        "OUT-S121",
        "error_condition.denominator",
    ),
    (
        {**BASE, "error_condition": {**BAD, "min_completed": 0}},
        "OUT-S120",
        "error_condition.min_completed",
    ),
    (
        {**BASE, "error_condition": {**BAD, "phases": ["healthy"]}},
        "OUT-S120",
        "error_condition.phases",
    ),
    (
        {**BASE, "success_condition": {**GOOD, "healthy": "< 5 %"}},
        "OUT-S121",
        "success_condition.healthy",
    ),
    (
        {**BASE, "success_condition": {**GOOD, "phases": ["failed"]}},
        "OUT-S120",
        "success_condition.phases",
    ),
    (
        {**BASE, "success_condition": {**GOOD, "phases": ["healthy", "healthy"]}},
        "OUT-S120",
        "success_condition.phases",
    ),
    ({**BASE, "success_condition": {**GOOD, "phases": []}}, "OUT-S120", "success_condition.phases"),
    # supersedes
    ({**BASE, "supersedes": 7}, "OUT-S120", "supersedes"),
    ({**BASE, "supersedes": "letters-7"}, "OUT-S120", "supersedes"),
    ({**BASE, "supersedes": "digits"}, "OUT-S120", "supersedes"),
]


@pytest.mark.parametrize(
    "body, code, names", REFUSED, ids=[f"{n} {c[2]}" for n, c in enumerate(REFUSED)]
)
def test_errors_name_the_field(body, code, names):
    with pytest.raises(InvalidRequest) as caught:
        read_spec(body)
    assert caught.value.code == code
    assert caught.value.why.removeprefix("unknown field ").startswith(
        names.removeprefix("unknown field ")
    )


def test_every_field_has_a_case_that_is_refused():
    refused = {name.split(".")[0].split("[")[0].split()[-1] for _, _, name in REFUSED}
    assert set(FIELDS) <= refused | {"waves"}
    in_waves = {name.split(".")[1] for _, _, name in REFUSED if name.startswith("waves[1].")}
    assert {word.split("[")[0] for word in in_waves} >= set(WAVE_FIELDS)


@pytest.mark.parametrize(
    "body, do",
    [
        ({**BASE, "waves": [{"devices": 3, "soak_time": "24h"}]}, "the field is called soak"),
        ({**BASE, "maintenance_window": []}, "the field is called maintenance_windows"),
        ({**BASE, "hold_back": 5}, "the field is called holdback"),
        ({**BASE, "gates": {"class_mixture": "off"}}, "the field is called class_mix"),
        ({**BASE, "gates": {"confidence": {"std": 1}}}, "the field is called sd"),
        ({**BASE, "gates": {"latency": 1.2}}, "write latency: {ratio: 1.15}"),
        ({**BASE, "on_failure": "rollback"}, "write: abort rollback"),
        ({**BASE, "failure_limit": 2}, 'write "2 %"'),
        (
            {**BASE, "error_condition": {"bad": "> 10 %"}},
            'write error_condition: {bad: "> 10 %", denominator: activated, min_completed: 10}',
        ),
        (
            {**BASE, "success_condition": ">= 95 %"},
            "write success_condition: "
            '{healthy: ">= 95 %", denominator: activated, min_completed: 10}',
        ),
    ],
)
def test_an_error_says_what_to_write(body, do):
    with pytest.raises(InvalidRequest) as caught:
        read_spec(body)
    assert caught.value.do == do


def test_an_incomplete_condition_says_what_is_missing():
    with pytest.raises(InvalidRequest) as caught:
        read_spec({**BASE, "error_condition": {"bad": "> 10 %"}})
    assert caught.value.why == "error_condition does not say denominator and min_completed"


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["devices", "percent", "soak", "bad", "rows"]), inner)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(FIELDS), json, max_size=3))
def test_whatever_is_written_is_read_or_refused(body):
    try:
        spec = read_spec({**BASE, **body})
    except InvalidRequest as error:
        assert error.code in ("OUT-S120", "OUT-S121")  # noqa: PT017 - either is right
    else:
        assert load(dump(spec), RolloutSpec) == spec


# --- conditions and statuses ----------------------------------------------------------------------


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
