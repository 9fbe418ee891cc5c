import logging
import stat
from dataclasses import replace

import pytest

from control_plane.drift.notices import signature
from control_plane.people import new_token
from control_plane.webhooks import Secrets
from protocol.identifiers import digest_of
from tests.fakes.hooks import TRUST, Receiver

PUBLIC = "https://8.8.8.8/notices"
"""An address needs no look-up; nothing is sent there."""


@pytest.fixture
def receiver(api, tmp_path, monkeypatch):
    """A webhook's other end on this machine, which is allowed here."""
    with Receiver(tmp_path / "receiver") as made:
        monkeypatch.setenv(TRUST, str(made.authority))
        settings = replace(api.parts.settings, webhook_private=True)
        api.parts = replace(api.parts, settings=settings)
        api.client.app.state.parts = api.parts
        yield made


def added(api, url=PUBLIC):
    answer = api.post("webhooks", {"url": url, "topics": ["alarms"]})
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_a_webhook_is_added_listed_and_removed(api):
    made = added(api)["webhook"]
    assert (made["url"], made["topics"], made["by"]) == (PUBLIC, ["alarms"], "local")
    assert api.get("webhooks").json()["items"] == [made]
    assert api.delete(f"webhooks/{made['id']}").json() == made
    assert api.get("webhooks").json()["items"] == []
    assert not (api.parts.settings.webhooks / made["id"]).exists()
    assert [each.what for each in api.store.audit.page(about="webhooks").items] == [
        "webhook.removed",
        "webhook.created",
    ]


def test_the_secret_is_in_no_answer_but_the_first_and_in_no_log(api, receiver, caplog):
    caplog.set_level(logging.DEBUG)
    answer = api.post("webhooks", {"url": receiver.url, "topics": ["alarms"]})
    secret, hook = answer.json()["secret"], answer.json()["webhook"]["id"]
    assert answer.headers["cache-control"] == "no-store"
    bare = secret.removeprefix("whsec_")
    api.post(f"webhooks/{hook}/test")
    seen = [
        api.get(path).text
        for path in ("webhooks", f"webhooks/{hook}/deliveries", "audit", "events", "audit/export")
    ]
    assert not any(bare in text for text in (*seen, caplog.text))
    store = api.parts.settings.store
    files = [store, *store.parent.glob(f"{store.name}-*")]
    assert not any(bare.encode() in path.read_bytes() for path in files)
    kept = api.parts.settings.webhooks / hook
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "url",
    [
        "http://8.8.8.8/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://169.254.169.254/latest",
        "https://localhost/",
        "https://user@8.8.8.8/",
    ],
)
def test_an_address_that_is_not_public_is_refused(api, url):
    refused = api.post("webhooks", {"url": url, "topics": ["alarms"]})
    assert (refused.status_code, refused.json()["code"]) == (422, "OUT-N301")
    assert api.get("webhooks").json()["items"] == []


def test_only_topics_that_there_are(api):
    for topics in ([], ["rollouts"], "alarms"):
        assert api.post("webhooks", {"url": PUBLIC, "topics": topics}).status_code == 422


def test_a_webhook_is_tried_with_a_signed_notice_that_tells_of_nothing(api, receiver):
    hook = added(api, receiver.url)["webhook"]["id"]
    assert api.post(f"webhooks/{hook}/test").json() == {"id": hook, "taken": True}
    (took,) = receiver.took
    expected = signature(
        Secrets(api.parts.settings.webhooks).read(hook),
        took.headers["webhook-id"],
        int(took.headers["webhook-timestamp"]),
        took.body,
    )
    assert took.headers["webhook-signature"] == expected


def test_a_trial_that_fails_says_why(api, receiver):
    receiver.answers = (503,)
    hook = added(api, receiver.url)["webhook"]["id"]
    refused = api.post(f"webhooks/{hook}/test")
    assert (refused.status_code, refused.json()["code"]) == (502, "OUT-N302")
    assert "it answered 503" in refused.json()["detail"]


def test_what_became_of_each_notice_is_shown_and_sent_again(api):
    hook = added(api)["webhook"]["id"]
    rows, now_ms = api.store.webhooks, api.clock[0]
    for event in (1, 2, 3):
        rows.queue(hook, event, "{}", now_ms)
    first, second, _ = sorted(rows.page(hook).items, key=lambda each: each.id)
    rows.sent(first.id, now_ms)
    rows.failed(second.id, "it answered 500", None, now_ms)
    shown = api.get(f"webhooks/{hook}/deliveries").json()
    assert [(each["event"], each["state"]) for each in shown["items"]] == [
        (3, "waiting"), (2, "dead"), (1, "sent"),
    ]  # fmt: skip
    (dead,) = api.get(f"webhooks/{hook}/deliveries", state="dead").json()["items"]
    assert (dead["why"], dead["due"], dead["attempts"]) == ("it answered 500", None, 1)
    assert api.post(f"webhooks/{hook}/retry").json() == {"deliveries": 1}
    assert rows.count(hook, "dead") == 0
    assert api.store.audit.page().items[0].what == "webhook.retried"


def test_the_command_cannot_be_set_over_the_api(api):
    """It is what runs on the control plane's machine: only its own file says it."""
    schema = api.get("/openapi.json").json()
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            if method != "get":
                assert "alarm_command" not in str(operation), path
    assert "alarm_command" not in str(schema["components"])
    refused = api.post("webhooks", {"url": PUBLIC, "topics": ["alarms"], "command": ["sh"]})
    assert refused.status_code == 422
    assert api.get("webhooks/command/deliveries").json()["items"] == []


def test_a_webhook_that_is_not_known_is_said(api):
    for method, path in (
        ("DELETE", "webhooks/webhook-1"),
        ("POST", "webhooks/webhook-1/test"),
        ("POST", "webhooks/webhook-1/retry"),
        ("GET", "webhooks/webhook-1/deliveries"),
    ):
        assert api.call(method, path).json()["code"] == "OUT-S110"


def test_only_admins_see_webhooks(api):
    token = new_token()
    api.store.people.create(digest_of(token.encode()), "eva", "operator", api.clock[0])
    eva = {"headers": {"authorization": f"Bearer {token}"}}
    assert api.call("GET", "webhooks", **eva).status_code == 403
    assert api.post("webhooks", {"url": PUBLIC, "topics": ["alarms"]}, **eva).status_code == 403
