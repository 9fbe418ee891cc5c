"""Models and their versions: what there is, how far approval is, and taking a draft back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import ConfigDict

from control_plane.signing.drafts import Draft as Drafted
from control_plane.signing.review import OnDevice
from control_plane.store.bundles import BundleRow, BundleState
from control_plane.web.approval import approval_of, draft_of, pending, withdraw
from control_plane.web.cursors import DEFAULT_LIMIT, MAX_LIMIT, Page, after, cursor
from control_plane.web.drafts import (
    Draft,
    OpenDraft,
    Reason,
    Signatures,
    Signed,
    Signing,
    opened,
    shown,
    signatures,
    signed,
)
from control_plane.web.idempotency import Repeatable
from control_plane.web.lookup import bundle_of, known_model
from control_plane.web.parts import Here, Parts
from control_plane.web.permissions import Who, needs
from protocol.approval import Approvals
from protocol.bundle import Needs, decode_index
from protocol.identifiers import Digest
from protocol.wording import rfc3339

router = APIRouter(tags=["models"], route_class=Repeatable)


@dataclass(frozen=True, slots=True)
class Model:
    model: str
    versions: int
    newest: str
    """The version pushed last."""
    devices: int
    """That run any version of it."""


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """`devices` run it now, as far as they have reported. `signatures` null: not known yet, or
    nobody is asked for any."""

    model: str
    version: str
    reference: str
    state: BundleState
    signatures: Signatures | None
    devices: int
    pushed: str
    digest: Digest
    size_bytes: int
    why: str
    """Of whoever revoked, rejected or withdrew it."""
    on_device: OnDevice | None
    """What devices do that run it; null unless it is revoked."""
    denied: bool
    """By an operator: it starts nowhere, whatever approvers say."""
    denied_why: str
    pending: OpenDraft | None
    """A change of what is in force that approvers are asked to sign."""


@dataclass(frozen=True, slots=True)
class Variant:
    digest: Digest
    profile: Digest
    needs: Needs


@dataclass(frozen=True, slots=True)
class ModelVersionDetails:
    version: ModelVersion
    card: dict[str, Any]
    variants: list[Variant]
    """In the order in which a device looks for one that fits."""


@dataclass(frozen=True, slots=True)
class Withdrawal:
    __pydantic_config__ = ConfigDict(extra="forbid")
    why: Reason = ""


@router.get("/models", summary="Models", dependencies=[needs("read")])
def list_models(
    parts: Here,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    cursor: str | None = None,
) -> Page[Model]:
    names = parts.store.bundles.models()
    start = after(cursor, "models")
    rest = [name for name in names if start is None or name > str(start[0])]
    return Page([_model(parts, name) for name in rest[:limit]], _next(rest, limit), len(names))


@router.get(
    "/models/{model}/versions",
    summary="Versions of a model, newest first",
    dependencies=[needs("read")],
)
def list_versions(
    model: str,
    parts: Here,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    cursor: str | None = None,
) -> Page[ModelVersion]:
    known_model(parts, model)
    found = parts.store.bundles.page(model, after(cursor, "versions", model), limit)
    about = _About.now(parts)
    return Page(
        [_version(parts, row, about) for row in found.items],
        _behind(found.after, model),
        parts.store.bundles.count(model),
    )


@router.get(
    "/models/{model}/versions/{version}",
    summary="One version: card, variants, approval",
    dependencies=[needs("read")],
)
def get_version(model: str, version: str, parts: Here) -> ModelVersionDetails:
    row = bundle_of(parts, f"{model}/{version}")
    needs = {v.digest: v.needs for v in decode_index(parts.blobs.read(row.digest)).variants}
    variants = [Variant(m.digest, m.profile, needs[m.digest]) for m in row.manifests]
    return ModelVersionDetails(_version(parts, row, _About.now(parts)), row.card, variants)


@router.get(
    "/models/{model}/versions/{version}/draft",
    summary="What approvers would sign",
    dependencies=[needs("read")],
)
def get_version_draft(model: str, version: str, parts: Here) -> Draft:
    """409 OUT-T111 once it is approved. Verify it with your own TUF client before you sign."""
    return shown(parts, draft_of(parts, bundle_of(parts, f"{model}/{version}")))


@router.post(
    "/models/{model}/versions/{version}/signatures",
    summary="Add an approver's signature",
    status_code=201,
    dependencies=[needs("approve")],
)
def add_signature(model: str, version: str, signing: Signing, parts: Here, who: Who) -> Signed:
    """At the threshold the version is approved. The server cannot make a signature itself."""
    draft = draft_of(parts, bundle_of(parts, f"{model}/{version}"))
    return signed(parts, draft, signing, who.name)


@router.post(
    "/models/{model}/versions/{version}/withdraw",
    summary="Take a version back",
    dependencies=[needs("operate")],
)
def withdraw_version(
    model: str, version: str, parts: Here, who: Who, asked: Withdrawal = Withdrawal()
) -> ModelVersion:
    """Before it is approved. It can be pushed again, also with other content."""
    withdraw(parts, bundle_of(parts, f"{model}/{version}"), asked.why, who.name)
    row = bundle_of(parts, f"{model}/{version}")
    return _version(parts, row, _About.now(parts))


@dataclass(frozen=True, slots=True)
class _About:
    """What is said of versions elsewhere, looked up once for all of a list."""

    approvals: Approvals
    pending: Mapping[Digest, Drafted]
    denied: Mapping[Digest, str]

    @classmethod
    def now(cls, parts: Parts) -> _About:
        denied = {each.digest: each.why for each in parts.store.plans.denied()}
        return cls(parts.repository.approvals(), pending(parts), denied)


def _model(parts: Parts, name: str) -> Model:
    newest = parts.store.bundles.page(name, None, 1).items[0]
    running = parts.store.devices.running(name)
    return Model(name, parts.store.bundles.count(name), newest.version, sum(running.values()))


def _version(parts: Parts, row: BundleRow, about: _About) -> ModelVersion:
    status = approval_of(parts, row)
    approved, change = about.approvals.get(row.digest), about.pending.get(row.digest)
    return ModelVersion(
        row.model,
        row.version,
        row.reference,
        row.state,
        signatures(status) if status else None,
        parts.store.devices.running(row.model).get(row.digest, 0),
        rfc3339(row.pushed_ms),
        row.digest,
        row.size_bytes,
        row.why,
        approved.terms.on_device if approved is not None and approved.revoked else None,
        row.digest in about.denied,
        about.denied.get(row.digest, ""),
        opened(parts, change) if change is not None else None,
    )


def _next(names: list[str], limit: int) -> str | None:
    return cursor([names[limit - 1]], "models") if len(names) > limit else None


def _behind(key: tuple[str | int, ...] | None, model: str) -> str | None:
    return cursor(key, "versions", model) if key else None
