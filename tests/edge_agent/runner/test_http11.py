"""HTTP/1.1 as it arrives: in pieces, ambiguous, endless; h11 is the second opinion.

Long because a parser is known by what it refuses.
"""

import gc
import re
import sys
import weakref
from contextlib import suppress

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_agent.runner.http11 import (
    MAX_BODY,
    MAX_DISCARDED,
    MAX_HEAD,
    MAX_KNOWN,
    PIECE,
    Known,
    Reader,
)
from protocol.errors import InvalidRequest

POST = b"POST /v2 HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


def read(*parts: bytes) -> list[tuple[str, str, bytes | None]]:
    reader, found = Reader(), []
    for part in parts:
        reader.feed(part)
        while (request := reader.next()) is not None:
            body = None if request.body is None else bytes(request.body)
            found.append((request.method, request.target, body))
    return found


def sized(body: bytes, target: str = "/v2") -> bytes:
    return b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (
        target.encode(),
        len(body),
        body,
    )


@pytest.mark.parametrize(
    "raw, body",
    [
        pytest.param(b"GET /v2 HTTP/1.1\r\nHost: a\r\n\r\n", b"", id="no body"),
        pytest.param(
            b"GET   /v2 HTTP/1.1\r\nHost: a\r\n\r\n",
            b"",
            id="blanks after GET, RFC 9112 3 permits it",
        ),
        pytest.param(b"\r\n\r\nGET /v2 HTTP/1.1\r\nHost: a\r\n\r\n", b"", id="empty lines first"),
        pytest.param(sized(b"abc"), b"abc", id="length"),
        pytest.param(POST + b"content-LENGTH:3\r\n\r\nabc", b"abc", id="names in any case"),
        pytest.param(POST + b"Content-Length: \t 003 \r\n\r\nabc", b"abc", id="blanks and zeros"),
        pytest.param(CHUNKED + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", b"abcde", id="chunks"),
        pytest.param(CHUNKED + b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789", id="hex"),
        pytest.param(CHUNKED + b"0\r\nX: y\r\nZ: z\r\n\r\n", b"", id="trailers"),
        pytest.param(
            POST + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\nabc", b"abc", id="expect"
        ),
    ],
)
def test_requests_are_read_whole_however_they_are_cut(raw, body):
    assert [request[2] for request in read(raw)] == [body]
    assert [request[2] for request in read(*(raw[n : n + 1] for n in range(len(raw))))] == [body]
    assert [request[2] for request in read(raw + raw)] == [body, body]


@pytest.mark.parametrize(
    "raw, code",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01", "OUT-I106", id="TLS"),
        pytest.param(b"get /v2 HTTP/1.1\r\n", "OUT-I106", id="small letters"),
        pytest.param(b"GET /v2\r\n\r\n", "OUT-I106", id="HTTP/0.9"),
        pytest.param(b"GET /v2 HTTP/2.0\r\nHost: a\r\n\r\n", "OUT-I106", id="HTTP/2"),
        pytest.param(b"GET\t/v2 HTTP/1.1\r\nHost: a\r\n\r\n", "OUT-I106", id="tab after GET"),
        pytest.param(b"GET /\tv2 HTTP/1.1\r\nHost: a\r\n\r\n", "OUT-I106", id="tab in path"),
        pytest.param(b"GET /v2 HTTP/1.1 \r\nHost: a\r\n\r\n", "OUT-I106", id="blank after version"),
        pytest.param(b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", "OUT-I106", id="proxy"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "OUT-I106", id="HTTP/2 from the start"),
        pytest.param(b"GET /v 2 HTTP/1.1\r\nHost: a\r\n\r\n", "OUT-I106", id="blank in path"),
        pytest.param(b"GET /\xc3\xb6 HTTP/1.1\r\nHost: a\r\n\r\n", "OUT-I106", id="raw bytes"),
        pytest.param(b"GET /v2 HTTP/1.1\nHost: a\n\n", "OUT-I106", id="bare line feeds"),
        pytest.param(b"GET /v2 HTTP/1.1\r\n\r\n", "OUT-I106", id="1.1 without host"),
        pytest.param(POST + b"Host: b\r\n\r\n", "OUT-I106", id="two hosts"),
        pytest.param(POST + b"Origin: a\r\nOrigin: b\r\n\r\n", "OUT-I106", id="two origins"),
        pytest.param(POST + b" folded\r\n\r\n", "OUT-I106", id="folded field"),
        pytest.param(POST + b"Origin:\r\n a\r\n\r\n", "OUT-I106", id="folded from the start"),
        pytest.param(POST + b"X : y\r\n\r\n", "OUT-I106", id="blank before colon"),
        pytest.param(POST + b": y\r\n\r\n", "OUT-I106", id="no name"),
        pytest.param(POST + b"X\r\n\r\n", "OUT-I106", id="no colon"),
        pytest.param(POST + b"X: a\x00b\r\n\r\n", "OUT-I106", id="NUL"),
        pytest.param(POST + b"X: a\rb\r\n\r\n", "OUT-I106", id="bare carriage return"),
        pytest.param(POST + b"Content-Length: -1\r\n\r\n", "OUT-I106", id="negative"),
        pytest.param(POST + b"Content-Length: +1\r\n\r\n", "OUT-I106", id="plus"),
        pytest.param(POST + b"Content-Length: 1_0\r\n\r\n", "OUT-I106", id="underscore"),
        pytest.param(POST + b"Content-Length: 0x3\r\n\r\n", "OUT-I106", id="hexadecimal"),
        pytest.param(POST + b"Content-Length: \r\n\r\n", "OUT-I106", id="empty length"),
        pytest.param(POST + b"Content-Length: 3, 3\r\n\r\n", "OUT-I106", id="list of lengths"),
        pytest.param(POST + b"Content-Length: \xb2\r\n\r\n", "OUT-I106", id="superscript"),
        pytest.param(POST + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n", "OUT-I106", id="huge"),
        pytest.param(
            POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\n", "OUT-I106", id="two lengths"
        ),
        pytest.param(
            POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            "OUT-I106",
            id="length and chunks",
        ),
        pytest.param(POST + b"Transfer-Encoding: gzip\r\n\r\n", "OUT-I106", id="gzip in transfer"),
        pytest.param(
            POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "OUT-I106", id="two encodings"
        ),
        pytest.param(POST + b"Transfer-Encoding: xchunked\r\n\r\n", "OUT-I106", id="xchunked"),
        pytest.param(POST + b"Transfer-Encoding: chunked;x\r\n\r\n", "OUT-I106", id="parameter"),
        pytest.param(POST + b"Transfer-Encoding: \r\n\r\n", "OUT-I106", id="empty encoding"),
        pytest.param(
            POST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n", "OUT-I106", id="chunked twice"
        ),
        pytest.param(
            POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n", "OUT-I106", id="chunks of chunks"
        ),
        pytest.param(
            POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
            "OUT-I106",
            id="chunks and length",
        ),
        pytest.param(
            b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "OUT-I106", id="1.0 chunked"
        ),
        pytest.param(POST + b"Expect: cookies\r\n\r\n", "OUT-I106", id="other expectation"),
        pytest.param(CHUNKED + b"x\r\n", "OUT-I106", id="no size"),
        pytest.param(CHUNKED + b"-1\r\n", "OUT-I106", id="negative size"),
        pytest.param(CHUNKED + b"0x1\r\n", "OUT-I106", id="0x"),
        pytest.param(CHUNKED + b" 1\r\n", "OUT-I106", id="blank before size"),
        pytest.param(CHUNKED + b"1" * 300, "OUT-I106", id="endless size"),
        pytest.param(CHUNKED + b"f" * 17, "OUT-I106", id="size beyond 64 bits"),
        pytest.param(CHUNKED + b"1\nx\r\n0\r\n\r\n", "OUT-I106", id="chunk with bare line feed"),
        pytest.param(CHUNKED + b"1 ;x=y\r\na\r\n", "OUT-I106", id="blank after size"),
        pytest.param(CHUNKED + b'1;"\r\n0\r\n\r\n', "OUT-I106", id="line break in extension"),
        pytest.param(CHUNKED + b"1;" + b"x" * 2 * MAX_HEAD, "OUT-I105", id="endless extension"),
        pytest.param(CHUNKED + b"1\r\nab\r\n", "OUT-I106", id="longer than its size"),
        pytest.param(CHUNKED + b"1\r\na0\r\n\r\n", "OUT-I106", id="no end of chunk"),
        pytest.param(
            CHUNKED + b"0\r\n" + b"X: y\r\n" * MAX_HEAD, "OUT-I105", id="endless trailers"
        ),
        pytest.param(
            CHUNKED + b"0\r\nX:" + b"y" * 2 * MAX_HEAD, "OUT-I105", id="one endless trailer"
        ),
        pytest.param(CHUNKED + b"0\r\nContent-Length: 3\r\n\r\n", "OUT-I106", id="late length"),
        pytest.param(
            CHUNKED + b"0\r\nTransfer-Encoding: chunked\r\n\r\n", "OUT-I106", id="late encoding"
        ),
        pytest.param(b"\r\n" * MAX_HEAD, "OUT-I105", id="endless empty lines"),
        pytest.param(b"GET /" + b"x" * MAX_HEAD, "OUT-I105", id="endless path"),
        pytest.param(POST + b"X: " + b"y" * MAX_HEAD, "OUT-I105", id="huge head"),
        pytest.param(POST + b"X: y\r\n" * (MAX_HEAD // 6), "OUT-I105", id="many fields"),
        pytest.param(
            POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY + 1),
            "OUT-I105",
            id="announced too large",
        ),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(raw, code):
    with pytest.raises(InvalidRequest) as caught:
        read(raw)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"POST /v2 HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", id="1.0"),
        pytest.param(
            b"POST /v2 HTTP/1.0\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nabc",
            id="1.0 that wants more",
        ),
        pytest.param(POST + b"Connection: Close\r\nContent-Length: 3\r\n\r\nabc", id="close"),
        pytest.param(POST + b"Connection: x, close\r\nContent-Length: 3\r\n\r\nabc", id="list"),
    ],
)
def test_a_request_says_that_it_is_the_last(raw):
    reader = Reader()
    reader.feed(raw)
    request = reader.next()
    assert request is not None
    assert (request.keep_alive, request.body, reader.state) == (False, b"abc", "idle")


@pytest.mark.parametrize(
    "head, body",
    [
        pytest.param(b"", b"", id="no body"),
        pytest.param(b"Content-Length: 3\r\n", b"abc", id="length"),
        pytest.param(b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n", id="chunks"),
    ],
)
@pytest.mark.parametrize("last", [b"", b"close, "])
def test_who_offers_another_protocol_is_understood_in_this_one(head, body, last):
    # As Java's client does, unless it is told otherwise.
    offer = b"Connection: %sUpgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n" % last
    raw = POST + offer + head + b"\r\n" + body
    whole = ("POST", "/v2", b"abc" if body else b"")
    assert read(raw) == [whole]
    assert read(*(raw[n : n + 1] for n in range(len(raw)))) == [whole]
    if not last:
        assert read(raw + raw) == [whole, whole]
        assert read(raw + sized(b"de")) == [whole, ("POST", "/v2", b"de")]


def test_trailers_are_nobodys_fields():
    reader = Reader()
    reader.feed(CHUNKED + b"0\r\nAuthorization: a\r\nOrigin: b\r\n\r\n" + sized(b"abc"))
    requests = reader.next(), reader.next()
    assert [set(request.fields) for request in requests if request] == [
        {b"host", b"transfer-encoding"},
        {b"host", b"content-length"},
    ]


def test_what_came_before_the_unreadable_is_answered_first():
    reader = Reader()
    reader.feed(sized(b"abc") * 2 + b"nonsense\r\n")
    for _ in range(2):
        assert reader.next() is not None
        assert reader.state == "head"
    for _ in range(2):
        with pytest.raises(InvalidRequest):
            reader.next()


def test_requests_that_are_not_asked_for_stay_bytes():
    raw = b"GET / HTTP/1.1\r\nHost:\r\n\r\n"
    reader = Reader()
    reader.feed(raw * 10_000)
    assert reader.next() is not None
    assert reader.held >= len(raw) * 10_000 - PIECE
    for _ in range(9_999):
        assert reader.next() is not None
    assert (reader.next(), reader.held, reader.state) == (None, 0, "idle")


def test_nothing_of_what_was_answered_is_kept():
    raw = sized(bytes(50_000))
    before = sys.getrefcount(raw)
    reader = Reader()
    reader.feed(raw)
    assert reader.next() is not None
    assert sys.getrefcount(raw) == before


def test_a_reader_that_is_closed_keeps_nothing_even_without_the_garbage_collector():
    gc.disable()
    try:
        reader = Reader()
        reader.feed(POST + b"Content-Length: 999\r\n\r\nabc")
        assert reader.next() is None
        gone = weakref.ref(reader)
        reader.close()
        assert (reader.held, reader.state, reader.next()) == (0, "idle", None)
        del reader
        assert gone() is None
    finally:
        gc.enable()


def test_a_body_that_is_too_large_is_dropped_as_it_comes():
    reader = Reader()
    reader.feed(POST + b"Content-Length: %d\r\n\r\n" % (MAX_BODY + 5))
    block, held = b"x" * 2**20, 0
    for _ in range(16):
        reader.feed(block)
        assert reader.next() is None
        held = max(held, reader.held)
    assert held <= MAX_BODY
    reader.feed(b"12345")
    request = reader.next()
    assert request is not None
    assert (request.body, reader.held, reader.state) == (None, 0, "idle")


def test_an_endless_body_is_given_up():
    reader = Reader()
    reader.feed(CHUNKED + b"%x\r\n" % 2**40)
    block = b"x" * 2**20
    for _ in range(MAX_DISCARDED // 2**20):
        assert reader.next() is None
        assert reader.held <= MAX_BODY
        reader.feed(block)
    assert reader.next() is None
    reader.feed(block)
    with pytest.raises(InvalidRequest) as caught:
        reader.next()
    assert caught.value.code == "OUT-I105"


def test_a_caller_that_waits_is_told_to_go_on_before_its_body_is_here():
    reader = Reader()
    reader.feed(POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert reader.next() is None
    assert reader.wants_continue
    reader.feed(b"ab")
    assert reader.next() is not None
    assert not reader.wants_continue


def test_many_small_chunks_take_no_more_than_their_bytes():
    reader = Reader()
    reader.feed(CHUNKED + b"1\r\nx\r\n" * 40_000)
    assert reader.next() is None
    assert reader.held < 41_000


ASKED = sized(b"abc")


def knowing(raw: bytes) -> Reader:
    """A reader that has read this before."""
    reader = Reader()
    reader.feed(raw)
    assert reader.next() is not None
    return reader


def test_a_head_that_comes_again_is_not_parsed_again():
    reader = knowing(ASKED)
    first = reader.whole(ASKED)
    other = reader.whole(ASKED[:-3] + b"xyz")
    assert first is not None
    assert other is not None
    assert (first.method, first.target, first.body, other.body) == ("POST", "/v2", b"abc", b"xyz")
    assert (first.fields, first.keep_alive) == ({b"host": "a", b"content-length": "3"}, True)
    assert (reader.state, reader.held) == ("idle", 0)


@pytest.mark.parametrize(
    "before, raw",
    [
        pytest.param(ASKED, ASKED[:-1], id="not all of it"),
        pytest.param(ASKED, ASKED + b"G", id="more than it"),
        pytest.param(ASKED, ASKED * 2, id="twice"),
        pytest.param(ASKED, ASKED.replace(b"Host", b"host"), id="written in another way"),
        pytest.param(ASKED, b"\r\n" + ASKED, id="after an empty line"),
        pytest.param(ASKED, b"", id="nothing"),
        pytest.param(CHUNKED + b"0\r\n\r\n", CHUNKED, id="chunks"),
        pytest.param(
            POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
            POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
            id="an offer of another protocol",
        ),
    ],
)
def test_what_is_not_one_known_request_is_parsed(before, raw):
    assert knowing(before).whole(raw) is None


@pytest.mark.parametrize(
    "before",
    [
        pytest.param(b"POST /", id="in a head"),
        pytest.param(POST + b"Content-Length: 200\r\n\r\n", id="in a body"),
        pytest.param(ASKED * 2, id="while one waits"),
        pytest.param(POST + b"Connection: close\r\n\r\n", id="after the last"),
        pytest.param(b"nonsense\r\n", id="after nonsense"),
    ],
)
def test_a_known_head_is_parsed_where_it_may_mean_something_else(before):
    known: dict[bytes, Known] = {}
    reader = Reader(known)
    reader.feed(ASKED)
    assert reader.next() is not None
    reader.feed(before)
    with suppress(InvalidRequest):
        reader.next()
    assert list(known) == [ASKED[:-3]]
    assert reader.whole(ASKED) is None
    assert Reader(known).whole(ASKED) is not None
    reader.close()
    assert reader.whole(ASKED) is None


def test_empty_lines_between_known_requests_do_not_add_up():
    reader = knowing(ASKED)
    for _ in range(MAX_HEAD):
        reader.feed(b"\r\n")
        assert reader.next() is None
        assert reader.whole(ASKED) is not None


def test_few_heads_are_known():
    known: dict[bytes, Known] = {}
    reader = Reader(known)
    for number in range(3 * MAX_KNOWN):
        reader.feed(sized(b"", f"/{number}"))
        assert reader.next() is not None
        assert 0 < len(known) <= MAX_KNOWN
    reader.feed(sized(b"", "/" + "x" * PIECE))
    assert reader.next() is not None
    assert max(map(len, known)) <= PIECE


PIECES = st.sampled_from(
    [
        *(b"GET ", b"POST ", b"/v2 ", b"HTTP/1.1", b"HTTP/1.0", b"\r\n", b"\n", b" ", b"\t", b":"),
        *(b"Host: a\r\n", b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"\r\n\r\n"),
        *(b"3", b"0", b"0\r\n\r\n", b"abc", b"3\r\nabc\r\n", b"Connection: close\r\n", b";x"),
        *(POST, CHUNKED, sized(b"abc"), b"\x00", b"Expect: 100-continue\r\n"),
    ]
)


@given(st.lists(PIECES | st.binary(max_size=20), max_size=15), st.integers(1, 40))
@example([CHUNKED, b"3\r\nabc\r\n", b"0\r\n\r\n", sized(b"abc")], 7)
def test_what_is_understood_means_the_same_to_another_reader(pieces, step):
    # h11 does not take more than one blank there.
    raw = re.sub(rb"(GET|POST) +", rb"\1 ", b"".join(pieces))
    cuts = [raw[n : n + step] for n in range(0, len(raw), step)]
    ours = understood(cuts)
    # However it is cut, it means the same.
    assert ours == understood([raw] if raw else [])
    # And whatever was read before.
    known: dict[bytes, Known] = {}
    for _ in range(2):
        assert ours == understood([raw], known)
        assert ours == understood(cuts, known)
    theirs = h11_reads(raw)
    assert theirs[: len(ours)] == ours


def understood(parts: list[bytes], known=None) -> list[tuple[str, str, bytes]]:
    reader, found = Reader(known), []
    try:
        for part in parts:
            request = reader.whole(part)
            if request is None:
                reader.feed(part)
                request = reader.next()
            while request is not None:
                found.append((request.method, request.target, bytes(request.body or b"")))
                if not request.keep_alive:
                    return found
                request = reader.next()
    except InvalidRequest:
        pass
    return found


def h11_reads(raw: bytes) -> list[tuple[str, str, bytes]]:
    connection, found = h11.Connection(h11.SERVER), []
    connection.receive_data(raw.lstrip(b"\r\n"))
    request, body = None, b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                request, body = event, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert request is not None
                found.append((request.method.decode(), request.target.decode(), body))
                answer(connection)
                if connection.their_state is not h11.DONE:
                    return found
                rest = connection.trailing_data[0]
                connection.start_next_cycle()
                if rest[:1] in (b"\r", b"\n"):
                    stripped, connection = rest.lstrip(b"\r\n"), h11.Connection(h11.SERVER)
                    connection.receive_data(stripped)
            else:
                return found
    except h11.RemoteProtocolError:
        return found


def answer(connection: h11.Connection) -> None:
    connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
    connection.send(h11.EndOfMessage())
