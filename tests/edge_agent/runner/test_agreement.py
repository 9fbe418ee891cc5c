"""Whether a candidate answers as what is in use did."""

import numpy as np
import pytest

from edge_agent.runner.agreement import compare
from protocol.members import Contract, TensorSpec

INPUTS = (TensorSpec("x", "FP32", (-1, 2)),)
PROBABILITIES = TensorSpec("p", "FP32", (-1, 3), role="probabilities")
CLASSES = Contract(INPUTS, (PROBABILITIES,), classes=("a", "b", "c"))
REORDERED = Contract(INPUTS, (PROBABILITIES,), classes=("c", "b", "a"))
OTHERS = Contract(INPUTS, (PROBABILITIES,), classes=("a", "b", "z"))
LABELS = Contract(INPUTS, (TensorSpec("l", "BYTES", (-1,), role="label"),), classes=("a", "b", "c"))
NUMBERS = Contract(
    INPUTS, (TensorSpec("y", "FP32", (-1, 2)),), absolute_tolerance=0.1, relative_tolerance=0.0
)

A, B, C = (0.8, 0.1, 0.1), (0.1, 0.8, 0.1), (0.1, 0.1, 0.8)


def p(*rows):
    return {"p": np.array(rows, np.float32)}


def y(*rows):
    return {"y": np.array(rows, np.float32)}


@pytest.mark.parametrize(
    "mine, base, got, wanted, agreed",
    [
        pytest.param(CLASSES, CLASSES, p(A, B), p(A, C), [True, False], id="the same class"),
        pytest.param(
            CLASSES, CLASSES, p((0.4, 0.3, 0.3)), p(A), [True], id="however sure either is"
        ),
        pytest.param(REORDERED, CLASSES, p(C, A), p(A, A), [True, False], id="by its name"),
        pytest.param(CLASSES, OTHERS, p(C), p(C), [False], id="a class that the other lacks"),
        pytest.param(
            CLASSES, CLASSES, p((np.nan, 0, 0)), p((np.nan, 0, 0)), [False], id="NaN is no class"
        ),
        pytest.param(
            LABELS,
            CLASSES,
            {"l": np.array(["a", "b"], np.object_)},
            p(A, C),
            [True, False],
            id="labels against probabilities",
        ),
        pytest.param(
            NUMBERS, NUMBERS, y((1, 2), (3, 4)), y((1.05, 2), (3, 4.2)), [True, False],
            id="without classes within the tolerance",
        ),
        pytest.param(
            NUMBERS, NUMBERS, y((1, 2)), {"y": np.array([[1, 2]], np.float64)}, [False],
            id="another datatype",
        ),
        pytest.param(NUMBERS, NUMBERS, y((1, 2)), {}, [False], id="an output that was not there"),
    ],
)  # fmt: skip
def test_rows_agree_or_not(mine, base, got, wanted, agreed):
    found = compare(mine, base, got, wanted, len(agreed))
    assert found.agreed.tolist() == agreed


def test_confidence_of_both_is_on_the_same_rows():
    found = compare(CLASSES, CLASSES, p(A, (0.4, 0.3, 0.3)), p(A, B), 2)
    assert found.mine[:, 0].tolist() == pytest.approx([0.8, 0.4])
    assert found.base[:, 0].tolist() == pytest.approx([0.8, 0.8])


def test_an_output_that_belongs_to_no_row_counts_for_all():
    contract = Contract(INPUTS, (TensorSpec("n", "FP32", (2,)),))
    same = {"n": np.array([1, 2], np.float32)}
    other = {"n": np.array([1, 3], np.float32)}
    assert compare(contract, contract, same, same, 3).agreed.tolist() == [True] * 3
    assert compare(contract, contract, same, other, 3).agreed.tolist() == [False] * 3
