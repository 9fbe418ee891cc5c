"""Webhooks: who is told of alarms over HTTP, and what became of each notice."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Response
from pydantic import ConfigDict, Field

from control_plane import webhooks
from control_plane.drift.notices import trial
from control_plane.notifying import COMMAND
from control_plane.store.webhooks import Delivery as Row
from control_plane.store.webhooks import DeliveryState, Hook
from control_plane.web.cursors import DEFAULT_LIMIT, MAX_LIMIT, Page, after, cursor
from control_plane.web.parts import Here, Parts
from control_plane.web.permissions import Who, needs
from control_plane.web.unknown import unknown
from control_plane.webhooks import Secrets, Sender
from protocol.errors import Unavailable
from protocol.wording import rfc3339

router = APIRouter(tags=["alarms"])
"""No idempotency keys: an answer has a secret, and answers are kept. Remove what got lost."""

_LISTED: Final = "deliveries"

Topic = Literal["alarms"]


@dataclass(frozen=True, slots=True)
class NewWebhook:
    __pydantic_config__ = ConfigDict(extra="forbid")
    url: str
    topics: Annotated[list[Topic], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Webhook:
    """`stopped`: when it said that it is gone; nothing is sent any more. `why` is of that."""

    id: str
    url: str
    topics: list[str]
    created: str
    by: str
    stopped: str | None
    why: str


@dataclass(frozen=True, slots=True)
class CreatedWebhook:
    """`secret` signs every notice. It is not shown again."""

    webhook: Webhook
    secret: str


@dataclass(frozen=True, slots=True)
class Tried:
    """The notice was taken."""

    id: str
    taken: bool


@dataclass(frozen=True, slots=True)
class Delivery:
    """One notice on its way. `due` is null where it is not tried again; `why`: the last failure."""

    id: int
    event: int
    state: DeliveryState
    attempts: int
    due: str | None
    done: str | None
    why: str


@dataclass(frozen=True, slots=True)
class Retried:
    """How many notices are due again."""

    deliveries: int


@dataclass(frozen=True, slots=True)
class Webhooks:
    items: list[Webhook]


@router.get("/webhooks", summary="Webhooks", dependencies=[needs("administer")])
def list_webhooks(parts: Here) -> Webhooks:
    """In the order in which they were added."""
    return Webhooks([_shown(each) for each in parts.store.webhooks.all()])


@router.post(
    "/webhooks", summary="Add a webhook", status_code=201, dependencies=[needs("administer")]
)
def create_webhook(asked: NewWebhook, parts: Here, who: Who, response: Response) -> CreatedWebhook:
    """422 OUT-N301 unless it is https at a public address. The secret is only in this answer."""
    webhooks.check(asked.url, private=parts.settings.webhook_private)
    now_ms = parts.now_ms()
    topics = tuple(dict.fromkeys(asked.topics))
    hook = Hook(f"webhook-{secrets.token_hex(4)}", asked.url, topics, who.name, now_ms)
    kept = _secrets(parts)
    secret = kept.make(hook.id)
    try:
        with parts.store.write():
            parts.store.webhooks.add(hook)
            _happened(parts, hook, who.name, "webhook.created", now_ms)
    except BaseException:
        # A secret without its webhook would stay for ever.
        kept.remove(hook.id)
        raise
    response.headers["Cache-Control"] = "no-store"
    return CreatedWebhook(_shown(hook), secret)


@router.delete("/webhooks/{id}", summary="Remove a webhook", dependencies=[needs("administer")])
def remove_webhook(id: str, parts: Here, who: Who) -> Webhook:
    """With its secret and its deliveries: what waits is not sent."""
    with parts.store.write():
        hook = _hook(parts, id)
        parts.store.webhooks.remove(hook.id)
        _happened(parts, hook, who.name, "webhook.removed", parts.now_ms())
    _secrets(parts).remove(hook.id)
    return _shown(hook)


@router.post("/webhooks/{id}/test", summary="Try a webhook", dependencies=[needs("administer")])
def try_webhook(id: str, parts: Here, who: Who) -> Tried:
    """Send a notice that tells of nothing, now. 502 OUT-N302 with what went wrong."""
    hook, now_ms = _hook(parts, id), parts.now_ms()
    with parts.store.write():
        _happened(parts, hook, who.name, "webhook.tested", now_ms)
    name = f"test-{secrets.token_hex(8)}"
    body = trial(parts.settings.fleet, hook.id, name, now_ms).encode()
    tried = _sender(parts).send(hook.id, hook.url, body, now_ms)
    if tried.why:
        raise Unavailable("OUT-N302", f"{hook.id}: {tried.why}", do="look at its other end")
    return Tried(hook.id, taken=True)


@router.get(
    "/webhooks/{id}/deliveries",
    summary="Notices of a webhook, newest first",
    dependencies=[needs("administer")],
)
def list_deliveries(
    id: str,
    parts: Here,
    state: DeliveryState | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    cursor: str | None = None,
) -> Page[Delivery]:
    """Those that ended are kept for 30 days. "command" stands for the command in config.yaml."""
    if id != COMMAND:
        _hook(parts, id)
    rows = parts.store.webhooks
    found = rows.page(id, state, after(cursor, _LISTED, id, state), limit)
    return Page(
        [_delivery(each) for each in found.items],
        _behind(found.after, id, state),
        rows.count(id, state),
    )


@router.post(
    "/webhooks/{id}/retry", summary="Send dead notices again", dependencies=[needs("administer")]
)
def retry_webhook(id: str, parts: Here, who: Who) -> Retried:
    """All of them, from the first try on. A webhook that had said it is gone goes on."""
    now_ms = parts.now_ms()
    with parts.store.write():
        if id != COMMAND:
            _hook(parts, id)
        number = parts.store.webhooks.retry(id, now_ms)
        about = {"webhook": id, "deliveries": number}
        parts.store.happened(who.name, f"webhooks/{id}", "webhook.retried", about, now_ms)
    return Retried(number)


def _hook(parts: Parts, id: str) -> Hook:
    """Raises `InvalidRequest` OUT-S110."""
    found = parts.store.webhooks.get(id)
    if found is None:
        raise unknown("webhook", id, (each.id for each in parts.store.webhooks.all()))
    return found


def _secrets(parts: Parts) -> Secrets:
    return Secrets(parts.settings.webhooks)


def _sender(parts: Parts) -> Sender:
    return Sender(_secrets(parts), private=parts.settings.webhook_private)


def _happened(parts: Parts, hook: Hook, who: str, type: str, now_ms: int) -> None:
    about = {"webhook": hook.id, "url": hook.url, "topics": list(hook.topics)}
    parts.store.happened(who, f"webhooks/{hook.id}", type, about, now_ms)


def _shown(hook: Hook) -> Webhook:
    return Webhook(
        hook.id,
        hook.url,
        list(hook.topics),
        rfc3339(hook.created_ms),
        hook.who,
        rfc3339(hook.stopped_ms) if hook.stopped_ms is not None else None,
        hook.why,
    )


def _delivery(row: Row) -> Delivery:
    return Delivery(
        row.id,
        row.event,
        row.state,
        row.attempts,
        rfc3339(row.due_ms) if row.state == "waiting" else None,
        rfc3339(row.done_ms) if row.done_ms is not None else None,
        row.why,
    )


def _behind(key: tuple[str | int, ...] | None, id: str, state: str | None) -> str | None:
    return cursor(key, _LISTED, id, state) if key else None
