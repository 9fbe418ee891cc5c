"""Sample rows as people have them: arrays in an .npz, or a table as .csv or .parquet.

A table is read in two passes: the first finds out what a column holds, the second fills arrays of
that. So a file of numbers needs the memory of its numbers, and not that of its text.
"""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from protocol.errors import InvalidRequest

Array = NDArray[Any]

MAX_ROWS: Final = 2_000_000
MAX_BYTES: Final = 4 * 1024**3
"""Of a file, and of what it holds once it is unpacked."""

_CODE: Final = "OUT-B113"
_NAMED: Final = 8
_LARGEST_INTEGER: Final = 2**63


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """What a file of samples holds."""

    arrays: dict[str, Array]
    columns: tuple[str, ...] = ()
    """Of a table: its columns in the order of the file, each an array [rows] of numbers or of
    texts (dtype object, "" where there is none). Empty for arrays that stand for inputs."""


def read_rows(path: Path) -> Rows:
    """Rows of an .npz, .csv or .parquet file, whichever its name says.

    In a CSV file the first line names the columns. A column holds numbers if every cell that is
    not empty is one; empty cells are NaN then. Raises `InvalidRequest` OUT-B113 for a file that
    cannot be read, or has more than 2,000,000 rows or 4 GiB.
    """
    kind = path.suffix.lower()
    readers = {".npz": _npz, ".csv": _csv, ".parquet": _parquet, ".pq": _parquet}
    if kind not in readers:
        raise InvalidRequest(
            _CODE, f"{path.name} is no .npz, .csv or .parquet", do="save the rows as one of these"
        )
    try:
        if path.stat().st_size > MAX_BYTES:
            raise _too_large(path)
        rows = readers[kind](path)
    except OSError as error:
        raise InvalidRequest(_CODE, f"{path.name}: {error.strerror or error}") from error
    if any(array.ndim and len(array) > MAX_ROWS for array in rows.arrays.values()):
        raise _too_many(path)
    return rows


def take_labels(rows: Rows, name: str) -> tuple[Rows, Array]:
    """The rows without what `name` names, and that as an array [rows].

    Raises `InvalidRequest` OUT-B108 if nothing has that name, or it is not one value per row.
    """
    labels = rows.arrays.get(name)
    if labels is None:
        raise InvalidRequest(
            "OUT-B108", f"no labels named {name[:80]!r}; there are {names_of(rows.arrays)}"
        )
    if not labels.ndim or labels.size != len(labels):
        raise InvalidRequest("OUT-B108", f"labels of shape {list(labels.shape)}, one a row wanted")
    left = {each: array for each, array in rows.arrays.items() if each != name}
    columns = tuple(each for each in rows.columns if each != name)
    return Rows(left, columns), labels.ravel()


def names_of(names: Sequence[str] | dict[str, Array]) -> str:
    """ "a, b, c and 12 more"."""
    shown = ", ".join(str(name)[:40] for name in list(names)[:_NAMED]) or "none"
    return shown + (f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else "")


def _npz(path: Path) -> Rows:
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(each.file_size for each in archive.infolist()) > MAX_BYTES:
                raise _too_large(path)
        with np.load(path, allow_pickle=False) as arrays:
            return Rows({name: arrays[name] for name in arrays.files})
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InvalidRequest(_CODE, f"{path.name}: {error}") from error


def _csv(path: Path) -> Rows:
    try:
        names, kinds, rows = _look(path)
        return Rows(_fill(path, names, kinds, rows), names)
    except (csv.Error, UnicodeDecodeError) as error:
        raise InvalidRequest(_CODE, f"{path.name}: {error}") from error


def _look(path: Path) -> tuple[tuple[str, ...], list[str], int]:
    """`(columns, what each holds: integer, number or text, rows)`."""
    lines = _lines(path)
    names = _header(path, next(lines, (0, []))[1])
    kinds = ["integer"] * len(names)
    rows = 0
    for number, cells in lines:
        if len(cells) != len(names):
            raise InvalidRequest(
                _CODE, f"{path.name}, line {number:,}: {len(cells)} cells, {len(names)} columns"
            )
        rows += 1
        if rows > MAX_ROWS:
            raise _too_many(path)
        for column, cell in enumerate(cells):
            if kinds[column] != "text":
                kinds[column] = _kind(cell, kinds[column])
    return names, kinds, rows


