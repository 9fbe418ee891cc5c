"""Samples from files: archives of arrays, and tables of two kinds."""

import csv
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from control_plane.catalog import tables
from control_plane.catalog.profile import make_input_profile
from control_plane.catalog.tables import Rows, names_of, read_rows, take_labels
from protocol.errors import InvalidRequest
from protocol.members import TensorSpec


def written(tmp_path, text, name="rows.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_column_is_a_number_only_if_every_cell_is(tmp_path):
    found = read_rows(written(tmp_path, "a,b,c,d\n1,1.5,x,7\n,2, y ,seven\n3,inf,,7\n"))
    assert found.columns == ("a", "b", "c", "d")
    kinds = {name: array.dtype.kind for name, array in found.arrays.items()}
    assert kinds == {"a": "f", "b": "f", "c": "O", "d": "O"}
    assert found.arrays["a"].tolist()[::2] == [1, 3]
    assert np.isnan(found.arrays["a"][1])
    assert found.arrays["c"].tolist() == ["x", "y", ""]
    assert found.arrays["d"].tolist() == ["7", "seven", "7"]


@pytest.mark.parametrize(
    "cells,kind",
    [
        (["1", "-2", "+3"], "i"),
        (["1", "9223372036854775808"], "f"),
        (["1", "2.0"], "f"),
        (["1_000", "2"], "O"),
        (["²", "2"], "O"),
        (["nan", "1e3"], "f"),
        (["", ""], "f"),
        (["true", "false"], "O"),
    ],
)
def test_whole_numbers_stay_whole_and_what_looks_odd_is_text(tmp_path, cells, kind):
    text = "a,b\n" + "".join(f"{cell},1\n" for cell in cells)
    assert read_rows(written(tmp_path, text)).arrays["a"].dtype.kind == kind


@given(
    st.lists(
        st.tuples(
            st.floats(), st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]))
        ),
        min_size=1,
        max_size=30,
    )
)
@settings(deadline=None, max_examples=50)
def test_what_is_written_as_csv_is_what_is_read(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("number", "text"), *((x, f"t{text}") for x, text in rows)])
    found = read_rows(path).arrays
    assert np.array_equal(found["number"], [x for x, _ in rows], equal_nan=True)
    assert found["text"].tolist() == [f"t{text}" for _, text in rows]


@pytest.mark.parametrize(
    "text,why",
    [
        ("", "is empty"),
        ("a,b\n1\n", r"line 2: 1 cells, 2 columns"),
        ("a,a\n1,2\n", "two columns are called 'a'"),
        ("a,\n1,2\n", "a column has no name"),
        ("a;b\n1;2\n", "has one column, 'a;b'"),
        ('a,b\n1,"2\n', "unexpected end of data"),
    ],
)
def test_a_csv_file_that_is_no_table_is_refused(tmp_path, text, why):
    with pytest.raises(InvalidRequest, match="B113.*" + why):
        read_rows(written(tmp_path, text))


def test_text_that_is_not_utf_8_is_refused(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"a,b\n1,\xff\n")
    with pytest.raises(InvalidRequest, match=r"B113.*utf-8"):
        read_rows(path)


def test_a_mark_of_byte_order_and_empty_lines_are_no_rows(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\xef\xbb\xbfa,b\r\n1,2\r\n\r\n3,4\r\n")
    assert read_rows(path).arrays["a"].tolist() == [1, 3]


def test_other_files_are_refused_with_what_can_be_read(tmp_path):
    with pytest.raises(InvalidRequest, match=r"B113.*no .npz, .csv or .parquet"):
        read_rows(written(tmp_path, "a", "rows.xlsx"))
    with pytest.raises(InvalidRequest, match=r"B113.*No such file"):
        read_rows(tmp_path / "rows.csv")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"no archive"])
@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_damaged_files_are_refused(tmp_path, kind, content):
    path = tmp_path / f"rows.{kind}"
    path.write_bytes(content)
    with pytest.raises(InvalidRequest, match="B113"):
        read_rows(path)


def test_arrays_are_read_as_they_are_and_never_unpickled(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.eye(3), y=np.arange(3))
    found = read_rows(tmp_path / "a.npz")
    assert (found.columns, set(found.arrays)) == ((), {"x", "y"})
    np.savez(tmp_path / "b.npz", x=np.array([{}], object))
    with pytest.raises(InvalidRequest, match=r"B113.*pickle"):
        read_rows(tmp_path / "b.npz")


