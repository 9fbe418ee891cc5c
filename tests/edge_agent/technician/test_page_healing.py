"""What a technician reads where the model itself no longer answers, or no longer well."""

from dataclasses import replace

import pytest

from edge_agent.technician.page import LOOK, NO_MODEL, page
from edge_agent.technician.status import LinkStatus, Status
from protocol.bundle import Facts
from protocol.identifiers import digest_of
from protocol.reported import ModelState, Note, Outcome, ReportedState

NOW_MS = 1_795_000_000_000
V1, V2 = digest_of(b"v1"), digest_of(b"v2")
WHY = "errors 10 of the last 50 requests"
STATE = ModelState(
    current=V2,
    serving=V2,
    target=V2,
    origin="stable",
    plan_number=31,
    notes={V2: Note("OUT-D318", WHY, activated=True)},
)
LEFT = Outcome(7, "digits", V2, "rolled_back", "OUT-D318", WHY)


def read(state: ModelState) -> tuple[str, int]:
    reported = ReportedState(1, "0.1", facts=Facts(arch="aarch64"), models={"digits": state})
    names = {V1: "digits/v1", V2: "digits/v2"}
    shown = page(Status("n-cam", "n", NOW_MS, reported, LinkStatus(connected=True), names))
    return "\n".join(shown.lines), shown.exit


@pytest.mark.parametrize(
    "state, said, exit_code",
    [
        pytest.param(
            replace(STATE, answering="rules", waiting="OUT-D351", waiting_detail=WHY),
            ("! cam: digits/v2 works no longer; its signed rules answer", f"OUT-D351 {WHY}"),
            LOOK,
            id="rules answer",
        ),
        pytest.param(
            replace(STATE, answering="refuses", waiting="OUT-D352", waiting_detail=WHY),
            ("! cam: digits refuses to answer, as the policy of digits/v2 says", "OUT-D352"),
            NO_MODEL,
            id="nothing answers",
        ),
        pytest.param(
            replace(STATE, waiting="OUT-D318", waiting_detail=WHY, notes={}),
            ("! cam: digits/v2 works badly; nothing better is here", f"OUT-D318 {WHY}"),
            LOOK,
            id="nothing better is here",
        ),
        pytest.param(
            replace(STATE, current=V1, serving=V1, last=LEFT, waiting="OUT-D341"),
            ("! cam: digits/v2 failed here; digits/v1 runs again", f"OUT-D318 {WHY}", "OUT-D341"),
            LOOK,
            id="the version before runs again",
        ),
    ],
)
def test_what_answers_is_the_first_thing_that_is_said(state, said, exit_code):
    text, code = read(state)
    for each in said:
        assert each in text
    assert text.startswith(said[0])
    assert code == exit_code