def _kind(cell: str, before: str) -> str:
    """What a column holds in which `cell` comes after cells of the kind `before`."""
    if not cell:
        # An integer has no NaN.
        return "number"
    if before == "integer":
        digits = cell.lstrip("+-")
        if digits.isascii() and digits.isdecimal() and abs(int(cell)) < _LARGEST_INTEGER:
            return "integer"
    return "text" if _number(cell) is None else "number"


def _number(cell: str) -> float | None:
    # Python's own 1_000 is no number anywhere else.
    if "_" in cell:
        return None
    try:
        return float(cell)
    except ValueError:
        return None


def _fill(path: Path, names: tuple[str, ...], kinds: Sequence[str], rows: int) -> dict[str, Array]:
    types = {"integer": np.int64, "number": np.float64, "text": np.object_}
    arrays: dict[str, Array] = {
        name: np.empty(rows, types[kind]) for name, kind in zip(names, kinds, strict=True)
    }
    filled = [*zip(arrays.values(), kinds, strict=True)]
    # Equal words are kept once.
    known: dict[str, str] = {}
    lines = _lines(path)
    next(lines)
    for row, (_, cells) in enumerate(lines):
        for cell, (array, kind) in zip(cells, filled, strict=True):
            if kind == "text":
                array[row] = known.setdefault(cell, cell)
            elif kind == "integer":
                array[row] = int(cell)
            else:
                array[row] = float(cell) if cell else np.nan
    return arrays


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """`(number of the line, cells without spaces around them)`; empty lines are left out."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        for cells in reader:
            if cells:
                yield reader.line_num, [cell.strip() for cell in cells]


def _header(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        raise InvalidRequest(_CODE, f"{path.name} is empty")
    if len(names) == 1 and (";" in names[0] or "\t" in names[0]):
        raise InvalidRequest(
            _CODE,
            f"{path.name} has one column, {names[0][:80]!r}",
            do="separate the cells with commas",
        )
    return _distinct(path, names)


def _distinct(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    twice = next((name for at, name in enumerate(names) if not name or name in names[:at]), None)
    if twice is not None:
        why = f"two columns are called {twice[:80]!r}" if twice else "a column has no name"
        raise InvalidRequest(_CODE, f"{path.name}: {why}")
    return tuple(names)


def _parquet(path: Path) -> Rows:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise InvalidRequest(
            _CODE,
            "reading .parquet needs pyarrow",
            do="save the rows as .csv, or: pip install 'outrider[parquet]'",
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            found = file.metadata
            groups = range(found.num_row_groups)
            if sum(found.row_group(each).total_byte_size for each in groups) > MAX_BYTES:
                raise _too_large(path)
            if found.num_rows > MAX_ROWS:
                raise _too_many(path)
            table = file.read()
        columns = _distinct(path, table.column_names)
        return Rows({name: _column(path, name, table.column(name)) for name in columns}, columns)
    except pyarrow.ArrowException as error:
        raise InvalidRequest(_CODE, f"{path.name}: {error}") from error


def _column(path: Path, name: str, column: Any) -> Array:
    """One column of an Arrow table as an array [rows]."""
    from pyarrow import float64, string, types

    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    if types.is_string(kind) or types.is_large_string(kind):
        texts = np.empty(len(column), np.object_)
        texts[:] = [text or "" for text in column.cast(string()).to_pylist()]
        return texts
    if types.is_boolean(kind) and not column.null_count:
        return np.asarray(column.to_numpy())
    if types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind):
        return np.asarray((column.cast(float64()) if column.null_count else column).to_numpy())
    if types.is_decimal(kind):
        return np.asarray(column.cast(float64()).to_numpy())
    raise InvalidRequest(
        _CODE,
        f"{path.name}: column {name[:80]} holds {kind}",
        do="make it numbers or text, or leave it out",
    )


def _too_large(path: Path) -> InvalidRequest:
    return InvalidRequest(_CODE, f"{path.name} holds more than {MAX_BYTES:,} bytes")


def _too_many(path: Path) -> InvalidRequest:
    return InvalidRequest(
        _CODE, f"{path.name} has more than {MAX_ROWS:,} rows", do="draw some of them at random"
    )
