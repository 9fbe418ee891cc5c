"""One block of a column, written by one method: the forward side of `coding.methods`.

The methods and their data: docs/reference/payload-format.md.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from coding import bits, elements
from coding.elements import Array, Element
from coding.limits import MAX_SPARSE
from coding.methods import (
    DIFF,
    DIFF_SORTED,
    FOLDS,
    IN_ONE_OF,
    ONE_OF,
    PAIRS,
    RANKS,
    SAME,
    SPARSE,
    TOKENS,
    TOKENS_SORTED,
    VALUES,
    Context,
)
from coding.sets import ValueSet
from coding.streams import Packer
from coding.varint import unsigned

Window = tuple[int, int]
"""First element (masked: node) of a part of the base, and how many."""

MOST_DISTINCT: Final = 256
MOST_USED: Final = 255
"""Of a group, not zero: a byte counts them."""


def encode(
    method: int, x: Array, context: Context, packer: Packer, window: Window | None = None
) -> bytes | None:
    """What stands behind the method's byte for the elements `x`; None where it does not apply.

    `window` names the part of `context.window` that PLAIN to STEPS put before their stream.
    """
    if method in FOLDS:
        return _whole(method, x, context, packer, window)
    if method == VALUES:
        return _values(x, context.element, packer)
    if method == RANKS:
        return _ranks(x, context, packer)
    if method == ONE_OF:
        return _one_of(x, context, packer)
    if context.base is None:
        return None
    if method == SAME:
        return b"" if np.array_equal(x, context.base) else None
    z = elements.difference(x, context.base, context.element)
    if method in (DIFF_SORTED, TOKENS_SORTED):
        if not context.element.mantissa:
            return None
        z = z[elements.order_of(context.base, context.element)]
    if method in (DIFF, DIFF_SORTED):
        return packer.stream(elements.planes(z))
    if method in (TOKENS, TOKENS_SORTED):
        token, low = bits.tokens(z)
        lengths = bits.low_bits_of(token)
        return packer.stream(token.tobytes()) + packer.stream(bits.pack_low(low, lengths))
    if method == PAIRS:
        symbols, larger = bits.pack_pairs(z)
        return packer.stream(symbols) + packer.stream(elements.planes(larger))
    if method == SPARSE:
        return _sparse(z, packer)
    raise ValueError(f"there is no method {method}")


def _whole(method: int, x: Array, context: Context, packer: Packer, window: Window | None) -> bytes:
    fold = FOLDS[method]
    if context.base is not None:
        return packer.stream(fold(x), fold(context.base))
    if window is not None and context.window is not None:
        told = unsigned(window[0]) + unsigned(window[1])
        return packer.stream(fold(x), fold(context.window(*window)), told)
    return packer.stream(fold(x))


def _sparse(z: Array, packer: Packer) -> bytes | None:
    """Which elements differ, as Golomb-Rice coded gaps, and by how much."""
    places = np.flatnonzero(z)
    if not 0 < len(places) <= MAX_SPARSE:
        return None
    gaps = np.diff(places, prepend=-1).astype("<u4") - np.uint32(1)
    k = min(
        range(bits.MAX_RICE + 1),
        key=lambda k: int((gaps >> np.uint32(k)).sum()) + len(gaps) * (1 + k),
    )
    unary, rest = bits.pack_rice(gaps, k)
    larger = z[places] - z.dtype.type(1)
    return b"".join(
        [
            unsigned(len(places)),
            bytes([k]),
            unsigned(len(unary)),
            packer.stream(unary),
            packer.stream(rest),
            packer.stream(elements.planes(larger)),
        ]
    )


def _values(x: Array, element: Element, packer: Packer) -> bytes | None:
    if not len(x):
        return None
    distinct, indices = np.unique(x, return_inverse=True)
    if len(distinct) > MOST_DISTINCT:
        return None
    listed = bytes([len(distinct) - 1]) + packer.stream(distinct.astype(element.dtype).tobytes())
    if len(distinct) == 1:
        return listed
    width = next(width for width in bits.INDEX_BITS if len(distinct) <= 1 << width)
    return listed + bytes([width]) + packer.stream(bits.pack_indices(indices.astype("<u1"), width))


def _ranks(x: Array, context: Context, packer: Packer) -> bytes | None:
    """Places in the value set; what is not in it stands beside."""
    if not isinstance(context.values, ValueSet):
        return None
    features = context.features
    ranks, hits = context.values.ranks_of(x, features)
    widths = context.values.widths(None if features is None else features[hits], int(hits.sum()))
    found = bits.pack_low(ranks[hits], widths)
    misses = elements.planes(elements.rotated(x[~hits]))
    return packer.stream(bits.pack_flags(hits)) + packer.stream(found) + packer.stream(misses)


def _one_of(x: Array, context: Context, packer: Packer) -> bytes | None:
    """Groups in which few are not zero: how many, where, and what."""
    if not context.group:
        return None
    used = x.reshape(-1, context.group) != 0
    counts = used.sum(axis=1)
    if len(counts) and int(counts.max()) > MOST_USED:
        return None
    places = np.nonzero(used)[1].astype("<u1")
    held = x[used.reshape(-1)]
    inner = replace(context, count=len(held), base=None, window=None, features=None, group=0)
    if context.features is not None:
        inner = replace(inner, values=None)
    written = [
        bytes([method]) + data
        for method in sorted(IN_ONE_OF)
        if (data := encode(method, held, inner, packer)) is not None
    ]
    return (
        packer.stream(counts.astype("<u1").tobytes())
        + packer.stream(places.tobytes())
        + min(written, key=len)
    )
