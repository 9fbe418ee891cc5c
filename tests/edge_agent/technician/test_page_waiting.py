"""What a technician reads while a candidate shadows, or waits for its window."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from edge_agent.technician.checks import Findings, examine
from edge_agent.technician.happened import happened
from edge_agent.technician.page import LOOK, page, summary
from edge_agent.technician.status import Status
from protocol.identifiers import digest_of
from protocol.reported import ModelState, Shadow
from tests.fakes.attended import NOW_MS, STABLE, STATE, STATUS, V3

CLOSED = replace(
    STABLE,
    target=V3,
    origin="rollout",
    rollout="digits-7",
    phase="staged",
    waiting="OUT-D343",
    waiting_detail="starts in the window 01:00-05:00",
)
SHADOW = Shadow(V3, rows=120, agreed=118, of=200)
SHADOWS = replace(
    CLOSED,
    phase="standby",
    waiting="OUT-D344",
    waiting_detail="shadowed 120 of 200 rows",
    shadow=SHADOW,
)
NO_ROOM = replace(
    SHADOWS,
    phase="staged",
    waiting_detail="no memory for both: needs 52 MB of memory, 11 MB can be had",
    shadow=replace(SHADOW, rows=0, agreed=0),
)


def status(state: ModelState) -> Status:
    return replace(STATUS, state=replace(STATE, models={"digits": state}))


@pytest.mark.parametrize(
    "state, headline, lines, next_step",
    [
        pytest.param(
            CLOSED,
            "digits/v3 waits",
            ("waiting     OUT-D343 starts in the window 01:00-05:00",),
            "nothing: it starts in the next window",
            id="its window is closed",
        ),
        pytest.param(
            SHADOWS,
            "digits/v3 runs beside it",
            ("coming      shadowing digits/v3: 120 of 200 rows, 98 % agree",),
            "nothing: the rollout lets it start once enough answers agree",
            id="it shadows",
        ),
        pytest.param(
            replace(SHADOWS, shadow=replace(SHADOW, rows=0, agreed=0)),
            "digits/v3 runs beside it",
            ("coming      shadowing digits/v3: 0 of 200 rows",),
            "nothing: the rollout lets it start once enough answers agree",
            id="nobody asks",
        ),
        pytest.param(
            replace(SHADOWS, shadow=replace(SHADOW, rows=1_000, agreed=999, failures=3)),
            "digits/v3 runs beside it",
            (
                "shadowing digits/v3: 1,000 of 200 rows, 99 % agree",
                "it failed on 3 requests",
            ),
            "nothing: the rollout lets it start once enough answers agree",
            id="all but one is not all",
        ),
        pytest.param(
            NO_ROOM,
            "digits/v3 waits",
            ("OUT-D344 no memory for both: needs 52 MB of memory, 11 MB can",),
            "nothing: the rollout lets it start once enough answers agree",
            id="there is no memory for both",
        ),
    ],
)
def test_what_it_waits_for_is_said(state, headline, lines, next_step):
    shown = page(status(state))
    text = "\n".join(shown.lines)
    assert headline in summary(status(state))
    for line in lines:
        assert line in text
    assert f"next        {next_step}" in text
    assert shown.exit == LOOK


@pytest.mark.parametrize(
    "state, said",
    [
        (CLOSED, "digits/v3 starts in the window 01:00-05:00"),
        (SHADOWS, "shadowing digits/v3: 120 of 200 rows, 98 % agree"),
        (NO_ROOM, "digits/v3 no memory for both: needs 52 MB of memory, 11 MB can be had"),
        (replace(NO_ROOM, target=digest_of(b"unknown")), "digits no memory for both"),
    ],
)
def test_doctor_finds_nothing_wrong_with_it(state, said):
    found = examine(Findings(NOW_MS, status(state)))
    (check,) = (each for each in found.checks if each.name == "fetch")
    assert check.result == "ok"
    assert check.detail.startswith(said)


@pytest.mark.parametrize(
    "state, said",
    [
        (CLOSED, "digits/v3 waits: OUT-D343 it is outside of the maintenance window: starts in"),
        (SHADOWS, "digits/v3 waits: OUT-D344 it runs beside the model in use and answers nobody"),
    ],
)
def test_the_log_says_once_that_it_waits(state, said):
    ((level, text),) = happened(STATUS, status(state))
    assert level == logging.INFO
    assert text.startswith(said)
    more = replace(state, waiting_detail="shadowed 140 of 200 rows")
    assert [*happened(status(state), status(more))] == []
