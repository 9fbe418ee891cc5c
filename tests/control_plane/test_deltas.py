"""What devices run makes the next version small; what is made once is not made again."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from control_plane.deltas import InBackground, abilities_of, travelling
from control_plane.encode import making
from control_plane.encode.making import Ability, File
from control_plane.encode.offering import is_plain
from control_plane.encode.search import Effort
from control_plane.settings import Settings
from control_plane.store.plans import Assignment, PlanRow
from protocol.bundle import (
    Index,
    Member,
    Variant,
    VariantReference,
    encode_index,
    encode_manifest,
)
from protocol.identifiers import digest_of
from protocol.payload import (
    FEATURE_LZMA,
    FEATURE_PATCH,
    FEATURE_SEGMENTS,
    KNOWN_FEATURES,
    PLAIN_FEATURES,
)
from tests.fakes.published import MODEL, NOW_MS, Origin

QUICK = Effort(level=3, lzma=False)


class Counted:
    """The real encoder, with little effort, and what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[File, File | None, frozenset[Ability]]] = []
        self.problem: BaseException | None = None

    def __call__(self, target, base, abilities, directory, tell, *, below):
        self.asked.append((target, base, abilities))
        if self.problem is not None and base is not None:
            raise self.problem
        return making.make(target, base, abilities, directory, tell, QUICK, below)

    @property
    def pairs(self):
        return [(target.digest, base.digest if base else None) for target, base, _ in self.asked]


@pytest.fixture
def make():
    return Counted()


@pytest.fixture
def origin(tmp_path, make):
    origin = Origin(Settings(tmp_path), make)
    yield origin
    origin.store.close()


@pytest.fixture
def v1(origin):
    bundle = origin.bundle("v1")
    origin.push(bundle)
    return bundle


def model_of(bundle):
    return bundle.variant.member("model").digest


def entries(origin, bundle, role="model"):
    file = bundle.variant.member(role).digest
    return [each.entry for each in origin.store.payloads.of_file(MODEL, file)]


def bases(origin, bundle, role="model"):
    return [each.base for each in entries(origin, bundle, role)]


def test_devices_that_were_never_heard_do_not_count_and_the_rest_by_how_many(origin):
    assert abilities_of(origin.store) == ()
    origin.hear("a", features=KNOWN_FEATURES)
    for name in "bc":
        origin.hear(name, features=PLAIN_FEATURES | FEATURE_PATCH)
    origin.store.devices.enrol("local-silent", {}, None, NOW_MS)
    assert abilities_of(origin.store) == (
        Ability(PLAIN_FEATURES | FEATURE_PATCH),
        Ability(KNOWN_FEATURES),
    )
    assert len(abilities_of(origin.store, 1)) == 1


def test_without_devices_there_is_one_payload_per_file_for_everybody(origin, make, v1):
    assert make.asked == []
    assert [is_plain(each) for each in entries(origin, v1)] == [True]


def test_a_push_makes_deltas_from_what_devices_run(origin, v1):
    origin.hear("cam", v1.digest)
    v2 = origin.bundle("v2", 1.00001)
    origin.push(v2)
    found = entries(origin, v2)
    assert found[0].base == model_of(v1)
    assert any(map(is_plain, found))
    full = min(each.size for each in found if each.base is None)
    assert found[0].size < full


def test_the_newest_versions_are_bases_before_any_device_has_them(origin, v1):
    origin.hear("cam")
    v2 = origin.bundle("v2", 1.00001)
    origin.push(v2)
    assert model_of(v1) in bases(origin, v2)


def test_a_device_that_cannot_decode_any_of_it_costs_no_attempt(origin, make, v1):
    origin.hear("old", v1.digest, features=PLAIN_FEATURES)
    origin.push(origin.bundle("v2", 1.00001))
    assert make.asked == []


def test_small_files_and_equal_files_cost_no_attempt(origin, make, v1):
    origin.hear("cam", v1.digest)
    v2 = origin.bundle("v2", 1.00001)
    origin.push(v2)
    large = {m.digest for m in v2.variant.members if m.size > 600}
    equal = {m.digest for m in v1.variant.members}
    assert {target for target, base in make.pairs if base} <= large - equal


def test_files_without_numbers_are_only_for_those_that_patch(origin, make, v1):
    origin.hear("cam", v1.digest, features=PLAIN_FEATURES | FEATURE_SEGMENTS)
    origin.push(origin.bundle("v2", 1.00001))
    assert {target.role for target, _, _ in make.asked} == {"model"}
    origin.hear("bow", v1.digest)
    origin.push(origin.bundle("v3", 1.00002))
    assert {target.role for target, _, _ in make.asked} == {"model", "golden"}


