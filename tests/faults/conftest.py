"""One fleet for all cases with real processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.whole_fleet import short_folder
from tests.faults.world import World


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    with short_folder() as folder, World(folder) as world:
        yield world
