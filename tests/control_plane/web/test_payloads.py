"""Payloads of a model: what there is, for whom, and having what is missing made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from control_plane.deltas import Deltas
from protocol.payload import KNOWN_FEATURES, PLAIN_FEATURES, names_of
from protocol.reported import ModelState, ReportedState
from tests.control_plane.web.conftest import Api
from tests.fakes.bundles import BundleOnDisk
from tests.fakes.waiting import until

LARGE = {"features": 300}
"""A model of which a delta is worth something."""


def hear(api: Api, name: str, bundle: BundleOnDisk, features: int, order: int = 1) -> None:
    """A device says what it runs, and what it can decode."""
    if order == 1:
        api.enrol(name)
    models = {bundle.model: ModelState(current=bundle.digest, serving=bundle.digest)}
    state = ReportedState(order, "0.1", features=names_of(features), models=models)
    api.store.devices.put_state(f"north-{name}", state, api.clock[0])


def listed(api: Api, bundle: BundleOnDisk) -> list[Any]:
    """Payloads of the bundle's model file, as the API lists them."""
    file = bundle.variant.member("model").digest
    items = api.get(f"models/{bundle.model}/payloads").json()["items"]
    return [each for each in items if each["file"] == file]


def made(api: Api, reference: str) -> Any:
    """The operation that makes what is missing, once it has ended."""
    model, _, version = reference.partition("/")
    answer = api.post(f"models/{model}/versions/{version}/payloads")
    assert answer.status_code == 202, answer.text
    place = answer.headers["location"]
    until(lambda: api.get(place).json()["state"] in ("succeeded", "failed"), 120)
    return api.get(place).json()


def test_a_payload_says_what_its_file_is_who_has_its_base_and_who_can_decode_it(api):
    v1 = api.pushed("v1", **LARGE)
    hear(api, "cam-1", v1, KNOWN_FEATURES)
    v2 = api.pushed("v2", scale=1.001, **LARGE)
    shown = listed(api, v2)
    assert {each["role"] for each in shown} == {"model"}
    (full, *_) = (each for each in shown if each["base"] is None)
    assert full["versions"] == []
    assert "payload/1" in {name for each in shown for name in each["features"]}
    (delta,) = (each for each in shown if each["base"] == v1.variant.member("model").digest)
    assert delta["versions"] == ["v1"]
    assert delta["features"]
    assert "payload/1" not in delta["features"]
    assert delta["size_bytes"] < full["size_bytes"]


def test_what_is_missing_for_devices_is_made_when_somebody_asks(api):
    v1 = api.pushed("v1", **LARGE)
    v2 = api.pushed("v2", scale=1.001, **LARGE)
    assert [each["base"] for each in listed(api, v2)] == [None]
    hear(api, "cam-1", v1, KNOWN_FEATURES)
    first = made(api, "digits/v2")
    assert (first["kind"], first["state"], first["unit"]) == ("encode", "succeeded", "kB")
    result = first["result"]
    assert result["reference"] == "digits/v2"
    assert result["made"] > 0
    assert [(each["base"], each["devices"]) for each in result["payloads"]] == [
        ("digits/v1", 1),
        (None, 0),
    ]
    assert v1.variant.member("model").digest in {each["base"] for each in listed(api, v2)}
    # The ticker was told: what was made is offered.
    assert api.wakes
    assert made(api, "digits/v2")["result"]["made"] == 0


def test_devices_that_decode_nothing_special_are_made_nothing(api):
    v1 = api.pushed("v1", **LARGE)
    hear(api, "cam-1", v1, PLAIN_FEATURES)
    api.pushed("v2", scale=1.001, **LARGE)
    assert made(api, "digits/v2")["result"]["made"] == 0


def test_files_that_are_not_here_any_more_are_said_to_be_missing(api):
    v1 = api.pushed("v1", **LARGE)
    hear(api, "cam-1", v1, KNOWN_FEATURES)
    v2 = api.pushed("v2", scale=1.001, **LARGE)
    api.parts.blobs.path(v2.digest).unlink()
    parts = api.parts
    anew = Deltas(parts.store, parts.blobs, parts.settings, parts.now_ms)
    api.client.app.state.parts = replace(parts, deltas=anew)
    ended = made(api, "digits/v2")
    assert (ended["state"], ended["problem"]["code"]) == ("failed", "OUT-F101")


def test_a_version_that_there_is_not_has_no_payloads_to_make(api):
    api.pushed("v1")
    answer = api.post("models/digits/versions/v9/payloads")
    assert (answer.status_code, answer.json()["code"]) == (404, "OUT-S110")
