"""What the table of a payload says, as values; `coding.table` knows their bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from coding.base import BaseColumn
from coding.elements import ELEMENTS
from coding.limits import MAX_HELD, MAX_VALUES


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Trees of the target: `group` values at each leaf (0: not said), and the size of the space
    of features where those of the branches are kept (0: not kept)."""

    nodes: int
    group: int = 0
    features: int = 0


@dataclass(frozen=True, slots=True)
class BaseEnsemble:
    """Trees of the base: the column of modes, one name of which is a leaf's, and maybe that of
    the features (form TAGGED_VARINT)."""

    modes: BaseColumn
    features: BaseColumn | None = None

    @property
    def nodes(self) -> int:
        return self.modes.count


@dataclass(frozen=True, slots=True)
class Set:
    """A value set: `new` values, and those of a column of the base. With an `ensemble`: values
    per feature, of branch nodes only."""

    element: int
    new: int
    ensemble: int | None = None
    base: BaseColumn | None = None
    base_ensemble: int | None = None


@dataclass(frozen=True, slots=True)
class Pool:
    """Elements of small columns, coded together."""

    element: int
    elements: int
    has_base: bool


@dataclass(frozen=True, slots=True)
class Copy:
    literal: int
    length: int
    base_start: int

    @property
    def size(self) -> int:
        return self.length

    @property
    def base_range(self) -> tuple[int, int]:
        return self.base_start, self.base_start + self.length


@dataclass(frozen=True, slots=True)
class Column:
    """`size`: bytes of output. `ensemble`: of a masked or grouped column. The base of a masked
    column has the nodes of `base_ensemble`."""

    literal: int
    form: int
    element: int
    tag: int
    count: int
    size: int
    names: tuple[bytes, ...] = ()
    masked: bool = False
    grouped: bool = False
    ensemble: int | None = None
    value_set: int | None = None
    base: BaseColumn | None = None
    base_ensemble: int | None = None

    @property
    def same_count(self) -> bool:
        """Whether the base has as many elements, one for each."""
        return self.base is not None and self.base.count == self.count and not self.masked

    @property
    def base_range(self) -> tuple[int, int] | None:
        return (self.base.start, self.base.end) if self.base else None


@dataclass(frozen=True, slots=True)
class Gathered:
    literal: int
    pool: int
    elements: int
    size: int
    base_start: int | None = None

    @property
    def base_range(self) -> tuple[int, int] | None:
        return None if self.base_start is None else (self.base_start, self.base_start + self.size)


@dataclass(frozen=True, slots=True)
class Derived:
    """`first`: the first tree's id, in columns 0 and 4."""

    literal: int
    column: int
    ensemble: int
    form: int
    tag: int
    count: int
    size: int
    first: int = 0
    names: tuple[bytes, ...] = ()
    base_range: None = None


@dataclass(frozen=True, slots=True)
class Held:
    literal: int
    ensemble: int
    form: int
    tag: int
    size: int
    base_range: None = None


Op = Copy | Column | Gathered | Derived | Held


@dataclass(frozen=True, slots=True)
class Table:
    """`tail`: literal bytes behind the last op."""

    literal_bytes: int
    ensembles: tuple[Ensemble, ...] = ()
    base_ensembles: tuple[BaseEnsemble, ...] = ()
    sets: tuple[Set, ...] = ()
    pools: tuple[Pool, ...] = ()
    ops: tuple[Op, ...] = ()
    tail: int = 0

    @property
    def size(self) -> int:
        """Bytes of the target."""
        return sum(op.literal + op.size for op in self.ops) + self.tail

    @property
    def kept_bytes(self) -> int:
        """Most bytes that a decoder keeps until the last block."""
        nodes = [each.nodes for each in self.ensembles]
        nodes += [each.nodes for each in self.base_ensembles]
        flags = sum(-(-each // 8) for each in nodes)
        held = sum(2 * min(each.nodes, MAX_HELD) for each in self.ensembles if each.features)
        values = sum(_kept(each, self.ensembles) for each in self.sets)
        pools = sum(each.elements * ELEMENTS[each.element].itemsize for each in self.pools)
        return self.literal_bytes + flags + held + values + pools


def uncovered(table: Table, base_size: int) -> Iterator[tuple[int, int]]:
    """Runs of the base, `(start, length)` in order, that no op has as its base."""
    at = 0
    for start, end in sorted(op.base_range for op in table.ops if op.base_range):
        if start > at:
            yield at, start - at
        at = max(at, end)
    if at < base_size:
        yield at, base_size - at


def _kept(each: Set, ensembles: Sequence[Ensemble]) -> int:
    count = min(MAX_VALUES, each.new + (each.base.count if each.base else 0))
    features = 0 if each.ensemble is None else ensembles[each.ensemble].features
    return count * ELEMENTS[each.element].itemsize + 4 * (features + 2)
