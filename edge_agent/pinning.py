"""What a technician's `rollback` and `pin` come to: which bundle, or why none.

Pure. A pin is no approval: what approvers revoked, operators denied or this device gave up stays
out, whoever stands in front of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from protocol.approval import Approvals
from protocol.errors import Failed, InvalidRequest, TrustError
from protocol.identifiers import Digest, ModelName, short
from protocol.moments import FORMS, ahead
from protocol.reported import MAX_WHO, MAX_WHY, LocalPin, ModelState
from protocol.wording import date


@dataclass(frozen=True, slots=True)
class Standing:
    """What the device knows when somebody asks."""

    now_ms: int
    models: Mapping[ModelName, ModelState]
    approvals: Approvals
    here: frozenset[Digest]
    """Bundles that are complete on this device."""
    denied: frozenset[Digest] = frozenset()
    """The fleet's deny list."""
    given_up: Mapping[Digest, tuple[str, str]] = field(default_factory=dict)
    """What this device denies itself, and nothing has lifted: problem code and detail."""
    linked: bool = False
    pins: Mapping[ModelName, LocalPin] = field(default_factory=dict)
    """In force here."""

    def name(self, model: ModelName, bundle: Digest) -> str:
        approved = self.approvals.get(bundle)
        return f"{model}/{approved.version}" if approved else f"{model} {short(bundle)}"


def the_model(standing: Standing, named: str) -> ModelName:
    """The model that is meant. Raises `InvalidRequest` OUT-S110, OUT-S120."""
    names = sorted(standing.models)
    if named:
        if named not in names:
            raise InvalidRequest("OUT-S110", f"no model named {named} here", do=_choose(names))
        return named
    if len(names) == 1:
        return names[0]
    if not names:
        raise InvalidRequest("OUT-D408", "no model was ever started here")
    raise InvalidRequest("OUT-S120", "this device runs several models", do=_choose(names))


def back(standing: Standing, model: ModelName) -> Digest:
    """What `rollback` pins: from a trial the proven version, else the one before it. Said twice,
    it means the same: who rolled back does not want to come back by doing so again.

    Raises `InvalidRequest` OUT-D408 if there is none here, and like `require_may_run`.
    """
    state, pin = standing.models[model], standing.pins.get(model)
    trying = state.serving is not None and state.serving != state.current
    if pin is not None and pin.digest == state.previous and (trying or pin.digest != state.serving):
        return pin.digest
    if pin is not None and pin.digest == state.serving and not trying:
        other = standing.name(model, state.previous) if state.previous else f"{model}/VERSION"
        why = f"{standing.name(model, pin.digest)} is pinned here"
        raise InvalidRequest("OUT-D408", why, do=f"another one: outrider-agent pin {other}")
    wanted = state.current if trying else state.previous
    if wanted is None or wanted == state.serving:
        what = standing.name(model, state.serving) if state.serving else model
        raise InvalidRequest("OUT-D408", f"nothing ran here before {what}")
    if wanted not in standing.here:
        name = standing.name(model, wanted)
        do = f"with a link: outrider-agent pin {name}; or: outrider-agent install --from"
        raise InvalidRequest("OUT-D408", f"{name} was removed to make room", do=do)
    require_may_run(standing, model, wanted)
    return wanted


def chosen(standing: Standing, reference: str) -> tuple[ModelName, Digest]:
    """What `pin MODEL/VERSION` pins.

    Raises `InvalidRequest` OUT-S120 for what is no reference, OUT-D407 for a version that is
    neither here nor can be fetched now, and like `require_may_run`.
    """
    model, slash, version = reference.partition("/")
    if not slash or not model or not version:
        raise InvalidRequest(
            "OUT-S120", f"{reference!r:.80} is not MODEL/VERSION", do="as digits/v1"
        )
    named = [d for d, a in standing.approvals.items() if (a.model, a.version) == (model, version)]
    found = next((bundle for bundle in named if bundle in standing.here), next(iter(named), None))
    if found is None:
        raise InvalidRequest("OUT-D407", f"no version {reference} is approved; {_here(standing)}")
    require_may_run(standing, model, found)
    if found not in standing.here and not standing.linked:
        why = f"{reference} would have to be fetched, and there is no link; {_here(standing)}"
        raise InvalidRequest("OUT-D407", why, do="give it network, or: outrider-agent install")
    return model, found


def require_may_run(standing: Standing, model: ModelName, bundle: Digest) -> None:
    """Raises `TrustError` OUT-T104, OUT-T105; `Failed` with the reason for which this device gave
    the bundle up."""
    name = standing.name(model, bundle)
    approved = standing.approvals.get(bundle)
    if approved is None:
        raise TrustError("OUT-T104", f"approvers do not list {name} any more")
    if approved.revoked:
        raise TrustError("OUT-T105", f"approvers revoked {name}")
    if bundle in standing.denied:
        raise TrustError("OUT-T105", f"{name} is on the fleet's deny list")
    if bundle in standing.given_up:
        code, detail = standing.given_up[bundle]
        why = f"{name} failed here, and a pin does not lift that: {detail}".rstrip(": ")
        raise Failed(code, why, do="an operator lifts it: outrider device allow")


def made(bundle: Digest, *, why: str, who: str, until: str, now_ms: int) -> LocalPin:
    """The pin as it is kept. Raises `InvalidRequest` OUT-S120 for an end that is none."""
    until_ms = None
    if until:
        try:
            until_ms = ahead(until, now_ms)
        except ValueError as error:
            raise InvalidRequest(
                "OUT-S120", f"--until {until}: no such moment", do=FORMS
            ) from error
        if until_ms <= now_ms:
            raise InvalidRequest("OUT-S120", f"--until {until}: {date(until_ms, now_ms)} is over")
    return LocalPin(bundle, until_ms, _line(why)[:MAX_WHY], _line(who)[:MAX_WHO], now_ms)


def _line(text: str) -> str:
    """One line that a terminal can show."""
    return "".join(each if each.isprintable() else " " for each in text).strip()


def _here(standing: Standing) -> str:
    names = sorted(
        standing.name(approved.model, bundle)
        for bundle, approved in standing.approvals.items()
        if bundle in standing.here
    )
    return f"here: {', '.join(names)}" if names else "no version is here"


def _choose(names: list[str]) -> str:
    return f"name one of: {', '.join(names)}" if names else "outrider-agent status"
