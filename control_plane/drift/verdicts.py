"""What is found about a device or a cohort, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from control_plane.drift.findings import Finding
from control_plane.drift.words import Verdict

COMPARABLE: Final = 12
"""From so many devices on, peers can say whether a device differs as all of them do."""
APART_P: Final = 1e-3
"""So unlikely are the last windows of a device whose detector fired beside its peers', if it is
told of. No part of the budget, which its detector has kept already: of a thousand devices that
differ from the reference only as all of them do, about one is told of all the same."""
LEAST_PSI: Final = 0.02
"""So far a device has to be from its reference to be told of."""
CLEAR_PSI: Final = 0.1
"""So far devices that their peers resemble have to be, to speak for their cohort at once."""

_BY_DETECTORS: Final[tuple[tuple[int, float, Verdict], ...]] = (
    (3, 0.75, "cohort drifted"),
    (4, 0.25, "half of the cohort drifted"),
)
"""From so many reporting devices on, and so large a share of them whose detectors fired."""

_NAMED: Final = 3
"""So many features are named, the rest counted."""

RESIDUAL: Final = "residual"
"""Name of the stream that shows how features go together."""


def of_device(
    *, fired: bool, outlier: bool, apart: bool | None, psi: float, cohort_called: bool
) -> Verdict | None:
    """What is told of a device, if anything.

    `fired`: a detector of it has reached the threshold. `outlier`: it stood out among its peers in
    enough of the last slots. `apart`: its last windows together are unlike those of its peers;
    None: there are too few to ask. Where there are, a device is told of only if it is: a detector
    sees every lasting difference from the reference, and devices have such differences. `psi`: the
    largest bias-corrected one of its last day against the reference. A cohort that is called
    speaks for its devices.
    """
    if cohort_called:
        return None
    if outlier:
        return "sensor broken"
    if fired and apart is not False and psi > LEAST_PSI:
        return "device drifted"
    return None


def of_detectors(fired: int, reporting: int) -> Verdict | None:
    """What is told of a cohort too small to test: by how many of its devices' detectors fired."""
    if not 0 <= fired <= reporting:
        raise ValueError(f"{fired} of {reporting} devices")
    for least, share, verdict in _BY_DETECTORS:
        if reporting >= least and fired >= share * reporting:
            return verdict
    return None


def sentence(finding: Finding) -> str:
    """One line for people, of the verdict, its subject, its features and `record["statistic"]`."""
    statistic = finding.record.get("statistic", {})
    names = [feature.name for feature in finding.features]
    psi = max((feature.psi for feature in finding.features), default=0.0)
    if finding.kind == "peer":
        return broken(finding.subject, names, *_hits(statistic, names))
    if finding.kind == "detector":
        return drifted(finding.subject, names, psi)
    shown = statistic.get("features", ())
    if finding.kind == "part" and shown:
        first: Mapping[str, Any] = shown[0]
        moved, devices = first[first["drifted"]], first["low"] + first["high"]
        return half(finding.subject, moved, devices, names)
    # A cohort too small to be tested is called by what its devices' own detectors say.
    by_detectors = len(statistic.get("devices", ()))
    devices = max((each["devices"] for each in shown), default=by_detectors)
    some = finding.verdict == "half of the cohort drifted"
    return cohort(finding.subject, named(names), psi, devices, some=some)


def broken(device: str, names: Sequence[str], hits: int, windows: int, peers: int) -> str:
    """ "sensor broken on device cam-0117: temperature (2 of the last 3 windows, 61 peers)"."""
    seen = f"{hits} of the last {windows} windows, {_plural(peers, 'peer')}"
    return f"sensor broken on device {device}: {named(names)} ({seen})"


def drifted(device: str, names: Sequence[str], psi: float) -> str:
    return f"device {device} drifted: {named(names)}, PSI {number(psi)}"


def cohort(name: str, what: str, psi: float, devices: int, *, some: bool = False) -> str:
    """ "cohort site=b drifted: 41 of 64 features, PSI .38, 12 devices"; `some`: half of it."""
    subject = f"half of the cohort {name}" if some else f"cohort {name}"
    among = f", {_plural(devices)}" if devices else ""
    return f"{subject} drifted: {what}, PSI {number(psi)}{among}"


def half(name: str, moved: int, devices: int, names: Sequence[str]) -> str:
    """ "half of the cohort site=b drifted: 12 of 24 devices, temperature"."""
    return f"half of the cohort {name} drifted: {moved} of {_plural(devices)}, {named(names)}"


def nothing(name: str, devices: int, rows: int) -> str:
    """ "no drift in cohort site=a: 12 devices, 84,113 rows"."""
    return f"no drift in cohort {name}: {_plural(devices)}, {_plural(rows, 'row')}"


def not_enough(devices: int, rows: int) -> str:
    """ "not enough data: 3 devices, 41 rows"."""
    return f"not enough data: {_plural(devices)}, {_plural(rows, 'row')}"


def named(names: Sequence[str]) -> str:
    """ "temperature, pressure, flow and 5 more"."""
    shown = ["how features go together" if name == RESIDUAL else name for name in names[:_NAMED]]
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f" and {rest:,} more" if rest else "")


def features(drifted: int, of: int, *, together: bool = False) -> str:
    """ "41 of 64 features"; `together`: their residual as well."""
    return f"{drifted:,} of {of:,} features" + (" and how they go together" if together else "")


def number(value: float) -> str:
    """ ".38", "1.20": two decimals, no leading zero."""
    text = f"{value:.2f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def _plural(count: int, what: str = "device") -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _hits(statistic: Mapping[str, Any], names: Sequence[str]) -> tuple[int, int, int]:
    """Slots in which the first feature stood out, slots at all, and peers in the last of them."""
    slots = statistic.get("slots", ())
    of = [[f for f in slot["features"] if f["name"] in names[:1]] for slot in slots]
    devices = [feature["devices"] for found in of for feature in found]
    return sum(map(bool, of)), len(slots), max(0, devices[-1] - 1) if devices else 0
