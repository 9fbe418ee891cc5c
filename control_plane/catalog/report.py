"""What `outrider model build` prints of a bundle: label and text per line."""

from __future__ import annotations

from control_plane.catalog.build import BuiltBundle
from protocol import wording
from protocol.identifiers import Digest, short
from protocol.members import TensorSpec
from protocol.profile import Profile

_TYPES = {"FP16": "float16", "FP32": "float32", "FP64": "float64"}


def report(built: BuiltBundle) -> tuple[tuple[str, str], ...]:
    profile = built.profile
    empty = built.card.empty_fields()
    missing = f"empty: {', '.join(empty)}" if empty else "complete"
    if len(empty) == 1:
        missing += " (a policy may ask for it)"
    lines = [
        (
            "checks",
            f"ONNX ok, opset {built.opset} (onnxruntime >= {built.needs.onnxruntime}), "
            "no custom ops",
        ),
        ("contract", contract_text(built)),
        (
            "profile",
            f"{_monitored(profile)}, {profile.rows:,} rows      "
            f"golden {built.golden} vectors, reproduced twice",
        ),
        ("card", missing),
    ]
    if built.policy.dev is not None:
        lines.append(("policy", "DEV INTERVALS: not for production"))
    wrote = (
        f"{built.directory.name}  sha256-{short(built.digest)}  {wording.size(built.size_bytes)}"
    )
    return (*lines, ("wrote", wrote))


def profile_report(
    profile: Profile, file: str, digest: Digest, size: int
) -> tuple[tuple[str, str], ...]:
    """What `outrider profile build` prints."""
    window = f"{wording.duration(profile.window_s)}, at least {profile.window_rows:,} rows"
    return (
        ("profile", f"{_monitored(profile)}, {profile.rows:,} rows"),
        ("residual", _residual(profile)),
        ("answers", _answers(profile)),
        ("window", window),
        ("wrote", f"{file}  sha256-{short(digest)}  {wording.size(size)}"),
    )


def _monitored(profile: Profile) -> str:
    return f"{len(profile.features):,} features" if profile.features else "answers only"


def _residual(profile: Profile) -> str:
    if profile.residual is None:
        return "none"
    projected = [each.basis for each in profile.watched if each.basis is not None]
    basis = profile.residual.basis or projected[0]
    return f"of {len(basis.components)} components over {len(basis.centre):,} columns"


def _answers(profile: Profile) -> str:
    """ "confidence, 10 classes, calibration of 12 knots, accuracy .962"."""
    parts = []
    if profile.confidence:
        parts.append("confidence")
    if profile.classes:
        parts.append(f"{len(profile.classes):,} classes")
    if profile.score is not None:
        parts.append(f"score {profile.score.name}")
    if profile.calibration:
        parts.append(f"calibration of {len(profile.calibration)} knots")
    if profile.accuracy is not None:
        parts.append(f"accuracy {profile.accuracy:.3f}".replace(" 0.", " ."))
    return ", ".join(parts) or "none"


def contract_text(built: BuiltBundle) -> str:
    """ "pixels float32[-1,64] in 0..16 -> label int64[-1]"."""
    inputs = ", ".join(tensor_text(spec) for spec in built.contract.inputs)
    outputs = ", ".join(tensor_text(spec) for spec in built.contract.outputs)
    return f"{inputs} -> {outputs}"


def tensor_text(spec: TensorSpec) -> str:
    kind = _TYPES.get(spec.datatype, spec.datatype.lower())
    text = f"{spec.name} {kind}[{','.join(map(str, spec.shape))}]"
    if spec.minimum is not None and spec.maximum is not None:
        text += f" in {spec.minimum:.6g}..{spec.maximum:.6g}"
    return text
