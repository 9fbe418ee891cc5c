"""What a starting control plane reads back from the broker before it signs anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Targets

from protocol.identifiers import DeviceId, ModelName
from protocol.targets import planned_model
from protocol.topics import TUF_ROLES, Topics

ROOTS_AHEAD = 8
"""Root rotations that a restored backup may have missed, looked for at a time."""


class Reader(Protocol):
    def read(self, names: Sequence[str]) -> dict[str, bytes]:
        """What is retained under these topics. Raises `Unavailable`."""


def read_back(
    retained: Reader,
    topics: Topics,
    *,
    roots: Iterable[int],
    models: Iterable[ModelName],
    devices: Iterable[DeviceId],
) -> dict[str, bytes]:
    """Metadata, plans, deny list and device documents, by topic. `roots`: numbers known here.

    Raises `Unavailable`. Nothing of it is trusted yet; that is the repository's business.
    """
    found = retained.read([topics.tuf(role) for role in TUF_ROLES])
    first = max(roots) + 1
    while newer := retained.read([topics.root(n) for n in range(first, first + ROOTS_AHEAD)]):
        found |= newer
        first += ROOTS_AHEAD
    named = {*models, *_planned(found.get(topics.tuf("rollouts")))}
    plans = [topics.plan(model) for model in sorted(named)]
    documents = [topics.document(device) for device in devices]
    return found | retained.read([*plans, topics.deny, *documents])


def _planned(rollouts: bytes | None) -> Iterator[ModelName]:
    """Models whose plans the retained role names, also those that this store does not know."""
    if rollouts is None:
        return
    try:
        targets = Metadata[Targets].from_bytes(rollouts).signed.targets
        paths = list(targets)
    except (RepositoryError, ValueError, AttributeError):
        return
    for path in paths:
        try:
            model = planned_model(path)
        except ValueError:
            continue
        if model is not None:
            yield model
