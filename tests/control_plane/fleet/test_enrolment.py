"""One token, one device, both or neither; on the fake store and on the real one."""

import re
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.fleet.authority import fingerprint
from control_plane.fleet.enrolment import Enrolment
from protocol.codec import MAX_BUNDLE_DOCUMENT, decode, encode
from protocol.enrolment import (
    TOKEN_LIFE_MS,
    Broker,
    EnrolAnswer,
    EnrolRequest,
    Token,
    decode_token,
    encode_token,
)
from protocol.errors import InvalidRequest
from protocol.identifiers import digest_of
from tests.fakes.enrolment import FakeEnrolmentStore

NOW_MS = 1_795_000_000_000
ROOT = '{"signed":{"_type":"root","naïve":true}}'.encode()


def csr() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


@pytest.fixture
def enrolment(authority, store):
    return Enrolment(
        "local",
        authority,
        store,
        "https://127.0.0.1:8400",
        Broker("127.0.0.1", 8883),
        lambda: ROOT,
        dev=True,
    )


def bring(text: str, name: str | None = None) -> EnrolRequest:
    return EnrolRequest(decode_token(text).t, csr(), name)


def test_a_token_names_everything_a_device_has_to_trust(enrolment, authority):
    token = decode_token(enrolment.create_token(NOW_MS))
    assert (token.host, token.port) == ("127.0.0.1", 8400)
    assert token.r == digest_of(ROOT)
    assert token.authority == authority.api_ca_der


def test_the_store_never_sees_the_secret(enrolment, store, tmp_path):
    secret = decode_token(enrolment.create_token(NOW_MS)).t
    if isinstance(store, FakeEnrolmentStore):
        assert list(store.tokens.kept) == [digest_of(secret.encode())]
    else:
        files = [path.read_bytes() for path in tmp_path.iterdir() if path.is_file()]
        assert not any(secret.encode() in data for data in files)
        assert store.tokens.get(digest_of(secret.encode())) is not None


def test_a_device_gets_its_identity_labels_and_root(enrolment, store):
    text = enrolment.create_token(NOW_MS, labels={"site": "home"})
    answer = enrolment.enrol(bring(text, "cam-1"), NOW_MS)
    assert (answer.device, answer.fleet, answer.dev) == ("local-cam-1", "local", True)
    assert answer.labels == {"site": "home"}
    assert answer.root.encode() == ROOT
    assert answer.broker == Broker("127.0.0.1", 8883)
    certificate = x509.load_pem_x509_certificate(answer.certificate.encode())
    assert certificate.subject.rfc4514_string() == "CN=local-cam-1"
    assert decode(encode(answer), EnrolAnswer, limit=MAX_BUNDLE_DOCUMENT) == answer
    device = store.devices.get("cam-1")
    if not isinstance(store, FakeEnrolmentStore):
        assert device.labels == {"site": "home"}
        assert device.certificate == fingerprint(answer.certificate.encode())


def test_a_device_without_a_name_is_given_one(enrolment):
    answer = enrolment.enrol(bring(enrolment.create_token(NOW_MS)), NOW_MS)
    assert re.fullmatch(r"local-dev-[0-9a-f]{4}", answer.device)


def test_a_token_may_hold_the_name(enrolment):
    text = enrolment.create_token(NOW_MS, name="cam-7")
    with pytest.raises(InvalidRequest, match=r"A202.*for cam-7, not cam-8"):
        enrolment.enrol(bring(text, "cam-8"), NOW_MS)
    assert enrolment.enrol(bring(text), NOW_MS).device == "local-cam-7"


def test_a_token_is_good_for_one_device(enrolment):
    text = enrolment.create_token(NOW_MS)
    enrolment.enrol(bring(text), NOW_MS)
    with pytest.raises(InvalidRequest, match=r"A202.*it was used"):
        enrolment.enrol(bring(text), NOW_MS)


def test_a_token_lives_for_a_day(enrolment):
    text = enrolment.create_token(NOW_MS)
    with pytest.raises(InvalidRequest, match=r"A201.*2 h ago; tokens live 24 h"):
        enrolment.enrol(bring(text), NOW_MS + TOKEN_LIFE_MS + 2 * 3_600_000)
    enrolment.enrol(bring(text), NOW_MS + TOKEN_LIFE_MS - 1)


