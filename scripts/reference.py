#!/usr/bin/env python3
"""Writes the generated pages of docs/reference; `--check` only says which are out of date.

What the code knows is not written by hand: commands, endpoints, problems, topics, settings.
Run it with the environment's Python: `make docs`.

Long because seven small generators share a table and a page.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import typer  # noqa: E402 - after the path is set

import control_plane.cli  # noqa: E402 - the same
import control_plane.settings  # noqa: E402 - the same
import edge_agent.cli  # noqa: E402 - the same
import edge_agent.settings  # noqa: E402 - the same
from control_plane.broker import VARIABLE as MOSQUITTO_VARIABLE  # noqa: E402 - the same
from control_plane.roles import ALLOWS, PERMISSIONS, ROLES, Permission  # noqa: E402 - the same
from control_plane.rollout.phase_page import phases_page  # noqa: E402 - the same
from control_plane.web.app import create_app  # noqa: E402 - the same
from control_plane.web.auth import PUBLIC, PUBLIC_BELOW  # noqa: E402 - the same
from control_plane.web.permissions import endpoints as endpoints_of  # noqa: E402 - the same
from protocol import device  # noqa: E402 - the same
from protocol.problems import CATALOGUE  # noqa: E402 - the same
from protocol.topics import TUF_ROLES, Topics  # noqa: E402 - the same
from tests.attacks.wider import GROUPS as ATTACKS  # noqa: E402 - the same

WIDTH: Final = 100
FOLDER: Final = ROOT / "docs" / "reference"
MADE: Final = "<!-- Made by scripts/reference.py: change the code, then run `make docs`. -->"

EXITS: Final = {
    0: "done",
    1: "ended badly",
    2: "the input is wrong",
    3: "not found",
    4: "not allowed",
    5: "conflict: look again",
    6: "trust refused it",
    7: "not reachable: trying again is safe",
    8: "works, but needs a look",
    9: "no room",
    130: "interrupted",
}
# What a code means for a command in particular; otherwise the error's own code decides.
OWN_EXITS: Final = {
    "outrider demo": {0: "every check holds", 1: "a check failed"},
    "outrider drift explain": {1: "stored windows do not give what the record says"},
    "outrider rollout plan": {8: "something would change"},
    "outrider rollout start": {8: "`--dry-run` has shown changes"},
    "outrider rollout return": {8: "`--dry-run` has shown changes"},
    "outrider rollout explain": {1: "the record does not give the verdict that it carries"},
    "outrider rollout status": {
        0: "completed, or still under way without `--watch`",
        1: "aborted",
        8: "paused",
    },
    "outrider-agent install": {
        0: "every version runs, or is on probation",
        1: "a version was tried and failed here",
        8: "everything is here and waits",
    },
    "outrider-agent doctor": {
        0: "every check passed or was skipped",
        1: "a check failed",
        8: "a check warns",
    },
    "outrider-agent install-service": {8: "`--dry-run` has shown what would be done"},
    "outrider-agent pin": {
        0: "it is in force: the version answers, or is on its way",
        3: "this version is not on the device",
        8: "it is in force, and something holds the version up",
    },
    "outrider-agent rollback": {
        0: "it is in force: the version before answers, or is about to",
        5: "there is nothing to go back to",
        8: "it is in force, and something holds the version up",
    },
    "outrider-agent status": {
        0: "every model runs normally",
        1: "a model has nothing that works",
        7: "the agent is not running",
        8: "it works, but look: on probation, no link, failed here, no model",
    },
}
SHARED: Final = ("quiet", "verbose", "no_color")
AREAS: Final = {
    "A": "Access",
    "B": "Bundle",
    "D": "Device",
    "F": "Fetch",
    "I": "Inference",
    "N": "Network and messages",
    "P": "Policy",
    "R": "Rollout",
    "S": "Syntax and look-ups",
    "T": "Trust",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if out of date")
    check = parser.parse_args().check
    outdated = [name for name, text in pages().items() if _committed(name) != text]
    for name in outdated:
        if not check:
            (FOLDER / name).write_text(pages()[name], encoding="utf-8")
        print(f"{'out of date' if check else 'wrote'}  docs/reference/{name}")
    return int(check and bool(outdated))


@functools.cache
def pages() -> dict[str, str]:
    """Text of every generated page, by file name."""
    return {
        "cli.md": cli_page(),
        "api.md": api_page(),
        "roles.md": roles_page(),
        "problems.md": problems_page(),
        "topics.md": topics_page(),
        "settings.md": settings_page(),
        "attacks.md": attacks_page(),
        "rollout-phases.md": phases_page(),
    }


def _committed(name: str) -> str:
    path = FOLDER / name
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _page(title: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", MADE, *map(_wrapped, parts)]) + "\n"


def _wrapped(part: str) -> str:
    """A paragraph as it fits; what has lines of its own stays as it is."""
    part = part.strip("\n")
    return textwrap.fill(part, WIDTH, break_on_hyphens=False) if "\n" not in part else part


def _table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "\n".join("| " + " | ".join(_cell(each) for each in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _code(text: object) -> str:
    return f"`{text}`"


# --- commands -----------------------------------------------------------------------------------


def commands() -> dict[str, Any]:
    """Every command that does something, by its whole name."""
    found: dict[str, Any] = {}
    for name, app in (("outrider", control_plane.cli.app), ("outrider-agent", edge_agent.cli.app)):
        found.update(_below(name, typer.main.get_command(app)))
    return found


def _below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", None)
    if not inner:
        yield name, command
        return
    for word, each in inner.items():
        yield from _below(f"{name} {word}", each)


def options(command: Any) -> list[Any]:
    """Options and arguments of a command, without `--help`."""
    return [each for each in command.params if each.name != "help"]


def cli_page() -> str:
    every = commands()
    exits = _table(("Exit", "Meaning"), [(str(n), text) for n, text in EXITS.items()])
    about = """
