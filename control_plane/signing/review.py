"""What a signature would change: two lists of approved bundles, compared entry by entry. Pure.

Everything that differs is a `Difference` with a kind that a person can judge. Two bundles are
compared by what they promise: contract, policy, metrics. How it is said is not decided here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from control_plane.audit import Anchor, anchors_of, split_head
from protocol.approval import Approved, ApprovedBundle
from protocol.bundle import Needs
from protocol.members import Contract, Policy, TensorSpec
from protocol.rules import Answer, Value

Kind = Literal["approved", "revoked", "restored", "removed", "re-pointed", "terms"]
Purpose = Literal["approve", "revoke", "renew"]
OnDevice = Literal["stop", "fallback", "report"]

_IN_WORDS: Final = ("actions", "after_commit", "rules")
"""Parts of a policy that are told in sentences."""
_SIGNS: Final = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "="}
_DOES: Final = {
    "previous": "the version before returns",
    "fallback": "goes to its fallback",
    "rules": "SIGNED RULES ANSWER",
    "refuse": "REFUSES TO ANSWER",
}

_TYPES: Final = {"FP16": "float16", "FP32": "float32", "FP64": "float64"}


@dataclass(frozen=True, slots=True)
class Listed:
    """One entry of a list. `length` is that of the bundle's index, in bytes."""

    bundle: ApprovedBundle
    length: int


@dataclass(frozen=True, slots=True)
class Difference:
    """One entry that the draft changes. `before` None: it was not listed; `after`: no longer."""

    kind: Kind
    path: str
    before: ApprovedBundle | None
    after: ApprovedBundle | None
    length: int
    """Bytes of the index, for whoever fetches and checks it."""

    @property
    def reference(self) -> str:
        """ "digits/v2"."""
        return self.path.removeprefix("models/")


def compare(before: Mapping[str, Listed], after: Mapping[str, Listed]) -> tuple[Difference, ...]:
    """Every entry that is not the same in both, in the order of paths."""
    return tuple(_differences(before, after))


def _differences(before: Mapping[str, Listed], after: Mapping[str, Listed]) -> Iterator[Difference]:
    for path in sorted({*before, *after}):
        old, new = before.get(path), after.get(path)
        if old == new:
            continue
        was = old.bundle if old is not None else None
        now = new.bundle if new is not None else None
        length = new.length if new is not None else old.length if old is not None else 0
        yield Difference(_kind(was, now), path, was, now, length)


def _kind(was: ApprovedBundle | None, now: ApprovedBundle | None) -> Kind:
    if now is None:
        return "removed"
    if was is None:
        return "revoked" if now.revoked else "approved"
    if was.digest != now.digest:
        return "re-pointed"
    if was.revoked != now.revoked:
        return "revoked" if now.revoked else "restored"
    return "terms"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person came to sign. `path` "" and no more changes: the same list, for longer."""

    purpose: Purpose
    path: str = ""
    on_device: OnDevice = "fallback"
    """Of a revocation."""


def beyond(asked: Asked, differences: Iterable[Difference]) -> str:
    """What the draft does other than what was asked for, in words; "" if it does just that."""
    found = list(differences)
    wrong = [each for each in found if not _is_asked(asked, each)]
    if wrong:
        return "it also changes " + ", ".join(f"{each.reference}: {each.kind}" for each in wrong)
    if asked.path and len(found) != 1:
        return f"it says nothing new of {asked.path.removeprefix('models/')}"
    return ""


def _is_asked(asked: Asked, difference: Difference) -> bool:
    """What is removed or re-pointed is never asked for: a version does not change, and one that
    must not run any more is revoked."""
    after = difference.after
    if difference.path != asked.path or after is None or difference.kind == "re-pointed":
        return False
    if asked.purpose == "revoke":
        return after.revoked and after.terms.on_device == asked.on_device
    return asked.purpose == "approve" and not after.revoked


# --- the audit trail that a list anchors ----------------------------------------------------------


def anchors(entries: Iterable[Listed]) -> tuple[Anchor, ...]:
    return anchors_of(each.bundle for each in entries)


def head_of(differences: Iterable[Difference]) -> str:
    """The head that the draft would anchor; "" for none.

    Raises `ValueError` when its entries do not agree, or name something that is no head.
    """
    heads = {each.after.terms.audit_head for each in differences if each.after is not None}
    if len(heads) > 1:
        raise ValueError("its entries name different heads of the audit trail")
    head = heads.pop() if heads else ""
    if head:
        split_head(head)
    return head


# --- two versions ---------------------------------------------------------------------------------


def predecessor(entries: Iterable[Listed], difference: Difference) -> Listed | None:
    """The version to compare with: the one of this model that was approved last.

    Heads of the audit trail say in which order approvers signed; where they say nothing, the
    names of versions do. What is revoked is no measure.
    """
    new = difference.after or difference.before
    found = [
        each
        for each in entries
        if new is not None
        and each.bundle.model == new.model
        and each.bundle.digest != new.digest
        and not each.bundle.revoked
    ]
    return max(found, key=_recency, default=None)


def _recency(entry: Listed) -> tuple[int, tuple[tuple[int, str], ...]]:
    number = 0
    if entry.bundle.terms.audit_head:
        try:
            number, _ = split_head(entry.bundle.terms.audit_head)
        except ValueError:
            number = 0
    # "v10" is above "v9".
    parts = re.findall(r"\d+|\D+", entry.bundle.version)
    return number, tuple((int(part), "") if part.isdigit() else (-1, part) for part in parts)


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure of the model card; None where a version does not say it."""

    name: str
    now: float | None
    was: float | None


