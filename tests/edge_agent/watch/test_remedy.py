"""What is done about a bundle that works no longer: the signed action, or the best that is left."""

from itertools import product

import pytest

from edge_agent.watch.remedy import remedy
from protocol.identifiers import digest_of
from protocol.members import ACTIONS, TRIGGERS, Policy
from protocol.rules import Rules

F = digest_of(b"fallback")
RULES = Rules({"y": (0.0,)})


@pytest.mark.parametrize(
    "asked, previous, fallback, rules, done",
    [
        ("previous", True, True, True, "previous"),
        ("previous", False, True, True, "fallback"),
        ("previous", False, False, True, "rules"),
        ("previous", False, False, False, "keep"),
        ("fallback", True, True, True, "fallback"),
        ("fallback", True, False, True, "previous"),
        ("fallback", False, False, True, "rules"),
        ("fallback", False, False, False, "keep"),
        ("rules", True, True, True, "rules"),
        ("refuse", True, True, True, "refuse"),
        ("refuse", False, False, False, "refuse"),
    ],
)
def test_the_remedy(asked, previous, fallback, rules, done):
    policy = Policy(actions={"latency": asked}, fallback=F, rules=RULES if rules else None)
    assert remedy(policy, "latency", previous=previous, fallback=fallback) == done


def test_nothing_but_refusal_leaves_a_device_without_an_answer():
    for action, trigger, previous, fallback in product(
        ACTIONS, TRIGGERS, (True, False), (True, False)
    ):
        policy = Policy(actions={trigger: action}, fallback=F, rules=RULES)
        done = remedy(policy, trigger, previous=previous, fallback=fallback)
        assert (done == "refuse") == (action == "refuse")


def test_a_trigger_without_an_action_brings_the_version_before_back():
    policy = Policy(actions={"errors": "refuse"})
    assert remedy(policy, "latency", previous=True, fallback=False) == "previous"
