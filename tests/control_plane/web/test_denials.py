"""Denials over the API: at once, only subtracting, and reversible."""

from control_plane.store import Store
from protocol.plan import Denied
from protocol.reported import ModelState


def version(api):
    return api.get("models/digits/versions/v1").json()["version"]


def test_a_denied_version_is_on_the_list_that_the_ticker_signs(api):
    bundle = api.approved()
    api.enrol("cam-1")
    api.report("cam-1", digits=ModelState(current=bundle.digest, serving=bundle.digest))
    before = len(api.wakes)

    answer = api.put("models/digits/versions/v1/denial", {"why": "CVE-2026-1"})

    assert answer.json() == {
        "model": "digits",
        "version": "v1",
        "digest": bundle.digest,
        "why": "CVE-2026-1",
        "devices": 1,
    }
    assert len(api.wakes) == before + 1
    assert api.store.plans.denied() == (Denied("digits", bundle.digest, "CVE-2026-1"),)
    assert (version(api)["denied"], version(api)["denied_why"]) == (True, "CVE-2026-1")
    assert version(api)["state"] == "approved"
    assert api.get("denials").json()["items"] == [answer.json()]
    started = api.post("rollouts", {"version": "digits/v1"})
    assert (started.status_code, started.json()["code"]) == (409, "OUT-T105")


def test_denying_again_changes_nothing_but_the_reason(api):
    api.approved()
    path = "models/digits/versions/v1/denial"
    api.put(path, {"why": "a"})
    before = api.store.audit.count()
    api.put(path, {"why": "a"})
    assert api.store.audit.count() == before
    assert api.put(path, {"why": "b"}).json()["why"] == "b"
    assert len(api.get("denials").json()["items"]) == 1


def test_a_denial_is_lifted_once(api):
    api.approved()
    path = "models/digits/versions/v1/denial"
    api.put(path, {"why": "a"})
    assert api.delete(path).json()["why"] == "a"
    assert api.store.plans.denied() == ()
    assert not version(api)["denied"]
    answer = api.delete(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "OUT-S110")
    assert [(each.what, each.why) for each in api.store.audit.page(limit=2).items] == [
        ("model.undenied", ""),
        ("model.denied", "a"),
    ]


def test_a_list_that_devices_would_refuse_as_too_long_is_not_made(api):
    api.approved()
    store: Store = api.store
    for number in range(110):
        store.plans.deny(Denied("other", f"sha256-{number:064x}", "x" * 500))
    answer = api.put("models/digits/versions/v1/denial", {"why": "y"})
    assert answer.json()["code"] == "OUT-N211"
    assert len(store.plans.denied()) == 110


def test_only_a_version_that_there_is_can_be_denied(api):
    api.approved()
    assert api.put("models/digits/versions/v9/denial", {}).status_code == 404
    assert api.put("models/digits/versions/v1/denial", {"why": "x" * 501}).status_code == 422