def test_a_push_that_is_repeated_makes_only_what_is_missing(origin, make, v1):
    origin.hear("cam", v1.digest)
    v2 = origin.bundle("v2", 1.00001)
    origin.push(v2)
    before = list(make.pairs)
    origin.restart()
    origin.push(v2)
    assert make.pairs == before
    assert len(before) == len(set(before))


def test_what_was_not_worth_it_is_not_tried_again(origin, make, v1):
    origin.hear("cam", v1.digest)
    v2 = origin.bundle("v2", weights_seed=5)
    origin.push(v2)
    assert bases(origin, v2).count(model_of(v1)) == 0
    assert (model_of(v2), model_of(v1)) in make.pairs
    make.asked.clear()
    origin.restart()
    origin.push(v2)
    assert make.asked == []


def test_only_what_is_missing_for_a_new_kind_of_device_is_made(origin, make, v1):
    few = PLAIN_FEATURES | FEATURE_SEGMENTS
    origin.hear("cam", v1.digest, features=few)
    v2 = origin.bundle("v2", 1.00001)
    origin.push(v2)
    make.asked.clear()
    origin.hear("new", v1.digest, features=few | FEATURE_LZMA)
    origin.deltas.make(origin.deltas.of(v2.digest), lambda *_: None)
    assert {abilities for *_, abilities in make.asked} == {frozenset({Ability(few | FEATURE_LZMA)})}


def test_a_payload_that_was_lost_is_made_again(origin, make, v1):
    origin.hear("cam", v1.digest)
    v2 = origin.bundle("v2", 1.00001)
    origin.push(v2)
    lost = entries(origin, v2)[0]
    assert lost.base
    (origin.settings.payloads / lost.payload).unlink()
    make.asked.clear()
    origin.push(v2)
    assert make.pairs == [(model_of(v2), lost.base)]
    assert (origin.settings.payloads / lost.payload).exists()


def test_what_fails_is_logged_and_left_alone_and_the_push_succeeds(origin, make, v1, caplog):
    origin.hear("cam", v1.digest)
    make.problem = IndexError("a bug")
    v2 = origin.bundle("v2", 1.00001)
    with caplog.at_level(logging.ERROR):
        assert origin.push(v2).state == "draft"
    assert f"{model_of(v2)} from {model_of(v1)}" in caplog.text
    assert not any(bases(origin, v2))
    origin.store.bundles.set_state(v2.digest, "approved")
    origin.store.plans.put(plan_row())
    origin.store.plans.assign(MODEL, [Assignment(None, v2.digest)])
    assert not [each for each in origin.deltas.due() if each.target.digest == model_of(v2)]
    make.problem = None
    origin.restart()
    origin.deltas.make(origin.deltas.due(), lambda *_: None)
    assert model_of(v1) in bases(origin, v2)


def plan_row():
    return PlanRow(MODEL, 1, 1, b"{}")


def test_what_is_stable_is_made_for_what_devices_report_to_have(origin, make, v1):
    v2 = origin.bundle("v2", 1.00001)
    origin.push(v2)
    origin.store.plans.put(plan_row())
    origin.store.plans.assign(MODEL, [Assignment(None, v2.digest)])
    origin.hear("cam", v1.digest)
    assert origin.deltas.due() == (), "nobody may have a draft"
    origin.store.bundles.set_state(v2.digest, "approved")
    due = origin.deltas.due()
    assert (model_of(v2), model_of(v1)) in {
        (each.target.digest, each.base.digest if each.base else None) for each in due
    }
    assert [each.base is None for each in due] == sorted(
        (each.base is None for each in due), reverse=True
    )
    assert origin.deltas.make(due, lambda *_: None)
    assert origin.deltas.due() == ()


def test_a_base_that_nobody_has_any_more_is_not_tried(origin, make, v1):
    v2 = origin.bundle("v2", 1.00001)
    origin.push(v2)
    origin.store.bundles.set_state(v2.digest, "approved")
    origin.store.plans.put(plan_row())
    origin.store.plans.assign(MODEL, [Assignment(None, v2.digest)])
    origin.hear("cam", v1.digest)
    origin.hear("cam", v2.digest, order=2)
    assert all(each.base is None for each in origin.deltas.due())


def test_a_base_that_is_not_here_any_more_is_passed_over(origin, v1):
    origin.hear("cam", v1.digest)
    origin.blobs.remove(model_of(v1))
    v2 = origin.bundle("v2", 1.00001)
    origin.push(v2)
    assert not any(bases(origin, v2))


