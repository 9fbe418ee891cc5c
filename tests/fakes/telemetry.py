"""Counts and takes for telemetry tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import zstandard

from protocol.histogram import CONFIDENCE_BINS
from protocol.identifiers import Digest
from protocol.telemetry import DriftWindow, InferenceWindow

MANIFEST: Digest = "sha256-" + "a" * 64
PROFILE: Digest = "sha256-" + "b" * 64
BUNDLE: Digest = "sha256-" + "c" * 64
MODEL = "digits"
DEVICE = "local-cam-1"


def compress(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def inference(answers: int, *, mark: int = 0, manifest: Digest = MANIFEST) -> InferenceWindow:
    """Every answer has confidence 0.975 and class 1. `mark` goes into `refused`."""
    confidence = [0] * CONFIDENCE_BINS
    confidence[-1] = answers
    return InferenceWindow(
        manifest,
        PROFILE,
        answers=answers,
        rows=answers,
        refused=mark,
        confidence=tuple(confidence),
        classes=(0, answers, 0),
    )


def drift(rows: int, *, manifest: Digest = MANIFEST) -> DriftWindow:
    return DriftWindow(manifest, PROFILE, rows, ((0, rows, 0, 0), (rows, 0, 0, 0)))


@dataclass(frozen=True)
class Counts:
    inference: InferenceWindow
    drift: DriftWindow
    model: str = MODEL
    digest: Digest = BUNDLE
    window_s: float = 3600.0
    window_rows: int = 50


@dataclass(frozen=True)
class Take:
    runner: str
    seq: int
    windows: Sequence[Counts]


def take(seq: int, answers: int, *, runner: str = "r-1", mark: int = 0, rows: int = 0) -> Take:
    return Take(runner, seq, (Counts(inference(answers, mark=mark), drift(rows)),))
