"""What devices have reported and the store holds: counts, which are sums over stored records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query

from control_plane.store.record_queries import RecordQueries
from control_plane.web.lookup import bundle_of, bundles, device_of
from control_plane.web.parts import Here
from control_plane.web.permissions import needs
from protocol.identifiers import DeviceId, Digest

router = APIRouter(tags=["telemetry"])


@dataclass(frozen=True, slots=True)
class DeviceAnswers:
    device: DeviceId
    answers: int


@dataclass(frozen=True, slots=True)
class BundleAnswers:
    model: str
    version: str
    digest: Digest
    answers: int


@dataclass(frozen=True, slots=True)
class Totals:
    """Answers (Σ n of stored inference records), in all and in parts."""

    answers: int
    conflicts: int
    """Records that came with two contents."""
    devices: list[DeviceAnswers]
    bundles: list[BundleAnswers]


@dataclass(frozen=True, slots=True)
class Missing:
    """Windows that are not stored although later ones are."""

    epoch: int
    stream: str
    lo: int
    hi: int
    lost: bool
    """The device no longer holds them; otherwise they are still expected."""


@dataclass(frozen=True, slots=True)
class DeviceRecords:
    device: DeviceId
    stored: dict[str, int]
    """Σ n per kind of record."""
    conflicts: int
    missing: list[Missing]


@router.get("/records", summary="Totals of stored records", dependencies=[needs("read")])
def get_records(
    parts: Here,
    version: Annotated[
        str | None, Query(description="Only answers of this `model/version`.")
    ] = None,
) -> Totals:
    """A bundle's answers are those of its variants; a variant that two bundles share counts in
    both, in the total once."""
    queries = RecordQueries(parts.store.connection)
    chosen = [bundle_of(parts, version)] if version else list(bundles(parts))
    counted = []
    for bundle in chosen:
        manifests = [each.digest for each in bundle.manifests]
        answers = queries.answers(manifests=manifests) if manifests else 0
        counted.append(BundleAnswers(bundle.model, bundle.version, bundle.digest, answers))
    manifests = [each.digest for bundle in chosen for each in bundle.manifests]
    by_device = queries.answers_by_device(manifests if version else None)
    return Totals(
        sum(by_device.values()),
        parts.store.records.conflicts(),
        [DeviceAnswers(device, count) for device, count in sorted(by_device.items())],
        counted,
    )


@router.get(
    "/devices/{device}/records",
    summary="What is stored of one device",
    dependencies=[needs("read")],
)
def get_device_records(device: str, parts: Here) -> DeviceRecords:
    row = device_of(parts, device)
    return DeviceRecords(
        row.id,
        RecordQueries(parts.store.connection).stored(row.id),
        parts.store.records.conflicts(row.id),
        [
            Missing(gap.epoch, gap.stream, gap.lo, gap.hi, gap.lost)
            for gap in parts.store.records.gaps(row.id)
        ],
    )
