"""What a model version is: an OCI image layout of content-addressed members.

    index (the TUF target) ─▶ manifest per variant ─▶ config, model, contract, golden, profile,
                                                      policy, card

The device takes the first manifest of the index whose `needs` hold. Everything below the index is
fetched by digest and checked by digest and size; member paths cannot leave the bundle.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from protocol import codec
from protocol.codec import MAX_INDEX, MAX_MANIFEST, decode, require_understood
from protocol.errors import NotUnderstood, PeerError
from protocol.identifiers import (
    Count,
    Digest,
    ModelName,
    Version,
    digest,
    digest_from_hex,
    model_name,
    version_name,
)
from protocol.payload import MAX_PAYLOAD

INDEX_TYPE: Final = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT_TYPE: Final = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_TYPE: Final = "application/vnd.cncf.model.config.v1+json"
WEIGHT_TYPE: Final = "application/vnd.cncf.model.weight.v1.raw"
WEIGHT_CONFIG_TYPE: Final = "application/vnd.cncf.model.weight.config.v1.raw"
DOC_TYPE: Final = "application/vnd.cncf.model.doc.v1.raw"

FILEPATH: Final = "org.cncf.model.filepath"
MODEL: Final = "dev.outrider.model"
VERSION: Final = "dev.outrider.version"
ROLE: Final = "dev.outrider.role"
NEEDS: Final = "dev.outrider.needs"
MUST_UNDERSTAND: Final = "dev.outrider.must-understand"

ROLES: Final = ("config", "model", "weights", "contract", "golden", "profile", "policy", "card")
"""What a member is for. `weights` is external data of the model; all others occur at most once."""
REQUIRED_ROLES: Final = frozenset(ROLES) - {"weights"}
ROLE_TYPES: Final = {
    "config": CONFIG_TYPE,
    "model": WEIGHT_TYPE,
    "weights": WEIGHT_TYPE,
    "contract": WEIGHT_CONFIG_TYPE,
    "golden": WEIGHT_CONFIG_TYPE,
    "profile": WEIGHT_CONFIG_TYPE,
    "policy": WEIGHT_CONFIG_TYPE,
    "card": DOC_TYPE,
}
MAX_MEMBERS: Final = 64
MAX_VARIANTS: Final = 16

_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class Needs:
    """What a device must have to run a variant. Empty or zero means "anything"."""

    arch: tuple[str, ...] = ()
    """`platform.machine()` values, for instance aarch64."""
    onnxruntime: str = ""
    """Smallest version, "1.17"."""
    ram_bytes: Count = 0
    agent: str = ""
    """Smallest agent version."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a device is: the other side of `Needs`."""

    arch: str = ""
    onnxruntime: str = ""
    ram_bytes: Count = 0
    agent: str = ""
    python: str = ""
    system: str = ""


def unfit(needs: Needs, facts: Facts) -> str | None:
    """Why a device with these facts cannot run it; None if it can."""
    if needs.arch and facts.arch not in needs.arch:
        return f"needs {' or '.join(needs.arch)}, this is {facts.arch}"
    if release(facts.onnxruntime) < release(needs.onnxruntime):
        return f"needs onnxruntime {needs.onnxruntime}, this has {facts.onnxruntime}"
    if release(facts.agent) < release(needs.agent):
        return f"needs agent {needs.agent}, this is {facts.agent}"
    if facts.ram_bytes < needs.ram_bytes:
        return f"needs {needs.ram_bytes:,} bytes of RAM, this has {facts.ram_bytes:,}"
    return None


