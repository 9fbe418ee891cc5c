"""Signed members of a bundle: contract, policy, reference profile and model card."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Final, Literal, get_args

from msgspec import Meta

from protocol import codec
from protocol.errors import NotUnderstood
from protocol.identifiers import Count, Digest, digest
from protocol.profile import Basis as Basis
from protocol.profile import Feature as Feature
from protocol.profile import How as How
from protocol.profile import Profile as Profile
from protocol.profile import Residual as Residual
from protocol.profile import Watched as Watched
from protocol.rules import Rules

DATATYPES: Final = {
    "BOOL": 1,
    "UINT8": 1,
    "UINT16": 2,
    "UINT32": 4,
    "UINT64": 8,
    "INT8": 1,
    "INT16": 2,
    "INT32": 4,
    "INT64": 8,
    "FP16": 2,
    "FP32": 4,
    "FP64": 8,
    "BYTES": 0,
}
"""Open Inference Protocol names and their bytes per element (0: variable)."""

Dimension = Annotated[int, Meta(ge=-1, le=2**31 - 1)]

Trigger = Literal["errors", "latency", "nonfinite", "contract", "crashes", "drift", "confidence"]
"""What can be wrong with a bundle that runs."""

TRIGGERS: Final[tuple[Trigger, ...]] = get_args(Trigger)

Action = Literal["previous", "fallback", "rules", "refuse"]
"""What a device then does: go back, go to the named bundle, answer by rules, or not at all."""

ACTIONS: Final[dict[str, Action]] = {name: name for name in get_args(Action)}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output. The first dimension -1 is the batch; other -1 are free."""

    name: str
    datatype: str
    shape: tuple[Dimension, ...]
    minimum: float | None = None
    """Smallest and largest value the model was made for (inputs); outside counts, never refuses."""
    maximum: float | None = None
    role: Literal["label", "probabilities", "score", "embedding", "other"] = "other"
    """What an output means (outputs only)."""

    def __post_init__(self) -> None:
        if self.datatype not in DATATYPES:
            raise NotUnderstood((f"datatype:{self.datatype[:32]}",))
        if not 0 < len(self.name) <= 256 or len(self.shape) > 16:
            raise ValueError("a tensor has a name and at most 16 dimensions")


@dataclass(frozen=True, slots=True)
class Contract:
    """What goes in and comes out of a model, and how closely golden vectors must reproduce."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    classes: tuple[str, ...] = ()
    """Class names in the order of the probabilities, if there are any."""
    absolute_tolerance: float = 1e-4
    relative_tolerance: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 < len(self.inputs) <= 64 or not 0 < len(self.outputs) <= 64:
            raise ValueError("a model has 1 to 64 inputs and 1 to 64 outputs")
        if len(self.classes) > 10_000:
            raise ValueError("at most 10,000 classes are counted")

    def output(self, role: str) -> TensorSpec | None:
        return next((spec for spec in self.outputs if spec.role == role), None)


@dataclass(frozen=True, slots=True)
class Limits:
    """When a bundle has failed. A share is of requests."""

    error_share: float = 0.01
    nonfinite_share: float = 0.0
    crashes: int = 3
    alpha: float = 1e-4
    """Chance that a fine model is returned by confidence, class mix and latency together."""
    confidence_drop: float = 0.05
    """Smallest fall of mean confidence that counts; a better model may be surer than the last."""
    class_shift: float = 0.1
    """Smallest total variation distance between class mixes that counts."""
    latency_ratio: float = 3.0
    """Smallest growth of the 95th percentile of latency that counts: so many times what it was."""
    latency_floor_s: float = 0.005
    """And so many seconds more: three times next to nothing is next to nothing."""
    contract_share: float | None = None
    """Share of requests that may break the contract; None: as many as callers like."""

    def __post_init__(self) -> None:
        shares = (self.error_share, self.nonfinite_share, self.contract_share or 0.0)
        if not all(0 <= share <= 1 for share in (*shares, self.confidence_drop, self.class_shift)):
            raise ValueError("shares, confidence_drop and class_shift are from 0 to 1")
        if not 0 < self.alpha < 1 or not 1 <= self.crashes <= 1000:
            raise ValueError("alpha lies between 0 and 1, crashes from 1 to 1,000")
        if not 1 <= self.latency_ratio <= 1000 or not 0 <= self.latency_floor_s <= 3600:
            raise ValueError("latency_ratio is 1 to 1,000, latency_floor_s 0 to 3,600")


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What a bundle may choose about the session that runs it: these and no others, since some
    options of onnxruntime crash the process that sets them.

    Raises `NotUnderstood` for a value that is none of those listed.
    """

    intra_op_threads: Annotated[int, Meta(ge=1, le=8)] = 1
    memory_arena: bool = False
    """Whether memory of a run is kept for the next one: a little faster, and never given back."""
    prepacking: str = "auto"
    """Whether weights are copied into the form that runs fastest: on, off, or auto, which means
    not those that lie outside of the model's file, if they have more than 10 MiB."""
    graph_optimization: str = "all"
    """none, basic, extended or all."""

    def __post_init__(self) -> None:
        for name, allowed in _SESSION_VALUES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise NotUnderstood((f"session.{name}:{value[:32]}",))


