"""The columns of a layout as blocks take them, with all that is known of each."""

from __future__ import annotations

from dataclasses import replace

from coding import ops
from coding.base import BaseColumn
from coding.elements import ELEMENTS, U16
from control_plane.encode.blocks import Source
from control_plane.encode.columns import Read
from control_plane.encode.ensembles import Ensemble
from control_plane.encode.layout import HeldColumn, Layout, Numbers


class Sources:
    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._held = {part.ensemble: part for part in layout.parts if isinstance(part, HeldColumn)}

    def held(self, ensemble: int) -> HeldColumn | None:
        """The features that devices keep of an ensemble."""
        return self._held.get(ensemble)

    def space(self, ensemble: int) -> int:
        """Size of the space of those features; 0: none are kept."""
        held = self._held.get(ensemble)
        return 0 if held is None else int(held.read.values.max()) + 1

    def features(self, held: HeldColumn) -> Source:
        """The features of the branches."""
        ensemble = self._layout.ensembles[held.ensemble]
        old = next(iter(self._layout.base_ensembles), None)
        base = None
        if old is not None and old.base_features is not None:
            base = old.base_features.values[~old.leaves].astype("<u2")
        return Source(
            held.read.values[~ensemble.leaves].astype("<u2"),
            ELEMENTS[U16],
            base=base,
        )

    def numbers(self, part: Numbers) -> Source:
        read, base = part.read, part.base
        plain = Source(
            read.values,
            read.element,
            read.segment.form,
            read.segment.tag,
            read.names,
            base=base.values if base is not None else None,
            same_count=part.base_same_count,
        )
        if part.ensemble is None:
            return plain
        ensemble = self._layout.ensembles[part.ensemble]
        if part.role == "leaf value":
            return replace(plain, group=ensemble.group)
        old = (
            None if part.base_ensemble is None else self._layout.base_ensembles[part.base_ensemble]
        )
        held = self._held.get(part.ensemble)
        return replace(
            plain,
            leaves=ensemble.leaves,
            base_leaves=old.leaves if old is not None else None,
            same_count=False,
            features=held.read.values if held is not None else None,
        )


def base_column(read: Read) -> BaseColumn:
    """Where a column lies in the base."""
    segment = read.segment
    return BaseColumn(
        read.start,
        segment.form,
        segment.element,
        segment.tag,
        len(read.values),
        read.end - read.start,
        read.names,
    )


def base_ensemble(ensemble: Ensemble) -> ops.BaseEnsemble:
    features = ensemble.base_features
    return ops.BaseEnsemble(
        replace(base_column(ensemble.modes), names=(ensemble.leaf_name,)),
        base_column(features) if features is not None else None,
    )