Two commands: `outrider` for operators and approvers, `outrider-agent` on a device. Results go to
stdout; progress, questions, hints and errors go to stderr. With `--json`, stdout has one JSON
document or nothing (`--watch`: one document per line), and errors are problem documents on
stderr. Times in JSON are RFC 3339, sizes are bytes, shares are 0 to 1.

An error is printed as `error[CODE]: what`, then `why:` and `do:` lines. [problems.md](problems.md)
lists the codes; `outrider explain CODE` says the same offline.
"""
    ours = [command for name, command in every.items() if name.startswith("outrider ")]
    shared = [each for each in options(ours[0]) if each.name in SHARED]
    everywhere = {
        each.name for each in shared if all(each.name in map(_name, options(c)) for c in ours)
    }
    parts = [about, "## Exit codes", exits, "An error decides the exit code by its own entry."]
    parts += ["## Options of every outrider command"]
    rows = [_option(each) for each in shared if each.name in everywhere]
    parts.append(_table(("Option", "Meaning", "Default"), rows))
    for name, command in every.items():
        parts.append(f"## {name}")
        parts.append(_plain(command.help or ""))
        parts.append("```text\n" + _usage(name, command) + "\n```")
        mine = command in ours
        rows = [_option(o) for o in options(command) if not (mine and o.name in everywhere)]
        if rows:
            parts.append(_table(("Option", "Meaning", "Default"), rows))
        if name in OWN_EXITS:
            said = "; ".join(f"{n}: {text}" for n, text in OWN_EXITS[name].items())
            parts.append(f"Exit: {said}.")
    return _page("Commands", *parts)


def _name(option: Any) -> str:
    return str(option.name)


def _usage(name: str, command: Any) -> str:
    words = [name]
    for each in options(command):
        if each.param_type_name == "argument":
            shown = (each.metavar or each.name).strip("[]{}").upper()
            words.append(shown if each.required else f"[{shown}]")
    if any(each.param_type_name == "option" for each in options(command)):
        words.append("[OPTIONS]")
    return " ".join(words)


def _option(each: Any) -> tuple[str, str, str]:
    if each.param_type_name == "argument":
        name = _code((each.metavar or each.name).strip("[]{}").upper())
    else:
        spellings = [*each.opts, *each.secondary_opts]
        flag = getattr(each, "is_flag", False) or getattr(each, "count", False)
        value = "" if flag else f" {_kind(each)}"
        name = ", ".join(_code(spelling + value) for spelling in spellings)
    meaning = _plain(getattr(each, "help", "") or "")
    if each.envvar:
        variable = each.envvar if isinstance(each.envvar, str) else each.envvar[0]
        meaning += f" Environment: `{variable}`."
    if getattr(each, "multiple", False) and "repeat" not in meaning:
        meaning += " May be repeated."
    return name, meaning.strip(), _default(each)


def _kind(each: Any) -> str:
    """What a value is: TEXT, PATH, INT."""
    annotation = each.type_descriptor.annotation
    inner = next(iter(getattr(annotation, "__args__", ())), annotation)
    if isinstance(inner, str):
        return "|".join(annotation.__args__)  # one of these words
    name = str(inner.__name__).upper()
    return "TEXT" if name == "STR" else name


def _default(each: Any) -> str:
    if each.required:
        return "required"
    value = each.default() if callable(each.default) else each.default
    if value in (None, False, 0, "", ()) or value == []:
        # Zero is a count of `-v`; nothing is what most options do when they are left out.
        return ""
    return _code(value)


def _plain(text: str) -> str:
    return " ".join(inspect.cleandoc(text).replace("\b", "").split())


# --- endpoints ----------------------------------------------------------------------------------


class _NoParts:
    """Stands for what routes work on: the description needs none of it."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: ""


