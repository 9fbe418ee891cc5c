"""A device joins over real HTTPS on loopback, or is told why it cannot."""

import base64
import http.server
import json
import os
import ssl
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from control_plane.fleet.authority import Authority
from control_plane.fleet.enrolment import Enrolment
from edge_agent import durable, identity
from edge_agent.enrol import enrol
from protocol.codec import MAX_BUNDLE_DOCUMENT, decode, encode
from protocol.enrolment import Broker, EnrolRequest, Token, decode_token, encode_token
from protocol.errors import InvalidRequest, OutriderError, PeerError, TrustError, Unavailable
from tests.fakes.enrolment import FakeEnrolmentStore

ROOT = b'{"signed": {"_type": "root", "version": 1}}'


@dataclass
class ControlPlane:
    """The real enrolment behind a real TLS server; `meddle` changes what it answers."""

    enrolment: Enrolment
    server: http.server.HTTPServer
    now_ms: int
    changes: dict[str, object] = field(default_factory=dict)
    raw: tuple[int, bytes] | None = None
    requests: list[EnrolRequest] = field(default_factory=list)

    def answer(self, body: bytes) -> tuple[int, bytes]:
        if self.raw is not None:
            return self.raw
        request = decode(body, EnrolRequest, limit=MAX_BUNDLE_DOCUMENT)
        self.requests.append(request)
        try:
            given = self.enrolment.enrol(request, self.now_ms)
        except InvalidRequest as error:
            problem = {"code": error.code, "detail": error.why, "help": error.do}
            return error.problem.status, json.dumps(problem).encode()
        return 201, encode(replace(given, **self.changes))  # type: ignore[arg-type]  # a table

    def token(self, **changes: str) -> str:
        text = self.enrolment.create_token(self.now_ms, labels={"site": "home"})
        return encode_token(replace(decode_token(text), **changes))


def serve(directory: Path, now_ms: int) -> Iterator[ControlPlane]:
    authority = Authority.create(directory, "local", now_ms)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.certificate("api"), authority.key("api"))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, data = here.answer(body) if self.path == "/v1/enrol" else (404, b"")
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
    enrolment = Enrolment(
        "local",
        authority,
        FakeEnrolmentStore(),
        f"https://127.0.0.1:{server.server_port}",
        Broker("127.0.0.1", 8883),
        lambda: ROOT,
        dev=True,
    )
    here = ControlPlane(enrolment, server, now_ms)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield here
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def control_plane(tmp_path):
    yield from serve(tmp_path / "ca", int(time.time() * 1000))


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


def files(home: Path) -> set[str]:
    return {path.name for path in (home / "identity").glob("*")}


def test_an_enrolled_device_knows_who_it_is(control_plane, home):
    made = enrol(control_plane.token(), home, name="cam-1")
    assert identity.load(home) == made
    assert (made.device, made.local, made.fleet) == ("local-cam-1", "cam-1", "local")
    assert (made.labels, made.dev, made.root) == ({"site": "home"}, True, ROOT)
    assert (made.broker.host, made.broker.port) == ("127.0.0.1", 8883)
    tls = made.broker.tls
    assert tls is not None
    ca = x509.load_pem_x509_certificate(tls.ca.read_bytes())
    certificate = x509.load_pem_x509_certificate(tls.certificate.read_bytes())
    key = load_pem_private_key(tls.key.read_bytes(), None)
    assert certificate.public_key() == key.public_key()
    assert ca.subject.rfc4514_string() == "CN=outrider local broker-ca"
    assert json.loads(encode(made.public))["device"] == "local-cam-1"


def test_the_key_stays_on_the_device_readable_by_its_owner_only(control_plane, home):
    enrol(control_plane.token(), home)
    key = home / "identity" / "device.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert b"PRIVATE" not in encode(control_plane.requests[0])


def test_a_device_enrols_once(control_plane, home):
    enrol(control_plane.token(), home, name="cam-1")
    with pytest.raises(InvalidRequest, match=r"D404.*as local-cam-1"):
        enrol(control_plane.token(), home)
    assert len(control_plane.requests) == 1


