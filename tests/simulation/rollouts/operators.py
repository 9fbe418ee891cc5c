"""People at random: they start rollouts, change their mind, edit labels, replace devices."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import Any, Final

from control_plane.rollout import operations
from control_plane.rollout.spec import read_spec
from protocol.device import Pin
from protocol.errors import InvalidRequest
from tests.simulation.rollouts.device import MINUTE_MS, MODEL
from tests.simulation.rollouts.fleet import FLEET, V1, V2, V3, Fleet

WHO: Final = "eva"
SITES: Final = ("a", "b", "")
WAVES: Final[tuple[tuple[Any, ...] | None, ...]] = (
    None,
    ("100 %",),
    ("1", "100 %"),
    ("2", "50 %", "100 %"),
    ("25 %", "75 %", "100 %"),
    ({"devices": ["d1", "d2"]}, "50 %", "100 %"),
    ({"percent": 30, "per": "site"}, {"percent": 60, "per": "site"}, "100 %"),
    ({"devices": 2, "exclude": ["d0"]}, {"percent": 100, "approve": True}),
)


def some_spec(rng: random.Random, version: str) -> dict[str, Any]:
    """What somebody asks for; short times, so that days of it pass quickly."""
    body: dict[str, Any] = {
        "version": f"{MODEL}/{version}",
        "silent_after": "2 h",
        "exposures": rng.choice((["1 h"], ["1 h", "3 h"])),
        "season": "6 h",
        "insufficient_after": "1 d",
        "unproven": rng.choice(("ask", "proceed", "proceed")),
        "soak": rng.choice(("0 s", "30 min", "2 h")),
        "on_failure": rng.choice(("abort rollback", "abort rollback", "abort keep", "pause")),
    }
    waves = rng.choice(WAVES)
    if waves is not None:
        body["waves"] = list(waves)
    maybe: tuple[tuple[float, str, Any], ...] = (
        (0.3, "to", rng.choice(("site = a", "site != b"))),
        (0.2, "holdback", rng.choice(("1", "20 %"))),
        (0.2, "shadow", {"rows": 100, "agreement": ">= 90 %"}),
        (0.3, "in_progress_timeout", "3 h"),
        (0.2, "on_insufficient", "pause"),
        (0.1, "deadline", "20 h"),
        (0.3, "failure_limit", rng.choice(("2 %", "20 %"))),
        (0.2, "maintenance_windows", ["01:00-05:00"]),
        (0.2, "gates", "off"),
        (
            0.2,
            "error_condition",
            {"bad": "> 40 %", "denominator": "activated", "min_completed": 2},
        ),
        (0.15, "success_condition", {"good": ">= 60 %", "denominator": "targeted"}),
    )
    body |= {name: value for chance, name, value in maybe if rng.random() < chance}
    return body


class Operators:
    """`act` does one thing that somebody might do now; what is refused is not done."""

    def __init__(self, fleet: Fleet, rng: random.Random) -> None:
        self._fleet = fleet
        self._rng = rng
        self._names = 0
        self.done: list[str] = []
        """What was done, in words, for a reader of a failure."""
        self.unpinned: set[str] = set()
        self.pinned: set[str] = set()

    def act(self, chance: float) -> None:
        rng = self._rng
        if rng.random() >= chance:
            return
        acts: tuple[tuple[int, Callable[[], str]], ...] = (
            (4, self._start),
            (1, self._return),
            (2, self._pause),
            (3, self._resume),
            (3, self._approve),
            (2, self._promote),
            (2, self._abort),
            (2, self._retry),
            (4, self._label),
            (3, self._pin),
            (3, self._unpin),
            (2, self._replace),
            (2, self._enrol),
            (3, self._link),
            (1, self._deafen),
        )
        (chosen,) = rng.choices([each for _, each in acts], [weight for weight, _ in acts])
        self._do(chosen)

    def start(self, body: dict[str, Any]) -> str | None:
        """The rollout's id; None where it is refused."""
        fleet = self._fleet
        salt = f"{self._rng.getrandbits(128):032x}"
        try:
            shown = operations.start_rollout(
                fleet.store, FLEET, read_spec(body), fleet.world.approvals, fleet.now_ms,
                lambda: salt, who=WHO,
            )  # fmt: skip
        except InvalidRequest as error:
            self._say(f"start {body['version']} refused: {error.code}")
            return None
        self._say(f"start {shown['id']} {body}")
        return str(shown["id"])

    def resume_all(self) -> None:
        """Whoever had paused or was asked, goes on."""
        for rollout in self._fleet.store.rollouts.active():
            if rollout.status == "paused" and (rollout.verdict or {}).get("verdict") != "fail":
                verb = operations.approve if rollout.asks else operations.resume
                with _refusals():
                    verb(self._fleet.store, rollout.id, self._fleet.now_ms, "go on", who=WHO)

    def _do(self, act: Callable[[], str]) -> None:
        try:
            said = act()
        except InvalidRequest as error:
            said = f"{act.__name__} refused: {error.code}"
        if said:
            self._say(said)

    def _say(self, said: str) -> None:
        minutes = (self._fleet.now_ms // MINUTE_MS) % 100_000
        self.done.append(f"{minutes}: {said}")

    # --- rollouts -------------------------------------------------------------------------------

    def _rollout(self) -> str:
        page = self._fleet.store.rollouts.page(MODEL, limit=3).items
        return self._rng.choice([each.id for each in page]) if page else "digits-1"

    def _start(self) -> str:
        body = some_spec(self._rng, self._rng.choice(("v1", "v2", "v2", "v3")))
        active = self._fleet.store.rollouts.active(MODEL)
        if active and self._rng.random() < 0.5:
            body["supersedes"] = self._rng.choice([each.id for each in active])
        self.start(body)
        return ""

    def _return(self) -> str:
        fleet, salt = self._fleet, f"{self._rng.getrandbits(128):032x}"
        shown = operations.return_to(
            fleet.store, FLEET, MODEL, self._rng.choice(("v1", "v2")), fleet.world.approvals,
            fleet.now_ms, lambda: salt, who=WHO, why="go back",
        )  # fmt: skip
        return f"return {shown['id']}"

    def _verb(self, verb: Any, **more: Any) -> str:
        id = self._rollout()
        verb(self._fleet.store, id, self._fleet.now_ms, "because", who=WHO, **more)
        return f"{verb.__name__} {id} {more or ''}"

    def _pause(self) -> str:
        return self._verb(operations.pause)

    def _resume(self) -> str:
        return self._verb(operations.resume)

    def _approve(self) -> str:
        return self._verb(operations.approve)

    def _promote(self) -> str:
        return self._verb(operations.promote)

    def _abort(self) -> str:
        return self._verb(operations.abort, keep=self._rng.random() < 0.5)

    def _retry(self) -> str:
        return self._verb(operations.retry)

    # --- devices --------------------------------------------------------------------------------

    def _some(self) -> str:
        return self._rng.choice(sorted(self._fleet.devices))

    def _label(self) -> str:
        id, site = self._some(), self._rng.choice(SITES)
        before = self._fleet.store.devices.need(id)
        labels = {**before.labels, "site": site} if site else {
            k: v for k, v in before.labels.items() if k != "site"
        }  # fmt: skip
        self._fleet.store.devices.change(
            dataclasses.replace(before, labels=labels), self._fleet.now_ms
        )
        return f"label {id} site={site}"

    def _pin(self) -> str:
        id, to = self._some(), self._rng.choice((V1, V1, V2, V3))
        now_ms = self._fleet.now_ms
        until = self._rng.choice((None, now_ms + 120 * MINUTE_MS))
        before = self._fleet.store.devices.need(id)
        pinned = dataclasses.replace(before, pins={MODEL: Pin(to, until)})
        self._fleet.store.devices.change(pinned, now_ms)
        self.pinned.add(id)
        return f"pin {id} {self._fleet.versions[to]} until {until}"

    def _unpin(self) -> str:
        pinned = [
            id for id in sorted(self._fleet.devices) if self._fleet.store.devices.need(id).pins
        ]
        if not pinned:
            return ""
        id = self._rng.choice(pinned)
        before = self._fleet.store.devices.need(id)
        self._fleet.store.devices.change(dataclasses.replace(before, pins={}), self._fleet.now_ms)
        self.unpinned.add(id)
        return f"unpin {id}"

    def _replace(self) -> str:
        """A device is taken out, and another one comes in its place with a name of its own."""
        id = self._some()
        if len(self._fleet.devices) < 3:
            return ""
        before = self._fleet.store.devices.need(id)
        self._fleet.store.devices.retire(id, self._fleet.now_ms)
        gone = self._fleet.devices.pop(id)
        gone.linked = False
        self._fleet.retired.append(gone)
        self._names += 1
        made = self._fleet.enrol(f"n{self._names}", before.labels.get("site", ""), past=False)
        made.fates = gone.fates
        return f"replace {id} by {made.id}"

    def _enrol(self) -> str:
        self._names += 1
        made = self._fleet.enrol(f"n{self._names}", self._rng.choice(SITES), past=False)
        return f"enrol {made.id}"

    def _link(self) -> str:
        device = self._fleet.devices[self._some()]
        device.linked = not device.linked
        return f"{device.id} {'is back' if device.linked else 'goes away'}"

    def _deafen(self) -> str:
        """Nobody listens, or somebody does again."""
        deaf = self._fleet.listening_since_ms is None
        self._fleet.listening_since_ms = self._fleet.now_ms if deaf else None
        return "ingest is back" if deaf else "ingest is away"


class _refusals:  # noqa: N801 - used like a function
    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: Any, _: Any) -> bool:
        return isinstance(error, InvalidRequest)
