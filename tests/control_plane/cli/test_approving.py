"""An approver whose control plane lies: nothing is signed that was not seen, or that was not asked
for. And which keys sign, in which order."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from control_plane.cli import commands
from control_plane.client import Access, Client
from control_plane.init import init_dev
from control_plane.signing import keys
from protocol.members import Card
from tests.control_plane.web.conftest import NOW_MS, Api

Entries = dict[str, Any]
Edit = Callable[[bytes], bytes]


@pytest.fixture
def new_home(quorum_home):
    """Two of ana, bo and cy sign."""
    return quorum_home


class Lying(httpx.BaseTransport):
    """Answers as the API does, but for some paths."""

    def __init__(self, honest: httpx.BaseTransport) -> None:
        self._honest = honest
        self.edits: dict[str, Edit] = {}
        """By what a path ends with."""
        self.posted: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self._honest.handle_request(request)
        body = answer.read()
        if request.method == "POST":
            self.posted.append(request.url.path)
        for end, edit in self.edits.items():
            if request.url.path.endswith(end):
                body = edit(body)
        return httpx.Response(answer.status_code, stream=httpx.ByteStream(body))


@pytest.fixture
def server(api: Api, outrider, monkeypatch) -> Lying:
    """Version 1 is approved, version 2 pushed: ana signs it, or somebody lies to her."""
    api.tick_by_itself()
    api.approved("v1")
    api.pushed("v2", weights_seed=1)
    lying = Lying(api.client._transport)

    def connected(access: Access) -> Client:
        return Client(access, transport=lying)

    monkeypatch.setattr(commands, "Client", connected)
    return lying


def signatures(api: Api, version: str = "v2") -> int:
    shown = api.get(f"models/digits/versions/{version}").json()["version"]
    return int(shown["signatures"]["signed"])


def refused(api: Api, outrider, server: Lying, code: str, *words: str) -> str:
    """What it said; nothing was signed."""
    result = outrider("model", "approve", "digits/v2", *words)
    assert result.exit == 6, result.err
    assert f"error[{code}]" in result.err, result.err
    assert not any("signatures" in path for path in server.posted)
    assert signatures(api) == 0
    return str(result.err)


def listed(edit: Callable[[Entries], None]) -> Edit:
    """The draft with its targets edited."""

    def edited(body: bytes) -> bytes:
        document = json.loads(body)
        metadata = json.loads(document["metadata"])
        edit(metadata["signed"]["targets"])
        text = json.dumps(metadata, separators=(",", ":"), sort_keys=True)
        return json.dumps({**document, "metadata": text}).encode()

    return edited


def evil(targets: Entries) -> None:
    entry = json.loads(json.dumps(targets["models/digits/v2"]))
    entry["hashes"]["sha256"] = "e" * 64
    targets["models/digits/v0"] = entry


def revoke(targets: Entries) -> None:
    targets["models/digits/v1"]["custom"].update(state="revoked", on_device="stop")


def repoint(targets: Entries) -> None:
    targets["models/digits/v1"]["hashes"]["sha256"] = "e" * 64


def grant(targets: Entries) -> None:
    targets["models/digits/v1"]["custom"]["capture"] = ["inputs"]


def swap(targets: Entries) -> None:
    """The version that was asked for, but another bundle: one that is approved already."""
    targets["models/digits/v2"].update(
        hashes=targets["models/digits/v1"]["hashes"], length=targets["models/digits/v1"]["length"]
    )


@pytest.mark.parametrize(
    "edit,says",
    [
        (evil, "digits/v0: approved"),
        (revoke, "digits/v1: revoked"),
        (repoint, "digits/v1: re-pointed"),
        (grant, "digits/v1: terms"),
        (lambda targets: targets.pop("models/digits/v1"), "digits/v1: removed"),
        (lambda targets: targets.pop("models/digits/v2"), "nothing new of digits/v2"),
        (swap, "calls itself digits/v1"),
        (lambda t: t["models/digits/v2"]["custom"].update(surprise=1), "cannot be shown"),
        (lambda t: t["models/digits/v2"].update(length=2**63), "an index of"),
        (lambda t: t["models/digits/v2"]["custom"].pop("audit_head"), ""),
    ],
    ids=[
        "one more", "revokes another", "re-points another", "grants capture", "removes another",
        "does nothing", "other bytes", "unknown term", "oversize claim", "anchors nothing",
    ],
)  # fmt: skip
def test_a_draft_that_does_more_than_was_asked_for_is_not_signed(api, outrider, server, edit, says):
    server.edits["/draft"] = listed(edit)
    code = "OUT-T114" if says else "OUT-S170"
    assert says in " ".join(refused(api, outrider, server, code).split())


@pytest.mark.parametrize("role", ["model", "contract", "index"])
def test_bytes_that_are_not_those_of_the_digest_are_not_signed(api, outrider, server, role):
    row = api.store.bundles.version("digits", "v2")
    bundle = api.bundle("v2", weights_seed=1)
    assert row.digest == bundle.digest
    wanted = bundle.digest if role == "index" else bundle.variant.member(role).digest
    server.edits[f"/blobs/{wanted}"] = lambda body: bytes([body[0] ^ 1]) + body[1:]
    refused(api, outrider, server, "OUT-T103")


def test_packed_bytes_are_not_unpacked(api, outrider, server):
    """A few bytes that become many: they are hashed as they came."""
    bundle = api.bundle("v2", weights_seed=1)
    inner = server.handle_request

    def bomb(request: httpx.Request) -> httpx.Response:
        answer: httpx.Response = inner(request)
        if request.url.path.endswith(bundle.variant.member("model").digest):
            assert request.headers["accept-encoding"] == "identity"
            answer.headers["content-encoding"] = "gzip"
        return answer

    server.handle_request = bomb
    result = outrider("model", "approve", "digits/v2")
    assert result.exit == 0, result.err


def test_a_draft_made_on_an_older_list_is_not_signed(api, outrider, server):
    old = api.client.get("/v1/fleets/north/models/digits/versions/v2/draft").content
    api.pushed("v3", weights_seed=2)
    for name in ("ana.pem", "bo.pem"):
        api.sign("digits/v3", name)
    server.edits["v2/draft"] = lambda body: old
    assert "it is models 3, in force is 3" in refused(api, outrider, server, "OUT-T114")


def test_a_list_that_was_replaced_is_refused_by_whoever_saw_the_newer_one(api, outrider, server):
    old_trust = api.client.get("/v1/fleets/north/tuf").content
    old_draft = api.client.get("/v1/fleets/north/models/digits/versions/v2/draft").content
    api.pushed("v3", weights_seed=2)
    assert outrider("model", "approve", "digits/v3").exit == 0
    assert outrider("model", "approve", "digits/v3").exit == 0
    api.clock[0] += 3_600_000 * 24
    api.publish()
    server.posted.clear()
    assert outrider("model", "approve", "digits/v2", "--json", "-q").exit == 0
    draft = api.get("models/digits/versions/v2/draft").json()
    api.post(f"drafts/{draft['id']}/reject", {})
    api.push(api.bundle("v2", weights_seed=1))
    server.posted.clear()
    server.edits = {"/tuf": lambda body: old_trust, "v2/draft": lambda body: old_draft}
    refused(api, outrider, server, "OUT-T101")


def test_metadata_of_another_fleet_is_refused(api, outrider, server, tmp_path):
    other = init_dev(tmp_path / "other", "north", now_ms=NOW_MS, approvers=("ana", "bo", "cy"))
    mine = api.parts.settings
    root = (mine.tuf / "root" / "1.json").read_bytes()
    (mine.home / "root.json").write_bytes(root)
    theirs = {
        "roots": {"1": (other.tuf / "root" / "1.json").read_text()},
        "roles": {role: (other.tuf / f"{role}.json").read_text() for role in ("targets", "models")},
    }
    server.edits["/tuf"] = lambda body: json.dumps(
        {**theirs, "roles": {**json.loads(body)["roles"], **theirs["roles"]}}
    ).encode()
    result = outrider("model", "approve", "digits/v2")
    assert result.exit in (6, 7)
    assert not any("signatures" in path for path in server.posted)


# --- the audit trail ------------------------------------------------------------------------------


def rewritten(body: bytes) -> bytes:
    return body.replace(b'"who":"local"', b'"who":"nobody"', 1)


@pytest.mark.parametrize(
    "edit,says",
    [
        (rewritten, "was edited"),
        (lambda body: b"".join(body.splitlines(keepends=True)[1:]), "removed"),
        (lambda body: b"".join(reversed(body.splitlines(keepends=True))), "record"),
        (lambda body: b"".join(body.splitlines(keepends=True)[:2]), "the trail ends at 2"),
        (lambda body: b"", "the trail ends at 0"),
        (lambda body: b"garbage\n" + body, "cannot be read"),
        (lambda body: b"x" * 600_000, "more than"),
    ],
    ids=["edited", "first gone", "other order", "cut short", "empty", "garbage", "endless line"],
)
def test_a_trail_that_is_not_whole_stops_the_signature(api, outrider, server, edit, says):
    server.edits["/audit/export"] = edit
    assert says in " ".join(refused(api, outrider, server, "OUT-S170").split())
    # Knowing of lost records is no excuse for a trail that was touched.
    if says != "the trail ends at 2":
        refused(api, outrider, server, "OUT-S170", "--audit-lost")


def test_a_head_that_is_not_of_the_trail_is_not_anchored(api, outrider, server):
    def other(targets: Entries) -> None:
        targets["models/digits/v2"]["custom"]["audit_head"] = "4:" + "0" * 64

    server.edits["/draft"] = listed(other)
    assert "this draft" in refused(api, outrider, server, "OUT-S170")


def test_after_a_restored_backup_an_approver_says_once_that_records_are_lost(api, outrider, server):
    """What `models` in force anchors is not in the trail any more: it was written after the
    backup, and another record has its number now."""
    first = "0:"

    def forget(targets: Entries) -> None:
        nonlocal first
        first = targets["models/digits/v1"]["custom"]["audit_head"]

    listed(forget)(api.client.get("/v1/fleets/north/models/digits/versions/v2/draft").content)
    connection = api.store.connection()
    connection.execute("DROP TRIGGER audit_no_delete")
    connection.execute("DELETE FROM audit")
    api.enrol("cam-1")
    api.put("devices/cam-1/pins/digits", {"version": "digits/v1"})
    draft = api.get("models/digits/versions/v2/draft").json()
    api.post(f"drafts/{draft['id']}/reject", {})
    api.push(api.bundle("v2", weights_seed=1))

    assert "digits/v1 was signed at" in refused(api, outrider, server, "OUT-S170")
    server.posted.clear()
    result = outrider("model", "approve", "digits/v2", "--audit-lost")

    assert result.exit == 0, result.err
    assert f"LOST: record {first[:24]}" in result.err
    done = outrider("model", "approve", "digits/v2")
    assert done.exit == 0, done.err
    assert "LOST" not in done.err


# --- which key ------------------------------------------------------------------------------------


def test_development_keys_sign_one_after_the_other(api, outrider, server):
    first = json.loads(outrider("model", "approve", "digits/v2", "--json").out)
    assert (first["by"], first["complete"]) == (["ana"], False)
    second = json.loads(outrider("model", "approve", "digits/v2", "--json").out)
    assert (second["by"], second["complete"]) == (["ana", "bo"], True)


def test_keys_beside_them_that_are_no_approver_s_do_not_sign(api, outrider, server):
    keys.generate(api.parts.settings.keys / "aaron.pem", "aaron")
    assert json.loads(outrider("model", "approve", "digits/v2", "--json").out)["by"] == ["ana"]
    for name in ("ana", "bo", "cy"):
        (api.parts.settings.keys / f"{name}.pem").unlink()
    result = outrider("model", "approve", "digits/v2")
    assert (result.exit, "OUT-T112" in result.err) == (6, True)


def test_a_key_of_nobody_is_refused(api, outrider, server):
    keys.generate(api.folder / "eve.pem", "ana")
    refused(api, outrider, server, "OUT-T112", "--key", "eve.pem", "--yes")


def test_outside_development_a_key_is_named(api, outrider, server):
    config = api.parts.settings.config
    config.write_text(config.read_text().replace("dev: true", "dev: false"))
    refused(api, outrider, server, "OUT-T112", "--yes")


def test_an_approver_s_own_root_wins_over_the_one_of_the_server(api, outrider, server, tmp_path):
    other = init_dev(tmp_path / "other", "north", now_ms=NOW_MS)
    home = api.parts.settings.home
    shutil.copy(other.tuf / "root" / "1.json", home / "root.json")
    refused(api, outrider, server, "OUT-T101")


def test_names_in_a_bundle_cannot_write_to_the_screen(api, outrider, server):
    card = Card("digits", "v4", metrics={"accuracy\x1b[2K\u202e": 1.0})
    api.pushed("v4", weights_seed=4, card=card)
    result = outrider("model", "approve", "digits/v4")
    assert result.exit == 0
    assert "\x1b" not in result.err
    assert "\u202e" not in result.err
    assert "accuracy?[2K?" in result.err
