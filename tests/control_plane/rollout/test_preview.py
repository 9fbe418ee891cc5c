"""A preview says what a start would do, what will travel, and what can be seen; it does nothing.

Long because bytes, bounds and the store are put together here.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.rollout.detect import aborts, detects
from control_plane.rollout.evidence import Terms, Watched
from control_plane.rollout.fitness import (
    AGENT,
    HARDWARE,
    ONNXRUNTIME,
    RAM,
    SHADOWS,
    WINDOWS,
    features_of,
    why_unfit,
)
from control_plane.rollout.foresight import foresee, scores
from control_plane.rollout.preview import having as having_of
from control_plane.rollout.preview import on_disk, preview
from control_plane.rollout.score import Metric
from control_plane.rollout.spec import Gates, RolloutSpec, read_spec
from control_plane.rollout.starting import start_rollout
from control_plane.rollout.travel import Carried, Having, Library, Received, travel
from control_plane.rollout.waves import Target, lay_out
from control_plane.store import Store
from control_plane.store.bundles import BundleRow
from control_plane.store.devices import Device
from control_plane.store.payloads import EncodedPayload
from control_plane.store.plans import Assignment
from protocol.approval import Approved, ApprovedBundle
from protocol.bundle import (
    ROLES,
    Facts,
    Index,
    Member,
    Needs,
    Variant,
    VariantReference,
    encode_index,
    encode_manifest,
)
from protocol.device import Pin, Settings
from protocol.errors import InvalidRequest
from protocol.identifiers import digest_of
from protocol.payload import (
    FEATURE_BROTLI,
    FEATURE_LZMA,
    FEATURE_SEGMENTS,
    FEATURE_ZSTD,
    MAX_DECODE_MEMORY,
    PLAIN_FEATURES,
    HintEntry,
    frame_count,
)
from protocol.reported import ModelState, ReportedState

SALT = "5a" * 16
NOW_MS = 1_800_000_000_000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
PI = Facts("aarch64", "1.18", 4_000_000_000, "0.2.0")
TINY = Facts("aarch64", "1.18", 64_000_000, "0.2.0")
PC = Facts("x86_64", "1.18", 8_000_000_000, "0.2.0")


def named(text: str) -> str:
    return digest_of(text.encode())


class Shelf:
    """Bundles as they lie in the control plane's store: bytes by digest."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.indexes: dict[str, str] = {}
        self.manifests: dict[str, list[str]] = {}

    def add(self, version: str, *variants: tuple[Needs, dict[str, int]], model: str = "digits"):
        """Each variant: needs, and sizes of the files whose content is new in this version."""
        references = []
        for needs, new in variants:
            members = tuple(
                Member(
                    role,
                    f"{role}.bin",
                    named(f"{role} {version}" if role in new else role),
                    new.get(role, 100),
                )
                for role in ROLES
                if role != "weights"
            )
            data = encode_manifest(Variant(members))
            references.append(VariantReference(self.put(data), len(data), needs))
        self.indexes[version] = self.put(encode_index(Index(model, version, tuple(references))))
        self.manifests[version] = [each.digest for each in references]
        return self.indexes[version]

    def put(self, data: bytes) -> str:
        self.blobs[digest_of(data)] = data
        return digest_of(data)

    def overhead(self, version: str, variant: int = 0) -> int:
        """Bytes of index and manifest."""
        return len(self.blobs[self.indexes[version]]) + len(
            self.blobs[self.manifests[version][variant]]
        )

    def read(self, digest: str) -> bytes:
        return self.blobs[digest]


def entry(name: str, size: int, base: str | None = None) -> HintEntry:
    return HintEntry(named(name), size, frame_count(size), FEATURE_ZSTD, 0, base)


@pytest.fixture
def shelf() -> Shelf:
    found = Shelf()
    found.add("v1", (Needs(), {"model": 1_000_000, "golden": 5_000}))
    found.add("v2", (Needs(), {"model": 1_200_000, "golden": 5_000}))
    return found


OTHERS = len(ROLES) - 1 - 2
"""Files that v1 and v2 have in common, of 100 bytes each."""


# --- bytes ----------------------------------------------------------------------------------------


