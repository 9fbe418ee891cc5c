"""What a model's confidence is worth: knots from confidence to the share that is right.

With them, devices' histograms of confidence give an estimate of accuracy without labels (CBPE).
The shares are an isotonic regression over bins of equal size, by pooling adjacent violators
(Barlow, Bartholomew, Bremner and Brunk, "Statistical inference under order restrictions", 1972).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from protocol.members import Contract

Array = NDArray[Any]

KNOTS: Final = 12
ROWS_PER_KNOT: Final = 50
LEAST_ROWS: Final = 100

_DIGITS: Final = 6


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Answers to labelled rows."""

    right: NDArray[np.bool_]
    """[rows with a label]"""
    confidence: NDArray[np.float32] | None
    """[rows with a label] largest probability; None without probabilities."""
    foreign: int
    """Labels that the model has no class for."""

    @property
    def accuracy(self) -> float | None:
        return round(float(self.right.mean()), _DIGITS) if len(self.right) else None


def judge(contract: Contract, outputs: dict[str, Array], labels: Array) -> Judged | None:
    """Compare answers with `labels` [rows] as texts; None if the model names no class.

    Labels are what the output of role `label` says, or names of classes. A number without a
    fraction is an integer: 3.0 is "3". Rows with an empty label or NaN are left out.
    """
    texts = [label_text(label) for label in labels.tolist()]
    said = _said(contract, outputs, {text for text in texts if text})
    if said is None:
        return None
    answers, known = said
    kept = [number for number, text in enumerate(texts) if text]
    right = np.array([texts[number] == answers[number] for number in kept], np.bool_)
    spec = contract.output("probabilities")
    confidence = None
    if spec is not None:
        table = outputs[spec.name].reshape(len(texts), -1)[kept]
        confidence = np.clip(table.max(axis=1, initial=0), 0, 1).astype(np.float32)
    foreign = sum(texts[number] not in known for number in kept) if known else 0
    return Judged(right, confidence, foreign)


def knots(confidence: Array, right: Array) -> tuple[tuple[float, float], ...]:
    """At most 12 of (mean confidence, share right), both rising; none of fewer than 100 rows.

    `confidence` [rows] is the largest probability, `right` [rows] whether that class was true.
    """
    if len(confidence) < LEAST_ROWS:
        return ()
    bins = min(KNOTS, len(confidence) // ROWS_PER_KNOT)
    order = np.argsort(confidence, kind="stable")
    places: list[float] = []
    sums: list[tuple[int, float]] = []
    for part in np.array_split(order, bins):
        place = round(float(confidence[part].mean(dtype=np.float64)), _DIGITS)
        rows, hits = len(part), float(right[part].sum())
        if places and place <= places[-1]:
            # Many rows of one confidence are one knot.
            rows, hits = rows + sums[-1][0], hits + sums[-1][1]
            sums[-1] = (rows, hits)
        else:
            places.append(place)
            sums.append((rows, hits))
    shares = isotonic([hits / rows for rows, hits in sums], [rows for rows, _ in sums])
    return tuple(zip(places, (round(share, _DIGITS) for share in shares), strict=True))


def isotonic(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The nearest sequence that never falls, in weighted least squares."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights, strict=True):
        block = (value, float(weight), 1)
        while blocks and blocks[-1][0] >= block[0]:
            before = blocks.pop()
            total = before[1] + block[1]
            mean = (before[0] * before[1] + block[0] * block[1]) / total
            block = (mean, total, before[2] + block[2])
        blocks.append(block)
    return [value for value, _, length in blocks for _ in range(length)]


def label_text(label: object) -> str:
    """How a label is compared; "" for none."""
    if isinstance(label, bytes):
        return label.decode("utf-8", "replace")
    if isinstance(label, float):
        if label != label:
            return ""
        return str(int(label)) if label.is_integer() else str(label)
    return "" if label is None else str(label)


def _said(
    contract: Contract, outputs: dict[str, Array], labels: set[str]
) -> tuple[list[str], frozenset[str]] | None:
    """`(answer per row, every answer there can be)`, in the words that the labels use."""
    spec, label = contract.output("probabilities"), contract.output("label")
    named: tuple[list[str], frozenset[str]] | None = None
    if spec is not None and contract.classes:
        table = outputs[spec.name].reshape(len(outputs[spec.name]), -1)
        winners = table.argmax(axis=1).tolist()
        named = [contract.classes[each] for each in winners], frozenset(contract.classes)
    if label is None:
        return named
    answers = [label_text(each) for each in outputs[label.name].ravel().tolist()]
    # A model whose classes have names may answer with their numbers.
    if named is not None and not labels & set(answers) and labels & named[1]:
        return named
    return answers, frozenset(contract.classes)
