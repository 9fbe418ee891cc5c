"""Reference profiles: which can be, what old ones mean, and what an old agent says of new ones."""

from dataclasses import replace

import pytest

from protocol import codec
from protocol.errors import NotUnderstood, PeerError
from protocol.members import Basis, Feature, Profile, Residual, Watched, member_document, pretty

NUMBER = Feature("t", (0.0, 1.0), (1, 2, 3, 4, 5))
CITY = Feature("city", counts=(7, 3, 2, 1), kind="words", words=("lagos", "lima"))
BASIS = Basis((0.0, 1.0), (1.0, 0.0), ((0.6, 0.8),))
SPE = Feature("residual", (0.5,), (0, 9, 1, 0))
FULL = Profile(
    13,
    (NUMBER, replace(NUMBER, name="u"), CITY),
    (1,) * 20,
    (6, 7),
    watched=(Watched("x"), Watched("city", "words")),
    residual=Residual(SPE, BASIS),
    score=replace(NUMBER, name="score"),
    calibration=((0.2, 0.1), (0.9, 0.95)),
    accuracy=0.91,
    window_s=600,
    window_rows=200,
    must_understand=("profile/2",),
)


def test_what_is_written_is_read():
    assert member_document(pretty(FULL), Profile) == FULL


def test_a_profile_without_new_members_reads_as_before():
    feature = {"name": "t", "edges": [0.0, 1.0], "counts": [1, 2, 3, 4, 5]}
    read = member_document(codec.encode({"rows": 15, "features": [feature]}), Profile)
    assert read == Profile(15, (NUMBER,))
    assert (read.columns, read.streams, read.window_s, read.window_rows) == (("t",), 1, 3600, 50)


def test_an_agent_that_does_not_know_these_profiles_refuses_them_by_name(monkeypatch):
    monkeypatch.setattr(codec, "FEATURES", codec.FEATURES - {"profile/2"})
    with pytest.raises(NotUnderstood, match="profile/2"):
        member_document(pretty(FULL), Profile)


def test_slots_outside_of_the_reference_are_those_of_its_kind():
    assert (NUMBER.slots, NUMBER.outside) == (5, (0, 2, 3, 4))
    assert (CITY.slots, CITY.outside) == (4, (2, 3))


def test_the_residual_is_the_stream_after_the_features():
    assert FULL.streams == 4
    assert [FULL.stream(index).name for index in range(4)] == ["t", "u", "city", "residual"]
    with pytest.raises(IndexError):
        FULL.stream(4)
    without = replace(FULL, residual=None)
    assert without.streams == 3
    with pytest.raises(IndexError):
        without.stream(3)


def test_rules_can_name_only_columns_of_the_first_input():
    assert replace(FULL, watched=()).columns == ("t", "u", "city")
    assert FULL.columns == ()


@pytest.mark.parametrize(
    "make, says",
    [
        pytest.param(lambda: Feature("f"), "1 to 64 edges", id="neither edges nor words"),
        pytest.param(lambda: replace(NUMBER, counts=(1,) * 4), "three more", id="a count too few"),
        pytest.param(lambda: replace(NUMBER, edges=(1.0, 1.0)), "increase", id="edges repeat"),
        pytest.param(lambda: replace(NUMBER, words=("a",)), "no words", id="a number with words"),
        pytest.param(lambda: replace(CITY, edges=(1.0,)), "no edges", id="words with edges"),
        pytest.param(lambda: replace(CITY, counts=(1,) * 5), "two more", id="a count too many"),
        pytest.param(lambda: replace(CITY, words=("a", "a")), "distinct", id="a word twice"),
        pytest.param(lambda: replace(CITY, words=("a", "")), "1 to 128", id="an empty word"),
        pytest.param(lambda: replace(CITY, words=("a", "é" * 65)), "1 to 128", id="130 bytes"),
        pytest.param(
            lambda: Feature("w", (), (0,) * 67, "words", tuple(map(str, range(65)))),
            "up to 64 words",
            id="65 words",
        ),
        pytest.param(lambda: replace(BASIS, scale=(1.0,)), "with a scale", id="a scale too few"),
        pytest.param(lambda: replace(BASIS, scale=(1.0, -1.0)), "0 or more", id="a scale below 0"),
        pytest.param(lambda: replace(BASIS, components=()), "1 to 16", id="no component"),
        pytest.param(lambda: replace(BASIS, components=((1.0,),)), "2 numbers", id="a short one"),
        pytest.param(
            lambda: replace(BASIS, components=((1.0, 0.0),) * 17), "1 to 16", id="17 components"
        ),
        pytest.param(lambda: Basis((), (), ()), "1 to 1,024", id="no columns"),
        pytest.param(lambda: Watched("x", "pooled"), "layout", id="pooled without a layout"),
        pytest.param(lambda: Watched("x", layout="hw"), "layout", id="a layout of columns"),
        pytest.param(lambda: Watched("x", "projected"), "basis", id="projected without a basis"),
        pytest.param(lambda: Watched("x", basis=BASIS), "basis", id="a basis of columns"),
        pytest.param(lambda: Residual(CITY, BASIS), "a number", id="a residual of words"),
        pytest.param(
            lambda: replace(FULL, residual=Residual(SPE)), "projected", id="no basis anywhere"
        ),
        pytest.param(
            lambda: replace(FULL, features=(NUMBER,)), "1 columns", id="a basis of other columns"
        ),
        pytest.param(
            lambda: Profile(1, watched=(Watched("e", "projected", basis=BASIS),) * 2),
            "one tensor",
            id="two projected tensors",
        ),
        pytest.param(lambda: replace(FULL, score=CITY), "a number", id="a score of words"),
        pytest.param(lambda: replace(FULL, accuracy=1.1), "accuracy", id="better than right"),
        pytest.param(
            lambda: replace(FULL, calibration=((0.5, 0.5), (0.5, 0.6))), "rise", id="one confidence"
        ),
        pytest.param(
            lambda: replace(FULL, calibration=((0.4, 0.6), (0.5, 0.5))), "rise", id="falling knots"
        ),
        pytest.param(lambda: replace(FULL, calibration=((0.4, 1.5),)), "0 to 1", id="no share"),
        pytest.param(lambda: replace(FULL, window_s=299), "window_s", id="a window of 5 minutes"),
        pytest.param(lambda: replace(FULL, window_s=86_401), "window_s", id="longer than a day"),
        pytest.param(lambda: replace(FULL, window_rows=19), "window_rows", id="19 rows"),
        pytest.param(lambda: Profile(1, (NUMBER,) * 4097), "4,096", id="too many features"),
    ],
)
def test_a_profile_that_cannot_be_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_a_profile_of_other_form_is_the_peers_fault():
    wire = codec.to_wire(FULL)
    for bad in ({"window_s": 1}, {"accuracy": 2}, {"features": [{"name": "f"}]}):
        with pytest.raises(PeerError):
            member_document(codec.encode(wire | bad), Profile)


def test_a_residual_may_be_that_of_the_projected_tensor():
    profile = Profile(
        9,
        (replace(NUMBER, name="axis[0]"),),
        watched=(Watched("embedding", "projected", basis=BASIS),),
        residual=Residual(SPE),
    )
    assert member_document(pretty(profile), Profile) == profile
