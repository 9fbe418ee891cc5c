"""Deltas start from what most devices have, then from the newest versions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from control_plane.encode.bases import MOST_BASES, NEWEST, bases_for
from protocol.bundle import Member
from protocol.identifiers import Digest, digest_of

TARGET = digest_of(b"the new model")


def bundle(name: str) -> Digest:
    return digest_of(f"bundle {name}".encode())


def file(name: str) -> Digest:
    return digest_of(f"file {name}".encode())


def one_file(each: Digest) -> tuple[Member, ...]:
    """A bundle with one model of its own."""
    return (Member("model", "model.onnx", digest_of(each.encode()), 9),)


def model_of(name: str) -> Digest:
    return one_file(bundle(name))[0].digest


def found(held, newest=(), members=one_file, role="model", path="model.onnx"):
    return bases_for(role, path, TARGET, held, newest, members)


def test_what_most_devices_have_comes_first_then_the_newest_versions():
    held = {bundle("v1"): 3, bundle("v3"): 40}
    newest = [bundle("v4"), bundle("v3"), bundle("v2")]
    assert found(held, newest) == (
        (model_of("v3"), bundle("v3"), 40),
        (model_of("v1"), bundle("v1"), 3),
        (model_of("v4"), bundle("v4"), 0),
        (model_of("v2"), bundle("v2"), 0),
    )


def test_there_are_at_most_eight_bases_and_three_that_nobody_has():
    newest = [bundle(f"v{n}") for n in range(20)]
    assert len(found({}, newest)) == NEWEST
    assert len(found(dict.fromkeys(newest, 1), newest)) == MOST_BASES


def test_a_file_is_no_base_of_itself():
    assert found({bundle("v1"): 1}, members=lambda _: (Member("model", "m", TARGET, 9),)) == ()


def test_a_file_of_several_bundles_is_one_base_for_the_devices_of_all():
    same = (Member("model", "model.onnx", file("same"), 9),)
    held = {bundle("v1"): 3, bundle("v2"): 40}
    assert found(held, members=lambda _: same) == ((file("same"), bundle("v2"), 43),)


def test_files_are_compared_with_those_of_their_name():
    def members(_: Digest) -> tuple[Member, ...]:
        return (
            Member("weights", "a.bin", file("a"), 9),
            Member("weights", "b.bin", file("b"), 9),
            Member("policy", "b.bin", file("policy"), 9),
        )

    assert [base for base, *_ in found({bundle("v1"): 1}, (), members, "weights", "b.bin")] == [
        file("b")
    ]
    assert [base for base, *_ in found({bundle("v1"): 1}, (), members, "weights", "c.bin")] == [
        file("a"),
        file("b"),
    ]


def test_a_bundle_that_nobody_knows_any_more_is_no_base():
    assert found({bundle("v1"): 1}, members=lambda _: ()) == ()


@given(
    st.dictionaries(st.sampled_from([bundle(f"v{n}") for n in range(12)]), st.integers(1, 9)),
    st.lists(st.sampled_from([bundle(f"v{n}") for n in range(12)]), unique=True),
)
def test_more_devices_are_never_behind_fewer(held, newest):
    counts = [devices for _, _, devices in found(held, newest)]
    assert counts == sorted(counts, reverse=True)
    assert sum(counts) == sum(sorted(held.values(), reverse=True)[:MOST_BASES])
