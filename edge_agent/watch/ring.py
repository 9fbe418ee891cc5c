"""What a model was asked and what it answered waits here, as copies, until a fold is worth it.

Counting one row costs more than most small models cost to run; copying it does not. So an answer
is only copied when it is given, in the memory layout of one row after the other, and everything
that is counted of it is worked out for many rows at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, repeat
from math import prod
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner.binary import NUMPY_TYPES
from edge_agent.watch.fold import Array, Rows, answer_rows, feature_rows, score_rows
from protocol.histogram import LATENCY_EDGES_S, LATENCY_SLOTS
from protocol.members import Contract, TensorSpec

MAX_ROWS: Final = 1024
MAX_BYTES: Final = 1024 * 1024
"""So much of one-row requests waits at most, so much of larger ones, and one larger request more:
it is folded at once, with what waited before it, if it alone is that large."""
WIDE: Final = 16 * 1024
"""Bytes per row of an output that is looked through at once instead of being copied."""

# Of what waits, without a line of Python for each.
_FIRST, _SECOND, _LAST = itemgetter(0), itemgetter(1), itemgetter(2)

_FLOATS: Final = frozenset({"FP16", "FP32", "FP64"})
_EDGES: Final = np.array(LATENCY_EDGES_S)

Push: TypeAlias = Callable[[Array, Mapping[str, Array], int, float], None]
"""Gets what is monitored of the inputs, the outputs by name, the rows and the seconds of one
answer."""


@dataclass(frozen=True, slots=True)
class Block:
    """What some requests came to."""

    requests: int
    rows: int
    latency: NDArray[np.int64]
    """Requests in `LATENCY_SLOTS`."""
    nonfinite: int
    """Requests with NaN or infinity in an output."""
    outside: int
    """Rows with a value outside of the range that the contract gives the first input, or NaN."""
    answers: Rows
    """As `answer_rows` gives them."""
    columns: Rows | None
    """What is monitored of the inputs [rows, columns]; None where no feature is."""
    scores: Rows | None
    """[rows, 1] as `score_rows` gives them; None where the profile has no score."""


@dataclass(frozen=True, slots=True)
class _Odd:
    """A request whose tensors are not what a row of the layout holds, worked out when it came."""

    rows: int
    seconds: float
    answers: Rows
    nonfinite: bool
    columns: Rows | None
    scores: Rows | None


class Shortcut(NamedTuple):
    """Append `(bytes of the first input and of the output, 1, seconds)` if they are `row_bytes`,
    and call `full` when `limit` of them wait."""

    output: str
    row_bytes: int
    rows: list[tuple[bytes, int, float]]
    limit: int
    full: Callable[[], None]


class Ring:
    """`push` may be called by many threads at once; `drain` by one at a time."""

    def __init__(
        self,
        contract: Contract,
        full: Callable[[], None],
        *,
        columns: bool,
        width: int | None = None,
        score: bool = False,
    ) -> None:
        """`full` is called by `push` when it is time to drain; `columns`: whether inputs count.

        `push` gets the first input, or, with `width`, float32 [rows, width] that were made of
        the inputs. `score`: whether the output whose role that is counts.
        """
        self._contract = contract
        self._columns = columns
        self._full = full
        first = contract.inputs[0] if width is None else TensorSpec("columns", "FP32", (-1, width))
        # The range that the contract gives is that of the first input.
        self._range = _range(contract.inputs[0]) if width is None else None
        self._score = contract.output("score") if score else None
        counted = _counted(contract, self._score)
        specs = [("", first), *counted] if columns else counted
        self._kept = tuple(spec.name for _, spec in counted)
        self._layout = np.dtype([(f"{n}", *_row(spec)) for n, (_, spec) in enumerate(specs)])
        self._places = [self._layout[name] for name in self._layout.names or ()]
        self._plain = all(_fits(spec) for _, spec in specs)
        self._row_bytes = self._layout.itemsize
        waiting = self._row_bytes if self._plain else 4 * prod(first.shape[1:]) * columns
        self._limit = max(1, min(MAX_ROWS, MAX_BYTES // max(waiting, 1)))
        # Appending to a list and taking from its front are atomic: the caller of a model takes no
        # lock. Requests of one row are two lists, as a tuple for each would cost more than both.
        self._records: list[bytes] = []
        self._times: list[float] = []
        self._rows: list[tuple[bytes, int, float]] = []
        self._odd: list[_Odd] = []
        self._several = 0
        self._several_lock = threading.Lock()
        self.push: Push = self._copier() if self._plain else self._push_several
        """Copy one answered request. Raises `ValueError` for what cannot be counted."""

    @property
    def shortcut(self) -> Shortcut | None:
        """How to do what `push` does with one row, for whoever cannot afford to call it: where
        the inputs and one output are kept."""
        if not self._plain or not self._columns or len(self._kept) != 1:
            return None
        return Shortcut(self._kept[0], self._row_bytes, self._rows, self._limit, self._full)

    def drain(self) -> Block | None:
        """Everything that waits; None if nothing does."""
        with self._several_lock:
            self._several = 0
        # Another thread may have kept a record and not yet its time. Which belongs to which does
        # not matter, as they are counted apart.
        alone = min(len(self._records), len(self._times))
        records, seconds = self._records[:alone], self._times[:alone]
        del self._records[:alone], self._times[:alone]
        others = self._rows[:]
        del self._rows[: len(others)]
        odd = self._odd[:]
        del self._odd[: len(odd)]
        if not (records or others or odd):
            return None
        answers = [each.answers for each in odd]
        columns = [each.columns for each in odd if each.columns is not None]
        scores = [each.scores for each in odd if each.scores is not None]
        nonfinite = sum(each.nonfinite for each in odd)
        rows = sum(each.rows for each in odd)
        seconds.extend(each.seconds for each in odd)
        if records or others:
            records.extend(map(_FIRST, others))
            seconds.extend(map(_LAST, others))
            of_plain = alone + sum(map(_SECOND, others))
            rows += of_plain
            table = self._table(records, of_plain)
            outputs = self._outputs(table)
            answers.append(answer_rows(self._contract, outputs, of_plain))
            sizes = chain(repeat(1, alone), map(_SECOND, others))
            nonfinite += _requests_with_nonfinite(outputs, sizes)
            if self._columns:
                columns.append(feature_rows(table["0"], of_plain))
            if self._score is not None:
                scores.append(score_rows(self._score, outputs, of_plain))
        # Each column in one piece: whatever looks through them is several times as fast then.
        inputs = np.asfortranarray(_joined(columns)) if columns else None
        slots = _EDGES.searchsorted(np.fromiter(seconds, np.float64, len(seconds)), side="right")
        return Block(
            len(seconds),
            rows,
            np.bincount(slots, minlength=LATENCY_SLOTS),
            nonfinite,
            0 if inputs is None else _outside(inputs, self._range),
            _joined(answers),
            inputs,
            _joined(scores) if scores else None,
        )

    def _copier(self) -> Push:
        """What is called with every answer, so it looks nothing up that it can hold."""
        if self._columns and not self._kept:
            return self._input_copier()
        kept, columns, row_bytes = self._kept, self._columns, self._row_bytes
        limit, full, several = self._limit, self._full, self._push_several
        times, keep, took = self._times, self._records.append, self._times.append
        only = kept[0] if len(kept) == 1 else None

        def push(watched: Array, outputs: Mapping[str, Array], rows: int, seconds: float) -> None:
            if rows != 1:
                return several(watched, outputs, rows, seconds)
            if only is not None and columns:
                record = watched.tobytes() + outputs[only].tobytes()
            else:
                record = watched.tobytes() if columns else b""
                for name in kept:
                    record += outputs[name].tobytes()
            if len(record) != row_bytes:
                return several(watched, outputs, rows, seconds)
            keep(record)
            took(seconds)
            if len(times) >= limit:
                full()
            return None

        return push

    def _input_copier(self) -> Push:
        """The same where nothing of the answers counts but how many there are."""
        row_bytes, several = self._row_bytes, self._push_several
        limit, full = self._limit, self._full
        times, keep, took = self._times, self._records.append, self._times.append

        def push(watched: Array, outputs: Mapping[str, Array], rows: int, seconds: float) -> None:
            record = watched.tobytes()
            if rows != 1 or len(record) != row_bytes:
                return several(watched, outputs, rows, seconds)
            keep(record)
            took(seconds)
            if len(times) >= limit:
                full()
            return None

        return push

    def _push_several(
        self, watched: Array, outputs: Mapping[str, Array], rows: int, seconds: float
    ) -> None:
        kept = [outputs[name] for name in self._kept] if self._plain else []
        given = [watched, *kept] if self._columns else kept
        if self._plain and all(
            tensor.dtype == place.base and tensor.nbytes == rows * place.itemsize
            for tensor, place in zip(given, self._places, strict=True)
        ):
            if len(given) == 1:
                record = given[0].tobytes()
            else:
                table = np.empty(rows, self._layout)
                for number, tensor in enumerate(given):
                    table[f"{number}"] = tensor.reshape(rows, *self._places[number].shape)
                record = table.tobytes()
            self._rows.append((record, rows, seconds))
        else:
            columns = feature_rows(watched, rows).copy() if self._columns else None
            scores = None
            if self._score is not None:
                scores = score_rows(self._score, outputs, rows).copy()
            self._odd.append(
                _Odd(
                    rows,
                    seconds,
                    answer_rows(self._contract, dict(outputs), rows),
                    any(
                        output.dtype.kind == "f" and not np.isfinite(output).all()
                        for output in outputs.values()
                    ),
                    columns,
                    scores,
                )
            )
        with self._several_lock:
            self._several += max(rows, 1)
            enough = self._several >= self._limit
        if enough:
            self._full()

    def _table(self, records: Iterable[bytes], rows: int) -> NDArray[Any]:
        if not self._row_bytes:
            return np.empty(rows, self._layout)
        return np.frombuffer(b"".join(records), self._layout)

    def _outputs(self, table: NDArray[Any]) -> dict[str, Array]:
        first = 1 if self._columns else 0
        return {name: table[f"{n}"] for n, name in enumerate(self._kept, first)}


def _counted(contract: Contract, score: TensorSpec | None) -> list[tuple[str, TensorSpec]]:
    """Outputs of which anything is counted: whatever may be NaN, a monitored score, and the label
    without probabilities."""
    by_label = contract.classes and contract.output("probabilities") is None
    label = contract.output("label") if by_label else None
    return [
        (spec.name, spec)
        for spec in contract.outputs
        if spec.datatype in _FLOATS
        or spec is label
        or spec is score
        or spec.role == "probabilities"
    ]


def _row(spec: TensorSpec) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """One row of a tensor in the layout; something of no size where it has no fixed one."""
    if not _fits(spec):
        return np.dtype(np.bool_), (0,)
    return NUMPY_TYPES[spec.datatype], spec.shape[1:]


def _fits(spec: TensorSpec) -> bool:
    """Whether every row of a tensor has the same few bytes."""
    if spec.datatype not in NUMPY_TYPES or spec.shape[:1] not in ((-1,), (1,)):
        return False
    if -1 in spec.shape[1:]:
        return False
    return prod(spec.shape[1:]) * NUMPY_TYPES[spec.datatype].itemsize <= WIDE


def _joined(tables: list[Rows]) -> Rows:
    return tables[0] if len(tables) == 1 else np.concatenate(tables)


def _range(spec: TensorSpec) -> tuple[np.float32, np.float32] | None:
    """Smallest and largest value that a contract allows; None if it allows any."""
    if spec.minimum is None and spec.maximum is None:
        return None
    least = -np.inf if spec.minimum is None else spec.minimum
    most = np.inf if spec.maximum is None else spec.maximum
    with np.errstate(over="ignore"):
        return np.float32(least), np.float32(most)


def _outside(rows: Rows, allowed: tuple[np.float32, np.float32] | None) -> int:
    if allowed is None:
        return 0
    least, most = allowed
    # All of this is false for NaN.
    if rows.size and rows.min() >= least and rows.max() <= most:
        return 0
    inside = (least <= rows) & (rows <= most)
    return len(rows) - int(np.logical_and.reduce(inside, axis=1).sum())


def _requests_with_nonfinite(outputs: Mapping[str, Array], sizes: Iterable[int]) -> int:
    bad: NDArray[np.bool_] | None = None
    for output in outputs.values():
        if output.dtype.kind == "f" and not (finite := np.isfinite(output)).all():
            found = ~np.logical_and.reduce(finite.reshape(len(output), -1), axis=1)
            bad = found if bad is None else bad | found
    if bad is None:
        return 0
    starts = np.cumsum([0, *sizes])[:-1]
    return int(np.logical_or.reduceat(bad, starts).sum())
