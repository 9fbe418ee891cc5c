"""Installs from a stick, for the running agent: `outrider-agent install --from DIR`.

Reading, copying and decoding happen here, on the thread of whoever asked; everything that
verifies, decides or changes what is in force is an errand on the supervisor's thread. What a
stick brings ends up where the fetcher would have put it, and the update machine takes it from
there: the same golden vectors, the same probation, the same way back.
"""

from __future__ import annotations

import errno
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol, TypeVar, cast

from edge_agent import sideload
from edge_agent.contents import INDEX, MANIFEST, keep, read_hint, read_index, read_manifest
from edge_agent.decode import decode, decode_from
from edge_agent.desired import Decision
from edge_agent.journal import Journal
from edge_agent.metadata import LIMITS, MAX_ROOT
from edge_agent.partial import PREFIX
from edge_agent.parts import Parts
from edge_agent.siblings import bases, link_equals, still_missing
from edge_agent.sideload import Ended, Papers, Todo
from edge_agent.technician.door import Line, Tell
from edge_agent.technician.status import Status
from edge_agent.technician.stick import StickFolder
from edge_agent.watch import health
from protocol import codec, stick
from protocol.bundle import Member
from protocol.errors import (
    Failed,
    InvalidRequest,
    OutriderError,
    PeerError,
    TrustError,
    Unavailable,
)
from protocol.identifiers import Digest, ModelName
from protocol.payload import MAX_BLOCK, PLAIN_FEATURES, HintEntry
from protocol.safetensors import parse_header
from protocol.stick import Stick
from protocol.topics import TUF_ROLES
from protocol.wording import size as size_of

LOOK: Final = 8
"""Exit code of what works and needs a look."""
LOOK_S: Final = 0.1
TELL_S: Final = 0.5
ROOM_S: Final = 30.0
"""For the update machine to make room, or to come to this model."""
PATIENCE_S: Final = 10.0
"""What holds a bundle up for so long is told, and not waited for."""
MAX_GOLDEN: Final = 64 * 1024 * 1024
WATCHED_S: Final = 300.0
"""It goes on by itself: nobody has to stand there for longer."""
NEW_STICK: Final = "the stick may be damaged; make a new one: outrider export usb"

T = TypeVar("T")


class Supervisor(Protocol):
    def errand(self, work: Callable[[], T]) -> T: ...
    def decisions(self) -> dict[ModelName, Decision]: ...
    def status(self) -> Status: ...


@dataclass(frozen=True, slots=True)
class _Standing:
    """One model, as it stands once what the stick brings is in force."""

    decision: Decision
    journal: Journal
    here: frozenset[Digest]


