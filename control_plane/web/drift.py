"""Whether the inputs of a group of devices differ from what their model was built on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AwareDatetime

from control_plane.drift.cohort import CohortDrift, Verdict, judge
from control_plane.store.bundles import BundleRow, ManifestRow
from control_plane.store.devices import Device
from control_plane.store.record_queries import Merged, RecordQueries
from control_plane.web.lookup import bundle_of, bundles, known_model
from control_plane.web.parts import Here, Parts
from control_plane.web.permissions import needs
from protocol.identifiers import MAX_INT, DeviceId, Digest
from protocol.members import Profile, member_document
from protocol.telemetry import DriftWindow

router = APIRouter(tags=["telemetry"])

WORST = 5


@dataclass(frozen=True, slots=True)
class ShownFeature:
    """`psi` is bias-corrected: around 0 without drift. `p` is adjusted for all features."""

    name: str
    psi: float
    p: float
    drifted: bool


@dataclass(frozen=True, slots=True)
class Cohort:
    """Devices with one value of a label, that ran one variant."""

    cohort: str
    """ "site=b"; "not site" for devices without the label; "all" without one."""
    verdict: Verdict
    psi: float | None
    """The largest of a feature; null where there are too few rows to say."""
    features_drifted: int
    features: int
    rows: int
    devices: int
    """That have sent any."""
    worst: list[ShownFeature]
    manifest: Digest
    profile: Digest
    unfit_windows: int
    """Windows with other bins than the profile's: left out."""


@dataclass(frozen=True, slots=True)
class Drift:
    """Null version: no device runs the model and none was asked for."""

    model: str
    version: str | None
    items: list[Cohort]


@router.get("/models/{model}/drift", summary="Drift by cohort", dependencies=[needs("read")])
def get_drift(
    model: str,
    parts: Here,
    by: Annotated[str | None, Query(description="Label whose values make the cohorts.")] = None,
    version: Annotated[str | None, Query(description="Default: what most devices run.")] = None,
    since: Annotated[AwareDatetime | None, Query(description="RFC 3339")] = None,
    until: Annotated[AwareDatetime | None, Query(description="RFC 3339")] = None,
) -> Drift:
    """Merged counts against the version's reference profile. Times are the devices' own."""
    known_model(parts, model)
    bundle = bundle_of(parts, f"{model}/{version}") if version else _running_most(parts, model)
    if bundle is None:
        return Drift(model, None, [])
    groups = _groups(parts.store.devices.all(), by)
    start = int(since.timestamp() * 1000) if since else 0
    stop = int(until.timestamp() * 1000) if until else MAX_INT
    items = [
        cohort
        for variant in bundle.manifests
        for cohort in _cohorts(parts, variant, groups, start, stop)
    ]
    return Drift(model, bundle.version, items)


def _running_most(parts: Parts, model: str) -> BundleRow | None:
    running = parts.store.devices.running(model)
    known = [bundle for bundle in bundles(parts, model) if running.get(bundle.digest)]
    return max(known, key=lambda bundle: running[bundle.digest], default=None)


def _groups(devices: tuple[Device, ...], by: str | None) -> dict[str, list[DeviceId]]:
    groups: dict[str, list[DeviceId]] = {}
    for device in devices:
        value = device.selectable.get(by) if by else None
        name = "all" if by is None else f"not {by}" if value is None else f"{by}={value}"
        groups.setdefault(name, []).append(device.id)
    return dict(sorted(groups.items()))


def _cohorts(
    parts: Parts,
    variant: ManifestRow,
    groups: Mapping[str, list[DeviceId]],
    since_ms: int,
    until_ms: int,
) -> list[Cohort]:
    profile = member_document(parts.blobs.read(variant.profile), Profile)
    merged = RecordQueries(parts.store.connection).drift(
        variant.digest,
        variant.profile,
        groups,
        slots=[len(feature.counts) for feature in profile.features],
        since_ms=since_ms,
        until_ms=until_ms,
    )
    return [
        _cohort(name, variant, found, judge(profile, found.body.counts), len(profile.features))
        for name, found in merged.items()
    ]


def _cohort(
    name: str, variant: ManifestRow, found: Merged[DriftWindow], drift: CohortDrift, features: int
) -> Cohort:
    return Cohort(
        name,
        drift.verdict,
        drift.psi,
        len(drift.drifted),
        features,
        drift.rows,
        found.devices,
        [ShownFeature(f.name, f.psi, f.p, f.drifted) for f in drift.features[:WORST]],
        variant.digest,
        variant.profile,
        found.unfit,
    )
