"""Floats that are told as integers: where whole rows became a little larger, or smaller.

Of floats in their order, the difference then has the sign of the number itself, which is chance;
of their bits as they lie there it has one sign for the row. So it is where another exporter folds
a scale into weights, and with weights that decay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from coding.elements import BF16, F16, F32, F64, U16, U32, U64
from coding.limits import MAX_GATHERED_OP
from control_plane.encode import search
from control_plane.encode.blocks import Source
from control_plane.encode.columns import Read
from control_plane.encode.layout import Numbers, Part
from control_plane.encode.search import Effort

INTEGERS: Final[Mapping[int, int]] = {F16: U16, BF16: U16, F32: U32, F64: U64}
"""Elements of the same size, and the same bytes."""
UNCHANGED: Final = 0.1
"""Where fewer numbers are as they were, the changes are too large for signs to matter."""


def smaller(part: Part, effort: Effort) -> Part:
    """`part`, told as integers if its first changed block takes fewer bytes so."""
    if not isinstance(part, Numbers) or part.base is None or not part.base_same_count:
        return part
    small = part.end - part.start <= MAX_GATHERED_OP
    if part.ensemble is not None or part.read.segment.element not in INTEGERS or small:
        return part
    other = replace(part, read=_as_integers(part.read), base=_as_integers(part.base))
    cut = _changed(part.read, part.base)
    if cut is None or _size(other, cut, effort) >= _size(part, cut, effort):
        return part
    return other


def _changed(read: Read, base: Read) -> tuple[int, int] | None:
    """The first block of which some has changed and some has not."""
    for start, end in Source(read.values, read.element, read.segment.form).cuts():
        same = np.count_nonzero(read.values[start:end] == base.values[start:end])
        if same < end - start:
            return (start, end) if same >= UNCHANGED * (end - start) else None
    return None


def _size(part: Numbers, cut: tuple[int, int], effort: Effort) -> int:
    base = part.base.values if part.base is not None else None
    source = Source(
        part.read.values, part.read.element, part.read.segment.form, base=base, same_count=True
    )
    block = source.part(*cut, None, lzma=effort.lzma)
    return len(search.best(block.x, block.context, effort))


def _as_integers(read: Read) -> Read:
    return replace(read, segment=replace(read.segment, element=INTEGERS[read.segment.element]))
