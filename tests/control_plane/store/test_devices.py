"""Device rows: documents get new versions when they differ, states are taken newest first."""

from __future__ import annotations

import dataclasses

import pytest

from control_plane.store import Store
from control_plane.store.devices import fact_labels
from protocol.bundle import Facts
from protocol.device import Pin, Settings
from protocol.errors import InvalidRequest
from protocol.identifiers import digest_of
from protocol.reported import ModelState, ReportedState

FACTS = Facts("aarch64", "1.20.1", 1_024_000_000, "0.1.0", "3.11", "linux")
MINUTE = 60_000


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store.sqlite")
    yield store
    store.close()


@pytest.fixture
def device(store):
    return store.devices.enrol("north-cam-1", {"site": "leeds"}, "ab:cd", 100 * MINUTE)


def test_a_device_is_found_by_id_and_by_local_name(store, device):
    assert store.devices.get("cam-1") == store.devices.get("north-cam-1") == device
    assert store.devices.get("cam-2") is None
    with pytest.raises(InvalidRequest, match="S110"):
        store.devices.need("cam-2")


def test_a_name_is_enrolled_once(store, device):
    with pytest.raises(InvalidRequest, match="A203"):
        store.devices.enrol(device.id, {}, None, 1)


def test_versions_are_at_least_unix_minutes_and_always_rise(store, device):
    assert device.version == 100
    pin = {"digits": Pin(digest_of(b"v1"))}
    pinned = store.devices.change(dataclasses.replace(device, pins=pin), 100 * MINUTE)
    assert pinned.version == 101
    free = store.devices.change(dataclasses.replace(pinned, pins={}), 500 * MINUTE)
    assert free.version == 500


@pytest.mark.parametrize(
    "change, since_rises",
    [
        ({"labels": {"site": "york"}}, True),
        ({"pins": {"digits": Pin(digest_of(b"v1"), 5)}}, False),
        ({"allow": {"digits": {digest_of(b"v1"): 3}}}, False),
        ({"settings": Settings(capture_off=True)}, False),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_every_change_is_a_new_document_and_new_labels_a_new_since(
    store, device, change, since_rises
):
    changed = store.devices.change(dataclasses.replace(device, **change), 100 * MINUTE)
    assert changed.version == device.version + 1
    assert (changed.since > device.since) == since_rises
    assert changed.changed == store.devices.sequence() > device.changed
    assert store.devices.changed_after(device.changed) == (changed,)
    assert store.devices.get(device.id) == changed


def test_nothing_different_is_no_new_document(store, device):
    assert store.devices.change(device, 900 * MINUTE) == device


def test_facts_become_labels_and_operators_labels_stay(store, device):
    store.devices.put_state(device.id, ReportedState(7, "0.1.0", facts=FACTS), 1)
    after = store.devices.need("cam-1")
    assert after.labels == {
        "site": "leeds",
        "fact/arch": "aarch64",
        "fact/onnxruntime": "1.20.1",
        "fact/ram_mb": "1024",
        "fact/agent": "0.1.0",
        "fact/system": "linux",
    }
    assert after.since > device.since
    store.devices.put_state(device.id, ReportedState(8, "0.1.0", facts=FACTS), 2)
    assert store.devices.need("cam-1").version == after.version


def test_a_few_megabytes_more_or_less_are_no_other_device():
    sizes = (1_020_000_000, 1_024_000_000, 1_040_000_000)
    assert len({fact_labels(Facts(ram_bytes=size))["fact/ram_mb"] for size in sizes}) == 1
    assert fact_labels(Facts()) == {}


@pytest.mark.parametrize("orders", [(1, 2, 3), (3, 1, 2), (2, 3, 3, 1)])
def test_the_state_with_the_highest_order_wins_in_any_order_of_arrival(store, device, orders):
    for order in orders:
        models = {"digits": ModelState(serving=digest_of(bytes([order])))}
        store.devices.put_state(device.id, ReportedState(order, "0.1", models=models), 5)
    assert store.devices.need("cam-1").state.order == 3
    assert store.devices.running("digits") == {digest_of(b"\x03"): 1}


def test_a_state_of_an_unknown_device_is_ignored(store):
    assert not store.devices.put_state("north-ghost", ReportedState(1, "0.1"), 5)


def test_contact_only_goes_forward(store, device):
    for now_ms in (5, 9, 7):
        store.devices.contact(device.id, now_ms)
    assert store.devices.need("cam-1").last_contact_ms == 9


def test_documents_go_out_until_they_are_marked_as_out(store, device):
    assert store.devices.unpublished() == (device,)
    store.devices.set_published(device.id, device.version)
    assert store.devices.unpublished() == ()
    store.devices.raise_version(device.id, 7000)
    assert [each.version for each in store.devices.unpublished()] == [7001]
    store.devices.set_published(device.id, 7001)
    store.devices.unpublish_all()
    assert len(store.devices.unpublished()) == 1


def test_devices_are_paged_by_id_among_those_chosen(store):
    for n in range(10):
        store.devices.enrol(f"north-d{n}", {"odd": str(n % 2)}, None, 1)

    def odd(device):
        return device.labels["odd"] == "1"

    first = store.devices.page(odd, limit=2)
    second = store.devices.page(odd, first.after, limit=10)
    assert [each.local for each in first.items] == ["d1", "d3"]
    assert [each.local for each in second.items] == ["d5", "d7", "d9"]
    assert second.after is None
    assert store.devices.count(odd) == 5
