"""Bundles of plain bytes, and what the control plane retains for them: index to frames."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from control_plane.encode import Encoded, encode
from protocol import codec
from protocol.approval import ApprovedBundle
from protocol.bundle import (
    REQUIRED_ROLES,
    Index,
    Member,
    Needs,
    Variant,
    VariantReference,
    encode_index,
    encode_manifest,
)
from protocol.identifiers import Digest, digest_of
from protocol.payload import Hint
from protocol.topics import Topics


@dataclass(frozen=True, slots=True)
class PlainBundle:
    """A bundle of arbitrary bytes: right in form, though no runner would load it."""

    path: Path
    model: str
    digest: Digest
    manifest: Digest
    variant: Variant

    @property
    def approved(self) -> ApprovedBundle:
        return ApprovedBundle(self.model, "v1", self.digest)

    @property
    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.path.iterdir()}


def plain_bundle(
    bundles: Path,
    model: str = "toy",
    *,
    onnx: bytes = b"",
    seed: int = 0,
    needs: Needs = Needs(),
    version: str = "v1",
) -> PlainBundle:
    """Write `<bundles>/<index digest>`; members other than the model depend on `version` only."""
    contents = {role: f"{role} of {version}".encode() for role in sorted(REQUIRED_ROLES)}
    contents["model"] = onnx or random.Random(seed).randbytes(500_000)
    names = {role: "model.onnx" if role == "model" else role for role in contents}
    members = (Member(r, names[r], digest_of(c), len(c)) for r, c in contents.items())
    variant = Variant(tuple(members))
    manifest = encode_manifest(variant)
    reference = VariantReference(digest_of(manifest), len(manifest), needs)
    index = encode_index(Index(model, version, (reference,)))
    path = bundles / digest_of(index)
    path.mkdir(parents=True)
    for role, content in contents.items():
        (path / names[role]).write_bytes(content)
    (path / "manifest.json").write_bytes(manifest)
    (path / "index.json").write_bytes(index)
    return PlainBundle(path, model, digest_of(index), digest_of(manifest), variant)


@dataclass(frozen=True, slots=True)
class Offer:
    """What is retained for one bundle, and under which topics."""

    bundle: PlainBundle
    payloads: dict[str, Encoded]
    """By member path."""
    topics: Topics

    def retained(self) -> dict[str, bytes]:
        files, model = self.bundle.files, self.bundle.model
        kept = {
            self.topics.manifest(model, self.bundle.digest): files["index.json"],
            self.topics.manifest(model, self.bundle.manifest): files["manifest.json"],
        }
        for member in self.bundle.variant.members:
            encoded = self.payloads[member.path]
            kept[self.hint(member.path)] = codec.encode(Hint((encoded.entry,)))
            kept |= self.lists(encoded) | self.frames(encoded)
        return kept

    def hint(self, path: str) -> str:
        member = next(m for m in self.bundle.variant.members if m.path == path)
        return self.topics.hint(self.bundle.model, member.digest)

    def lists(self, encoded: Encoded) -> dict[str, bytes]:
        payload = encoded.entry.payload
        return {
            self.topics.frame_list(self.bundle.model, payload, n): encoded.frame_list(n)
            for n in range(encoded.list_count)
        }

    def frames(self, encoded: Encoded) -> dict[str, bytes]:
        payload = encoded.entry.payload
        return {
            self.topics.frame(self.bundle.model, payload, n): encoded.frame(n)
            for n in range(encoded.entry.frames)
        }


def offer(bundle: PlainBundle, payloads: Path, topics: Topics = Topics("local")) -> Offer:
    members = bundle.variant.members
    return Offer(
        bundle,
        {m.path: encode(bundle.path / m.path, m.digest, payloads) for m in members},
        topics,
    )
