"""Fitted scikit-learn estimators become bundles that answer alike."""

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from control_plane.catalog import build_estimator
from control_plane.catalog.layout import read
from protocol.errors import InvalidRequest
from tests.control_plane.catalog.onnx_files import rows

X = rows(300)
BINARY = (X[:, 0] > 0).astype(int)
THREE = np.digitize(X[:, 1], [-0.5, 0.5]) * 10


@pytest.mark.parametrize(
    "estimator,y,classes",
    [
        (LogisticRegression(), BINARY, ("0", "1")),
        (make_pipeline(StandardScaler(), LogisticRegression()), THREE, ("0", "10", "20")),
        (RandomForestClassifier(5, random_state=0), THREE, ("0", "10", "20")),
    ],
    ids=["binary", "pipeline", "forest"],
)
def test_classifiers_ship_label_probabilities_and_classes(tmp_path, estimator, y, classes):
    bundle = build_estimator(estimator.fit(X, y), X, "net/v1", y=y, into=tmp_path)
    assert [(spec.name, spec.role) for spec in bundle.contract.outputs] == [
        ("label", "label"),
        ("probabilities", "probabilities"),
    ]
    assert bundle.contract.classes == classes
    assert sum(bundle.profile.classes) == sum(bundle.profile.confidence) == 300
    assert bundle.card.metrics["samples_accuracy"] > 0.9
    assert bundle.card.framework.startswith("scikit-learn")


def test_labels_of_text_live_in_the_contract(tmp_path):
    y = np.where(BINARY, "ripe", "green")
    bundle = build_estimator(LogisticRegression().fit(X, y), X, "net/v1", y=y, into=tmp_path)
    assert [spec.name for spec in bundle.contract.outputs] == ["probabilities"]
    assert bundle.contract.classes == ("green", "ripe")
    assert bundle.card.metrics["samples_accuracy"] > 0.9


def test_a_regressor_ships_its_number(tmp_path):
    y = X @ np.array([1.0, 2.0, 3.0, 4.0])
    bundle = build_estimator(LinearRegression().fit(X, y), X, "net/v1", y=y, into=tmp_path)
    assert [spec.role for spec in bundle.contract.outputs] == ["other"]
    assert bundle.card.metrics["samples_r2"] == pytest.approx(1.0)


def test_equal_estimators_give_equal_bundles(tmp_path):
    digests = {
        build_estimator(LogisticRegression().fit(X, BINARY), X, "net/v1", into=tmp_path).digest
        for _ in range(2)
    }
    assert len(digests) == 1


def test_the_names_of_columns_become_those_of_features(tmp_path):
    class Table:
        columns = ("a", "b", "c", "d")

        def __array__(self, dtype=None, copy=None):
            return X

    bundle = build_estimator(LogisticRegression().fit(X, BINARY), Table(), "net/v1", into=tmp_path)
    assert [feature.name for feature in bundle.profile.features] == ["a", "b", "c", "d"]


def test_an_estimator_that_cannot_be_converted_is_refused(tmp_path):
    with pytest.raises(InvalidRequest, match=r"B102.*skl2onnx"):
        build_estimator(KernelDensity().fit(X), X, "net/v1", into=tmp_path)


def test_a_conversion_that_answers_otherwise_is_refused(tmp_path):
    # float32 has 24 bits: beside 2^24 the differences between rows are lost.
    far = X.astype(np.float64) / 10 + 2**24
    y = (far[:, 0] > 2**24).astype(int)
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(far, y)
    with pytest.raises(InvalidRequest, match="B112"):
        build_estimator(fitted, far, "net/v1", into=tmp_path)


@pytest.mark.parametrize("table", [[["a", "b"]], np.zeros((0, 4)), np.zeros(4)])
def test_rows_that_are_no_table_of_numbers_are_refused(tmp_path, table):
    with pytest.raises(InvalidRequest, match="B108"):
        build_estimator(LogisticRegression().fit(X, BINARY), table, "net/v1", into=tmp_path)


def test_what_is_written_can_be_read(tmp_path):
    bundle = build_estimator(LogisticRegression().fit(X, BINARY), X, "net/v1", into=tmp_path)
    assert read(tmp_path / "net-v1.bundle").digest == bundle.digest
