"""The corpus is what it says it is, and the measurement goes through."""

import json
import math
import shutil

import numpy as np
import pytest

from tests.bench import payload
from tests.bench.packing import (
    corpus,
    decoding,
    foreign,
    numpy_models,
    peers,
    sklearn_models,
    table,
)
from tests.bench.packing.corpus import CASES, FAMILIES, Case, Corpus, Family, Missing
from tests.bench.packing.peers import Measured, Peer
from tests.bench.packing.table import Result
from tests.fakes import onnx_files

STUDIED = (
    "1a 1b 1c 2a 2b 3a 3b 4a 4b 5a 5b 5c 5d 5e 5f 5g 5h 6a 6b 6c 7a 7b 8a 9a 9b 9c 9d"
    " 10a 10b 10c 10d 10e B1 B2 B6 B7 B8 B10"
)
UPDATE = Case("u", "an update", "after", "before", "floats")


# --- the corpus ---------------------------------------------------------------------------------


def test_cases_are_those_of_the_study():
    assert [case.name for case in CASES] == STUDIED.split()
    assert sum(case.is_update for case in CASES) == 32


def test_every_file_of_a_case_is_made_by_one_family():
    made = [file for family in FAMILIES.values() for file in family.files]
    assert len(made) == len(set(made))
    for case in CASES:
        assert {f"{name}.onnx" for name in (case.target, case.base) if name} <= set(made), case.name


@pytest.mark.timeout(900)
def test_the_corpus_is_the_same_from_the_same_seeds(tmp_path):
    found = []
    for name in ("one", "two"):
        files = Corpus(tmp_path / name)
        found.append([files.file(f"gbc_{which}").read_bytes() for which in ("base", "more")])
    assert found[0] == found[1]
    assert found[0][0] != found[0][1]


def test_a_file_is_made_once_until_its_recipe_changes(tmp_path, monkeypatch):
    made = []

    def make(folder):
        made.append(folder)
        (folder / "a.onnx").write_bytes(b"a")

    families = {"a": Family(make, ("a.onnx",))}
    for _ in range(2):
        Corpus(tmp_path, families).file("a")
    assert len(made) == 1
    monkeypatch.setattr(corpus, "RECIPE", corpus.RECIPE + 1)
    Corpus(tmp_path, families).file("a")
    assert len(made) == 2


def test_what_is_made_of_a_file_is_made_anew_with_it(tmp_path, monkeypatch):
    order = []

    def make(name):
        def write(folder):
            order.append(name)
            (folder / f"{name}.onnx").write_bytes(b"x")

        return write

    families = {
        "a": Family(make("a"), ("a.onnx",)),
        "b": Family(make("b"), ("b.onnx",), ("a.onnx",)),
    }
    Corpus(tmp_path, families).file("b")
    assert order == ["a", "b"]
    monkeypatch.setattr(corpus, "RECIPE", corpus.RECIPE + 1)
    Corpus(tmp_path, families).file("b")
    assert order == ["a", "b", "a", "b"]


def test_without_a_library_its_files_are_missing_and_not_invented(tmp_path):
    def make(_):
        raise Missing("no such library")

    files = Corpus(tmp_path, {"a": Family(make, ("a.onnx",))})
    for _ in range(2):
        with pytest.raises(Missing, match="no such library"):
            files.file("a")


def test_a_site_sees_the_digits_moved_and_noisy():
    images, _ = sklearn_models.digits()
    seen = sklearn_models.site(images)
    assert seen.shape == images.shape
    moved = np.roll(images.reshape(-1, 8, 8), 1, axis=2).reshape(len(images), -1)
    assert 0.01 < np.abs(seen - moved).mean() < 0.05


# --- the network that is trained with numpy -----------------------------------------------------


def test_a_gradient_is_the_slope_of_the_loss():
    rng = np.random.default_rng(3)
    state = numpy_models.fresh(3)
    images = rng.random((6, 1, 8, 8), np.float32)
    labels = rng.integers(0, 10, 6)
    _, found = numpy_models.gradients(dict(state), images, labels, live=True)
    for name in ("head.weight", "hidden.bias", "f.8.weight", "f.7.weight", "f.0.weight"):
        length = np.float32(np.linalg.norm(found[name]))
        losses = []
        for step in (0.01, -0.01):
            moved = np.float32(step) * found[name] / length
            other = {**state, name: np.asarray(state[name] + moved, np.float32)}
            losses.append(numpy_models.gradients(other, images, labels, live=True)[0])
        slope = (losses[0] - losses[1]) / 0.02
        assert slope == pytest.approx(length, rel=0.05), name


@pytest.mark.timeout(900)
def test_training_lowers_the_loss_and_leaves_what_is_frozen():
    images, labels = sklearn_models.digits()
    images, labels = images[:128].reshape(-1, 1, 8, 8), labels[:128]
    state = numpy_models.fresh(1)
    before, _ = numpy_models.gradients(dict(state), images, labels, live=False)
    trained = numpy_models.train(
        state, images, labels, 1, numpy_models.adam(1e-3), ("head",), live=False
    )
    after, _ = numpy_models.gradients(dict(trained), images, labels, live=False)
    assert after < before
    changed = {name for name in state if not np.array_equal(state[name], trained[name])}
    assert changed == {"head.weight", "head.bias"}


# --- what others make ---------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path):
    before = onnx_files.some_floats(4096, 1)
    after = onnx_files.trained_on(before, 2)
    for name, values in (("before", before), ("after", after)):
        (tmp_path / f"{name}.onnx").write_bytes(onnx_files.weights(values))
    return tmp_path / "after.onnx", tmp_path / "before.onnx"


