from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent.runners import Load, Runners
from tests.fakes.bundles import BundleOnDisk, make_bundle


def load_of(bundle: BundleOnDisk) -> Load:
    return Load(bundle.model, bundle.digest, bundle.manifest, bundle.path)


@pytest.fixture
def bundles(tmp_path: Path) -> Callable[..., Load]:
    """Makes a bundle as `make_bundle` does, ready to be started."""

    def make(**wishes: object) -> Load:
        return load_of(make_bundle(tmp_path / "bundles", **wishes))  # type: ignore[arg-type]

    return make


@pytest.fixture
def new_runners(tmp_path: Path) -> Iterator[Callable[..., Runners]]:
    """Makes supervisors' sides; whatever runs in their folder is ended afterwards."""
    made: list[Runners] = []

    def make(**wishes: object) -> Runners:
        runners = Runners(tmp_path / "run", **{"port": 0, **wishes})  # type: ignore[arg-type]
        made.append(runners)
        return runners

    yield make
    for runners in made:
        for view in runners.views():
            runners.kill(view.id)
        runners.close()


@pytest.fixture
def runners(new_runners: Callable[..., Runners]) -> Runners:
    adopted = new_runners()
    adopted.adopt()
    return adopted
