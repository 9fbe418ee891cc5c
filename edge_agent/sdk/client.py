"""Asks the models of this device over the runner's socket."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote, urlsplit

from edge_agent import settings
from edge_agent.sdk import wire
from edge_agent.sdk.answer import Answer, Confidences, Inputs, Labels
from edge_agent.sdk.connection import Connection
from edge_agent.sdk.wire import Metadata
from protocol.errors import InvalidRequest

_BINARY: Final = "application/octet-stream"


class Client:
    """Asks one model. May be shared by threads: each has a connection of its own.

    A request whose connection ends before the first byte of an answer is sent once more on a new
    one; nothing else is ever repeated.
    """

    def __init__(
        self,
        model: str,
        *,
        socket: str | os.PathLike[str] | None = None,
        url: str | None = None,
        home: str | os.PathLike[str] | None = None,
        token: str | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        """Over the Unix `socket`, or the `url` (`http://127.0.0.1:8500`), or else the socket of the
        agent with this `home`, which is found like `outrider-agent` finds it. `token`: for
        addresses that ask for one. `timeout_s` is for connecting, and for each wait for an answer.

        Nothing is asked yet. Raises `InvalidRequest` OUT-S120 for an address that is none.
        """
        self.model = model
        self._path = f"/v2/models/{quote(model, safe='')}"
        self._metadata: Metadata | None = None
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._connection = Connection(_address(socket, url, home), timeout_s, headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def infer(self, inputs: Inputs, outputs: Sequence[str] = ()) -> Answer:
        """The model's answer: all outputs, or those that are named.

        Raises `InvalidRequest` with the server's code for what breaks the contract, `Unavailable`
        OUT-I120 where nobody answers (or the server's own code, where it cannot now), `Failed`
        OUT-I110 where the model fails on this input, OUT-I121 where the answer makes no sense.
        """
        named = inputs if isinstance(inputs, Mapping) else {self._only_input(): inputs}
        body, json_bytes = wire.request(named, outputs)
        reply = self._connection.ask(
            "POST",
            f"{self._path}/infer",
            body,
            {"Content-Type": _BINARY, "Inference-Header-Content-Length": str(json_bytes)},
        )
        if reply.status != 200:
            self._metadata = None
            raise wire.problem(reply.status, reply.body)
        answer = wire.answer(reply.body, reply.json_bytes)
        if self._metadata is not None and answer.version not in self._metadata.versions:
            self._metadata = None
        return answer

    def feedback(
        self,
        labels: Labels,
        predictions: Labels,
        confidences: Confidences | None = None,
        *,
        version: str | None = None,
    ) -> int:
        """Say what was true of rows that were asked before: counts them, and returns how many.

        `labels` are what was true, `predictions` what the model had said of the same rows in the
        same order (`answer.outputs["label"]`), `confidences` how sure it was, None or NaN where
        that is not known. `version` is that of the answer (`answer.version`): labels of a version
        that does not run any more are refused. Nothing of them is kept but counts.

        Raises `InvalidRequest` OUT-I117 for what does not fit, OUT-I107 for another version, and
        like `infer` where nobody answers.
        """
        body = wire.feedback(labels, predictions, confidences, version)
        headers = {"Content-Type": "application/json"}
        reply = self._connection.ask("POST", f"{self._path}/feedback", body, headers)
        if reply.status != 200:
            raise wire.problem(reply.status, reply.body)
        return wire.counted(reply.body)

    def metadata(self) -> Metadata:
        """What the model takes and gives; asked again only after its version has changed.

        Raises like `infer`.
        """
        known = self._metadata
        if known is None:
            known = self._metadata = wire.metadata(self._get(self._path))
        return known

    def ready(self) -> bool:
        """Whether the model answers. Raises `Unavailable` OUT-I120 where nobody does."""
        return self._connection.ask("GET", f"{self._path}/ready").status == 200

    def close(self) -> None:
        """Close all connections; a later request opens new ones."""
        self._connection.close()

    def _get(self, path: str) -> bytes:
        reply = self._connection.ask("GET", path)
        if reply.status != 200:
            raise wire.problem(reply.status, reply.body)
        return reply.body

    def _only_input(self) -> str:
        inputs = self.metadata().inputs
        if len(inputs) != 1:
            names = ", ".join(tensor.name for tensor in inputs)
            raise InvalidRequest("OUT-I101", f"{self.model} has several inputs: give {names}")
        return inputs[0].name


def _address(
    socket: str | os.PathLike[str] | None,
    url: str | None,
    home: str | os.PathLike[str] | None,
) -> Path | tuple[str, int]:
    if socket is not None:
        return Path(socket)
    if url is None:
        chosen = Path(home) if home is not None else None
        return settings.read(os.environ, chosen).paths.inference_socket
    try:
        parts = urlsplit(url)
        if parts.scheme == "http" and parts.hostname and parts.path in ("", "/"):
            return parts.hostname, parts.port or 80
    except ValueError:
        pass
    raise InvalidRequest("OUT-S120", f"{url!r} is no address such as http://127.0.0.1:8500")
