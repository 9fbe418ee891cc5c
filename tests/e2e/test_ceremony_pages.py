"""The pages about ceremonies, carried out one after the other: each goes on from the one before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import walkthrough
from tests.fakes.whole_fleet import short_folder

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
PAGES = ("ceremony", "rotate-keys", "recover-from-compromise")


def test_the_pages_about_ceremonies_go_as_they_say():
    with short_folder() as folder:
        place = folder / "place"
        place.mkdir()
        environment = {
            **os.environ,
            "HOME": str(folder),
            "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}",
            "LC_ALL": "C.UTF-8",
        }
        with walkthrough.Shell(place, folder / "log", environment, {}) as shell:
            for name in PAGES:
                for step in walkthrough.read(ROOT / f"docs/how-to/{name}.md").steps:
                    shell.run(step)
