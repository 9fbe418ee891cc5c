"""The next certificate of a device, for whoever holds the key of the present one.

A device may bring a new key. If the answer is lost it comes again with the old one, so both count
until it has shown which of them it uses; whatever it had besides is revoked then.
"""

from __future__ import annotations

from typing import Final

from control_plane.fleet.authority import Authority, public_key
from control_plane.fleet.certificates import key_text, proves, recorded
from control_plane.fleet.stored import EnrolmentStore
from control_plane.store.certificates import Certificate
from protocol.enrolment import RenewRequest
from protocol.errors import InvalidRequest

DAY_MS: Final = 24 * 3_600_000
MOST_PER_DAY: Final = 8
"""Certificates of one device: more are a fault of it, or somebody who fills the store."""
MOST_KEYS: Final = 16
"""Newest keys of a device against which a proof is checked."""


def renew(authority: Authority, store: EnrolmentStore, request: RenewRequest, now_ms: int) -> bytes:
    """The certificate, PEM. It may follow one that has expired; time never locks a device out.

    Raises `InvalidRequest`: OUT-A210 (certificate request), OUT-A211 (unknown device, or a proof
    of another key), OUT-A212 (retired, or the key's certificate was revoked), OUT-A103 (too often).
    """
    # Cheap and safe to tell anybody; so a broken request does not reach the store.
    wanted = key_text(public_key(request.csr.encode()))
    with store.write():
        device = store.devices.get(request.device)
        had = store.certificates.of(request.device)
        proven = _proven(had, request)
        if device is None or device.id != request.device or proven is None:
            # The same for both: nobody learns which devices there are.
            raise InvalidRequest("OUT-A211", "the proof is not by a key that this device has")
        if device.retired_ms is not None:
            raise InvalidRequest("OUT-A212", f"{device.id} is no device of the fleet any more")
        for key, what in ((proven, "the key of the proof"), (wanted, "the new key")):
            if _is_revoked(had, key):
                raise InvalidRequest("OUT-A212", f"{what} was revoked for {device.id}")
        _require_seldom(had, now_ms)
        pem = authority.sign_csr(request.csr.encode(), device.id, now_ms)
        certificate = recorded(pem, device.id, now_ms)
        store.certificates.revoke(device.id, now_ms, "superseded", but_keys=(proven, wanted))
        store.certificates.add(certificate)
        store.devices.certify(device.id, certificate.fingerprint, now_ms)
    return pem


def _proven(had: tuple[Certificate, ...], request: RenewRequest) -> str | None:
    """The key by which the proof was made."""
    keys = list(dict.fromkeys(each.public_key for each in had))
    return next((key for key in keys[:MOST_KEYS] if proves(key, request)), None)


def _is_revoked(had: tuple[Certificate, ...], key: str) -> bool:
    """Whether certificates were issued for this key, and none of them is good any more."""
    revoked = [each.revoked_ms is not None for each in had if each.public_key == key]
    return bool(revoked) and all(revoked)


def _require_seldom(had: tuple[Certificate, ...], now_ms: int) -> None:
    lately = sum(now_ms - DAY_MS < each.issued_ms <= now_ms for each in had)
    if lately >= MOST_PER_DAY:
        raise InvalidRequest(
            "OUT-A103", f"{lately} certificates within a day", do="it may ask again tomorrow"
        )
