"""What whoever builds a profile is told to look at."""

import numpy as np
import pytest

from control_plane.catalog import lints
from control_plane.catalog.lints import Lint, said
from control_plane.catalog.profile import make_input_profile, make_profile
from protocol.members import Contract, TensorSpec

RNG = np.random.default_rng(11)
NUMBERS = TensorSpec("x", "FP32", (-1, 4))
CITY = TensorSpec("city", "BYTES", (-1,))


def found(code, spec=NUMBERS, values=None):
    values = RNG.normal(size=(6000, 4)) if values is None else values
    made = make_input_profile([spec], {spec.name: values})
    return [(lint.feature, lint.text) for lint in made.lints if lint.code == code]


CODES = ("few-rows", "constant", "rare-words", "missing", "repeated-rows", "no-residual")


@pytest.mark.parametrize("code", CODES)
def test_samples_in_good_order_have_nothing_to_look_at(code):
    assert found(code) == []


def test_few_rows_are_told():
    assert found("few-rows", values=RNG.normal(size=(4999, 4))) == [
        ("", "4,999 rows; 5,000 make a firm reference")
    ]


def test_a_column_of_one_value_is_named():
    values = RNG.normal(size=(6000, 4))
    values[:, 2] = 7
    assert found("constant", values=values) == [("x_2", "one value in all rows")]
    cities = np.full(6000, "leeds", object)
    assert found("constant", CITY, cities) == [("city", "one value in all rows")]


def test_two_values_are_no_constant_and_many_rare_words_are_none():
    values = RNG.normal(size=(6000, 4))
    values[:, 2] = RNG.integers(0, 2, 6000)
    assert found("constant", values=values) == []
    assert found("constant", CITY, np.array([f"c{n}" for n in range(6000)], object)) == []


def test_a_rare_word_is_counted_as_other_and_named_nowhere():
    cities = np.array(["leeds"] * 500 + ["york"] * 20 + ["Ada Lovelace"] * 19 + ["x"], object)
    made = make_input_profile([CITY], {"city": cities})
    (feature,) = made.profile.features
    assert (feature.words, feature.counts) == (("leeds", "york"), (500, 20, 20, 0))
    lint = next(lint for lint in made.lints if lint.code == "rare-words")
    assert lint.text == "2 rare words count as `other` (20 rows); the profile names none"
    everything = repr(made.profile) + "".join(said(made.lints))
    assert "Ada" not in everything


def test_a_column_that_is_mostly_missing_is_named():
    values = RNG.normal(size=(6000, 4))
    values[:3001, 1] = np.nan
    assert found("missing", values=values) == [("x_1", "missing in 50% of the rows")]
    values[:, 1] = np.nan
    assert found("missing", values=values) == [("x_1", "missing in 100% of the rows")]
    assert found("constant", values=values) == []


def test_rows_that_are_copies_are_told_if_columns_have_many_values():
    values = RNG.normal(size=(6000, 4))
    values[:2000] = values[2000:4000]
    assert found("repeated-rows", values=values) == [("", "33% of the rows are copies of others")]
    few = RNG.integers(0, 3, (6000, 4)).astype(np.float32)
    assert found("repeated-rows", values=few) == []


def test_copies_are_counted_over_all_inputs_together():
    table = np.repeat(np.arange(3000.0), 2)[:, None]
    other = np.arange(6000.0)
    assert [*lints.of_rows({"a": table})]
    assert not [*lints.of_rows({"a": table, "b": other})]
    words = np.array(["a", "b"] * 3000, object)
    assert not [*lints.of_rows({"a": table, "b": words})]


def test_no_residual_says_why():
    assert found("no-residual", TensorSpec("x", "FP32", (-1, 2)), RNG.normal(size=(6000, 2))) == [
        ("", "2 of 3 columns of numbers that it takes")
    ]


CLASSIFIER = Contract(
    (NUMBERS,), (TensorSpec("p", "FP32", (-1, 2), role="probabilities"),), ("a", "b")
)
REGRESSOR = Contract((NUMBERS,), (TensorSpec("y", "FP32", (-1, 1)),))
LABELLER = Contract((NUMBERS,), (TensorSpec("l", "INT64", (-1,), role="label"),), ("0", "1"))


@pytest.mark.parametrize(
    "contract,output,labels,texts",
    [
        (CLASSIFIER, np.full((150, 2), 0.5), ["a"] * 150, []),
        (
            CLASSIFIER,
            np.full((150, 2), 0.5),
            ["a"] * 99 + [""] * 51,
            ["no-calibration: 99 labelled rows, 100 are needed"],
        ),
        (
            CLASSIFIER,
            np.full((150, 2), 0.5),
            ["a"] * 140 + ["z"] * 10,
            ["foreign-labels: 10 of 150 labels are no class of the model"],
        ),
        (
            REGRESSOR,
            np.zeros((150, 1)),
            ["a"] * 150,
            ["no-calibration: the model names no class that labels could be"],
        ),
        (
            LABELLER,
            np.zeros(150, int),
            ["0"] * 150,
            ["no-calibration: the model gives no probabilities"],
        ),
    ],
    ids=["fine", "few labels", "foreign labels", "regressor", "no probabilities"],
)
def test_labels_that_give_no_calibration_are_told(contract, output, labels, texts):
    outputs = {contract.outputs[0].name: output}
    samples = {"x": RNG.normal(size=(150, 4))}
    made = make_profile(contract, samples, outputs, labels=np.array(labels, object))
    lines = [*said(lint for lint in made.lints if "label" in lint.code + lint.text)]
    more = [*said(lint for lint in made.lints if lint.code == "no-calibration")]
    assert sorted({*lines, *more}) == texts


def test_equal_lints_are_one_line_that_names_the_first_features():
    constant = [Lint("constant", f"x_{n}", "one value in all rows") for n in range(7)]
    assert [*said([Lint("few-rows", "", "12 rows"), *constant])] == [
        "few-rows: 12 rows",
        "constant: x_0, x_1, x_2, x_3, x_4 and 2 more: one value in all rows",
    ]
