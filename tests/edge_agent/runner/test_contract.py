import pytest

from edge_agent.runner.contract import Given, check_inputs, check_length, check_outputs
from protocol.errors import InvalidRequest
from protocol.members import Contract, TensorSpec

IMAGE = Contract(
    inputs=(TensorSpec("pixels", "FP32", (-1, 64)),),
    outputs=(TensorSpec("label", "INT64", (-1,)), TensorSpec("scores", "FP32", (-1, 10))),
)
PAIR = Contract(
    inputs=(TensorSpec("a", "FP32", (-1, 2)), TensorSpec("b", "INT64", (-1, -1))),
    outputs=(TensorSpec("y", "FP32", (-1,)),),
)
FIXED = Contract(
    inputs=(TensorSpec("x", "FP32", (3, 2)), TensorSpec("threshold", "FP32", ())),
    outputs=(TensorSpec("y", "FP32", (3,)),),
)


def given(**tensors: tuple[str, tuple[int, ...]]) -> list[Given]:
    return [Given(name, datatype, shape) for name, (datatype, shape) in tensors.items()]


@pytest.mark.parametrize(
    "contract, tensors, rows",
    [
        pytest.param(IMAGE, given(pixels=("FP32", (1, 64))), 1, id="one row"),
        pytest.param(IMAGE, given(pixels=("FP32", (500, 64))), 500, id="many rows"),
        pytest.param(PAIR, given(a=("FP32", (5, 2)), b=("INT64", (5, 9))), 5, id="two inputs"),
        pytest.param(PAIR, given(b=("INT64", (5, 9)), a=("FP32", (5, 2))), 5, id="any order"),
        pytest.param(
            FIXED, given(x=("FP32", (3, 2)), threshold=("FP32", ())), 3, id="fixed batch, scalar"
        ),
    ],
)
def test_a_request_that_fits_tells_its_rows(contract, tensors, rows):
    assert check_inputs(contract, tensors) == rows


@pytest.mark.parametrize(
    "contract, tensors, code, why",
    [
        pytest.param(
            IMAGE,
            given(pixel=("FP32", (1, 64))),
            "OUT-I101",
            "no input is called pixel; wanted pixels",
            id="wrong name",
        ),
        pytest.param(IMAGE, [], "OUT-I101", "input pixels is missing; wanted pixels", id="nothing"),
        pytest.param(
            IMAGE,
            [Given("pixels", "FP32", (1, 64))] * 2,
            "OUT-I101",
            "input pixels comes more than once",
            id="twice",
        ),
        pytest.param(
            IMAGE,
            given(pixels=("FP64", (1, 64))),
            "OUT-I103",
            "pixels has datatype FP64, wanted FP32",
            id="wrong datatype",
        ),
        pytest.param(
            IMAGE,
            given(pixels=("FP32", (1, 63))),
            "OUT-I102",
            "pixels has shape [1,63], wanted [-1,64]",
            id="wrong columns",
        ),
        pytest.param(
            IMAGE,
            given(pixels=("FP32", (64,))),
            "OUT-I102",
            "pixels has shape [64], wanted [-1,64]",
            id="no batch",
        ),
        pytest.param(
            IMAGE,
            given(pixels=("FP32", (0, 64))),
            "OUT-I102",
            "pixels has shape [0,64], wanted [-1,64]",
            id="no rows",
        ),
        pytest.param(
            IMAGE,
            given(pixels=("FP32", (-1, 64))),
            "OUT-I102",
            "pixels has shape [-1,64], wanted [-1,64]",
            id="negative rows",
        ),
        pytest.param(
            PAIR,
            given(a=("FP32", (5, 2)), b=("INT64", (4, 1))),
            "OUT-I102",
            "b has 4 rows, a has 5",
            id="batches differ",
        ),
        pytest.param(
            FIXED,
            given(x=("FP32", (4, 2)), threshold=("FP32", ())),
            "OUT-I102",
            "x has shape [4,2], wanted [3,2]",
            id="fixed batch",
        ),
        pytest.param(
            IMAGE,
            given(pixels=("FP32", (1,) * 64)),
            "OUT-I102",
            "pixels has shape [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,...], wanted [-1,64]",
            id="too many dimensions",
        ),
        pytest.param(
            IMAGE,
            [Given("\x1b[31m" + "x" * 500, "FP32", (1, 64))],
            "OUT-I101",
            "no input is called \\x1b[31m" + "x" * 75 + "; wanted pixels",
            id="hostile name",
        ),
    ],
)
def test_a_request_that_does_not_fit_is_told_the_first_thing_to_mend(contract, tensors, code, why):
    with pytest.raises(InvalidRequest) as caught:
        check_inputs(contract, tensors)
    assert (caught.value.code, caught.value.why) == (code, why)


def test_outputs_are_all_of_them_or_those_that_were_asked_for():
    assert [spec.name for spec in check_outputs(IMAGE, [])] == ["label", "scores"]
    assert [spec.name for spec in check_outputs(IMAGE, ["scores", "scores"])] == ["scores"]
    with pytest.raises(InvalidRequest, match="no output is called logits; wanted label, scores"):
        check_outputs(IMAGE, ["logits"])


def test_a_shape_needs_as_many_values_as_it_says():
    check_length(Given("pixels", "FP32", (2, 3)), 6)
    check_length(Given("threshold", "FP32", ()), 1)
    with pytest.raises(InvalidRequest, match=r"pixels has 5 values, its shape \[2,3\] needs 6"):
        check_length(Given("pixels", "FP32", (2, 3)), 5)
