"""An address in a hint is a wish: what leads elsewhere than to a plain mirror is never asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.urls import url_of
from protocol.identifiers import digest_of

PAYLOAD = digest_of(b"payload")
PLANE = "https://plane.example:8443"


@pytest.mark.parametrize(
    "prefix",
    [
        "https://mirror.example/",
        "http://mirror.example:8080/outrider/payloads/",
        "https://10.1.2.3/p/",
        "https://[2001:db8::1]:8443/",
    ],
)
def test_a_mirror_is_asked_below_its_prefix(prefix):
    assert url_of(prefix, PAYLOAD, PLANE, dev=False) == prefix + PAYLOAD


def test_a_slash_is_the_control_plane_of_the_enrolment():
    assert url_of("/", PAYLOAD, PLANE, dev=False) == f"{PLANE}/v1/payloads/{PAYLOAD}"
    assert url_of("/", PAYLOAD, "", dev=False) is None


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "//",
        "ftp://mirror.example/",
        "file:///etc/",
        "https://user:word@mirror.example/",
        "https://mirror.example",
        "https://mirror.example/p",
        "https://mirror.example/?q=/",
        "https://mirror.example/#/",
        "https://mirror.example/a/../b/",
        "https://mirror.example/%2e%2e/",
        "https://mirror.example:0/",
        "https://mirror.example:99999/",
        "https://mirror.example/\r\nX: y/",
        "https://mirror.example/\n",
        " https://mirror.example/",
        "http:///p/",
    ],
)
def test_what_is_no_plain_prefix_is_refused(prefix):
    assert url_of(prefix, PAYLOAD, PLANE, dev=True) is None


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "LOCALHOST", "a.localhost", "127.0.0.1", "127.1", "2130706433", "0x7f000001",
        "0.0.0.0", "169.254.169.254", "224.0.0.1", "[::1]", "[fe80::1]", "[::ffff:127.0.0.1]",
        "[::]", "localhost.",
    ],
)  # fmt: skip
def test_loopback_and_the_wire_next_to_the_device_are_refused(host):
    assert url_of(f"http://{host}/", PAYLOAD, PLANE, dev=False) is None


def test_a_development_agent_may_use_a_mirror_on_the_same_machine():
    assert url_of("http://127.0.0.1:8080/", PAYLOAD, "", dev=True) is not None


@given(st.text(max_size=60))
def test_any_text_gives_an_address_below_it_or_none(prefix):
    assert url_of(prefix, PAYLOAD, PLANE, dev=False) in (
        None,
        prefix + PAYLOAD,
        f"{PLANE}/v1/payloads/{PAYLOAD}",
    )
