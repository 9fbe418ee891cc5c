"""Whoever pushes is told what will travel, and may have made what is missing."""

from __future__ import annotations

import json

import pytest

from control_plane.cli import catalog
from protocol.payload import KNOWN_FEATURES, names_of
from protocol.reported import ReportedState
from tests.control_plane.cli.conftest import healthy


def report(api, name, bundle, features=KNOWN_FEATURES):
    """It runs the bundle, and says what it can decode."""
    api.enrol(name)
    models = {"digits": healthy(bundle, api.clock[0])}
    state = ReportedState(1, "0.1", features=names_of(features), models=models)
    api.store.devices.put_state(f"north-{name}", state, api.clock[0])


def pushed_by_hand(api, outrider, version, *options):
    api.packed(api.bundle(version, features=300, scale=1.00001))
    return outrider("model", "push", f"digits-{version}.bundle", *options)


@pytest.fixture
def v1(api):
    return api.pushed("v1", features=300)


def test_without_devices_a_push_tells_what_a_new_one_will_receive(api, outrider, v1):
    ran = pushed_by_hand(api, outrider, "v2")
    assert ran.exit == 0
    (line,) = [each for each in ran.out.splitlines() if each.startswith("payloads")]
    assert line.endswith(" kB full")
    assert "from" not in line


def test_a_push_tells_what_travels_to_how_many(api, outrider, v1):
    for name in ("cam-1", "cam-2"):
        report(api, name, v1)
    text = " ".join(pushed_by_hand(api, outrider, "v2").out.split())
    assert " kB from digits/v1 (2 devices), " in text
    assert " kB full draft" in text


def test_json_has_the_numbers(api, outrider, v1):
    report(api, "cam-1", v1)
    result = json.loads(pushed_by_hand(api, outrider, "v2", "--json").out)
    delta, full = result["payloads"]
    assert (delta["base"], delta["devices"]) == ("digits/v1", 1)
    assert (full["base"], full["devices"]) == (None, 0)
    assert delta["bytes"] < full["bytes"]


def test_what_is_missing_can_be_made_by_hand(api, outrider, v1):
    pushed_by_hand(api, outrider, "v2")
    report(api, "cam-1", v1)
    ran = outrider("model", "encode", "digits/v2")
    assert ran.exit == 0
    made, payloads = ran.out.splitlines()[:2]
    assert made.startswith("made ")
    assert made.endswith(" payloads")
    assert "from digits/v1 (1 device)" in payloads
    again = json.loads(outrider("model", "encode", "digits/v2", "--json").out)
    assert again["made"] == 0
    assert [each["devices"] for each in again["payloads"]] == [1, 0]


def test_a_version_that_is_not_there_is_named(api, outrider, v1):
    ran = outrider("model", "encode", "digits/v9")
    assert ran.exit != 0
    assert "v9" in ran.err


def test_of_many_versions_on_devices_a_few_are_shown_and_the_most_that_one_receives():
    rows: list[dict[str, object]] = [
        {"base": f"toy/v{n}", "devices": 1000, "bytes": 1000 * n} for n in range(1, 9)
    ]
    text = catalog._travelling([*rows, {"base": None, "devices": 0, "bytes": 20_000}])
    assert text == (
        "1.00 kB from toy/v1 (1,000 devices), 2.00 kB from toy/v2 (1,000 devices), "
        "3.00 kB from toy/v3 (1,000 devices), 4.00 kB from toy/v4 (1,000 devices), 4 more, "
        "20.0 kB full"
    )
    short = catalog._travelling(rows[:5])
    assert short.count("from") == 5
    assert "more" not in short
