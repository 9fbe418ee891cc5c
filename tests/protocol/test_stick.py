"""The layout of a stick: names stay on it, and its description is bounded."""

import pytest

from protocol import codec, stick
from protocol.errors import NotUnderstood, PeerError
from protocol.identifiers import digest_of
from protocol.stick import Stick

NOTE = Stick("north", 1_795_000_000_000, ("north-cam-1",), ("digits",), "site = leeds", {"root": 1})
DIGEST = digest_of(b"x")


def test_the_description_comes_back_as_it_was_written():
    assert codec.decode(codec.encode(NOTE), Stick, limit=stick.MAX_NOTE) == NOTE


def test_names_are_the_documented_ones():
    assert [
        "/".join(path)
        for path in (
            stick.root(3),
            stick.role("models"),
            stick.plan("digits"),
            stick.document("north-cam-1"),
            stick.manifest(DIGEST),
            stick.hint("digits", DIGEST),
            stick.payload(DIGEST),
        )
    ] == [
        "tuf/root/3.json",
        "tuf/models.json",
        "plans/digits.json",
        "documents/north-cam-1.dsse",
        f"manifests/{DIGEST}",
        f"hints/digits/{DIGEST}.json",
        f"payloads/{DIGEST}",
    ]


@pytest.mark.parametrize(
    "name",
    [
        lambda: stick.root(0),
        lambda: stick.role("../models"),
        lambda: stick.plan("../../etc/passwd"),
        lambda: stick.document("north-../x"),
        lambda: stick.manifest("sha256-../../x"),
        lambda: stick.hint("..", DIGEST),
        lambda: stick.payload(f"{DIGEST}/.."),
    ],
)
def test_no_name_leads_away_from_the_stick(name):
    with pytest.raises(ValueError):
        name()


@pytest.mark.parametrize(
    "wrong",
    [
        {"fleet": "North!"},
        {"devices": ["nobody"]},
        {"devices": [f"north-{n}" for n in range(stick.MAX_DEVICES + 1)]},
        {"models": ["../x"]},
        {"models": [f"m{n}" for n in range(stick.MAX_MODELS + 1)]},
        {"made_ms": -1},
    ],
)
def test_a_description_of_something_else_is_refused(wrong):
    said = {"fleet": "north", "made_ms": 1, "devices": [], **wrong}
    with pytest.raises(PeerError):
        codec.decode(codec.encode(said), Stick, limit=stick.MAX_NOTE)


def test_a_stick_from_the_future_is_not_guessed_at():
    said = {"fleet": "north", "made_ms": 1, "devices": [], "v": 2}
    with pytest.raises((PeerError, NotUnderstood)):
        codec.decode(codec.encode(said), Stick, limit=stick.MAX_NOTE)
