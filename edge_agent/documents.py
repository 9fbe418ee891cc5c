"""Plans, deny list and device document: verified bytes to types.

Functions return the document and the mark that it sets; who keeps the marks compares them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import FormatError, VerificationError
from securesystemslib.signer import Key

from edge_agent.marks import Mark
from protocol import codec
from protocol.device import PAYLOAD_TYPE, DeviceDocument
from protocol.errors import PeerError, TrustError
from protocol.identifiers import DeviceId, FleetName, ModelName, digest_of
from protocol.plan import DenyList, Plan
from protocol.targets import PlanTarget

MAX_SIGNATURES: Final = 8


def plan(
    data: bytes, target: PlanTarget | None, fleet: FleetName, model: ModelName, keys: str
) -> tuple[Plan, Mark]:
    """Raises `TrustError` (OUT-T106), `PeerError`, `NotUnderstood`."""
    what = f"plan of {model}"
    listed = _require_listed(data, target, what)
    document = codec.decode_signed(data, Plan, limit=codec.MAX_PLAN)
    if (document.fleet, document.model) != (fleet, model):
        raise TrustError("OUT-T106", f"{what}: it is for {document.fleet}, {document.model}")
    return document, Mark(keys, document.version, listed.digest)


def deny(
    data: bytes, target: PlanTarget | None, fleet: FleetName, keys: str
) -> tuple[DenyList, Mark]:
    """Raises like `plan`."""
    listed = _require_listed(data, target, "deny list")
    document = codec.decode_signed(data, DenyList, limit=codec.MAX_DENY_LIST)
    if document.fleet != fleet:
        raise TrustError("OUT-T106", f"deny list: it is for fleet {document.fleet}")
    return document, Mark(keys, document.version, listed.digest)


def device(
    data: bytes,
    keys: Sequence[Key],
    threshold: int,
    fleet: FleetName,
    name: DeviceId,
    key_set: str,
) -> tuple[DeviceDocument, Mark]:
    """Raises `TrustError` (OUT-T102), `PeerError`, `NotUnderstood`."""
    envelope = _envelope(data)
    if envelope.payload_type != PAYLOAD_TYPE:
        raise TrustError("OUT-T102", f"payload type {envelope.payload_type!r:.80}")
    try:
        envelope.verify(list(keys), threshold)
    except (VerificationError, ValueError) as error:
        raise TrustError("OUT-T102", str(error)) from error
    document = _payload(envelope)
    if (document.fleet, document.device) != (fleet, name):
        raise TrustError("OUT-T102", f"it is for {document.device}, this is {name}")
    return document, Mark(key_set, document.version, digest_of(envelope.payload))


def require_follows(old: Mark | None, new: Mark, what: str) -> None:
    if old is not None and not old.allows(new):
        raise TrustError(
            "OUT-T106", f"{what}: version {new.version} after {old.version} or changed without one"
        )


def require_newer_document(old: Mark | None, new: Mark) -> None:
    if old is not None and not old.allows(new):
        raise TrustError(
            "OUT-T102", f"version {new.version} after {old.version}, or changed without a new one"
        )


def recall(mark: Mark | None, data: bytes, into: type[codec.T], limit: int) -> codec.T:
    """A document from our own disk, if it is the one verified last. Raises `TrustError`."""
    if mark is None or not mark.recalls(digest_of(data)):
        raise TrustError("OUT-T106", "not what was verified last")
    return codec.decode_signed(data, into, limit=limit)


def recall_device(mark: Mark | None, data: bytes) -> DeviceDocument:
    envelope = _envelope(data)
    if mark is None or not mark.recalls(digest_of(envelope.payload)):
        raise TrustError("OUT-T102", "not what was verified last")
    return _payload(envelope)


def _require_listed(data: bytes, target: PlanTarget | None, what: str) -> PlanTarget:
    if target is None:
        raise TrustError("OUT-T106", f"{what}: trusted rollouts does not list it")
    if len(data) != target.length or digest_of(data) != target.digest:
        raise TrustError("OUT-T106", f"{what}: not the bytes that trusted rollouts lists")
    return target


def _payload(envelope: Envelope) -> DeviceDocument:
    return codec.decode_signed(envelope.payload, DeviceDocument, limit=codec.MAX_DEVICE_DOCUMENT)


def _envelope(data: bytes) -> Envelope:
    if len(data) > codec.MAX_DEVICE_DOCUMENT:
        raise PeerError("OUT-N211", f"{len(data):,} bytes, at most {codec.MAX_DEVICE_DOCUMENT:,}")
    try:
        raw = json.loads(data)
        if len(raw["signatures"]) > MAX_SIGNATURES:
            raise ValueError(f"more than {MAX_SIGNATURES} signatures")
        return Envelope.from_dict(raw)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, FormatError) as error:
        raise PeerError("OUT-N210", f"not a DSSE envelope: {error!s:.120}") from error
