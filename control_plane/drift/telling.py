"""From what was measured to what is told: a finding with its features, its words and its record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from control_plane.drift import peers, verdicts
from control_plane.drift.alarms import Alarm
from control_plane.drift.budget import Terms
from control_plane.drift.findings import Finding, FoundFeature
from control_plane.drift.measuring import Measured, Rule, features_of
from control_plane.drift.record import About, made
from control_plane.drift.windows import Query
from protocol.identifiers import split_device_id


def found(about: About, rule: Rule, terms: Terms, query: Query, measured: Measured) -> Finding:
    """`about` without its sentence, which is made here."""
    features = features_of(rule, measured.statistic)
    if rule.unit == "p":
        features = _often(features, measured.statistic)
    finding = Finding(
        about.kind,
        about.model,
        about.bundle,
        about.manifest,
        about.profile,
        about.subject,
        about.verdict,
        "",
        features,
        about.at_ms,
        {"statistic": measured.statistic},
    )
    sentence = _sentence(finding)
    record = made(replace(about, sentence=sentence), rule, terms, query, measured)
    return replace(finding, sentence=sentence, record=record)


def again(alarm: Alarm, now_ms: int) -> Finding:
    """That the reason of an alarm is still there. Without a record: it can open nothing."""
    return Finding(
        alarm.kind,
        alarm.model,
        alarm.bundle,
        alarm.manifest,
        alarm.profile,
        alarm.subject,
        alarm.verdict,
        alarm.sentence,
        alarm.features,
        now_ms,
        {},
    )


def _often(
    features: Sequence[FoundFeature], statistic: Mapping[str, Any]
) -> tuple[FoundFeature, ...]:
    """Of a device among its peers those that stood out in enough of its slots: once is chance."""
    slots = Counter(each["index"] for slot in statistic["slots"] for each in slot["features"])
    return tuple(each for each in features if slots[each.index] >= peers.NEEDED)


def _sentence(finding: Finding) -> str:
    """People know a device by its local name."""
    if finding.kind in ("detector", "peer"):
        finding = replace(finding, subject=split_device_id(finding.subject)[1])
    return verdicts.sentence(finding)
