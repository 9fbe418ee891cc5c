"""What a technician reads first: one line that says how the device is, then why, then what to do.

Pure: `Status` in, lines and an exit code out. 0 normal, 8 needs a look, 1 no working model.

Long because the lines of a page are read together.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from edge_agent.technician.status import Answers, Status, TrialStatus
from protocol.edetector import BURN_IN
from protocol.identifiers import Digest, short, split_device_id
from protocol.problems import problem
from protocol.reported import DriftState, LocalPin, ModelState, Outcome, Shadow
from protocol.wording import clock, date, day, duration, share, size, size_of

NORMAL: Final = 0
NO_MODEL: Final = 1
LOOK: Final = 8

_WIDTH: Final = 80
_SPANS: Final = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
_LABEL: Final = 12
_LEFT: Final = 18
"""Of two facts on one line, columns of the first."""
SUPERSEDED: Final = problem("superseded").code
DEGRADED: Final = problem("degraded").code
MAINTENANCE: Final = problem("maintenance_closed").code
SHADOWING: Final = problem("shadowing").code
_COMING: Final = ("fetching", "staged", "probing", "standby")
_CLOCKS: Final = {"floor": "not synchronised", "wall clock (development)": "wall clock (dev)"}
_REFUSALS: Final = (problem("renewal_refused").code, problem("device_retired").code)
"""With these a file would not be answered otherwise than the network was."""
_ORIGINS: Final = {
    "technician": "pinned here",
    "pin": "pinned by an operator",
    "stable": "stable",
    "ended": "its rollout was aborted",
    "fallback": "signed fallback",
}


@dataclass(frozen=True, slots=True)
class Page:
    lines: tuple[str, ...]
    exit: int


def page(status: Status) -> Page:
    """All that a technician is told. The worst model decides the exit code."""
    if not status.state.facts.arch:
        return Page((f"* {_who(status)}: starting", _row("next", "look again in a second")), LOOK)
    lines: list[str] = []
    exits = [LOOK] if status.state.refused else []
    for model, state in sorted(status.state.models.items()):
        headline, code = _headline(status, model, state)
        lines += textwrap.wrap(headline, _WIDTH, subsequent_indent="  ")
        lines += _model(status, model, state)
        exits.append(code)
    if not status.state.models:
        lines.append(f"! {_who(status)}: no model is assigned")
        exits.append(LOOK)
    certificate = tuple(_certificate(status))
    if certificate:
        lines += certificate
        exits.append(LOOK)
    if status.clock_unset:
        exits.append(LOOK)
    lines += _device(status)
    worst = NO_MODEL if NO_MODEL in exits else max(exits)
    lines.append(_row("next", _next(status, worst)))
    return Page(tuple("\n".join(lines).splitlines()), worst)


def summary(status: Status) -> str:
    """How the device is, in one line without its name."""
    if not status.state.facts.arch:
        return "starting"
    models = sorted(status.state.models.items())
    said = [_headline(status, model, state)[0].partition(": ")[2] for model, state in models]
    return " | ".join(said) or "no model is assigned"


# --- models -------------------------------------------------------------------------------------


def _headline(status: Status, model: str, state: ModelState) -> tuple[str, int]:
    """The first line of one model, and its exit code."""
    who = _who(status)
    if state.serving is None:
        return f"! {who}: no working model for {model}", NO_MODEL
    name = _name(status, state.serving)
    if state.answering == "refuses":
        return f"! {who}: {model} refuses to answer, as the policy of {name} says", NO_MODEL
    if state.answering == "rules":
        return f"! {who}: {name} works no longer; its signed rules answer", LOOK
    if state.phase == "probation":
        return f"* {who}: {name} on probation, {_so_far(status, model, state)}, within limits", LOOK
    failed = _failed(state)
    if failed is not None:
        return f"! {who}: {_name(status, failed.digest)} failed here; {name} runs again", LOOK
    if state.waiting == DEGRADED and state.target in (None, state.serving):
        return f"! {who}: {name} works badly; nothing better is here", LOOK
    since = ""
    if state.since_ms:
        age = duration((status.now_ms - state.since_ms) / 1000)
        since = f" since {clock(state.since_ms, status.now_ms)} ({age})"
    if not status.link.connected:
        lost = status.link.since_ms
        gone = f" for {duration((status.now_ms - lost) / 1000)}" if lost else ""
        return f"! {who}: {name} runs normally; no link{gone}", LOOK
    if state.committed_unexercised:
        return f"* {who}: {name} runs{since}, too little traffic yet", LOOK
    if state.waiting:
        waits = _name(status, state.target) if state.target else "something newer"
        beside = state.waiting == SHADOWING and state.phase == "standby"
        how = "runs beside it" if beside else "waits"
        return f"* {who}: {name} runs normally{since}; {waits} {how}", LOOK
    return f"* {who}: {name} runs normally{since}", NORMAL


def _model(status: Status, model: str, state: ModelState) -> Iterator[str]:
    failed = _failed(state)
    if failed is not None and failed.reason:
        yield _row("why", f"{failed.reason} {failed.detail}")
    else:
        yield _row("why", _why(status, state))
    yield from _answers(status, model)
    if state.drift is not None:
        yield _row("drift", _drift(state.drift, status.now_ms))
    if state.shadow is not None and state.waiting == SHADOWING and state.target:
        yield _row("coming", shadowing(_name(status, state.target), state.shadow))
        if state.shadow.failures:
            yield _row("", f"it failed on {state.shadow.failures:,} requests")
        if state.phase != "standby":
            yield _row("waiting", f"{state.waiting} {state.waiting_detail}")
    elif state.phase in _COMING and state.target:
        frames = state.progress
        progress = f", {share(frames.frames, frames.of)} frames" if frames else ""
        yield _row("coming", f"{_name(status, state.target)}, {state.phase}{progress}")
    if state.phase == "probation":
        yield from _probation(status, model, state)
    if state.waiting and (state.waiting != SHADOWING or state.shadow is None):
        yield _row("waiting", f"{state.waiting} {state.waiting_detail}")
    for digest, note in sorted(state.notes.items()):
        if note.reason is None:
            continue
        name = _name(status, digest)
        if (failed is None or failed.digest != digest) and digest != state.serving:
            yield _row("why not", f"{name}: {note.reason} {note.detail}")
        if note.definite:
            yield _row("deny", f"{name} will not start here again; an operator lifts this:")
            yield _row("", f"outrider device allow {_who(status)} {name}")


def shadowing(name: str, shadow: Shadow) -> str:
    """ "shadowing digits/v3: 120 of 200 rows, 98 % agree"."""
    said = f"shadowing {name}: {share(shadow.rows, shadow.of)} rows"
    if not shadow.rows:
        return said
    # Never rounded up to all of them.
    return f"{said}, {100 * shadow.agreed // shadow.rows} % agree"


def _failed(state: ModelState) -> Outcome | None:
    """How the last trial ended, if it is why something older runs. Being replaced, by an abort
    for instance, is nobody's failure."""
    last = state.last
    if last is None or last.result not in ("rejected", "rolled_back"):
        return None
    if last.reason == SUPERSEDED:
        return None
    return last if last.digest in state.notes and last.digest != state.serving else None


