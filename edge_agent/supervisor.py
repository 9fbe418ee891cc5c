"""The agent's loop: take in, verify, decide, act, count, report, send; then wait to be woken.

It remembers nothing that matters. Everything is looked at again each turn, so a turn that is cut
short, by a fault or by the power, is simply followed by another. A failure in one part (the outbox,
one model) never keeps the others from their turn.

Long because the order of all that a turn does is easier to judge in one place.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from edge_agent import picture
from edge_agent.act import Performed
from edge_agent.applications import Wanted
from edge_agent.desired import Decision, Hold, Nothing, Trusted, decide
from edge_agent.inbox import Errand, LinkChanged, Message
from edge_agent.journald import EVENTS
from edge_agent.network import interface_of
from edge_agent.notify import Notify
from edge_agent.observed import Observed
from edge_agent.parts import Parts
from edge_agent.reconcile import reconcile
from edge_agent.state import model_state, serves
from edge_agent.steps import Step, Wait
from edge_agent.technician.happened import happened
from edge_agent.technician.page import summary
from edge_agent.technician.status import LinkStatus, Status, TrialStatus, full_at_ms
from protocol.edetector import DEFAULT_THRESHOLD
from protocol.errors import OutriderError, PeerError, Unavailable
from protocol.identifiers import Digest, ModelName
from protocol.plan import Local
from protocol.reported import BufferState, ModelState, ReportedState
from protocol.topics import shard_of

log = logging.getLogger(__name__)
events = logging.getLogger(EVENTS)

T = TypeVar("T")

MAX_STEPS: Final = 64
"""Steps per model and turn; the rest waits for the next turn, and other models."""
DRAIN_S: Final = 6.0
PRESSING_S: Final = 0.1
"""Longest time between two looks while a trial or a swap goes on: how late a failure is seen."""
PRESENT: Final = b'{"v":1,"linked":true}'
ABSENT: Final = b'{"v":1,"linked":false}'


@dataclass(slots=True)
class _Memory:
    """What may be lost at any time."""

    models: dict[ModelName, ModelState] = field(default_factory=dict)
    link: LinkStatus = LinkStatus()
    link_since_s: float | None = None
    """When the link came or went, in monotonic seconds: trusted time may jump meanwhile."""
    subscribed: frozenset[str] = frozenset()
    offline: tuple[float, int] | None = None
    """Since when there is no link (monotonic seconds), and the bytes of the buffer then."""
    trials: dict[ModelName, TrialStatus] = field(default_factory=dict)
    standing: tuple[str, ...] = ()
    counters: Counter[str] = field(default_factory=Counter)
    settings_version: int = -1
    faults: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Stepped:
    """One step of one model, and how it came to it."""

    decision: Decision
    observed: Observed
    step: Step
    done: Performed


class Supervisor:
    """`run` on the main thread; `stop`, `status` and `errand` from any."""

    def __init__(self, parts: Parts, notify: Notify | None = None) -> None:
        self._parts = parts
        self._notify = notify or Notify()
        self._memory = _Memory(link=LinkStatus(address=parts.address))
        self._stopping = threading.Event()
        # Until the first turn has looked around, there is nothing to say but the name.
        self._status = Status(
            parts.device, parts.topics.fleet, 0, ReportedState(0, parts.facts.agent)
        )

    # --- from any thread --------------------------------------------------------------------------

    def stop(self) -> None:
        self._stopping.set()
        self._parts.inbox.wake()

    def status(self) -> Status:
        """As of the end of the last turn."""
        return replace(self._status, now_ms=self._parts.clock.now_ms())

    def errand(self, work: Callable[[], T]) -> T:
        """Do this on the loop's thread, before its next turn, and return what it gives; raises
        what it raises. Not from that thread itself."""
        return self._parts.inbox.errand(work).result()

    # --- for errands ------------------------------------------------------------------------------

    def decisions(self) -> dict[ModelName, Decision]:
        """What each model should run, by what is trusted now. On the loop's thread only."""
        denied, now_ms = self._denied(), self._parts.clock.now_ms()
        return {
            model: self._decide(model, self._trusted(model, denied, now_ms), now_ms)
            for model in self._names()
        }

    # --- the loop ---------------------------------------------------------------------------------

    def run(self) -> None:
        """Until stopped. Then runners answer what they have, and their counts are kept."""
        parts = self._parts
        parts.runners.adopt()
        parts.orders.load()
        parts.link.start()
        while not self._stopping.is_set():
            for item in parts.inbox.take(self._patience()):
                self._take_in(item)
            self._turn()
        self._leave()

    def _turn(self) -> None:
        parts = self._parts
        now_s, now_ms = parts.clock.monotonic(), parts.clock.now_ms()
        with self._guarded("orders"):
            parts.orders.settle(parts.disk.models(), now_s)
            self._follow_settings()
        with self._guarded("topics"):
            self._subscribe(now_s)
        with self._guarded("fetch"):
            parts.fetcher.tick(now_s)
        with self._guarded("pins"):
            for model in parts.pins.ended(now_ms):
                log.info("the pin of %s has ended", model)
        with self._guarded("models"):
            self._models(now_ms, now_s)
        with self._guarded("shadow"):
            parts.actor.shadow(now_s)
        with self._guarded("applications"):
            parts.applications.turn(now_s)
        with self._guarded("counts"):
            parts.collector.collect(now_s, now_ms)
        with self._guarded("report"):
            state = picture.reported_state(parts, self._memory.models, self._memory.counters)
            parts.reporter.report(state, now_s, now_ms)
        with self._guarded("sending"):
            self._send(now_s)
        with self._guarded("certificate"):
            parts.renewal.turn(self._memory.link)
        with self._guarded("status"):
            state = picture.reported_state(parts, self._memory.models, self._memory.counters)
            link = self._memory.link.lasting(self._memory.link_since_s, now_s, now_ms)
            link = replace(link, next_try_s=parts.link.next_try_s)
            full_ms = self._full_ms(state.buffer, now_s, now_ms)
            before, trials = self._status, self._memory.trials
            self._status = picture.status(parts, state, link, now_ms, trials, full_ms)
            for level, text in happened(before, self._status):
                events.log(level, "%s", text)
        self._notify.turned(summary(self._status))

    def _full_ms(self, buffer: BufferState, now_s: float, now_ms: int) -> int:
        """When the buffer will be full, going by how it has filled since the link was lost."""
        if self._memory.link.connected:
            self._memory.offline = None
            return 0
        since_s, then = self._memory.offline or (now_s, buffer.bytes)
        self._memory.offline = (since_s, then)
        return full_at_ms(then, buffer.bytes, buffer.limit_bytes, now_s - since_s, now_ms)

    def _patience(self) -> float:
        now_s = self._parts.clock.monotonic()
        until_send = max(0.0, self._parts.uplink.next_at - now_s)
        turn = min(self._parts.intervals.turn, self._notify.patience_s or math.inf)
        if self._parts.actor.pressing:
            turn = min(turn, PRESSING_S)
        return min(turn, max(until_send, 0.01))

    @contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        """One part's failure is logged once, counted, and does not keep the others from work."""
        try:
            yield
        except Unavailable as error:
            self._fault(what, str(error), None)
        except OutriderError as error:
            self._memory.counters[error.code] += 1
            self._fault(what, str(error), error)
        except Exception as error:  # noqa: BLE001 - top of the loop: the other parts go on
            self._memory.counters["OUT-S160"] += 1
            self._fault(what, f"{type(error).__name__}: {error}", error)
        else:
            self._memory.faults.pop(what, None)

    def _fault(self, what: str, why: str, error: BaseException | None) -> None:
        if self._memory.faults.get(what) != why:
            log.error("%s: %s", what, why, exc_info=error)
        self._memory.faults[what] = why

    # --- taking in --------------------------------------------------------------------------------

    def _take_in(self, item: Message | LinkChanged | Errand | None) -> None:
        match item:
            case Errand():
                item.run()
            case LinkChanged():
                with self._guarded("link"):
                    self._link_changed(item)
            case Message():
                try:
                    self._message(item.topic, item.data)
                except PeerError as error:
                    self._memory.counters[error.code] += 1
                    log.warning("%s: %s", item.topic, error)
                except Unavailable as error:
                    log.warning("%s: %s", item.topic, error)

    def _message(self, topic: str, data: bytes) -> None:
        parts, now_s = self._parts, self._parts.clock.monotonic()
        parts.budget.moved(topic, data)
        if topic == parts.topics.ack(parts.device):
            parts.uplink.on_ack(now_s, data)
        elif topic == parts.topics.ingest(shard_of(parts.device)):
            parts.uplink.on_hello(now_s, data)
        elif not parts.orders.on_message(topic, data) and not parts.fetcher.on_message(topic, data):
            raise PeerError("OUT-N210", "not a topic that a device listens to")

    def _link_changed(self, change: LinkChanged) -> None:
        parts, before = self._parts, self._memory.link
        now_s = parts.clock.monotonic()
        if change.connected != before.connected:
            self._memory.link_since_s = now_s
        self._memory.link = replace(before, connected=change.connected, why=change.why)
        if change.connected:
            log.info("connected to %s", parts.address)
            self._memory.counters["connected"] += 1
            parts.budget.on_network(interface_of(parts.link.local_address))
            parts.uplink.on_connected(now_s)
            parts.reporter.forget()
            parts.link.publish(parts.topics.presence(parts.device), PRESENT, retain=True)
        else:
            log.info("not connected to %s: %s", parts.address, change.why)
            parts.uplink.on_disconnected()

    def _subscribe(self, now_s: float) -> None:
        parts, memory = self._parts, self._memory
        standing = parts.orders.standing
        if standing != memory.standing:
            parts.link.unsubscribe([t for t in memory.standing if t not in standing])
            parts.link.subscribe([t for t in standing if t not in memory.standing])
            memory.standing = standing
        wanted = parts.orders.wanted(parts.disk.models())
        again = parts.orders.again(now_s)
        if again:
            log.info("asking again for what was refused or did not fit together")
        new = wanted | parts.orders.doubted if again else wanted - memory.subscribed
        parts.link.unsubscribe(sorted(memory.subscribed - wanted))
        parts.link.subscribe(sorted(new))
        memory.subscribed = wanted

    def _follow_settings(self) -> None:
        document = self._parts.orders.document
        if document is None or document.version == self._memory.settings_version:
            return
        self._memory.settings_version = document.version
        settings = document.settings
        self._parts.budget.follow(settings)
        if settings.state_interval_s is not None:
            self._parts.reporter.every(settings.state_interval_s)
        if settings.buffer_bytes is not None:
            self._parts.outbox.resize(settings.buffer_bytes)
        threshold = settings.drift_ln_threshold
        self._parts.outbox.ln_threshold = DEFAULT_THRESHOLD if threshold is None else threshold

    # --- models -----------------------------------------------------------------------------------

    def _models(self, now_ms: int, now_s: float) -> None:
        parts = self._parts
        denied, names = self._denied(), self._names()
        parts.actor.begin(parts.trust.approvals, denied, now_ms)
        for model in names:
            with self._guarded(f"model {model}"):
                state = self._model(model, denied, now_ms, now_s)
                if state is not None:
                    pin = parts.pins.holding(model, now_ms)
                    self._memory.models[model] = replace(state, pinned=pin)

        if parts.trust.granted:
            parts.trust.end_grants(d for m in names for d in parts.actor.journal(m).slots)

    def _names(self) -> list[ModelName]:
        orders, document = self._parts.orders, self._parts.orders.document
        pinned = document.pins if document is not None else ()
        here = self._parts.pins.pins
        return sorted({*self._parts.disk.models(), *orders.plans, *pinned, *here})

    def _denied(self) -> frozenset[Digest]:
        deny = self._parts.orders.deny
        return deny.digests if deny is not None else frozenset()

    def _model(
        self, model: ModelName, denied: frozenset[Digest], now_ms: int, now_s: float
    ) -> ModelState | None:
        """Step by step as far as this turn leads. None for a model that is no concern of ours."""
        parts = self._parts
        plan = parts.orders.plans.get(model)
        trusted = self._trusted(model, denied, now_ms)
        turn = self._step(model, trusted, now_ms, now_s)
        for _ in range(MAX_STEPS):
            if turn is None or not turn.done.again:
                break
            self._notify.alive()
            turn = self._step(model, trusted, now_ms, now_s)
        if turn is None:
            return None
        trial = picture.trial(parts, turn.observed, self._memory.trials.get(model))
        if trial is not None:
            self._memory.trials[model] = trial
        else:
            self._memory.trials.pop(model, None)
        served = serves(turn.observed)
        serving = parts.disk.installed(served) if served is not None else None
        self._lead(model, turn, served)
        return model_state(
            turn.decision,
            turn.observed,
            turn.step,
            plan=plan,
            fetch=parts.fetcher.status(),
            serving=serving,
            problem=turn.done.problem,
            drift=parts.outbox.drift(serving.manifest) if serving is not None else None,
        )

    def _lead(self, model: ModelName, turn: _Stepped, served: Digest | None) -> None:
        """Applications that run the model themselves do as the runner does, trials included.
        Between two runners they go on."""
        parts, journal = self._parts, turn.observed.journal
        views = [view for view in parts.runners.views() if view.role == "serving"]
        loads = [
            load for v in views for load in v.loads if (load.model, load.digest) == (model, served)
        ]
        if loads:
            proven = served == journal.current
            may = loads[-1] if loads[-1].answering == "model" else None
            parts.applications.follow(model, Wanted(may, proven))
        elif isinstance(turn.decision.desired, Nothing) or (
            journal.current is not None and turn.observed.revoked.get(journal.current) == "stop"
        ):
            parts.applications.follow(model, Wanted(None))

    def _step(
        self, model: ModelName, trusted: Trusted, now_ms: int, now_s: float
    ) -> _Stepped | None:
        parts = self._parts
        decision = self._decide(model, trusted, now_ms)
        if isinstance(decision.desired, Hold) and model not in parts.disk.models():
            return None
        observed = parts.actor.observe(model, decision.desired, now_ms, now_s)
        step = reconcile(decision.desired, observed, now_ms)
        if not isinstance(step, Wait):
            log.info("%s: row %d: %s", model, step.row, step)
        done = parts.actor.perform(step, observed, decision.desired, now_ms)
        if done.problem is not None:
            log.warning("%s: %s %s", model, *done.problem)
        return _Stepped(decision, observed, step, done)

    def _trusted(self, model: ModelName, denied: frozenset[Digest], now_ms: int) -> Trusted:
        parts = self._parts
        return Trusted(
            parts.orders.plans.get(model),
            parts.orders.document,
            parts.trust.approvals,
            denied,
            parts.trust.models_expired(),
            self._plan_age_s(now_ms),
            parts.trust.granted,
        )

    def _decide(self, model: ModelName, trusted: Trusted, now_ms: int) -> Decision:
        parts = self._parts
        journal = parts.actor.journal(model)
        runs = journal.current or journal.tried
        installed = parts.disk.installed(runs) if runs else None
        local = Local(
            now_ms,
            parts.facts,
            parts.pins.order(model, now_ms),
            current=journal.current,
            previous=journal.previous,
            trial=journal.tried,
            fallback=installed.policy.fallback if installed is not None else None,
        )
        vouched = parts.clock.basis != "floor"
        return decide(
            model,
            trusted,
            local,
            journal,
            agent=parts.facts.agent,
            guarded=parts.actor.guarded,
            local_time=parts.clock.local_time if vouched else None,
        )

    def _plan_age_s(self, now_ms: int) -> float | None:
        """A fresh timestamp confirms every plan that trusted `rollouts` still lists."""
        issued_ms = self._parts.trust.issued_ms
        if issued_ms is None or not self._parts.trust.timestamp_fresh():
            return None
        return max(0.0, (now_ms - issued_ms) / 1000)

    # --- reporting --------------------------------------------------------------------------------

    def _send(self, now_s: float) -> None:
        message = self._parts.uplink.due(now_s)
        if message is not None:
            topic = self._parts.topics.up(self._parts.device, "records")
            self._parts.link.publish(topic, message)
            self._parts.budget.moved(topic, message)

    # --- the end ----------------------------------------------------------------------------------

    def _leave(self) -> None:
        parts = self._parts
        events.info("agent stops: what was asked is answered, and counts are kept")
        self._notify.stopping()
        with self._guarded("stopping runners"):
            self._drain()
        with self._guarded("stopping counts"):
            parts.outbox.close_all()
            now_s = parts.clock.monotonic()
            self._send(now_s)
        parts.link.publish(parts.topics.presence(parts.device), ABSENT, retain=True)
        parts.link.stop()
        parts.runners.close()
        parts.applications.close()
        parts.outbox.close()

    def _drain(self) -> None:
        parts = self._parts
        for view in parts.runners.views():
            if view.role in ("serving", "parked"):
                parts.runners.drain(view.id)
            elif view.role == "standby":
                parts.runners.kill(view.id)
        deadline = parts.clock.monotonic() + DRAIN_S
        while parts.runners.views() and parts.clock.monotonic() < deadline:
            parts.collector.collect(parts.clock.monotonic(), parts.clock.now_ms(), whole=True)
            parts.inbox.take(0.05)
