"""How files travel: their encodings, having them made, and what sending them has cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Response

from control_plane.deltas import travelling
from control_plane.store.bundles import BundleRow
from control_plane.web.idempotency import Repeatable
from control_plane.web.lookup import bundle_of, known_model
from control_plane.web.operations import Operation, shown
from control_plane.web.parts import Here, Parts
from control_plane.web.permissions import needs
from control_plane.web.work import Tell
from protocol.bundle import Member, decode_manifest
from protocol.errors import Unavailable
from protocol.identifiers import Digest
from protocol.payload import names_of

router = APIRouter(tags=["models"], route_class=Repeatable)

MOST_VERSIONS: Final = 200
"""Newest versions that are looked through for what a file is and who has it."""


@dataclass(frozen=True, slots=True)
class Payload:
    """One encoding of one file. `published_bytes` have left for the broker since the control plane
    started: frames and their lists, whatever the number of devices that fetch them.
    `served_bytes` were sent to devices over HTTP."""

    model: str
    file: Digest
    role: str
    """Of the file in its bundles; empty if none of them is here any more."""
    payload: Digest
    base: Digest | None
    """The file that a device must have: this payload says what is different."""
    versions: list[str]
    """That have the base, newest first."""
    features: list[str]
    """What a device must be able to decode, as it reports it."""
    frames: int
    size_bytes: int
    published_bytes: int
    served_bytes: int


@dataclass(frozen=True, slots=True)
class Payloads:
    items: list[Payload]


@router.get(
    "/models/{model}/payloads",
    summary="Payloads of a model, and bytes published",
    dependencies=[needs("read")],
)
def list_payloads(model: str, parts: Here) -> Payloads:
    known_model(parts, model)
    published, served = parts.origin_bytes(), parts.serving.bytes()
    roles: dict[Digest, str] = {}
    versions: dict[Digest, dict[str, None]] = {}
    for row in parts.store.bundles.page(model, None, MOST_VERSIONS).items:
        for member in _members(parts, row):
            roles.setdefault(member.digest, member.role)
            versions.setdefault(member.digest, {})[row.version] = None
    return Payloads(
        [
            Payload(
                each.model,
                each.file,
                roles.get(each.file, ""),
                each.entry.payload,
                each.entry.base,
                list(versions.get(each.entry.base, ())) if each.entry.base else [],
                list(names_of(each.entry.features)),
                each.entry.frames,
                each.entry.size,
                published.get(each.entry.payload, 0),
                served.get(each.entry.payload, 0),
            )
            for each in parts.store.payloads.of_model(model)
        ]
    )


@router.post(
    "/models/{model}/versions/{version}/payloads",
    summary="Make payloads of a version that are missing",
    status_code=202,
    dependencies=[needs("operate")],
)
def make_payloads(model: str, version: str, parts: Here, response: Response) -> Operation:
    """For what devices have on their disks and can decode, as they say now; a push does the same,
    and so does the control plane by itself for what is being rolled out. Follow the operation."""
    row = bundle_of(parts, f"{model}/{version}")

    def task(tell: Tell) -> Mapping[str, Any]:
        try:
            made = parts.deltas.make(parts.deltas.of(row.digest), tell)
            received = travelling(parts.store, parts.blobs.read, row.digest)
        except KeyError as missing:
            raise Unavailable("OUT-F101", f"{missing.args[0]:.80} is not here") from missing
        parts.wake()
        return {"reference": row.reference, "made": made, "payloads": received}

    about = {"model": row.model, "version": row.version, "digest": row.digest}
    operation = parts.work.start("encode", about, task)
    place = f"/v1/fleets/{parts.settings.fleet}/operations/{operation.id}"
    response.headers["Location"] = place
    return shown(operation)


def _members(parts: Parts, row: BundleRow) -> Iterable[Member]:
    """Of all variants, as far as their manifests are here."""
    for variant in row.manifests:
        if parts.blobs.has(variant.digest):
            yield from decode_manifest(parts.blobs.read(variant.digest)).members
