"""What a technician reads first: one line that says how the device is, then why, then what to do.

Pure: `Status` in, lines and an exit code out. 0 normal, 8 needs a look, 1 no working model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from protocol.identifiers import Count, Digest, short
from protocol.problems import problem
from protocol.reported import ModelState, ReportedState
from protocol.wording import clock, duration, share, size

_COLUMN = 12


@dataclass(frozen=True, slots=True)
class LinkStatus:
    connected: bool = False
    address: str = ""
    since_ms: Count = 0
    """When it was connected or lost; 0 if it never was."""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Answers:
    """Of one model since the agent started."""

    answers: Count = 0
    errors: Count = 0
    p95_s: float | None = None
    per_minute: float | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """Everything that `outrider-agent status` shows; the same object is its `--json`."""

    device: str
    fleet: str
    now_ms: Count
    state: ReportedState
    link: LinkStatus = LinkStatus()
    versions: dict[Digest, str] = field(default_factory=dict)
    """`model/version` by digest, as far as approvals name it."""
    answers: dict[str, Answers] = field(default_factory=dict)
    certificate_until_ms: Count = 0
    port: Count = 0
    answered: Count = 0
    """Requests answered and counted, since this device was enrolled."""


@dataclass(frozen=True, slots=True)
class Page:
    lines: tuple[str, ...]
    exit: int


def page(status: Status) -> Page:
    """All that a technician is told. The worst model decides the exit code."""
    lines: list[str] = []
    worst = 0
    models = sorted(status.state.models.items())
    for model, state in models:
        headline, code = _headline(status, model, state)
        lines.append(headline)
        lines.extend(_model(status, model, state))
        worst = 1 if 1 in (worst, code) else max(worst, code)
    if not models:
        lines.append(f"! {status.device}: no model is assigned")
        worst = 8
    lines.extend(_device(status))
    lines.append(_row("next", _next(status, worst)))
    return Page(tuple(lines), worst)


def _headline(status: Status, model: str, state: ModelState) -> tuple[str, int]:
    """The first line of one model, and its exit code."""
    who = status.device
    since = ""
    if state.since_ms:
        age = duration((status.now_ms - state.since_ms) / 1000)
        since = f" since {clock(state.since_ms, status.now_ms)} ({age})"
    if state.serving is None:
        return f"! {who}: no working model for {model}", 1
    name = _name(status, state.serving)
    if state.phase == "probation":
        marks = share(state.guards.marks, state.guards.of) if state.guards else "0 of 10"
        return f"* {who}: {name} on probation, {marks} marks, within limits", 8
    failed = state.last is not None and state.last.result in ("rejected", "rolled_back")
    if failed and state.last is not None and state.last.digest in state.notes:
        return f"! {who}: {_name(status, state.last.digest)} failed here; {name} runs again", 8
    if state.committed_unexercised:
        return f"* {who}: {name} runs{since}, committed without traffic to judge it by", 8
    if not status.link.connected:
        lost = status.link.since_ms
        gone = f" for {duration((status.now_ms - lost) / 1000)}" if lost else ""
        return f"! {who}: {name} runs normally; no link{gone}", 8
    return f"* {who}: {name} runs normally{since}", 0


def _model(status: Status, model: str, state: ModelState) -> Iterator[str]:
    why = _why(state)
    if state.returns_to and state.returns_to != state.serving:
        why += f"     returns to {_name(status, state.returns_to)}"
    if state.return_needs_download:
        why += "     the way back needs a download"
    yield _row("why", why)
    answers = status.answers.get(model)
    if answers is not None and answers.answers + answers.errors:
        parts = []
        if answers.per_minute is not None:
            parts.append(f"{answers.per_minute:,.0f}/min")
        if answers.p95_s is not None:
            parts.append(f"p95 {answers.p95_s * 1000:.1f} ms")
        parts.append(f"errors {share(answers.errors, answers.answers + answers.errors)}")
        yield _row("answers", "   ".join(parts))
    if state.phase in ("fetching", "staged", "probing", "standby") and state.target:
        progress = (
            f", {share(state.progress.frames, state.progress.of)} frames"
            if (state.progress)
            else ""
        )
        yield _row("coming", f"{_name(status, state.target)}, {state.phase}{progress}")
    if state.phase == "probation" and state.guards is not None:
        yield _row("limits", f"{state.guards.requests:,} answers, guard {state.guards.confidence}")
        if state.returns_to:
            yield _row(
                "if broken", f"{_name(status, state.returns_to)} returns by itself, also offline"
            )
    if state.waiting:
        yield _row("waiting", f"{state.waiting} {state.waiting_detail}".rstrip())
    for digest, note in sorted(state.notes.items()):
        if note.reason is None:
            continue
        yield _row("why not", f"{_name(status, digest)}: {note.reason} {note.detail}".rstrip())
        if note.definite:
            yield _row(
                "deny",
                f"{_name(status, digest)} will not start here again; an operator lifts this:",
            )
            yield _row("", f"outrider device allow {status.device} {_name(status, digest)}")


def _device(status: Status) -> Iterator[str]:
    state = status.state
    if status.link.connected:
        link = f"connected {duration((status.now_ms - status.link.since_ms) / 1000)}"
    else:
        link = f"{status.link.address} {status.link.why or 'not connected'}"
    buffered = (
        f"{state.buffer.records:,} records, {size(state.buffer.bytes)}"
        f" of {size(state.buffer.limit_bytes)}"
    )
    yield _row("link", f"{link:<17} buffer {buffered}")
    trust = f"until {state.trust.fresh_until}" if state.trust.fresh_until else "nothing yet"
    yield _row("clock", f"{state.clock:<17} trust  {trust}")
    until = status.certificate_until_ms
    certificate = clock(until, status.now_ms) if until else "unknown"
    yield _row("cert", f"{certificate:<17} disk   {size(state.disk_free_bytes)} free")
    for refused in state.refused:
        yield _row("refused", f"{refused.what}: {refused.code} {refused.detail}".rstrip())
    if state.dev:
        yield _row("dev mode", "local keys, short intervals, no thrash guard: not for production")


def _why(state: ModelState) -> str:
    rule = f", rule {state.rule + 1}" if state.rule is not None else ""
    match state.origin:
        case "technician":
            return "pinned here"
        case "pin":
            return "pinned by an operator"
        case "rollout":
            return f"plan {state.plan_number}{rule}: rollout {state.rollout}"
        case "stable":
            return f"plan {state.plan_number}{rule}: stable"
        case "ended":
            return f"plan {state.plan_number}: its rollout was aborted"
        case "fallback":
            return "signed fallback"
    return "nothing is assigned: keeps what runs"


def _next(status: Status, exit_code: int) -> str:
    if exit_code == 0:
        return "nothing to do"
    if not status.state.models:
        return "an operator starts a rollout that includes this device"
    if not status.link.connected:
        return "give it network for a minute"
    for state in status.state.models.values():
        if state.waiting:
            return problem(state.waiting).help
    return "look at the lines above"


def _name(status: Status, digest: Digest) -> str:
    return status.versions.get(digest, short(digest))


def _row(title: str, text: str) -> str:
    return f"{title:<{_COLUMN}}{text}"
