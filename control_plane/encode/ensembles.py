"""Tree ensembles: which columns follow from the shape of the trees, and which skip the leaves.

A forest as ONNX writes it says each thing several times. Names of attributes propose what a
column may be; only its numbers decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from coding import forms
from coding.limits import MAX_FEATURES, MAX_GROUP, MAX_HELD, MAX_NODES
from coding.table import AT_LEAVES, FIRST_TREE
from coding.trees import (
    FALSE_IDS,
    LEAF_IDS,
    LEAF_NODES,
    LEAF_TREES,
    MODES,
    NODE_IDS,
    NODE_TREES,
    TRUE_IDS,
    Flags,
    Shape,
)
from control_plane.encode.columns import Read
from control_plane.encode.segments import Key

LEAF: Final = b"LEAF"
NODES_MODES: Final = "nodes_modes"
FEATURES: Final = "nodes_featureids"

DERIVED: Final[Mapping[str, int]] = {
    "nodes_treeids": NODE_TREES,
    "nodes_nodeids": NODE_IDS,
    "nodes_truenodeids": TRUE_IDS,
    "nodes_falsenodeids": FALSE_IDS,
    "class_treeids": LEAF_TREES,
    "target_treeids": LEAF_TREES,
    "class_nodeids": LEAF_NODES,
    "target_nodeids": LEAF_NODES,
    "class_ids": LEAF_IDS,
    "target_ids": LEAF_IDS,
    NODES_MODES: MODES,
}
"""What an attribute may be derived as."""
LEAF_VALUES: Final = frozenset(
    {"class_weights", "target_weights", "class_weights_as_tensor", "target_weights_as_tensor"}
)
MOST_FIRST: Final = 1 << 31
"""Ids of first trees that a payload can say, without their sign."""

_Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Derivation:
    """`column` as `coding.trees` counts them; `first` is the id of the first tree."""

    column: int
    first: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Ensemble:
    """One node with trees. Columns are told by their place in the file's columns."""

    node: Key
    """The key of its columns, without the attribute."""
    modes: Read
    leaf_name: bytes
    leaves: _Flags
    """Per node, whether it is a leaf."""
    group: int = 0
    """How many values each leaf has; 0 if that is not known."""
    features: Read | None = None
    """Feature ids per node, 0 at leaves, if they are few and small enough to be held."""
    places: Mapping[str, int] = field(default_factory=dict)
    """Columns by attribute."""
    columns: tuple[Read, ...] = ()
    """The same columns as numbers."""
    derived: Mapping[int, Derivation] = field(default_factory=dict)
    masked: frozenset[int] = frozenset()
    """Columns with a number per node that are 0 at every leaf."""
    leaf_values: frozenset[int] = frozenset()
    """Columns of floats with `group` numbers per leaf."""

    @property
    def base_features(self) -> Read | None:
        """`features`, as far as devices find them in a base: with a tag before each."""
        if self.features is None or self.features.segment.form != forms.TAGGED_VARINT:
            return None
        return self.features

    @property
    def branches(self) -> int:
        return int(np.count_nonzero(~self.leaves))


def ensembles(reads: Sequence[Read]) -> tuple[Ensemble, ...]:
    """The ensembles of a file in the order of their first columns."""
    nodes: dict[Key, dict[str, int]] = {}
    for place, read in enumerate(reads):
        key = read.segment.key
        if key[0] in ("N", "F"):
            nodes.setdefault(key[:-1], {}).setdefault(key[-1], place)
    found = []
    for node, places in nodes.items():
        modes = reads[places[NODES_MODES]] if NODES_MODES in places else None
        if modes is not None and LEAF in modes.names and len(modes.values) <= MAX_NODES:
            found.append(_ensemble(node, places, reads, modes))
    return tuple(found)