def test_a_first_install_receives_everything_and_an_update_only_what_is_new(shelf):
    v1, v2 = shelf.indexes["v1"], shelf.indexes["v2"]
    model = named("model v2")
    offered = {
        model: [entry("packed", 400_000)],
        named("golden v2"): [entry("golden packed", 2_000)],
        **{named(r): [entry(f"{r} packed", 90)] for r in ROLES if r not in ("model", "golden")},
    }
    having = [Having()] * 3 + [Having(PI, frozenset({v1}), v1)] * 40
    found = travel(v2, Library(shelf.read), offered, having)
    new, overhead = 402_000, shelf.overhead("v2")
    assert found.received == (
        Received(v1, 40, overhead + new),
        Received(None, 3, overhead + new + 90 * OTHERS),
    )
    assert found.received_bytes == 43 * (overhead + new) + 3 * 90 * OTHERS
    assert found.published_bytes == overhead + new + 90 * OTHERS
    assert found.payloads[0] == Carried(model, named("packed"), None, 400_000, 43)
    assert not found.estimated


def test_a_delta_is_taken_where_its_base_is_on_the_disk(shelf):
    v1, v2 = shelf.indexes["v1"], shelf.indexes["v2"]
    model = named("model v2")
    offered = {
        model: [entry("delta", 9_100, named("model v1")), entry("packed", 400_000)],
        named("golden v2"): [entry("golden packed", 2_000)],
    }
    found = travel(v2, Library(shelf.read), offered, [Having(), Having(PI, frozenset({v1}), v1)])
    by_base = {each.base: each for each in found.payloads if each.file == model}
    assert by_base[named("model v1")].size_bytes == 9_100
    assert by_base[None].size_bytes == 400_000
    assert {each.base: each.bytes_each for each in found.received}[v1] == (
        shelf.overhead("v2") + 9_100 + 2_000
    )


def test_the_preview_counts_deltas_only_for_devices_that_can_decode_them(shelf):
    v1, v2 = shelf.indexes["v1"], shelf.indexes["v2"]
    model, base = named("model v2"), named("model v1")
    offered = {
        model: [
            replace(entry("lzma", 8_000, base), features=FEATURE_SEGMENTS | FEATURE_LZMA),
            replace(entry("segments", 9_000, base), features=FEATURE_SEGMENTS),
            replace(entry("hungry", 9_500, base), decode_memory=MAX_DECODE_MEMORY + 1),
            replace(entry("brotli", 300_000), features=FEATURE_BROTLI),
            entry("plain", 400_000),
        ],
        named("golden v2"): [entry("golden packed", 2_000)],
    }
    some = PLAIN_FEATURES | FEATURE_SEGMENTS
    having = [
        Having(PI, frozenset({v1}), v1, features)
        for features, devices in (
            (PLAIN_FEATURES, 1),
            (some, 2),
            (some | FEATURE_LZMA, 3),
            (PLAIN_FEATURES | FEATURE_BROTLI, 4),
        )
        for _ in range(devices)
    ]
    found = travel(v2, Library(shelf.read), offered, having)
    fetched = {each.size_bytes: each.devices for each in found.payloads if each.file == model}
    assert fetched == {400_000: 1, 9_000: 2, 8_000: 3, 300_000: 4}


@pytest.mark.parametrize(
    "said, features",
    [
        ((), PLAIN_FEATURES),
        (("payload/1", "desired/9"), PLAIN_FEATURES),
        (("payload/1", "payload-segments/1"), PLAIN_FEATURES | FEATURE_SEGMENTS),
    ],
)
def test_what_a_device_can_decode_is_what_it_says(said, features):
    state = ReportedState(1, "0.1", features=said)
    assert having_of(Device("north-cam-1", "cam-1", state=state), "digits").features == features
    assert having_of(Device("north-cam-1", "cam-1"), "digits").features == PLAIN_FEATURES


def test_a_device_that_has_the_version_on_its_disk_receives_nothing(shelf):
    v1, v2 = shelf.indexes["v1"], shelf.indexes["v2"]
    having = Having(PI, frozenset({v1, v2}), v1)
    found = travel(v2, Library(shelf.read), {}, [having])
    assert (found.received, found.payloads) == ((Received(v1, 1, 0),), ())