def test_a_used_token_is_refused_in_the_control_planes_words(control_plane, home, tmp_path):
    text = control_plane.token()
    enrol(text, home)
    with pytest.raises(InvalidRequest, match=r"A202.*it was used"):
        enrol(text, tmp_path / "other")
    assert not (tmp_path / "other/identity/enrolment.json").exists()


def test_an_expired_token_and_a_taken_name_are_told_apart(control_plane, home, tmp_path):
    enrol(control_plane.token(), home, name="cam-1")
    with pytest.raises(InvalidRequest, match="A203"):
        enrol(control_plane.token(), tmp_path / "other", name="cam-1")
    text = control_plane.token()
    control_plane.now_ms += 25 * 3_600_000
    with pytest.raises(InvalidRequest, match=r"A201.*1 h ago"):
        enrol(text, tmp_path / "other")


def test_a_server_of_another_authority_is_not_spoken_to(control_plane, home, tmp_path):
    other = Authority.create(tmp_path / "other-ca", "local", control_plane.now_ms)
    text = control_plane.token(c=base64.b64encode(other.api_ca_der).decode())
    with pytest.raises(TrustError, match="T118"):
        enrol(text, home)
    assert control_plane.requests == []


def test_a_server_of_another_name_is_not_spoken_to(control_plane, home, monkeypatch):
    import socket

    real = socket.create_connection

    def to_loopback(address, *rest, **options):
        return real(("127.0.0.1", address[1]), *rest, **options)

    monkeypatch.setattr(socket, "create_connection", to_loopback)
    address = f"https://cp.example:{control_plane.server.server_port}"
    with pytest.raises(TrustError, match=r"T118.*cp.example"):
        enrol(control_plane.token(u=address), home)
    assert control_plane.requests == []


def test_a_device_that_thinks_it_is_1970_enrols_all_the_same(tmp_path, home):
    # The other way round, which is the same to a certificate: the server's are of the far future.
    for control_plane in serve(tmp_path / "ca", int(time.time() * 1000) + 9 * 365 * 86_400_000):
        assert enrol(control_plane.token(), home, name="cam-1").local == "cam-1"


def test_another_root_than_the_tokens_is_refused(control_plane, home):
    control_plane.changes = {"root": ROOT.decode() + " "}
    with pytest.raises(TrustError, match="T108"):
        enrol(control_plane.token(), home)
    assert files(home) == {"device.key"}


def test_nobody_listening_is_worth_a_retry(control_plane, home):
    text = control_plane.token(u="https://127.0.0.1:1")
    with pytest.raises(Unavailable, match=r"N104.*https://127.0.0.1:1: Connection refused"):
        enrol(text, home)


def other_certificate(control_plane: ControlPlane) -> str:
    from tests.control_plane.fleet.test_enrolment import csr

    return control_plane.enrolment.authority.sign_csr(
        csr().encode(), "local-cam-1", control_plane.now_ms
    ).decode()


@pytest.mark.parametrize(
    "changes,why",
    [
        (lambda c: {"certificate": "nothing"}, "cannot be read"),
        (lambda c: {"broker_ca": "nothing"}, "cannot be read"),
        (lambda c: {"certificate": other_certificate(c)}, "for another key"),
        (lambda c: {"device": "local-cam-2"}, "not for local-cam-2"),
    ],
)
def test_an_identity_that_is_not_this_devices_is_refused(control_plane, home, changes, why):
    control_plane.changes = changes(control_plane)
    with pytest.raises(PeerError, match=why):
        enrol(control_plane.token(), home, name="cam-1")
    assert files(home) == {"device.key"}


@pytest.mark.parametrize(
    "status,body,family",
    [
        (200, b"", PeerError),
        (200, b"{}", PeerError),
        (200, b"[" * 5000, PeerError),
        (200, b'"' + b"x" * 3_000_000, PeerError),
        (404, b"<html>", PeerError),
        (302, b"", PeerError),
        (422, b'{"code": "OUT-X999"}', PeerError),
        (422, b'{"code": "OUT-A210", "detail": "no"}', InvalidRequest),
        (500, b"oops", Unavailable),
        (503, b'{"code": "OUT-S161", "detail": "busy"}', Unavailable),
        (429, b"", Unavailable),
    ],
)
def test_every_other_answer_ends_in_an_error_people_can_read(
    control_plane, home, status, body, family
):
    control_plane.raw = (status, body)
    with pytest.raises(family):
        enrol(control_plane.token(), home)
    assert files(home) == {"device.key"}


