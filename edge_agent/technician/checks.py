"""What `outrider-agent doctor` makes of what it found: ok, warn, FAIL or skip, and what to do.

Pure: findings in, checks out. What nobody could look at is skipped with its reason, never passed.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from edge_agent.technician.page import MAINTENANCE, SHADOWING, lasting, shadowing, until
from edge_agent.technician.status import Status
from protocol.problems import problem
from protocol.reported import TrustState
from protocol.wording import count, day, duration, share, size, size_of

Result = Literal["ok", "warn", "FAIL", "skip"]

NORMAL: Final = 0
FAILED: Final = 1
LOOK: Final = 8

LITTLE_ROOM: Final = 200_000_000
NO_ROOM: Final = 10_000_000
"""Bytes free; below this the outbox and journals cannot be sure of a write."""
_FULL_SHARE: Final = 0.8
_EXPIRES_SOON_MS: Final = 30 * 86_400_000
_WIDTH: Final = 80
_LABEL: Final = 15
_NO_AGENT: Final = "the agent is not running"
_REFUSED: Final = ("refused:", "TLS:", "the broker closed the connection before accepting")
"""How a broker that does not accept this device's certificate looks from here."""


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    result: Result
    detail: str
    do: str = ""


@dataclass(frozen=True, slots=True)
class Golden:
    """The golden vectors of one model that serves, asked now."""

    name: str
    """model/version."""
    how: Literal["answered", "differs", "busy"]
    milliseconds: float = 0.0
    why: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """One model on disk, while no agent runs."""

    name: str
    whole: bool | None
    """Whether every byte of the proven version is right; None: not looked at for want of time."""
    generations: int = 2
    """Of its journal that can be read."""


@dataclass(frozen=True, slots=True)
class Outbox:
    """The file of the records, while no agent runs."""

    why: str = ""
    """What is wrong with it, if anything is."""
    records: int | None = None
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Unit:
    """What systemd says of the service."""

    installed: bool
    active: bool = False
    at_boot: bool = False


@dataclass(frozen=True, slots=True)
class Findings:
    """None and empty: not known, because nobody could look."""

    now_ms: int
    status: Status | None = None
    enrolled: str = ""
    """Why this device has no identity, if it has none."""
    certificate_until_ms: int | None = None
    golden: tuple[Golden, ...] | None = None
    kept: tuple[Kept, ...] = ()
    trust: TrustState | None = None
    trust_why: str = ""
    marks_intact: bool | None = None
    outbox: Outbox | None = None
    free_bytes: int | None = None
    clock: str = ""
    clock_unset: bool = False
    port: int = 0
    port_used_by: Literal["", "runner", "another"] = ""
    folder: str = ""
    folder_wrong: tuple[str, ...] = ()
    unit: Unit | None = None


@dataclass(frozen=True, slots=True)
class Report:
    checks: tuple[Check, ...]

    @property
    def failed(self) -> int:
        return sum(check.result == "FAIL" for check in self.checks)

    @property
    def warnings(self) -> int:
        return sum(check.result == "warn" for check in self.checks)

    @property
    def exit(self) -> int:
        return FAILED if self.failed else LOOK if self.warnings else NORMAL


def examine(found: Findings) -> Report:
    checks: list[Check] = []
    for part in (
        _agent, _models, _trust, _clock, _certificate, _link, _fetch, _buffer, _disk, _port,
        _folder, _service,
    ):  # fmt: skip
        checks.extend(part(found))
    return Report(tuple(checks))


def lines(report: Report) -> Iterator[str]:
    """As people read it: what is wrong says what to do, beside it where there is room."""
    for check in report.checks:
        head = f"{check.result:<6}{check.name:<{_LABEL - 6}}"
        beside = f"{head}{check.detail}     do: {check.do}"
        if not check.do or len(beside) <= _WIDTH:
            yield from _wrapped(beside if check.do else f"{head}{check.detail}", _LABEL)
            continue
        yield from _wrapped(f"{head}{check.detail}", _LABEL)
        yield from _wrapped(f"{'':<{_LABEL}}do: {check.do}", _LABEL + 4)
    said = [f"{report.failed:,} failed"] if report.failed else []
    if report.warnings:
        said.append(f"{report.warnings:,} warning{'' if report.warnings == 1 else 's'}")
    yield ", ".join(said) or "all is well"


def _wrapped(text: str, margin: int) -> Iterable[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        subsequent_indent=" " * margin,
        break_long_words=False,
        break_on_hyphens=False,
    )


# --- one after the other ------------------------------------------------------------------------