def test_what_is_not_encoded_yet_counts_with_its_own_size(shelf):
    found = travel(shelf.indexes["v2"], Library(shelf.read), {}, [Having()])
    assert found.estimated
    whole = shelf.overhead("v2") + 1_200_000 + 5_000 + 100 * OTHERS
    assert (found.published_bytes, found.received_bytes) == (whole, whole)


def test_each_device_fetches_the_variant_that_it_can_run():
    shelf = Shelf()
    bundle = shelf.add(
        "v3",
        (Needs(arch=("x86_64",)), {"model": 8_000}),
        (Needs(arch=("aarch64",)), {"model": 3_000, "contract": 50}),
    )
    found = travel(bundle, Library(shelf.read), {}, [Having(PI), Having(PC), Having()])
    common = 100 * (len(ROLES) - 1)
    assert {(each.devices, each.bytes_each) for each in found.received} == {
        (1, shelf.overhead("v3", 1) + common - 200 + 3_050),
        # Who has not said what it is counts as the first variant's.
        (2, shelf.overhead("v3", 0) + common - 100 + 8_000),
    }


def test_a_bundle_on_a_disk_that_nobody_knows_any_more_saves_nothing(shelf):
    v2 = shelf.indexes["v2"]
    found = travel(
        v2, Library(shelf.read), {}, [Having(PI, frozenset({named("gone")}), named("gone"))]
    )
    assert found.received[0].base is None


@given(st.lists(st.sampled_from(["nothing", "v1", "v2", "gone"]), max_size=20))
def test_every_device_is_in_one_row_and_bytes_add_up(disks):
    shelf = Shelf()
    shelf.add("v1", (Needs(), {"model": 700}))
    v2 = shelf.add("v2", (Needs(), {"model": 900}))
    having = [
        Having(PI, frozenset({shelf.indexes.get(disk, named(disk))} if disk != "nothing" else ()))
        for disk in disks
    ]
    found = travel(v2, Library(shelf.read), {named("model v2"): [entry("p", 300)]}, having)
    assert sum(each.devices for each in found.received) == len(disks)
    carried = sum(each.size_bytes * each.devices for each in found.payloads)
    fetching = sum(disk != "v2" for disk in disks)
    assert found.received_bytes == carried + fetching * shelf.overhead("v2")


@pytest.mark.parametrize(
    "state, expected",
    [
        (ModelState(), set()),
        (ModelState(current=named("a"), previous=named("b")), {"a", "b"}),
        (ModelState(current=named("a"), serving=named("c")), {"a", "c"}),
        (ModelState(current=named("a"), target=named("d"), phase="fetching"), {"a"}),
        (ModelState(current=named("a"), target=named("d"), phase="staged"), {"a", "d"}),
    ],
)
def test_what_a_device_has_on_its_disk(state, expected):
    assert on_disk(state) == {named(each) for each in expected}


# --- who cannot take part -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "needs, wanted, facts, features, why",
    [
        (Needs(), (), PI, (), None),
        (Needs(arch=("x86_64",)), (), PI, (), HARDWARE),
        (Needs(onnxruntime="1.20"), (), PI, (), ONNXRUNTIME),
        (Needs(agent="0.3"), (), PI, (), AGENT),
        (Needs(ram_bytes=96_000_000), (), TINY, (), RAM),
        (Needs(ram_bytes=96_000_000), (), Facts(), (), None),
        (Needs(), ("window/1",), PI, ("plan/1",), WINDOWS),
        (Needs(), ("window/1",), PI, ("plan/1", "window/1"), None),
        (Needs(), ("shadow/1", "window/1"), PI, ("plan/1", "window/1"), SHADOWS),
        (Needs(), ("shadow/1",), Facts(), (), None),
    ],
)
def test_why_a_device_cannot_take_part(needs, wanted, facts, features, why):
    assert why_unfit(needs, wanted, facts, features) == why


@pytest.mark.parametrize(
    "body, features",
    [
        ({}, set()),
        ({"maintenance_windows": ["01:00-05:00"]}, {"window/1"}),
        ({"shadow": {}}, {"shadow/1"}),
    ],
)
def test_what_an_agent_must_know_follows_from_the_spec(body, features):
    assert features_of(read_spec({"version": "digits/v2", **body})) == features


