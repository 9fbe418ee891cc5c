"""A home as an agent leaves it: a bundle that is proven, so that an application can follow it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from edge_agent.disk import Disk
from edge_agent.journal import Journal
from edge_agent.runner.views import Load
from tests.fakes.bundles import BundleOnDisk, make_bundle


def install(home: Path, **wishes: object) -> Load:
    """A complete bundle below `home`, made as `make_bundle` makes it."""
    made: BundleOnDisk = make_bundle(home / "made", **wishes)  # type: ignore[arg-type]  # handed on
    path = Disk(home).path(made.digest)
    shutil.copytree(made.path, path, dirs_exist_ok=True)
    return Load(made.model, made.digest, made.manifest, path)


def prove(home: Path, load: Load) -> None:
    """Journal a bundle as what was committed last."""
    disk = Disk(home)
    journal = disk.journal(load.model) or Journal(load.model)
    disk.write_journal(replace(journal, current=load.digest, previous=journal.current))
