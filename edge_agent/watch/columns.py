"""The monitored columns of a request, taken out of its inputs and its answer.

Most models have one input of numbers, whose columns are monitored as they are: then the ring copies
it, and nothing here is called. Where a profile says otherwise, what it says is worked out when the
answer is given, since that is far less than the tensors themselves: codes of words, a few numbers
per channel of an image, coordinates of an embedding. Raw values go no further than this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Final, TypeAlias

import numpy as np

from edge_agent.watch.fold import Array, Rows, feature_rows
from edge_agent.watch.residual import Plane
from protocol.members import Contract, Feature, Profile, TensorSpec, Watched

Arrays: TypeAlias = Mapping[str, Array]
Take: TypeAlias = Callable[[Array, int], Rows]
"""A tensor and the number of its rows, to float32 [rows, columns]."""

POOLED: Final = ("mean", "deviation", "edges")
"""Of every channel, in this order; of `t` they are called `t.mean[0]`, `t.deviation[0]` and so on.
Edges: mean difference between neighbours along the width."""

MOST_PIXELS: Final = 256 * 1024
"""Values of images that are pooled at once, unless one has more: each takes some 16 bytes then."""

_CHANNEL: Final = {"hw": None, "chw": 0, "hwc": 2}
"""Axis of a row; None: there is one channel."""


class Columns:
    """Monitored columns of answered requests. May be called by many threads at once."""

    def __init__(self, contract: Contract, profile: Profile) -> None:
        """Raises `ValueError`, with what does not fit, for a profile of another contract."""
        first = contract.inputs[0]
        watched = profile.watched
        if not watched and profile.features:
            watched = (Watched(first.name),)
        self._parts: list[tuple[str, bool, Take]] = []
        self._order: list[int] | None = None
        at = 0
        for each in watched:
            take, columns = _taking(contract, profile, each, profile.features[at:])
            at += columns
            projected = each.how == "projected"
            self._parts.append((each.tensor, projected, take))
            if projected and _with_errors(profile):
                # Its errors come right behind its coordinates; they are the last column of all.
                order = range(len(profile.features) + 1)
                self._order = [*order[:at], *order[at + 1 :], at]
        if at != len(profile.features):
            raise ValueError(_misfit(profile, contract, at))
        self.width = at + (self._order is not None)
        """Columns: one of each feature, then perhaps the squared errors of a projected output."""
        self.plain = (
            len(watched) == 1 and watched[0].how == "columns" and watched[0].tensor == first.name
        )
        """Whether the columns are those of the first input, as they are."""
        if self._order == list(range(self.width)):
            self._order = None

    def __call__(self, inputs: Arrays, outputs: Arrays, rows: int) -> Rows:
        """float32 [rows, width] of what was asked and answered. May be a view of an input.

        Inputs fit the contract. Raises `ValueError` for an output that is not what it says.
        """
        tables = [
            take((outputs if projected else inputs)[name], rows)
            for name, projected, take in self._parts
        ]
        table = tables[0] if len(tables) == 1 else np.concatenate(tables, axis=1)
        return table if self._order is None else table[:, self._order]


def _taking(
    contract: Contract, profile: Profile, watched: Watched, features: Sequence[Feature]
) -> tuple[Take, int]:
    """How the columns of one tensor are taken, and how many of the features they are."""
    name = watched.tensor
    specs = contract.outputs if watched.how == "projected" else contract.inputs
    spec = next((spec for spec in specs if spec.name == name), None)
    if spec is None:
        raise ValueError(f"the profile watches {name[:80]}, which the contract does not have")
    if watched.how == "words":
        _check_rows(spec, contract)
        return _words(spec, features)
    if spec.datatype == "BYTES":
        raise ValueError(f"{name} is text, the profile monitors its numbers")
    if watched.basis is not None:
        plane = Plane(watched.basis)
        if -1 not in spec.shape[1:] and prod(spec.shape[1:]) != plane.columns:
            raise ValueError(f"{name} is {list(spec.shape)}, its basis has {plane.columns} columns")
        taking = _projected(plane, errors=_with_errors(profile))
        columns = len(watched.basis.components)
    elif watched.how == "pooled":
        _check_rows(spec, contract)
        taking = _pooled(_CHANNEL[watched.layout])
        columns = len(POOLED) * _channels(spec, watched.layout)
    else:
        _check_rows(spec, contract)
        taking, columns = feature_rows, _columns(spec)
    for feature in features[:columns]:
        if feature.kind != "number":
            raise ValueError(f"{feature.name} has words, {name} is {spec.datatype}")
    return taking, columns


def _words(spec: TensorSpec, features: Sequence[Feature]) -> tuple[Take, int]:
    if spec.datatype != "BYTES":
        raise ValueError(f"{spec.name} is {spec.datatype}, the profile monitors its words")
    columns = _columns(spec)
    return _coded([_places(feature) for feature in features[:columns]]), columns


def _with_errors(profile: Profile) -> bool:
    return profile.residual is not None and profile.residual.basis is None


def _coded(places: Sequence[Mapping[object, int]]) -> Take:
    def take(tensor: Array, rows: int) -> Rows:
        columns = tensor.reshape(rows, -1).T.tolist()
        codes = np.empty((rows, len(places)), np.float32)
        for number, (column, place) in enumerate(zip(columns, places, strict=True)):
            other = len(place) - 2
            codes[:, number] = [place.get(_text(value), other) for value in column]
        return codes

    return take


def _places(feature: Feature) -> Mapping[object, int]:
    """Code of every word: its place; behind them are any other text, then no text."""
    if feature.kind != "words":
        raise ValueError(f"{feature.name} has no words, what it is made of is text")
    missing = len(feature.words) + 1
    return {word: code for code, word in enumerate(feature.words)} | {None: missing, "": missing}


def _text(value: object) -> object:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _pooled(channel: int | None) -> Take:
    def take(images: Array, rows: int) -> Rows:
        at_once = max(1, MOST_PIXELS * rows // images.size)
        blocks = (images[start : start + at_once] for start in range(0, rows, at_once))
        return np.concatenate([_pool(block, channel) for block in blocks])

    return take


def _pool(images: Array, channel: int | None) -> Rows:
    """float32 [rows, channels * 3] of images whose axis of channels, without rows, is given."""
    images = images[:, None] if channel is None else np.moveaxis(images, channel + 1, 1)
    with np.errstate(over="ignore", invalid="ignore"):
        # Each channel in one piece: numpy then adds in pairs, and float32 suffices for any number
        # of pixels.
        pixels = np.ascontiguousarray(images, np.float32)
        flat = pixels.reshape(*pixels.shape[:2], -1)
        mean, deviation = flat.mean(axis=2), flat.std(axis=2)
        edges = np.zeros_like(mean)
        if pixels.shape[3] > 1:
            steps = np.diff(pixels, axis=3).reshape(*flat.shape[:2], -1)
            edges = np.abs(steps, out=steps).mean(axis=2)
    return np.stack([mean, deviation, edges], axis=2).reshape(len(images), -1)


def _projected(plane: Plane, *, errors: bool) -> Take:
    def take(tensor: Array, rows: int) -> Rows:
        along, error = plane.project(feature_rows(tensor, rows))
        return np.column_stack((along, error)) if errors else along

    return take


def _check_rows(spec: TensorSpec, contract: Contract) -> None:
    """One row of a monitored input belongs to each row of the first."""
    first = contract.inputs[0]
    if spec is not first and (spec.shape[:1] != first.shape[:1] or not spec.shape):
        raise ValueError(
            f"{spec.name} is {list(spec.shape)}: it has no row for each row of {first.name}"
        )


def _columns(spec: TensorSpec) -> int:
    shape = spec.shape[1:] if len(spec.shape) > 1 else (1,)
    if -1 in shape:
        raise ValueError(f"{spec.name} is {list(spec.shape)}: its rows have no fixed columns")
    return prod(shape)


def _channels(spec: TensorSpec, layout: str) -> int:
    if len(spec.shape) != len(layout) + 1:
        raise ValueError(f"{spec.name} is {list(spec.shape)}, no image of layout {layout}")
    channel = _CHANNEL[layout]
    channels = 1 if channel is None else spec.shape[channel + 1]
    if channels < 1:
        raise ValueError(f"{spec.name} is {list(spec.shape)}: it has no fixed number of channels")
    return channels


def _misfit(profile: Profile, contract: Contract, columns: int) -> str:
    first = contract.inputs[0]
    if profile.watched:
        return f"the profile has {len(profile.features)} features of {columns} watched columns"
    return (
        f"the profile has {len(profile.features)} features, {first.name} is "
        f"{first.datatype} {list(first.shape)}"
    )
