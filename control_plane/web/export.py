"""What a stick carries to devices without a link, and the payloads for it.

The small files come in one answer, because they only make sense together: one consistent set of
metadata, the plans and the deny list that it names, the signed documents of the devices.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse

from control_plane import stick
from control_plane.fleet.devices import document_of
from control_plane.stick import Carried
from control_plane.store.devices import Device
from control_plane.web.lookup import member_of
from control_plane.web.parts import Here, Parts
from control_plane.web.permissions import Who, needs
from control_plane.web.problems import FieldError, InvalidFields
from control_plane.web.selectors import chooser
from control_plane.web.unknown import unknown
from protocol import codec
from protocol import stick as layout
from protocol.bundle import Facts, Variant, decode_index, decode_manifest
from protocol.errors import InvalidRequest, OutriderError, Unavailable
from protocol.identifiers import Digest, ModelName, digest_of
from protocol.members import Policy, member_document
from protocol.payload import Hint, HintEntry
from protocol.plan import DenyList, Plan
from protocol.stick import Stick
from protocol.targets import DENY_LIST, plan_path

router = APIRouter(tags=["devices"])

TRIES: Final = 20
TRY_S: Final = 0.1
_SHOWN: Final = 20
"""Device names that the record of an export holds."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Either names or a selector."""

    devices: list[str] = field(default_factory=list)
    selector: str | None = None


@dataclass(frozen=True, slots=True)
class CarriedPayload:
    payload: Digest
    size_bytes: int


@dataclass(frozen=True, slots=True)
class CarriedVersion:
    model: str
    version: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class Export:
    """`note` is the stick's own description, written last; `files` are whole, by path."""

    note: dict[str, Any]
    files: dict[str, str]
    payloads: list[CarriedPayload]
    versions: list[CarriedVersion]


@router.post("/exports", summary="What a stick carries", dependencies=[needs("service")])
def export(choice: Choice, parts: Here, who: Who) -> Export:
    """For devices without a link: everything that they would have received over it.

    The payloads are fetched one by one from `payloads/{payload}`.
    """
    now_ms = parts.now_ms()
    devices = _devices(parts, choice)
    carried = [_carried(parts, device) for device in devices]
    roles, plans, deny = _consistent(parts)
    denied = codec.decode_signed(deny, DenyList, limit=codec.MAX_DENY_LIST).digests
    read = (codec.decode_signed(data, Plan, limit=codec.MAX_PLAN) for data in plans.values())
    mine = stick.plans_for(carried, read)
    if len(mine) > layout.MAX_MODELS:
        raise InvalidFields([FieldError("#", f"{len(mine)} models, a stick holds 64")])
    roots = parts.repository.roots()
    files = {_name(layout.root(number)): data for number, data in roots.items()}
    files |= {_name(layout.role(role)): data for role, data in roles.items()}
    files |= {_name(layout.plan(plan.model)): plans[plan.model] for plan in mine}
    files[layout.DENY] = deny
    for each in carried:
        signed = parts.repository.sign_document(each.document)
        files[_name(layout.document(each.document.device))] = signed
    packing = _Packing(parts, stick.bundles_held(carried))
    approvals = parts.repository.approvals()
    wanted = stick.bundles_for(carried, mine, approvals, denied, packing.fallback_of, now_ms)
    for bundle in wanted:
        packing.add(bundle)
    note = Stick(
        parts.settings.fleet,
        now_ms,
        tuple(each.id for each in devices),
        tuple(plan.model for plan in mine),
        choice.selector or ", ".join(each.local for each in devices[:3]),
        {**_versions(roles), "root": max(roots)},
    )
    about = {
        "devices": len(devices),
        "names": [each.local for each in devices[:_SHOWN]],
        "selector": choice.selector,
        "versions": [f"{each.model}/{approvals[each.bundle].version}" for each in wanted],
    }
    parts.store.happened(who.name, "exports", "stick.exported", about, now_ms)
    return Export(
        codec.to_wire(note),
        {path: data.decode() for path, data in (files | packing.files).items()},
        [CarriedPayload(each, size) for each, size in sorted(packing.payloads.items())],
        [CarriedVersion(b.model, approvals[b.bundle].version, b.bundle) for b in wanted],
    )


@router.get(
    "/payloads/{payload}",
    summary="A payload, by digest",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}},
    dependencies=[needs("service")],
)
def get_payload(payload: str, parts: Here) -> Response:
    """All frames of one encoding of a file, as one file. Its digest is that of its frame lists."""
    found = parts.store.payloads.find(payload)
    path = parts.settings.home / found.path if found is not None else None
    if path is None or not path.is_file():
        raise unknown("payload", payload, [])
    return FileResponse(path, media_type="application/octet-stream")


