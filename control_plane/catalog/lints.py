"""What whoever builds a profile should look at: nothing that is wrong, all that makes it weak.

A lint never names a value of the samples: what it is printed on may be read by more people.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from protocol.profile import Feature, Profile

Array = NDArray[Any]
Code = Literal[
    "few-rows",
    "constant",
    "rare-words",
    "missing",
    "repeated-rows",
    "no-residual",
    "no-calibration",
    "foreign-labels",
    "answers-only",
    "inputs-only",
    "golden-words",
]

ADVISED_ROWS: Final = 5_000
MISSING_SHARE: Final = 0.5
REPEATED_SHARE: Final = 0.2
FEW_VALUES: Final = 16
"""Columns of at most so many values repeat by themselves."""

_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Lint:
    """One thing to look at. `feature` is "" where it is about all of them."""

    code: Code
    feature: str
    text: str


def of_profile(profile: Profile) -> Iterator[Lint]:
    """What the counts alone tell: few rows, constants, gaps."""
    if profile.rows < ADVISED_ROWS:
        yield Lint("few-rows", "", f"{profile.rows:,} rows; {ADVISED_ROWS:,} make a firm reference")
    for feature in profile.features:
        if feature.counts[-1] > MISSING_SHARE * sum(feature.counts):
            share = feature.counts[-1] / sum(feature.counts)
            yield Lint("missing", feature.name, f"missing in {share:.0%} of the rows")
        elif _is_constant(feature):
            yield Lint("constant", feature.name, "one value in all rows")


def of_words(feature: Feature, rare: int) -> Iterator[Lint]:
    """`rare`: distinct words that are in too few rows to be in the profile."""
    if rare:
        other = feature.counts[-2]
        text = f"{rare:,} rare words count as `other` ({other:,} rows); the profile names none"
        yield Lint("rare-words", feature.name, text)


def of_rows(samples: Mapping[str, Array]) -> Iterator[Lint]:
    """Rows that are there again, where a column has enough values to tell."""
    rows = len(next(iter(samples.values())))
    tables = [array.reshape(rows, -1) for array in samples.values()]
    if not any(_has_many_values(table) for table in tables):
        return
    seen = {_digest(tables, row) for row in range(rows)}
    share = 1 - len(seen) / rows
    if share > REPEATED_SHARE:
        yield Lint("repeated-rows", "", f"{share:.0%} of the rows are copies of others")


def said(lints: Iterable[Lint]) -> Iterator[str]:
    """One line per code and text, its features together."""
    groups: dict[tuple[Code, str], list[str]] = {}
    for lint in lints:
        groups.setdefault((lint.code, lint.text), []).append(lint.feature)
    for (code, text), features in groups.items():
        named = [feature for feature in features if feature]
        where = ", ".join(named[:_NAMED])
        if len(named) > _NAMED:
            where += f" and {len(named) - _NAMED:,} more"
        yield f"{code}: {where}: {text}" if where else f"{code}: {text}"


def _is_constant(feature: Feature) -> bool:
    slots = np.flatnonzero(feature.counts)
    if len(slots) != 1:
        return False
    # A slot between two neighbours of float32 is one value; so is a word, or nothing.
    if feature.kind == "words":
        return bool(slots[0] != len(feature.words))
    return len(feature.edges) <= 2


def _has_many_values(table: Array) -> bool:
    if table.dtype.kind == "O":
        return any(len(set(column)) > FEW_VALUES for column in table.T.tolist())
    return any(len(np.unique(column)) > FEW_VALUES for column in table.T)


def _digest(tables: list[Array], row: int) -> bytes:
    digest = blake2b(digest_size=16)
    for table in tables:
        cells = table[row]
        digest.update(repr(cells.tolist()).encode() if cells.dtype.kind == "O" else cells.tobytes())
    return digest.digest()
