"""A review in words: what a signature would allow, line by line. Pure.

+ digits/v2   sha256-9f2c41d0  1.26 MB, fetched here, digest matches
    accuracy  .962 (v1 .914), worst_class .931 (v1 .902)
    contract  unchanged     fallback digits/v1     card complete
nothing revoked, removed or re-pointed
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from control_plane.signing.evidence import Evidence
from control_plane.signing.review import (
    Difference,
    Kind,
    Listed,
    Metric,
    OnDevice,
    compare_contracts,
    compare_metrics,
    compare_policies,
    healing,
    least,
    rules_text,
    tensor_text,
    terms_changes,
)
from protocol.approval import Approved
from protocol.bundle import Needs
from protocol.identifiers import Digest, short
from protocol.members import Contract, Policy
from protocol.wording import size

WIDTH: Final = 80
_LABEL: Final = 10
_INDENT: Final = 6
_MOST_METRICS: Final = 8

ON_DEVICE: Final[Mapping[OnDevice, str]] = {
    "stop": "a device that runs it STOPS ANSWERING until it gets another version",
    "fallback": "a device that runs it falls back",
    "report": "a device that runs it goes on, and reports it",
}
_SIGNS: Final[Mapping[Kind, str]] = {
    "approved": "+",
    "restored": "!",
    "revoked": "-",
    "removed": "-",
    "re-pointed": "!",
    "terms": "~",
}


@dataclass(frozen=True, slots=True)
class Looked:
    """One difference with what was fetched to judge it; None where there was nothing to fetch."""

    difference: Difference
    evidence: Evidence | None = None
    predecessor: Listed | None = None
    measure: Evidence | None = None
    """The predecessor's."""
    names: Mapping[Digest, str] = field(default_factory=dict)
    """References of what may run, by digest."""


def changes(looked: Sequence[Looked]) -> list[str]:
    """Every difference, and what there is none of."""
    lines = [line for each in looked for line in _difference(each)]
    kinds = {each.difference.kind for each in looked}
    absent = [word for word in ("revoked", "removed", "re-pointed") if word not in kinds]
    if absent:
        *most, last = absent
        lines.append(f"  nothing {', '.join(most)} or {last}" if most else f"  nothing {last}")
    return lines


def _difference(looked: Looked) -> Iterator[str]:
    difference = looked.difference
    shown = difference.after or difference.before
    assert shown is not None, "a difference has at least one side"
    head = f"  {_SIGNS[difference.kind]} {difference.reference}   sha256-{short(shown.digest)}"
    if looked.evidence is not None:
        yield f"{head}  {size(looked.evidence.size_bytes)}, fetched here, digest matches"
    elif difference.kind == "revoked" and difference.after is not None:
        yield f"{head}  revoked for good:"
        yield from _line("", ON_DEVICE[difference.after.terms.on_device], _INDENT - 2)
    else:
        yield f"{head}  {difference.kind}"
    if difference.kind == "restored":
        yield f"{'':<{_INDENT}}RESTORED: approvers have revoked it before; it may run again"
    if difference.before is not None and difference.after is not None:
        # Of these two the kind says it all.
        known = () if difference.kind == "terms" else ("state ", "on_device ")
        for text in terms_changes(difference.before.terms, difference.after.terms):
            if not text.startswith(known):
                yield from _line("terms", text)
    if looked.evidence is not None and difference.after is not None:
        yield from _bundle(looked, looked.evidence, difference.after.terms)


def _bundle(looked: Looked, evidence: Evidence, terms: Approved) -> Iterator[str]:
    older = looked.predecessor.bundle.version if looked.predecessor is not None else ""
    was = looked.measure.card.metrics if looked.measure is not None else {}
    yield from _metrics(compare_metrics(evidence.card.metrics, was), older)
    yield from _promises(looked, evidence)
    policy = evidence.policies[0]
    if looked.measure is not None:
        for text in compare_policies(looked.measure.policies[0], policy):
            yield from _line("policy", text)
    else:
        for text in (*healing(policy), *rules_text(policy)):
            yield from _line("policy", text)
    if policy.dev is not None:
        yield from _line("policy", "DEV INTERVALS: not for production")
    if any(other != policy for other in evidence.policies):
        yield from _line("policy", "NOT THE SAME for all variants")
    needs = needs_text(least(evidence.needs))
    if needs or len(evidence.needs) > 1:
        variants = f"   ({len(evidence.needs)} variants)" if len(evidence.needs) > 1 else ""
        yield from _line("needs", (needs or "nothing special") + variants)
    if terms.needs not in (Needs(), least(evidence.needs)):
        yield from _line("needs", f"SIGNED OTHERWISE: {needs_text(terms.needs)}")
    if terms.capture:
        granted = ", ".join(terms.capture)
        yield from _line("capture", f"GRANTED: raw {granted} may leave devices")