def openapi() -> dict[str, Any]:
    parts: Any = _NoParts()
    described: dict[str, Any] = create_app(parts).openapi()
    return described


def without_token() -> str:
    """Paths that need none, for people."""
    parts: Any = _NoParts()
    paths = {each.path for each in endpoints_of(create_app(parts).routes)}
    below = sorted(path for path in paths if path.startswith(PUBLIC_BELOW))
    return ", ".join(_code(path) for path in (*PUBLIC, *below))


def endpoints() -> list[tuple[str, str, dict[str, Any]]]:
    """`(method, path, operation)` of every endpoint."""
    return [
        (method.upper(), path, operation)
        for path, operations in openapi()["paths"].items()
        for method, operation in operations.items()
    ]


def api_page() -> str:
    description = openapi()
    about = f"""
The control plane answers on `https://127.0.0.1:8400` by default. Its certificate is signed by
`ca/api-ca.crt` in the control plane's folder. Every request carries a token:
`Authorization: Bearer TOKEN`. On the control plane's own machine it is the text of
`operator.token` in the same folder; others get theirs with `outrider auth create`.
[roles.md](roles.md) says who may do what. Without a token answer {without_token()}.
`/openapi.json` is the full description, with every schema.

- **Wrong tokens** are counted by address (IPv6: by /64). After about ten within ten minutes an
  address is answered with 429 (OUT-A103) and `Retry-After`, also if its next token is right.
- **Errors** are `application/problem+json`; switch on `code` ([problems.md](problems.md)).
- **`Idempotency-Key`** on a POST: the same key within 24 hours gives the same answer, with
  `Idempotency-Replayed: true`. With another body it is refused (OUT-S140).
- **`ETag` and `If-Match`** on PUT, PATCH and DELETE of a device: what has changed since you looked
  is answered with 412 (OUT-S145).
- **Lists** give `items`, `next_cursor` and `count`. A cursor belongs to its list and filter.
- **Operations** are work that takes longer than a request. What a killed control plane left
  unfinished is marked as failed; sending it again is safe.
- A request body has at most 1 MiB, except the upload of a bundle.
"""
    parts = [about]
    every = endpoints()
    for tag in description["tags"]:
        mine = [each for each in every if tag["name"] in each[2].get("tags", [])]
        if mine:
            parts += [f"## {tag['name'].capitalize()}", tag["description"]]
            parts += [_endpoint(*each) for each in mine]
    return _page("HTTP API", *parts)


