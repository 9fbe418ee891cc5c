"""The reference profile of a bundle: which columns are watched, and what was usual in them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from protocol.identifiers import Count

How = Literal["columns", "words", "pooled", "projected"]
"""How columns come from a tensor: its values as they are, codes of a dictionary, a few numbers per
channel of an image, or coordinates along the components of a basis."""

MAX_FEATURES: Final = 4096
MAX_EDGES: Final = 64
MAX_WORDS: Final = 64
MAX_WORD_BYTES: Final = 128
MAX_BASIS_COLUMNS: Final = 1024
MAX_COMPONENTS: Final = 16
MAX_KNOTS: Final = 64
WINDOW_S: Final = (300, 86_400)
"""Shortest and longest `Profile.window_s`."""
WINDOW_ROWS: Final = (20, 10_000)
"""Smallest and largest `Profile.window_rows`."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One monitored column: how its values fall into slots, and the reference counts per slot.

    `number`: float32 edges; slots are those of `searchsorted(side="right")` on
    `[*edges, +inf, nan]`: below, the inner bins, above, +inf, NaN; so there are `len(edges) + 3`
    counts. `words`: one slot per word, then any other text, then missing or empty text; so there
    are `len(words) + 2` counts. Raises `ValueError` for anything else.
    """

    name: str
    edges: tuple[float, ...] = ()
    counts: tuple[Count, ...] = ()
    kind: Literal["number", "words"] = "number"
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind == "words":
            self._check_words()
        elif self.words:
            raise ValueError(f"{self.name}: a number has no words")
        elif not 0 < len(self.edges) <= MAX_EDGES or len(self.counts) != len(self.edges) + 3:
            raise ValueError(f"{self.name}: 1 to {MAX_EDGES} edges and three more counts")
        elif any(a >= b for a, b in pairwise(self.edges)):
            raise ValueError(f"{self.name}: edges increase")

    def _check_words(self) -> None:
        if self.edges or len(self.words) > MAX_WORDS or len(self.counts) != len(self.words) + 2:
            raise ValueError(f"{self.name}: no edges, up to {MAX_WORDS} words and two more counts")
        if len(set(self.words)) != len(self.words):
            raise ValueError(f"{self.name}: words are distinct")
        if not all(0 < len(word.encode()) <= MAX_WORD_BYTES for word in self.words):
            raise ValueError(f"{self.name}: a word has 1 to {MAX_WORD_BYTES} bytes")

    @property
    def slots(self) -> int:
        return len(self.counts)

    @property
    def outside(self) -> tuple[int, ...]:
        """Slots of values that lie outside of what the reference range or dictionary has."""
        last = len(self.counts)
        return (last - 2, last - 1) if self.kind == "words" else (0, last - 3, last - 2, last - 1)


@dataclass(frozen=True, slots=True)
class Basis:
    """Principal components of standardised columns, z = (x - centre) / scale, 0 where scale is 0.

    The rows of `components` are orthonormal as far as their six digits go; who builds a basis
    sees to that. Raises `ValueError` for rows of other lengths.
    """

    centre: tuple[float, ...]
    scale: tuple[float, ...]
    """0 or more; 0: a constant column."""
    components: tuple[tuple[float, ...], ...]
    """1 to 16 rows, each as long as `centre`."""

    def __post_init__(self) -> None:
        width = len(self.centre)
        if not 0 < width <= MAX_BASIS_COLUMNS or len(self.scale) != width:
            raise ValueError(f"a basis has 1 to {MAX_BASIS_COLUMNS:,} columns, each with a scale")
        if any(scale < 0 for scale in self.scale):
            raise ValueError("a scale is 0 or more")
        if not 0 < len(self.components) <= MAX_COMPONENTS:
            raise ValueError(f"a basis has 1 to {MAX_COMPONENTS} components")
        if any(len(row) != width for row in self.components):
            raise ValueError(f"a component of this basis has {width:,} numbers")


@dataclass(frozen=True, slots=True)
class Watched:
    """A tensor that monitored columns come from. Raises `ValueError` for parts of another `how`."""

    tensor: str
    how: How = "columns"
    """`columns`, `words` and `pooled` are of an input, `projected` is of an output."""
    layout: Literal["", "hw", "chw", "hwc"] = ""
    """Of `pooled` only: which axes of a row are channel, height and width."""
    basis: Basis | None = None
    """Of `projected` only: its components are the features."""

    def __post_init__(self) -> None:
        if (self.layout != "") != (self.how == "pooled"):
            raise ValueError(f"{self.tensor}: a layout belongs to pooled tensors, and to no others")
        if (self.basis is not None) != (self.how == "projected"):
            raise ValueError(f"{self.tensor}: a basis belongs to projected tensors, no others")


@dataclass(frozen=True, slots=True)
class Residual:
    """Squared prediction error of a basis, per row, as one more histogram: what breaks the
    relations between columns, though each of them looks as usual (Jackson and Mudholkar 1979)."""

    feature: Feature
    basis: Basis | None = None
    """Over the number features in their order; None: that of the projected tensor."""

    def __post_init__(self) -> None:
        if self.feature.kind != "number":
            raise ValueError("a residual is a number")


@dataclass(frozen=True, slots=True)
class Profile:
    """The reference that drift is measured against: counts of the samples the model was built on.

    Features stand in the order of `watched`; without it they are the columns of the first input,
    flattened in C order. Only windows of equal profile digests merge. Raises `ValueError` where
    its parts do not fit each other.
    """

    rows: Count
    features: tuple[Feature, ...] = ()
    confidence: tuple[Count, ...] = ()
    classes: tuple[Count, ...] = ()
    watched: tuple[Watched, ...] = ()
    residual: Residual | None = None
    score: Feature | None = None
    """The first column of the first output whose role is `score`."""
    calibration: tuple[tuple[float, float], ...] = ()
    """Knots of (confidence, share that is right), both rising."""
    accuracy: float | None = None
    """Share of labelled reference rows that the model gets right."""
    window_s: int = 3600
    """How long a device counts into one window, unless it is a development device."""
    window_rows: int = 50
    """Windows of fewer rows stay open for longer."""
    must_understand: tuple[str, ...] = ()
    """`profile/2` where an agent that knew only columns of numbers would count wrongly."""

    def __post_init__(self) -> None:
        if len(self.features) > MAX_FEATURES or len(self.watched) > 64:
            raise ValueError(f"at most {MAX_FEATURES:,} features of 64 tensors are monitored")
        if self.score is not None and self.score.kind != "number":
            raise ValueError("a score is a number")
        if self.accuracy is not None and not 0 <= self.accuracy <= 1:
            raise ValueError("an accuracy is from 0 to 1")
        for what, limits in (("window_s", WINDOW_S), ("window_rows", WINDOW_ROWS)):
            if not limits[0] <= getattr(self, what) <= limits[1]:
                raise ValueError(f"{what} is {limits[0]:,} to {limits[1]:,}")
        self._check_calibration()
        self._check_residual()

    def _check_calibration(self) -> None:
        knots = self.calibration
        if len(knots) > MAX_KNOTS or not all(0 <= x <= 1 for knot in knots for x in knot):
            raise ValueError(f"at most {MAX_KNOTS} knots, their numbers from 0 to 1")
        if any(a[0] >= b[0] or a[1] > b[1] for a, b in pairwise(knots)):
            raise ValueError("knots of a calibration rise")

    def _check_residual(self) -> None:
        projected = [watched for watched in self.watched if watched.how == "projected"]
        if len(projected) > 1:
            raise ValueError("one tensor is projected at most")
        if self.residual is None:
            return
        if self.residual.basis is None and not projected:
            raise ValueError("a residual without a basis needs a projected tensor")
        numbers = sum(feature.kind == "number" for feature in self.features)
        if self.residual.basis is not None and len(self.residual.basis.centre) != numbers:
            raise ValueError(f"the basis of the residual is over {numbers:,} columns of numbers")

    @property
    def streams(self) -> int:
        """How many histograms a drift window has: the features, then the residual."""
        return len(self.features) + (self.residual is not None)

    def stream(self, index: int) -> Feature:
        """Raises `IndexError` for an index that is not below `streams`."""
        if self.residual is not None and index == len(self.features):
            return self.residual.feature
        return self.features[index]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names that signed rules may use: those of the first input's columns, or none."""
        return () if self.watched else tuple(feature.name for feature in self.features)
