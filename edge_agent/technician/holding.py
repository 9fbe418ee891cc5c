"""Holds a model at a version, for the running agent: `rollback`, `pin` and `unpin`.

An order is in force once it is on disk; whoever gave it hears that at once, and how it went if
the update machine is done within a moment. All of it happens on the thread of whoever asked:
a supervisor that loads something large keeps nobody waiting.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from edge_agent import denials, pinning
from edge_agent.desired import allowances
from edge_agent.parts import Parts
from edge_agent.pinning import Standing
from edge_agent.technician.door import WHO, Line, Tell
from edge_agent.technician.status import Status
from protocol.errors import InvalidRequest
from protocol.identifiers import Digest, ModelName
from protocol.problems import problem
from protocol.reported import LocalPin, ModelState

log = logging.getLogger(__name__)

MOMENT_S: Final = 0.7
"""How long somebody waits to see how it went; a command takes at most a second."""
LOOK_S: Final = 0.02
LOOK: Final = 8
"""Exit code of what works and needs a look."""
PINNED: Final = "pinned_here"
UNPINNED: Final = "unpinned_here"
"""Events of these names go up."""


class Supervisor(Protocol):
    def status(self) -> Status: ...


class Holding:
    """Each command from any thread."""

    def __init__(
        self,
        parts: Parts,
        supervisor: Supervisor,
        *,
        moment_s: float = MOMENT_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._parts = parts
        self._supervisor = supervisor
        self._moment_s = moment_s
        self._sleep = sleep

    def rollback(self, options: Mapping[str, str], tell: Tell) -> None:
        """Hold a model at what ran before. Raises as `pinning.back` does."""
        standing = self._standing()
        model = pinning.the_model(standing, options.get("model", ""))
        self._hold(standing, model, pinning.back(standing, model), options, tell)

    def pin(self, options: Mapping[str, str], tell: Tell) -> None:
        """Hold a model at a version. Raises as `pinning.chosen` does."""
        standing = self._standing()
        model, bundle = pinning.chosen(standing, options.get("version", ""))
        self._hold(standing, model, bundle, options, tell)

    def unpin(self, options: Mapping[str, str], tell: Tell) -> None:
        """Let the plan decide again. Raises `InvalidRequest` OUT-S110 if nothing is pinned."""
        pins = self._parts.pins.pins
        model = options.get("model", "") or (next(iter(pins)) if len(pins) == 1 else "")
        taken = self._parts.pins.take_back(model) if model else None
        if taken is None:
            held = ", ".join(sorted(pins)) or "nothing"
            why = f"{model} is not pinned here" if model else "no model is named"
            raise InvalidRequest("OUT-S110", why, do=f"pinned here: {held}")
        standing = self._standing()
        name = standing.name(model, taken.digest)
        log.info("%s is no longer pinned, says %s", name, options.get(WHO, ""))
        self._report(UNPINNED, {"model": model, "bundle": taken.digest, "who": options.get(WHO)})
        tell(Line("unpinned", {"model": model, "name": name, "linked": standing.linked}))
        tell(Line("end", {"exit": 0}))

    # --- what all of them do --------------------------------------------------------------------

    def _standing(self) -> Standing:
        parts, status = self._parts, self._supervisor.status()
        if not status.state.facts.arch:
            raise InvalidRequest("OUT-D408", "the agent has just started", do="again in a second")
        approvals, deny = parts.trust.approvals, parts.orders.deny
        given_up: dict[Digest, tuple[str, str]] = {}
        for model in status.state.models:
            given_up |= self._given_up(model)
        return Standing(
            parts.clock.now_ms(),
            status.state.models,
            approvals,
            parts.disk.complete(),
            deny.digests if deny is not None else frozenset(),
            given_up,
            status.link.connected,
            {m: p for m, p in parts.pins.pins.items() if p.holds(parts.clock.now_ms())},
        )

    def _given_up(self, model: ModelName) -> dict[Digest, tuple[str, str]]:
        parts = self._parts
        journal, plan = parts.disk.journal(model), parts.orders.plans.get(model)
        if journal is None:
            return {}
        going = [rule.rollout for rule in plan.rules if rule.rollout] if plan is not None else []
        attempts = {each.candidate: each.attempt for each in going}
        allow = allowances(parts.orders.document, model)
        denied = denials.standing(journal, attempts, allow, parts.facts.agent)
        notes = {bundle: journal.note(bundle) for bundle in denied}
        return {bundle: (note.reason or "", note.detail) for bundle, note in notes.items()}

    def _hold(
        self,
        standing: Standing,
        model: ModelName,
        bundle: Digest,
        options: Mapping[str, str],
        tell: Tell,
    ) -> None:
        pin = pinning.made(
            bundle,
            why=options.get("why", ""),
            who=options.get(WHO, ""),
            until=options.get("until", ""),
            now_ms=standing.now_ms,
        )
        before = standing.models.get(model, ModelState())
        self._parts.pins.put(model, pin)
        name = standing.name(model, bundle)
        log.info("%s is pinned here by %s: %s", name, pin.who or "somebody", pin.why or "no reason")
        self._report(PINNED, {"model": model, **_said(pin)})
        tell(Line("pinned", {"model": model, "name": name, **_said(pin)}))
        seen = self._seen(model, bundle, before)
        tell(Line("now", {**seen, "name": name, "linked": standing.linked}))
        tell(Line("end", {"exit": LOOK if seen["waiting"] and not seen["runs"] else 0}))

    def _report(self, event: str, detail: Mapping[str, Any]) -> None:
        """On the supervisor's thread, when it comes to it. The state that it reports says the
        same: nobody waits for this."""
        parts = self._parts
        now_ms = parts.clock.now_ms()

        def record() -> None:
            with contextlib.suppress(Exception):  # a full disk is reported by whoever owns it
                parts.outbox.put_event(event, detail, now_ms)

        parts.inbox.errand(record)

    def _seen(self, model: ModelName, bundle: Digest, before: ModelState) -> dict[str, Any]:
        """What has become of it within a moment."""
        clock = self._parts.clock
        deadline = clock.monotonic() + self._moment_s
        while True:
            state = self._supervisor.status().state.models.get(model, before)
            settled = state.serving == bundle or _gave_up(state, bundle, before)
            if settled or clock.monotonic() >= deadline:
                break
            self._sleep(LOOK_S)
        found: dict[str, Any] = {
            "runs": state.serving == bundle,
            "phase": state.phase,
            "here": bundle in self._parts.disk.complete(),
            "waiting": state.waiting or "",
            "detail": state.waiting_detail,
        }
        if _gave_up(state, bundle, before) and state.last is not None:
            found |= {"waiting": state.last.reason or "", "detail": state.last.detail}
        if found["waiting"]:
            found["title"] = problem(found["waiting"]).title
        names = self._supervisor.status().versions
        if state.serving is not None:
            found["serving"] = names.get(state.serving, "")
        if state.phase == "probation" and state.serving == bundle and state.returns_to:
            found["returns_to"] = names.get(state.returns_to, "")
        return found


def _gave_up(state: ModelState, bundle: Digest, before: ModelState) -> bool:
    """Whether a trial of it has ended badly since."""
    last, number = state.last, before.last.number if before.last is not None else 0
    failed = last is not None and last.result in ("rejected", "rolled_back")
    return failed and last is not None and last.digest == bundle and last.number > number


def _said(pin: LocalPin) -> dict[str, Any]:
    return {
        "bundle": pin.digest,
        "until_ms": pin.until_ms,
        "why": pin.why,
        "who": pin.who,
    }