def _endpoint(method: str, path: str, operation: Mapping[str, Any]) -> str:
    said = f"{operation.get('summary', '').rstrip('.')}. {operation.get('description', '')}"
    lines = [f"### {method} {path}", "", _wrapped(_plain(said))]
    query = [p for p in operation.get("parameters", []) if p["in"] in ("query", "header")]
    lines += [""] if query else []
    for each in query:
        said = each.get("description") or each["schema"].get("description", "")
        lines.append(f"- `{each['name']}`{f': {said}' if said else ''}")
    body = operation.get("requestBody", {}).get("content", {})
    for media, content in body.items():
        lines += ["", f"Body: {_schema(content.get('schema', {}), media)}."]
    good = [status for status in operation["responses"] if status.startswith("2")]
    lines += ["", f"Answer: {', '.join(good)} ({_answer(operation['responses'][good[0]])})."]
    return "\n".join(lines)


def _answer(response: Mapping[str, Any]) -> str:
    for media, content in response.get("content", {}).items():
        return _schema(content.get("schema", {}), media)
    return "no body"


def _schema(schema: Mapping[str, Any], media: str) -> str:
    names = re.findall(r"'#/components/schemas/([^']+)'", str(schema))
    if not names:
        return _code(media)
    name = re.sub(r"_(\w+?)_?$", r" of \1", names[0])
    return " or ".join(dict.fromkeys([name, *names[1:]]))


# --- roles --------------------------------------------------------------------------------------


def guarded() -> list[tuple[str, str, Permission]]:
    """`(method, path, permission)` of every endpoint of a fleet, as the application checks it."""
    parts: Any = _NoParts()
    return [
        (method, each.path, each.permission)
        for each in endpoints_of(create_app(parts).routes)
        if each.permission is not None
        for method in each.methods
    ]


def roles_page() -> str:
    about = """
Every token belongs to one name with one role. A role allows some of five permissions, and every
endpoint needs one of them. [Give people access](../how-to/give-people-access.md) says how.
"""
    mine = [(role, *("yes" if p in ALLOWS[role] else "" for p in PERMISSIONS)) for role in ROLES]
    every = guarded()
    parts = [about, _table(("Role", *PERMISSIONS), mine), "## Endpoints"]
    parts.append("Below `/v1/fleets/{fleet}`. Whoever may not is answered with 403 (OUT-A204).")
    rows = [
        (
            _code(f"{method} {path.removeprefix('/v1/fleets/{fleet}')}"),
            needed,
            *("yes" if needed in ALLOWS[role] else "" for role in ROLES),
        )
        for method, path, needed in sorted(every, key=lambda each: (each[1], each[0]))
    ]
    parts.append(_table(("Endpoint", "Needs", *ROLES), rows))
    parts.append("## Without a token")
    parts.append(
        f"These need none: {without_token()}. Enrolment and renewal carry a proof of their own, and"
        " so does a device that reads a payload."
    )
    return _page("Roles", *parts)


# --- problems -----------------------------------------------------------------------------------