def test_what_is_too_large_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "zeros.npz", x=np.zeros((1000, 100)))
    path = written(tmp_path, "a,b\n" + "1,2\n" * 50)
    parquet.write_table(pyarrow.table({"a": [1, 2, 3] * 20}), tmp_path / "rows.parquet")
    monkeypatch.setattr(tables, "MAX_ROWS", 40)
    for file in (path, tmp_path / "rows.parquet"):
        with pytest.raises(InvalidRequest, match="more than 40 rows"):
            read_rows(file)
    with pytest.raises(InvalidRequest, match="more than 40 rows"):
        read_rows(tmp_path / "zeros.npz")
    monkeypatch.setattr(tables, "MAX_BYTES", 100_000)
    assert (tmp_path / "zeros.npz").stat().st_size < 100_000
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_, **__: pytest.fail("was unpacked"))
    with pytest.raises(InvalidRequest, match="more than 100,000 bytes"):
        read_rows(tmp_path / "zeros.npz")


def test_parquet_holds_numbers_gaps_and_words(tmp_path):
    table = pyarrow.table(
        {
            "whole": pyarrow.array([1, 2, 3], pyarrow.int32()),
            "gaps": pyarrow.array([1, None, 3], pyarrow.int64()),
            "flag": [True, False, True],
            "half": pyarrow.array([1.5, None, 2.5], pyarrow.float32()),
            "city": ["a", None, "b"],
            "coded": pyarrow.array(["a", None, "a"]).dictionary_encode(),
        }
    )
    parquet.write_table(table, tmp_path / "rows.parquet")
    found = read_rows(tmp_path / "rows.parquet")
    assert found.columns == tuple(table.column_names)
    assert found.arrays["whole"].dtype == np.int32
    assert found.arrays["flag"].tolist() == [True, False, True]
    for name, other in (("gaps", 3), ("half", 2.5)):
        assert np.isnan(found.arrays[name][1])
        assert found.arrays[name][2] == other
    assert found.arrays["city"].tolist() == ["a", "", "b"]
    assert found.arrays["coded"].tolist() == ["a", "", "a"]


def test_a_column_of_a_kind_that_no_model_takes_is_named(tmp_path):
    table = pyarrow.table({"when": pyarrow.array([1], pyarrow.timestamp("s"))})
    parquet.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(InvalidRequest, match=r"B113.*column when holds timestamp"):
        read_rows(tmp_path / "rows.parquet")


def test_parquet_without_its_library_says_what_to_install(tmp_path, monkeypatch):
    parquet.write_table(pyarrow.table({"a": [1]}), tmp_path / "rows.parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(InvalidRequest) as caught:
        read_rows(tmp_path / "rows.parquet")
    assert "pip install 'outrider[parquet]'" in caught.value.do


def test_parquet_csv_and_npz_give_the_same_profile(tmp_path):
    rng = np.random.default_rng(5)
    columns = {"a": rng.normal(size=400), "b": rng.integers(0, 4, 400), "c": rng.normal(size=400)}
    parquet.write_table(pyarrow.table(columns), tmp_path / "rows.parquet")
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *zip(*columns.values(), strict=True)])
    np.savez(tmp_path / "rows.npz", x=np.column_stack(list(columns.values())))
    profiles = [profile(tmp_path / f"rows.{kind}") for kind in ("parquet", "csv", "npz")]
    assert profiles[0] == profiles[1] == profiles[2]
    assert profiles[0].residual is not None


def profile(path: Path):
    found = read_rows(path)
    names = found.columns or ("a", "b", "c")
    arrays = [found.arrays[name] for name in found.columns] or [found.arrays["x"]]
    table = np.column_stack(arrays)
    spec = TensorSpec("x", "FP32", (-1, 3))
    return make_input_profile([spec], {"x": table}, names).profile


def test_labels_are_taken_out_of_the_rows():
    rows = Rows({"a": np.zeros(3), "y": np.array([[1], [2], [3]])}, ("a", "y"))
    left, labels = take_labels(rows, "y")
    assert (left.columns, set(left.arrays), labels.tolist()) == (("a",), {"a"}, [1, 2, 3])


@pytest.mark.parametrize("name,why", [("z", "there are a, y"), ("a", r"shape \[3, 2\]")])
def test_labels_that_are_none_are_refused(name, why):
    rows = Rows({"a": np.zeros((3, 2)), "y": np.arange(3)})
    with pytest.raises(InvalidRequest, match="B108.*" + why):
        take_labels(rows, name)


def test_of_many_names_the_first_are_said():
    assert names_of([]) == "none"
    assert names_of(list("abcdefghij")) == "a, b, c, d, e, f, g, h and 2 more"
