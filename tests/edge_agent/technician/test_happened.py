"""What happened between two looks, in words: case by case."""

import logging
from dataclasses import replace

import pytest

from edge_agent.technician.happened import happened
from edge_agent.technician.status import LinkStatus, RenewalStatus, Status
from protocol.reported import DriftState, LocalPin, Outcome, Refused, ReportedState, TrustState
from tests.fakes.attended import CONNECTED, NOW_MS, STABLE, STATE, STATUS, V1, V2, V3

DRIFTED = DriftState(16.0, "pixels_3", since_ms=NOW_MS)
NOTHING = Status("north-cam-0117", "north", 0, ReportedState(0, "0.1"))


def model(**changes):
    state = replace(STATE, models={"digits": replace(STABLE, **changes)})
    return replace(STATUS, state=state)


def outcome(result, reason=None, detail="", **more):
    return model(last=Outcome(8, "digits", V3, result, reason, detail, **more))


TRIAL = {"serving": V3, "target": V3, "phase": "probation", "returns_to": V2}
CASES = {
    "a start": (NOTHING, STATUS, ["agent 0.1 started", "digits/v2 answers",
                                  "connected to mq.example:8883"]),
    "a trial": (STATUS, model(**TRIAL, rollout="digits-7"),
                ["digits/v3 answers, on probation (rollout digits-7)"]),
    "a trial that stays": (STATUS, outcome("committed"),
                           ["digits/v3 stays: its probation is over"]),
    "one that nobody asked": (STATUS, outcome("committed", unexercised=True),
                              ["digits/v3 stays: its probation is over, although there were too "
                               "few answers to judge it"]),
    "a trial that failed": (
        model(**TRIAL), outcome("rolled_back", "OUT-D310", "confidence 0.31"),
        ["digits/v3 rolled back: OUT-D310 rolled back while on probation: confidence 0.31",
         "digits/v2 answers again"],
    ),
    "a candidate that failed": (
        STATUS, outcome("rejected", "OUT-D301", "3 of 32 differ"),
        ["digits/v3 failed here: OUT-D301 fails its golden vectors"],
    ),
    "something newer": (STATUS, outcome("rejected", "OUT-D314"),
                        ["digits/v3 was given up for something else"]),
    "no model left": (STATUS, model(serving=None, waiting="OUT-D350"),
                      ["no working model for digits: OUT-D350 no working model"]),
    "a download": (STATUS, model(target=V3, phase="fetching"), ["digits/v3 is being fetched"]),
    "a hindrance": (
        STATUS, model(target=V3, waiting="OUT-T122", waiting_detail="30 h ago"),
        ["digits/v3 waits: OUT-T122 nothing new can start"],
    ),
    "inputs that changed": (
        model(drift=DriftState(3.0)), model(drift=DRIFTED),
        ["digits/v2: OUT-D601 inputs are not those that the model was built on: pixels_3"],
    ),
    "inputs that stay so": (model(drift=DRIFTED), model(drift=replace(DRIFTED, ln_e=20.0)), []),
    "inputs as usual again": (model(drift=DRIFTED), model(drift=DriftState(3.0)),
                              ["digits/v2: inputs are as usual again"]),
    "another version's inputs": (
        model(drift=DRIFTED), model(serving=V1, returns_to=V1, drift=DriftState(3.0)),
        ["digits/v1 answers"],
    ),
    "a pin": (STATUS, model(pinned=LocalPin(V1, None, "wrong labels", "tom")),
              ["digits/v1 is pinned here by tom: wrong labels"]),
    "no pin": (model(pinned=LocalPin(V1)), STATUS, ["digits is no longer pinned here"]),
    "a lost link": (STATUS, replace(STATUS, link=LinkStatus(False, "mq:1", 0, "no route")),
                    ["no link to mq:1: no route"]),
    "a link that never was": (
        replace(STATUS, link=LinkStatus(False, "mq:1")),
        replace(STATUS, link=LinkStatus(False, "mq:1", 0, "no route")),
        ["no link to mq:1: no route"],
    ),
    "a link that is back": (replace(STATUS, link=LinkStatus()), STATUS,
                            ["connected to mq.example:8883"]),
    "a refusal": (
        STATUS,
        replace(STATUS, state=replace(STATE, refused=(Refused("plan", "OUT-T106", "older"),))),
        ["plan refused: OUT-T106 "],
    ),
    "trust that ends": (
        STATUS,
        replace(STATUS, state=replace(STATE, trust=TrustState(fresh_until="2026-11-18T11:00:00Z"))),
        ["trust expired: nothing new can start, all else goes on"],
    ),
    "a renewal that failed": (
        STATUS, replace(STATUS, renewal=RenewalStatus(1, NOW_MS, "OUT-N104", "no route")),
        ["the certificate was not renewed: OUT-N104 "],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_changed_is_said(case):
    before, after, said = CASES[case]
    texts = [text for _, text in happened(before, after)]
    assert len(texts) == len(said), texts
    assert all(text.startswith(start) for text, start in zip(texts, said, strict=True)), texts


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_said_twice(case):
    after = CASES[case][1]
    assert list(happened(after, after)) == []


def test_what_goes_wrong_is_a_warning_and_the_rest_is_not():
    levels = dict.fromkeys(CASES, 0)
    for case, (before, after, _) in CASES.items():
        levels[case] = max((level for level, _ in happened(before, after)), default=logging.INFO)
    assert levels["no model left"] == logging.ERROR
    fine = {"a start", "a trial", "a trial that stays", "one that nobody asked", "something newer",
            "a download", "a link that is back", "inputs that stay so", "inputs as usual again",
            "another version's inputs"}  # fmt: skip
    assert {case for case, level in levels.items() if level < logging.WARNING} == fine


def test_progress_of_a_link_that_does_not_come_is_not_repeated():
    lost = replace(STATUS, link=LinkStatus(False, "mq:1", 0, "no route"))
    other = replace(STATUS, link=LinkStatus(False, "mq:1", 0, "timed out"))
    assert list(happened(lost, other)) == []
    assert CONNECTED.connected
