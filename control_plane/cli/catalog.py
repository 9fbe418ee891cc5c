"""`outrider model`: build, push, approve, list, show."""

from __future__ import annotations

import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from control_plane import settings as configuration
from control_plane.cli import showing
from control_plane.cli.approving import review_and_sign
from control_plane.client import segment
from protocol.codec import to_wire
from protocol.errors import InvalidRequest
from protocol.identifiers import digest_hex, model_version, short
from protocol.wording import moment, size

app = typer.Typer(no_args_is_help=True, help="Versions of models: from a file to approval.")

Reference = Annotated[str, typer.Argument(help="model/version")]


@app.command()
def build(
    onnx: Annotated[Path, typer.Argument(help="The ONNX file.")],
    samples: Annotated[
        Path, typer.Option(help=".npz with rows as the model will meet them, one array per input.")
    ],
    reference: Annotated[str, typer.Option("--as", help="model/version")],
    into: Annotated[Path, typer.Option(help="Folder for the bundle.")] = Path(),
    description: Annotated[str, typer.Option(help="For the model card.")] = "",
    data: Annotated[
        list[str] | None, typer.Option(help="Where the training data came from: URI[@revision].")
    ] = None,
    dev: Annotated[
        bool | None,
        typer.Option("--dev/--no-dev", help="Short intervals; by default as the control plane."),
    ] = None,
    home: showing.Home = None,
    as_json: showing.AsJson = False,
) -> None:
    """Check a model and write its bundle: contract, golden vectors, profile, policy, card."""
    import numpy as np

    from control_plane.catalog import CardFields
    from control_plane.catalog import build as make
    from control_plane.catalog.report import report
    from protocol.bundle import Source

    try:
        with np.load(samples, allow_pickle=False) as arrays:
            rows = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError) as error:
        raise InvalidRequest("OUT-B108", f"{samples}: {error}") from error
    sources = tuple(
        Source(*each.rpartition("@")[::2]) if "@" in each else Source(each) for each in data or []
    )
    created = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    built = make(
        onnx,
        rows,
        reference,
        into=into,
        card=CardFields(created=created, description=description, data=sources),
        dev=_dev(home) if dev is None else dev,
    )
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
            }
        )
        return
    for label, text in report(built):
        showing.line(label, text)


@app.command()
def push(
    bundle: Annotated[Path, typer.Argument(help="What model build wrote.")],
    home: showing.Home = None,
    as_json: showing.AsJson = False,
) -> None:
    """Upload a bundle. It reaches no device before approvers have signed it."""
    from control_plane.catalog.archive import pack

    with showing.connect(home) as client, tempfile.NamedTemporaryFile(suffix=".tar") as packed:
        for block in pack(bundle):
            packed.write(block)
        packed.flush()
        with showing.progress("upload") as bar:
            task = bar.add_task("upload", total=None)
            operation = client.upload(
                "bundles",
                Path(packed.name),
                lambda done, total: bar.update(task, completed=done, total=total),
            )
            result = client.wait(
                operation, lambda done, total: bar.update(task, completed=done, total=total)
            )
    if as_json:
        showing.document(result)
        return
    showing.line(
        "pushed", f"{result['reference']}  {_digest(result)}  {size(result['size_bytes'])}"
    )
    showing.line("payloads", f"{size(result['payload_bytes'])} for a first install")
    if result["state"] == "draft":
        showing.line("draft", f"Next: outrider model approve {result['reference']}")


@app.command()
def approve(
    reference: Reference,
    key: Annotated[
        Path | None, typer.Option(help="Your key (PEM); the development key without it.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: showing.Home = None,
    as_json: showing.AsJson = False,
) -> None:
    """Verify with your own TUF client what your signature would allow, then sign."""
    settings = configuration.read(os.environ, home)
    with showing.connect(home) as client:
        signed = review_and_sign(client, settings, reference, key, ask=not (yes or as_json))
    if as_json:
        showing.document(signed)
        return
    share = f"{signed['signed']} of {signed['needed']}"
    word = "approved" if signed["complete"] else "signed"
    suffix = ": dev keys" if settings.dev else ""
    typer.echo(f"{word} {reference} ({share}{suffix})")


@app.command("list")
def list_versions(
    model: Annotated[str | None, typer.Argument(help="A model; all models without it.")] = None,
    home: showing.Home = None,
    as_json: showing.AsJson = False,
) -> None:
    """Models, or the versions of one, newest first."""
    path = f"models/{segment(model)}/versions" if model else "models"
    with showing.connect(home) as client:
        page = client.get(path, limit=showing.MOST_ROWS)
    if as_json:
        showing.document(page)
        return
    now = showing.now_ms()
    if model is None:
        columns = ["MODEL", "NEWEST", ">VERSIONS", ">DEVICES"]
        rows = [
            [row["model"], row["newest"], str(row["versions"]), str(row["devices"])]
            for row in page["items"]
        ]
    else:
        columns = ["VERSION", "STATE", "SIGNED", ">DEVICES", "PUSHED", "DIGEST"]
        rows = [
            [
                row["version"],
                row["state"],
                _signed(row["signatures"]),
                str(row["devices"]),
                moment(showing.moment_ms(row["pushed"]), now),
                short(row["digest"]),
            ]
            for row in page["items"]
        ]
    showing.table(columns, rows)
    if page["next_cursor"]:
        showing.hint(f"{page['count']:,} in all; --json with the API's cursor shows the rest")


@app.command()
def show(reference: Reference, home: showing.Home = None, as_json: showing.AsJson = False) -> None:
    """One version: approval, data, evaluation, needs."""
    model, version = _split(reference)
    with showing.connect(home) as client:
        found = client.get(f"models/{segment(model)}/versions/{segment(version)}")
    if as_json:
        showing.document(found)
        return
    row, card = found["version"], found["card"]
    signed = _signed(row["signatures"])
    rows = [
        ("state", f"{row['state']} ({signed})     digest sha256-{short(row['digest'])}"),
        ("data", _sources(card.get("data", [])) or "not said"),
        ("code", _sources(card.get("code", [])) or "not said"),
        ("rows", f"{card.get('rows', 0):,}"),
        (
            "evaluation",
            ", ".join(f"{k} {v:.3f}" for k, v in card.get("metrics", {}).items()) or "not said",
        ),
        ("needs", _needs(found["variants"])),
        ("devices", f"{row['devices']:,} run it"),
        ("about", card.get("description", "") or "not said"),
    ]
    for label, text in rows:
        typer.echo(f"{label:<12}{text}")


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


def _digest(result: dict[str, Any]) -> str:
    return f"sha256-{short(result['digest'])}"


def _signed(signatures: dict[str, Any] | None) -> str:
    if signatures is None:
        return "unknown"
    return f"{signatures['signed']} of {signatures['needed']}"


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