class _Packing:
    """Collects the files of bundles."""

    def __init__(self, parts: Parts, held: frozenset[Digest]) -> None:
        self._parts = parts
        self._bases = {
            member.digest
            for bundle in held
            if parts.blobs.has(bundle)
            for variant in self._variants(bundle)
            for member in variant.members
        }
        self.files: dict[str, bytes] = {}
        self.payloads: dict[Digest, int] = {}
        self.fallback_of = cache(self._fallback_of)

    def add(self, wanted: stick.Wanted) -> None:
        blobs = self._parts.blobs
        data = blobs.read(wanted.bundle)
        self.files[_name(layout.manifest(wanted.bundle))] = data
        for manifest in stick.variants_for(decode_index(data), wanted.facts):
            text = blobs.read(manifest)
            self.files[_name(layout.manifest(manifest))] = text
            for member in decode_manifest(text).members:
                self._offer(wanted.model, member.digest)

    def _offer(self, model: ModelName, file: Digest) -> None:
        entries = stick.entries_for(self._entries(model, file), self._bases)
        if not entries:
            raise Unavailable("OUT-F101", f"no payload of {file[:15]} of {model}")
        self.files[_name(layout.hint(model, file))] = codec.encode(Hint(entries))
        self.payloads |= {entry.payload: entry.size for entry in entries}

    def _entries(self, model: ModelName, file: Digest) -> list[HintEntry]:
        home, known = self._parts.settings.home, self._parts.store.payloads.of_file(model, file)
        return [each.entry for each in known if (home / each.path).is_file()]

    def _fallback_of(self, bundle: Digest) -> Digest | None:
        blobs = self._parts.blobs
        try:
            variant = next(self._variants(bundle))
            return member_document(blobs.read(variant.member("policy").digest), Policy).fallback
        except (KeyError, OutriderError):
            return None  # a bundle that cannot be read falls back to nothing; `add` says more

    def _variants(self, bundle: Digest) -> Iterator[Variant]:
        for each in decode_index(self._parts.blobs.read(bundle)).variants:
            yield decode_manifest(self._parts.blobs.read(each.digest))


def _devices(parts: Parts, choice: Choice) -> list[Device]:
    """Raises `InvalidRequest`: OUT-S110, OUT-S101, OUT-S120 for none, too many, or both forms."""
    if bool(choice.devices) == bool(choice.selector):
        raise InvalidFields([FieldError("#", "names devices, or has a selector")])
    if choice.selector:
        found = list(parts.store.devices.all(chooser(parts, choice.selector)))
    else:
        named = (member_of(parts, name) for name in choice.devices)
        found = list({device.id: device for device in named}.values())
    if not found:
        raise InvalidRequest("OUT-S110", "no device matches", do="outrider device list")
    if len(found) > layout.MAX_DEVICES:
        raise InvalidFields([FieldError("#", f"a stick is for {layout.MAX_DEVICES:,} devices")])
    return found


def _carried(parts: Parts, device: Device) -> Carried:
    state = device.state
    return Carried(
        document_of(parts.settings.fleet, device),
        state.facts if state is not None else Facts(),
        state.models if state is not None else None,
    )


def _consistent(parts: Parts) -> tuple[dict[str, bytes], dict[ModelName, bytes], bytes]:
    """Metadata in force, with the plans and the deny list that it names by their very bytes.

    The ticker writes those first and signs a moment later, so this may have to look again.
    Raises `Unavailable` OUT-T109 when they do not come together.
    """
    for _ in range(TRIES):
        roles = parts.repository.metadata()
        deny = parts.store.plans.deny_list()
        plans = {row.model: row.data for row in parts.store.plans.all()}
        if roles and deny is not None:
            here = {plan_path(model): digest_of(data) for model, data in plans.items()}
            if _listed(roles["rollouts"]) == here | {DENY_LIST: digest_of(deny.data)}:
                return roles, plans, deny.data
        time.sleep(TRY_S)
    raise Unavailable("OUT-T109", "the plans in force are not signed yet")


def _listed(rollouts: bytes) -> dict[str, Digest]:
    targets = json.loads(rollouts)["signed"]["targets"]
    return {path: f"sha256-{target['hashes']['sha256']}" for path, target in targets.items()}


def _versions(roles: Mapping[str, bytes]) -> dict[str, int]:
    return {role: int(json.loads(data)["signed"]["version"]) for role, data in roles.items()}


def _name(path: layout.Path) -> str:
    return "/".join(path)
