"""From an ONNX file and sample rows to a bundle. Reads no clock: equal inputs, equal bytes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from control_plane.catalog import layout
from control_plane.catalog.card import CardFields, make_card
from control_plane.catalog.golden import VECTORS, golden, pick
from control_plane.catalog.inspect import Inspected, inspect
from control_plane.catalog.lineage import file_source
from control_plane.catalog.lints import Lint
from control_plane.catalog.measured import Measured, Monitoring, Outputs, Samples, measure
from control_plane.catalog.policy import Completed, checked
from control_plane.catalog.profile import COMMON, common_rows
from control_plane.catalog.samples import fixed_batch
from control_plane.catalog.session import Session
from control_plane.catalog.weights import move_out
from protocol.bundle import (
    Index,
    Member,
    Needs,
    Variant,
    VariantReference,
    encode_index,
    encode_manifest,
    release,
)
from protocol.codec import encode
from protocol.errors import InvalidRequest
from protocol.identifiers import Digest, ModelName, Version, digest_of, model_version
from protocol.members import Card, Contract, DevPolicy, Policy, Profile, pretty
from protocol.payload import MAX_PAYLOAD

_NAMES: Final = {
    "config": "config.json",
    "model": "model.onnx",
    "contract": "contract.json",
    "golden": "golden.safetensors",
    "profile": "profile.json",
    "policy": "policy.json",
    "card": "card.json",
}
_MOVED_OUT: Final = "weights.bin"


@dataclass(frozen=True, slots=True)
class BuiltBundle:
    """What was written, and what the builder should read before it is pushed."""

    directory: Path
    model: str
    version: str
    digest: Digest
    """Of the index: the identity of the model version."""
    manifest: Digest
    size_bytes: int
    opset: int
    needs: Needs
    contract: Contract
    profile: Profile
    golden: int
    """Number of golden vectors."""
    card: Card
    policy: Policy
    lints: tuple[Lint, ...] = ()
    """What to look at in the samples."""

    @property
    def reference(self) -> str:
        return f"{self.model}/{self.version}"


def build(
    onnx_path: Path,
    samples: Samples,
    reference: str,
    *,
    into: Path | None = None,
    card: CardFields | None = None,
    policy: Policy | Completed | None = None,
    dev: bool = False,
    needs: Needs | None = None,
    outputs: Outputs | None = None,
    monitoring: Monitoring | None = None,
    limit: int = MAX_PAYLOAD,
) -> BuiltBundle:
    """Check a model and write `<into>/<model>-<version>.bundle/` (`into`: the current folder).

    `samples` are rows that the model will meet, one array [rows, ...] per input, or a table.
    `monitoring` says what drift is measured against. `dev` adds the intervals of development
    fleets. `needs.onnxruntime` is raised to what the model needs.

    Raises `InvalidRequest`: OUT-S120 (reference, roles, names), OUT-B1xx as `inspect`, `measure`
    and `golden` say.
    """
    model, version = _reference(reference)
    needs = needs or Needs()
    inspected = inspect(onnx_path, target=needs.onnxruntime, limit=limit)
    needs = _at_least(needs, inspected.onnxruntime)
    directory = (into or Path()) / f"{model}-{version}.bundle"
    with tempfile.TemporaryDirectory(prefix="outrider-build-") as folder:
        # What is run here is what ships: renamed members included.
        staged = _stage(Path(folder), inspected)
        measured = measure(
            staged, inspected, samples, outputs or Outputs(), monitoring or Monitoring()
        )
        vectors, count, lints = _golden(staged, inspected, measured)
        promised = _promised(policy or Policy(), measured)
        if dev:
            promised = replace(promised, dev=DevPolicy())
        described = make_card(
            model,
            version,
            measured.profile.rows,
            card or CardFields(),
            f"onnx opset {inspected.opset}",
        )
        documents = {
            "contract": pretty(measured.contract),
            "golden": vectors,
            "profile": pretty(measured.profile),
            "policy": pretty(promised),
            "card": pretty(described),
        }
        files = [_file("model", _NAMES["model"], staged)]
        files += [_file("weights", name, staged.parent / name) for name in _weights(staged)]
        files += [_file(role, _NAMES[role], data) for role, data in documents.items()]
        layers = [member for member, _ in files]
        files.insert(0, _file("config", _NAMES["config"], _config(model, version, layers, card)))
        written = _write(directory, model, version, files, needs)
    return BuiltBundle(
        written.directory,
        model,
        version,
        written.digest,
        written.index.variants[0].digest,
        written.size,
        inspected.opset,
        needs,
        measured.contract,
        measured.profile,
        count,
        described,
        promised,
        (*measured.lints, *lints),
    )


def _golden(
    model: Path, inspected: Inspected, measured: Measured
) -> tuple[bytes, int, tuple[Lint, ...]]:
    """`(file of golden vectors, how many, what to look at)`."""
    contract = measured.contract
    # Devices run the vectors in one batch, so a model of a fixed batch has exactly that many.
    fixed = fixed_batch(inspected.inputs)
    # Every device gets them, so words that the profile would not name are not in them either.
    among = np.flatnonzero(common_rows(measured.inputs))
    lints: tuple[Lint, ...] = ()
    if len(among) < (fixed or 1):
        among = np.arange(len(next(iter(measured.inputs.values()))))
        text = f"every device gets texts that are in fewer than {COMMON} rows"
        lints = (Lint("golden-words", "", text),)
    answers = {name: array[among] for name, array in measured.answers.items()}
    chosen = among[pick(contract, answers, fixed or VECTORS)]
    if fixed and len(chosen) < fixed:
        raise InvalidRequest("OUT-B108", f"{len(chosen)} rows, the model takes {fixed} at once")
    rows = {name: array[chosen] for name, array in measured.inputs.items()}
    file = golden(contract, rows, lambda: Session(model), inspected.random)
    return file, len(chosen), lints


def _promised(policy: Policy | Completed, measured: Measured) -> Policy:
    """Raises `InvalidRequest` OUT-S120 for rules that do not fit what was measured."""
    if isinstance(policy, Policy):
        return checked(policy, measured.contract, measured.profile)
    return policy(measured.contract, measured.profile)


def _reference(reference: str) -> tuple[str, str]:
    try:
        return model_version(reference)
    except ValueError as error:
        raise InvalidRequest("OUT-S120", str(error)) from error


def _at_least(needs: Needs, runtime: str) -> Needs:
    return replace(needs, onnxruntime=max(needs.onnxruntime, runtime, key=release))


def _stage(folder: Path, inspected: Inspected) -> Path:
    model = folder / _NAMES["model"]
    for name, file in inspected.weights:
        shutil.copyfile(file, folder / name)
    data, name = inspected.data, _MOVED_OUT
    while (folder / name).exists():
        name = f"more-{name}"
    if moved := move_out(data, name):
        data, weights = moved
        (folder / name).write_bytes(weights)
    model.write_bytes(data)
    return model


def _weights(model: Path) -> list[str]:
    """Names of the files beside a staged model."""
    return sorted(file.name for file in model.parent.iterdir() if file != model)


def _file(role: str, name: str, content: bytes | Path) -> tuple[Member, bytes | Path]:
    if isinstance(content, bytes):
        return Member(role, name, digest_of(content), len(content)), content
    size = content.stat().st_size
    return Member(role, name, file_source(content).digest, size), content


def _write(
    directory: Path,
    model: ModelName,
    version: Version,
    files: Sequence[tuple[Member, bytes | Path]],
    needs: Needs,
) -> layout.Layout:
    manifest = encode_manifest(Variant(tuple(member for member, _ in files)))
    reference = VariantReference(digest_of(manifest), len(manifest), needs)
    blobs = {member.digest: content for member, content in files}
    blobs[reference.digest] = manifest
    return layout.write(directory, encode_index(Index(model, version, (reference,))), blobs)


def _config(
    model: ModelName, version: Version, layers: Sequence[Member], card: CardFields | None
) -> bytes:
    """The CNCF ModelPack configuration; everything of ours is in members and annotations."""
    descriptor = {"name": model, "version": version}
    if card and card.created:
        descriptor["createdAt"] = card.created
    identities = [member.digest.replace("-", ":", 1) for member in layers]
    return encode(
        {
            "descriptor": descriptor,
            "config": {"format": "onnx"},
            "modelfs": {"type": "layers", "diffIds": identities},
        }
    )
