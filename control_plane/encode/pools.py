"""Small columns of one kind of element, coded together: a frame for each would cost too much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from coding import forms
from coding.elements import ELEMENTS
from coding.limits import MAX_GATHERED, MAX_GATHERED_OP, MAX_POOLS
from control_plane.encode.blocks import Source
from control_plane.encode.columns import Read
from control_plane.encode.layout import Numbers, Part


@dataclass(slots=True, eq=False)
class Pool:
    """Columns of `element`, each with a base of the same count or all without one."""

    element: int
    has_base: bool
    reads: list[Read] = field(default_factory=list)
    bases: list[Read] = field(default_factory=list)

    @property
    def elements(self) -> int:
        return sum(len(read.values) for read in self.reads)

    def source(self) -> Source:
        return Source(
            np.concatenate([read.values for read in self.reads]),
            ELEMENTS[self.element],
            base=np.concatenate([read.values for read in self.bases]) if self.has_base else None,
            same_count=self.has_base,
        )


def gathered(parts: Sequence[Part]) -> tuple[list[Pool], dict[int, int]]:
    """The pools of a layout, and the pool of each small column, by the place of its part."""
    pools: list[Pool] = []
    found: dict[int, int] = {}
    left = MAX_GATHERED
    for place, part in enumerate(parts):
        if not isinstance(part, Numbers) or part.ensemble is not None:
            continue
        size = part.end - part.start
        alone = part.base is None or part.base_same_count
        if part.read.segment.form != forms.BYTES or not alone or size > min(left, MAX_GATHERED_OP):
            continue
        number = _pool(pools, part.read.segment.element, part.base is not None)
        if number is None:
            continue
        pools[number].reads.append(part.read)
        if part.base is not None:
            pools[number].bases.append(part.base)
        left -= size
        found[place] = number
    return pools, found


def _pool(pools: list[Pool], element: int, has_base: bool) -> int | None:
    for number, pool in enumerate(pools):
        if (pool.element, pool.has_base) == (element, has_base):
            return number
    if len(pools) == MAX_POOLS:
        return None
    pools.append(Pool(element, has_base))
    return len(pools) - 1
