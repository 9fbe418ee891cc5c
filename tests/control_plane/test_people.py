"""Names and login texts."""

from __future__ import annotations

import base64
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.people import Login, decode_login, encode_login, new_token, person_name
from protocol.enrolment import Token, encode_token
from protocol.errors import InvalidRequest
from protocol.identifiers import digest_of

TOKEN = "t" * 43
LOGIN = Login(
    "https://cp.example:8400",
    TOKEN,
    "north",
    base64.b64encode(b"der").decode(),
    digest_of(b"root"),
)


def test_a_login_is_read_back_however_it_was_wrapped():
    text = encode_login(LOGIN)
    assert decode_login(text) == LOGIN
    assert decode_login(f"  {text[:20]}\n {text[20:]}\n") == LOGIN
    assert LOGIN.authority == b"der"


def test_a_login_that_is_printed_by_mistake_gives_nobody_access():
    assert TOKEN not in repr(LOGIN)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not a login",
        "ü",
        "e30",
        encode_login(LOGIN)[:-8],
        encode_token(Token(LOGIN.u, TOKEN, digest_of(b"root"), LOGIN.c)),
        "A" * 100_000,
    ],
    ids=["empty", "words", "letters", "an empty object", "cut", "enrolment token", "long"],
)
def test_what_is_no_login_is_refused_without_repeating_it(text):
    with pytest.raises(InvalidRequest) as refused:
        decode_login(text)
    assert refused.value.code == "OUT-S120"
    assert refused.value.__cause__ is None
    assert TOKEN not in str(refused.value)


@given(st.text(max_size=300))
def test_any_text_is_a_login_or_refused(text):
    with suppress(InvalidRequest):
        decode_login(text)


@pytest.mark.parametrize(
    "wrong",
    [
        {"u": "http://cp.example:8400"},
        {"u": "https://cp.example:8400/path"},
        {"u": "https://user@cp.example"},
        {"t": "short"},
        {"t": "t" * 40 + "\r\nX: y"},
        {"f": "North"},
        {"c": "!"},
        {"r": "sha256-12"},
    ],
)
def test_a_login_is_valid_on_construction(wrong):
    good = {"u": LOGIN.u, "t": LOGIN.t, "f": LOGIN.f, "c": LOGIN.c, "r": LOGIN.r}
    with pytest.raises(ValueError):
        Login(**{**good, **wrong})


@pytest.mark.parametrize("name", ["eva", "ci-deploy", "a", "x" * 32])
def test_names(name):
    assert person_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Eva",
        "7",
        "-a",
        "a b",
        "eva\n",
        "x" * 33,
        "device:north-cam-1",
        "local",
        "ticker",
        "gate",
    ],
)
def test_names_that_the_audit_trail_would_mix_up(name):
    with pytest.raises(ValueError):
        person_name(name)


def test_tokens_are_long_and_never_the_same():
    made = {new_token() for _ in range(50)}
    assert len(made) == 50
    assert all(len(each) >= 43 for each in made)
