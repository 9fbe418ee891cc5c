"""One question over HTTPS: what a server may do to a device that asks. Refusals: `test_enrol`."""

import socket
import ssl
import threading
import time
from contextlib import contextmanager, suppress

import pytest

from control_plane.fleet.authority import Authority
from edge_agent.asking import Server, ask
from protocol.enrolment import MAX_ANSWER
from protocol.errors import PeerError, Unavailable

NOW_MS = int(time.time() * 1000)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority.create(tmp_path_factory.mktemp("ca"), "local", NOW_MS)


@contextmanager
def answering(authority, chunks):
    """A server that answers one question with these bytes, and says where it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.certificate("api"), authority.key("api"))
    sent = [0]

    def serve() -> None:
        with suppress(OSError), context.wrap_socket(listener.accept()[0], server_side=True) as peer:
            asked = b""
            # All of it: closing with something unread would cut off what was answered.
            while not asked.endswith(BODY):
                asked += peer.recv(65536)
            for chunk in chunks():
                peer.sendall(chunk)
                sent[0] += len(chunk)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        pem = authority.certificate("api-ca").read_text()
        yield Server(f"https://127.0.0.1:{port}", "127.0.0.1", port, pem), sent
    thread.join(10)


HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
BODY = b"{}"


def test_an_answer_that_ends_is_given_whole(authority):
    with answering(authority, lambda: [HEAD, b"one ", b"two"]) as (server, _):
        assert ask(server, "/", BODY, now_ms=NOW_MS) == b"one two"


def test_an_endless_answer_is_read_to_its_limit_and_no_further(authority):
    def endless():
        yield HEAD
        while True:
            yield b"x" * 65536

    with answering(authority, endless) as (server, sent):
        data = ask(server, "/", BODY, now_ms=NOW_MS)
        assert len(data) == MAX_ANSWER + 1  # more than any decoder takes
        # What the sockets of both sides hold may have been sent besides.
        assert sent[0] < MAX_ANSWER + 32 * 1024 * 1024


def test_an_answer_that_trickles_is_given_up(authority):
    released = threading.Event()

    def trickle():
        yield HEAD
        while not released.wait(0.02):
            yield b"x"

    with answering(authority, trickle) as (server, _):
        with pytest.raises(Unavailable, match=r"N104.*too long"):
            ask(server, "/", BODY, now_ms=NOW_MS, timeout_s=0.2)
        released.set()


def test_a_server_that_says_nothing_is_given_up(authority):
    released = threading.Event()

    def silent():
        released.wait(30)
        yield b""

    with answering(authority, silent) as (server, _):
        with pytest.raises(Unavailable, match="N104"):
            ask(server, "/", BODY, now_ms=NOW_MS, timeout_s=0.2)
        released.set()


@pytest.mark.parametrize("data", [b"garbage\r\n\r\n", b""])
def test_what_is_no_http_is_worth_a_retry(authority, data):
    with (
        answering(authority, lambda: [data]) as (server, _),
        pytest.raises((Unavailable, PeerError)),
    ):
        ask(server, "/", BODY, now_ms=NOW_MS)


def test_an_authority_that_cannot_be_read_is_said_before_anything_is_sent():
    with pytest.raises(ValueError, match="authority"):
        ask(Server("https://127.0.0.1:1", "127.0.0.1", 1, "nothing"), "/", b"{}")
