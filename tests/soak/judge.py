"""Gathers what a run has left behind: on the device, in the store, in what the agent says."""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from control_plane.rollout import record as records
from control_plane.store import Store
from edge_agent.disk import Disk
from edge_agent.technician.status import Status
from protocol.identifiers import Digest
from protocol.reported import ModelState
from tests.fakes.callers import call
from tests.fakes.whole_fleet import MODEL
from tests.soak.evidence import Evidence, Model, Outcome
from tests.soak.ground import Field, Ground
from tests.soak.traffic import MARKER
from tests.soak.wishes import Wisher

LOSSES = ("OUT-D502", "OUT-D503")


class Judge:
    """`settled` looks at what must come right by itself; `records` at what must be counted."""

    def __init__(self, ground: Ground, at: Field, wisher: Wisher) -> None:
        self._ground = ground
        self._at = at
        self._wisher = wisher
        self._names: dict[Digest, str] = {b.digest: b.version for b in ground.bundles.values()}

    def settled(self, seen: Evidence, status: Status | None) -> Evidence:
        """Raises `OutriderError` while the control plane does not answer."""
        known = self._wisher.known()
        state = status.state.models.get(MODEL) if status is not None else None
        shown = known.shown["reported"] or {}
        told = shown.get("models", {}).get(MODEL, {})
        mine = state or ModelState()
        return replace(
            seen,
            answers_now=self._answers(),
            approved=self._ground.approved(),
            revoked=frozenset(self._wisher.revoked),
            denied=frozenset(known.denied),
            wanted=known.wanted(),
            forgotten=known.forgotten(),
            model=self._model(mine) if state is not None else Model(),
            agreed=(told.get("serving"), told.get("current")) == (mine.serving, mine.current),
        )

    def records(self, seen: Evidence, status: Status | None) -> Evidence:
        """With the traffic at rest."""
        store = self._ground.settings.store
        device = f"{self._ground.settings.fleet}-{self._at.device.name}"
        said = {each.what: each.code for each in status.state.refused} if status else {}
        with sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=10) as db:
            stored = _answers(db, device)
            conflicts = db.execute("SELECT count(*) FROM conflict WHERE device=?", (device,))
            numbers = frozenset(_outcomes(db, device))
            return replace(
                seen,
                counted=status.answered if status is not None else -1,
                held=status.state.buffer.records if status is not None else -1,
                stored=stored,
                conflicts=int(conflicts.fetchone()[0]),
                loss_said=said.get("buffer") in LOSSES or _loss_stored(db, device),
                outcomes=tuple(self._outcomes()),
                outcomes_stored=numbers,
                leaks=tuple(_leaks(db, device)),
                verdicts=tuple(self._verdicts()),
                payload_bytes=self._payload_bytes(),
            )

    def _answers(self) -> bool:
        try:
            return call(self._at.device.port, "GET", f"/v2/models/{MODEL}/ready")[0] == 200
        except (OSError, ValueError):
            return False

    def _model(self, state: ModelState) -> Model:
        def name(digest: Digest | None) -> str | None:
            return None if digest is None else self._names.get(digest, f"unknown {digest}")

        notes = {
            str(name(digest)): note.reason
            for digest, note in state.notes.items()
            if note.reason is not None
        }
        last = state.last
        return Model(
            name(state.serving),
            name(state.current),
            name(state.target),
            state.waiting,
            notes,
            (str(name(last.digest)), last.reason or "") if last is not None else ("", ""),
        )

    def _outcomes(self) -> Iterator[Outcome]:
        journal = Disk(self._at.home).journal(MODEL)
        for each in journal.outcomes if journal is not None else ():
            yield Outcome(each.number, each.result, each.reason)

    def _verdicts(self) -> Iterator[str]:
        store = Store(self._ground.settings.store)
        try:
            for rollout in self._wisher.rollouts:
                kept = [json.loads(r.body) for r in store.evidence.list_records(rollout, 0, 500)]
                if records.broken_at(kept) is not None or not all(map(records.agrees, kept)):
                    yield rollout
        finally:
            store.close()

    def _payload_bytes(self) -> int:
        found = self._ground.client.get(f"models/{MODEL}/payloads")["items"]
        # Frame lists are published with the frames.
        return sum(each["size_bytes"] + 40_000 for each in found)


def _answers(db: sqlite3.Connection, device: str) -> int:
    found = db.execute(
        "SELECT coalesce(sum(n), 0) FROM record WHERE device=? AND stream LIKE 'inference/%'",
        (device,),
    )
    return int(found.fetchone()[0])


def _events(db: sqlite3.Connection, device: str) -> Iterator[Mapping[str, Any]]:
    query = "SELECT body FROM record WHERE device=? AND stream LIKE 'events/%'"
    for (body,) in db.execute(query, (device,)):
        yield json.loads(body)


def _outcomes(db: sqlite3.Connection, device: str) -> Iterator[int]:
    for event in _events(db, device):
        for detail in event.get("newest", {}).values():
            if isinstance(detail, dict) and "number" in detail:
                yield int(detail["number"])


def _loss_stored(db: sqlite3.Connection, device: str) -> bool:
    return any(code in LOSSES for event in _events(db, device) for code in event.get("counts", {}))


def _leaks(db: sqlite3.Connection, device: str) -> Iterator[str]:
    """As text, and as the bytes of a float32 and a float64."""
    needles = (str(MARKER)[:8].encode(), struct.pack("<f", MARKER), struct.pack("<d", MARKER))
    for stream, body in db.execute("SELECT stream, body FROM record WHERE device=?", (device,)):
        data = body.encode() if isinstance(body, str) else body
        if any(needle in data for needle in needles):
            yield f"a stored record of {stream}"
