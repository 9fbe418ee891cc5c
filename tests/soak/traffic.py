"""An application that asks, checks every number that it gets, and keeps what went wrong.

It asks one row at a time on a connection that it keeps, opens another when the server has closed
it (as every HTTP client does), and repeats nothing.
"""

from __future__ import annotations

import http.client
import json
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tests.fakes.bundles import Weights, expected
from tests.soak.evidence import Failure

TIMEOUT_S: Final = 15.0
ROWS: Final = 64
MARKER: Final = 0.7310587
"""In every row: a number that nothing else contains, so that it is found wherever it gets."""
CLOSE: Final = 2e-5
"""How near a float32 softmax comes to numpy's; versions differ by more."""
MAX_WRONG: Final = 20


def rows() -> NDArray[np.float32]:
    """The inputs, `[64, 4]` float32."""
    made = np.random.default_rng(7).normal(size=(ROWS, 4)).astype(np.float32)
    made[:, 3] = np.float32(MARKER)
    return made


class Caller:
    """Asks `model` on `port`, `rate` times a second, from its own thread, until stopped."""

    def __init__(self, port: int, model: str, rate: float, weights: Mapping[str, Weights]) -> None:
        """`weights`, by version: what each version that may answer must compute."""
        self._port = port
        self._path = f"/v2/models/{model}/infer"
        self._period_s = 1 / rate
        inputs = rows()
        self._bodies = [_body(row) for row in inputs]
        self._right = {version: expected(w, inputs) for version, w in weights.items()}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.answered = 0
        self.versions: Counter[str] = Counter()
        self.failures: list[Failure] = []
        self.wrong: list[str] = []
        """Answers that are not what the version they name computes."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns once the last answer is counted."""
        self._stop.set()
        self._thread.join(TIMEOUT_S * 2)

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_S)
        number = 0
        while not self._stop.wait(self._period_s):
            number = (number + 1) % ROWS
            if connection.sock is not None and _closed(connection.sock):
                connection.close()
            began = time.monotonic()
            try:
                connection.request("POST", self._path, self._bodies[number])
                response = connection.getresponse()
                body = response.read()
                if response.status != 200:
                    raise ValueError(f"{response.status} {body[:200]!r}")
                self._take(number, json.loads(body))
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                connection.close()
                why = f"{type(error).__name__}: {error}"
                self.failures.append(Failure(began, time.monotonic(), why))
        connection.close()

    def _take(self, number: int, answer: Mapping[str, Any]) -> None:
        self.answered += 1
        version = str(answer["model_version"])
        self.versions[version] += 1
        found = next(out["data"] for out in answer["outputs"] if out["datatype"] == "FP32")
        right = self._right.get(version)
        if right is None:
            self._wrong(f"{version} answers, which nobody approved")
        elif not np.allclose(np.ravel(found), right[number], atol=CLOSE, rtol=0):
            self._wrong(f"{version}: {found} instead of {right[number].tolist()}")

    def _wrong(self, what: str) -> None:
        if len(self.wrong) < MAX_WRONG:
            self.wrong.append(what)


def _body(row: NDArray[np.float32]) -> str:
    tensor = {
        "name": "pixels",
        "datatype": "FP32",
        "shape": [1, len(row)],
        "data": [float(value) for value in row],
    }
    return json.dumps({"inputs": [tensor]})


def _closed(connection: socket.socket) -> bool:
    """Whether the server has ended a connection on which nothing was asked."""
    return bool(select.select([connection], [], [], 0)[0])
