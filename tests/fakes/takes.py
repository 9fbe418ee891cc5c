"""What a supervisor does with the counts of a runner that drains."""

from __future__ import annotations

from edge_agent.runners import Runners
from tests.fakes.conditions import eventually


def take_everything(runners: Runners, runner: str) -> int:
    """Answers in all takes up to the final one, acknowledged; the runner has ended then."""
    answers = ack = 0

    def last_one() -> bool:
        nonlocal answers, ack
        take = runners.take(runner, ack)
        if take.seq > ack:
            answers += sum(window.inference.answers for window in take.windows)
            ack = take.seq
        return take.final

    eventually(last_one)
    runners.take(runner, ack)
    eventually(lambda: runner not in {view.id for view in runners.views()})
    return answers
