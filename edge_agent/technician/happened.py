"""What happened on a device between two looks at it, in the words of its technician.

Pure: two `Status` in, lines with their `logging` level out. Nothing is said twice: what stays as it
was is left to `status`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from edge_agent.technician.page import MAINTENANCE, SHADOWING
from edge_agent.technician.status import Status
from protocol.identifiers import Digest, short
from protocol.problems import problem
from protocol.reported import ModelState, Outcome

Happened = tuple[int, str]

_SUPERSEDED: Final = problem("superseded").code
_DRIFTED: Final = problem("inputs_drifted").code


def happened(before: Status, after: Status) -> Iterator[Happened]:
    """`before` is empty when the agent has just started."""
    first = not before.state.facts.arch
    if first:
        yield logging.INFO, f"agent {after.state.agent} started"
    for model, state in sorted(after.state.models.items()):
        yield from _model(after, model, before.state.models.get(model), state)
    if after.link.connected and not before.link.connected:
        yield logging.INFO, f"connected to {after.link.address}"
    elif _lost(before, after):
        yield logging.WARNING, f"no link to {after.link.address}: {after.link.why}".rstrip(": ")
    known = {refused.what for refused in before.state.refused}
    for refused in after.state.refused:
        if refused.what not in known:
            said = f"{refused.what} refused: {_problem(refused.code, refused.detail)}"
            yield logging.WARNING, said
    if _expired(after) and not first and not _expired(before):
        yield logging.WARNING, "trust expired: nothing new can start, all else goes on"
    if after.renewal.failures > before.renewal.failures:
        why = _problem(after.renewal.code, after.renewal.why)
        yield logging.WARNING, f"the certificate was not renewed: {why}"


def _lost(before: Status, after: Status) -> bool:
    """Whether the link was lost, or the first try to get one has failed."""
    if after.link.connected:
        return False
    return before.link.connected or (bool(after.link.why) and not before.link.why)


def _model(
    status: Status, model: str, before: ModelState | None, after: ModelState
) -> Iterator[Happened]:
    was = before if before is not None else ModelState()
    last, number = after.last, was.last.number if was.last is not None else 0
    if before is not None and last is not None and last.number > number:
        yield _outcome(_name(status, model, last.digest), last)
    if after.pinned != was.pinned:
        yield logging.WARNING, _pinned(status, model, after)
    if after.serving != was.serving:
        yield _serving(status, model, was, after)
    if after.phase == "fetching" and was.phase != "fetching" and after.target is not None:
        yield logging.INFO, f"{_name(status, model, after.target)} is being fetched"
    if after.waiting is not None and after.waiting != was.waiting and after.serving is not None:
        waits = _name(status, model, after.target) if after.target is not None else model
        ordered = after.waiting in (MAINTENANCE, SHADOWING)
        level = logging.INFO if ordered else logging.WARNING
        yield level, f"{waits} waits: {_problem(after.waiting, after.waiting_detail)}"
    yield from _inputs(status, model, was, after)


def _inputs(status: Status, model: str, was: ModelState, after: ModelState) -> Iterator[Happened]:
    """What the detectors of drift found out about what serves."""
    if after.serving is None or after.drift is None:
        return
    name = _name(status, model, after.serving)
    before = was.drift is not None and was.drift.since_ms > 0 and was.serving == after.serving
    if after.drift.since_ms and not before:
        yield logging.WARNING, f"{name}: {_problem(_DRIFTED, after.drift.feature)}"
    elif before and not after.drift.since_ms:
        yield logging.INFO, f"{name}: inputs are as usual again"


def _outcome(name: str, last: Outcome) -> Happened:
    why = _problem(last.reason, last.detail) if last.reason else last.detail
    match last.result:
        case "committed":
            judged = ", although there were too few answers to judge it" if last.unexercised else ""
            return logging.INFO, f"{name} stays: its probation is over{judged}"
        case "rolled_back":
            return logging.WARNING, f"{name} rolled back: {why}"
        case "rescued":
            return logging.WARNING, f"{name} rescued: {why}".rstrip(": ")
        case _ if last.reason == _SUPERSEDED:
            return logging.INFO, f"{name} was given up for something else"
        case _:
            return logging.WARNING, f"{name} failed here: {why}"


def _serving(status: Status, model: str, was: ModelState, after: ModelState) -> Happened:
    if after.serving is None:
        why = f": {_problem(after.waiting, after.waiting_detail)}" if after.waiting else ""
        return logging.ERROR, f"no working model for {model}{why}"
    name = _name(status, model, after.serving)
    if after.phase == "probation":
        on = f" (rollout {after.rollout})" if after.rollout else ""
        return logging.INFO, f"{name} answers, on probation{on}"
    again = " again" if was.serving is not None and after.serving == was.returns_to else ""
    return logging.INFO, f"{name} answers{again}"


def _pinned(status: Status, model: str, after: ModelState) -> str:
    if after.pinned is None:
        return f"{model} is no longer pinned here"
    pin = after.pinned
    by = f" by {pin.who}" if pin.who else ""
    why = f": {pin.why}" if pin.why else ""
    return f"{_name(status, model, pin.digest)} is pinned here{by}{why}"


def _problem(code: str, detail: str) -> str:
    try:
        title = problem(code).title
    except KeyError:
        title = ""
    return ": ".join(part for part in (f"{code} {title}".strip(), detail) if part)


def _name(status: Status, model: str, bundle: Digest) -> str:
    return status.versions.get(bundle, f"{model} {short(bundle)}")


def _expired(status: Status) -> bool:
    until = status.state.trust.fresh_until
    return bool(until) and datetime.fromisoformat(until).timestamp() * 1000 <= status.now_ms
