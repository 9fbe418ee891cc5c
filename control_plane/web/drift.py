"""Whether the inputs of a group of devices differ from what their model was built on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import AwareDatetime

from control_plane.drift import verdicts
from control_plane.drift.alarms import Alarm
from control_plane.drift.cohort import CohortDrift, Unit, judge
from control_plane.drift.words import Verdict
from control_plane.store.bundles import BundleRow, ManifestRow
from control_plane.store.devices import Device
from control_plane.store.record_queries import RecordQueries, both
from control_plane.web.lookup import bundle_of, bundles, known_model
from control_plane.web.parts import Here, Parts
from control_plane.web.permissions import needs
from protocol.estimate import estimated_accuracy, measured_accuracy
from protocol.histogram import Counts
from protocol.identifiers import MAX_INT, DeviceId, Digest, digest_of
from protocol.members import Profile, member_document
from protocol.telemetry import DriftWindow, InferenceWindow

router = APIRouter(tags=["telemetry"])

WORST: Final = 5
MOST_TABLES: Final = 2_000
"""Devices of a cohort that are looked at one by one. Of a larger one as many are taken, by digests
of their ids: they tell as much, and the rest would not fit into memory."""


@dataclass(frozen=True, slots=True)
class ShownFeature:
    """`psi` is bias-corrected: around 0 without drift. `p` is adjusted for all features."""

    name: str
    """ "residual" is how the features go together."""
    psi: float
    p: float
    drifted: bool


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How often the model is right: what its confidences say, and what labels say."""

    estimated: float | None
    """Null while inputs have drifted: confidences mean nothing then."""
    reference: float | None
    """Of the labelled rows that the model was built with."""
    measured: float | None
    labelled: int
    """Rows whose true labels were sent."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A device with an open alarm that its sensor is broken."""

    device: DeviceId
    features: list[str]


@dataclass(frozen=True, slots=True)
class Cohort:
    """Devices with one value of a label, that ran one variant."""

    cohort: str
    """ "site=b"; "not site" for devices without the label; "all" without one."""
    verdict: Verdict
    sentence: str
    unit: Unit
    """What counts as independent: devices from five on, rows below."""
    psi: float | None
    """The largest of a feature; null where there are too few rows to say."""
    features_drifted: int
    features: int
    rows: int
    devices: int
    """That have sent any."""
    worst: list[ShownFeature]
    accuracy: Accuracy | None
    """Null where nothing is known of it."""
    broken: list[Broken]
    alarms: list[str]
    """That are not resolved and concern devices of it."""
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
    """Counts against the version's reference profile. Times are the devices' own."""
    known_model(parts, model)
    bundle = bundle_of(parts, f"{model}/{version}") if version else _running_most(parts, model)
    if bundle is None:
        return Drift(model, None, [])
    start = int(since.timestamp() * 1000) if since else 0
    stop = int(until.timestamp() * 1000) if until else MAX_INT
    looked = _Looked(parts, _groups(parts.store.devices.all(), by), by, start, stop)
    alarms = parts.store.alarms.open(model)
    items = [cohort for variant in bundle.manifests for cohort in _cohorts(looked, variant, alarms)]
    return Drift(model, bundle.version, items)


@dataclass(frozen=True, slots=True)
class _Looked:
    """What was asked for."""

    parts: Parts
    groups: Mapping[str, list[DeviceId]]
    by: str | None
    since_ms: int
    until_ms: int


@dataclass(slots=True)
class _Sum:
    """What the devices of a cohort counted, together and one by one."""

    merged: DriftWindow
    devices: int = 0
    unfit: int = 0
    tables: list[tuple[Counts, ...]] = field(default_factory=list)


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


def _cohorts(looked: _Looked, variant: ManifestRow, alarms: Iterable[Alarm]) -> list[Cohort]:
    parts = looked.parts
    profile = member_document(parts.blobs.read(variant.profile), Profile)
    own = [each for each in alarms if each.profile == variant.profile]
    answered = RecordQueries(parts.store.connection).inference(
        variant.digest,
        variant.profile,
        looked.groups,
        since_ms=looked.since_ms,
        until_ms=looked.until_ms,
    )
    found = []
    for name, summed in _sums(looked, variant, profile).items():
        body = summed.merged
        drift = judge(profile, body.counts, body.residual, summed.tables)
        concerned = [each for each in own if _concerns(each, name, looked.groups[name], looked.by)]
        accuracy = _accuracy(profile, answered[name].body, drift.verdict, bool(concerned))
        found.append(_cohort(name, variant, summed, drift, profile, accuracy, concerned))
    return found


