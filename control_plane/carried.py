"""Takes records that somebody carried here: verified by the device's own key, then stored like any.

The device is the one of the certificate that signed. A stick is no contact with the device, so
nothing here says that it was heard of.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import NameOID

from control_plane.fleet.authority import Authority
from control_plane.fleet.certificates import signs
from control_plane.ingest import checked
from control_plane.store import Store
from control_plane.unpack import unpack
from protocol import records_file
from protocol.batch import read_upload
from protocol.errors import InvalidRequest, PeerError, TrustError
from protocol.identifiers import DeviceId, FleetName, split_device_id
from protocol.records_file import Opened
from protocol.reported import ReportedState


@dataclass(frozen=True, slots=True)
class Imported:
    """What one file brought. `records` is the sum of the four below it."""

    device: DeviceId
    name: str
    made_ms: int
    """By the device's clock."""
    number: int
    records: int
    stored: int
    known: int
    """Stored already, by the link or another stick."""
    conflicts: int
    """Came with two contents; also among those known."""
    late: int
    """Of windows that retention has removed."""


def take(store: Store, authority: Authority, data: bytes, now_ms: int, who: str) -> Imported:
    """Verify a file and store what is in it, all or nothing; again is as good as once.

    Raises `InvalidRequest` OUT-D505 for a file that cannot be read, or brings what no device
    sends; `TrustError` OUT-D504 for one that no device of the fleet signed.
    """
    opened = records_file.take_apart(data)
    device = _signer(store, authority, opened)
    head = opened.head
    tally = {"records": 0, "stored": 0, "covered": 0, "conflicts": 0, "late": 0}
    with store.write():
        for batch in opened.batches:
            for name, count in _store(store, device, batch, now_ms).items():
                tally[name] += count
        local = split_device_id(device)[1]
        about = {"number": head.number, "made_ms": head.made_ms, "batches": head.batches, **tally}
        store.happened(who, f"devices/{local}", "device.records_imported", about, now_ms)
    return Imported(
        device,
        local,
        head.made_ms,
        head.number,
        tally["records"],
        tally["stored"],
        tally["covered"],
        tally["conflicts"],
        tally["late"],
    )


def _store(store: Store, device: DeviceId, batch: bytes, now_ms: int) -> dict[str, int]:
    try:
        upload = read_upload(batch, unpack)
        found = [checked(record) for record in upload.x]
    except PeerError as error:
        raise InvalidRequest("OUT-D505", error.why) from error
    done = store.records.ingest(device, [(record, text) for record, text, _ in found])
    states = [body for _, _, body in found if isinstance(body, ReportedState)]
    if states:
        store.devices.put_state(device, max(states, key=lambda state: state.order), now_ms)
    return {
        "records": len(found),
        "stored": done.stored,
        "covered": done.covered,
        "conflicts": done.conflicts,
        "late": done.late,
    }


def _signer(store: Store, authority: Authority, opened: Opened) -> DeviceId:
    """The device that signed. An expired certificate will do: time locks no device out."""
    certificate = _certificate(opened, authority)
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    device = str(names[0].value) if names else ""
    if not hmac.compare_digest(device, opened.head.device) or not _of(device, authority.fleet):
        raise TrustError("OUT-D504", f"the certificate is not that of {opened.head.device}")
    if not store.devices.is_member(device):
        raise TrustError("OUT-D504", f"{device} is no device of the fleet")
    serial = f"{certificate.serial_number:x}"
    for known in store.certificates.of(device):
        if known.serial == serial and known.revoked_ms is not None:
            raise TrustError("OUT-D504", f"the certificate was revoked: {known.reason}")
    if not signs(certificate.public_key(), opened.signature, opened.signed):
        raise TrustError("OUT-D504", f"it is not signed by {device}")
    return device


def _certificate(opened: Opened, authority: Authority) -> x509.Certificate:
    """The device's certificate, issued by this fleet's device authority."""
    try:
        certificate = x509.load_pem_x509_certificate(opened.head.certificate.encode())
        issuer = x509.load_pem_x509_certificate(authority.certificate("device-ca").read_bytes())
        certificate.verify_directly_issued_by(issuer)
        certificate.public_key()
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise TrustError("OUT-D504", "its certificate is not of this fleet") from error
    return certificate


def _of(device: str, fleet: FleetName) -> bool:
    try:
        return split_device_id(device)[0] == fleet
    except ValueError:
        return False
