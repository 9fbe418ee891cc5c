"""What the blocks of columns hold: a method and its data become elements.

A method reads nothing but its data, and what the column's base, value set or group give it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np

from coding import bits, elements, streams
from coding.elements import Array, Element
from coding.limits import MAX_BASE_WINDOW, MAX_NODES, MAX_SPARSE, MAX_STREAM
from coding.varint import Buffer, Reader

(
    PLAIN,
    PLANES,
    ROTATED,
    STEPS,
    DIFF,
    DIFF_SORTED,
    TOKENS,
    TOKENS_SORTED,
    PAIRS,
    SPARSE,
    SAME,
    VALUES,
    RANKS,
    ONE_OF,
) = range(14)

IN_ONE_OF: Final = frozenset({PLAIN, PLANES, ROTATED, VALUES, RANKS})
"""Methods that the values of ONE_OF may have."""


class Values(Protocol):
    """A value set, as far as blocks look into it."""

    def widths(self, features: Array | None, count: int) -> Array: ...

    def values_at(self, ranks: Array, features: Array | None) -> Array: ...


@dataclass(frozen=True, slots=True)
class Context:
    """What is known of a block before its data: `count` elements of `element`.

    `base`: the elements of a base of the same count. `window(p, m)`: elements `[p, p+m)` of a
    base of another count. `features`: of each element, where the value set has one per feature.
    """

    element: Element
    count: int
    lzma: bool
    base: Array | None = None
    window: Callable[[int, int], Array] | None = None
    values: Values | None = None
    features: Array | None = None
    group: int = 0


def decode(data: Buffer, context: Context) -> Array:
    """The elements of one block, from its method on. Raises `ValueError` for data that is not
    exactly that, and the errors of `streams`."""
    reader = Reader(data)
    found = _decoded(reader, context)
    reader.end()
    return found


def to_plain(x: Array) -> bytes:
    return x.tobytes()


def to_rotated(x: Array) -> bytes:
    return elements.planes(elements.rotated(x))


def to_steps(x: Array) -> bytes:
    return elements.planes(elements.steps(x))


FOLDS: Final[Mapping[int, Callable[[Array], bytes]]] = {
    PLAIN: to_plain,
    PLANES: elements.planes,
    ROTATED: to_rotated,
    STEPS: to_steps,
}
"""What the one stream of methods 0 to 3 holds of elements, and its prefix of those of the base."""


def _decoded(reader: Reader, context: Context) -> Array:
    method = reader.byte()
    if method not in _METHODS:
        raise ValueError(f"unknown method {method}")
    return _METHODS[method](reader, context)


def _prefix(context: Context, fold: Callable[[Array], bytes]) -> streams.Prefix | None:
    base, window = context.base, context.window
    if base is not None:
        return lambda _: fold(base)
    if window is None:
        return None

    def read(reader: Reader) -> bytes:
        first = reader.unsigned(MAX_NODES * 64)
        count = reader.unsigned(MAX_BASE_WINDOW // context.element.itemsize)
        return fold(window(first, count))

    return read


def _stream(reader: Reader, context: Context, length: int) -> bytes:
    return streams.read(reader, length, lzma=context.lzma)


def _folded(reader: Reader, context: Context, method: int) -> bytes:
    length = context.count * context.element.itemsize
    prefix = _prefix(context, FOLDS[method])
    return streams.read(reader, length, lzma=context.lzma, prefix=prefix)


def _plain(reader: Reader, context: Context) -> Array:
    return np.frombuffer(_folded(reader, context, PLAIN), context.element.dtype)


def _planes(reader: Reader, context: Context) -> Array:
    return elements.unplanes(_folded(reader, context, PLANES), context.element.itemsize)


def _rotated(reader: Reader, context: Context) -> Array:
    data = _folded(reader, context, ROTATED)
    return elements.unrotated(elements.unplanes(data, context.element.itemsize))


def _steps(reader: Reader, context: Context) -> Array:
    data = _folded(reader, context, STEPS)
    return elements.unsteps(elements.unplanes(data, context.element.itemsize))


def _base(context: Context) -> Array:
    if context.base is None:
        raise ValueError("a difference without a base of the same count")
    return context.base


def _difference(reader: Reader, context: Context) -> Array:
    base = _base(context)
    z = _split(reader, context, context.count)
    return elements.restored(z, base, context.element)


def _split(reader: Reader, context: Context, count: int) -> Array:
    """`count` numbers in byte planes."""
    width = context.element.itemsize
    return elements.unplanes(_stream(reader, context, count * width), width)


def _tokens_of(reader: Reader, context: Context) -> Array:
    token: Array = np.frombuffer(_stream(reader, context, context.count), "<u1")
    if len(token) and int(token.max()) > 2 * context.element.bits - 1:
        raise ValueError("a token of a larger number")
    k = bits.low_bits_of(token)
    counts = bits.counted(k)
    size = bits.low_size(counts)
    if size > MAX_STREAM:
        raise ValueError("too many low bits")
    low = bits.unpack_low(_stream(reader, context, size), k, counts, context.element.itemsize)
    return bits.from_tokens(token, low)


def _tokens(reader: Reader, context: Context) -> Array:
    base = _base(context)
    return elements.restored(_tokens_of(reader, context), base, context.element)


def _unsorted(z: Array, context: Context) -> Array:
    if not context.element.mantissa:
        raise ValueError("integers have no exponent to sort by")
    base = _base(context)
    back = np.empty_like(z)
    back[elements.order_of(base, context.element)] = z
    return elements.restored(back, base, context.element)


def _difference_sorted(reader: Reader, context: Context) -> Array:
    _base(context)
    return _unsorted(_split(reader, context, context.count), context)


def _tokens_sorted(reader: Reader, context: Context) -> Array:
    _base(context)
    return _unsorted(_tokens_of(reader, context), context)


def _pairs(reader: Reader, context: Context) -> Array:
    base = _base(context)
    symbols = bits.unpack_pairs(_stream(reader, context, -(-context.count // 4)), context.count)
    large = symbols == 3
    z = symbols.astype(context.element.dtype)
    z[large] = _split(reader, context, int(np.count_nonzero(large)))
    return elements.restored(z, base, context.element)


def _sparse(reader: Reader, context: Context) -> Array:
    base = _base(context)
    m = reader.unsigned(min(context.count, MAX_SPARSE))
    k = reader.byte()
    if k > bits.MAX_RICE:
        raise ValueError("too many bits of a gap")
    unary = _stream(reader, context, reader.unsigned(context.count // 4 + 1))
    rest = _stream(reader, context, -(-m * k // 8))
    gaps = bits.unpack_rice(unary, rest, m, k)
    places = np.cumsum(gaps.astype(np.int64) + 1) - 1
    if m and int(places[-1]) >= context.count:
        raise ValueError("a difference behind the end")
    z = np.zeros(context.count, context.element.dtype)
    z[places] = _split(reader, context, m) + context.element.dtype.type(1)
    return elements.restored(z, base, context.element)


def _same(_reader: Reader, context: Context) -> Array:
    return _base(context)


def _few(reader: Reader, context: Context) -> Array:
    count = reader.byte() + 1
    width = context.element.itemsize
    values = np.frombuffer(_stream(reader, context, count * width), context.element.dtype)
    if count == 1:
        return np.repeat(values, context.count)
    per = reader.byte()
    if per not in bits.INDEX_BITS:
        raise ValueError("indices of another size")
    packed = _stream(reader, context, -(-context.count * per // 8))
    return values[bits.unpack_indices(packed, context.count, per)]


def _ranks(reader: Reader, context: Context) -> Array:
    if context.values is None:
        raise ValueError("ranks without a value set")
    hits = bits.unpack_flags(_stream(reader, context, -(-context.count // 8)), context.count)
    known = np.flatnonzero(hits)
    features = None if context.features is None else context.features[known]
    k = context.values.widths(features, len(known))
    counts = bits.counted(k)
    ranks = bits.unpack_low(_stream(reader, context, bits.low_size(counts)), k, counts, 4)
    missing = _split(reader, context, context.count - len(known))
    found = np.empty(context.count, context.element.dtype)
    found[known] = context.values.values_at(ranks, features)
    found[hits == 0] = elements.unrotated(missing)
    return found


def _one_of(reader: Reader, context: Context) -> Array:
    group = context.group
    if not group or context.count % group:
        raise ValueError("there are no groups")
    used: Array = np.frombuffer(_stream(reader, context, context.count // group), "<u1")
    many = int(used.sum(dtype=np.int64))
    if many > context.count:
        raise ValueError("more values than places")
    places = np.frombuffer(_stream(reader, context, many), "<u1")
    if many and int(places.max()) >= group:
        raise ValueError("a place outside of its group")
    inner = replace(context, count=many, base=None, window=None, features=None, group=0)
    if context.features is not None:
        inner = replace(inner, values=None)
    method = reader.byte()
    if method not in IN_ONE_OF:
        raise ValueError(f"method {method} within groups")
    values = _METHODS[method](reader, inner)
    found = np.zeros(context.count, context.element.dtype)
    starts = np.repeat(np.arange(len(used), dtype=np.int64) * group, used)
    found[starts + places] = values
    return found


_METHODS: Final[Mapping[int, Callable[[Reader, Context], Array]]] = {
    PLAIN: _plain,
    PLANES: _planes,
    ROTATED: _rotated,
    STEPS: _steps,
    DIFF: _difference,
    DIFF_SORTED: _difference_sorted,
    TOKENS: _tokens,
    TOKENS_SORTED: _tokens_sorted,
    PAIRS: _pairs,
    SPARSE: _sparse,
    SAME: _same,
    VALUES: _few,
    RANKS: _ranks,
    ONE_OF: _one_of,
}