def test_a_token_of_another_control_plane_is_unknown(enrolment):
    with pytest.raises(InvalidRequest, match="A202"):
        enrolment.enrol(EnrolRequest("A" * 43, csr()), NOW_MS)


def test_what_is_refused_does_not_use_up_the_token(enrolment):
    enrolment.enrol(bring(enrolment.create_token(NOW_MS), "cam-1"), NOW_MS)
    text = enrolment.create_token(NOW_MS)
    with pytest.raises(InvalidRequest, match="A203"):
        enrolment.enrol(bring(text, "cam-1"), NOW_MS)
    with pytest.raises(InvalidRequest, match="A210"):
        enrolment.enrol(EnrolRequest(decode_token(text).t, "no request"), NOW_MS)
    assert enrolment.enrol(bring(text, "cam-2"), NOW_MS).device == "local-cam-2"


def test_of_many_who_bring_the_same_token_one_is_let_in(enrolment):
    text = enrolment.create_token(NOW_MS)
    requests = [bring(text, f"cam-{number}") for number in range(8)]
    let_in: list[str] = []
    refused: list[str] = []

    def knock(request: EnrolRequest) -> None:
        try:
            let_in.append(enrolment.enrol(request, NOW_MS).device)
        except InvalidRequest as error:
            refused.append(error.code)

    threads = [threading.Thread(target=knock, args=(each,)) for each in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(let_in) == 1
    assert refused == ["OUT-A202"] * 7


@pytest.mark.parametrize(
    "labels,name",
    [
        ({"Site": "x"}, None),
        ({"site": "x" * 129}, None),
        ({"id": "cam"}, None),
        ({"fact/arch": "x"}, None),
        ({"runs/digits": "v1"}, None),
        ({f"l{n}": "x" for n in range(201)}, None),
        ({}, "Cam"),
    ],
)
def test_labels_and_names_are_checked_when_the_token_is_made(enrolment, labels, name):
    with pytest.raises(InvalidRequest, match="S120"):
        enrolment.create_token(NOW_MS, labels=labels, name=name)


def test_a_name_that_is_taken_gets_no_token(enrolment):
    enrolment.enrol(bring(enrolment.create_token(NOW_MS), "cam-1"), NOW_MS)
    with pytest.raises(InvalidRequest, match="A203"):
        enrolment.create_token(NOW_MS, name="cam-1")


def test_a_token_survives_what_terminals_and_people_do_to_it(enrolment):
    text = enrolment.create_token(NOW_MS)
    folded = "\n  ".join(text[start : start + 60] for start in range(0, len(text), 60))
    assert decode_token(f"\r\n {folded} \n") == decode_token(text)


@given(st.text(max_size=300) | st.binary(max_size=300).map(lambda b: b.decode("latin-1")))
@settings(deadline=None)
def test_any_other_text_is_no_token(text):
    with pytest.raises(InvalidRequest, match="A202"):
        decode_token(text)


@pytest.mark.parametrize(
    "changes",
    [
        {"u": "http://cp:8400"},
        {"u": "https://user@cp"},
        {"u": "https://cp:99999"},
        {"u": "https://cp/path"},
        {"u": "https://"},
        {"t": "short"},
        {"t": "x" * 40 + "\r\nEvil: 1"},
        {"r": "sha256-0"},
        {"c": "not base64!"},
    ],
)
def test_a_token_with_a_strange_member_is_refused(changes):
    good = {"u": "https://cp:8400", "t": "x" * 43, "r": digest_of(b""), "c": "AAAA"}
    assert decode_token(encode_token(Token(**good))) == Token(**good)
    with pytest.raises(ValueError):
        Token(**(good | changes))


@pytest.mark.parametrize(
    "address,host,port",
    [
        ("https://cp.example", "cp.example", 443),
        ("https://127.0.0.1:8400/", "127.0.0.1", 8400),
        ("https://[::1]:8400", "::1", 8400),
    ],
)
def test_addresses_of_every_kind_are_understood(address, host, port):
    token = Token(address, "x" * 43, digest_of(b""), "AAAA")
    assert (token.host, token.port) == (host, port)
