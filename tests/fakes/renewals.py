"""A control plane that renews certificates over real HTTPS on loopback, and devices for it.

`meddle` changes what it answers; the real one is tested in tests/control_plane and tests/e2e.
"""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from control_plane.fleet.authority import Authority
from edge_agent import enrol
from edge_agent.identity import FOLDER, KEY, Identity
from protocol.codec import decode, encode
from protocol.enrolment import (
    MAX_REQUEST,
    RENEW,
    Broker,
    EnrolAnswer,
    RenewAnswer,
    RenewRequest,
    proof_bytes,
)
from protocol.identifiers import digest_of

ROOT = '{"signed": {"_type": "root", "version": 1}}'
FLEET = "local"
BROKER = Broker("127.0.0.1", 8883)
DAY_MS = 86_400_000


@dataclass
class RenewingPlane:
    authority: Authority
    now_ms: int
    url: str = ""
    changes: dict[str, object] = field(default_factory=dict)
    raw: tuple[int, bytes] | None = None
    requests: list[RenewRequest] = field(default_factory=list)
    known: dict[str, ec.EllipticCurvePublicKey] = field(default_factory=dict)

    def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        if path != RENEW:
            return 404, b""
        request = decode(body, RenewRequest, limit=MAX_REQUEST)
        self.requests.append(request)
        if self.raw is not None:
            return self.raw
        try:
            signed = proof_bytes(request.device, request.csr)
            self.known[request.device].verify(request.signature, signed, ec.ECDSA(hashes.SHA256()))
        except (KeyError, InvalidSignature):
            return 403, b'{"code": "OUT-A211", "detail": "the proof is not of its key"}'
        return 200, encode(self.renewed(request))

    def renewed(self, request: RenewRequest) -> RenewAnswer:
        answer = RenewAnswer(
            self.authority.sign_csr(request.csr.encode(), request.device, self.now_ms).decode(),
            self.authority.broker_ca.decode(),
            self.authority.certificate("api-ca").read_text(),
            BROKER,
            self.url,
        )
        return replace(answer, **self.changes)  # type: ignore[arg-type]  # a table

    def device(self, home: Path, *, age_days: float = 500, name: str = "cam-1") -> Identity:
        """Enrolled so many days ago, here and there."""
        folder = home / FOLDER
        folder.mkdir(parents=True)
        key = enrol.device_key(folder / KEY)
        device = f"{FLEET}-{name}"
        csr = enrol.make_csr(key).encode()
        then_ms = self.now_ms - int(age_days * DAY_MS)
        certificate = self.authority.sign_csr(csr, device, then_ms).decode()
        self.known[device] = key.public_key()
        answer = EnrolAnswer(
            device, FLEET, certificate, self.authority.broker_ca.decode(), BROKER, ROOT
        )
        authority = self.authority.certificate("api-ca").read_text()
        root = digest_of(ROOT.encode())
        return enrol.settle(folder, answer, key, root, url=self.url, api_ca=authority)


@contextmanager
def renewing_plane(directory: Path, now_ms: int) -> Iterator[RenewingPlane]:
    """Its certificates are issued at `now_ms`."""
    authority = Authority.create(directory, FLEET, now_ms)
    here = RenewingPlane(authority, now_ms)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.certificate("api"), authority.key("api"))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status, data = here.answer(
                self.path, self.rfile.read(int(self.headers["Content-Length"]))
            )
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            return

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            return  # refused handshakes are what some tests are about

    server = Server(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    here.url = f"https://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield here
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def pair(folder: Path) -> tuple[bytes, bytes]:
    """Public keys of the device's key and of its certificate, which must always be the same."""
    from cryptography.hazmat.primitives import serialization

    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    key = serialization.load_pem_private_key((folder / KEY).read_bytes(), None)
    certificate = x509.load_pem_x509_certificate((folder / "device.crt").read_bytes())
    return key.public_key().public_bytes(*form), certificate.public_key().public_bytes(*form)
