"""Elements of columns as unsigned integers, and the arithmetic of differences.

Arrays are little-endian unsigned views (`<u1`, `<u2`, `<u4`, `<u8`) of whatever the elements are;
all arithmetic is modulo 2 to the number of their bits. No float is ever calculated with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True, slots=True)
class Element:
    """`mantissa` bits of a float; 0: an integer."""

    code: int
    itemsize: int
    mantissa: int = 0

    @property
    def bits(self) -> int:
        return 8 * self.itemsize

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        return np.dtype(f"<u{self.itemsize}")


U8, I8, U16, I16, U32, I32, U64, I64, F16, BF16, F32, F64 = range(12)

ELEMENTS: Final[Mapping[int, Element]] = {
    U8: Element(U8, 1),
    I8: Element(I8, 1),
    U16: Element(U16, 2),
    I16: Element(I16, 2),
    U32: Element(U32, 4),
    I32: Element(I32, 4),
    U64: Element(U64, 8),
    I64: Element(I64, 8),
    F16: Element(F16, 2, 10),
    BF16: Element(BF16, 2, 7),
    F32: Element(F32, 4, 23),
    F64: Element(F64, 8, 52),
}


def ordered(x: Array, element: Element) -> Array:
    """Integers in the order of the floats: minus zero just below zero, NaN outermost."""
    if not element.mantissa:
        return x
    top, last = element.dtype.type(1 << element.bits - 1), element.dtype.type(element.bits - 1)
    turned: Array = x ^ ((element.dtype.type(0) - (x >> last)) | top)
    return turned


def unordered(x: Array, element: Element) -> Array:
    """The inverse of `ordered`."""
    if not element.mantissa:
        return x
    top, last = element.dtype.type(1 << element.bits - 1), element.dtype.type(element.bits - 1)
    turned: Array = x ^ (((x >> last) - element.dtype.type(1)) | top)
    return turned


def zigzag(d: Array) -> Array:
    """Small differences of both signs become small."""
    bits = 8 * d.dtype.itemsize
    sign = d.dtype.type(0) - (d >> d.dtype.type(bits - 1))
    folded: Array = (d << d.dtype.type(1)) ^ sign
    return folded


def unzigzag(z: Array) -> Array:
    """The inverse of `zigzag`."""
    one = z.dtype.type(1)
    unfolded: Array = (z >> one) ^ (z.dtype.type(0) - (z & one))
    return unfolded


def rotated(x: Array) -> Array:
    """Bits rotated left by one: the sign goes last, and the exponent fills the top byte."""
    bits = 8 * x.dtype.itemsize
    turned: Array = (x << x.dtype.type(1)) | (x >> x.dtype.type(bits - 1))
    return turned


def unrotated(x: Array) -> Array:
    """The inverse of `rotated`."""
    bits = 8 * x.dtype.itemsize
    turned: Array = (x >> x.dtype.type(1)) | (x << x.dtype.type(bits - 1))
    return turned


def steps(x: Array) -> Array:
    """Zigzag differences to the element before; the first one's is 0."""
    d = x.copy()
    d[1:] -= x[:-1]
    return zigzag(d)


def unsteps(z: Array) -> Array:
    """The inverse of `steps`."""
    d = unzigzag(z)
    return np.cumsum(d, dtype=d.dtype)


def difference(x: Array, base: Array, element: Element) -> Array:
    """Zigzag difference of ordered integers, element by element."""
    return zigzag(ordered(x, element) - ordered(base, element))


def restored(z: Array, base: Array, element: Element) -> Array:
    """`x` of `difference(x, base, element)`."""
    return unordered(ordered(base, element) + unzigzag(z), element)


def planes(x: Array) -> bytes:
    """First the lowest bytes of all elements, the highest last."""
    width = x.dtype.itemsize
    return np.ascontiguousarray(x).view(np.uint8).reshape(-1, width).T.tobytes()


def unplanes(data: bytes, itemsize: int) -> Array:
    """The inverse of `planes`. Raises `ValueError` unless `data` is whole elements."""
    split = np.frombuffer(data, np.uint8).reshape(itemsize, -1)
    joined = np.empty((split.shape[1], itemsize), np.uint8)
    # One plane after the other: transposing goes byte by byte.
    for place, plane in enumerate(split):
        joined[:, place] = plane
    whole: Array = joined.reshape(-1).view(f"<u{itemsize}")
    return whole


def order_of(base: Array, element: Element) -> NDArray[np.intp]:
    """Positions in stable order of the floats' exponents: near ones change alike."""
    exponents = (base >> base.dtype.type(element.mantissa)) & base.dtype.type(
        (1 << element.bits - 1 - element.mantissa) - 1
    )
    # Sorted by counting, as only integers of 8 and 16 bits are.
    few = element.bits - 1 - element.mantissa <= 8
    return np.argsort(exponents.astype(np.uint8 if few else np.uint16), kind="stable")
