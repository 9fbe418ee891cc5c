"""True labels that come later than the answers they belong to.

Whoever asked sends them back with what had been predicted: nobody here remembers requests, and
neither labels nor predictions are kept, only whether they are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from protocol.errors import InvalidRequest

MOST_ROWS: Final = 10_000
"""In one request."""

Label: TypeAlias = str | int | float | bool


@dataclass(frozen=True, slots=True, eq=False)
class Feedback:
    correct: NDArray[np.bool_]
    """[rows] Whether the prediction was the true label."""
    confidence: NDArray[np.float32] | None
    """[rows] How sure the prediction was, from 0 to 1; NaN where that is not known."""
    version: str | None
    """Which version predicted; None: whoever sends it does not say."""


class _Body(Struct, frozen=True):
    labels: list[Label]
    predictions: list[Label]
    confidences: list[float | None] | None = None
    model_version: str | None = None


_BODY: Final = msgspec.json.Decoder(_Body)


def parse_feedback(body: bytes | bytearray) -> Feedback:
    """JSON to what is counted of it. A label is a prediction if both are the same text, where a
    number without a fraction is written as an integer: "3", 3 and 3.0 are one label.

    Raises `InvalidRequest` OUT-I117 for what is no feedback: no JSON of this form, not as many of
    each, not 1 to `MOST_ROWS`, or a confidence that is not from 0 to 1.
    """
    try:
        said = _BODY.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidRequest("OUT-I117", str(error)[:200]) from error
    labels, predictions, confidences = said.labels, said.predictions, said.confidences
    rows = len(labels)
    if not 0 < rows <= MOST_ROWS:
        raise InvalidRequest("OUT-I117", f"{rows:,} labels, wanted 1 to {MOST_ROWS:,}")
    if len(predictions) != rows or (confidences is not None and len(confidences) != rows):
        counts = f"{rows:,} labels, {len(predictions):,} predictions"
        if confidences is not None:
            counts += f", {len(confidences):,} confidences"
        raise InvalidRequest("OUT-I117", f"{counts}: as many of each are wanted")
    pairs = zip(labels, predictions, strict=True)
    correct = np.fromiter((_text(label) == _text(given) for label, given in pairs), np.bool_, rows)
    if confidences is None:
        return Feedback(correct, None, said.model_version)
    sure = np.array([np.nan if each is None else each for each in confidences], np.float64)
    if ((sure < 0) | (sure > 1)).any():
        raise InvalidRequest("OUT-I117", "confidences are from 0 to 1")
    return Feedback(correct, sure.astype(np.float32), said.model_version)


def _text(label: Label) -> str:
    # JSON has neither NaN nor infinity.
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    return str(label)
