"""A state is recorded when it is news, and now and then when it is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_agent.reporter import Reporter
from protocol.identifiers import digest_of
from protocol.reported import BufferState, DriftState, Guards, ModelState, Progress, ReportedState

STATE = ReportedState(
    0,
    "0.1.0",
    models={
        "digits": ModelState(
            current=digest_of(b"v1"), progress=Progress(1, 9), guards=Guards(requests=5)
        )
    },
)


class Outbox:
    def __init__(self) -> None:
        self.states: list[ReportedState] = []

    def put_state(self, state: ReportedState, now_ms: int) -> int:
        self.states.append(state)
        return len(self.states)


def model(**changes):
    return replace(STATE, models={"digits": replace(STATE.models["digits"], **changes)})


@pytest.mark.parametrize(
    "new, news",
    [
        pytest.param(STATE, False, id="the same"),
        pytest.param(replace(STATE, buffer=BufferState(9, 9)), False, id="a gauge moved"),
        pytest.param(replace(STATE, disk_free_bytes=7), False, id="disk space moved"),
        pytest.param(replace(STATE, counters={"answers": 3}), False, id="a counter moved"),
        pytest.param(model(progress=Progress(2, 9)), False, id="a frame came"),
        pytest.param(model(guards=Guards(requests=6)), False, id="an answer was judged"),
        pytest.param(model(phase="probation"), True, id="another phase"),
        pytest.param(model(phase="fetching"), True, id="frames begin to travel"),
        pytest.param(model(waiting="OUT-D343"), True, id="its window is closed"),
        pytest.param(model(guards=Guards("active", requests=5)), True, id="a guard became active"),
        pytest.param(model(waiting="OUT-D201"), True, id="something holds it back"),
        pytest.param(model(drift=DriftState(9.1, "x")), True, id="a first window was looked at"),
        pytest.param(replace(STATE, document_version=4), True, id="a document was read"),
        pytest.param(replace(STATE, labels={"site": "a"}), True, id="a label changed"),
    ],
)
def test_what_is_news(new, news):
    outbox = Outbox()
    reporter = Reporter(outbox, 60.0)
    assert reporter.report(STATE, 0.0, 1)
    assert reporter.report(new, 1.0, 2) is news
    assert len(outbox.states) == 1 + news


def test_the_whole_state_is_recorded_not_only_what_is_news():
    outbox = Outbox()
    Reporter(outbox, 60.0).report(STATE, 0.0, 1)
    assert outbox.states == [STATE]


def test_nothing_new_is_said_again_after_the_interval_and_after_a_reconnect():
    reporter = Reporter(Outbox(), 60.0)
    reporter.report(STATE, 0.0, 1)
    assert not reporter.report(STATE, 59.0, 2)
    assert reporter.report(STATE, 60.0, 3)
    reporter.every(600.0)
    assert not reporter.report(STATE, 121.0, 4)
    reporter.forget()
    assert reporter.report(STATE, 122.0, 5)


@pytest.mark.parametrize(
    "new, news",
    [
        pytest.param(DriftState(9.1, "y", 15.4, 61, settled=True), False, id="evidence moved"),
        pytest.param(DriftState(16.0, "x", 15.4, 61, since_ms=5), True, id="inputs drifted"),
        pytest.param(DriftState(2.0, "x", 12.0, 60), True, id="another threshold"),
    ],
)
def test_evidence_of_drift_is_news_when_it_crosses_the_threshold(new, news):
    reporter = Reporter(Outbox(), 60.0)
    assert reporter.report(model(drift=DriftState(2.0, "x", 15.4, 60)), 0.0, 1)
    assert reporter.report(model(drift=new), 1.0, 2) is news
