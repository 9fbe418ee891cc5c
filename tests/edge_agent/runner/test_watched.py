"""What a runner counts where a profile watches more, or other, than one input of numbers."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import pytest

from edge_agent.runner.blame import Notebook
from edge_agent.runner.served import Served
from edge_agent.runner.views import Load
from protocol.errors import Failed
from protocol.members import Basis, Feature, Profile, Residual, Watched
from tests.fakes.bundles import make_bundle
from tests.fakes.serving import echo

COLUMNS = 7
CENTRE = (0.0123,) * COLUMNS
"""Of no other basis, by which this one is known."""


def test_a_runner_counts_what_a_profile_watches_of_several_inputs(tmp_path):
    edges = (0.0, 10.0)
    number = Feature("FP32_0", edges, (0, 9, 0, 0, 0))
    words = Feature("BYTES_0", counts=(9, 0, 0), kind="words", words=("york",))
    made = Profile(
        9,
        (words, words, number, number),
        watched=(Watched("BYTES", "words"), Watched("FP32")),
    )
    served = echo(tmp_path / "bundle", ("BYTES", "FP32"), made)
    assert served.tally.columns is not None
    inputs = [
        {"name": "BYTES", "datatype": "BYTES", "shape": [1, 2], "data": ["york", ""]},
        {"name": "FP32", "datatype": "FP32", "shape": [1, 2], "data": [5, 50]},
    ]
    for _ in range(3):
        served.infer(json.dumps({"inputs": inputs}).encode())
    windows = served.tally.collect()
    assert windows is not None
    assert (windows.inference.answers, windows.inference.errors) == (3, 0)
    counts = ((3, 0, 0), (0, 0, 3), (0, 3, 0, 0, 0), (0, 0, 3, 0, 0))
    assert windows.drift.counts == counts


@pytest.mark.parametrize(
    "profile, why",
    [
        (Profile(9, (Feature("x", (0.0,), (0, 9, 0, 0)),)), "1 features"),
        (Profile(9, score=Feature("x", (0.0,), (0, 9, 0, 0))), "no output that is one"),
    ],
)
def test_a_profile_of_another_contract_is_not_loaded(tmp_path, profile, why):
    with pytest.raises(Failed, match=why):
        echo(tmp_path / "bundle", ("FP32",), profile)


def with_a_basis(folder: Path) -> Served:
    feature = Feature("x", (0.0, 10.0), (0, 9, 0, 0, 0))
    basis = Basis(CENTRE, (1.0,) * COLUMNS, ((1.0, *(0.0,) * (COLUMNS - 1)),))
    profile = Profile(9, (feature,) * COLUMNS, residual=Residual(feature, basis))
    made = make_bundle(folder / "bundles", features=COLUMNS, profile=profile)
    load = Load("toy", made.digest, made.manifest, made.path)
    notebook = Notebook(folder / "blame", [("toy", load.digest)])
    return Served(load, 0, notebook, lambda *_: None)


def test_the_numbers_of_a_basis_stay_as_arrays_and_not_one_by_one(tmp_path):
    served = with_a_basis(tmp_path)
    gc.collect()
    kept = [each for each in gc.get_objects() if isinstance(each, Basis)]
    assert [each for each in kept if each.centre == CENTRE] == []
    row = {"name": "pixels", "datatype": "FP32", "shape": [1, COLUMNS], "data": [1.0] * COLUMNS}
    served.infer(json.dumps({"inputs": [row]}).encode())
    served.probe()
    windows = served.tally.collect()
    assert windows is not None
    assert windows.drift.residual == (0, 1, 0, 0, 0)
