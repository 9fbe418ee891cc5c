from control_plane.web.idempotency import HEADER
from protocol.identifiers import digest_of
from protocol.reported import ModelState


def test_a_pushed_bundle_is_a_draft_with_its_approvals_counted(api):
    bundle = api.bundle()
    operation = api.push(bundle).json()
    assert (operation["state"], operation["unit"]) == ("succeeded", "kB")
    assert operation["done"] == operation["total"] > 0
    assert operation["result"]["reference"] == "digits/v1"
    assert operation["result"]["payload_bytes"] > 0
    (version,) = api.get("models/digits/versions").json()["items"]
    assert version["state"] == "draft"
    assert version["digest"] == bundle.digest
    assert version["devices"] == 0
    signatures = version["signatures"]
    assert (signatures["signed"], signatures["needed"]) == (0, 1)
    assert signatures["missing"] == ["dev keys"]
    assert api.wakes


def test_what_was_pushed_lies_in_blobs_and_is_encoded_for_travel(api):
    bundle = api.pushed()
    for member in bundle.variant.members:
        data = api.get(f"blobs/{member.digest}").content
        assert digest_of(data) == member.digest
        (payload,) = api.store.payloads.of_file("digits", member.digest)
        assert (api.parts.settings.home / payload.path).stat().st_size == payload.entry.size
    assert digest_of(api.get(f"blobs/{bundle.digest}").content) == bundle.digest
    assert list((api.parts.settings.home / "incoming").iterdir()) == []


def test_the_same_bundle_again_changes_nothing(api):
    bundle = api.pushed()
    assert api.push(bundle).json()["state"] == "succeeded"
    assert api.get("models/digits/versions").json()["count"] == 1


def test_a_version_never_changes(api):
    api.pushed("v1")
    other = api.bundle("v1", weights_seed=7)
    answer = api.call("POST", "bundles", content=api.packed(other))
    assert (answer.status_code, answer.json()["code"]) == (409, "OUT-B130")
    assert list((api.parts.settings.home / "incoming").iterdir()) == []


def test_an_upload_that_is_no_bundle_is_refused_and_leaves_nothing(api):
    whole = api.packed(api.bundle())
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    for body in (b"", b"x" * 2000, whole[:-2048], bytes(damaged)):
        answer = api.call("POST", "bundles", content=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "OUT-B120")
    assert list((api.parts.settings.home / "incoming").iterdir()) == []
    assert api.get("models").json()["items"] == []


def test_a_push_with_a_key_is_done_once(api):
    body = api.packed(api.bundle())
    headers = {HEADER: "k"}
    first = api.call("POST", "bundles", content=body, headers=headers)
    second = api.call("POST", "bundles", content=body, headers=headers)
    assert second.headers["idempotency-replayed"] == "true"
    assert (second.status_code, second.json()) == (202, first.json())
    assert second.headers["location"] == first.headers["location"]
    other = api.call("POST", "bundles", content=api.packed(api.bundle("v2")), headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "OUT-S140")


def test_an_approvers_signature_approves_at_the_threshold(api):
    bundle = api.pushed()
    before = len(api.wakes)
    answer = api.sign("digits/v1")
    assert answer.status_code == 201
    assert answer.json() == {
        "signed": 1, "needed": 1, "by": ["dev keys"], "missing": [], "complete": True,
        "restarted": [],
    }  # fmt: skip
    assert len(api.wakes) > before
    assert bundle.digest in api.parts.repository.approvals()
    api.publish()
    (version,) = api.get("models/digits/versions").json()["items"]
    assert version["state"] == "approved"
    assert (version["signatures"]["signed"], version["signatures"]["needed"]) == (1, 1)


def test_what_is_approved_has_no_draft_any_more(api):
    api.approved()
    answer = api.get("models/digits/versions/v1/draft")
    assert (answer.status_code, answer.json()["code"]) == (409, "OUT-T111")


