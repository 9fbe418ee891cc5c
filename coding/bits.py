"""Numbers in less than bytes. Vectorised both ways: no step per element.

`z` are zigzag differences. A token says how long a number is and its two leading bits; what
is left of it are its low bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from coding.elements import Array

Counts = Mapping[int, int]
"""How many elements have so many bits; those that have none left out."""

INDEX_BITS: Final = (1, 2, 4, 8)
MAX_RICE: Final = 15


def bit_lengths(z: Array) -> Array:
    """Of each number; 0 of 0. `<u1`."""
    if z.dtype.itemsize < 8:
        return np.frexp(z.astype(np.float64))[1].astype("<u1")
    high = z >> z.dtype.type(32)
    # Doubles hold 32 bits exactly, 64 they would round.
    upper = np.frexp(high.astype(np.float64))[1]
    lower = np.frexp((z & z.dtype.type(0xFFFFFFFF)).astype(np.float64))[1]
    return np.where(high > 0, upper + 32, lower).astype("<u1")


def tokens(z: Array) -> tuple[Array, Array]:
    """`(tokens, low bits)`: `<u1` each, and of the dtype of `z`."""
    length = bit_lengths(z)
    large = length >= 3
    k = np.where(large, length - np.uint8(2), 0).astype(z.dtype)
    second = ((z >> k) & z.dtype.type(1)).astype("<u1")
    token = np.where(large, np.uint8(2) * length - np.uint8(2) + second, z.astype("<u1"))
    low = z & ((z.dtype.type(1) << k) - z.dtype.type(1))
    return token.astype("<u1"), low


def low_bits_of(token: Array) -> Array:
    """How many low bits each token leaves, `<u1`."""
    one = np.uint8(1)
    k: Array = np.maximum(token >> one, one) - one
    return k


def from_tokens(token: Array, low: Array) -> Array:
    """The numbers. Raises `ValueError` for a token that no number of that size has."""
    leads = _LEADS[low.dtype.itemsize]
    if len(token) and int(token.max()) >= len(leads):
        raise ValueError("a token of a larger number")
    found: Array = leads.take(token)
    found |= low
    return found


def low_size(counts: Counts) -> int:
    """Bytes of `pack_low` for so many elements of so many bits."""
    return sum(count * (bits // 8) + -(-count * (bits % 8) // 8) for bits, count in counts.items())


def pack_low(values: Array, k: Array) -> bytes:
    """The `k[i]` lowest bits of each value: elements of fewer bits first, whole bytes as planes,
    then what is left bit by bit."""
    parts: list[bytes] = []
    for bits in counted(k):
        some = values[k == bits]
        parts += [
            ((some >> some.dtype.type(8 * plane)) & some.dtype.type(0xFF)).astype("<u1").tobytes()
            for plane in range(bits // 8)
        ]
        if bits % 8:
            parts.append(_pack_rest(some >> some.dtype.type(8 * (bits // 8)), bits % 8))
    return b"".join(parts)


def unpack_low(data: bytes, k: Array, counts: Counts, itemsize: int) -> Array:
    """The inverse of `pack_low`; `counts` of `k`. Raises `ValueError` unless `data` has
    `low_size(counts)` bytes."""
    if len(data) != low_size(counts):
        raise ValueError("low bits of another length")
    dtype = np.dtype(f"<u{itemsize}")
    found: Array = np.zeros(len(k), dtype)
    place, first = 0, len(k) - sum(counts.values())
    for bits, count in counts.items():
        whole, rest = bits // 8, bits % 8
        some = found[first : first + count]
        for plane in range(whole):
            taken = np.frombuffer(data, "<u1", count, place).astype(dtype)
            some |= taken << dtype.type(8 * plane)
            place += count
        if rest:
            length = -(-count * rest // 8)
            left = _unpack_rest(data[place : place + length], count, rest)
            some |= left.astype(dtype) << dtype.type(8 * whole)
            place += length
        first += count
    values = np.empty_like(found)
    values[np.argsort(k, kind="stable")] = found
    return values


def pack_rice(gaps: Array, k: int) -> tuple[bytes, bytes]:
    """`(unary quotients, remainders of k bits)`."""
    quotients = (gaps >> gaps.dtype.type(k)).astype(np.int64)
    unary = np.ones(int(quotients.sum()) + len(gaps), np.uint8)
    unary[np.cumsum(quotients + 1) - 1] = 0
    rest = (gaps & gaps.dtype.type((1 << k) - 1)).astype("<u2")
    return np.packbits(unary).tobytes(), _pack_rest(rest, k)


def unpack_rice(unary: bytes, rest: bytes, m: int, k: int) -> Array:
    """`m` gaps, `<u4`. Raises `ValueError` for another number of quotients or remainders."""
    if len(rest) != -(-m * k // 8):
        raise ValueError("remainders of another length")
    # What stands behind the last one is less than a byte of zeros.
    ones = np.unpackbits(np.frombuffer(unary, np.uint8))
    if not m <= len(ones) - np.count_nonzero(ones) < m + 8:
        raise ValueError("another number of quotients")
    ends = np.flatnonzero(ones == 0)
    if 8 * len(unary) - (int(ends[m - 1]) + 1 if m else 0) >= 8:
        raise ValueError("another number of quotients")
    quotients = np.diff(ends[:m], prepend=-1) - 1
    gaps = quotients << k
    if k:
        gaps |= _unpack_rest(rest, m, k)
    return gaps.astype("<u4")


def pack_indices(x: Array, bits: int) -> bytes:
    """Numbers of 1, 2, 4 or 8 bits, first in the low bits."""
    per = 8 // bits
    padded = np.zeros(-(-len(x) // per) * per, np.uint8)
    padded[: len(x)] = x
    out = np.zeros(len(padded) // per, np.uint8)
    for place in range(per):
        out |= padded[place::per] << np.uint8(bits * place)
    return out.tobytes()


def unpack_indices(data: bytes, count: int, bits: int) -> Array:
    """The inverse of `pack_indices`, `<u1`."""
    if bits not in INDEX_BITS or len(data) != -(-count * bits // 8):
        raise ValueError("indices of another length")
    per = 8 // bits
    packed = np.frombuffer(data, np.uint8)
    out = np.empty((len(packed), per), "<u1")
    for place in range(per):
        out[:, place] = (packed >> np.uint8(bits * place)) & np.uint8((1 << bits) - 1)
    return out.reshape(-1)[:count]


def pack_pairs(z: Array) -> tuple[bytes, Array]:
    """`(symbols min(z, 3) of two bits, the numbers of all symbols 3)`."""
    symbols = np.minimum(z, z.dtype.type(3)).astype("<u1")
    return pack_indices(symbols, 2), z[symbols == 3]


def unpack_pairs(data: bytes, count: int) -> Array:
    """The symbols, `<u1`."""
    return unpack_indices(data, count, 2)


def pack_flags(flags: Array | NDArray[np.bool_]) -> bytes:
    """One bit each, first in the highest bit."""
    return np.packbits(flags.astype(np.bool_)).tobytes()


def unpack_flags(data: bytes, count: int) -> Array:
    """The inverse of `pack_flags`: 0 or 1 each, `<u1`."""
    if len(data) != -(-count // 8):
        raise ValueError("flags of another length")
    return np.unpackbits(np.frombuffer(data, np.uint8), count=count)


def counted(k: Array) -> Counts:
    """How many elements have so many bits; without those that have none."""
    # There are few different ones: comparing all with each is faster than counting one by one.
    every = range(1, int(k.max(initial=0)) + 1)
    return {bits: count for bits in every if (count := int(np.count_nonzero(k == bits)))}


def _pack_rest(values: Array, bits: int) -> bytes:
    """Element by element, the lowest bit first, to whole bytes."""
    matrix = np.empty((len(values), bits), np.uint8)
    for place in range(bits):
        matrix[:, place] = (values >> values.dtype.type(place)) & values.dtype.type(1)
    return np.packbits(matrix.reshape(-1)).tobytes()


def _unpack_rest(data: bytes, count: int, bits: int) -> Array:
    """Numbers of up to 16 bits. Eight of them are whole bytes, and up to 8 bits a word."""
    if bits > 8:
        matrix = np.unpackbits(np.frombuffer(data, np.uint8), count=count * bits)
        values = np.zeros(count, "<u2")
        for place in range(bits):
            values |= matrix[place::bits].astype("<u2") << np.uint16(place)
        return values
    size = 4 if bits <= 4 else 8
    rows = np.zeros((-(-count // 8), size), np.uint8)
    padded = data.translate(_REVERSED).ljust(len(rows) * bits, b"\0")
    rows[:, :bits] = np.frombuffer(padded, np.uint8).reshape(-1, bits)
    words = rows.view(f"<u{size}").reshape(-1)
    found = np.empty((len(rows), 8), "<u1")
    for place in range(8):
        found[:, place] = (words >> words.dtype.type(bits * place)).astype(np.uint8)
    found &= np.uint8((1 << bits) - 1)
    return found.reshape(-1)[:count]


_LEAD: Final = [token if token < 4 else (2 | token & 1) << (token - 2 >> 1) for token in range(128)]
_LEADS: Final[Mapping[int, Array]] = {
    itemsize: np.array(_LEAD[: 16 * itemsize], f"<u{itemsize}") for itemsize in (1, 2, 4, 8)
}
"""What a token says of a number of so many bytes; its low bits are zero."""
_REVERSED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""Bytes with their first bit last."""
