"""Where a model is at home: which proven bundle serves when nothing better may, and what is done
about one that works no longer.

`base` and the steps of row 3 of the decision table (`reconcile`). Pure.
"""

from __future__ import annotations

from typing import Final

from edge_agent.denials import CORRUPT, CRASHES, DEGRADED, INTERRUPTED, REVOKED
from edge_agent.observed import Observed
from edge_agent.steps import Degrade, Rollback, Step
from edge_agent.watch.remedy import Remedy, remedy
from protocol.identifiers import Digest
from protocol.members import Policy, Trigger
from protocol.reported import Answering

MAX_LOADS: Final = 3
"""Times a bundle may enter a process without running well in between."""

CRASH_LOOP: Final = 3
"""Runner deaths after which a committed bundle gives way to the one before it."""

_ANSWERING: Final[dict[Remedy, Answering]] = {"rules": "rules", "refuse": "refuses"}


def base(observed: Observed) -> Digest | None:
    """What serves whenever nothing better may: current, else previous.

    A slot must verify and must not be revoked with `stop`. One that is revoked, denied,
    crash-looping or no longer working well counts only if there is no other, and not if its signed
    policy says `refuse`. Where nothing was ever proven, a bundle that was given up counts if its
    signed rules, and not its model, answer.
    """
    journal = observed.journal
    usable = [bundle for bundle in journal.slots if may_serve(bundle, observed)]
    good = [bundle for bundle in usable if against(bundle, observed) is None]
    trouble = _trouble(observed)
    if trouble is not None and journal.current in usable:
        if _remedy(trouble[0], observed) in _ANSWERING:
            return journal.current
        good = [bundle for bundle in good if bundle != journal.current]
    stand_ins = (
        bundle
        for bundle, note in reversed(journal.notes)
        if note.answering != "model" and may_serve(bundle, observed)
    )
    return next(iter((*good, *usable, *stand_ins)), None)


def against(bundle: Digest, observed: Observed) -> tuple[str, str] | None:
    """What speaks against a committed bundle: problem code and detail."""
    if bundle not in observed.verified:
        return CORRUPT, ""
    if bundle in observed.revoked:
        return REVOKED, f"approvers said {observed.revoked[bundle]}"
    if bundle in observed.denied:
        return REVOKED, "on the fleet's deny list"
    note = observed.journal.note(bundle)
    if note.answering != "model":
        return None
    if note.reason is not None and note.definite:
        return note.reason, note.detail
    if note.crashes >= CRASH_LOOP:
        return CRASHES, observed.crash_detail
    serves = any(runner.digest == bundle for runner in observed.serving)
    if note.loads >= MAX_LOADS and not serves:
        return INTERRUPTED, f"entered a process {note.loads} times without running well"
    return None


def may_serve(bundle: Digest, observed: Observed) -> bool:
    return bundle in observed.verified and not must_stop(bundle, observed)


def must_stop(bundle: Digest, observed: Observed) -> bool:
    if observed.revoked.get(bundle) == "stop":
        return True
    held_against = bundle in observed.revoked or bundle in observed.denied
    return held_against and bundle in observed.refusing


def heal(observed: Observed) -> Step | None:
    """Row 3: away from what was proven and works no longer."""
    current, home = observed.journal.current, base(observed)
    if current is None or home is None:
        return None
    trouble, toward = _trouble(observed), None
    if trouble is not None and may_serve(current, observed):
        trigger, reason, detail = trouble
        what = _remedy(trigger, observed)
        if what in _ANSWERING:
            return Degrade(current, reason, detail, row=3, answering=_ANSWERING[what])
        if what == "fallback":
            toward = policy_of(current, observed).fallback
            if home == current:
                return Degrade(current, reason, detail, row=3, toward=toward)
    if home == current:
        return None
    speaks = trouble[1:] if trouble is not None else against(current, observed)
    reason, detail = speaks or (CORRUPT, "")
    return Rollback(current, reason, detail, row=3, toward=toward)


def stand_in(bundle: Digest, trigger: Trigger, observed: Observed) -> Answering:
    """What answers in the place of a bundle that failed on trial: on a device where something was
    proven that returns, and only where nothing was does the policy of the new bundle decide."""
    if base(observed) is not None:
        return "model"
    policy = policy_of(bundle, observed)
    usable = policy.fallback in observed.fallbacks
    return _ANSWERING.get(remedy(policy, trigger, previous=False, fallback=usable), "model")


def lasting(observed: Observed) -> str:
    """What is wrong with a bundle that serves on because nothing better is here; "" for nothing."""
    trouble = _trouble(observed)
    return trouble[2] if trouble is not None else ""


def policy_of(bundle: Digest, observed: Observed) -> Policy:
    return observed.policies.get(bundle, Policy())


def _trouble(observed: Observed) -> tuple[Trigger, str, str] | None:
    """What is wrong with the model of `current` and not acted upon: trigger, code, detail."""
    current = observed.journal.current
    if current is None:
        return None
    note = observed.journal.note(current)
    if note.answering != "model" or note.toward in observed.fallbacks:
        return None
    speaks = against(current, observed)
    if speaks is not None:
        return ("crashes", *speaks) if speaks[0] in (CRASHES, INTERRUPTED) else None
    fault = observed.fault
    return (fault.trigger, DEGRADED, fault.detail) if fault is not None else None


def _remedy(trigger: Trigger, observed: Observed) -> Remedy:
    journal, current = observed.journal, observed.journal.current
    policy = policy_of(current, observed) if current is not None else Policy()
    previous = any(
        bundle != current
        and may_serve(bundle, observed)
        and against(bundle, observed) is None
        and journal.note(bundle).answering != "refuses"
        for bundle in journal.slots
    )
    return remedy(
        policy,
        trigger,
        previous=previous,
        fallback=policy.fallback in observed.fallbacks - {current},
    )
