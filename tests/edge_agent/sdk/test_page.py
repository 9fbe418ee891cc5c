"""What the page about asking from an application shows is what happens."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from edge_agent.runners import Runners
from tests import walkthrough
from tests.fakes.proven import install, prove

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/how-to/ask-from-an-application.md"


@pytest.mark.skipif(shutil.which("curl") is None, reason="the page asks with curl")
def test_every_way_of_the_page_gets_an_answer(home):
    load = install(home)
    prove(home, load)
    runners = Runners(home / "run", port=0)
    runners.adopt()
    try:
        runners.promote(runners.start((load,)).id)
        page = walkthrough.read(PAGE)
        assert len(page.commands) == 5
        environment = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }
        replaced = {"8500": str(runners.port)}
        with walkthrough.Shell(home, home / "log", environment, replaced) as shell:
            for step in page.steps:
                shell.run(_on_port(step, str(runners.port)))
    finally:
        for view in runners.views():
            runners.kill(view.id)
        runners.close()


def _on_port(step: walkthrough.Step, port: str) -> walkthrough.Step:
    """Ports in commands are replaced by the shell, those in files are not."""
    if isinstance(step, walkthrough.File):
        return walkthrough.File(step.name, step.text.replace("8500", port))
    return step
