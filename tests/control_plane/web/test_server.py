"""The API's server against clients that are slow, greedy, old or speak no TLS."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Request

from control_plane.web import impatient
from control_plane.web.impatient import Impatient
from control_plane.web.listener import Listener, listen
from control_plane.web.server import MAX_HEAD, ApiServer
from tests.fakes.certificates import Authority
from tests.fakes.conditions import eventually

LONG_S = 60.0
SHORT_S = 0.3


@dataclass
class Served:
    server: ApiServer
    listener: Listener
    ca: Path

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca)

    def get(self, path: str = "/", source: str = "127.0.0.1", **more: object) -> httpx.Response:
        transport = httpx.HTTPTransport(verify=self.context(), local_address=source)
        with httpx.Client(transport=transport, timeout=LONG_S) as client:
            return client.get(f"https://127.0.0.1:{self.port}{path}", **more)  # type: ignore[arg-type]  # passed on

    def raw(self, source: str = "127.0.0.1") -> socket.socket:
        """A TCP connection that has said nothing."""
        return socket.create_connection(
            ("127.0.0.1", self.port), timeout=LONG_S, source_address=(source, 0)
        )

    def opened(self) -> ssl.SSLSocket:
        """A TLS connection that has sent nothing."""
        return self.context().wrap_socket(self.raw(), server_hostname="127.0.0.1")


def make_app() -> FastAPI:
    app = FastAPI()

    @app.get("/")
    def who(request: Request) -> str:
        assert request.client is not None
        return request.client.host

    @app.post("/")
    async def take(request: Request) -> int:
        return len(await request.body())

    return app


@contextmanager
def serving(tmp_path: Path) -> Iterator[Served]:
    authority = Authority.create(tmp_path)
    listener = listen("127.0.0.1", 0)
    server = ApiServer(make_app(), listener, *authority.issue("api", server=True))
    server.start()
    try:
        yield Served(server, listener, authority.ca)
    finally:
        server.stop()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as made:
        yield made


def ended(connection: socket.socket) -> bool:
    """Whether the other side ends it; waits for that."""
    try:
        return connection.recv(65_536) == b""
    except ConnectionResetError:
        return True
    except ssl.SSLError:
        # Cut off without the goodbye of TLS.
        return True


def handshake(
    client: ssl.SSLContext, server: ssl.SSLContext | None, address: tuple[str, int] | None
) -> str | None:
    """The version that is agreed on, with the server at `address` or one of `server`'s own."""
    with closing(socket.create_server(("127.0.0.1", 0))) as own:
        if server is not None:

            def answer() -> None:
                with suppress(OSError):
                    server.wrap_socket(own.accept()[0], server_side=True).close()

            threading.Thread(target=answer, daemon=True).start()
            address = own.getsockname()
        assert address is not None
        with (
            socket.create_connection(address, timeout=LONG_S) as plain,
            client.wrap_socket(plain) as connection,
        ):
            return connection.version()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_below_1_2_is_refused(served: Served, tmp_path: Path):
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    lenient = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    lenient.minimum_version = ssl.TLSVersion.TLSv1_1
    lenient.set_ciphers("ALL:@SECLEVEL=0")
    lenient.load_cert_chain(tmp_path / "test-api.crt", tmp_path / "test-api.key")
    # It would speak 1.1 with a server that lets it: so below it is our server that refuses.
    assert handshake(old, lenient, None) == "TLSv1.1"
    with pytest.raises(ssl.SSLError):
        handshake(old, None, ("127.0.0.1", served.port))
    with served.opened() as connection:
        assert connection.version() in ("TLSv1.2", "TLSv1.3")


def test_plain_http_is_not_answered(served: Served):
    with served.raw() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        said = b""
        with suppress(ConnectionResetError):
            while block := connection.recv(65_536):
                said += block
    # At most an alert of TLS: record type 21.
    assert not said or said[0] == 21
    assert served.get().status_code == 200


def test_a_connection_that_never_begins_to_speak_tls_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(impatient, "HANDSHAKE_S", SHORT_S)
    with serving(tmp_path) as served, served.raw() as connection:
        assert ended(connection)


def test_nobody_chooses_the_address_that_they_come_from(served: Served):
    """Or they could choose whom their wrong tokens lock out."""
    headers = {"X-Forwarded-For": "192.0.2.7", "Forwarded": "for=192.0.2.7"}
    assert served.get(headers=headers).json() == "127.0.0.1"


def test_a_head_that_is_too_long_is_refused(served: Served):
    # It is closed while the client still sends, so the answer may be lost on the way.
    with suppress(httpx.TransportError):
        assert served.get(headers={"X-Long": "x" * (64 * MAX_HEAD)}).status_code == 400
    assert served.get(headers={"X-Long": "x" * (MAX_HEAD // 2)}).status_code == 200


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost:", b"GET / HTTP/1.1\r\nA: b\r\n"])
def test_a_head_that_does_not_come_to_its_end_is_not_waited_for(served, monkeypatch, sent):
    monkeypatch.setattr(Impatient, "head_s", SHORT_S)
    with served.opened() as connection:
        if sent:
            connection.sendall(sent)
        assert ended(connection)


def test_bytes_that_trickle_in_do_not_prolong_the_wait(served: Served, monkeypatch):
    monkeypatch.setattr(Impatient, "head_s", SHORT_S)
    with served.opened() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nA: ")
        connection.settimeout(SHORT_S / 20)

        def cut_off() -> bool:
            try:
                connection.sendall(b"x")
                return ended(connection)
            except TimeoutError:
                return False
            except OSError:
                return True

        eventually(cut_off)


def test_a_body_that_stops_coming_is_not_waited_for(served: Served, monkeypatch):
    monkeypatch.setattr(Impatient, "body_s", SHORT_S)
    with served.opened() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc")
        assert ended(connection)


def test_a_whole_request_after_another_is_answered_on_the_same_connection(served: Served):
    with httpx.Client(verify=served.context()) as client:
        for _ in range(3):
            url = f"https://127.0.0.1:{served.port}/"
            assert client.post(url, content=b"abc").json() == 3


def test_connections_that_say_nothing_do_not_hold_the_api_for_others(served: Served):
    served.listener.most_of_one = 5
    held = [served.raw() for _ in range(20)]
    try:
        # Of one address only so many stay open; the others are closed at once.
        eventually(lambda: served.listener.turned_away == 15)
        assert all(ended(each) for each in held[5:])
        # Who comes from elsewhere is answered meanwhile.
        assert served.get(source="127.0.0.2").status_code == 200
    finally:
        for each in held:
            each.close()
    # And once they are gone, their address is as good as any.
    eventually(lambda: answered(served))


def answered(served: Served) -> bool:
    try:
        return served.get().status_code == 200
    except httpx.TransportError:
        return False


def test_all_connections_together_are_bounded(served: Served):
    served.listener.most = 6
    held = [served.raw(f"127.0.0.{number}") for number in range(10, 30)]
    try:
        eventually(lambda: served.listener.turned_away == 14)
    finally:
        for each in held:
            each.close()
    eventually(lambda: answered(served))


def test_a_new_certificate_is_shown_to_whoever_connects_next(served: Served, tmp_path: Path):
    with served.opened() as connection:
        before = connection.getpeercert(binary_form=True)
    Authority.create(tmp_path, "test").issue("api", server=True)
    served.server.renew()
    with served.opened() as connection:
        assert connection.getpeercert(binary_form=True) != before
