"""Policy files: what they say, and what is said of their mistakes."""

import pytest

from control_plane.catalog.policy import read_policy
from protocol.errors import InvalidRequest
from protocol.members import Contract, Feature, Policy, Profile, TensorSpec
from protocol.rules import Condition, Rule, Rules

CONTRACT = Contract(
    (TensorSpec("x", "FP32", (-1, 3)),),
    (TensorSpec("label", "INT64", (-1,)), TensorSpec("p", "FP32", (-1, 2))),
)
NAMES = ("speed", "temperature", "load")
PROFILE = Profile(10, tuple(Feature(name, (0.0, 1.0), (1,) * 5) for name in NAMES))

WHOLE = """
min_requests: 100
limits: {error_share: 0.05, latency_ratio: 2}
actions: {errors: previous, crashes: rules}
after_commit: [errors, latency]
rules:
  rules:
    - when: {column: temperature, op: gt, value: 80}
      answer: {label: 1, p: [0, 1]}
    - when: [{column: 0, op: le, value: 0.5}, {column: load, op: eq, value: 1}]
      answer: {label: 2, p: [0.5, 0.5]}
  otherwise: {label: 0, p: [1, 0]}
"""


def read(tmp_path, text):
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    return read_policy(file)(CONTRACT, PROFILE)


def test_a_policy_file_becomes_the_signed_policy(tmp_path):
    policy = read(tmp_path, WHOLE)
    assert (policy.min_requests, policy.limits.error_share, policy.limits.latency_ratio) == (
        100,
        0.05,
        2,
    )
    assert policy.actions == {"errors": "previous", "crashes": "rules"}
    assert policy.after_commit == ("errors", "latency")
    hot = Rule((Condition(1, "gt", 80, "temperature"),), {"label": (1,), "p": (0, 1)})
    slow = Rule(
        (Condition(0, "le", 0.5, "speed"), Condition(2, "eq", 1, "load")),
        {"label": (2,), "p": (0.5, 0.5)},
    )
    assert policy.rules == Rules({"label": (0,), "p": (1, 0)}, (hot, slow))


def test_an_empty_mapping_is_the_default_policy(tmp_path):
    assert read(tmp_path, "{}") == Policy()


@pytest.mark.parametrize(
    "text, said",
    [
        pytest.param("- 1", "a policy is a list of fields", id="no mapping"),
        pytest.param("a: [", "flow node", id="no YAML"),
        pytest.param("min_request: 5", "the field is called min_requests", id="misspelt"),
        pytest.param("limits: {latency: 2}", "the field is called latency_ratio", id="in limits"),
        pytest.param("limits: 5", "limits takes named fields", id="limits is a number"),
        pytest.param("limits: {error_share: 5}", "from 0 to 1", id="a share of 500 %"),
        pytest.param("actions: {slow: previous}", "known: errors, latency", id="trigger"),
        pytest.param("actions: {errors: reboot}", "known: previous, fallback", id="action"),
        pytest.param("after_commit: [warmth]", "no trigger is called 'warmth'", id="watched"),
        pytest.param("actions: {errors: rules}", "the policy has no rules", id="without rules"),
        pytest.param("actions: {errors: fallback}", "names no fallback", id="without fallback"),
        pytest.param("fallback: digits/v1", "digest", id="a fallback that is no digest"),
        pytest.param("rules: {rules: []}", "otherwise: says no answer", id="no otherwise"),
        pytest.param("rules: {otherwise: {label: 0}}", "nothing for output p", id="an output less"),
        pytest.param(
            "rules: {otherwise: {label: 0, p: [1, 0], q: 1}}", "no output is called 'q'", id="more"
        ),
        pytest.param(
            "rules: {otherwise: {label: 0, p: 1}}", "takes 2 values, 1 given", id="a value less"
        ),
        pytest.param(
            "rules: {otherwise: {label: 0.5, p: [1, 0]}}", "0.5 is no INT64", id="half a label"
        ),
        pytest.param(
            "rules: {otherwise: {label: yes, p: [1, 0]}}", "True is no INT64", id="yes is no label"
        ),
    ],
)
def test_a_mistake_is_told_with_what_to_write(tmp_path, text, said):
    with pytest.raises(InvalidRequest) as refused:
        read(tmp_path, text)
    assert said in refused.value.why
    assert (refused.value.code, refused.value.place) == ("OUT-S120", str(tmp_path / "policy.yaml"))


@pytest.mark.parametrize(
    "when, said",
    [
        pytest.param("{column: temprature, op: gt, value: 1}", "temperature", id="near"),
        pytest.param("{column: 3, op: gt, value: 1}", "columns 0 to 2, not 3", id="beyond"),
        pytest.param("{column: 0, op: ne, value: 1}", "known: lt, le, gt", id="operator"),
        pytest.param("{column: 0, op: gt}", "value", id="no value"),
        pytest.param("{column: 0, op: gt, value: .inf}", "finite", id="infinity"),
        pytest.param("{column: 0, op: gt, value: 1.0e+300}", "is no FP32", id="no float32"),
        pytest.param(
            "{column: 0, operator: gt, value: 1}", "known: column, op, value, name", id="misspelt"
        ),
        pytest.param(
            "{column: 0, op: gt, value: 1, name: load}", "column 0 is speed, not 'load'", id="name"
        ),
        pytest.param("[]", "rule 1: when: is a list", id="no condition"),
    ],
)
def test_a_condition_that_cannot_be_decided_is_refused(tmp_path, when, said):
    rule = f"{{when: {when}, answer: {{label: 1, p: [0, 1]}}}}"
    text = f"rules: {{rules: [{rule}], otherwise: {{label: 0, p: [1, 0]}}}}"
    with pytest.raises(InvalidRequest) as refused:
        read(tmp_path, text)
    assert said in refused.value.why
