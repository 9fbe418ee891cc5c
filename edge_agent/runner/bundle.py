"""The members of a bundle on disk that a runner needs. The supervisor has checked their digests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_agent.runner.binary import NUMPY_TYPES, Array, from_binary
from edge_agent.watch.columns import Columns
from protocol.bundle import Index, Variant, decode_index, decode_manifest
from protocol.codec import MAX_BUNDLE_DOCUMENT
from protocol.errors import InvalidRequest, PeerError
from protocol.members import Contract, Policy, Profile, TensorSpec, member_document
from protocol.rules import check_rules
from protocol.safetensors import TensorView, parse_header

MAX_GOLDEN = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Bundle:
    path: Path
    index: Index
    variant: Variant
    contract: Contract
    profile: Profile
    policy: Policy

    def file(self, role: str) -> Path:
        return self.path / self.variant.member(role).path

    @property
    def weights_bytes(self) -> int:
        """Size of the external data, 0 for a model in one file."""
        return sum(member.size for member in self.variant.members if member.role == "weights")


@dataclass(frozen=True, slots=True)
class Golden:
    """Inputs and the outputs that they gave where the bundle was built."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]


def read_bundle(path: Path) -> Bundle:
    """Raises `PeerError`, `OSError`; `ValueError` for a profile or rules that do not fit the
    contract."""
    index = decode_index(_bounded(path / "index.json", MAX_BUNDLE_DOCUMENT))
    variant = decode_manifest(_bounded(path / "manifest.json", MAX_BUNDLE_DOCUMENT))
    documents = {
        role: _bounded(path / variant.member(role).path, MAX_BUNDLE_DOCUMENT)
        for role in ("contract", "profile", "policy")
    }
    contract = member_document(documents["contract"], Contract)
    profile = member_document(documents["profile"], Profile)
    policy = member_document(documents["policy"], Policy)
    _check_profile(contract, profile)
    if policy.rules is not None:
        # When the bundle is loaded, not when they are needed.
        check_rules(policy.rules, contract, profile.columns)
    return Bundle(path, index, variant, contract, profile, policy)


def read_golden(bundle: Bundle) -> Golden:
    """Raises `PeerError` unless there is one tensor for each input and output of the contract."""
    data = _bounded(bundle.file("golden"), MAX_GOLDEN)
    arrays = {name: _array(name, view, data) for name, view in parse_header(data).items()}
    sides: dict[str, dict[str, Array]] = {"input": {}, "output": {}}
    for side, specs in (("input", bundle.contract.inputs), ("output", bundle.contract.outputs)):
        for spec in specs:
            array = arrays.get(f"{side}:{spec.name}")
            if array is None or array.dtype != NUMPY_TYPES.get(spec.datatype, np.object_):
                raise PeerError("OUT-B121", f"no golden {spec.datatype} for {side} {spec.name}")
            sides[side][spec.name] = array
    return Golden(sides["input"], sides["output"])


def _array(name: str, view: TensorView, data: bytes) -> Array:
    raw = data[view.start : view.stop]
    if view.datatype != "BYTES":
        return np.frombuffer(raw, NUMPY_TYPES[view.datatype]).reshape(view.shape)
    try:
        return from_binary(TensorSpec(name[:80], view.datatype, view.shape), memoryview(raw))
    except InvalidRequest as error:
        raise PeerError("OUT-B121", error.why) from error


def _check_profile(contract: Contract, profile: Profile) -> None:
    Columns(contract, profile)
    score = contract.output("score")
    if profile.score is not None and (score is None or score.datatype == "BYTES"):
        raise ValueError("the profile has a score, the contract no output that is one")


def _bounded(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise PeerError("OUT-B120", f"{path.name} has more than {limit:,} bytes")
    return data
