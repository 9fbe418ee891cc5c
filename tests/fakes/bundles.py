"""Complete small bundles on disk, as an agent finds them after Stage.

The model is a linear layer and a softmax over `pixels`: small enough to build in a test, real
enough for golden vectors, confidence, classes and drift.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from protocol import codec
from protocol.bundle import (
    Index,
    Member,
    Needs,
    Variant,
    VariantReference,
    encode_index,
    encode_manifest,
)
from protocol.identifiers import Digest, digest_of
from protocol.members import Card, Contract, Feature, Policy, Profile, TensorSpec, pretty
from protocol.safetensors import build

GOLDEN_ROWS = 8
EDGES = (-1.0, -0.5, 0.0, 0.5, 1.0)

Weights = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class BundleOnDisk:
    """A bundle at `path`, and everything a test may want to know of it."""

    path: Path
    model: str
    version: str
    digest: Digest
    manifest: Digest
    index: Index
    variant: Variant
    contract: Contract
    profile: Profile
    policy: Policy
    weights: Weights

    @property
    def profile_digest(self) -> Digest:
        return self.variant.member("profile").digest


def make_bundle(
    directory: Path,
    model: str = "toy",
    version: str = "v1",
    weights_seed: int = 0,
    *,
    features: int = 4,
    classes: tuple[str, ...] = ("a", "b", "c"),
    scale: float = 1.0,
    opset: int = 17,
    fragile: bool = False,
    hangs: bool = False,
    hungry: bool = False,
    raving: bool = False,
    ballast: int = 0,
    golden_offset: float = 0.0,
    damage: Callable[[bytes], bytes] = lambda onnx_file: onnx_file,
    profile: Profile | None = None,
    policy: Policy | None = None,
    needs: Needs | None = None,
    card: Card | None = None,
) -> BundleOnDisk:
    """Write a bundle to `directory/<index digest>`; equal arguments give equal bytes.

    `scale` multiplies the weights: large ones make a confident model, 0 an indifferent one.
    `golden_offset` is added to the golden probabilities, so that the probe fails. `damage` maps
    the ONNX file to the one that is written (and signed). A `fragile` model fails on requests
    whose first value is 10 or more, one that `hangs` works on them for an hour, a `hungry` one
    asks for 8 GiB then, and a `raving` one answers NaN. `ballast` is the side of a square matrix
    that changes no answer and lies in a file of its own, as weights do.
    """
    weights = _weights(weights_seed, features, len(classes), scale)
    contract = Contract(
        inputs=(TensorSpec("pixels", "FP32", (-1, features)),),
        outputs=(
            TensorSpec("label", "INT64", (-1,), role="label"),
            TensorSpec("probabilities", "FP32", (-1, len(classes)), role="probabilities"),
        ),
        classes=classes,
    )
    profile = profile or reference_profile(features, len(classes))
    policy = policy or Policy()
    files = {
        "config": ("config.json", codec.encode({"descriptor": {"name": model}})),
        "model": (
            "model.onnx",
            damage(
                _onnx(
                    weights,
                    opset=opset,
                    fragile=fragile,
                    hangs=hangs,
                    hungry=hungry,
                    raving=raving,
                    ballast=ballast,
                )
            ),
        ),
        "contract": ("contract.json", pretty(contract)),
        "golden": ("golden.safetensors", _golden(weights, golden_offset)),
        "profile": ("profile.json", pretty(profile)),
        "policy": ("policy.json", pretty(policy)),
        "card": ("card.json", pretty(card or Card(model=model, version=version))),
    }
    if ballast:
        files["weights"] = ("weights.bin", _ballast(ballast).tobytes())
    variant = Variant(
        tuple(
            Member(role, name, digest_of(data), len(data)) for role, (name, data) in files.items()
        )
    )
    manifest = encode_manifest(variant)
    index = Index(
        model, version, (VariantReference(digest_of(manifest), len(manifest), needs or Needs()),)
    )
    index_bytes = encode_index(index)
    path = directory / digest_of(index_bytes)
    path.mkdir(parents=True, exist_ok=True)
    for name, data in [
        *files.values(),
        ("manifest.json", manifest),
        ("index.json", index_bytes),
    ]:
        (path / name).write_bytes(data)
    return BundleOnDisk(
        path,
        model,
        version,
        digest_of(index_bytes),
        digest_of(manifest),
        index,
        variant,
        contract,
        profile,
        policy,
        weights,
    )


def reference_profile(features: int, classes: int, rows: int = 600) -> Profile:
    """Counts spread evenly over the inner bins of `EDGES`."""
    inner = len(EDGES) - 1
    counts = (0, *(rows // inner for _ in range(inner)), 0, 0, 0)
    return Profile(
        rows=rows,
        features=tuple(Feature(f"pixels_{n}", EDGES, counts) for n in range(features)),
        confidence=(rows // 20,) * 20,
        classes=(rows // classes,) * classes,
    )


def expected(weights: Weights, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities that the model gives for rows [n, features]: what numpy makes of it."""
    matrix, bias = weights
    logits = rows @ matrix + bias
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def _weights(seed: int, features: int, classes: int, scale: float) -> Weights:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(features, classes)) * scale
    bias = rng.normal(size=classes) * scale
    return matrix.astype(np.float32), bias.astype(np.float32)


def _golden(weights: Weights, offset: float) -> bytes:
    rows = np.random.default_rng(1).normal(size=(GOLDEN_ROWS, len(weights[0]))).astype(np.float32)
    probabilities = expected(weights, rows)
    label = probabilities.argmax(axis=1).astype(np.int64)
    shown = (probabilities + np.float32(offset)).astype(np.float32)
    return build(
        {
            "input:pixels": ("FP32", rows.shape, rows.tobytes()),
            "output:label": ("INT64", label.shape, label.tobytes()),
            "output:probabilities": ("FP32", shown.shape, shown.tobytes()),
        }
    )


