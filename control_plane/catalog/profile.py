"""The reference profile: what a model's inputs and answers looked like where it was built.

Method and its pitfalls: research on drift, section 6. Edges are made from float32 values, because
the device counts float32 values: an edge between two of them would move whole columns.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from control_plane.catalog import lints
from control_plane.catalog.calibration import LEAST_ROWS, Judged, judge, knots
from control_plane.catalog.lints import Lint
from control_plane.catalog.residual import fit_basis, project
from control_plane.catalog.watched import Part, Watch, choose, is_plain
from protocol.errors import InvalidRequest
from protocol.histogram import CONFIDENCE_BINS
from protocol.members import Contract, TensorSpec
from protocol.profile import MAX_WORD_BYTES, MAX_WORDS, Feature, Profile, Residual

Array = NDArray[Any]
Column = NDArray[np.float32]

BINS: Final = 10
CATEGORIES: Final = 16
"""Up to this many distinct values, each has a bin of its own."""
COMMON: Final = 20
"""Rows that a word is in before the profile, which travels to every device, may name it."""

_COARSE_DIGITS: Final = 4
_INFINITY: Final = np.float32(np.inf)


def make_edges(values: Array) -> Column:
    """Strictly increasing finite float32 edges, 1 to 2 * `CATEGORIES` of them.

    - At most 16 distinct values (a constant is one): `v` and the next number after it, so that
      every value has its own bin and everything between two of them is "never seen".
    - More: the smallest value, inner deciles without repeats, and the next after the largest.
    - None that is finite: a single 0, so that any number is new.
    """
    finite = values.astype(np.float32).ravel()
    finite = finite[np.isfinite(finite)]
    distinct = np.unique(finite)
    if not len(distinct):
        return np.zeros(1, np.float32)
    with np.errstate(over="ignore"):
        after = np.nextafter(distinct, _INFINITY)
    if len(distinct) <= CATEGORIES:
        edges = np.unique(np.concatenate([distinct, after]))
    else:
        # Ranks in integers: in floats, 0.3 * 60 is above 18, and the edge would be one further.
        ranks = -(-np.arange(1, BINS) * len(finite) // BINS) - 1
        edges = np.unique(np.concatenate([np.sort(finite)[ranks], distinct[:1], after[-1:]]))
    # After the largest float32 comes infinity, which has its slot anyway.
    return np.asarray(edges[np.isfinite(edges)], np.float32)


def make_coarse_edges(values: Array) -> Column:
    """Edges for numbers that are worked out: as above, of more than 16 values to four digits.

    A sum differs in its last digits from processor to processor, and with the size of a batch; a
    bin that began exactly at the value of a row would have that row here, and not there.
    """
    edges = make_edges(values)
    finite = values[np.isfinite(values)]
    if len(np.unique(finite)) <= CATEGORIES:
        return edges
    outer = (_to_digits(float(edges[0]), math.floor), _to_digits(float(edges[-1]), math.ceil))
    inner = [_to_digits(float(edge), round) for edge in edges[1:-1]]
    within = [edge for edge in inner if outer[0] < edge < outer[1]]
    with np.errstate(over="ignore"):
        coarse = np.unique(np.array([outer[0], *within, outer[1]]).astype(np.float32))
    return coarse[np.isfinite(coarse)]


def _to_digits(number: float, how: Callable[[float], int]) -> float:
    if not number:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(abs(number))) + 1 - _COARSE_DIGITS)
    return how(number / step) * step


def count(values: Array, edges: Column) -> tuple[int, ...]:
    """Counts per slot: below, inner bins, above, +inf, NaN; `len(edges) + 3` of them."""
    slots = np.concatenate([edges, np.array([np.inf, np.nan], np.float32)])
    places = slots.searchsorted(values.astype(np.float32).ravel(), side="right")
    return tuple(np.bincount(places, minlength=len(edges) + 3).tolist())


@dataclass(frozen=True, slots=True)
class Wishes:
    """What whoever builds says of monitoring."""

    watch: Watch = "auto"
    window_s: int = 3600
    """How long devices count into one window; `protocol.members.WINDOW_S` bounds it."""
    window_rows: int = 50
    """Windows of fewer rows stay open for longer; `WINDOW_ROWS` bounds it."""


@dataclass(frozen=True, slots=True)
class Made:
    profile: Profile
    lints: tuple[Lint, ...]


def make_dictionary(values: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """`(words, number of other words that are rare)` of texts; "" is none.

    Words are the 64 most frequent of those in 20 rows or more, by count, then by text. A word of
    more than 128 bytes is never one.
    """
    counts = Counter(value for value in values if value)
    common = [
        word
        for word, count in counts.items()
        if count >= COMMON and len(word.encode("utf-8", "replace")) <= MAX_WORD_BYTES
    ]
    common.sort(key=lambda word: (-counts[word], word))
    rare = sum(count < COMMON for count in counts.values())
    return tuple(common[:MAX_WORDS]), rare


def count_words(values: Sequence[str], words: Sequence[str]) -> tuple[int, ...]:
    """Counts per word, then of other words, then of no text; `len(words) + 2` of them."""
    place = {word: number for number, word in enumerate(words)} | {"": len(words) + 1}
    codes = [place.get(value, len(words)) for value in values]
    return tuple(np.bincount(codes, minlength=len(words) + 2).tolist())


def common_rows(samples: Mapping[str, Array]) -> NDArray[np.bool_]:
    """[rows] which have no text that is in fewer than 20 rows."""
    common = np.ones(len(next(iter(samples.values()))), np.bool_)
    for array in samples.values():
        if array.dtype.kind == "O":
            for column in array.reshape(len(common), -1).T.tolist():
                counts = Counter(column)
                common &= [not word or counts[word] >= COMMON for word in column]
    return common


def make_profile(
    contract: Contract,
    samples: Mapping[str, Array],
    outputs: Mapping[str, Array],
    names: Sequence[str] | None = None,
    *,
    labels: Array | None = None,
    wishes: Wishes | None = None,
) -> Made:
    """Of what a model is asked and what it answers, one array [rows, ...] each.

    `names` are those of the columns of a single input, `labels` [rows] what would have been right.
    Raises `InvalidRequest` OUT-S120 for names and wishes that do not fit, OUT-B108 for another
    number of labels than rows.
    """
    inputs, answers = contract.inputs, contract.outputs
    made = _made(inputs, answers, samples, outputs, names, wishes or Wishes())
    rows = made.profile.rows
    confidence, classes = _answers(contract, outputs, rows)
    profile = replace(
        made.profile,
        confidence=confidence,
        classes=classes,
        score=_score(contract, outputs),
    )
    found = [*made.lints]
    if not profile.features and (wishes or Wishes()).watch == "auto":
        found.append(Lint("answers-only", "", "no input can be monitored, only answers are"))
    if labels is not None:
        if len(labels) != rows:
            raise InvalidRequest("OUT-B108", f"{len(labels):,} labels for {rows:,} rows")
        judged = judge(contract, dict(outputs), labels)
        found += _of_labels(judged)
        if judged is not None:
            calibration = _calibration(judged)
            profile = replace(profile, accuracy=judged.accuracy, calibration=calibration)
    return Made(profile, tuple(found))


def make_input_profile(
    inputs: Sequence[TensorSpec],
    samples: Mapping[str, Array],
    names: Sequence[str] | None = None,
    *,
    wishes: Wishes | None = None,
) -> Made:
    """The same without a model: nothing of answers."""
    made = _made(inputs, (), samples, {}, names, wishes or Wishes())
    lint = Lint("inputs-only", "", "no model: confidence, classes and scores are not in it")
    return Made(made.profile, (*made.lints, lint))


def _made(
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    samples: Mapping[str, Array],
    answers: Mapping[str, Array],
    names: Sequence[str] | None,
    wishes: Wishes,
) -> Made:
    parts = choose(inputs, outputs, samples, answers, wishes.watch, names)
    features: list[Feature] = []
    found: list[Lint] = []
    for part in parts:
        for name, values in zip(part.names, part.values.T, strict=True):
            if part.watched.how == "words":
                words, rare = make_dictionary(values.tolist())
                counts = count_words(values.tolist(), words)
                features.append(Feature(name, (), counts, "words", words))
                found += lints.of_words(features[-1], rare)
            elif part.watched.how == "columns":
                features.append(_feature(name, values, make_edges(values)))
            else:
                features.append(_feature(name, values, make_coarse_edges(values)))
    residual = _residual(parts)
    plain = is_plain(parts, inputs)
    rows = len(samples[inputs[0].name])
    try:
        profile = Profile(
            rows,
            tuple(features),
            watched=() if plain else tuple(part.watched for part in parts),
            residual=residual if isinstance(residual, Residual) else None,
            window_s=wishes.window_s,
            window_rows=wishes.window_rows,
            # An agent of before would take the columns of the first input for all of it.
            must_understand=() if plain else ("profile/2",),
        )
    except ValueError as error:
        raise InvalidRequest("OUT-S120", str(error)) from error
    found = [*lints.of_profile(profile), *found, *lints.of_rows(samples)]
    if isinstance(residual, str) and features:
        found.append(Lint("no-residual", "", residual))
    return Made(profile, tuple(found))


def _feature(name: str, values: Column, edges: Column) -> Feature:
    return Feature(name, tuple(float(edge) for edge in edges), count(values, edges))


def _residual(parts: Sequence[Part]) -> Residual | str:
    """Over all columns of numbers together; that of a projected output alone. Or why not."""
    numbers = [part for part in parts if part.watched.how != "words"]
    if len(numbers) == 1 and numbers[0].errors is not None:
        return Residual(_errors(numbers[0].errors))
    columns = [part.values for part in numbers]
    table = np.concatenate(columns, axis=1) if columns else np.empty((0, 0), np.float32)
    basis = fit_basis(table)
    if isinstance(basis, str):
        return basis
    return Residual(_errors(project(basis, table)[1]), basis)


def _errors(errors: Column) -> Feature:
    return _feature("residual", errors, make_coarse_edges(errors))


def _score(contract: Contract, outputs: Mapping[str, Array]) -> Feature | None:
    spec = contract.output("score")
    if spec is None:
        return None
    values = outputs[spec.name]
    with np.errstate(over="ignore", invalid="ignore"):
        column = values.reshape(len(values), -1)[:, 0].astype(np.float32)
    return _feature(spec.name, column, make_coarse_edges(column))


def _calibration(judged: Judged) -> tuple[tuple[float, float], ...]:
    if judged.confidence is None:
        return ()
    finite = np.isfinite(judged.confidence)
    return knots(judged.confidence[finite], judged.right[finite])


def _of_labels(judged: Judged | None) -> Iterator[Lint]:
    if judged is None:
        yield Lint("no-calibration", "", "the model names no class that labels could be")
        return
    if judged.foreign:
        text = f"{judged.foreign:,} of {len(judged.right):,} labels are no class of the model"
        yield Lint("foreign-labels", "", text)
    if judged.confidence is None:
        yield Lint("no-calibration", "", "the model gives no probabilities")
    elif len(judged.right) < LEAST_ROWS:
        text = f"{len(judged.right)} labelled rows, {LEAST_ROWS} are needed"
        yield Lint("no-calibration", "", text)


def _answers(
    contract: Contract, outputs: Mapping[str, Array], rows: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """`(confidence counts, class counts)`, empty where the contract has no such role.

    The class is that of the largest probability; of the label where there are no probabilities.
    """
    spec = contract.output("probabilities")
    if spec is not None:
        table = outputs[spec.name].reshape(rows, -1)
        table = table[np.isfinite(table).all(axis=1)]
        largest = np.clip(table.max(axis=1, initial=0), 0, 1).astype(np.float32)
        bins = np.floor(largest.astype(np.float64) * CONFIDENCE_BINS).astype(np.int64)
        confidence = np.bincount(np.minimum(bins, CONFIDENCE_BINS - 1), minlength=CONFIDENCE_BINS)
        if not contract.classes:
            return tuple(confidence.tolist()), ()
        classes = np.bincount(table.argmax(axis=1), minlength=len(contract.classes))
        return tuple(confidence.tolist()), tuple(classes.tolist())
    spec = contract.output("label")
    if spec is None or not contract.classes:
        return (), ()
    place = {name: number for number, name in enumerate(contract.classes)}
    known = [place[str(x)] for x in outputs[spec.name].ravel().tolist() if str(x) in place]
    return (), tuple(np.bincount(known, minlength=len(place)).tolist())
