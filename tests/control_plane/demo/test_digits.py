"""The demo's figures: what its story needs of data and models must hold."""

import numpy as np
import pytest

from control_plane.catalog import build_estimator
from control_plane.catalog.profile import count
from control_plane.demo import digits
from control_plane.drift.cohort import judge
from protocol.payload import FRAME_SIZE


def judged(pipeline, data):
    """`(accuracy, mean confidence)`."""
    probabilities = pipeline.predict_proba(data.pixels)
    return (probabilities.argmax(axis=1) == data.labels).mean(), probabilities.max(axis=1).mean()


@pytest.fixture(scope="module")
def models():
    return {
        "v1": digits.train(600),
        "v2": digits.train(1200),
        "v3": digits.train(1200, shuffled_labels=True),
    }


def test_v1_is_good_v2_is_better_and_v3_knows_nothing(models):
    held_out = digits.held_out()
    v1, v2, v3 = (judged(models[name], held_out) for name in ("v1", "v2", "v3"))
    assert 0.88 < v1[0] < 0.95 < v2[0]
    assert v3[0] < 0.2
    assert min(v1[1], v2[1]) > 0.9
    assert v3[1] < 0.5


def test_held_out_images_are_never_trained_on(monkeypatch):
    monkeypatch.setattr(digits, "_NOISE", 0.0)
    trained = {row.tobytes() for row in digits.training(digits.TRAINING_ROWS).pixels}
    met = {row.tobytes() for row in digits.held_out().pixels}
    assert (len(trained), len(met)) == (digits.TRAINING_ROWS, digits.HELD_OUT)
    assert not trained & met
    assert met == {row.tobytes() for row in digits.reference().pixels}


def test_devices_meet_no_row_of_the_reference():
    met = {row.tobytes() for row in digits.held_out().pixels}
    known = {row.tobytes() for row in digits.reference().pixels}
    assert len(met) == len(known) == digits.HELD_OUT * digits.LOOKS
    assert not met & known


@pytest.mark.parametrize("requests", [60, 547, 4_000, 20_000])
def test_only_shifted_traffic_drifts_however_often_the_same_images_come(models, tmp_path, requests):
    samples = digits.reference().pixels
    bundle = build_estimator(models["v1"], samples, "digits/v1", into=tmp_path)

    def verdict(pixels):
        order = np.random.default_rng(requests).permutation(len(pixels))
        rows = pixels[np.resize(order, requests)]
        features = enumerate(bundle.profile.features)
        counts = [
            count(rows[:, column], np.array(feature.edges, np.float32))
            for column, feature in features
        ]
        return judge(bundle.profile, counts)

    traffic = digits.held_out().pixels
    assert verdict(traffic).verdict == "no drift"
    moved = verdict(digits.shifted(traffic))
    assert moved.verdict == "cohort drifted"
    assert len(moved.drifted) > 20


def test_shuffled_labels_are_the_same_labels_of_other_rows():
    right, wrong = digits.training(1200), digits.training(1200, shuffled_labels=True)
    assert np.array_equal(np.bincount(right.labels), np.bincount(wrong.labels))
    assert (right.labels == wrong.labels).mean() < 0.2


def test_shifted_images_differ_and_stay_in_range():
    pixels = digits.held_out().pixels
    moved = digits.shifted(pixels)
    assert moved.shape == pixels.shape
    assert moved.dtype == np.float32
    assert 0 <= moved.min() <= moved.max() <= 16
    assert np.abs(moved - pixels).mean() > 2


def test_a_bundle_is_several_frames_and_the_same_every_time(models, tmp_path):
    rows = digits.reference().pixels
    bundles = [
        build_estimator(model, rows, "digits/v1", input_name=digits.INPUT, into=tmp_path)
        for model in (models["v1"], digits.train(600))
    ]
    assert bundles[0].digest == bundles[1].digest
    assert 4 * FRAME_SIZE < bundles[0].size_bytes < 1_500_000
    (pixels,) = bundles[0].contract.inputs
    assert (pixels.name, pixels.datatype, pixels.shape) == ("pixels", "FP32", (-1, 64))