def test_a_signature_of_somebody_else_is_refused(api):
    api.pushed()
    draft = api.get("models/digits/versions/v1/draft").json()["draft"]
    body = {"draft": draft, "signature": {"keyid": "ab" * 32, "sig": "00" * 64}}
    answer = api.post("models/digits/versions/v1/signatures", body)
    assert (answer.status_code, answer.json()["code"]) == (403, "OUT-T112")
    body["draft"] = draft + 1
    answer = api.post("models/digits/versions/v1/signatures", body)
    assert (answer.status_code, answer.json()["code"]) == (409, "OUT-T111")


def test_versions_come_newest_first_page_by_page(api):
    for number in range(3):
        api.clock[0] += 1000
        api.pushed(f"v{number}")
    first = api.get("models/digits/versions", limit=2).json()
    assert [each["version"] for each in first["items"]] == ["v2", "v1"]
    assert first["count"] == 3
    last = api.get("models/digits/versions", limit=2, cursor=first["next_cursor"]).json()
    assert [each["version"] for each in last["items"]] == ["v0"]
    assert last["next_cursor"] is None


def test_a_cursor_of_another_list_is_refused(api):
    for number in range(2):
        api.pushed(f"v{number}")
    api.pushed(model="other")
    cursor = api.get("models/digits/versions", limit=1).json()["next_cursor"]
    answer = api.get("models/other/versions", limit=1, cursor=cursor)
    assert (answer.status_code, answer.json()["code"]) == (400, "OUT-S130")


def test_models_are_listed_with_what_devices_run(api):
    bundle = api.pushed()
    api.pushed(model="other")
    api.enrol("a-1")
    api.report("a-1", digits=ModelState(current=bundle.digest, serving=bundle.digest))
    page = api.get("models", limit=1).json()
    assert page["items"] == [{"model": "digits", "versions": 1, "newest": "v1", "devices": 1}]
    page = api.get("models", limit=1, cursor=page["next_cursor"]).json()
    assert [each["model"] for each in page["items"]] == ["other"]
    assert page["next_cursor"] is None
    assert api.get("models/digits/versions").json()["items"][0]["devices"] == 1


def test_one_version_shows_its_card_and_what_it_needs(api):
    bundle = api.pushed()
    shown = api.get("models/digits/versions/v1").json()
    assert shown["version"]["reference"] == "digits/v1"
    assert shown["card"]["model"] == "digits"
    (variant,) = shown["variants"]
    assert variant["digest"] == bundle.manifest
    assert variant["needs"]["onnxruntime"] == ""


def test_an_unknown_name_is_answered_with_a_similar_one(api):
    api.pushed()
    for path, do in (
        ("models/digit/versions", "a similar name: digits"),
        ("models/digits/versions/v2", "a similar name: v1"),
        ("/v1/fleets/nort/models", "a similar name: north"),
    ):
        answer = api.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "OUT-S110")
        assert answer.json()["help"] == do


def test_metadata_is_given_under_the_names_that_tuf_clients_ask_for(api):
    together = api.get("tuf").json()
    assert list(together["roles"])[-1] == "timestamp"
    assert api.get("tuf/1.root.json").text == together["roots"]["1"]
    assert api.get("tuf/timestamp.json").text == together["roles"]["timestamp"]
    for missing in ("2.root.json", "0.root.json", "secret.json", "..%2F..%2Fconfig.yaml"):
        assert api.get(f"tuf/{missing}").status_code == 404


def test_there_is_no_blob_of_another_name(api):
    for name in (digest_of(b"nothing"), "sha256-12", "..%2Foperator.token"):
        assert api.get(f"blobs/{name}").status_code == 404


def test_payloads_of_a_model_are_told_with_what_was_published(api):
    bundle = api.pushed()
    items = api.get("models/digits/payloads").json()["items"]
    assert {item["file"] for item in items} == {m.digest for m in bundle.variant.members}
    assert {item["published_bytes"] for item in items} == {0}