# --- what can be seen -----------------------------------------------------------------------------

SPEC = RolloutSpec("digits", "v2")
BAD = {"bad": "> 10 %", "denominator": "activated", "min_completed": 10}


def laid_out(fleet: int, **body):
    targets = [Target(f"north-d{n}", {}) for n in range(fleet)]
    return lay_out(read_spec({"version": "digits/v2", **body}), targets, SALT)


def test_every_wave_has_a_row_of_exact_bounds_of_its_own_devices():
    layout = laid_out(300, waves=["3", "30", "all"], failure_limit="5 %", error_condition=BAD)
    rows = foresee(layout, 300)["detects"]
    assert [(row["wave"], row["devices"]) for row in rows] == [(1, 3), (2, 27), (3, 270)]
    for row in rows:
        exact = detects(row["devices"], limit=0.05, share=2.0 ** -row["wave"])
        assert row["excluded_without_failure"] == exact.excluded
        assert (row["passes_up_to"], row["then_excluded"]) == (exact.passable, exact.limit)
        assert row["fails_from"] == exact.fails_from
        assert [(each["rate"], each["chance"]) for each in row["notices"]] == list(exact.notices)
        chances = aborts(layout.spec.error_condition, row["devices"])
        assert row["aborts"]["needed"] == chances.needed
        assert [each["chance"] for each in row["aborts"]["chances"]] == [
            chance for _, chance in chances.chances
        ]


def test_a_wave_that_adds_no_device_has_no_row():
    layout = laid_out(10, waves=["8", {"percent": 20}, "all"])
    assert [row["wave"] for row in foresee(layout, 10)["detects"]] == [1, 3]


def test_the_background_of_an_earlier_rollout_counts():
    layout = laid_out(300, waves=["30", "all"])
    terms = Terms("2", SALT, 300, named("v1"), background=0.1)
    known, unknown = (foresee(layout, 300, each)["detects"][0] for each in (terms, None))
    assert known["passes_up_to"] > unknown["passes_up_to"]


def watched(metric: Metric, margin: float, scale: float | None, exposure_s: float = 86_400):
    return Watched(f"{metric}/{exposure_s:g}", metric, exposure_s, margin, scale, 0.002)


@pytest.mark.parametrize(
    "series, wave, control, role",
    [
        ([watched("latency", 0.14, 0.05)], 30, 270, "guard"),
        ([watched("latency", 0.14, 0.5)], 30, 270, "watch"),
        ([watched("latency", 0.14, 0.05)], 1, 3, "watch"),
        ([watched("latency", 0.14, 0.05)], 30, 0, "nobody"),
        ([watched("latency", 0.14, None)], 30, 270, "unknown"),
        ([], 30, 270, "unknown"),
        # Even a fleet that hardly scatters could not prove it with so few.
        ([], 2, 298, "watch"),
        ([watched("latency", 0.14, None)], 1, 8, "watch"),
        # The longest exposure decides.
        ([watched("latency", 0.14, 0.5, 60), watched("latency", 0.14, 0.05)], 30, 270, "guard"),
        ([watched("latency", 0.14, 0.05, 60), watched("latency", 0.14, 0.5)], 30, 270, "watch"),
    ],
)
def test_what_a_score_can_show_depends_on_its_scatter_and_on_devices(series, wave, control, role):
    terms = Terms("2", SALT, 300, named("v1"), watched=tuple(series))
    gates = Gates(None, None, 1.15, None, None, None)
    (row,) = scores(gates, terms, wave, control, 1)
    assert (row["metric"], row["margin"], row["role"]) == ("latency", {"ratio": 1.15}, role)
    known = any(each.scale is not None for each in series) and control > 0
    assert (row["notices"] is not None) == known


def test_accuracy_has_a_row_once_devices_send_labels():
    gates = Gates(None, None, None, None, None, 1.0)
    assert scores(gates, None, 30, 270, 1) == []
    terms = Terms("2", SALT, 300, named("v1"), watched=(watched("accuracy", 0.01, None),))
    (row,) = scores(gates, terms, 30, 270, 1)
    assert (row["metric"], row["margin"]) == ("accuracy", {"points": 1.0})
    layout = laid_out(300, waves=["30", "all"])
    said = foresee(layout, 300, terms)["sentences"]
    assert not any("accuracy: no device" in each for each in said)


