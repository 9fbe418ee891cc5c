"""Which devices may read payloads over HTTP: those that prove that they hold a key of theirs.

A proof opens one payload to one device, at any time: it is worth no more to whoever has seen it,
and it travels only inside of TLS, to the control plane.
"""

from __future__ import annotations

import base64
import binascii

from cryptography.hazmat.primitives import serialization

from control_plane.fleet.certificates import signs
from control_plane.fleet.renewal import MOST_KEYS
from control_plane.fleet.stored import EnrolmentStore
from protocol.errors import InvalidRequest
from protocol.identifiers import DeviceId, Digest
from protocol.payload import payload_proof_bytes


def require_reader(
    store: EnrolmentStore, device: DeviceId, payload: Digest, signature: str
) -> None:
    """`signature` is base64, over `payload_proof_bytes`. Changes nothing.

    Raises `InvalidRequest`: OUT-A211 (unknown device, or a proof of another key, device or
    payload), OUT-A212 (retired, or the key's certificates were revoked).
    """
    row = store.devices.get(device)
    good: dict[str, bool] = {}
    for each in store.certificates.of(device):
        good[each.public_key] = good.get(each.public_key, False) or each.revoked_ms is None
    proven = _proven(list(good)[:MOST_KEYS], payload_proof_bytes(device, payload), signature)
    if row is None or row.id != device or proven is None:
        # The same for all: nobody learns which devices there are, or which payloads.
        raise InvalidRequest("OUT-A211", "the proof is not by a key that this device has")
    if row.retired_ms is not None:
        raise InvalidRequest("OUT-A212", f"{device} is no device of the fleet any more")
    if not good[proven]:
        raise InvalidRequest("OUT-A212", f"the key of the proof was revoked for {device}")


def _proven(keys: list[str], signed: bytes, signature: str) -> str | None:
    """The key (PEM) by which the proof was made."""
    try:
        given = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        return None
    loaded = ((key, serialization.load_pem_public_key(key.encode())) for key in keys)
    return next((text for text, key in loaded if signs(key, given, signed)), None)