_SESSION_VALUES: Final = {
    "prepacking": ("auto", "on", "off"),
    "graph_optimization": ("none", "basic", "extended", "all"),
}


@dataclass(frozen=True, slots=True)
class Policy:
    """How a device treats this bundle on its own, also offline. Signed with the bundle."""

    health_window_s: float = 1800
    min_requests: int = 50
    max_duration_s: float = 86_400
    limits: Limits = Limits()
    fallback: Digest | None = None
    on_exhausted: Literal["previous", "refuse"] = "previous"
    actions: dict[str, str] = field(default_factory=dict)
    """`{trigger: action}` once this bundle is what was proven here; `previous` for the rest."""
    after_commit: tuple[str, ...] = ("errors", "nonfinite", "crashes")
    """Triggers that are watched for good. Deaths of runners always are."""
    rules: Rules | None = None
    """What answers where an action says `rules`, or where no model is left."""
    session: SessionOptions = SessionOptions()
    dev: DevPolicy | None = None
    must_understand: tuple[str, ...] = ("policy/1",)

    def __post_init__(self) -> None:
        unknown = [
            f"trigger:{n[:32]}" for n in (*self.actions, *self.after_commit) if n not in TRIGGERS
        ]
        unknown += [f"action:{name[:32]}" for name in self.actions.values() if name not in ACTIONS]
        if unknown:
            raise NotUnderstood(tuple(sorted(set(unknown))[:8]))
        if self.fallback is not None:
            digest(self.fallback)
        if "rules" in self.actions.values() and self.rules is None:
            raise ValueError("an action says `rules`, but the policy has no rules")
        if "fallback" in self.actions.values() and self.fallback is None:
            raise ValueError("an action says `fallback`, but the policy names no fallback")

    def action(self, trigger: Trigger) -> Action:
        return ACTIONS[self.actions.get(trigger, "previous")]


@dataclass(frozen=True, slots=True)
class DevPolicy:
    """Intervals of `init --dev` fleets: shown in status, never part of a production bundle."""

    health_window_s: float = 3
    max_duration_s: float = 30
    guard: bool = False
    """Whether the thrash guard holds."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where something came from: a place, its revision there, and its digest if known."""

    uri: str
    revision: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """Model card: what people should know before they approve."""

    model: str
    version: str
    created: str = ""
    """RFC 3339."""
    description: str = ""
    license: str = ""
    intended_use: str = ""
    limitations: str = ""
    risk_class: str = ""
    data: tuple[Source, ...] = ()
    code: tuple[Source, ...] = ()
    framework: str = ""
    rows: Count = 0
    metrics: dict[str, float] = field(default_factory=dict)

    def empty_fields(self) -> tuple[str, ...]:
        """What a policy may ask for and nobody has filled in."""
        asked_for = ("description", "license", "intended_use", "limitations", "risk_class")
        return tuple(name for name in asked_for if not getattr(self, name))


def member_document(data: bytes, into: type[codec.T]) -> codec.T:
    """Decode a signed JSON member (contract, profile, policy, card).

    Raises `PeerError`; `NotUnderstood` for what this version does not know: a session option that
    were ignored would let a model run otherwise than its approvers signed.
    """
    document = codec.decode_signed(data, into, limit=codec.MAX_BUNDLE_DOCUMENT)
    if isinstance(document, Policy):
        raw = codec.decode(data, dict[str, Any], limit=codec.MAX_BUNDLE_DOCUMENT)
        unknown = raw.get("session", {}).keys() - {f.name for f in fields(SessionOptions)}
        if unknown:
            raise NotUnderstood(tuple(f"session.{name[:32]}" for name in sorted(unknown)[:8]))
    return document


def pretty(value: object) -> bytes:
    """JSON for members that people also read."""
    return json.dumps(codec.to_wire(value), indent=1, sort_keys=True).encode() + b"\n"