def _agent(found: Findings) -> Iterator[Check]:
    if found.status is not None:
        yield Check("agent", "ok", f"{found.status.state.agent or 'it'} runs")
    elif found.enrolled:
        yield Check("agent", "FAIL", f"not enrolled: {found.enrolled}", problem("D403").help)
    else:
        start = "sudo systemctl start outrider-agent"
        installed = found.unit is not None and found.unit.installed
        yield Check("agent", "FAIL", "not running", start if installed else problem("D401").help)


def _models(found: Findings) -> Iterator[Check]:
    if found.status is None:
        yield from (_kept(each) for each in found.kept)
        if not found.kept:
            yield Check("model", "skip", "no model was ever started here")
        return
    for model, state in sorted(found.status.state.models.items()):
        if state.serving is None:
            why = f"no working model for {model}"
            yield Check("model", "FAIL", why, "outrider-agent status says why")
    for golden in found.golden or ():
        match golden.how:
            case "answered":
                took = f"golden vectors answered in {max(golden.milliseconds, 1):.0f} ms"
                yield Check("model", "ok", f"{golden.name}: {took}")
            case "differs":
                do = f"outrider-agent rollback {golden.name.partition('/')[0]}; tell an operator"
                yield Check("model", "FAIL", f"{golden.name}: {golden.why}", do)
            case _:
                yield Check("model", "skip", f"{golden.name}: {golden.why or 'the agent is busy'}")
    if not found.status.state.models:
        yield Check("model", "warn", "none is assigned", "an operator starts a rollout")


def _kept(kept: Kept) -> Check:
    if kept.whole is None:
        return Check("model", "skip", f"{kept.name}: large; the agent checks it when it starts")
    if not kept.whole:
        do = "start the agent: it goes back to the version before, or fetches this one again"
        return Check("model", "FAIL", f"{kept.name} is damaged on disk", do)
    if kept.generations < 2:
        return Check("model", "ok", f"{kept.name} is whole; its journal has one copy")
    return Check("model", "ok", f"{kept.name} is whole")


def _trust(found: Findings) -> Iterator[Check]:
    if found.trust_why:
        yield Check("trust", "FAIL", found.trust_why, "give it network: it is fetched again")
        return
    trust = found.trust
    if trust is None:
        yield Check("trust", "skip", _NO_AGENT if found.status is None else "the agent is busy")
        return
    if found.marks_intact is False:
        why = "the high-water marks were damaged: an older state would not be noticed"
        yield Check("trust", "FAIL", why, "tell an operator; give it network")
        return
    if not trust.models:
        yield Check("trust", "warn", "nothing is trusted yet", "give it network for a minute")
        return
    said = f"root {trust.root}, models {trust.models}, high-water marks intact"
    fresh = lasting(trust.fresh_until, found.now_ms)
    if fresh.startswith("expired"):
        do = "give it network for a minute, or: outrider-agent install --from"
        yield Check("trust", "warn", f"{said}; {fresh}", do)
    else:
        yield Check("trust", "ok", f"{said}, {fresh}")


def _clock(found: Findings) -> Iterator[Check]:
    do = problem("clock_unset").help
    if found.clock_unset:
        yield Check("clock", "FAIL", "OUT-T120 nobody vouches for the time", do)
    elif found.clock == "floor":
        yield Check("clock", "warn", "not synchronised: it counts on from signed metadata", do)
    elif found.clock:
        yield Check("clock", "ok", found.clock)
    else:
        yield Check("clock", "skip", "not known")


def _certificate(found: Findings) -> Iterator[Check]:
    until_ms = found.certificate_until_ms
    if until_ms is None:
        yield Check("cert", "skip", "this device is not enrolled")
        return
    do = "give it network, or: outrider-agent enrol --renew --csr-to /media/usb"
    if until_ms <= found.now_ms:
        yield Check("cert", "FAIL", f"expired {day(until_ms, 0)}", do)
    elif until_ms - found.now_ms < _EXPIRES_SOON_MS:
        left = duration((until_ms - found.now_ms) / 1000)
        yield Check("cert", "warn", f"expires in {left}", do)
    else:
        yield Check("cert", "ok", f"until {until(until_ms, found.now_ms)}")


def _link(found: Findings) -> Iterator[Check]:
    if found.status is None:
        yield Check("link", "skip", _NO_AGENT)
        return
    link = found.status.link
    if link.connected:
        since = duration((found.now_ms - link.since_ms) / 1000)
        yield Check("link", "ok", f"connected to {link.address} for {since}")
    elif link.why.startswith(_REFUSED):
        refused = problem("N101")
        why = f"{refused.code} {link.address} {link.why}"
        yield Check("link", "FAIL", why, "ask for a new token, then: outrider-agent enrol")
    else:
        why = f"{link.address} {link.why or 'not connected yet'}"
        yield Check("link", "warn", why, "give it network; all else goes on without")


