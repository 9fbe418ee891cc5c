"""`outrider export usb` as people type it."""

from __future__ import annotations

import json

import pytest

from tests.control_plane.web.test_export import fleet  # noqa: F401 - fixture


@pytest.fixture
def ready(api, fleet):  # noqa: F811 - the fixture
    return fleet


def test_a_stick_is_written_and_said(api, outrider, ready):
    result = outrider("export", "usb", "--to", "usb", "cam-1")
    assert result.exit == 0, result.err
    assert result.out.splitlines()[:2] == ["stick    1 device", "versions digits/v1"]
    assert result.out.splitlines()[2].startswith("wrote    usb: ")
    assert "outrider-agent install --from usb" in result.err
    assert (api.folder / "usb/outrider-stick.json").exists()
    again = outrider("export", "usb", "--to", "usb", "cam-1")
    assert "it was there" in again.out


def test_a_selector_is_repeated(outrider, ready):
    result = outrider("export", "usb", "--to", "usb", "--selector", "site in (leeds, york)")
    assert result.out.splitlines()[0] == "stick    2 devices: site in (leeds, york)"


def test_json_is_one_document(outrider, ready):
    result = outrider("export", "usb", "--to", "usb", "cam-1", "--json")
    said = json.loads(result.out)
    assert said["note"]["devices"] == ["north-cam-1"]
    assert said["written_bytes"] == said["size_bytes"] > 0


@pytest.mark.parametrize(
    "words, exit, code",
    [
        (["cam-9"], 3, "OUT-S110"),
        ([], 2, "OUT-S120"),
        (["--selector", "site ="], 2, "OUT-S101"),
        (["cam-1", "--selector", "site = leeds"], 2, "OUT-S120"),
    ],
)
def test_a_choice_of_nobody_writes_nothing(api, outrider, ready, words, exit, code):
    result = outrider("export", "usb", "--to", "usb", *words)
    assert (result.exit, result.out) == (exit, "")
    assert result.err.startswith(f"error[{code}]")
    assert not (api.folder / "usb").exists()


def test_a_folder_that_holds_something_else_is_refused_before_anything_is_asked(
    api, outrider, ready
):
    (api.folder / "usb").mkdir()
    (api.folder / "usb/thesis.doc").write_text("mine")
    result = outrider("export", "usb", "--to", "usb", "cam-1")
    assert result.exit == 2
    assert "thesis.doc" in result.err
    assert [each for each in api.store.events.after(0) if each.type == "stick.exported"] == []
