"""The real HTTP server in this process, and a model that answers with what it is given."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from edge_agent.runner.accept import HttpThread
from edge_agent.runner.bearer import Bearer
from edge_agent.runner.blame import Notebook
from edge_agent.runner.served import Served
from edge_agent.runner.server import Application, Model
from edge_agent.runner.views import Door, Load
from edge_agent.runners.listener import bind
from protocol import codec
from protocol.bundle import (
    Index,
    Member,
    Needs,
    Variant,
    VariantReference,
    encode_index,
    encode_manifest,
)
from protocol.identifiers import digest_of
from protocol.members import Card, Contract, Policy, Profile, TensorSpec, pretty

ELEMENTS = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


@dataclass(frozen=True, slots=True)
class Serving:
    port: int
    thread: HttpThread


@contextmanager
def serving(
    models: Mapping[str, Model], door: Door = "loopback", bearer: Bearer | None = None
) -> Iterator[Serving]:
    """Real connections to a real event loop; only the process is the test's."""
    listener = bind("127.0.0.1", 0)
    port = int(listener.getsockname()[1])
    thread = HttpThread(Application(models, "1.0", bearer))
    thread.accept({door: listener.detach()})
    try:
        yield Serving(port, thread)
    finally:
        thread.drain()
        thread.drained.wait(10)


NOTHING_MONITORED = Profile(rows=1)


def echo(
    directory: Path,
    datatypes: tuple[str, ...] = tuple(ELEMENTS),
    profile: Profile = NOTHING_MONITORED,
) -> Served:
    """A real model: output `<datatype>_out` is input `<datatype>`, [-1, 2] of that datatype."""
    return _served(
        directory,
        Contract(
            tuple(TensorSpec(name, name, (-1, 2)) for name in datatypes),
            tuple(TensorSpec(f"{name}_out", name, (-1, 2)) for name in datatypes),
        ),
        profile,
    )


def _served(directory: Path, contract: Contract, profile: Profile) -> Served:
    names = [spec.name for spec in contract.inputs]

    def value(name: str, datatype: str) -> Any:
        return helper.make_tensor_value_info(name, ELEMENTS[datatype], ["n", 2])

    graph = helper.make_graph(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in names],
        "echo",
        [value(spec.name, spec.datatype) for spec in contract.inputs],
        [value(spec.name, spec.datatype) for spec in contract.outputs],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    proto.ir_version = 8
    load = write_bundle(
        directory,
        "echo",
        contract,
        bytes(onnx.ModelProto.SerializeToString(proto)),
        profile=profile,
    )
    notebook = Notebook(directory.parent / "blame", [("echo", load.digest)])
    return Served(load, 0, notebook, lambda *_: None)


def write_bundle(
    directory: Path,
    model: str,
    contract: Contract,
    file: bytes,
    weights: bytes = b"",
    profile: Profile = NOTHING_MONITORED,
) -> Load:
    """A bundle that loads and cannot be probed; `weights` are its external data, `weights.bin`."""
    files = [
        ("config", "config.json", codec.encode({"descriptor": {"name": model}})),
        ("model", "model.onnx", file),
        ("contract", "contract.json", pretty(contract)),
        ("golden", "golden.safetensors", b"none"),
        ("profile", "profile.json", pretty(profile)),
        ("policy", "policy.json", pretty(Policy())),
        ("card", "card.json", pretty(Card(model=model, version="v1"))),
    ]
    if weights:
        files.append(("weights", "weights.bin", weights))
    members = tuple(Member(role, name, digest_of(data), len(data)) for role, name, data in files)
    manifest = encode_manifest(Variant(members))
    reference = VariantReference(digest_of(manifest), len(manifest), Needs())
    index = encode_index(Index(model, "v1", (reference,)))
    directory.mkdir(parents=True)
    for _, name, data in files:
        (directory / name).write_bytes(data)
    (directory / "manifest.json").write_bytes(manifest)
    (directory / "index.json").write_bytes(index)
    return Load(model, digest_of(index), digest_of(manifest), directory)


def exchange(port: int, *parts: bytes, timeout_s: float = 20) -> bytes:
    """Everything that comes back for raw bytes, sent part by part, until the other end closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        for part in parts:
            connection.sendall(part)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def answer_of(raw: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, fields and body of the first answer in `raw`."""
    head, _, rest = raw.partition(b"\r\n\r\n")
    start, *lines = head.decode("latin-1").split("\r\n")
    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(start.split()[1]), fields, rest[: int(fields["content-length"])]


def error_of(raw: bytes) -> tuple[int, str]:
    """Status and text of an answer that must be an error."""
    status, fields, body = answer_of(raw)
    assert fields["content-type"] == "application/json"
    document = json.loads(body)
    assert list(document) == ["error"]
    return status, document["error"]
