"""An application on a device: asks its local model, one row at a time, and counts what it gets.

It retries nothing, so every request that a switch of models would lose is seen.
"""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Row:
    """One input and the label it should get."""

    values: tuple[float, ...]
    label: int


@dataclass(slots=True)
class Tally:
    """What one application saw. `right` is per `model_version`."""

    answered: int = 0
    failed: int = 0
    by_version: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def accuracy(self, version: str) -> float | None:
        asked = self.by_version[version]
        return self.right[version] / asked if asked else None


class Application:
    """Asks `model` on `port`, `rate` times a second, from its own thread, until stopped."""

    def __init__(
        self, port: int, model: str, tensor: str, rows: Sequence[Row], rate: float, offset: int = 0
    ) -> None:
        self._port = port
        self._path = f"/v2/models/{model}/infer"
        self._tensor = tensor
        self._rows = rows
        self._period = 1 / rate
        self._offset = offset
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.tally = Tally()

    def send(self, rows: Sequence[Row]) -> None:
        """From the next request on, these rows."""
        self._rows = rows

    def start(self) -> None:
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name=f"app-{self._port}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Returns once the last answer is counted."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(TIMEOUT_S * 2)

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_S)
        for number in itertools.count(self._offset):
            if self._stop.wait(self._period):
                break
            row = self._rows[number % len(self._rows)]
            try:
                version, label = self._ask(connection, row)
            except (OSError, http.client.HTTPException, ValueError, KeyError, IndexError) as error:
                connection.close()
                self.tally.failed += 1
                self.tally.failures.append(f"{time.time():.3f} {type(error).__name__}: {error}")
                continue
            self.tally.answered += 1
            self.tally.by_version[version] += 1
            self.tally.right[version] += label == row.label
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection, row: Row) -> tuple[str, int]:
        tensor = {
            "name": self._tensor,
            "datatype": "FP32",
            "shape": [1, len(row.values)],
            "data": row.values,
        }
        connection.request("POST", self._path, json.dumps({"inputs": [tensor]}))
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise ValueError(f"{response.status} {body[:200]!r}")
        answer = json.loads(body)
        label = next(out for out in answer["outputs"] if out["datatype"] == "INT64")
        return answer["model_version"], int(label["data"][0])
