"""One thing that was found about the inputs of a device or a cohort."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from control_plane.drift.words import Kind, Verdict
from protocol.identifiers import Digest, ModelName


@dataclass(frozen=True, slots=True)
class FoundFeature:
    """One column that shows it."""

    index: int
    """Of the profile's streams: a feature, or its residual after them."""
    name: str
    value: float
    """ln e of a detector, p of everything else."""
    psi: float
    """Bias-corrected."""
    what: str
    """In words: which score, or which part of the devices."""


@dataclass(frozen=True, slots=True)
class Finding:
    kind: Kind
    model: ModelName
    bundle: Digest
    manifest: Digest
    profile: Digest
    subject: str
    """Id of a device, or a cohort: "site=b", "not site", "all"."""
    verdict: Verdict
    sentence: str
    features: tuple[FoundFeature, ...]
    """The clearest first."""
    seen_ms: int
    record: dict[str, Any]
    """What it can be recomputed from."""

    @property
    def key(self) -> str:
        """One thing, one alarm: a device's detectors and its peers speak of the same."""
        what = "device" if self.kind in ("detector", "peer") else "cohort"
        return f"{what}/{self.model}/{self.profile[7:23]}/{self.subject}"
