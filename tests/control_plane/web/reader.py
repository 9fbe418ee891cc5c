"""A device of the fleet, and a payload that it may read over HTTP."""

from __future__ import annotations

import random
from dataclasses import dataclass

import httpx

from control_plane.encode.plain import encode
from control_plane.store.payloads import EncodedPayload
from protocol.enrolment import EnrolRequest, decode_token
from protocol.identifiers import digest_of
from protocol.payload import FRAME_SIZE, PAYLOAD_PATH, HintEntry, payload_proof_bytes
from tests.control_plane.web.conftest import Api
from tests.fakes.device_keys import Key, csr, new_key, signed


@dataclass
class Reader:
    """A device of the fleet, and a payload of several frames that the control plane has."""

    api: Api
    key: Key
    entry: HintEntry
    content: bytes
    lists: bytes
    device: str = "north-cam-1"

    def proof(self, payload: str = "", device: str = "", key: Key | None = None) -> str:
        device = device or self.device
        said = payload_proof_bytes(device, payload or self.entry.payload)
        return f"Outrider-Device {device}:{signed(key or self.key, said)}"

    def read(
        self, tail: str = "", proof: str | None = None, method: str = "GET", **headers: str
    ) -> httpx.Response:
        said = self.proof() if proof is None else proof
        return self.api.call(
            method,
            f"{PAYLOAD_PATH}{self.entry.payload}{tail}",
            headers={"Authorization": said, **headers},
        )


def kept(api: Api, content: bytes) -> tuple[HintEntry, bytes, bytes]:
    """A payload as a push leaves it: entry, bytes, frame lists."""
    file = api.folder / "file"
    file.write_bytes(content)
    name = digest_of(content)
    encoded = encode(file, name, api.parts.settings.payloads)
    path = str(encoded.path.relative_to(api.parts.settings.home))
    api.store.payloads.put(EncodedPayload("digits", name, encoded.entry, path, api.clock[0]))
    lists = encoded.path.with_name(f"{encoded.path.name}.lists").read_bytes()
    return encoded.entry, encoded.path.read_bytes(), lists


def enrolled(api: Api, name: str = "cam-1") -> Key:
    key = new_key()
    token = decode_token(api.parts.enrolment.create_token(api.clock[0])).t
    api.parts.enrolment.enrol(EnrolRequest(token, csr(key), name), api.clock[0])
    return key


def reader_of(api: Api) -> Reader:
    """Of a payload of five frames; the last is a short one."""
    entry, content, lists = kept(api, random.Random(7).randbytes(4 * FRAME_SIZE + 4321))
    assert entry.frames == 5
    return Reader(api, enrolled(api), entry, content, lists)
