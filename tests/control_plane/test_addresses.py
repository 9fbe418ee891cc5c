import pytest

from control_plane.addresses import Target, allowed, target
from protocol.errors import InvalidRequest


@pytest.mark.parametrize(
    "url, expected",
    [
        ("https://hooks.example.com/a/b?c=d", Target("hooks.example.com", 443, "/a/b?c=d")),
        ("https://hooks.example.com", Target("hooks.example.com", 443, "/")),
        ("https://Hooks.Example.com:8443/", Target("hooks.example.com", 8443, "/")),
        ("https://[2606:4700::1111]/x", Target("2606:4700::1111", 443, "/x")),
        ("https://xn--bcher-kva.example/", Target("xn--bcher-kva.example", 443, "/")),
    ],
)
def test_a_target_is_taken_apart(url, expected):
    assert target(url) == expected


def test_the_host_is_named_as_http_wants_it():
    assert target("https://a.example/").named == "a.example"
    assert target("https://a.example:8443/").named == "a.example:8443"
    assert target("https://[2606:4700::1111]:8443/").named == "[2606:4700::1111]:8443"


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/",
        "ftp://hooks.example.com/",
        "hooks.example.com",
        "https://",
        "https:///path",
        "https://user@hooks.example.com/",
        "https://user:word@hooks.example.com/",
        "https://hooks.example.com/#part",
        "https://hooks.example.com:0/",
        "https://hooks.example.com:65536/",
        "https://hooks.example.com:x/",
        "https://hooks example.com/",
        "https://hooks.example.com/\r\nHost: other",
        "https://hooks.example.com\\@other.example/",
        "https://bücher.example/",
        "https://a..example/",
        "https://-a.example/",
        "https://[::1/",
        "https://[fe80::1%25eth0]/",
        "https://" + "a" * 64 + ".example/",
        "https://hooks.example.com/" + "a" * 2048,
    ],
)
def test_what_is_no_plain_https_url_is_refused(url):
    with pytest.raises(InvalidRequest) as refused:
        target(url)
    assert refused.value.code == "OUT-N301"


PUBLIC = ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
INSIDE = [
    "127.0.0.1",
    "127.255.255.254",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::1",
    "fc00::1",
    "fd12:3456::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
    "2002:7f00:1::",
    "2002:a00:1::",
    "2001:0:7f00:1::",
]
NEVER = ["169.254.169.254", "fe80::1", "fe80::1%eth0", "::ffff:169.254.169.254", "224.0.0.1",
         "ff02::1", "0.0.0.0", "::", "64:ff9b::a9fe:a9fe"]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_may_be_called(address):
    assert allowed("a.example", [address]) == (address,)


@pytest.mark.parametrize("address", [*INSIDE, *NEVER])
@pytest.mark.parametrize("beside", [(), ("8.8.8.8",)])
def test_private_loopback_link_local_mapped_and_mixed_answers_are_refused(address, beside):
    for answer in ([address, *beside], [*beside, address]):
        with pytest.raises(InvalidRequest) as refused:
            allowed("a.example", answer)
        assert refused.value.code == "OUT-N301"


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "::1", "fd12:3456::1"])
def test_private_addresses_may_be_called_where_that_is_allowed(address):
    assert allowed("a.example", [address], private=True) == (address,)


@pytest.mark.parametrize("address", NEVER)
def test_link_local_and_multicast_are_never_called(address):
    with pytest.raises(InvalidRequest):
        allowed("a.example", [address], private=True)


def test_a_name_without_an_address_is_refused():
    with pytest.raises(InvalidRequest):
        allowed("a.example", [])
