"""A runner that is asked the rows that a bundle was built of counts what its profile counted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from control_plane.catalog import BuiltBundle, Monitoring, Wishes, build
from control_plane.catalog.layout import read
from control_plane.catalog.tables import Rows
from control_plane.catalog.watched import Watch
from edge_agent.runner.blame import Notebook
from edge_agent.runner.served import Served
from edge_agent.runner.views import Load
from tests.control_plane.catalog.onnx_files import classifier, model, rows, save, value

ROWS = 320
RNG = np.random.default_rng(21)
IMAGES = RNG.normal(size=(ROWS, 3, 8, 8)).astype(np.float32)
HIDDEN = RNG.normal(size=(ROWS, 3)).astype(np.float32)

TEXTS = model(
    [
        helper.make_node(
            "OneHotEncoder",
            ["city"],
            ["coded"],
            domain="ai.onnx.ml",
            cats_strings=["leeds", "york"],
            zeros=1,
        ),
        helper.make_node("MatMul", ["coded", "w"], ["from_city"]),
        helper.make_node("Add", ["from_city", "x"], ["score"]),
    ],
    inputs=[
        value("city", TensorProto.STRING, ["n"]),
        value("x", TensorProto.FLOAT, ["n", 1]),
    ],
    outputs=[value("score", TensorProto.FLOAT, ["n", 1])],
    constants={"w": np.array([[1], [2]], np.float32)},
    domains=("ai.onnx.ml",),
)
POOLED = model(
    [helper.make_node("GlobalMaxPool", ["image"], ["peak"])],
    inputs=[value("image", TensorProto.FLOAT, ["n", 3, 8, 8])],
    outputs=[value("peak", TensorProto.FLOAT, ["n", 3, 1, 1])],
)
EMBEDDING = model(
    [helper.make_node("MatMul", ["x", "w"], ["embedding"])],
    inputs=[value("x", TensorProto.FLOAT, ["n", 3])],
    outputs=[value("embedding", TensorProto.FLOAT, ["n", 9])],
    constants={"w": RNG.normal(size=(3, 9)).astype(np.float32)},
)
SEVERAL = model(
    [helper.make_node("Concat", ["a", "b"], ["score"], axis=1)],
    inputs=[value("a", TensorProto.FLOAT, ["n", 2]), value("b", TensorProto.FLOAT, ["n", 1])],
    outputs=[value("score", TensorProto.FLOAT, ["n", 3])],
)
CITIES = np.array([["leeds", "york", ""][n % 3] for n in range(ROWS)], object)

CASES: dict[str, tuple[onnx.ModelProto, dict[str, NDArray[Any]], Watch]] = {
    "numbers": (classifier(), {"pixels": rows(ROWS)}, "auto"),
    "words and numbers": (TEXTS, {"city": CITIES, "x": HIDDEN[:, :1]}, "auto"),
    "several inputs": (SEVERAL, {"a": HIDDEN[:, :2], "b": HIDDEN[:, 2:]}, "auto"),
    "pooled": (POOLED, {"image": IMAGES}, "pooled"),
    "projected": (EMBEDDING, {"x": HIDDEN + IMAGES[:, 0, 0, :3]}, "embedding"),
}


def served(folder: Path, bundle: BuiltBundle) -> Served:
    layout = read(bundle.directory)
    staged = folder / "device"
    staged.mkdir()
    shutil.copy(bundle.directory / "index.json", staged)
    shutil.copy(layout.path(bundle.manifest), staged / "manifest.json")
    for member in layout.variants[0].members:
        shutil.copy(layout.path(member.digest), staged / member.path)
    load = Load("net", bundle.digest, bundle.manifest, staged)
    notebook = Notebook(folder / "blame", [("net", load.digest)])
    return Served(load, 0, notebook, lambda *_: None)


@pytest.mark.parametrize("case", CASES)
def test_a_runner_counts_the_samples_as_the_profile_does(tmp_path, case):
    proto, samples, watch = CASES[case]
    wishes = Wishes(watch=watch, window_s=900, window_rows=30)
    bundle = build(
        save(proto, tmp_path / "net.onnx"),
        Rows(samples),
        "net/v1",
        into=tmp_path,
        monitoring=Monitoring(wishes=wishes),
    )
    runner = served(tmp_path, bundle)
    runner.probe()
    datatypes = {spec.name: spec.datatype for spec in bundle.contract.inputs}
    # Batches of another size than the builder's: sums come in another order.
    for start in range(0, ROWS, 40):
        inputs = [
            {
                "name": name,
                "datatype": datatypes[name],
                "shape": [40, *array.shape[1:]],
                "data": array[start : start + 40].ravel().tolist(),
            }
            for name, array in samples.items()
        ]
        runner.infer(json.dumps({"inputs": inputs}).encode())
    windows = runner.tally.collect()
    assert windows is not None
    assert (windows.inference.rows, windows.inference.errors) == (ROWS, 0)
    assert (windows.window_s, windows.window_rows) == (900, 30)
    profile = bundle.profile
    assert profile.features
    counted = [*windows.drift.counts, windows.drift.residual]
    wanted = [feature.counts for feature in profile.features]
    wanted.append(profile.residual.feature.counts if profile.residual is not None else ())
    for name, here, there in zip(
        [*(feature.name for feature in profile.features), "residual"], counted, wanted, strict=True
    ):
        moved = np.abs(np.array(here) - np.array(there)).sum() / 2
        assert moved <= 1, name
    assert windows.inference.confidence == profile.confidence
    assert windows.inference.score == (profile.score.counts if profile.score else ())