@pytest.mark.parametrize("text", ["", "hello", "e30", "ü", "A" * 20_000])
def test_text_that_is_no_token_is_refused_before_anything_is_made(home, text):
    with pytest.raises(InvalidRequest, match="A202"):
        enrol(text, home)
    assert not home.exists()


def test_a_token_with_an_unreadable_authority_is_refused(control_plane, home):
    with pytest.raises(InvalidRequest, match="A202"):
        enrol(control_plane.token(c="AAAA"), home)


def test_a_name_that_is_none_costs_no_token(control_plane, home):
    with pytest.raises(InvalidRequest, match="S120"):
        enrol(control_plane.token(), home, name="Kamera 1")
    assert control_plane.requests == []


WRITTEN = ("device.crt", "broker-ca.crt", "root.json", "enrolment.json")


@pytest.mark.parametrize("victim", WRITTEN)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_power_lost_at_any_file_leaves_enrolled_or_not_never_between(
    control_plane, home, monkeypatch, victim, moment
):
    class PowerCut(BaseException):
        pass

    real = durable.replace

    def failing(path: Path, data: bytes) -> None:
        if path.name == victim and moment == "before":
            path.with_name(f".{path.name}.new").write_bytes(data[:7])
            raise PowerCut
        real(path, data)
        if path.name == victim:
            raise PowerCut

    monkeypatch.setattr(durable, "replace", failing)
    with pytest.raises(PowerCut):
        enrol(control_plane.token(), home, name="cam-1")
    monkeypatch.setattr(durable, "replace", real)
    if (victim, moment) == ("enrolment.json", "after"):
        assert identity.load(home).local == "cam-1"
        return
    with pytest.raises(InvalidRequest, match="D403"):
        identity.load(home)
    # The name is taken by the lost identity; with another one a new token is all it needs.
    assert enrol(control_plane.token(), home, name="cam-2") == identity.load(home)


def test_an_interrupted_enrolment_keeps_its_key(control_plane, home):
    control_plane.raw = (500, b"")
    with pytest.raises(Unavailable):
        enrol(control_plane.token(), home)
    key = (home / "identity/device.key").read_bytes()
    control_plane.raw = None
    enrol(control_plane.token(), home)
    assert (home / "identity/device.key").read_bytes() == key


def test_a_damaged_key_of_an_interrupted_enrolment_is_made_again(control_plane, home):
    (home / "identity").mkdir(parents=True)
    (home / "identity/device.key").write_bytes(b"\0" * 200)
    made = enrol(control_plane.token(), home)
    assert identity.load(home) == made


def test_a_disk_that_does_not_take_it_says_so(control_plane, home):
    if os.geteuid() == 0:
        home.write_text("a file where the folder should be")
    else:
        home.mkdir(mode=0o500)
    with pytest.raises(OSError):
        enrol(control_plane.token(), home)


@pytest.mark.parametrize("file", ["device.key", *WRITTEN])
@pytest.mark.parametrize("damage", [None, b"", b"{}"])
def test_an_identity_with_a_missing_or_damaged_file_is_none(control_plane, home, file, damage):
    enrol(control_plane.token(), home)
    path = home / "identity" / file
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
        if file not in ("root.json", "enrolment.json"):
            return  # TLS finds those, at the first connection
    with pytest.raises(InvalidRequest, match="D403"):
        identity.load(home)


def test_an_unenrolled_device_is_told_how(home):
    with pytest.raises(OutriderError, match="D403") as caught:
        identity.load(home)
    assert "outrider-agent enrol" in caught.value.do


def test_a_token_needs_no_more_than_a_qr_code_holds(control_plane):
    assert isinstance(decode_token(control_plane.token()), Token)
    assert len(control_plane.token()) < 2953
