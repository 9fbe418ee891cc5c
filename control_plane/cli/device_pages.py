"""How devices are shown: rows of the list, and the page of one. Pure: the API's bodies in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from control_plane.cli import device_settings, showing
from protocol.identifiers import short
from protocol.wording import UNKNOWN, date, day, duration, moment

COLUMNS: Final = ("DEVICE", "STATE", "RUNS", "SINCE", "LINK", "WHY")
_NOW_S: Final = 90
"""A device heard of so lately counts as linked: more often they report only in development."""
_WEEK_MS: Final = 7 * 86_400_000

_ORIGINS: Final = {
    "technician": "pinned at the device",
    "pin": "pinned by an operator",
    "stable": "stable",
    "ended": "its rollout was aborted",
    "fallback": "signed fallback",
}

Body = Mapping[str, Any]


def rows(device: Body, now_ms: int) -> Iterator[list[str]]:
    """One row for each model of a device, or one that says it has none."""
    link = _link(device, now_ms)
    if device["retired"]:
        at_ms = showing.moment_ms(device["retired"]) or 0
        yield [device["name"], "retired", "", day(at_ms, now_ms), link, ""]
        return
    pinned = {pin["model"] for pin in device["pins"]}
    for model in device["models"]:
        why = model["why"] or ("pinned" if model["model"] in pinned else "")
        runs = model["runs"] or "nothing"
        since = _age(model["since"], now_ms) if model["runs"] else ""
        yield [device["name"], model["state"], runs, since, link, why]
    if not device["models"]:
        yield [device["name"], "no model", "nothing", "", link, ""]


def page(found: Body, records: Body, now_ms: int) -> Iterator[tuple[str, str]]:
    """Label and text of each line about one device."""
    device, document, reported = found["device"], found["document"], found["reported"]
    if device["retired"]:
        yield "retired", moment(showing.moment_ms(device["retired"]), now_ms)
    for model in device["models"]:
        yield from _model(model, (reported or {}).get("models", {}), now_ms)
    if not device["models"]:
        yield "runs", "nothing"
    for pin in device["pins"]:
        version = pin["version"] or short(pin["digest"])
        until = showing.moment_ms(pin["until"])
        yield (
            "pinned",
            f"{pin['model']}/{version}" + (f" until {date(until, now_ms)}" if until else ""),
        )
    for model in device["models"]:
        at_device = (reported or {}).get("models", {}).get(model["model"], {}).get("pinned")
        if at_device is not None:
            yield "pinned", _at_device(model, at_device, now_ms)
    for said in device_settings.words(document["settings"]):
        yield "limited", said
    contact = moment(showing.moment_ms(device["last_contact"]), now_ms)
    read = "" if document["read"] >= document["version"] else f", {document['read']} read"
    yield "contact", f"{contact}     document {document['version']}{read}"
    yield "records", _records(records)
    yield "labels", " ".join(f"{k}={v}" for k, v in sorted(_own(device).items())) or "none"
    yield from _reported(reported)


def _model(model: Body, reported: Body, now_ms: int) -> Iterator[tuple[str, str]]:
    since = showing.moment_ms(model["since"])
    runs = model["runs"] or "nothing"
    if since and model["runs"]:
        runs += f" since {date(since, now_ms)} ({duration((now_ms - since) / 1000)})"
    yield "runs", f"{runs}     {model['state']}"
    if model["heads_for"]:
        yield "should run", f"{model['heads_for']}: {_origin(model, reported)}"
    if model["why"]:
        ended = ("rolled back", "failed", "rules answer", "refuses")
        label = "why" if model["state"] in ended else "waits for"
        yield label, f"{model['why']} {model['detail']}".rstrip()


def _at_device(model: Body, pin: Body, now_ms: int) -> str:
    """What a technician holds a model at, with who and why."""
    names = {model["target"]: model["heads_for"], model["digest"]: model["runs"]}
    name = names.get(pin["digest"]) or f"{model['model']} {short(pin['digest'])}"
    by = f" by {pin['who']}" if pin.get("who") else ""
    until = f" until {date(pin['until_ms'], now_ms)}" if pin.get("until_ms") else ""
    why = f": {pin['why']}" if pin.get("why") else ""
    return f"on the device at {name}{by}{until}{why}"


def _origin(model: Body, reported: Body) -> str:
    if model["rollout"]:
        words = f"rollout {model['rollout']}"
    else:
        words = _ORIGINS.get(model["origin"], model["origin"] or UNKNOWN)
    number = reported.get(model["model"], {}).get("plan_number")
    return f"plan {number}, {words}" if number else words


def _records(records: Body) -> str:
    answers = records["stored"].get("inference", 0)
    missing = sum(each["hi"] - each["lo"] + 1 for each in records["missing"])
    lost = sum(each["hi"] - each["lo"] + 1 for each in records["missing"] if each["lost"])
    if not missing:
        return f"{answers:,} answers, none missing"
    return f"{answers:,} answers, {missing - lost:,} windows still expected, {lost:,} lost"


def _reported(state: Body | None) -> Iterator[tuple[str, str]]:
    if state is None:
        yield "reported", "nothing yet"
        return
    facts = state.get("facts", {})
    agent, arch = state["agent"], facts.get("arch") or UNKNOWN
    yield "facts", f"agent {agent}, {arch}, onnxruntime {facts.get('onnxruntime') or UNKNOWN}"
    for refused in state.get("refused", []):
        yield (
            "refused",
            f"{refused['what']}: {refused['code']} {refused.get('detail', '')}".rstrip(),
        )
    for model, each in sorted(state.get("models", {}).items()):
        for digest, note in sorted(each.get("notes", {}).items()):
            if note.get("reason"):
                text = f"{model} {short(digest)}: {note['reason']} {note.get('detail', '')}"
                yield "note", text.rstrip()


def _own(device: Body) -> dict[str, str]:
    """Labels that people gave it: facts have their own line."""
    return {k: v for k, v in device["labels"].items() if not k.startswith(("fact/", "runs/"))}


def _link(device: Body, now_ms: int) -> str:
    """The last contact: a link without traffic cannot be told from none."""
    at = showing.moment_ms(device["last_contact"])
    if at is None:
        return "never"
    return "now" if now_ms - at < _NOW_S * 1000 else f"{_coarse(at, now_ms)} ago"


def _age(text: str | None, now_ms: int) -> str:
    at = showing.moment_ms(text)
    if at is None:
        return UNKNOWN
    return day(at, now_ms) if now_ms - at >= _WEEK_MS else _coarse(at, now_ms)


def _coarse(at_ms: int, now_ms: int) -> str:
    """One unit is enough for a column: "6 min"."""
    return " ".join(duration((now_ms - at_ms) / 1000).split()[:2])