@pytest.mark.parametrize("scale, role", [(0.005, "guard"), (0.3, "watch"), (None, "unknown")])
def test_drift_has_a_row_where_somebody_asks_for_it(scale, role):
    gates = Gates(None, None, None, None, None, None, 0.1)
    terms = Terms("2", SALT, 300, named("v1"), watched=(watched("drift", 0.1, scale),))
    (row,) = scores(gates, terms, 30, 270, 1)
    assert (row["metric"], row["margin"], row["role"]) == ("drift", {"psi": 0.1}, role)


def test_more_devices_notice_smaller_changes():
    terms = Terms("2", SALT, 900, named("v1"), watched=(watched("latency", 0.14, 0.05),))
    gates = Gates(None, None, 1.15, None, None, None)
    small, large = (scores(gates, terms, n, 900 - n, 1)[0]["notices"] for n in (3, 100))
    assert small > large > 0.14


@pytest.mark.parametrize(
    "body, sentence",
    [
        ({"soak": "24h"}, "it cannot see faults that show later than 1 d"),
        ({}, "it cannot see faults that take time to show: there is no soak"),
        ({"gates": "off"}, "scores are off: only failures and silent devices are judged"),
        ({}, "it cannot see accuracy: no device sends labels"),
        ({"waves": ["all"]}, "scores prove nothing: no device is left to compare with"),
    ],
)
def test_what_the_first_wave_cannot_see_is_said(body, sentence):
    layout = laid_out(300, **{"waves": ["30", "all"], **body})
    assert any(each.startswith(sentence) for each in foresee(layout, 300)["sentences"])


# --- the whole preview ----------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path, shelf):
    store = Store(tmp_path / "store.sqlite")
    for version in ("v1", "v2"):
        store.bundles.put(
            BundleRow(shelf.indexes[version], "digits", version, 1_000, 0, "approved")
        )
    store.plans.assign("digits", [Assignment(None, shelf.indexes["v1"])])
    return store


def enrol(store, shelf, name, *, site="leeds", heard_ms=0, disk=("v1",), facts=PI, features=()):
    id = f"north-{name}"
    store.devices.enrol(id, {"site": site} if site else {}, None, NOW_MS)
    if disk is not None:
        slots = [shelf.indexes[each] for each in disk]
        state = ModelState(
            current=slots[0] if slots else None,
            previous=slots[1] if len(slots) > 1 else None,
            serving=slots[0] if slots else None,
        )
        store.devices.put_state(
            id,
            ReportedState(1, "0.2.0", features=features, facts=facts, models={"digits": state}),
            NOW_MS,
        )
    if heard_ms is not None:
        store.devices.contact(id, NOW_MS - heard_ms)


def approvals(shelf, needs=None):
    return {
        shelf.indexes[version]: ApprovedBundle(
            "digits", version, shelf.indexes[version], Approved(needs=needs or Needs())
        )
        for version in ("v1", "v2")
    }


def shown(store, shelf, needs=None, **body):
    spec = read_spec({"version": "digits/v2", **body})
    return preview(store, spec, approvals(shelf, needs), NOW_MS, lambda: SALT, read=shelf.read)


def test_devices_are_matched_targeted_excluded_and_linked_as_they_are(store, shelf):
    enrol(store, shelf, "here")
    enrol(store, shelf, "lately", heard_ms=4 * HOUR_MS)
    enrol(store, shelf, "long-ago", heard_ms=40 * DAY_MS)
    enrol(store, shelf, "never", heard_ms=None, disk=None)
    enrol(store, shelf, "tiny", facts=TINY)
    enrol(store, shelf, "there", disk=("v2", "v1"))
    enrol(store, shelf, "pinned")
    enrol(store, shelf, "elsewhere", site="york")
    held = store.devices.need("pinned")
    store.devices.change(replace(held, pins={"digits": Pin(shelf.indexes["v1"])}), NOW_MS)
    found = shown(store, shelf, Needs(ram_bytes=96_000_000), to="site = leeds")
    assert (found["matched"], found["targeted"]) == (7, 4)
    assert found["excluded"] == {"pinned": 1, "already there": 1, RAM: 1}
    assert found["linked"] == {"now": 1, "within_30_days": 1, "not": 2}
    assert (found["over"], found["to"], found["model"]) == ("v1", "site = leeds", "digits")


