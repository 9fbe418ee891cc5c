"""TUF target names of one fleet and the meaning of their `custom` member.

    models/<model>/<version>     role models: an approved or revoked bundle; bytes = its index
    rollouts/plan-<model>        role rollouts: a plan
    rollouts/deny-list           role rollouts: the deny list

`custom` is signed but TUF does not look into it, so it is read strictly here: what is not
understood refuses that one target, never its neighbours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, get_args, get_type_hints

from protocol import codec
from protocol.approval import Approved, ApprovedBundle
from protocol.codec import require_understood
from protocol.errors import NotUnderstood, PeerError
from protocol.identifiers import (
    Digest,
    ModelName,
    Version,
    digest_from_hex,
    model_name,
    version_name,
)
from protocol.plan import PlanTerms

DENY_LIST: Final = "rollouts/deny-list"

_PLAN = "rollouts/plan-"
_BUNDLE = re.compile(r"models/([^/]+)/([^/]+)")
_CLOSED: Final = {
    name: frozenset(get_args(hint))
    for name, hint in get_type_hints(Approved).items()
    if name in ("state", "on_device")
}


@dataclass(frozen=True, slots=True)
class PlanTarget:
    """What role rollouts says of one document: its bytes, and for plans whom it concerns."""

    digest: Digest
    length: int
    terms: PlanTerms = PlanTerms()


def bundle_path(model: ModelName, version: Version) -> str:
    return f"models/{model_name(model)}/{version_name(version)}"


def plan_path(model: ModelName) -> str:
    return f"{_PLAN}{model_name(model)}"


def planned_model(path: str) -> ModelName | None:
    """The model whose plan this path names; None for any other path. Raises `ValueError`."""
    if not path.startswith(_PLAN):
        return None
    return model_name(path[len(_PLAN) :])


def read_bundle(path: str, sha256: object, custom: object) -> ApprovedBundle:
    """One target of role models. Raises `PeerError`; `NotUnderstood` for one from the future."""
    named = _BUNDLE.fullmatch(path)
    if named is None:
        raise PeerError("OUT-N210", f"role models does not name {path!r:.80}")
    terms = _custom(custom)
    unknown = tuple(
        f"{name}:{terms[name]!s:.32}"
        for name, known in _CLOSED.items()
        if isinstance(terms.get(name), str) and terms[name] not in known
    )
    if unknown:
        raise NotUnderstood(unknown)
    try:
        model, version = model_name(named[1]), version_name(named[2])
    except ValueError as error:
        raise PeerError("OUT-N210", str(error)) from error
    return ApprovedBundle(model, version, read_digest(sha256), codec.convert(terms, Approved))


def read_plan_target(sha256: object, length: int, custom: object) -> PlanTarget:
    """One target of role rollouts. Raises like `read_bundle`."""
    return PlanTarget(read_digest(sha256), length, codec.convert(_custom(custom), PlanTerms))


def read_digest(sha256: object) -> Digest:
    if not isinstance(sha256, str):
        raise PeerError("OUT-N210", "a target has no sha256")
    try:
        return digest_from_hex(sha256)
    except ValueError as error:
        raise PeerError("OUT-N210", str(error)) from error


def _custom(custom: object) -> dict[str, object]:
    if custom is None:
        return {}
    if not isinstance(custom, dict):
        raise PeerError("OUT-N210", "custom is an object")
    require_understood(custom.get("must_understand", []))
    return custom
