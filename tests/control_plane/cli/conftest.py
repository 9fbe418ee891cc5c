"""The command line in this process, against a whole API with a real store."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from control_plane import cli, client
from control_plane.cli import commands, looking, showing
from control_plane.client import Access, Client
from protocol.identifiers import Digest
from protocol.reported import ModelState, Note, Outcome
from tests.control_plane.web.conftest import Api, api, new_home, quorum_home  # noqa: F401 - fixtures
from tests.fakes.bundles import BundleOnDisk
from tests.fakes.command_line import Ran, ran

Outrider = Callable[..., Ran]


@pytest.fixture
def outrider(api: Api, monkeypatch) -> Outrider:  # noqa: F811 - the fixture
    """`outrider("model", "list")`: against the API, in the folder of the test."""
    monkeypatch.chdir(api.folder)
    monkeypatch.setenv("OUTRIDER_HOME", str(api.parts.settings.home))
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)

    def connected(access: Access) -> Client:
        return Client(access, transport=api.client._transport)

    monkeypatch.setattr(commands, "Client", connected)
    monkeypatch.setattr(showing, "now_ms", lambda: api.clock[0])
    monkeypatch.setattr(client, "PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(looking, "LOOK_S", 0.0)

    def run(*arguments: str, **more: object) -> Ran:
        return ran(cli.run, arguments, **more)  # type: ignore[arg-type]  # passed on

    return run


def healthy(bundle: BundleOnDisk, since_ms: int, **more: object) -> ModelState:
    return ModelState(
        current=bundle.digest,
        serving=bundle.digest,
        target=bundle.digest,
        origin="stable",
        plan_number=31,
        since_ms=since_ms,
        **more,  # type: ignore[arg-type]  # a table
    )


def rolled_back(to: BundleOnDisk, gave_up: Digest, since_ms: int) -> ModelState:
    return ModelState(
        current=to.digest,
        serving=to.digest,
        target=gave_up,
        origin="rollout",
        rollout="digits-7",
        plan_number=34,
        since_ms=since_ms,
        notes={
            gave_up: Note("OUT-D310", "confidence 0.31, was 0.97", definite=True, activated=True)
        },
        last=Outcome(1, "digits", gave_up, "rolled_back", "OUT-D310", "confidence 0.31, was 0.97"),
    )


def given(arguments: str) -> Sequence[str]:
    return arguments.split()