def _why(status: Status, state: ModelState) -> str:
    if state.origin == "rollout":
        origin = f"rollout {state.rollout}"
    else:
        origin = _ORIGINS.get(state.origin, "nothing is assigned: keeps what runs")
        if state.origin == "technician" and state.pinned is not None:
            origin += _pinned(state.pinned, status.now_ms)
    planned = state.origin in ("rollout", "stable", "ended") and state.plan_number
    why = f"plan {state.plan_number}: {origin}" if planned else origin
    if state.returns_to and state.returns_to != state.serving:
        why += f"     returns to {_name(status, state.returns_to)}"
        if state.return_needs_download:
            why += ", which needs a download"
    return why


def _pinned(pin: LocalPin, now_ms: int) -> str:
    """ " by tom until 1 Dec 00:00 UTC (labels are wrong)"."""
    by = f" by {pin.who}" if pin.who else ""
    until = f" until {date(pin.until_ms, now_ms)}" if pin.until_ms is not None else ""
    why = f" ({pin.why})" if pin.why else ""
    return f"{by}{until}{why}"


def _answers(status: Status, model: str) -> Iterator[str]:
    answers = status.answers.get(model)
    if answers is None or not answers.answers + answers.errors:
        return
    parts = []
    if answers.per_minute is not None:
        parts.append(f"{answers.per_minute:,.0f}/min")
    if answers.p95_s is not None:
        parts.append(f"p95 {answers.p95_s * 1000:.1f} ms")
    errors = share(answers.errors, answers.answers + answers.errors)
    parts.append(f"errors {errors} since it was loaded")
    yield _row("answers", "   ".join(parts))