def compare_metrics(now: Mapping[str, float], was: Mapping[str, float]) -> tuple[Metric, ...]:
    """Accuracy first, then by name. What the new version leaves out is told too."""
    names = sorted({*now, *was}, key=lambda name: ("accuracy" not in name, name))
    return tuple(Metric(name, now.get(name), was.get(name)) for name in names)


@dataclass(frozen=True, slots=True)
class ContractChanges:
    """`changed`: an application may break. `ranges`: only what the samples looked like."""

    changed: tuple[str, ...] = ()
    ranges: tuple[str, ...] = ()


def compare_contracts(was: Contract, now: Contract) -> ContractChanges:
    """In words, nothing for equal contracts."""
    return ContractChanges(
        (
            *_tensors("input", was.inputs, now.inputs),
            *_tensors("output", was.outputs, now.outputs),
            *_classes(was.classes, now.classes),
            *_plain("absolute tolerance", was.absolute_tolerance, now.absolute_tolerance),
            *_plain("relative tolerance", was.relative_tolerance, now.relative_tolerance),
        ),
        tuple(_ranges(was.inputs, now.inputs)),
    )


def compare_policies(was: Policy, now: Policy) -> tuple[str, ...]:
    """How a device would treat the new one otherwise. The fallback is said apart from this."""
    old, new = _flat(was), _flat(now)
    plain = [
        text
        for name in new | old
        if name not in _IN_WORDS and not name.startswith("rules.")
        for text in _plain(name, old.get(name), new.get(name))
    ]
    before = [*healing(was), *rules_text(was)]
    after = [*healing(now), *rules_text(now)]
    gone = [f"no longer: {text}" for text in before if text not in after]
    kept = [text for text in after if text in before]
    moved = kept != [text for text in before if text in after]
    return (
        *plain,
        *(text for text in after if text not in before),
        *gone,
        *(["rules come in another order"] if moved else ()),
    )


def healing(policy: Policy) -> Iterator[str]:
    """What a device does by itself once the bundle was proven there, where a policy says so."""
    for trigger, action in sorted(policy.actions.items()):
        yield f"{trigger}: {_DOES[action]}"
    if policy.after_commit != Policy().after_commit:
        yield f"watched for good: {', '.join(policy.after_commit) or 'runner deaths only'}"


def rules_text(policy: Policy) -> Iterator[str]:
    """Every rule in words, one line each."""
    if policy.rules is None:
        return
    for rule in policy.rules.rules:
        when = " and ".join(
            f"{each.name or f'column {each.column}'} {_SIGNS[each.op]} {each.value!r}"
            for each in rule.when
        )
        yield f"rule: where {when} answers {_answer(rule.answer)}"
    yield f"rule: otherwise answers {_answer(policy.rules.otherwise)}"


