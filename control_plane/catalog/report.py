"""What `outrider model build` prints of a bundle: label and text per line."""

from __future__ import annotations

from control_plane.catalog.build import BuiltBundle
from protocol import wording
from protocol.identifiers import short
from protocol.members import TensorSpec

_TYPES = {"FP16": "float16", "FP32": "float32", "FP64": "float64"}


def report(built: BuiltBundle) -> tuple[tuple[str, str], ...]:
    profile = built.profile
    drift = f"{len(profile.features):,} features" if profile.features else "answers only"
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
            f"{drift}, {profile.rows:,} rows      golden {built.golden} vectors, reproduced twice",
        ),
        ("card", missing),
    ]
    if built.policy.dev is not None:
        lines.append(("policy", "DEV INTERVALS: not for production"))
    wrote = (
        f"{built.directory.name}  sha256-{short(built.digest)}  {wording.size(built.size_bytes)}"
    )
    return (*lines, ("wrote", wrote))


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