class Installer:
    """`install` from any thread, one at a time."""

    def __init__(self, parts: Parts, supervisor: Supervisor) -> None:
        self._parts = parts
        self._supervisor = supervisor
        self._busy = threading.Lock()

    def install(self, options: Mapping[str, str], tell: Tell) -> None:
        """Carry out the command of that name; `options["from"]` is the stick's folder.

        Raises what is refused, after everything that could be done was done: `InvalidRequest`
        OUT-T119, OUT-D406, `TrustError`, `PeerError`, `Unavailable` OUT-D201, `Failed`.
        """
        if not self._busy.acquire(blocking=False):
            raise InvalidRequest("OUT-D406")
        try:
            with StickFolder(Path(options.get("from", ""))) as folder:
                self._install(folder, tell)
        finally:
            self._busy.release()

    def _install(self, folder: StickFolder, tell: Tell) -> None:
        parts = self._parts
        note = _note(folder)
        sideload.require_for(note, parts.topics.fleet, parts.device)
        tell(Line("stick", {"made": sideload.made(note, parts.clock.now_ms())}))
        papers = self._papers(folder, note)
        tell(Line("trust", self._supervisor.errand(lambda: self._accept(papers))))
        standing = self._supervisor.errand(lambda: self._standing(papers))
        if not standing:
            raise InvalidRequest("OUT-T119", "no plan on it concerns this device")
        tasks = [_todo(model, each, folder) for model, each in standing.items()]
        refusals = [self._refuse(task, tell) for task in tasks if task.refusal is not None]
        ends = [self._carry_out(task, folder, tell) for task in tasks if task.head is not None]
        if refusals:
            raise refusals[0]
        for end in ends:
            if end.how == "failed":
                raise Failed(end.code, end.detail)
        settled = all(end.how in ("activated", "runs") for end in ends)
        tell(Line("end", {"exit": 0 if settled else LOOK}))

    # --- what is on it --------------------------------------------------------------------------

    def _papers(self, folder: StickFolder, note: Stick) -> Papers:
        first = self._supervisor.errand(lambda: self._parts.trust.root_version) + 1
        roots: dict[int, bytes] = {}
        for number in range(first, first + stick.MAX_ROOTS):
            found = folder.find(stick.root(number), MAX_ROOT)
            if found is None:
                break
            roots[number] = found
        return Papers(
            note,
            {role: folder.read(stick.role(role), LIMITS[role]) for role in TUF_ROLES},
            folder.read(stick.document(self._parts.device), codec.MAX_DEVICE_DOCUMENT),
            folder.read((stick.DENY,), codec.MAX_DENY_LIST),
            roots,
            {model: folder.read(stick.plan(model), codec.MAX_PLAN) for model in note.models},
        )

    def _accept(self, papers: Papers) -> dict[str, Any]:
        """On the supervisor's thread: verify, and put in force."""
        trust, orders = self._parts.trust, self._parts.orders
        before = trust.state()
        try:
            trust.carry(papers.roots, papers.roles)
            held = self._parts.disk.models()
            orders.carry(papers.document, papers.deny, papers.plans, held)
        except TrustError as error:
            if error.code != "OUT-T110":
                raise TrustError(error.code, error.why, do=NEW_STICK) from error
            behind = sideload.older(sideload.versions(papers.roles), before)
            raise TrustError("OUT-T110", behind or error.why) from error
        return {
            "needed": trust.approvals_needed,
            "newer": sideload.newer(before, trust.state()),
        }

    def _standing(self, papers: Papers) -> dict[ModelName, _Standing]:
        """On the supervisor's thread: the models that the stick is about."""
        parts, document = self._parts, self._parts.orders.document
        about = {*papers.stick.models, *(document.pins if document is not None else ())}
        here = frozenset(bundle for bundle in parts.disk.complete() if parts.disk.verify(bundle))
        return {
            model: _Standing(decision, parts.actor.journal(model), here)
            for model, decision in self._supervisor.decisions().items()
            if model in about
        }

    # --- one model ------------------------------------------------------------------------------

    def _refuse(self, task: Todo, tell: Tell) -> OutriderError:
        refusal = cast(sideload.Refusal, task.refusal)
        name = self._name(refusal.digest, task.model)
        said = {"name": name, "how": "refused", "code": refusal.code, "detail": refusal.detail}
        tell(Line("model", said))
        return TrustError(refusal.code, f"{name}: {refusal.detail}", do="tell an operator")

    def _carry_out(self, task: Todo, folder: StickFolder, tell: Tell) -> Ended:
        head = cast(Digest, task.head)
        name = self._name(head, task.model)
        size = 0
        # What a trial goes back to comes first: the trial begins as soon as the other is here.
        for bundle in reversed(task.bring):
            size += self._bring(folder, task.model, bundle, tell)
        for bundle in task.grant:
            self._supervisor.errand(partial(self._parts.trust.grant, bundle))
        if task.runs_already:
            tell(Line("model", {"name": name, "how": "runs", "size_bytes": 0}))
            return Ended("runs")
        tell(Line("model", {"name": name, "how": "here", "size_bytes": size}))
        end = self._watch(task, tell)
        said = {"name": name, "how": end.how, "code": end.code, "detail": end.detail}
        if end.how in ("activated", "runs"):
            said |= self._supervisor.errand(lambda: self._proof(head))
        tell(Line("model", said))
        return end

    def _bring(self, folder: StickFolder, model: ModelName, bundle: Digest, tell: Tell) -> int:
        """Put a bundle's files where the fetcher would have; bytes read from the stick."""
        parts = self._parts
        data = folder.read(stick.manifest(bundle), codec.MAX_INDEX)
        _, chosen = read_index(data, model, bundle, parts.facts)
        manifest = folder.read(stick.manifest(chosen.digest), codec.MAX_MANIFEST)
        members = read_manifest(manifest, chosen)
        directory = parts.disk.partial(bundle)
        self._supervisor.errand(lambda: parts.fetcher.hold(bundle))()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            keep(directory / INDEX, data)
            keep(directory / MANIFEST, manifest)
            self._require_room(model, bundle)
            missing = still_missing(directory.parent, directory, members)
            meter = _Meter(tell, sum({m.digest: m.size for m in missing}.values()))
            while missing:
                member, *others = missing
                here = _Here(directory, parts.abilities, bases(directory.parent, directory))
                _decode(folder, model, member, here, meter)
                missing = link_equals(directory, member, others)
        except OSError as error:
            raise _unwritable(error) from error
        finally:
            self._supervisor.errand(lambda: parts.fetcher.release(bundle))
        return meter.read_bytes

    def _require_room(self, model: ModelName, bundle: Digest) -> None:
        """Until the update machine knows of the bundle, and has made room for it if it can.

        Raises `Unavailable` OUT-D201 when it could not.
        """
        disk = self._parts.disk

        def look() -> tuple[bool, int, int]:
            known = disk.journal(model) is not None
            return known, disk.needed_bytes(bundle) or 0, disk.free_bytes()

        deadline = time.monotonic() + ROOM_S
        while True:
            known, needed, free = self._supervisor.errand(look)
            if known and needed <= free:
                return
            if time.monotonic() > deadline:
                why = f"needs {size_of(needed)}, {size_of(free)} are free"
                raise Unavailable("OUT-D201", why if known else "the agent is busy")
            time.sleep(LOOK_S)

    def _watch(self, task: Todo, tell: Tell) -> Ended:
        """Until the update machine has started the bundle, given it up, or waits for something."""
        # What is shown now may be of a turn before anything was brought.
        for _ in range(2):
            self._supervisor.errand(lambda: None)
        held_since: float | None = None
        told_at = 0.0
        deadline = time.monotonic() + WATCHED_S
        while True:
            state = self._supervisor.status().state.models.get(task.model)
            end = sideload.ended(task, state)
            if end is not None:
                return end
            now_s = time.monotonic()
            held = sideload.held_up(task, state)
            held_since = (held_since or now_s) if held is not None else None
            if held is not None and held_since is not None and now_s - held_since >= PATIENCE_S:
                return held
            if now_s > deadline:
                return Ended("waits")
            if now_s - told_at >= TELL_S:
                tell(Line("trying", {"phase": state.phase if state is not None else "waiting"}))
                told_at = now_s
            time.sleep(LOOK_S)

    def _proof(self, bundle: Digest) -> dict[str, Any]:
        """On the supervisor's thread: golden vectors, and how long the trial lasts."""
        found = self._parts.disk.installed(bundle)
        if found is None:
            return {}
        terms = health.terms(found.policy, dev=self._parts.dev)
        golden = found.variant.member("golden")
        said: dict[str, Any] = {"probation_seconds": terms.health_window_s}
        if golden.size <= MAX_GOLDEN:
            said["golden"] = _rows((found.path / golden.path).read_bytes())
        return said

    def _name(self, bundle: Digest, model: ModelName) -> str:
        return sideload.name_of(bundle, model, self._parts.trust.approvals)