def _fetch(found: Findings) -> Iterator[Check]:
    if found.status is None or not found.status.link.connected:
        yield Check("fetch", "skip", "needs the link")
        return
    told = False
    for model, state in sorted(found.status.state.models.items()):
        if state.waiting in (MAINTENANCE, SHADOWING):
            # As somebody ordered it: nothing is wrong.
            told = True
            name = found.status.versions.get(state.target or "", model)
            said = f"{name} {state.waiting_detail}"
            if state.waiting == SHADOWING and state.phase == "standby" and state.shadow:
                said = shadowing(name, state.shadow)
            yield Check("fetch", "ok", said)
        elif state.waiting is not None:
            told = True
            why = f"{model} waits: {state.waiting} {state.waiting_detail}".rstrip()
            yield Check("fetch", "warn", why, problem(state.waiting).help)
        elif state.phase == "fetching":
            told = True
            frames = state.progress
            progress = f": {share(frames.frames, frames.of)} frames" if frames else ""
            yield Check("fetch", "ok", f"{model} is on its way{progress}")
    if not told:
        yield Check("fetch", "ok", "nothing to fetch")


def _buffer(found: Findings) -> Iterator[Check]:
    if found.status is None:
        if found.outbox is None:
            yield Check("buffer", "skip", "no record was ever kept here")
        elif found.outbox.why:
            do = "check the storage; the agent sets the file aside and begins a new one"
            yield Check("buffer", "FAIL", f"OUT-D502 {found.outbox.why}", do)
        else:
            kept = f"{count(found.outbox.records)} records, {size(found.outbox.bytes)}"
            yield Check("buffer", "ok", f"{kept}, file is sound")
        return
    state = found.status.state
    broken = next((each for each in state.refused if each.what == "buffer"), None)
    buffer = state.buffer
    said = f"{count(buffer.records)} records, {size_of(buffer.bytes, buffer.limit_bytes)}"
    if broken is not None:
        why = f"{broken.code} {broken.detail}"
        yield Check("buffer", "FAIL", why, problem(broken.code).help)
    elif buffer.limit_bytes and buffer.bytes > _FULL_SHARE * buffer.limit_bytes:
        yield Check("buffer", "warn", f"{said}: hours merge, counts stay", "give it network")
    else:
        yield Check("buffer", "ok", said)


def _disk(found: Findings) -> Iterator[Check]:
    free = found.free_bytes
    if free is None:
        yield Check("disk", "skip", "the state folder cannot be looked at")
    elif free < NO_ROOM:
        yield Check("disk", "FAIL", f"{size(free)} free", f"free space below {found.folder}")
    elif free < LITTLE_ROOM:
        yield Check("disk", "warn", f"{size(free)} free", f"free space below {found.folder}")
    else:
        yield Check("disk", "ok", f"{size(free)} free")


def _port(found: Findings) -> Iterator[Check]:
    if found.status is not None:
        yield Check("port", "ok", f"{found.status.port} on loopback")
    elif found.port_used_by == "another":
        do = "stop what uses it, or start the agent with another --port"
        yield Check("port", "FAIL", f"OUT-N106 {found.port} is in use", do)
    elif found.port_used_by == "runner":
        yield Check("port", "ok", f"{found.port}: a runner goes on answering")
    else:
        yield Check("port", "ok", f"{found.port} is free")


def _folder(found: Findings) -> Iterator[Check]:
    for wrong in found.folder_wrong:
        yield Check("folder", "FAIL", wrong, f"sudo chown -R USER {found.folder}; chmod 0700")
    if not found.folder_wrong and found.folder:
        yield Check("folder", "ok", found.folder)


def _service(found: Findings) -> Iterator[Check]:
    unit = found.unit
    if unit is None:
        yield Check("service", "skip", "no systemd here")
    elif not unit.installed:
        yield Check("service", "skip", "not installed as one: outrider-agent install-service")
    elif not unit.active:
        do = "sudo systemctl start outrider-agent; then: outrider-agent logs"
        yield Check("service", "FAIL", "installed, and not running", do)
    elif not unit.at_boot:
        do = "sudo systemctl enable outrider-agent"
        yield Check("service", "warn", "runs, but does not start with the machine", do)
    else:
        yield Check("service", "ok", "runs, and starts with the machine")
