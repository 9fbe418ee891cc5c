"""Before a rollout starts: what people type becomes its fields, and how scripts say yes."""

import json
import shlex

import httpx
import pytest

from control_plane import cli
from control_plane.cli import starting
from control_plane.client import Access, Client
from tests.fakes.command_line import ran


def test_a_script_says_how_many_devices_it_means(api, outrider):
    api.approved("v1")
    for name in ("cam-1", "cam-2"):
        api.enrol(name)
    start = ("rollout", "start", "digits/v1", "--yes")
    unsaid = outrider(*start)
    assert (unsaid.exit, unsaid.err.splitlines()[0]) == (
        2, "error[OUT-S152]: nothing has changed: nobody said yes",
    )  # fmt: skip
    assert "--yes --expect-devices 2" in unsaid.err
    other = outrider(*start, "--expect-devices", "3")
    assert (other.exit, other.err.splitlines()) == (
        5,
        [
            "error[OUT-R206]: another number of devices matches now",
            "  why: 2 devices match now, not 3",
            "  do:  outrider rollout plan digits/v1",
        ],
    )
    assert api.get("rollouts").json()["count"] == 0
    assert outrider(*start, "--to", "cam-1").exit == 5, "nobody has this label"
    assert outrider(*start, "--expect-devices", "2").exit == 0


def test_a_rollout_in_the_way_is_refused_before_anybody_is_asked(api, outrider):
    api.approved("v1")
    api.approved("v2")
    for name in ("cam-1", "cam-2"):
        api.enrol(name)
    api.post("rollouts", {"version": "digits/v1"})
    refused = outrider("rollout", "start", "digits/v2", answers="2")
    assert (refused.exit, refused.err.splitlines()[0]) == (
        5, "error[OUT-R201]: another rollout of this model is active",
    )  # fmt: skip
    instead = outrider("rollout", "start", "digits/v2", "--supersede", "digits-1", answers="2")
    assert instead.exit == 0
    assert "It ends digits-1. Type 2: " in instead.err
    assert api.get("rollouts/digits-1").json()["superseded_by"] == "digits-2"


@pytest.mark.parametrize(
    "options, field, value",
    [
        ("--gates off", "gates", "off"),
        ("--shadow", "shadow", "on"),
        ("--holdback '5 %'", "holdback", "5 %"),
        ("--holdback 20", "holdback", 20),
        ("--unproven proceed", "unproven", "proceed"),
        ("--on-failure 'abort keep'", "on_failure", "abort keep"),
        ("--supersede digits-7", "supersedes", "digits-7"),
        ("--soak 24h", "soak", "24h"),
        ("--waves 1,100%", "waves", ["1", "100%"]),
        ("--to 'site = a'", "to", "site = a"),
    ],
)
@pytest.mark.parametrize("verb", ["plan", "start"])
def test_options_are_fields_and_win_over_the_file(
    tmp_path, monkeypatch, verb, options, field, value
):
    sent: list[dict[str, object]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        return httpx.Response(422, json={"code": "OUT-S120", "detail": "enough"})

    nobody = Access("http://nowhere", "north", "token")
    monkeypatch.setattr(
        starting, "connect", lambda home: Client(nobody, transport=httpx.MockTransport(answer))
    )
    written = "version: digits/v1\nto: all\nsoak: 1h\nwaves: [3]\nunproven: ask\n"
    (tmp_path / "canary.yaml").write_text(written)
    words = ["rollout", verb, "-f", str(tmp_path / "canary.yaml"), *shlex.split(options)]
    assert ran(cli.run, words).exit == 2
    fields = {"version": "digits/v1", "to": "all", "soak": "1h", "waves": [3], "unproven": "ask"}
    assert sent == [{**fields, field: value}]