class _Meter:
    """Bytes read from the stick, told now and then. The total is of the files that they give."""

    def __init__(self, tell: Tell, total: int) -> None:
        self._tell = tell
        self._total = total
        self._told_at = 0.0
        self.read_bytes = 0

    def add(self, count: int) -> None:
        self.read_bytes += count
        if time.monotonic() - self._told_at >= TELL_S:
            self._told_at = time.monotonic()
            done = min(self.read_bytes, self._total)
            self._tell(Line("copying", {"done_bytes": done, "total_bytes": self._total}))


class _Metered:
    """A payload that is counted while it is read."""

    def __init__(self, source: BinaryIO, meter: _Meter) -> None:
        self._source = source
        self._meter = meter

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self._meter.add(len(data))
        return data


def _note(folder: StickFolder) -> Stick:
    data = folder.read((stick.NOTE,), stick.MAX_NOTE)
    try:
        return codec.decode(data, Stick, limit=stick.MAX_NOTE)
    except PeerError as error:
        raise InvalidRequest("OUT-T119", f"{stick.NOTE}: {error.why}") from error


def _todo(model: ModelName, standing: _Standing, folder: StickFolder) -> Todo:
    wanted = {each.digest for each in standing.decision.resolution.candidates}
    offered = {bundle for bundle in wanted if folder.has(stick.manifest(bundle))}
    return sideload.todo(model, standing.decision, standing.journal, standing.here, offered)