def problems_page() -> str:
    about = """
One catalogue for the command line, the API, the inference port and what devices report. Codes are
never reused. `exit` is the exit code of a command that ends with the problem, `HTTP` the status of
an answer that carries it. The word in brackets is the slug; `outrider explain` takes code or slug.
The inference port answers `{"error": "CODE …"}`, as its protocol wants; all other HTTP answers are
problem documents whose `type` is `/problems/CODE`.
"""
    parts = [about]
    for letter, area in AREAS.items():
        mine = [entry for code, entry in sorted(CATALOGUE.items()) if code[4] == letter]
        if mine:
            parts.append(f"## {letter}: {area}")
            parts.append(
                _table(
                    ("Code", "What", "Do", "Exit", "HTTP"),
                    [
                        (f"`{p.code}` ({p.slug})", p.title, p.help, str(p.exit), str(p.status))
                        for p in mine
                    ],
                )
            )
    return _page("Problems", *parts)


# --- topics -------------------------------------------------------------------------------------

_DEVICE: Final = "local-cam-1"
_FILE: Final = "sha256-" + "0" * 64
_SHOWN: Final = {"local-cam-1": "<device>", _FILE: "<digest>", "outrider/v1/local/": ""}

TOPICS: Final[dict[str, tuple[Callable[[Topics], str], str, str]]] = {
    "tuf": (
        lambda t: t.tuf("timestamp"),
        "down, retained",
        "TUF metadata, one topic per role: "
        + ", ".join(TUF_ROLES)
        + "; the timestamp is published last",
    ),
    "root": (lambda t: t.root(1), "down, retained for ever", "Every root since the first"),
    "plan": (
        lambda t: t.plan("model"),
        "down, retained",
        "The model's plan, a signed target of role rollouts; at most 64 KiB",
    ),
    "deny": (lambda t: t.deny, "down, retained", "The deny list; at most 64 KiB"),
    "manifest": (
        lambda t: t.manifest("model", _FILE),
        "down, retained",
        "A bundle's index or one of its manifests; at most 64 KiB",
    ),
    "hint": (
        lambda t: t.hint("model", _FILE),
        "down, retained",
        "Unsigned: payloads from which the file can be made; at most 16 KiB and 32 entries",
    ),
    "frame": (
        lambda t: t.frame("model", _FILE, 0),
        "down, retained",
        "Frame n of a payload, 64 KiB; empty means gone",
    ),
    "frame_list": (
        lambda t: t.frame_list("model", _FILE, 0),
        "down, retained",
        "Frame list k: the SHA-256 digests of up to 2,048 frames",
    ),
    "document": (
        lambda t: t.document(_DEVICE),
        "down, retained",
        "The signed device document (DSSE); at most 16 KiB",
    ),
    "ack": (lambda t: t.ack(_DEVICE), "down", "What the control plane has stored of this device"),
    "ingest": (
        lambda t: t.ingest(0),
        "down, retained",
        "Hello of the ingester that owns the shard: another one means, ask what is stored",
    ),
    "up": (
        lambda t: t.up(_DEVICE, "records"),
        "up, QoS 1",
        "Records; kind `want` asks for frames that did not come. At most 64 KiB packed, 1 MiB "
        "unpacked",
    ),
    "presence": (
        lambda t: t.presence(_DEVICE),
        "up, retained, last will",
        "Whether the link is open: a hint, never evidence",
    ),
    "echo": (
        lambda t: t.echo("x"),
        "control plane to itself",
        "Marks the end of what was retained when it reads the broker back",
    ),
}
"""Method of `Topics`: how to call it, direction, meaning."""


def topics_page() -> str:
    topics = Topics("local")
    rows = [(_code(_pattern(call(topics))), where, what) for call, where, what in TOPICS.values()]
    about = """
MQTT 3.1.1, any broker. All topics begin with `outrider/v1/<fleet>/`; the table leaves that out.
The alphabet is `[A-Za-z0-9_/-]`, with at most seven slashes. Everything down is desired state:
retained, and the same however often it comes. Everything up is a numbered record that the control
plane acknowledges itself; a PUBACK proves nothing.

A device may read what is for everybody and its own topics, and write only below `up/…/<device>`
and `presence/<device>`. Its certificate's common name is its user name and client id.
"""
    shard = """
`<device>` is the full id, `<fleet>-<name>`. `<shard>` is the first byte of SHA-256 of the id,
modulo 16. Indices are decimal, from 0. Downstream is plain JSON, except frames and frame lists,
which are raw bytes; upstream the first byte names the encoding.
"""
    return _page("Topics", about, _table(("Topic", "Direction", "What"), rows), shard)


