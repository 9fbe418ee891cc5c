"""What the page about the inference interface shows is what a runner answers."""

import os
import shutil
from pathlib import Path

import pytest

from edge_agent.runner.bearer import make_token
from tests import walkthrough

PAGE = Path(__file__).parents[3] / "docs/reference/inference.md"


@pytest.mark.skipif(shutil.which("curl") is None, reason="the page asks with curl")
def test_every_command_of_the_page_is_answered_as_it_shows(new_runners, bundles, tmp_path):
    make_token(tmp_path / "inference-token", "abcdefghijklmnop-0123")
    runners = new_runners(listen=("127.0.0.1", 0), token_file=tmp_path / "inference-token")
    runners.adopt()
    runners.promote(runners.start((bundles(),)).id)
    page = walkthrough.read(PAGE)
    assert len(page.commands) > 12
    replaced = {"8500": str(runners.port), "8501": str(runners.listens[1])}
    environment = {"PATH": os.environ["PATH"]}
    with walkthrough.Shell(tmp_path, tmp_path / "log", environment, replaced) as shell:
        for step in page.steps:
            shell.run(step)
