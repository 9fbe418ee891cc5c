"""What a fleet with so many approved versions publishes, one thing after the other, as files.

    <folder>/<number>/root/1.json  timestamp.json  snapshot.json  targets.json  models.json
                      rollouts.json  plan.json  everything.dsse

One folder per publication of `PUBLICATIONS`. `everything.dsse` is what a bare DSSE verifier would
be sent instead: all approvals in one envelope that the same two approvers signed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from securesystemslib.dsse import Envelope

from control_plane.signing import keys
from control_plane.signing.drafts import Change
from control_plane.signing.repository import Repository
from protocol import codec
from protocol.identifiers import digest_of
from protocol.plan import DenyList, Plan, PlanTerms, Rule

FLEET: Final = "local"
MODEL: Final = "camera"
APPROVERS: Final = ("ana", "bo", "cy")
THRESHOLD: Final = 2
PUBLICATIONS: Final = ("cold", "re-stamp", "plan change", "approval")
PAYLOAD_TYPE: Final = "application/json"
_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Published:
    folder: Path
    targets: int

    def of(self, publication: str) -> Path:
        return self.folder / str(PUBLICATIONS.index(publication))

    @property
    def keys(self) -> Path:
        """Public keys of the approvers: what a bare DSSE verifier is provisioned with."""
        return self.folder / "keys.json"


def publish(folder: Path, targets: int) -> Published:
    """Make a fleet with 2 of 3 approvers and this many approved versions, and its publications."""
    published = Published(folder, targets)
    # In the past, so that every publication is due and none is from the future.
    now_ms = time.time_ns() // 1_000_000 - _DAY_MS * 2
    source = folder / "repository"
    secret = folder / "secret"
    repository = Repository.create_dev(source, secret, FLEET, now_ms, APPROVERS)
    changes = tuple(_change(number) for number in range(targets))
    _approve(repository, secret, changes, now_ms)
    deny = codec.encode(DenyList(FLEET, 1))
    for number, publication in enumerate(PUBLICATIONS):
        now_ms += _DAY_MS // 2 if publication == "re-stamp" else 60_000
        version = 2 if publication in ("plan change", "approval") else 1
        if publication == "approval":
            changes = (*changes, _change(targets))
            _approve(repository, secret, changes[-1:], now_ms)
        if publication == "re-stamp":
            repository.restamp(now_ms)
        else:
            plan = _plan(version, changes[0])
            repository.publish({MODEL: (plan, PlanTerms())}, deny, now_ms)
            _write(folder / str(number) / "plan.json", plan)
        here = folder / str(number)
        _write(here / "root" / "1.json", repository.roots()[1])
        for role, data in repository.metadata().items():
            _write(here / f"{role}.json", data)
        _write(here / "everything.dsse", _envelope(secret, changes, number))
    signers = [keys.load(secret / f"{name}.pem") for name in APPROVERS]
    public = {signer.public_key.keyid: signer.public_key.to_dict() for signer in signers}
    _write(published.keys, json.dumps(public).encode())
    return published


def _change(number: int) -> Change:
    index = f"index {number}".encode()
    return Change(MODEL, f"v{number}", digest_of(index), len(index))


def _approve(
    repository: Repository, secret: Path, changes: tuple[Change, ...], now_ms: int
) -> None:
    draft = repository.draft(changes, now_ms)
    for name in APPROVERS[:THRESHOLD]:
        signature = draft.metadata().sign(keys.load(secret / f"{name}.pem"))
        repository.add_signature(draft.id, draft.version, signature.keyid, signature.signature)


def _plan(version: int, change: Change) -> bytes:
    return codec.encode(Plan(FLEET, MODEL, version, version, (Rule(None, change.digest),)))


def _envelope(secret: Path, changes: Sequence[Change], counter: int) -> bytes:
    approved = {
        change.path: {"sha256": change.digest, "length": change.length, "state": "approved"}
        for change in changes
    }
    payload = json.dumps({"counter": counter, "approved": approved}).encode()
    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    for name in APPROVERS[:THRESHOLD]:
        envelope.sign(keys.load(secret / f"{name}.pem"))
    return json.dumps(envelope.to_dict(), separators=(",", ":")).encode()


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