def test_each_weights_file_is_found_under_the_name_that_its_model_calls_it(origin, make):
    def two(version: str, first: bytes, second: bytes):
        """A bundle like those of models whose tensors lie in two files."""
        made = origin.bundle(version)
        files = {"a.bin": first, "b.bin": second}
        for data in files.values():
            origin.blobs.put(data, limit=10**9)
        extra = (Member("weights", n, digest_of(d), len(d)) for n, d in files.items())
        variant = Variant((*made.variant.members, *extra))
        manifest = encode_manifest(variant)
        index = encode_index(
            Index(MODEL, version, (VariantReference(digest_of(manifest), len(manifest)),))
        )
        for member in made.variant.members:
            origin.blobs.put((made.path / member.path).read_bytes(), limit=10**9)
        origin.blobs.put(manifest, limit=10**9)
        return origin.blobs.put(index, limit=10**9)

    before = two("v1", b"a" * 5000, b"b" * 5000)
    after = two("v2", b"a" * 5001, b"b" * 5001)
    origin.hear("cam", before)
    weights = [each for each in origin.deltas.of(after) if each.target.role == "weights"]
    named = {(each.target.location, each.base.location if each.base else None) for each in weights}
    assert named == {("a.bin", None), ("b.bin", None), ("a.bin", "a.bin"), ("b.bin", "b.bin")}
    assert all(each.target.model and each.target.model.exists() for each in weights)


def test_progress_goes_from_nothing_to_everything_and_never_back(origin, v1):
    origin.hear("cam", v1.digest)
    origin.push(origin.bundle("v2", 1.00001))
    done = [each for each, _, _ in origin.told]
    assert {unit for *_, unit in origin.told} == {"kB"}
    assert len({total for _, total, _ in origin.told}) == 1
    assert done == sorted(done)
    assert done[0] == 0
    assert done[-1] == origin.told[-1][1]


def test_a_control_plane_that_stops_gives_up_what_it_makes(origin, make, v1):
    origin.hear("cam", v1.digest)
    v2 = origin.bundle("v2", 1.00001)
    origin.deltas.stop()
    origin.push(v2)
    assert make.asked == []

    def stopping(target, base, abilities, directory, tell, **options):
        origin.deltas.stop()
        tell(1, 2)
        raise AssertionError("went on")

    origin.make = stopping
    origin.restart()
    due = origin.deltas.of(v2.digest)
    assert origin.deltas.make(due, lambda *_: None) == 0
    origin.restart()
    assert origin.deltas.of(v2.digest) == due


# --- in the background ------------------------------------------------------------------------


def test_one_operation_at_a_time_makes_what_has_become_due(origin, make, v1):
    v2 = origin.bundle("v2", 1.00001)
    origin.push(v2)
    origin.store.bundles.set_state(v2.digest, "approved")
    origin.store.plans.put(plan_row())
    origin.store.plans.assign(MODEL, [Assignment(None, v2.digest)])
    started: list[Any] = []
    wakes: list[None] = []

    def start(kind, about, task):
        started.append((kind, about, task))
        return origin.store.operations.create(kind, about, NOW_MS)

    background = InBackground(origin.deltas, origin.store, start, lambda: wakes.append(None))
    background.step()
    assert started == []
    origin.hear("cam", v1.digest)
    background.step()
    background.step()
    ((kind, about, task),) = started
    assert (kind, about) == ("encode", {"models": [MODEL]})
    origin.store.operations.progress("op-1", 0, 1, "kB", NOW_MS)
    waiting = origin.store.operations.create("push", {}, NOW_MS)
    assert task(lambda *_: None)["made"] == 0, "a push waits"
    origin.store.operations.succeed(waiting.id, {}, NOW_MS)
    made = task(lambda *_: None)["made"]
    assert made > 0
    assert wakes == [None, None]
    origin.store.operations.succeed("op-1", {"made": made}, NOW_MS)
    background.step()
    assert len(started) == 1


# --- what travels -------------------------------------------------------------------------------


def test_a_push_tells_what_travels_per_base(origin, v1):
    new = travelling(origin.store, origin.blobs.read, v1.digest)
    assert [(each["base"], each["devices"]) for each in new] == [(None, 0)]
    for name in ("a", "b"):
        origin.hear(name, v1.digest)
    origin.hear("old", v1.digest, features=PLAIN_FEATURES)
    origin.hear("other")
    v2 = origin.bundle("v2", 1.00001)
    origin.push(v2)
    delta, packed, full = travelling(origin.store, origin.blobs.read, v2.digest)
    assert (delta["base"], delta["devices"]) == ("toy/v1", 2)
    assert (packed["base"], packed["devices"]) == ("toy/v1", 1)
    assert (full["base"], full["devices"]) == (None, 0)
    assert delta["bytes"] < packed["bytes"] < full["bytes"]


def test_devices_that_have_it_receive_nothing(origin, v1):
    origin.hear("cam", v1.digest)
    found = travelling(origin.store, origin.blobs.read, v1.digest)
    assert [each["devices"] for each in found] == [0]