def _promises(looked: Looked, evidence: Evidence) -> Iterator[str]:
    """Contract, fallback and card: in one line where nothing is the matter."""
    contract, ranges = _contract(looked, evidence)
    gaps = evidence.card.empty_fields()
    rest = [
        f"fallback {_fallback(evidence.policies[0], looked.names)}",
        f"card empty: {', '.join(gaps)}" if gaps else "card complete",
    ]
    if len(contract) > 1 or contract[0].startswith("CHANGED"):
        for text in contract:
            yield from _line("contract", text)
    else:
        rest = [contract[0], *rest]
    for text in ranges:
        yield from _line("range", text)
    label = "contract" if len(rest) == 3 else "also"
    joined = "     ".join(rest)
    if _INDENT + _LABEL + len(joined) <= WIDTH:
        yield from _line(label, joined)
        return
    if len(rest) == 3:
        yield from _line("contract", rest.pop(0))
    yield from _line("fallback", rest[0].removeprefix("fallback "))
    yield from _line("card", rest[1].removeprefix("card "))


def _contract(looked: Looked, evidence: Evidence) -> tuple[list[str], tuple[str, ...]]:
    contract = evidence.contracts[0]
    differing = any(other != contract for other in evidence.contracts)
    mixed = ["CHANGED: not the same for all variants"] if differing else []
    if looked.measure is None:
        return [*mixed, contract_text(contract)], ()
    found = compare_contracts(looked.measure.contracts[0], contract)
    changed = [f"CHANGED: {text}" for text in found.changed]
    return [*mixed, *changed] or ["unchanged"], found.ranges


def contract_text(contract: Contract) -> str:
    """ "pixels float32[-1,64] -> label int64[-1]"."""
    sides = (contract.inputs, contract.outputs)
    said = [", ".join(f"{each.name} {tensor_text(each)}" for each in side) for side in sides]
    return " -> ".join(said)


def needs_text(needs: Needs) -> str:
    """ "aarch64 or x86_64, onnxruntime >= 1.17, 96 MB RAM"; "" for anything."""
    parts = [" or ".join(needs.arch)] if needs.arch else []
    parts += [f"onnxruntime >= {needs.onnxruntime}"] if needs.onnxruntime else []
    parts += [f"{size(needs.ram_bytes)} RAM"] if needs.ram_bytes else []
    parts += [f"agent >= {needs.agent}"] if needs.agent else []
    return ", ".join(parts)


def figure(value: float | None) -> str:
    """ ".962" for a share."""
    if value is None:
        return "not said"
    text = f"{value:.3f}"
    return text.removeprefix("0") if 0 < value < 1 else text


def _metrics(metrics: Sequence[Metric], older: str) -> Iterator[str]:
    if not metrics:
        yield from _line("metrics", "none: the card does not say how good it is")
        return
    texts = []
    for each in metrics[:_MOST_METRICS]:
        before = f" ({older} {figure(each.was)})" if older else ""
        texts.append(f"{each.name} {figure(each.now)}{before}")
    if len(metrics) > _MOST_METRICS:
        texts.append(f"{len(metrics) - _MOST_METRICS} more in the card")
    label = "metrics"
    if metrics[0].name == "accuracy":
        label, texts[0] = "accuracy", texts[0].removeprefix("accuracy ")
    yield from _line(label, ", ".join(texts))


def _fallback(policy: Policy, names: Mapping[Digest, str]) -> str:
    if policy.fallback is None:
        name = "previous"
    else:
        name = names.get(policy.fallback, f"{policy.fallback[:15]}, NOT APPROVED")
    return f"{name}, else REFUSES TO ANSWER" if policy.on_exhausted == "refuse" else name


def _line(label: str, text: str, indent: int = _INDENT) -> Iterator[str]:
    room = WIDTH - indent - _LABEL
    wrapped = textwrap.wrap(printable(text), room, break_on_hyphens=False)
    for number, part in enumerate(wrapped or [""]):
        head = label if number == 0 else ""
        yield f"{'':<{indent}}{head:<{_LABEL}}{part}" if label else f"{'':<{indent + 2}}{part}"


def printable(text: str) -> str:
    """Names come from whoever built the bundle: none of them may move the cursor, or turn the
    line around."""
    return "".join(each if each.isprintable() else "?" for each in text)


def architectures(looked: Sequence[Looked]) -> tuple[str, ...]:
    """Where the versions could run; empty for anywhere."""
    needs = [each.needs for each in (one.evidence for one in looked) if each is not None]
    return least(need for each in needs for need in each).arch