def test_a_device_whose_agent_knows_no_maintenance_windows_is_excluded(store, shelf):
    enrol(store, shelf, "new", features=("plan/1", "window/1"))
    enrol(store, shelf, "old", features=("plan/1",))
    found = shown(store, shelf, maintenance_windows=["01:00-05:00"])
    assert (found["targeted"], found["excluded"]) == (1, {WINDOWS: 1})


def test_waves_say_where_they_are_and_when_they_can_begin(store, shelf):
    for n in range(8):
        enrol(store, shelf, f"l{n}", site="leeds")
        enrol(store, shelf, f"y{n}", site="york", heard_ms=None)
    found = shown(
        store,
        shelf,
        waves=[
            {"devices": ["l1", "y1"], "soak": "24h"},
            {"percent": 50, "per": "site", "soak": "1h", "approve": True},
            "all",
        ],
    )
    first, second, third = found["waves"]
    assert [w["devices"] for w in found["waves"]] == [2, 8, 16]
    assert [w["more"] for w in found["waves"]] == [2, 6, 8]
    assert first["sites"] == {"leeds": 1, "york": 1}
    assert second["sites"] == {"leeds": 3, "york": 3}
    assert [w["linked"] for w in found["waves"]] == [1, 3, 4]
    assert [w["approve"] for w in found["waves"]] == [False, True, False]
    assert [w["earliest"] for w in (first, second, third)] == [
        "2027-01-15T08:00:00Z", "2027-01-16T08:00:00Z", "2027-01-16T09:00:00Z",
    ]  # fmt: skip
    assert found["by"] == "site"


def test_devices_without_sites_have_none(store, shelf):
    enrol(store, shelf, "one", site="")
    found = shown(store, shelf)
    assert (found["by"], found["waves"][0]["sites"]) == (None, {})


def test_a_spec_without_waves_is_shown_with_those_that_suit_the_fleet(store, shelf):
    for n in range(8):
        enrol(store, shelf, f"d{n}")
    waves = shown(store, shelf)["waves"]
    assert [(w["devices"], w["approve"]) for w in waves] == [
        (1, False), (3, True), (4, True), (8, True),
    ]  # fmt: skip
    assert [row["wave"] for row in shown(store, shelf)["detects"]] == [1, 2, 3, 4]


def test_what_is_held_back_is_in_no_wave(store, shelf):
    for n in range(10):
        enrol(store, shelf, f"d{n}")
    found = shown(store, shelf, waves=["2", "all"], holdback=3)
    assert (found["held"], found["targeted"]) == (3, 10)
    assert [w["devices"] for w in found["waves"]] == [2, 7]
    assert sum(w["more"] for w in found["waves"]) == 7


def test_bytes_are_shown_by_what_devices_run(store, shelf):
    store.payloads.put(
        EncodedPayload("digits", named("model v2"), entry("packed", 400_000), "x", 0)
    )
    enrol(store, shelf, "old", disk=("v1",))
    enrol(store, shelf, "new", disk=())
    found = shown(store, shelf)
    overhead = shelf.overhead("v2")
    assert found["received"] == [
        {"base": "v1", "devices": 1, "bytes_each": overhead + 405_000},
        {"base": None, "devices": 1, "bytes_each": overhead + 405_000 + 100 * OTHERS},
    ]
    assert found["received_bytes"] == 2 * (overhead + 405_000) + 100 * OTHERS
    assert found["published_bytes"] == overhead + 405_000 + 100 * OTHERS
    assert found["estimated"]
    packed = [row for row in found["payloads"] if row["payload"]]
    assert packed == [
        {
            "file": named("model v2"),
            "payload": named("packed"),
            "base": None,
            "size_bytes": 400_000,
            "devices": 2,
        }
    ]


