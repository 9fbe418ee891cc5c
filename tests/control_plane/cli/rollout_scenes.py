"""Fleets for transcripts of rollouts: what devices do between two commands, and the ticker with it.

    $ meanwhile healthy=3 rolled_back=1 hours=6

is no command of ours: three devices of the waves that have begun report that they keep the version,
one that it went back, and six hours pass.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from control_plane.judging import Judge
from control_plane.moving import Moving
from control_plane.rollout import starting
from protocol.bundle import Facts, Needs
from protocol.identifiers import Digest
from protocol.reported import ModelState, Note, Outcome, ReportedState
from tests.control_plane.web.conftest import Api
from tests.fakes.bundles import BundleOnDisk

HOUR_S: Final = 3600
NEEDS: Final = Needs(("aarch64", "x86_64"), "1.17", 96_000_000)
GOOD: Final = Facts("x86_64", "1.17.1", 512_000_000, "0.4")


def without_chance(monkeypatch: Any) -> None:
    """The same devices in the same waves each time; only rollouts are without chance."""
    same = types.SimpleNamespace(token_hex=lambda length: "5a" * length)
    monkeypatch.setattr(starting, "secrets", same)


@dataclass
class FleetOfTwelve:
    """cam-0001 to cam-0012 at two sites, all on digits/v1, which is stable."""

    api: Api
    versions: dict[str, BundleOnDisk] = field(default_factory=dict)
    order: int = 1

    def __post_init__(self) -> None:
        api, store = self.api, self.api.store
        self.moving = Moving(store, Judge(store), lambda: 0)
        for version in ("v1", "v2", "v3"):
            self.versions[version] = api.approved(version, needs=NEEDS)
        self.names = [f"cam-{number:04}" for number in range(1, 13)]
        for number, name in enumerate(self.names):
            api.enrol(name, site="york" if number % 3 else "leeds")
        one = self.versions["v1"].digest
        for name in self.names:
            self.report(name, ModelState(current=one, serving=one, target=one))
        api.parts = replace(api.parts, wake=self.move)
        app: Any = api.client.app
        app.state.parts = api.parts
        first = {"version": "digits/v1", "waves": ["100 %"], "gates": "off"}
        with contextlib.suppress(AssertionError):
            assert api.post("rollouts", first).status_code == 201

    def report(self, name: str, digits: ModelState, **more: Any) -> None:
        self.order += 1
        state = ReportedState(self.order, "0.4", **{"facts": GOOD, "models": {"digits": digits}, **more})
        now_ms = self.api.clock[0]
        self.api.store.devices.put_state(f"north-{name}", state, now_ms)
        self.api.store.devices.contact(f"north-{name}", now_ms)

    def move(self, seconds: float = 1.0) -> None:
        """What the ticker does, `seconds` later."""
        self.api.clock[0] += int(seconds * 1000)
        ready = {each.digest for each in self.versions.values()}
        self.moving.collect(self.api.clock[0])
        with self.api.store.write():
            self.moving.move(self.api.parts.repository.approvals(), ready, self.api.clock[0])
