"""Signed members of a bundle: contract, policy, reference profile and model card."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from msgspec import Meta

from protocol import codec
from protocol.errors import NotUnderstood
from protocol.identifiers import Count, Digest

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
    """When a trial has failed. A share is of requests."""

    error_share: float = 0.01
    nonfinite_share: float = 0.0
    crashes: int = 3
    alpha: float = 1e-4
    """Chance that a fine model is returned by the confidence and class mix guards together."""
    confidence_drop: float = 0.05
    """Smallest fall of mean confidence that counts; a better model may be surer than the last."""
    class_shift: float = 0.1
    """Smallest total variation distance between class mixes that counts."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How a device treats this bundle on its own, also offline. Signed with the bundle."""

    health_window_s: float = 1800
    min_requests: int = 50
    max_duration_s: float = 86_400
    limits: Limits = Limits()
    fallback: Digest | None = None
    on_exhausted: Literal["previous", "refuse"] = "previous"
    dev: DevPolicy | None = None
    must_understand: tuple[str, ...] = ("policy/1",)


@dataclass(frozen=True, slots=True)
class DevPolicy:
    """Intervals of `init --dev` fleets: shown in status, never part of a production bundle."""

    health_window_s: float = 3
    max_duration_s: float = 30
    guard: bool = False
    """Whether the thrash guard holds."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One monitored column: float32 edges of its bins and the reference counts per slot.

    Slots are those of `searchsorted(side="right")` on `[*edges, +inf, nan]`: below, the inner
    bins, above, +inf, NaN; so there are `len(edges) + 3` counts.
    """

    name: str
    edges: tuple[float, ...]
    counts: tuple[Count, ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.edges) <= 64 or len(self.counts) != len(self.edges) + 3:
            raise ValueError(f"{self.name}: 1 to 64 edges and three more counts")
        if any(a >= b for a, b in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError(f"{self.name}: edges increase")


@dataclass(frozen=True, slots=True)
class Profile:
    """The reference that drift is measured against: counts of the samples the model was built on.

    Features are the columns of the first input, flattened in C order. Only windows of equal
    profile digests merge.
    """

    rows: Count
    features: tuple[Feature, ...] = ()
    confidence: tuple[Count, ...] = ()
    classes: tuple[Count, ...] = ()

    def __post_init__(self) -> None:
        if len(self.features) > 4096:
            raise ValueError("at most 4,096 features are monitored")


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
    """Decode a signed JSON member (contract, profile, policy, card)."""
    return codec.decode_signed(data, into, limit=codec.MAX_BUNDLE_DOCUMENT)


def pretty(value: object) -> bytes:
    """JSON for members that people also read."""
    return json.dumps(codec.to_wire(value), indent=1, sort_keys=True).encode() + b"\n"