def release(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, for comparison: "1.17.0rc1" gives (1, 17, 0)."""
    numbers = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in numbers[0].split(".")) if numbers else ()


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a variant."""

    role: str
    path: str
    digest: Digest
    size: Count

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise NotUnderstood((f"member:{self.role[:32]}",))
        if not _PATH.fullmatch(self.path):
            raise ValueError(f"a member is a plain file name, got {self.path!r:.80}")
        digest(self.digest)
        if not 0 < self.size <= MAX_PAYLOAD:
            raise ValueError(f"{self.path} has 1 to {MAX_PAYLOAD:,} bytes")


@dataclass(frozen=True, slots=True)
class Variant:
    """One manifest: the members of one form of the model."""

    members: tuple[Member, ...]

    def __post_init__(self) -> None:
        roles = [member.role for member in self.members if member.role != "weights"]
        if len(self.members) > MAX_MEMBERS or set(roles) != REQUIRED_ROLES:
            raise ValueError("a manifest has each of " + ", ".join(sorted(REQUIRED_ROLES)))
        if len(roles) != len(set(roles)):
            raise ValueError("a role other than weights occurs twice")
        if len({member.path for member in self.members}) != len(self.members):
            raise ValueError("two members have the same path")

    def member(self, role: str) -> Member:
        return next(member for member in self.members if member.role == role)

    @property
    def size(self) -> int:
        return sum(member.size for member in self.members)


@dataclass(frozen=True, slots=True)
class VariantReference:
    """An index's descriptor of one manifest."""

    digest: Digest
    size: Count
    needs: Needs = Needs()


@dataclass(frozen=True, slots=True)
class Index:
    """The document whose bytes approvers sign."""

    model: ModelName
    version: Version
    variants: tuple[VariantReference, ...]

    def __post_init__(self) -> None:
        model_name(self.model)
        version_name(self.version)
        if not 0 < len(self.variants) <= MAX_VARIANTS:
            raise ValueError(f"an index has 1 to {MAX_VARIANTS} variants")

    def choose(self, facts: Facts) -> VariantReference | None:
        """The first variant that a device with these facts can run."""
        return next((v for v in self.variants if unfit(v.needs, facts) is None), None)


def encode_index(index: Index) -> bytes:
    manifests = [
        {
            "mediaType": MANIFEST_TYPE,
            "artifactType": ARTIFACT_TYPE,
            "digest": _oci(variant.digest),
            "size": variant.size,
            "annotations": {NEEDS: codec.encode(variant.needs).decode()},
        }
        for variant in index.variants
    ]
    return codec.encode(
        {
            "schemaVersion": 2,
            "mediaType": INDEX_TYPE,
            "manifests": manifests,
            "annotations": {
                MODEL: index.model,
                VERSION: index.version,
                MUST_UNDERSTAND: "bundle/1",
            },
        }
    )


def decode_index(data: bytes) -> Index:
    """Raises `PeerError`, or `NotUnderstood` for a bundle from the future."""
    document = _oci_document(data, MAX_INDEX, INDEX_TYPE)
    with _Refusing():
        return Index(
            model=document["annotations"][MODEL],
            version=document["annotations"][VERSION],
            variants=tuple(
                VariantReference(
                    _digest(descriptor["digest"]),
                    _size(descriptor["size"], MAX_MANIFEST),
                    codec.decode(
                        descriptor.get("annotations", {}).get(NEEDS, "{}").encode(),
                        Needs,
                        limit=MAX_INDEX,
                    ),
                )
                for descriptor in document["manifests"]
            ),
        )


def encode_manifest(variant: Variant) -> bytes:
    layers = [_descriptor(member) for member in variant.members if member.role != "config"]
    return codec.encode(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": ARTIFACT_TYPE,
            "config": _descriptor(variant.member("config")),
            "layers": layers,
            "annotations": {MUST_UNDERSTAND: "bundle/1"},
        }
    )


def decode_manifest(data: bytes) -> Variant:
    """Raises `PeerError`, or `NotUnderstood` for a manifest from the future."""
    document = _oci_document(data, MAX_MANIFEST, MANIFEST_TYPE)
    with _Refusing():
        return Variant(
            tuple(
                Member(
                    descriptor["annotations"][ROLE],
                    descriptor["annotations"][FILEPATH],
                    _digest(descriptor["digest"]),
                    _size(descriptor["size"], MAX_PAYLOAD),
                )
                for descriptor in (document["config"], *document["layers"])
            )
        )


class _Refusing:
    """Turns what malformed JSON trees raise into a `PeerError`."""

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        if isinstance(error, KeyError | TypeError | ValueError | AttributeError):
            raise PeerError("OUT-B120", f"{type(error).__name__}: {error}") from error


def _oci_document(data: bytes, limit: int, media_type: str) -> dict[str, Any]:
    document = decode(data, dict[str, Any], limit=limit)
    with _Refusing():
        names = document.get("annotations", {}).get(MUST_UNDERSTAND, "")
        require_understood([name for name in names.split(",") if name])
        if document["schemaVersion"] != 2 or document["mediaType"] != media_type:
            raise ValueError(f"not an {media_type}")
    return document


def _descriptor(member: Member) -> dict[str, Any]:
    return {
        "mediaType": ROLE_TYPES[member.role],
        "digest": _oci(member.digest),
        "size": member.size,
        "annotations": {FILEPATH: member.path, ROLE: member.role},
    }


def _oci(value: Digest) -> str:
    """OCI writes `sha256:`; MQTT topics and file names cannot, so we write `sha256-`."""
    return value.replace("-", ":", 1)


def _digest(value: str) -> Digest:
    return digest_from_hex(value.removeprefix("sha256:"))


def _size(value: object, limit: int) -> int:
    if type(value) is not int or not 0 < value <= limit:
        raise ValueError(f"a size is 1 to {limit:,}")
    return value
