"""What an approver is told of actions and rules: nothing that changes goes unseen."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.signing.review import compare_policies, healing, rules_text
from protocol.members import Policy
from protocol.rules import Condition, Rule, Rules

HOT = Rule((Condition(0, "gt", 80.0, "temperature"), Condition(1, "le", 1.5)), {"label": (1,)})
COLD = Rule((Condition(0, "lt", 5.0, "temperature"),), {"label": (2,)})
PLAIN = Policy()
HELPED = Policy(
    actions={"errors": "rules", "confidence": "refuse"}, rules=Rules({"label": (0,)}, (HOT, COLD))
)


def test_actions_and_rules_are_told_in_words():
    assert [*healing(HELPED), *rules_text(HELPED)] == [
        "confidence: REFUSES TO ANSWER",
        "errors: SIGNED RULES ANSWER",
        "rule: where temperature > 80.0 and column 1 <= 1.5 answers label 1",
        "rule: where temperature < 5.0 answers label 2",
        "rule: otherwise answers label 0",
    ]


@pytest.mark.parametrize(
    "now, told",
    [
        pytest.param(HELPED, (), id="nothing"),
        pytest.param(
            replace(HELPED, rules=Rules({"label": (0,)}, (COLD, HOT))),
            ("rules come in another order",),
            id="only the order",
        ),
        pytest.param(
            replace(HELPED, rules=Rules({"label": (3,)}, (HOT, COLD))),
            (
                "rule: otherwise answers label 3",
                "no longer: rule: otherwise answers label 0",
            ),
            id="another constant",
        ),
        pytest.param(
            replace(HELPED, actions={"errors": "rules"}),
            ("no longer: confidence: REFUSES TO ANSWER",),
            id="an action less",
        ),
        pytest.param(
            replace(HELPED, after_commit=()),
            ("watched for good: runner deaths only",),
            id="watched less",
        ),
    ],
)
def test_a_change_of_actions_or_rules_is_told(now, told):
    assert compare_policies(HELPED, now) == told


VALUES = st.tuples(*[st.sampled_from((0, 1, 0.5, True, "1"))] * 40)


@given(VALUES, VALUES)
def test_long_answers_differ_in_words_whenever_they_differ(was, now):
    def policy(values):
        return Policy(rules=Rules({"y": values}))

    same = [repr(value) for value in was] == [repr(value) for value in now]
    assert (compare_policies(policy(was), policy(now)) == ()) == same
