"""Applications on a device: they call the local interface and never retry."""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter
from typing import Any

ROW = (0.1, -0.2, 0.3, 0.4)


def inference(*rows: tuple[float, ...]) -> bytes:
    """A request for the model of `tests.fakes.bundles`."""
    shape = [len(rows), len(rows[0])]
    data = [value for row in rows for value in row]
    tensor = {"name": "pixels", "datatype": "FP32", "shape": shape, "data": data}
    return json.dumps({"inputs": [tensor]}).encode()


def call(
    port: int,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, Any]:
    """(status, decoded JSON) of one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


class Caller(threading.Thread):
    """Calls one model on a keep-alive connection, without a pause, until it is told to stop."""

    def __init__(self, port: int, model: str = "toy") -> None:
        super().__init__(daemon=True)
        self._port = port
        self._path = f"/v2/models/{model}/infer"
        self._end = threading.Event()
        self._turn = threading.Condition()
        self.answered = 0
        self.versions: Counter[str] = Counter()
        self.errors: list[str] = []

    def run(self) -> None:
        body = inference(ROW)
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        while not self._end.is_set():
            try:
                connection.request("POST", self._path, body)
                response = connection.getresponse()
                document = json.loads(response.read())
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.errors.append(repr(error))
                connection.close()
                continue
            with self._turn:
                if response.status == 200:
                    self.answered += 1
                    self.versions[document["model_version"]] += 1
                else:
                    self.errors.append(f"{response.status} {document}")
                self._turn.notify_all()
        connection.close()

    def wait_for_more(self, answers: int, timeout_s: float = 30) -> None:
        """Until it has got so many more answers. Raises `TimeoutError`."""
        with self._turn:
            goal = self.answered + answers
            if not self._turn.wait_for(lambda: self.answered >= goal, timeout_s):
                raise TimeoutError(f"{self.answered} of {goal} answers; {self.errors[:3]}")

    def finish(self) -> None:
        self._end.set()
        self.join(30)
