"""`outrider profile build`, and what `outrider model build` takes from it."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from control_plane import cli
from protocol.members import member_document
from protocol.profile import Profile
from tests.control_plane.catalog.onnx_files import classifier, rows, save
from tests.fakes.command_line import ran

SAMPLES = 300


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OUTRIDER_HOME", raising=False)
    save(classifier(), tmp_path / "net.onnx")
    with (tmp_path / "week.csv").open("w", newline="") as file:
        table = [[*row, n % 3] for n, row in enumerate(rows(SAMPLES).tolist())]
        csv.writer(file).writerows([("a", "b", "c", "d", "truth"), *table])
    return tmp_path


def profile(folder, name="profile.json"):
    return member_document((folder / name).read_bytes(), Profile)


def test_a_profile_is_built_of_a_table_and_a_model(folder):
    done = ran(
        cli.run, ["profile", "build", "week.csv", "--model", "net.onnx", "--labels", "truth"]
    )
    assert done.exit == 0
    assert done.out.splitlines()[:2] == [
        "profile  4 features, 300 rows",
        "residual of 3 components over 4 columns",
    ]
    assert "lint     few-rows: 300 rows; 5,000 make a firm reference" in done.err
    made = profile(folder)
    assert [feature.name for feature in made.features] == ["a", "b", "c", "d"]
    assert made.accuracy is not None


def test_the_same_as_json_has_the_lints(folder):
    done = ran(cli.run, ["profile", "build", "week.csv", "--labels", "truth", "--json"])
    said = json.loads(done.out)
    assert (said["profile"], said["rows"], said["accuracy"]) == ("profile.json", 300, None)
    assert {lint["code"] for lint in said["lints"]} == {"few-rows", "inputs-only"}
    assert said["features"] == ["a", "b", "c", "d"]


def test_what_is_monitored_can_be_said(folder):
    given = (
        "profile build week.csv --labels truth --watch none --window 15min --rows 100 --to p.json"
    )
    done = ran(cli.run, given.split())
    assert done.exit == 0
    made = profile(folder, "p.json")
    assert (made.features, made.window_s, made.window_rows) == ((), 900, 100)


@pytest.mark.parametrize(
    "given,code,why",
    [
        ("missing.csv", "OUT-S110", "no file named missing.csv"),
        ("week.csv --model missing.onnx", "OUT-S110", "no file named missing.onnx"),
        ("week.csv --labels nothing", "OUT-B108", "no labels named 'nothing'"),
        ("net.onnx", "OUT-B113", "no .npz, .csv or .parquet"),
        ("week.csv --window 1s", "OUT-S120", "it is 5 min to 1 d"),
        ("week.csv --window soon", "OUT-S120", "is a duration"),
        ("week.csv --rows 19", "OUT-S120", "it is 20 to 10,000"),
        ("week.csv --model net.onnx", "OUT-B108", "5 columns (a, b, c, d, truth)"),
        ("week.csv --watch pooled", "OUT-S120", "no input is an image"),
    ],
)
def test_what_cannot_be_is_refused_in_words(folder, given, code, why):
    done = ran(cli.run, ["profile", "build", *given.split()])
    assert done.exit in (2, 3)
    assert code in done.err
    assert why in " ".join(done.err.split())
    assert not (folder / "profile.json").exists()


def model_build(*more):
    given = "model build net.onnx --samples week.csv --labels truth --as net/v1 --no-dev"
    return ran(cli.run, [*given.split(), *more])


def test_a_bundle_takes_tables_labels_and_wishes(folder):
    done = model_build("--window", "2h", "--json")
    assert done.exit == 0
    assert {lint["code"] for lint in json.loads(done.out)["lints"]} == {"few-rows"}
    assert "lint     few-rows" in done.err
    assert (folder / "net-v1.bundle" / "index.json").exists()


def test_a_bundle_takes_a_profile_that_was_made_before(folder):
    ran(cli.run, ["profile", "build", "week.csv", "--model", "net.onnx", "--labels", "truth"])
    done = model_build("--profile", "profile.json")
    assert (done.exit, "lint" in done.err) == (0, False)
    assert "4 features, 300 rows" in done.out
    both = model_build("--profile", "profile.json", "--watch", "none")
    assert (both.exit, "--profile says what is monitored" in both.err) == (2, True)


@pytest.mark.parametrize(
    "content,code",
    [
        (b"{", "OUT-B114"),
        (b"{}", "OUT-B114"),
        (b'{"rows": 3, "must_understand": ["profile/9"]}', "OUT-B114"),
        (None, "OUT-S110"),
    ],
)
def test_what_is_no_profile_is_refused(folder, content, code):
    if content is not None:
        (folder / "profile.json").write_bytes(content)
    done = model_build("--profile", "profile.json")
    assert (done.exit, code in done.err) == (2 if content is not None else 3, True)


def test_of_samples_that_are_no_rows_nothing_is_left(folder):
    np.savez(folder / "bad.npz", x=np.array(3))
    done = ran(cli.run, ["profile", "build", "bad.npz"])
    assert (done.exit, "no arrays of rows" in done.err) == (2, True)