def _sums(looked: _Looked, variant: ManifestRow, profile: Profile) -> dict[str, _Sum]:
    sums = {name: _Sum(DriftWindow(variant.digest, variant.profile)) for name in looked.groups}
    member = {device: name for name, devices in looked.groups.items() for device in devices}
    alone = {
        device
        for devices in looked.groups.values()
        for device in sorted(devices, key=lambda each: digest_of(each.encode()))[:MOST_TABLES]
    }
    residual = profile.residual
    for device, found in RecordQueries(looked.parts.store.connection).drift_by_device(
        variant.digest,
        variant.profile,
        slots=[len(feature.counts) for feature in profile.features],
        residual=len(residual.feature.counts) if residual else 0,
        since_ms=looked.since_ms,
        until_ms=looked.until_ms,
    ):
        summed = sums.get(member.get(device, ""))
        if summed is None:
            continue
        summed.unfit += found.unfit
        if found.windows:
            summed.merged = both(summed.merged, found.body)
            summed.devices += 1
        if found.body.counts and device in alone:
            whole = (*found.body.counts, found.body.residual) if residual else found.body.counts
            summed.tables.append(whole)
    return sums


def _concerns(alarm: Alarm, cohort: str, devices: Iterable[DeviceId], by: str | None) -> bool:
    """Whether an alarm is about devices of the cohort, or about a cohort that may share some."""
    if alarm.about_device:
        return alarm.subject in devices
    # Cohorts of one label share no device; those of two may.
    of_this_label = alarm.subject.startswith(f"{by}=") or alarm.subject == f"not {by}"
    return alarm.subject == cohort or not of_this_label


def _accuracy(
    profile: Profile, answered: InferenceWindow, verdict: Verdict, alarmed: bool
) -> Accuracy | None:
    measured = measured_accuracy(answered.labelled, answered.correct)
    estimated = None
    if verdict == "no drift" and not alarmed:
        estimated = estimated_accuracy(profile.calibration, answered.confidence)
    if (estimated, profile.accuracy, measured) == (None, None, None):
        return None
    share = measured[0] if measured else None
    return Accuracy(estimated, profile.accuracy, share, answered.labelled)


def _cohort(
    name: str,
    variant: ManifestRow,
    summed: _Sum,
    drift: CohortDrift,
    profile: Profile,
    accuracy: Accuracy | None,
    alarms: list[Alarm],
) -> Cohort:
    drifted = sum(each.index < len(profile.features) for each in drift.drifted)
    return Cohort(
        name,
        drift.verdict,
        _sentence(name, drift, drifted, len(profile.features), summed.devices),
        drift.unit,
        drift.psi,
        drifted,
        len(profile.features),
        drift.rows,
        summed.devices,
        [ShownFeature(f.name, f.psi, f.p, f.drifted) for f in drift.features[:WORST]],
        accuracy,
        [
            Broken(each.subject, [feature.name for feature in each.features])
            for each in alarms
            if each.verdict == "sensor broken"
        ],
        [each.id for each in alarms],
        variant.digest,
        variant.profile,
        summed.unfit,
    )


def _sentence(name: str, drift: CohortDrift, drifted: int, features: int, devices: int) -> str:
    if drift.verdict == "not enough data":
        return verdicts.not_enough(devices, drift.rows)
    if drift.part is not None:
        (column,) = (each.name for each in drift.features if each.index == drift.part.index)
        return verdicts.half(name, len(drift.part.moved), drift.devices, [column])
    if drift.verdict == "no drift":
        return verdicts.nothing(name, devices, drift.rows)
    together = len(drift.drifted) > drifted
    what = verdicts.features(drifted, features, together=together)
    return verdicts.cohort(name, what, max(each.psi for each in drift.drifted), devices)