def _pattern(topic: str) -> str:
    for text, shown in _SHOWN.items():
        topic = topic.replace(text, shown)
    replaced = (
        ("tuf/timestamp", "tuf/<role>"),
        ("tuf/root/1", "tuf/root/<N>"),
        ("/model/", "/<model>/"),
        ("plans/model", "plans/<model>"),
        ("ingest/0", "ingest/<shard>"),
        ("echo/x", "echo/<name>"),
    )
    for text, shown in replaced:
        topic = topic.replace(text, shown)
    topic = re.sub(r"up/\d+/<device>/records", "up/<shard>/<device>/<kind>", topic)
    topic = re.sub(r"(frames/.*)/i0$", r"\1/i<k>", topic)
    return re.sub(r"(frames/.*)/0$", r"\1/<n>", topic)


# --- attacks ------------------------------------------------------------------------------------


def attacks_page() -> str:
    about = """
What is tried against Outrider by its own tests, who could try it, and how it must end. What a
device runs goes on answering in every case; what it refuses is in the state that it reports; and
with the next honest word it believes what a device does that was never lied to.
[trust.md](../explanation/trust.md) and [threat-model.md](../explanation/threat-model.md) say why.
Tests are named below `tests/`.

*Refused*: nothing of it is believed. *Bounded*: it has an effect, and the effect has an end.
*Accepted risk*: it works, for as long as the row says. *Works*: no attack, but what must not be
mistaken for one.
"""
    parts = [about]
    for title, rows in ATTACKS.items():
        parts.append(f"## {title}")
        parts.append(
            _table(
                ("Attack", "The attacker has", "What is tried", "Outcome", "Test"),
                [(r.name, r.has, r.tries, r.outcome, _code(r.test)) for r in rows],
            )
        )
    return _page("Attacks", *parts)


# --- settings -----------------------------------------------------------------------------------


MEANINGS: Final = {
    "deadlines": "Seconds for loading models, and for one request, from the environment.",
    "networks": "What may travel on which network, from the environment.",
    "fleet": "Name of the fleet: 1 to 32 of a-z and 0-9; part of every topic and certificate.",
    "dev": "Made by `init --dev`: keys on this machine, short intervals.",
    "api_host": "Address that the API listens on.",
    "api_port": "Port of the API.",
    "broker_host": "Where the broker is; `up` starts it there.",
    "broker_port": "Port of the broker, with mutual TLS.",
    "tick": "How often the ticker looks at rollouts, plans and signatures.",
    "buffer_bytes": "Room for records that the control plane does not have yet.",
    "window": "Shortest length of a window of counts.",
    "min_window_answers": "A window stays open until it holds so many.",
    "state": "How often the whole state is reported when nothing changes.",
    "frame_timeout": "Without a frame for so long, the next payload is tried.",
    "want": "Shortest time between two requests for frames that did not come.",
    "state_interval_s": "How often the whole state is reported.",
    "bytes_per_day": "What may travel in a local day; downloads that do not fit wait.",
    "transfer_windows": "Local hours in which payloads may be fetched; none: always.",
    "capture_off": "Switches capture off. There is no capture in this version.",
    "drift_ln_threshold": "From which ln e on the device says that inputs drifted; 15.4 without.",
}