def pairs(target: Sequence[Ensemble], base: Sequence[Ensemble]) -> tuple[int | None, ...]:
    """For each ensemble of the target that of the base: of the same node, else the next one."""
    by_node = {each.node: place for place, each in reversed(list(enumerate(base)))}
    named = [by_node.get(each.node) for each in target]
    others = iter([place for place in range(len(base)) if place not in named])
    return tuple(next(others, None) if place is None else place for place in named)


def modes_in_order(ensemble: Ensemble) -> Read:
    """The modes of an ensemble that has two of them, named (branch, leaf)."""
    (branch,) = set(ensemble.modes.names) - {ensemble.leaf_name}
    names = (branch, ensemble.leaf_name)
    return Read(ensemble.modes.segment, ensemble.leaves.astype(np.uint8), names)


def _ensemble(node: Key, places: Mapping[str, int], reads: Sequence[Read], modes: Read) -> Ensemble:
    leaves = modes.values == modes.names.index(LEAF)
    columns = {name: reads[place] for name, place in places.items()}
    group = _group(leaves, columns)
    derived = _derived(leaves, group, places, reads)
    features = columns.get(FEATURES)
    per_node = {
        place
        for place in places.values()
        if place not in derived and place != places[NODES_MODES] and _masked(reads[place], leaves)
    }
    leaf_values = {
        place
        for name, place in places.items()
        if name in LEAF_VALUES and group and _per_leaf(reads[place], leaves, group)
    }
    return Ensemble(
        node,
        modes,
        LEAF,
        leaves,
        group,
        features if features is not None and _can_be_held(features, leaves) else None,
        places,
        tuple(columns.values()),
        derived,
        frozenset(per_node),
        frozenset(leaf_values),
    )


def _group(leaves: _Flags, columns: Mapping[str, Read]) -> int:
    count = int(np.count_nonzero(leaves))
    for name in sorted(LEAF_VALUES & columns.keys()):
        group, rest = divmod(len(columns[name].values), count) if count else (0, 0)
        if not rest and 1 <= group <= MAX_GROUP:
            return group
    return 0


def _masked(read: Read, leaves: _Flags) -> bool:
    return (
        len(read.values) == len(leaves)
        and read.segment.form != forms.STRINGS
        and bool(leaves.any())
        and bool(read.values.any())
        and not read.values[leaves].any()
    )


def _per_leaf(read: Read, leaves: _Flags, group: int) -> bool:
    return bool(read.element.mantissa) and len(read.values) == group * int(np.count_nonzero(leaves))


def _can_be_held(read: Read, leaves: _Flags) -> bool:
    return (
        read.segment.form in (forms.VARINT, forms.TAGGED_VARINT)
        and len(read.values) == len(leaves)
        and not read.values[leaves].any()
        and 1 <= int(np.count_nonzero(~leaves)) <= MAX_HELD
        and int(read.values.max()) < MAX_FEATURES
    )


def _derived(
    leaves: _Flags, group: int, places: Mapping[str, int], reads: Sequence[Read]
) -> dict[int, Derivation]:
    """The columns that are, number by number, what a device derives from the leaves.

    None if the trees are not whole, or too large to be walked through on a device.
    """
    shape = Shape(Flags(leaves), group)
    found = {}
    try:
        for name, place in places.items():
            derived = _derivation(reads[place], DERIVED.get(name), shape, group)
            if derived is not None:
                found[place] = derived
    except ValueError:
        return {}
    return found


def _derivation(read: Read, column: int | None, shape: Shape, group: int) -> Derivation | None:
    if column is None or (column in AT_LEAVES and not group):
        return None
    if column == MODES:
        return Derivation(MODES) if len(read.names) == 2 else None
    if read.segment.form not in (forms.VARINT, forms.TAGGED_VARINT):
        return None
    first = 0
    if column in FIRST_TREE:
        first = int(read.values[:1].view("<i8")[0])
    if abs(first) > MOST_FIRST:
        return None
    at = 0
    for part in shape.derived(column, first):
        if not np.array_equal(part, read.values[at : at + len(part)]):
            return None
        at += len(part)
    return Derivation(column, first) if at == len(read.values) else None