@dataclass(frozen=True, slots=True)
class _Here:
    """What payloads are decoded with, and to where."""

    directory: Path
    known: int
    bases: Mapping[Digest, Path]


def _decode(
    folder: StickFolder, model: ModelName, member: Member, here: _Here, meter: _Meter
) -> None:
    """The first payload that gives the signed file. Raises `TrustError` OUT-T103 if none does."""
    try:
        hint = folder.read(stick.hint(model, member.digest), codec.MAX_HINT)
        entries = read_hint(hint, member, here.known, here.bases)
    except PeerError as error:
        raise InvalidRequest("OUT-T119", f"its hint for {member.path}: {error.why}") from error
    why = "the stick has no payload for it"
    for entry in entries:
        try:
            _decode_one(folder, entry, member, here, meter)
        except (PeerError, TrustError, InvalidRequest, Unavailable) as error:
            why = error.why
        else:
            return
    raise TrustError("OUT-T103", f"{member.path}: {why}", do=NEW_STICK)


def _decode_one(
    folder: StickFolder, entry: HintEntry, member: Member, here: _Here, meter: _Meter
) -> None:
    target = here.directory / member.path
    with folder.stream(stick.payload(entry.payload), entry.size) as source:
        metered = cast(BinaryIO, _Metered(source, meter))
        if not entry.features & ~PLAIN_FEATURES:
            decode_from(metered, target, member.digest, member.size)
            return
        # Another process decodes it, which must not depend on how a stick is read.
        spooled = here.directory / f"{PREFIX}{entry.payload}"
        with spooled.open("wb") as sink:
            shutil.copyfileobj(metered, sink, MAX_BLOCK)
    base = here.bases.get(entry.base) if entry.base is not None else None
    try:
        decode(spooled, target, member.digest, member.size, base)
    finally:
        # Another try reads the stick again; what was decoded so far stays for it.
        spooled.unlink()


def _rows(golden: bytes) -> int:
    """How many golden vectors a file holds; 0 if that cannot be told."""
    try:
        views = parse_header(golden)
    except PeerError:
        return 0
    return next((v.shape[0] for n, v in views.items() if n.startswith("input:") and v.shape), 0)


def _unwritable(error: OSError) -> OutriderError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unavailable("OUT-D201", "what is here is kept")
    if error.errno == errno.ENOENT:
        return Failed("OUT-D314", "the device was told something newer meanwhile")
    return Failed("OUT-D405", error.strerror or str(error))