def _drift(drift: DriftState, now_ms: int) -> str:
    """ "pixels_3 since 3 Nov 08:14 UTC (evidence 18.2, alarm at 15.4)"."""
    # Rounded down: what has not reached the threshold is never shown as if it had.
    evidence = math.floor(10 * drift.ln_e) / 10
    of = f"(evidence {evidence:.1f}, alarm at {drift.threshold:.1f})"
    if drift.since_ms:
        return f"{drift.feature} since {date(drift.since_ms, now_ms)} {of}"
    if not drift.settled:
        return f"learning what is usual: {share(drift.windows, BURN_IN)} windows"
    return f"none {of}"


def _so_far(status: Status, model: str, state: ModelState) -> str:
    """ "12 of 30 min": healthy running, which is what counts."""
    trial = status.trials.get(model)
    if trial is not None:
        return span_of(trial.running_s, trial.window_s)
    return f"{share(state.guards.marks, state.guards.of) if state.guards else '0 of 10'} marks"


def _limits(trial: TrialStatus, answers: Answers | None) -> str:
    """ "errors 0 of 1 %   p95 3.4 of 4.7 ms   crashes 0 of 1": measured, of what is allowed."""
    asked = answers.answers + answers.errors if answers is not None else 0
    errors = answers.errors / asked if answers is not None and asked else 0.0
    parts = [f"errors {errors * 100:.3g} of {trial.error_share * 100:.3g} %"]
    if answers is not None and answers.p95_s is not None:
        most = f" of {trial.p95_limit_s * 1000:.1f}" if trial.p95_limit_s is not None else ""
        parts.append(f"p95 {answers.p95_s * 1000:.1f}{most} ms")
    parts.append(f"crashes {share(trial.crashes, trial.crash_limit)}")
    return "   ".join(parts)


def _probation(status: Status, model: str, state: ModelState) -> Iterator[str]:
    trial = status.trials.get(model)
    if trial is not None:
        yield _row("limits", _limits(trial, status.answers.get(model)))
    if state.guards is not None:
        watched = f"confidence and classes: {state.guards.confidence}"
        label = "limits" if trial is None else "watched"
        yield _row(label, f"{state.guards.requests:,} answers   {watched}")
    if state.returns_to:
        yield _row(
            "if broken", f"{_name(status, state.returns_to)} returns by itself, also offline"
        )


# --- the device ---------------------------------------------------------------------------------


def _certificate(status: Status) -> Iterator[str]:
    """Only when the certificate is about to be a problem, or is one."""
    renewal, until_ms = status.renewal, status.certificate_until_ms
    if not until_ms or not renewal.urgent:
        return
    left_s = (until_ms - status.now_ms) / 1000
    life = f"expires in {duration(left_s)}" if left_s > 0 else f"expired {day(until_ms, 0)}"
    tried = f", renewal failed {_times(renewal.failures)}" if renewal.failures else ""
    yield from textwrap.wrap(
        f"! {_who(status)}: certificate {life}{tried}", _WIDTH, subsequent_indent="  "
    )
    if renewal.failures:
        since = day(renewal.since_ms, status.now_ms)
        yield _row("why", f"{renewal.code} {renewal.why} since {since}")
    closes = "the link closes" if left_s > 0 else "the link is closed"
    yield _row("after", f"{closes}; answers go on, records are kept")


