import numpy as np
import pytest

from edge_agent.runner.probe import Array, difference
from protocol.members import Contract, TensorSpec

CONTRACT = Contract(
    inputs=(TensorSpec("x", "FP32", (-1, 2)),),
    outputs=(TensorSpec("label", "INT64", (-1,)), TensorSpec("p", "FP32", (-1, 2))),
    absolute_tolerance=0.01,
    relative_tolerance=0.1,
)
LABEL = np.array([0, 1, 1], np.int64)
P = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]], np.float32)


def changed(array, place, value):
    copy = array.copy()
    copy[place] = value
    return copy


@pytest.mark.parametrize(
    "wanted, got, expected",
    [
        pytest.param(P, P, None, id="equal"),
        pytest.param(P, changed(P, (0, 1), 0.1 + 0.0199), None, id="just within"),
        pytest.param(
            P, changed(P, (0, 1), 0.1 + 0.0201), "1 of 3 differ by up to 0.0201", id="just outside"
        ),
        pytest.param(
            P,
            changed(changed(P, (0, 0), 0.5), (2, 1), 0.9),
            "2 of 3 differ by up to 0.4",
            id="two rows",
        ),
        pytest.param(
            P, changed(P, (1, 0), np.nan), "1 of 3 differ by up to inf", id="NaN for a number"
        ),
        pytest.param(
            changed(P, (1, 0), np.nan), changed(P, (1, 0), np.nan), None, id="NaN as wanted"
        ),
        pytest.param(P, P[:2], "p has shape [2,2], wanted [3,2]", id="fewer rows"),
        pytest.param(P, P.astype(np.float64), "p has type float64, wanted float32", id="type"),
    ],
)
def test_floats_are_compared_within_the_contracts_tolerance(wanted, got, expected):
    signed: dict[str, Array] = {"label": LABEL, "p": wanted}
    assert difference(CONTRACT, signed, signed | {"p": got}) == expected


def test_integers_are_compared_exactly_and_a_row_counts_once():
    signed: dict[str, Array] = {"label": LABEL, "p": P}
    got = signed | {"label": changed(LABEL, 0, 1), "p": changed(P, (0, 0), 0.5)}
    assert difference(CONTRACT, signed, got) == "1 of 3 differ by up to 0.4"
    only_label = signed | {"label": changed(LABEL, 2, 0)}
    assert difference(CONTRACT, signed, only_label) == "1 of 3 differ"


def test_outputs_of_different_lengths_are_counted_one_after_the_other():
    got: dict[str, Array] = {"label": np.array([5], np.int64), "p": P}
    wanted: dict[str, Array] = {"label": np.array([4], np.int64), "p": P}
    assert difference(CONTRACT, wanted, got) == "1 of 4 differ"


def test_text_and_scalars_are_compared_too():
    contract = Contract(
        (TensorSpec("x", "FP32", (-1,)),),
        (TensorSpec("name", "BYTES", (-1,)), TensorSpec("total", "FP64", ())),
    )
    wanted: dict[str, Array] = {"name": np.array(["a", "b"], object), "total": np.array(1.0)}
    assert difference(contract, wanted, wanted) is None
    got: dict[str, Array] = {"name": np.array(["a", "c"], object), "total": np.array(1.0)}
    assert difference(contract, wanted, got) == "1 of 3 differ"