def test_a_peer_that_is_here_gives_back_what_it_was_given(pair, tmp_path):
    target, base = pair
    work = tmp_path / "work"
    work.mkdir()
    programs = {
        "zstd": peers.zstd,
        "xz": peers.xz,
        "brotli": peers.brotli_11,
        "zstd patch": peers.zstd_patch,
        "xdelta3": peers.xdelta3,
        "casync": peers.casync,
    }
    for name, measure in programs.items():
        program = name.partition(" ")[0]
        if program != "brotli" and not shutil.which(program):
            continue
        assert 0 < measure(target, base, work) < 1.2 * target.stat().st_size, name


def test_xor_goes_as_far_as_the_base():
    assert foreign.xor(b"\x01\x02\x03", b"\x01\x01") == b"\x00\x03\x03"
    assert foreign.xor(b"\x01", b"\x01\x01") == b"\x00"


def test_a_peer_that_is_missing_is_said_to_be(pair):
    target, base = pair
    here = Peer("here", "1.0", lambda *_: 500)
    gone = Peer("gone", "", lambda *_: 1 // 0)
    assert here.takes(target, base)
    assert not gone.takes(target, base)
    result = Result(UPDATE, 1000, 400, "segments", {"here": 500})
    rows = list(table.rows([result], {"here": "1.0", "gone": ""}))
    assert [row.what for row in rows if row.unit == "not run"] == ["gone is not on this machine"]
    assert "| 500 | – |" in table.wide([result], ["here", "gone"])


def test_a_program_that_is_not_on_the_path_has_no_version(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert peers._version("zstd", "--version") == ""


def test_a_peer_without_a_base_sees_only_updates(pair):
    target, base = pair
    needs = Peer("needs", "1", lambda *_: 1, based=True)
    assert needs.takes(target, base)
    assert not needs.takes(target, None)
    assert not Peer("small", "1", lambda *_: 1, largest=10).takes(target, base)


def test_bytes_are_measured_once_per_version_and_files(pair, tmp_path):
    target, base = pair
    asked = []

    def measure(of, on, _):
        asked.append((of, on))
        return 7

    for version in ("1", "1", "2"):
        known = Measured(tmp_path / "known.json")
        assert known.bytes_of(Peer("x", version, measure), target, base) == 7
    # The base is of no interest to who makes no use of it.
    assert asked == [(target, None)] * 2
    Measured(tmp_path / "known.json").bytes_of(Peer("x", "2", measure, based=True), target, base)
    assert asked[2:] == [(target, base)]


# --- the figures --------------------------------------------------------------------------------


def test_the_best_other_is_chosen_case_by_case():
    results = [
        Result(UPDATE, 1000, 100, "segments", {"a": 200, "b": 300}),
        Result(UPDATE, 1000, 100, "patch", {"a": 400, "b": 50}),
    ]
    assert [each.best for each in results] == [("a", 200), ("b", 50)]
    assert table.mean(results) == pytest.approx(math.sqrt(2 * 0.5))


def test_goals_are_of_updates_and_of_first_installs():
    first = Case("f", "a first install", "before")
    results = [
        Result(UPDATE, 1000, 100, "segments", {"a": 97}),
        Result(UPDATE, 1000, 100, "segments", {"a": 200}),
        Result(first, 1000, 100, "brotli", {"a": 101}),
    ]
    rows = {row.what: row for row in table.rows(results, {"a": "1"})}
    assert [row.ok for row in table.rows(results, {"a": "1"})][:3] == [False, True, None]
    assert rows["updates, mean"].ok
    assert rows["updates, worst"].ours == pytest.approx(0.97)
    assert rows["first installs, mean"].ok
    assert rows["updates, a alone"].ours == pytest.approx(math.sqrt(0.97 * 2))


def test_means_of_some_cases_have_no_goal():
    results = [Result(UPDATE, 1000, 100, "segments", {"a": 110})]
    for whole, ok in ((True, False), (False, None)):
        rows = {row.what: row for row in table.rows(results, {"a": "1"}, whole=whole)}
        assert rows["updates, mean"].ok is ok


def test_without_a_peer_there_is_no_mean():
    rows = list(table.rows([Result(UPDATE, 1000, 100, "segments", {})], {}))
    assert [row.what for row in rows] == ["u an update"]
    assert rows[0].ok is None


@pytest.mark.timeout(900)
def test_a_case_goes_through_and_is_verified(tmp_path, capsys):
    status = payload.main(["--cases", "5h", "--no-peer", "--no-huge"], tmp_path)
    said = capsys.readouterr()
    assert "5h boosted classifier" in said.out
    rows = {row["what"]: row for row in json.loads((tmp_path / "payload.json").read_text())["rows"]}
    assert 1_000 < rows["5h boosted classifier, 5 % more rows"]["ours"] < 8_000
    assert status == int(any(row["ok"] is False for row in rows.values()))


def test_a_payload_that_becomes_something_else_is_told(tmp_path, pair):
    target, base = pair
    made, used = payload.smallest(
        decoding.file_of(target), decoding.file_of(base), tmp_path / "made"
    )
    assert used is not None
    other = decoding.file_of(base)
    with pytest.raises(ValueError):
        decoding.decode(made, other, used, tmp_path / "out")


def test_an_unknown_case_is_refused(capsys):
    with pytest.raises(SystemExit):
        payload.main(["--cases", "99z"])
    assert "99z" in capsys.readouterr().err