def _device(status: Status) -> Iterator[str]:
    state, now_ms = status.state, status.now_ms
    buffered = (
        f"{state.buffer.records:,} records, {size_of(state.buffer.bytes, state.buffer.limit_bytes)}"
    )
    if status.link.connected:
        since = duration((now_ms - status.link.since_ms) / 1000)
        yield _pair("link", f"connected {since}", "buffer", buffered)
    else:
        tries = f"; next try in {duration(after)}" if (after := status.link.next_try_s) >= 1 else ""
        why = status.link.why or "not connected yet"
        yield _row("link", f"{status.link.address} {why}{tries}")
        if status.detail_until_ms:
            about = day(status.detail_until_ms, now_ms)
            buffered += f"; full detail until about {about}, then hours merge, counts stay"
        yield _row("buffer", buffered)
    basis = _CLOCKS.get(state.clock, state.clock)
    if status.clock_unset:
        basis = "OUT-T120 not set: no time service, no signed time yet"
    trust = lasting(state.trust.fresh_until, now_ms)
    if trust.startswith("expired"):
        yield _row("clock", basis)
        yield _row("trust", trust)
    else:
        yield _pair("clock", basis, "trust", trust)
    until_ms = status.certificate_until_ms
    certificate = until(until_ms, now_ms) if until_ms else "unknown"
    if status.renewal.failures and not status.renewal.urgent:
        tried = f"renewal failed {_times(status.renewal.failures)}: {status.renewal.code}"
        certificate = f"{certificate}, {tried}"
    yield _pair("cert", certificate, "disk", f"{size(state.disk_free_bytes)} free")
    for refused in state.refused:
        yield _row("refused", f"{refused.what}: {refused.code} {refused.detail}")
    if state.dev:
        yield _row("dev mode", "local keys, short intervals, no thrash guard: not for production")


def lasting(fresh_until: str, now_ms: int) -> str:
    """How long trust is fresh, or since when it is not."""
    if not fresh_until:
        return "nothing yet"
    until_ms = int(datetime.fromisoformat(fresh_until).timestamp() * 1000)
    if until_ms <= now_ms:
        return f"expired {day(until_ms, now_ms)}: nothing new can start, all else goes on"
    return f"fresh for {duration((until_ms - now_ms) / 1000)}"


def until(at_ms: int, now_ms: int) -> str:
    """ "12 Jan 2027": here the year is always said."""
    return day(at_ms, 0) if at_ms > now_ms else f"expired {day(at_ms, 0)}"


def _next(status: Status, exit_code: int) -> str:
    if exit_code == NORMAL:
        return "nothing to do"
    state = status.state
    if not state.models:
        return "an operator starts a rollout that includes this device"
    if status.renewal.urgent:
        return _renewing(status.renewal.code)
    if status.clock_unset:
        return problem("clock_unset").help
    if not status.link.connected:
        return "give it network for a minute, or: outrider-agent install --from"
    codes = [refused.code for refused in state.refused]
    codes += [model.waiting for model in state.models.values() if model.waiting]
    if codes:
        return problem(codes[0]).help
    if any(model.phase == "probation" for model in state.models.values()):
        return "wait: it stays, or the one before returns by itself"
    if any(_failed(model) for model in state.models.values()):
        return "tell an operator; nothing is to be done here"
    if any(model.committed_unexercised for model in state.models.values()):
        return "look at its answers: there were too few to judge it by"
    return "look at the lines above"


def _renewing(code: str) -> str:
    """What mends a certificate that is about to expire."""
    if not code:
        return "nothing: it is being renewed; give it network"
    if code in _REFUSALS:
        return problem(code).help
    return "outrider-agent enrol --renew --csr-to /media/usb"


def span_of(part_s: float, whole_s: float) -> str:
    """ "12 of 30 min": both in the unit of the whole."""
    unit, length = next((u for u in _SPANS if whole_s >= 2 * u[1]), _SPANS[-1])
    return f"{part_s / length:.0f} of {whole_s / length:.0f} {unit}"


# --- words --------------------------------------------------------------------------------------


def _who(status: Status) -> str:
    try:
        return split_device_id(status.device)[1]
    except ValueError:
        return status.device


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number:,} times"


def _name(status: Status, digest: Digest) -> str:
    return status.versions.get(digest, short(digest))


def _pair(title: str, left: str, second: str, right: str) -> str:
    """Two facts on one line where there is room."""
    gap = max(2, _LEFT - len(left))
    text = f"{left}{' ' * gap}{second:<6} {right}"
    if _LABEL + len(text) <= _WIDTH:
        return f"{title:<{_LABEL}}{text}"
    return f"{_row(title, left)}\n{_row(second, right)}"


def _row(title: str, text: str) -> str:
    return textwrap.fill(
        text.rstrip(),
        _WIDTH,
        initial_indent=f"{title:<{_LABEL}}",
        subsequent_indent=" " * _LABEL,
        break_long_words=False,
        break_on_hyphens=False,
    )
