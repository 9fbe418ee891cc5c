"""Signed rules in a model's place: what they answer, what they cannot, and what callers see."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.runner.rules import RulesSession
from edge_agent.runner.views import RunnerFailed
from protocol import codec
from protocol.errors import NotUnderstood, PeerError
from protocol.members import Contract, Policy, TensorSpec, member_document
from protocol.rules import MAX_CONDITIONS, MAX_RULES, Condition, Rule, Rules, check_rules
from tests.fakes.callers import ROW, call, inference

X = TensorSpec("x", "FP32", (-1, 2))
CONTRACT = Contract((X,), (TensorSpec("label", "INT64", (-1,)), TensorSpec("p", "FP32", (-1, 2))))
OTHERWISE: dict[str, Any] = {"label": (0,), "p": (1.0, 0.0)}


def rule(*when: tuple[int, str, float], label: int = 1) -> Rule:
    return Rule(tuple(Condition(*each) for each in when), {"label": (label,), "p": (0.0, 1.0)})


def labels(rules: tuple[Rule, ...], rows: Any, contract: Contract = CONTRACT) -> Any:
    inputs = {"x": np.array(rows, np.float32)}
    return RulesSession(Rules(OTHERWISE, rules), contract).run(inputs)["label"].tolist()


@pytest.mark.parametrize(
    "op, holds",
    [
        ("lt", [True, False, False]),
        ("le", [True, True, False]),
        ("gt", [False, False, True]),
        ("ge", [False, True, True]),
        ("eq", [False, True, False]),
    ],
)
def test_a_condition_compares_a_column_with_a_number(op, holds):
    assert labels((rule((1, op, 0.1)),), [[9, 0.0], [9, 0.1], [9, 0.2]]) == [int(h) for h in holds]


def test_every_condition_of_a_rule_has_to_hold():
    both = (rule((0, "gt", 0), (1, "gt", 0)),)
    assert labels(both, [[1, 1], [1, -1], [-1, 1]]) == [1, 0, 0]


def test_the_first_rule_that_holds_answers():
    ordered = (rule((0, "gt", 5), label=5), rule((0, "gt", 1), label=1))
    assert labels(ordered, [[9, 0], [2, 0], [0, 0]]) == [5, 1, 0]


def test_a_row_of_nan_gets_the_constant():
    everything = (rule((0, "ge", 0)), rule((0, "lt", 0)))
    assert labels(everything, [[float("nan"), 0], [1, 0]]) == [0, 1]


def test_every_output_has_the_shape_and_type_of_the_contract():
    outputs = RulesSession(Rules(OTHERWISE, (rule((0, "gt", 0)),)), CONTRACT).run(
        {"x": np.zeros((3, 2), np.float32)}
    )
    assert {name: (array.dtype, array.shape) for name, array in outputs.items()} == {
        "label": (np.dtype(np.int64), (3,)),
        "p": (np.dtype(np.float32), (3, 2)),
    }


def test_columns_of_a_deeper_input_count_in_c_order():
    deep = replace(CONTRACT, inputs=(TensorSpec("x", "FP32", (-1, 2, 2)),))
    assert labels((rule((3, "eq", 4)),), [[[1, 2], [3, 4]], [[4, 4], [4, 3]]], deep) == [1, 0]


def test_whole_numbers_and_texts_are_answered_as_they_are():
    contract = Contract(
        (TensorSpec("x", "INT64", (-1, 1)),),
        (TensorSpec("text", "BYTES", (-1,)), TensorSpec("yes", "BOOL", (-1, 1))),
    )
    found = RulesSession(
        Rules(
            {"text": ("low",), "yes": (False,)},
            (Rule((Condition(0, "gt", 0.5),), {"text": ("high",), "yes": (True,)}),),
        ),
        contract,
    ).run({"x": np.array([[0], [1]])})
    assert (found["text"].tolist(), found["yes"].tolist()) == (["low", "high"], [[False], [True]])


ROWS = st.lists(
    st.lists(st.integers(-3, 3).map(float), min_size=2, max_size=2), min_size=1, max_size=8
)
RULES = st.lists(
    st.lists(
        st.tuples(
            st.integers(0, 1),
            st.sampled_from(("lt", "le", "gt", "ge", "eq")),
            st.integers(-3, 3).map(float),
        ),
        min_size=1,
        max_size=3,
    ),
    max_size=4,
)
SAYS = {
    "lt": float.__lt__,
    "le": float.__le__,
    "gt": float.__gt__,
    "ge": float.__ge__,
    "eq": float.__eq__,
}


@given(ROWS, RULES)
def test_rows_are_answered_as_one_by_one_in_the_order_of_the_rules(rows, rules):
    def one(row: list[float]) -> int:
        for number, when in enumerate(rules, start=1):
            if all(SAYS[op](row[column], value) for column, op, value in when):
                return number
        return 0

    made = tuple(rule(*when, label=number) for number, when in enumerate(rules, start=1))
    assert labels(made, rows) == [one(row) for row in rows]


@pytest.mark.parametrize(
    "contract, said",
    [
        pytest.param(
            replace(CONTRACT, inputs=(TensorSpec("x", "BYTES", (-1, 2)),)),
            "only a constant",
            id="texts have no numbers",
        ),
        pytest.param(
            replace(CONTRACT, inputs=(TensorSpec("x", "FP32", (-1, -1)),)),
            "only a constant",
            id="rows of any length",
        ),
        pytest.param(
            replace(
                CONTRACT, outputs=(TensorSpec("label", "INT64", (-1, -1)), CONTRACT.outputs[1])
            ),
            "rules cannot answer for output label",
            id="an output of any length",
        ),
        pytest.param(
            replace(CONTRACT, outputs=(TensorSpec("label", "INT64", (7,)), CONTRACT.outputs[1])),
            "rules cannot answer for output label",
            id="an output that is not one per row",
        ),
    ],
)
def test_rules_that_cannot_answer_for_a_contract_are_refused(contract, said):
    with pytest.raises(ValueError, match=said):
        check_rules(Rules(OTHERWISE, (rule((0, "gt", 0)),)), contract)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"rules": (rule((0, "gt", 0)),) * (MAX_RULES + 1)}, id="too many rules"),
        pytest.param(
            {"rules": (rule(*[(0, "gt", 0)] * (MAX_CONDITIONS + 1)),)}, id="too many conditions"
        ),
        pytest.param({"otherwise": {"label": (0,) * 5_000}}, id="too many values"),
        pytest.param({"otherwise": {"label": ("x" * 300,)}}, id="too long a text"),
    ],
)
def test_what_is_too_large_is_no_policy(changes):
    wire = codec.encode({"rules": {"otherwise": {"label": [0]}, "must_understand": []} | changes})
    with pytest.raises(PeerError):
        member_document(wire, Policy)


@pytest.mark.parametrize(
    "policy, names",
    [
        pytest.param({"actions": {"warmth": "previous"}}, ("trigger:warmth",), id="trigger"),
        pytest.param({"actions": {"errors": "reboot"}}, ("action:reboot",), id="action"),
        pytest.param({"after_commit": ["warmth"]}, ("trigger:warmth",), id="watched"),
        pytest.param(
            {
                "rules": {
                    "otherwise": {"y": [0]},
                    "rules": [
                        {"when": [{"column": 0, "op": "ne", "value": 1}], "answer": {"y": [1]}}
                    ],
                }
            },
            ("op:ne",),
            id="operator",
        ),
    ],
)
def test_a_policy_from_the_future_is_not_understood_rather_than_misread(policy, names):
    with pytest.raises(NotUnderstood) as refused:
        member_document(json.dumps(policy).encode(), Policy)
    assert refused.value.names == names


def test_a_policy_with_rules_survives_the_wire():
    policy = Policy(
        actions={"errors": "rules"},
        after_commit=("errors", "latency"),
        rules=Rules(OTHERWISE, (rule((0, "gt", 0.1)),)),
    )
    assert member_document(codec.encode(policy), Policy) == policy


# --- in a runner ----------------------------------------------------------------------------------

TOY = Rules(
    {"label": (0,), "probabilities": (1.0, 0.0, 0.0)},
    (
        Rule(
            (Condition(0, "ge", 10.0, "pixels_0"),),
            {"label": (2,), "probabilities": (0.0, 0.0, 1.0)},
        ),
    ),
)


RULED = Policy(rules=TOY)


@pytest.fixture
def promoted(runners, bundles):
    """Promotes a toy bundle that answers so; its port and runner."""

    def promote(answering, policy=RULED):
        load = replace(bundles(fragile=True, policy=policy), answering=answering)
        view = runners.start((load,))
        runners.promote(view.id)
        return int(runners.port), view.id

    return promote


def test_rules_answer_in_the_models_place_and_say_so(promoted, runners):
    port, runner = promoted("rules")
    status, body = call(port, "POST", "/v2/models/toy/infer", inference((10.0, 0, 0, 0)))
    assert (status, body["parameters"]) == (200, {"answered_by": "rules"})
    assert [output["data"] for output in body["outputs"]] == [[2], [0.0, 0.0, 1.0]]
    assert call(port, "GET", "/v2/models/toy/ready")[1]["parameters"] == {"answered_by": "rules"}
    window = runners.peek(runner)["toy"]
    assert (window.by_rules, window.answers, sum(window.confidence)) == (1, 0, 0)
    assert runners.views()[0].loads[0].answering == "rules"


def test_rules_hold_callers_to_the_contract_as_the_model_does(promoted, runners):
    port, runner = promoted("rules")
    assert call(port, "POST", "/v2/models/toy/infer", inference((1.0, 2.0)))[0] == 400
    window = runners.peek(runner)["toy"]
    assert (window.by_rules, window.refused) == (0, 1)


def test_an_answer_of_the_model_says_nothing_of_rules(promoted):
    port, _ = promoted("model")
    assert "parameters" not in call(port, "POST", "/v2/models/toy/infer", inference(ROW))[1]


def test_a_model_that_refuses_is_there_and_not_ready(promoted):
    port, _ = promoted("refuses", Policy())
    status, body = call(port, "POST", "/v2/models/toy/infer", inference(ROW))
    assert status == 503
    assert body["error"].startswith("OUT-D352 toy stopped working well")
    assert call(port, "GET", "/v2/models/toy/ready") == (503, {"name": "toy", "ready": False})
    assert call(port, "GET", "/v2/health/ready")[0] == 503
    assert call(port, "GET", "/v2/health/live")[0] == 200


def test_golden_vectors_prove_models_not_rules(promoted, runners):
    _, runner = promoted("rules")
    with pytest.raises(RunnerFailed) as failed:
        runners.probe(runner, "toy")
    assert failed.value.code == "OUT-D301"


def test_rules_that_do_not_fit_their_bundle_are_found_when_its_model_is_loaded(runners, bundles):
    wrong = replace(TOY, otherwise={"label": (0,)})
    with pytest.raises(RunnerFailed) as failed:
        runners.start((bundles(policy=Policy(rules=wrong)),))
    assert failed.value.code == "OUT-D302"
    assert "otherwise: says nothing for output probabilities" in failed.value.why
