"""The tutorial, carried out command by command; then the how-to pages on the fleet it leaves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import walkthrough
from tests.fakes.mosquitto import free_port
from tests.fakes.whole_fleet import short_folder

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
TUTORIAL = walkthrough.read(ROOT / "docs/tutorial/first-fleet.md")
# In this order: each finds what those before it have left.
PAGES = (
    "build-a-model",
    "roll-out-and-abort",
    "return-to-a-version",
    "read-a-verdict",
    "pin-a-device",
    "in-the-field",
    "bytes-and-hours",
    "mirror-payloads",
    "look-at-drift",
    "alarms-and-webhooks",
    "usb",
    "records-by-stick",
    "run-an-agent",
    "give-people-access",
    "read-the-audit-trail",
    "approve-and-revoke",
)
# Ports in the pages: two agents, API, broker.
PORTS = ("8500", "8501", "8400", "8883")


@pytest.fixture(scope="module")
def reader() -> Iterator[walkthrough.Shell]:
    """A shell in something like a clone, at the end of the tutorial."""
    with short_folder() as folder, ExitStack() as stack:
        clone = folder / "clone"
        clone.mkdir()
        for shared in (".venv", "docs"):
            (clone / shared).symlink_to(ROOT / shared)
        ports = {port: str(free_port()) for port in PORTS}
        init = f"init --dev --api-port {ports['8400']} --broker-port {ports['8883']}"
        shell = stack.enter_context(
            walkthrough.Shell(
                clone,
                folder / "log",
                {
                    **os.environ,
                    "HOME": str(folder),
                    "OUTRIDER_AGENT_PORT": ports["8500"],
                    "LC_ALL": "C.UTF-8",
                },
                {**ports, "init --dev": init},
            )
        )
        for step in TUTORIAL.steps:
            shell.run(step)
        yield shell
        for step in TUTORIAL.last:
            shell.run(step)


def test_the_tutorial_goes_as_it_says(reader):
    # The fixture has carried it out.
    assert TUTORIAL.commands


@pytest.mark.parametrize("name", PAGES)
def test_a_how_to_page_goes_as_it_says(reader, name):
    page = walkthrough.read(ROOT / f"docs/how-to/{name}.md")
    try:
        for step in page.steps:
            reader.run(step)
    finally:
        for step in page.last:
            reader.run(step)
