"""`outrider model`: build, push, list, show. What people decide about versions is in `releases`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from control_plane import settings as configuration
from control_plane.cli import profiles, showing
from control_plane.cli.bar import Bar
from control_plane.cli.commands import AsJson, Cursor, Home, command, connect, group
from control_plane.client import segment
from protocol.codec import to_wire
from protocol.errors import InvalidRequest
from protocol.identifiers import digest_hex, model_version, short
from protocol.wording import date, rfc3339, share, size, size_of

app = group("Versions of models: from a file to approval.")

MOST_SHOWN: Final = 4
"""Of what devices receive from different versions; besides the most that one receives."""
LONGEST_S: Final = 12 * 3600.0
"""A large model is encoded once for each version that devices have."""

Reference = Annotated[str, typer.Argument(help="model/version")]


@command(app)
def build(
    onnx: Annotated[Path, typer.Argument(help="The ONNX file.")],
    samples: Annotated[
        Path, typer.Option(help=".npz, .csv or .parquet with rows as the model will meet them.")
    ],
    reference: Annotated[str, typer.Option("--as", help="model/version")],
    into: Annotated[Path, typer.Option(help="Folder for the bundle.")] = Path(),
    description: Annotated[str, typer.Option(help="For the model card.")] = "",
    data: Annotated[
        list[str] | None, typer.Option(help="Where the training data came from: URI[@revision].")
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(help="YAML or JSON: when a device gives it up, and what it does then."),
    ] = None,
    labels: profiles.Labels = None,
    profile: Annotated[
        Path | None,
        typer.Option(help="What `outrider profile build` wrote, in place of a new one."),
    ] = None,
    watch: profiles.Watching = None,
    window: profiles.Window = None,
    rows: profiles.WindowRows = None,
    dev: Annotated[
        bool | None,
        typer.Option("--dev/--no-dev", help="Short intervals; by default as the control plane."),
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Check a model and write its bundle: contract, golden vectors, profile, policy, card."""
    from control_plane.catalog import CardFields, Monitoring
    from control_plane.catalog import build as make
    from control_plane.catalog.policy import read_policy
    from control_plane.catalog.report import report
    from protocol.members import Source

    _require(onnx, samples)
    if profile is not None and (watch, window, rows) != (None, None, None):
        raise InvalidRequest("OUT-S120", "--profile says what is monitored: give no more of it")
    made_before = profiles.read_profile(profile) if profile is not None else None
    wishes = profiles.wishes(watch, window, rows)
    found, right = profiles.samples_in(samples, labels)
    sources = tuple(
        Source(*each.rpartition("@")[::2]) if "@" in each else Source(each) for each in data or []
    )
    created = rfc3339(showing.now_ms() // 1000 * 1000)
    built = make(
        onnx,
        found,
        reference,
        into=into,
        card=CardFields(created=created, description=description, data=sources),
        policy=read_policy(policy) if policy is not None else None,
        dev=_dev(home) if dev is None else dev,
        monitoring=Monitoring(None, right, wishes, made_before),
    )
    profiles.hints(built.lints)
    if as_json:
        showing.document(
            {
                "bundle": str(built.directory),
                "model": built.model,
                "version": built.version,
                "digest": built.digest,
                "size_bytes": built.size_bytes,
                "opset": built.opset,
                "contract": to_wire(built.contract),
                "card": to_wire(built.card),
                "lints": profiles.lints_of(built.lints),
            }
        )
        return
    for label, text in report(built):
        showing.line(label, text)


@command(app)
def push(
    bundle: Annotated[Path, typer.Argument(help="What model build wrote.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Upload a bundle. It reaches no device before approvers have signed it."""
    from control_plane.catalog.archive import pack

    _require(bundle)
    with connect(home) as client:
        with tempfile.NamedTemporaryFile(suffix=".tar") as packed:
            for block in pack(bundle):
                packed.write(block)
            packed.flush()
            with Bar("upload", size_of) as sent:
                operation = client.upload("bundles", Path(packed.name), sent)
        with Bar("payloads", _of_kilobytes) as made:
            result = client.wait(operation, made, limit_s=LONGEST_S)
        if as_json:
            showing.document(result)
            return
        found = client.get(path_of(result["reference"]))["version"]
    showing.line("payloads", _travelling(result["payloads"]))
    reference, signed = result["reference"], _signed(found["signatures"])
    if found["state"] != "draft":
        showing.line(found["state"], f"{signed} signatures; nothing has changed")
        return
    showing.line("draft", f"{signed} signatures. Next: outrider model approve {reference}")


@command(app, "list")
def list_versions(
    model: Annotated[str | None, typer.Argument(help="A model; all models without it.")] = None,
    cursor: Cursor = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Models, or the versions of one, newest first."""
    path = f"models/{segment(model)}/versions" if model else "models"
    with connect(home) as client:
        page = client.get(path, limit=showing.MOST_ROWS, cursor=cursor)
    if as_json:
        showing.document(page)
        return
    if model is None:
        columns = ["MODEL", "NEWEST", ">VERSIONS", ">DEVICES"]
        rows = [
            [row["model"], row["newest"], f"{row['versions']:,}", f"{row['devices']:,}"]
            for row in page["items"]
        ]
    else:
        columns = ["VERSION", "STATE", "SIGNED", ">DEVICES", "PUSHED", "DIGEST"]
        rows = [
            [
                row["version"],
                "denied" if row["denied"] and row["state"] == "approved" else row["state"],
                _signed(row["signatures"]),
                f"{row['devices']:,}",
                _pushed(row["pushed"]),
                short(row["digest"]),
            ]
            for row in page["items"]
        ]
    showing.table(columns, rows)
    if page["next_cursor"]:
        command = f"outrider model list {model}" if model else "outrider model list"
        showing.listed(page, "version" if model else "model", command)


@command(app)
def show(reference: Reference, home: Home = None, as_json: AsJson = False) -> None:
    """One version: approval, data, evaluation, needs."""
    with connect(home) as client:
        found = client.get(path_of(reference))
    if as_json:
        showing.document(found)
        return
    row, card = found["version"], found["card"]
    lines = [
        ("state", f"{_state(row)}     digest sha256-{short(row['digest'])}"),
        ("data", _data(card)),
        ("evaluation", _evaluation(card.get("metrics", {}))),
        ("needs", _needs(found["variants"])),
        *_said(row),
    ]
    if card.get("description"):
        lines.append(("about", card["description"]))
    for label, text in lines:
        showing.line(label, text, width=showing.WIDE_LABEL)


@command(app)
def encode(reference: Reference, home: Home = None, as_json: AsJson = False) -> None:
    """Make payloads of a version that are missing: for what devices run, and can decode, now."""
    with connect(home) as client:
        operation = client.post(f"{path_of(reference)}/payloads")
        with Bar("payloads", _of_kilobytes) as made:
            result = client.wait(operation, made, limit_s=LONGEST_S)
    if as_json:
        showing.document(result)
        return
    showing.line("made", showing.plural(result["made"], "payload"))
    showing.line("payloads", _travelling(result["payloads"]))


def _of_kilobytes(done: int, total: int) -> str:
    return size_of(1000 * done, 1000 * total)


def _travelling(rows: list[dict[str, Any]]) -> str:
    """ "9.10 kB from digits/v1 (291 devices), 1.21 MB full (16 devices)"."""
    texts = []
    for row in (*rows[:MOST_SHOWN], *rows[max(MOST_SHOWN, len(rows) - 1) :]):
        base = f"from {row['base']}" if row["base"] else "full"
        devices = f" ({showing.plural(row['devices'], 'device')})" if row["devices"] else ""
        texts.append(f"{size(row['bytes'])} {base}{devices}")
    if len(rows) > len(texts):
        texts.insert(MOST_SHOWN, f"{len(rows) - len(texts):,} more")
    return ", ".join(texts)


def _require(*files: Path) -> None:
    """Raises `InvalidRequest` OUT-S110."""
    for file in files:
        if not file.exists():
            raise InvalidRequest("OUT-S110", f"no file named {file}", do="check the path")


def _split(reference: str) -> tuple[str, str]:
    try:
        return model_version(reference)
    except ValueError as error:
        raise InvalidRequest("OUT-S120", str(error)) from error


def _dev(home: Path | None) -> bool:
    """Whether the control plane that this bundle is meant for is a development one."""
    try:
        return configuration.read(os.environ, home).dev
    except InvalidRequest:
        return False


def path_of(reference: str) -> str:
    model, version = _split(reference)
    return f"models/{segment(model)}/versions/{segment(version)}"


def _pushed(text: str) -> str:
    return date(showing.moment_ms(text) or 0, showing.now_ms()).removesuffix(" UTC")


def _signed(signatures: dict[str, Any] | None) -> str:
    return share(signatures["signed"], signatures["needed"]) if signatures else "-"


def _state(row: dict[str, Any]) -> str:
    state, signatures = row["state"], row["signatures"]
    if signatures is None:
        return f"{state}: {row['why']}" if row["why"] else str(state)
    if state == "draft":
        return f"draft, {_signed(signatures)} signatures"
    by = f"{state} by {', '.join(signatures['by'])}"
    return f"{by}, on device: {row['on_device']}" if row["on_device"] else by


def _said(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What people have decided about it since."""
    if row["state"] == "revoked" and row["why"]:
        yield "why", row["why"]
    if row["denied"]:
        yield "denied", row["denied_why"] or "by an operator"
    pending = row["pending"]
    if pending:
        how = f" ({pending['on_device']})" if pending["on_device"] else ""
        signatures = _signed(pending["signatures"])
        by = ", ".join(pending["signatures"]["by"])
        signed = f"{signatures}: {by}" if by else signatures
        yield "pending", f"{pending['kind']}{how}, {signed}; not in force"


def _data(card: dict[str, Any]) -> str:
    data, code = _sources(card.get("data", [])), _sources(card.get("code", []))
    return (data or "not said") + (f"   {code}" if code else "")


def _evaluation(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {_figure(value)}" for name, value in metrics.items()) or "not said"


def _figure(value: float) -> str:
    """ ".962" for a share."""
    text = f"{value:.3f}"
    return text.removeprefix("0") if 0 < value < 1 else text


def _sources(sources: list[dict[str, str]]) -> str:
    texts = []
    for source in sources:
        revision = f"@{source['revision']}" if source.get("revision") else ""
        digest = f" {digest_hex(source['digest'])[:8]}" if source.get("digest") else ""
        texts.append(source["uri"] + revision + digest)
    return ", ".join(texts)


def _needs(variants: list[dict[str, Any]]) -> str:
    needs = variants[0]["needs"] if variants else {}
    parts = []
    if needs.get("onnxruntime"):
        parts.append(f"onnxruntime >= {needs['onnxruntime']}")
    if needs.get("arch"):
        parts.append(" or ".join(needs["arch"]))
    if needs.get("ram_bytes"):
        parts.append(f"{size(needs['ram_bytes'])} RAM")
    return ", ".join(parts) or "nothing special"
