"""A bundle on disk: an OCI image layout, written whole or not at all, and fully checked on reading.

    oci-layout   index.json   blobs/sha256/<hex>

The bytes of index.json are those that approvers sign. Every blob is named by an index, a manifest
or a member, nothing else lies there, and every digest and size is verified.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protocol.bundle import Index, Member, Variant, decode_index, decode_manifest
from protocol.codec import MAX_BUNDLE_DOCUMENT, MAX_INDEX, MAX_MANIFEST
from protocol.errors import InvalidRequest, OutriderError, PeerError
from protocol.identifiers import Digest, digest_from_hex, digest_hex, digest_of
from protocol.members import Card, Contract, Policy, Profile, member_document
from protocol.safetensors import parse_header

MARKER: Final = "oci-layout"
INDEX: Final = "index.json"
BLOBS: Final = "blobs/sha256"
MARKER_BYTES: Final = b'{"imageLayoutVersion":"1.0.0"}'
MAX_GOLDEN: Final = 256 * 1024 * 1024
"""Bytes: what a device is willing to read at once."""

_DOCUMENTS: Final = {"contract": Contract, "profile": Profile, "policy": Policy, "card": Card}


@dataclass(frozen=True, slots=True)
class Layout:
    """A verified bundle. `digest` is that of the index: the identity of the model version."""

    directory: Path
    index: Index
    digest: Digest
    variants: tuple[Variant, ...]
    """In the order of the index."""

    def path(self, blob: Digest) -> Path:
        """The file of a manifest or member."""
        return self.directory / BLOBS / digest_hex(blob)

    @property
    def index_bytes(self) -> bytes:
        return (self.directory / INDEX).read_bytes()

    @property
    def size(self) -> int:
        """Bytes of all members, each blob once."""
        return sum({m.digest: m.size for v in self.variants for m in v.members}.values())

    def members(self) -> Iterator[Member]:
        for variant in self.variants:
            yield from variant.members

    def contract(self, variant: Variant) -> Contract:
        return member_document(self._bytes(variant, "contract"), Contract)

    def profile(self, variant: Variant) -> Profile:
        return member_document(self._bytes(variant, "profile"), Profile)

    def policy(self, variant: Variant) -> Policy:
        return member_document(self._bytes(variant, "policy"), Policy)

    def card(self, variant: Variant) -> Card:
        return member_document(self._bytes(variant, "card"), Card)

    def _bytes(self, variant: Variant, role: str) -> bytes:
        return self.path(variant.member(role).digest).read_bytes()


def write(directory: Path, index: bytes, blobs: Mapping[Digest, bytes | Path]) -> Layout:
    """Write a bundle beside `directory`, verify it, then rename it into place.

    An older bundle at that place is replaced. Raises `InvalidRequest` OUT-B120 when something
    that is not a bundle is there.
    """
    if directory.exists() and not (directory / MARKER).is_file():
        raise InvalidRequest(
            "OUT-B120",
            f"{directory.name} is in the way",
            do="move it away, or choose another place",
        )
    beside = directory.with_name(f".{directory.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    (beside / BLOBS).mkdir(parents=True)
    for blob, content in blobs.items():
        target = beside / BLOBS / digest_hex(blob)
        if isinstance(content, Path):
            shutil.copyfile(content, target)
        else:
            target.write_bytes(content)
    (beside / INDEX).write_bytes(index)
    (beside / MARKER).write_bytes(MARKER_BYTES)
    read(beside)
    shutil.rmtree(directory, ignore_errors=True)
    beside.rename(directory)
    return read(directory)


def read(directory: Path) -> Layout:
    """Read and verify everything. Raises `InvalidRequest` OUT-B120."""
    try:
        return _read(directory)
    except InvalidRequest:
        raise
    except OutriderError as error:
        raise InvalidRequest("OUT-B120", f"{error.problem.title}: {error.why}") from error
    except OSError as error:
        name = Path(error.filename).name if error.filename else directory.name
        raise InvalidRequest("OUT-B120", f"{name}: {error.strerror}") from error


def _read(directory: Path) -> Layout:
    marker = _bounded(directory / MARKER, 1024)
    try:
        if json.loads(marker)["imageLayoutVersion"] != "1.0.0":
            raise InvalidRequest("OUT-B120", "not an OCI layout of version 1.0.0")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidRequest("OUT-B120", f"{MARKER} cannot be read") from error
    data = _bounded(directory / INDEX, MAX_INDEX)
    index = decode_index(data)
    variants: list[Variant] = []
    expected: set[str] = set()
    for reference in index.variants:
        expected.add(digest_hex(reference.digest))
        path = directory / BLOBS / digest_hex(reference.digest)
        manifest = _bounded(path, MAX_MANIFEST)
        if len(manifest) != reference.size or digest_of(manifest) != reference.digest:
            raise InvalidRequest("OUT-B120", f"manifest {reference.digest[:15]} is damaged")
        variants.append(decode_manifest(manifest))
    layout = Layout(directory, index, digest_of(data), tuple(variants))
    checked: set[tuple[str, Digest]] = set()
    for member in layout.members():
        expected.add(digest_hex(member.digest))
        if (member.role, member.digest) not in checked:
            _check_member(layout, member)
            checked.add((member.role, member.digest))
    extra = {path.name for path in (directory / BLOBS).iterdir()} - expected
    if extra:
        raise InvalidRequest("OUT-B120", f"blob {min(extra)[:80]} belongs to nothing")
    return layout


def _check_member(layout: Layout, member: Member) -> None:
    path = layout.path(member.digest)
    if not path.is_file() or path.is_symlink():
        raise InvalidRequest("OUT-B120", f"{member.path} is not there")
    if path.stat().st_size != member.size:
        raise InvalidRequest("OUT-B120", f"{member.path} has another size than its manifest says")
    with path.open("rb") as file:
        found = digest_from_hex(hashlib.file_digest(file, "sha256").hexdigest())
    if found != member.digest:
        raise InvalidRequest("OUT-B120", f"{member.path} is damaged")
    if member.role in _DOCUMENTS:
        try:
            member_document(_bounded(path, MAX_BUNDLE_DOCUMENT), _DOCUMENTS[member.role])
        except PeerError as error:
            raise InvalidRequest("OUT-B120", f"{member.path}: {error.why}") from error
    elif member.role == "golden":
        parse_header(_bounded(path, MAX_GOLDEN))


def _bounded(path: Path, limit: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise InvalidRequest("OUT-B120", f"{path.name[:80]} has more than {limit:,} bytes")
    return data