def settings_page() -> str:
    plane, agent = control_plane.settings, edge_agent.settings
    variables = _table(
        ("Variable", "Meaning"),
        [
            (_code(plane.HOME_VARIABLE), "Folder of the control plane; `--home` wins."),
            (
                _code(agent.HOME_VARIABLE),
                "State folder of the agent; `--home` wins. Without it root uses"
                f" `{agent.DEFAULT_HOME}`, anybody else `~/.outrider-agent`.",
            ),
            (_code(agent.PORT_VARIABLE), "Inference port of the agent; `--port` wins."),
            (
                _code(agent.NETWORKS_VARIABLE),
                "What the agent may move a day on which network: `wwan*=2MB,eth*=free`.",
            ),
            (
                _code(agent.TRANSPORTS_VARIABLE),
                "How payloads may come, the preferred way first: `mqtt,http`.",
            ),
            (
                _code(agent.MEMORY_VARIABLE),
                "Bytes that the agent and its runners may use together; without it, what the"
                " machine and the control groups allow.",
            ),
            (
                _code(agent.LOAD_VARIABLE),
                "Seconds for loading models, and again for their golden vectors: 30.",
            ),
            (
                _code(agent.REQUEST_VARIABLE),
                "Seconds for one request in a model, then its runner is ended: 30.",
            ),
            (_code(MOSQUITTO_VARIABLE), "Path of the mosquitto program that `outrider up` runs."),
            ("`NO_COLOR`", "No colours on a terminal."),
        ],
    )
    return _page(
        "Settings",
        "## Environment",
        variables,
        "## Control plane: config.yaml",
        "`outrider init` writes it into the control plane's folder. Unknown fields are refused.",
        _fields(plane.Settings, without=("home",)),
        "`intervals`, in seconds. A fleet made with `init --dev` lives faster.",
        _intervals(plane.Intervals(), plane.DEVELOPMENT),
        "## Agent",
        "There is no file: flags of `outrider-agent run`, the environment, and these fixed values."
        " Paths are below the state folder.",
        _fields(agent.Settings, without=("paths",)),
        "Intervals, in seconds. An agent of a development fleet says so in `status`.",
        _intervals(agent.Intervals(), agent.DEVELOPMENT),
        "## Device document",
        "Settings of one device that travel signed. Out of range refuses the whole document. Null"
        " means: as the device is configured. `outrider device set` sets them.",
        _fields(device.Settings),
        "## Rollout file",
        "[The rollout file](rollout-file.md) has a page of its own.",
    )


def _fields(of: Any, without: tuple[str, ...] = ()) -> str:
    described = MEANINGS | _docstrings(of)
    rows = []
    for each in dataclasses.fields(of):
        if each.name in (*without, "intervals"):
            continue
        kind = re.sub(r"Annotated\[(.+?), Meta\((.+?)\)\]", r"\1, \2", str(each.type))
        default = _shown_default(each.default)
        rows.append((_code(each.name), _code(kind), default, described.get(each.name, "")))
    return _table(("Setting", "Type", "Default", "Meaning"), rows)


def _intervals(usual: Any, development: Any) -> str:
    described = MEANINGS | _docstrings(type(usual))
    rows = [
        (
            _code(each.name),
            f"{getattr(usual, each.name):g}",
            f"{getattr(development, each.name):g}",
            described.get(each.name, ""),
        )
        for each in dataclasses.fields(usual)
    ]
    return _table(("Interval", "Default", "Development", "Meaning"), rows)


def _shown_default(value: Any) -> str:
    if value is dataclasses.MISSING:
        return "required"
    if value is None or value == ():
        return "none"
    return _code(str(value).lower() if isinstance(value, bool) else value)


def _docstrings(of: Any) -> dict[str, str]:
    """Texts that stand below the fields of a class."""
    source = inspect.getsource(of)
    found = re.findall(r'^    (\w+): [^\n]*\n    """(.*?)"""', source, re.MULTILINE | re.DOTALL)
    return {name: _plain(text) for name, text in found}


if __name__ == "__main__":
    sys.exit(main())
