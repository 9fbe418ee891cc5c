"""The members of a bundle on disk that a runner needs. The supervisor has checked their digests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from edge_agent.runner.binary import NUMPY_TYPES, Array
from protocol.bundle import Index, Variant, decode_index, decode_manifest
from protocol.codec import MAX_BUNDLE_DOCUMENT
from protocol.errors import PeerError
from protocol.members import Contract, Policy, Profile, member_document
from protocol.rules import check_rules
from protocol.safetensors import parse_header

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
        check_rules(policy.rules, contract, [feature.name for feature in profile.features])
    return Bundle(path, index, variant, contract, profile, policy)


def read_golden(bundle: Bundle) -> Golden:
    """Raises `PeerError` unless there is one tensor for each input and output of the contract."""
    data = _bounded(bundle.file("golden"), MAX_GOLDEN)
    arrays = {
        name: np.frombuffer(data[view.start : view.stop], NUMPY_TYPES[view.datatype]).reshape(
            view.shape
        )
        for name, view in parse_header(data).items()
    }
    sides: dict[str, dict[str, Array]] = {"input": {}, "output": {}}
    for side, specs in (("input", bundle.contract.inputs), ("output", bundle.contract.outputs)):
        for spec in specs:
            array = arrays.get(f"{side}:{spec.name}")
            if array is None or array.dtype != NUMPY_TYPES.get(spec.datatype, np.object_):
                raise PeerError("OUT-B121", f"no golden {spec.datatype} for {side} {spec.name}")
            sides[side][spec.name] = array
    return Golden(sides["input"], sides["output"])


def _check_profile(contract: Contract, profile: Profile) -> None:
    if not profile.features:
        return
    first = contract.inputs[0]
    columns = first.shape[1:] if len(first.shape) > 1 else (1,)
    if first.datatype == "BYTES" or -1 in columns or prod(columns) != len(profile.features):
        raise ValueError(
            f"the profile has {len(profile.features)} features, {first.name} is "
            f"{first.datatype} {list(first.shape)}"
        )


def _bounded(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise PeerError("OUT-B120", f"{path.name} has more than {limit:,} bytes")
    return data
