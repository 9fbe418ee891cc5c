"""Models and their versions: what there is, how far approval is, and approvers' signatures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import ConfigDict

from control_plane.signing.drafts import SignatureStatus
from control_plane.store.bundles import BundleRow, BundleState
from control_plane.web.cursors import DEFAULT_LIMIT, MAX_LIMIT, Page, after, cursor
from control_plane.web.drafts import approval_of, draft_of
from control_plane.web.idempotency import Repeatable
from control_plane.web.lookup import bundle_of, known_model
from control_plane.web.parts import Here, Parts
from control_plane.web.permissions import Who, needs
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
class Signatures:
    """Of approvers: "1 of 1" is signed of needed. `missing` names who has not signed."""

    signed: int
    needed: int
    by: list[str]
    missing: list[str]


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """`devices` run it now, as far as they have reported. `signatures` null: not known yet."""

    model: str
    version: str
    reference: str
    state: BundleState
    signatures: Signatures | None
    devices: int
    pushed: str
    digest: Digest
    size_bytes: int


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
class Draft:
    """`metadata` is the text of the whole list as it would be published; its bytes are signed."""

    draft: int
    """Version of role models that it would be."""
    id: str
    signatures: Signatures
    metadata: str


@dataclass(frozen=True, slots=True)
class Signature:
    __pydantic_config__ = ConfigDict(extra="forbid")
    keyid: str
    sig: str
    """Hexadecimal."""


@dataclass(frozen=True, slots=True)
class Signing:
    """An approver's signature over the draft of this version number."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    draft: int
    signature: Signature


@dataclass(frozen=True, slots=True)
class Signed:
    signed: int
    needed: int
    by: list[str]
    missing: list[str]
    complete: bool
    """Now approved: it reaches devices with the next plan that names it."""


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
    return Page(
        [_version(parts, row) for row in found.items],
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
    return ModelVersionDetails(_version(parts, row), row.card, variants)


@router.get(
    "/models/{model}/versions/{version}/draft",
    summary="What approvers would sign",
    dependencies=[needs("read")],
)
def get_draft(model: str, version: str, parts: Here) -> Draft:
    """409 OUT-T111 once it is approved. Verify it with your own TUF client before you sign."""
    draft = draft_of(parts, bundle_of(parts, f"{model}/{version}"))
    status = parts.repository.status(draft)
    return Draft(draft.version, draft.id, _signatures(status), draft.data.decode())


@router.post(
    "/models/{model}/versions/{version}/signatures",
    summary="Add an approver's signature",
    status_code=201,
    dependencies=[needs("approve")],
)
def add_signature(model: str, version: str, signing: Signing, parts: Here, who: Who) -> Signed:
    """At the threshold the version is approved. The server cannot make a signature itself."""
    row = bundle_of(parts, f"{model}/{version}")
    draft = draft_of(parts, row)
    given = signing.signature
    status = parts.repository.add_signature(draft.id, signing.draft, given.keyid, given.sig)
    if status.complete:
        with parts.store.write():
            parts.store.bundles.set_state(row.digest, "approved")
            about = {"version": row.version, "digest": row.digest, "by": list(status.by)}
            topic = f"models/{row.model}"
            parts.store.happened(who.name, topic, "model.approved", about, parts.now_ms())
        parts.wake()
    return Signed(
        status.signed, status.needed, list(status.by), list(status.missing), status.complete
    )


def _model(parts: Parts, name: str) -> Model:
    newest = parts.store.bundles.page(name, None, 1).items[0]
    running = parts.store.devices.running(name)
    return Model(name, parts.store.bundles.count(name), newest.version, sum(running.values()))


def _version(parts: Parts, row: BundleRow) -> ModelVersion:
    status = approval_of(parts, row)
    return ModelVersion(
        row.model,
        row.version,
        row.reference,
        row.state,
        _signatures(status) if status else None,
        parts.store.devices.running(row.model).get(row.digest, 0),
        rfc3339(row.pushed_ms),
        row.digest,
        row.size_bytes,
    )


def _signatures(status: SignatureStatus) -> Signatures:
    return Signatures(status.signed, status.needed, list(status.by), list(status.missing))


def _next(names: list[str], limit: int) -> str | None:
    return cursor([names[limit - 1]], "models") if len(names) > limit else None


def _behind(key: tuple[str | int, ...] | None, model: str) -> str | None:
    return cursor(key, "versions", model) if key else None
