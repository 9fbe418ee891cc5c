"""What can be sent to the API: by anybody, by a device, by an operator who pushes a bundle."""

from __future__ import annotations

import asyncio
import io
import tarfile
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import FastAPI

from control_plane.web.app import MAX_BODY, create_app, max_body
from control_plane.web.auth import PUBLIC, PUBLIC_BELOW
from control_plane.web.bundles import incoming
from control_plane.web.permissions import endpoints
from protocol.enrolment import MAX_REQUEST, PATH, RENEW, TOKEN_LIFE_MS, decode_token
from protocol.identifiers import digest_of
from protocol.payload import PAYLOAD_PATH
from tests.control_plane.web.conftest import Api


def enrol(api: Api, text: str, name: str) -> Any:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    csr = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    body = {"token": decode_token(text).t, "csr": csr, "name": name}
    return api.call("POST", PATH, json=body, headers={"Authorization": ""})


def test_an_enrolment_token_is_good_once(api):
    text = api.post("tokens", {"name": None}).json()["token"]
    assert enrol(api, text, "cam-1").status_code == 201
    again = enrol(api, text, "cam-2")
    assert again.json()["code"] == "OUT-A202"
    assert api.get("devices/cam-2").status_code == 404


def test_an_enrolment_token_expires(api):
    text = api.post("tokens").json()["token"]
    api.clock[0] += TOKEN_LIFE_MS
    assert enrol(api, text, "cam-1").json()["code"] == "OUT-A201"
    assert api.get("devices/cam-1").status_code == 404


# --- sizes ----------------------------------------------------------------------------------------

CHUNK = 64 * 1024


class Endless:
    """A request whose body never ends, and what the application took of it."""

    def __init__(self, method: str, path: str, headers: list[tuple[bytes, bytes]]) -> None:
        self.scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "https",
            "server": ("127.0.0.1", 8400),
            "client": ("127.0.0.1", 1),
            "headers": [(b"content-type", b"application/json"), *headers],
        }
        self.taken = 0
        self.status = 0

    async def receive(self) -> dict[str, Any]:
        self.taken += CHUNK
        return {"type": "http.request", "body": b" " * CHUNK, "more_body": True}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]

    def carry_out(self, app: FastAPI) -> None:
        asyncio.run(app(self.scope, self.receive, self.send))


def public_routes(app: FastAPI) -> list[tuple[str, str]]:
    return [
        (method, each.path.replace("{code}", "OUT-A101").replace("{name}", digest_of(b"none")))
        for each in endpoints(app.routes)
        for method in each.methods
        if each.path in PUBLIC or each.path.startswith(PUBLIC_BELOW)
    ]


def test_no_public_route_takes_more_than_its_limit(api):
    app = create_app(api.parts)
    routes = public_routes(app)
    assert {path for _, path in routes} >= {PATH, RENEW}
    for method in ("GET", "HEAD"):
        assert (method, f"{PAYLOAD_PATH}{digest_of(b'none')}") in routes
    for method, path in [*routes, ("POST", "/v1/unknown"), ("POST", "/v1/fleets/north/bundles")]:
        endless = Endless(method, path, [(b"transfer-encoding", b"chunked")])
        endless.carry_out(app)
        assert endless.taken <= max_body(method, path) + CHUNK, path
        assert endless.taken <= MAX_BODY
        assert endless.status in (200, 401, 404, 413), path
        claimed = Endless(method, path, [(b"content-length", b"%d" % 2**63)])
        claimed.carry_out(app)
        assert claimed.taken == 0, path
        assert claimed.status in (401, 413), path


def test_what_anybody_may_send_is_small(api):
    assert max_body("POST", PATH) == max_body("POST", RENEW) == MAX_REQUEST
    for path in (PATH, RENEW):
        answer = api.call("POST", path, content=b" " * (MAX_REQUEST + 1))
        assert (answer.status_code, answer.json()["code"]) == (413, "OUT-N211")


# --- bundles --------------------------------------------------------------------------------------


def tar_of(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, link, 2 if kind == tarfile.REGTYPE else 0
        archive.addfile(info, io.BytesIO(b"{}"))
    return stream.getvalue()


TARS = {
    "a path that leaves the folder": tar_of("../../escaped"),
    "a path from the root": tar_of("/tmp/or-escaped"),
    "a path that leaves the blobs": tar_of("blobs/sha256/../../../escaped"),
    "a symbolic link": tar_of("index.json", tarfile.SYMTYPE, "/etc/passwd"),
    "a hard link": tar_of("index.json", tarfile.LNKTYPE, "../operator.token"),
    "a device": tar_of("index.json", tarfile.CHRTYPE),
}


@pytest.mark.parametrize("fault", TARS)
def test_a_pushed_bundle_writes_nothing_outside_its_folder(api, fault):
    home = api.parts.settings.home
    before = sorted(path for path in api.folder.rglob("*") if path.suffix not in (".sqlite-wal",))
    answer = api.call("POST", "bundles", content=TARS[fault])
    assert (answer.status_code, answer.json()["code"]) == (422, "OUT-B120")
    left = incoming(home)
    after = [path for path in api.folder.rglob("*") if path != left]
    assert sorted(path for path in after if path.suffix not in (".sqlite-wal",)) == before
    assert list(left.iterdir()) == []
