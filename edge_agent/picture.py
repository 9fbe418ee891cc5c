"""The picture that a device gives of itself: to the control plane, and to its technician."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from edge_agent.observed import Observed
from edge_agent.parts import Parts
from edge_agent.runner.views import RunnerFailed
from edge_agent.technician.status import Answers, LinkStatus, Status, TrialStatus
from edge_agent.watch.health import Terms
from protocol.codec import FEATURES
from protocol.histogram import quantile_s
from protocol.identifiers import ModelName, short
from protocol.payload import HTTP_NAME, names_of
from protocol.plan import rule_for
from protocol.reported import ModelState, Refused, ReportedState

_NONE: Final[Mapping[ModelName, TrialStatus]] = MappingProxyType({})


def reported_state(
    parts: Parts, models: Mapping[ModelName, ModelState], counters: Mapping[str, int]
) -> ReportedState:
    """The complete state; its `order` is given when it is recorded."""
    document = parts.orders.document
    refused = {entry.what: entry for entry in (*parts.trust.refused, *_unapproved(parts))}
    refused |= parts.orders.refused
    if parts.pins.problem:
        refused["local pins"] = Refused("local pins", "OUT-D405", parts.pins.problem)
    if parts.outbox.problem is not None:
        refused["buffer"] = Refused("buffer", *parts.outbox.problem)
    totals = Counter(counters) + Counter(parts.fetcher.counters) + parts.renewal.counters
    totals += parts.fetcher.fetched
    return ReportedState(
        order=0,
        agent=parts.facts.agent,
        features=_features(parts),
        facts=parts.facts,
        document_version=document.version if document is not None else 0,
        labels=document.labels if document is not None else {},
        models=dict(models),
        trust=parts.trust.state(),
        buffer=parts.outbox.state(),
        refused=tuple(refused[what] for what in sorted(refused)),
        clock=parts.clock.basis,
        disk_free_bytes=parts.disk.free_bytes(),
        counters=dict(sorted({**totals, "answers": parts.outbox.answers}.items())),
        dev=parts.dev,
    )


def _features(parts: Parts) -> tuple[str, ...]:
    """What this device understands, can decode, and how it fetches."""
    http = {HTTP_NAME} if parts.over_http else set()
    return tuple(sorted({*FEATURES, *names_of(parts.abilities), *http}))


def _unapproved(parts: Parts) -> Iterator[Refused]:
    """Signed orders to run what no approver signed for: nothing follows from them but this."""
    trust, orders, document = parts.trust, parts.orders, parts.orders.document
    if document is None or not trust.known:
        return
    ordered = [(f"pin of {model}", pin.digest) for model, pin in document.pins.items()]
    ordered += [(f"pin at the device of {m}", p.digest) for m, p in parts.pins.pins.items()]
    for model, plan in orders.plans.items():
        number = rule_for(plan, document)
        if number is not None:
            rule = plan.rules[number]
            candidate = rule.rollout.candidate if rule.rollout is not None else None
            named = [bundle for bundle in (rule.stable, candidate) if bundle is not None]
            ordered += [(f"order for {model}", bundle) for bundle in named]
    for what, bundle in ordered:
        if bundle not in trust.approvals and bundle not in trust.not_understood:
            yield Refused(what, "OUT-T104", short(bundle))


def status(
    parts: Parts,
    state: ReportedState,
    link: LinkStatus,
    now_ms: int,
    trials: Mapping[ModelName, TrialStatus] = _NONE,
    detail_until_ms: int = 0,
) -> Status:
    """What `outrider-agent status` is told."""
    approvals = parts.trust.approvals
    return Status(
        parts.device,
        parts.topics.fleet,
        now_ms,
        state,
        link,
        {digest: f"{entry.model}/{entry.version}" for digest, entry in approvals.items()},
        _answers(parts),
        parts.renewal.validity.until_ms,
        parts.runners.port,
        parts.outbox.answers,
        parts.renewal.status(now_ms),
        dict(trials),
        detail_until_ms,
        parts.clock.unset,
    )


def trial(parts: Parts, observed: Observed, before: TrialStatus | None) -> TrialStatus | None:
    """What the version on probation is held to; `before`: the same a turn ago, if it was on."""
    on = observed.trial
    if on is None:
        return None
    terms, note = on.terms, observed.journal.note(on.digest)
    # The version before answers no more: what its latency was is looked up once.
    limit_s = before.p95_limit_s if before is not None else _p95_limit_s(parts, observed, terms)
    return TrialStatus(
        terms.limits.error_share,
        note.crashes,
        observed.crash_limit,
        terms.health_window_s,
        min(note.marks * terms.mark_s + on.running_s, terms.health_window_s),
        limit_s,
    )


def _p95_limit_s(parts: Parts, observed: Observed, terms: Terms) -> float | None:
    current = observed.journal.current
    window = parts.outbox.baseline(observed.model, current) if current is not None else None
    was_s = quantile_s(window.latency, 0.95) if window is not None else None
    if was_s is None:
        return None
    limits = terms.limits
    return max(was_s * limits.latency_ratio, was_s + limits.latency_floor_s)


def _answers(parts: Parts) -> dict[ModelName, Answers]:
    shown: dict[ModelName, Answers] = {}
    for view in parts.runners.views():
        if view.role != "serving":
            continue
        try:
            counts = parts.runners.peek(view.id)
        except RunnerFailed:
            continue
        for model, window in counts.items():
            shown[model] = Answers(window.answers, window.errors, quantile_s(window.latency, 0.95))
    return shown