def _ballast(side: int) -> NDArray[np.float32]:
    return np.random.default_rng(7).normal(size=(side, side)).astype(np.float32)


def _onnx(
    weights: Weights,
    *,
    opset: int,
    fragile: bool,
    hangs: bool,
    hungry: bool,
    raving: bool,
    ballast: int,
) -> bytes:
    matrix, bias = weights
    classes = len(bias)
    constants = {"matrix": matrix, "bias": bias}
    nodes = [helper.make_node("Gemm", ["pixels", "matrix", "bias"], ["logits"])]
    logits = "logits"
    if fragile:
        # A table of ten rows of zeros, looked up at the first value: 10 is out of range.
        constants |= {
            "table": np.zeros((10, classes), np.float32),
            "first": np.array(0, np.int64),
        }
        nodes += [
            helper.make_node("Gather", ["pixels", "first"], ["column"], axis=1),
            helper.make_node("Abs", ["column"], ["magnitude"]),
            helper.make_node("Cast", ["magnitude"], ["place"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "place"], ["nothing"], axis=0),
            helper.make_node("Add", ["logits", "nothing"], ["checked"]),
        ]
        logits = "checked"
    if hangs:
        # So many turns of a loop that does nothing; none for a first value below 10.
        constants |= {
            "corner": np.zeros(2, np.int64),
            "tenth": np.array(0.1, np.float32),
            "turns": np.array(10**11, np.int64),
            "again": np.array(True),
        }
        nodes += [
            helper.make_node("GatherND", ["pixels", "corner"], ["value"]),
            helper.make_node("Mul", ["value", "tenth"], ["share"]),
            helper.make_node("Cast", ["share"], ["times"], to=TensorProto.INT64),
            helper.make_node("Mul", ["times", "turns"], ["count"]),
            helper.make_node("Loop", ["count", "again", logits], ["late"], body=_idle_loop()),
        ]
        logits = "late"
    if hungry:
        # So many zeros, of which the sum is added; none for a first value below 10.
        constants |= {
            "place": np.zeros(2, np.int64),
            "part": np.array(0.1, np.float32),
            "zeros": np.array([2**31], np.int64),
        }
        nodes += [
            helper.make_node("GatherND", ["pixels", "place"], ["asked"]),
            helper.make_node("Abs", ["asked"], ["magnitude_asked"]),
            helper.make_node("Mul", ["magnitude_asked", "part"], ["asked_share"]),
            helper.make_node("Cast", ["asked_share"], ["asked_times"], to=TensorProto.INT64),
            helper.make_node("Mul", ["asked_times", "zeros"], ["asked_count"]),
            helper.make_node("ConstantOfShape", ["asked_count"], ["heap"]),
            helper.make_node("ReduceSum", ["heap"], ["nothing_at_all"], keepdims=0),
            helper.make_node("Add", [logits, "nothing_at_all"], ["fed"]),
        ]
        logits = "fed"
    if raving:
        # The root of what is below zero, for a first value above 10, times nothing.
        constants |= {
            "ten": np.array(10, np.float32),
            "naught": np.array(0, np.float32),
            "front": np.array([0], np.int64),
        }
        nodes += [
            helper.make_node("Gather", ["pixels", "front"], ["reason"], axis=1),
            helper.make_node("Sub", ["ten", "reason"], ["below"]),
            helper.make_node("Sqrt", ["below"], ["root"]),
            helper.make_node("Mul", ["root", "naught"], ["madness"]),
            helper.make_node("Add", [logits, "madness"], ["raved"]),
        ]
        logits = "raved"
    if ballast:
        constants |= {
            "wide": np.full((len(matrix), ballast), 0.01, np.float32),
            "narrow": np.full((ballast, classes), 0.01, np.float32),
            "nil": np.array(0, np.float32),
        }
        nodes += [
            helper.make_node("MatMul", ["pixels", "wide"], ["widened"]),
            helper.make_node("MatMul", ["widened", "ballast"], ["carried"]),
            helper.make_node("Relu", ["carried"], ["bent"]),
            helper.make_node("MatMul", ["bent", "narrow"], ["narrowed"]),
            helper.make_node("Mul", ["narrowed", "nil"], ["weightless"]),
            helper.make_node("Add", [logits, "weightless"], ["laden"]),
        ]
        logits = "laden"
    nodes += [
        helper.make_node("Softmax", [logits], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", len(matrix)])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", classes]),
        ],
        [
            *(numpy_helper.from_array(array, name) for name, array in constants.items()),
            *([_outside("ballast", (ballast, ballast), "weights.bin")] if ballast else []),
        ],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    proto.ir_version = min(proto.ir_version, 8)
    return bytes(onnx.ModelProto.SerializeToString(proto, deterministic=True))


def _outside(name: str, shape: tuple[int, int], file: str) -> onnx.TensorProto:
    """A float32 tensor whose data lies in a file of its own."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", file), ("offset", "0"), ("length", str(4 * math.prod(shape)))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def _idle_loop() -> onnx.GraphProto:
    """One turn: go on, and hand on what was handed in."""
    flag, number = TensorProto.BOOL, TensorProto.INT64
    value = helper.make_tensor_value_info
    return helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["go_on_out"]),
            helper.make_node("Identity", ["state"], ["state_out"]),
        ],
        "turn",
        [
            value("turn", number, []),
            value("go_on", flag, []),
            value("state", TensorProto.FLOAT, None),
        ],
        [value("go_on_out", flag, []), value("state_out", TensorProto.FLOAT, None)],
    )
