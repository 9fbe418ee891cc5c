"""Who is this machine: names that may be asked for, and pages that may ask."""

import pytest

from edge_agent.runner.origin import check_origin
from protocol.errors import InvalidRequest

OURS = [
    "localhost",
    "LOCALHOST",
    "localhost.",
    "localhost:8500",
    "localhost:",
    "127.0.0.1",
    "127.0.0.1:1",
    "127.255.255.254:65535",
    "[::1]",
    "[::1]:8500",
    "[0:0:0:0:0:0:0:1]",
    "[0000:0000:0000:0000:0000:0000:0000:0001]:8500",
]
FOREIGN = [
    "",
    " ",
    "evil.example",
    "evil.example:8500",
    "localhost.evil.example",
    "evil.localhost",
    "localhost..",
    "localhost@evil.example",
    "evil.example@localhost",
    "localhost:8500@evil.example",
    "localhost:http",
    "localhost:123456",
    "localhost:-1",
    "localhost/",
    "localhost#",
    "localhost,evil.example",
    "127.0.0.1.",
    "127.0.0.1.evil.example",
    "127.0.0.1.nip.io",
    "127.1",
    "127.0.0.256",
    "127.0.0.01x",
    "0177.0.0.1",
    "0x7f000001",
    "2130706433",
    "0.0.0.0",
    "128.0.0.1",
    "192.168.1.20",
    "١٢٧.0.0.1",
    "::1",
    "[::1",
    "::1]",
    "[::]",
    "[::2]",
    "[::1%lo]",
    "[::ffff:127.0.0.1]",
    "[0:0:0:0:0:0:1]",
    "[fe80::1]",
    "ⓛocalhost",
    "localhost\u200b",
    "null",
]


@pytest.mark.parametrize("host", OURS)
def test_names_of_this_machine_may_be_asked_for(host):
    check_origin(host, None)
    check_origin(host, f"http://{host}")
    check_origin(host, f"HTTPS://{host}")


@pytest.mark.parametrize("host", FOREIGN)
def test_every_other_name_is_foreign(host):
    with pytest.raises(InvalidRequest, match="Host") as caught:
        check_origin(host, None)
    assert caught.value.code == "OUT-I109"
    with pytest.raises(InvalidRequest, match="Origin"):
        check_origin("localhost", f"http://{host}")


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "localhost",
        "//localhost",
        "file://",
        "file://localhost",
        "ftp://localhost",
        "http:localhost",
        "http://localhost/",
        "http://localhost http://evil.example",
        "chrome-extension://localhost",
        "https://evil.example",
    ],
)
def test_only_pages_of_this_machine_may_ask(origin):
    with pytest.raises(InvalidRequest, match="Origin") as caught:
        check_origin("localhost", origin)
    assert caught.value.code == "OUT-I109"


def test_programs_that_name_nobody_are_no_web_pages():
    check_origin(None, None)