def _answer(answer: Answer) -> str:
    return "; ".join(f"{name} {_values(values)}" for name, values in answer.items())


def _values(values: tuple[Value, ...], most: int = 32) -> str:
    """All of them, or a few and a digest of all: no difference goes unseen."""
    texts = [repr(value) for value in values]
    if len(texts) <= most:
        return ", ".join(texts)
    whole = hashlib.sha256(", ".join(texts).encode()).hexdigest()
    return f"{', '.join(texts[:8])} ... ({len(texts):,} values, sha256 {whole[:8]})"


def least(needs: Iterable[Needs]) -> Needs:
    """What a device must have for any of the variants: below this, none of them runs there."""
    each = tuple(needs)
    anywhere = any(not one.arch for one in each)
    return Needs(
        arch=() if anywhere else tuple(sorted({arch for one in each for arch in one.arch})),
        onnxruntime=min((one.onnxruntime for one in each), key=_release, default=""),
        ram_bytes=min((one.ram_bytes for one in each), default=0),
        agent=min((one.agent for one in each), key=_release, default=""),
    )


def terms_changes(was: Approved, now: Approved) -> tuple[str, ...]:
    """What approvers would say otherwise of a bundle; the audit head is told apart from this."""
    return _changes(was, now, {"audit_head"})


def tensor_text(spec: TensorSpec) -> str:
    """ "float32[-1,64]"."""
    kind = _TYPES.get(spec.datatype, spec.datatype.lower())
    return f"{kind}[{','.join(map(str, spec.shape))}]"


def _tensors(what: str, was: Iterable[TensorSpec], now: Iterable[TensorSpec]) -> Iterator[str]:
    old, new = {each.name: each for each in was}, {each.name: each for each in now}
    for name in old:
        if name not in new:
            yield f"{what} {name} is gone"
    for name, spec in new.items():
        before = old.get(name)
        if before is None:
            yield f"{what} {name} is new: {tensor_text(spec)}"
            continue
        if tensor_text(before) != tensor_text(spec):
            yield f"{what} {name} is {tensor_text(spec)}, was {tensor_text(before)}"
        if before.role != spec.role:
            yield f"{what} {name} means {spec.role}, was {before.role}"
    common = [name for name in new if name in old]
    if common != [name for name in old if name in new]:
        yield f"{what}s come in another order"


def _classes(was: tuple[str, ...], now: tuple[str, ...]) -> Iterator[str]:
    if was == now:
        return
    gone = [each for each in was if each not in now]
    new = [each for each in now if each not in was]
    if gone:
        yield f"classes are gone: {_few(gone)}"
    if new:
        yield f"classes are new: {_few(new)}"
    if not gone and not new:
        yield "classes come in another order"


def _ranges(was: Iterable[TensorSpec], now: Iterable[TensorSpec]) -> Iterator[str]:
    old = {each.name: each for each in was}
    for spec in now:
        before = old.get(spec.name)
        if before is None or _range(before) == _range(spec):
            continue
        yield f"{spec.name} is made for {_range(spec)}, was {_range(before)}"


def _range(spec: TensorSpec) -> str:
    low = "any" if spec.minimum is None else f"{spec.minimum:.6g}"
    high = "any" if spec.maximum is None else f"{spec.maximum:.6g}"
    return low if low == high else f"{low}..{high}"


def _plain(name: str, was: object, now: object) -> Iterator[str]:
    if was != now:
        yield f"{name} {_said(now)}, was {_said(was)}"


def _said(value: object) -> str:
    if value is None or value in ("", ()):
        return "nothing"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _few(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _changes(was: object, now: object, apart: set[str]) -> tuple[str, ...]:
    old, new = _flat(was), _flat(now)
    names = [name for name in new | old if name not in apart]
    return tuple(text for name in names for text in _plain(name, old.get(name), new.get(name)))


def _flat(value: Any, above: str = "") -> dict[str, object]:
    """Fields of nested dataclasses by their dotted names."""
    found: dict[str, object] = {}
    for field in dataclasses.fields(value):
        inner, name = getattr(value, field.name), f"{above}{field.name}"
        if dataclasses.is_dataclass(inner):
            found |= _flat(inner, f"{name}.")
        else:
            found[name] = inner
    return found


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