def test_bytes_are_unknown_where_a_bundle_cannot_be_read(store, shelf):
    enrol(store, shelf, "one")
    shelf.blobs.clear()
    found = shown(store, shelf)
    assert (found["published_bytes"], found["received_bytes"]) == (None, None)


def test_devices_that_would_need_a_download_to_return_are_counted(store, shelf):
    enrol(store, shelf, "keeps", disk=("v1",))
    enrol(store, shelf, "fresh", disk=())
    enrol(store, shelf, "silent", disk=None)
    assert shown(store, shelf)["returns"] == {"on_disk": 1, "download": 2, "nothing": 0}
    store.plans.assign("digits", [])
    assert shown(store, shelf)["returns"] == {"on_disk": 0, "download": 0, "nothing": 3}


def started(store, shelf, **body):
    spec = read_spec({"version": "digits/v2", **body})
    return start_rollout(store, "north", spec, approvals(shelf), NOW_MS, lambda: SALT, who="eva")


def test_the_preview_is_what_the_start_does(store, shelf):
    for n in range(30):
        enrol(store, shelf, f"d{n}", site="leeds" if n % 3 else "york")
    body = {"waves": ["4", {"percent": 30, "per": "site"}, "all"], "holdback": "10 %"}
    seen = shown(store, shelf, **body)
    id = started(store, shelf, **body)["id"]
    rollout = store.rollouts.get(id)
    assert [wave["devices"] for wave in seen["waves"]] == [w.devices for w in rollout.waves]
    members = store.rollouts.members.of(id)
    for wave in seen["waves"]:
        assert sum(member.wave == wave["wave"] for member in members) == wave["more"]


def test_a_rollout_in_the_way_is_shown_unless_it_is_superseded(store, shelf):
    enrol(store, shelf, "one")
    enrol(store, shelf, "two")
    id = started(store, shelf, to="id = one")["id"]
    assert shown(store, shelf)["in_the_way"] == [{"rollout": id, "devices": 1}]
    assert shown(store, shelf, supersedes=id)["in_the_way"] == []


@pytest.mark.parametrize(
    "body, code, said",
    [
        ({"version": "digits/v9"}, "OUT-S110", "v9"),
        ({"to": "site ="}, "OUT-S101", ""),
        ({"to": "site = nowhere"}, "OUT-R203", "0 devices match"),
        ({"waves": [{"devices": ["cam-9"]}, "all"]}, "OUT-S120", "waves[1].devices"),
        ({"waves": [{"devices": 1, "exclude": ["on"]}, "all"]}, "OUT-S120", "waves[1].exclude"),
        ({"holdback": 5}, "OUT-S120", "holdback"),
        ({"silent_after": "1h"}, "OUT-R212", "silent_after"),
        ({"supersedes": "digits-9"}, "OUT-S110", "digits-9"),
    ],
)
def test_what_a_start_would_refuse_the_preview_refuses(store, shelf, body, code, said):
    enrol(store, shelf, "one")
    with pytest.raises(InvalidRequest) as caught:
        shown(store, shelf, **body)
    assert caught.value.code == code
    assert said in caught.value.why


def test_a_development_device_may_be_called_silent_soon(store, shelf):
    id = "north-one"
    store.devices.enrol(id, {}, None, NOW_MS)
    store.devices.put_state(id, ReportedState(1, "0.2.0", dev=True), NOW_MS)
    assert shown(store, shelf, silent_after="30 s")["targeted"] == 1


def test_devices_that_report_more_often_may_be_called_silent_sooner(store, shelf):
    enrol(store, shelf, "one")
    often = store.devices.need("one")
    store.devices.change(replace(often, settings=Settings(state_interval_s=600)), NOW_MS)
    assert shown(store, shelf, silent_after="20 min")["targeted"] == 1
    with pytest.raises(InvalidRequest, match="R212"):
        shown(store, shelf, silent_after="19 min")


def test_a_preview_changes_nothing(store, shelf):
    enrol(store, shelf, "one")
    before = store.devices.sequence(), store.devices.need("one")
    shown(store, shelf, to="runs.digits = v1")
    assert (store.devices.sequence(), store.devices.need("one")) == before
    assert store.rollouts.count() == 0
