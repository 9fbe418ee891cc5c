"""An inference server that does what a script says, one act per connection or request."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np

Act = Literal["answer", "close", "half", "error", "unready", "nonsense", "slow", "last"]
"""close: before the first byte; half: in the middle of an answer; last: an answer after which the
connection ends, as it says."""


class ScriptedServer:
    """Answers every request with one row of probabilities and takes its acts in turn."""

    def __init__(self, path: Path, acts: Sequence[Act]) -> None:
        self.requests = 0
        self.connections = 0
        self._acts = list(acts)
        self._end = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while not self._end.is_set():
            try:
                line, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._talk, args=(line,), daemon=True).start()

    def _talk(self, line: socket.socket) -> None:
        with line, line.makefile("rb") as asked:
            while _read(asked):
                self.requests += 1
                act = self._acts.pop(0) if self._acts else "answer"
                if act == "close":
                    return
                if act == "slow":
                    self._end.wait(30)
                    return
                answer = _answer(act)
                line.sendall(answer[: len(answer) // 2] if act == "half" else answer)
                if act in ("half", "last"):
                    return


def _read(asked: object) -> bool:
    """One whole request; False at the end."""
    length = 0
    first = asked.readline()  # type: ignore[attr-defined]  # a binary file
    if not first:
        return False
    while (line := asked.readline().strip()) != b"":  # type: ignore[attr-defined]  # as above
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    asked.read(length)  # type: ignore[attr-defined]  # as above
    return True


def _answer(act: Act) -> bytes:
    status, header = "200 OK", ""
    if act == "error":
        status, body = "500 no", json.dumps({"error": "OUT-I110 toy failed"}).encode()
    elif act == "unready":
        status, body = "503 no", json.dumps({"error": "OUT-I108 toy is not ready"}).encode()
    elif act == "nonsense":
        body = b"<html>"
    else:
        data = np.array([[0.25, 0.75]], np.float32).tobytes()
        output = {"name": "p", "datatype": "FP32", "shape": [1, 2]}
        output["parameters"] = {"binary_data_size": len(data)}  # type: ignore[assignment]  # JSON
        text = json.dumps(
            {"model_name": "toy", "model_version": "v1", "outputs": [output]}
        ).encode()
        header = f"Inference-Header-Content-Length: {len(text)}\r\n"
        body = text + data
    if act == "last":
        header += "Connection: close\r\n"
    return f"HTTP/1.1 {status}\r\n{header}Content-Length: {len(body)}\r\n\r\n".encode() + body
