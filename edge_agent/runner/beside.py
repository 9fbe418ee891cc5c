"""A candidate that runs beside what is in use: copied requests, answered for nobody, and compared.

One thread of the lowest priority, which after so much processor time rests nine times as long. What
serves is another process: nothing here can delay an answer, fail one, or be seen in one.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner.agreement import compare
from edge_agent.runner.contract import Given, check_inputs
from edge_agent.runner.sample import Sample
from edge_agent.runner.samples import MOST_BYTES, MOST_REQUESTS, array_of
from edge_agent.runner.session import ModelFailed
from edge_agent.watch.fold import confidence_counts, has_confidence
from protocol.errors import InvalidRequest
from protocol.histogram import CONFIDENCE_BINS, LATENCY_SLOTS, latency_slot
from protocol.identifiers import Digest
from protocol.members import Contract
from protocol.reported import Shadow

log = logging.getLogger(__name__)

Array = NDArray[Any]

SHARE: Final = 0.1
"""Of one core, at most."""
BATCH_S: Final = 0.02
"""Processor time after which it rests, once the request in work is done."""
LOWEST: Final = 19
"""Niceness: it runs when hardly anybody else wants to."""


class Candidate(Protocol):
    """The part of a loaded model that this needs."""

    contract: Contract

    def shadow(self, inputs: dict[str, Array]) -> dict[str, Array]: ...


class Beside:
    """`give`, `counts` and `stop` are for one thread; the work is done in another."""

    def __init__(
        self,
        candidate: Candidate,
        digest: Digest,
        base: Contract,
        *,
        cpu_s: Callable[[], float] = time.process_time,
    ) -> None:
        """`cpu_s`: processor time of this process, with that of onnxruntime's own threads."""
        self._candidate = candidate
        self._digest = digest
        self._base = base
        self._cpu_s = cpu_s
        self._waiting: deque[Sample] = deque()
        self._bell = threading.Event()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._rows = self._agreed = self._failures = 0
        self._latency = np.zeros(LATENCY_SLOTS, np.int64)
        self._confidence = np.zeros(CONFIDENCE_BINS, np.int64)
        self._base_confidence = np.zeros(CONFIDENCE_BINS, np.int64)
        self._thread = threading.Thread(target=self._work, name="beside", daemon=True)
        self._thread.start()

    def give(self, samples: Sequence[Sample]) -> bool:
        """Take these; whether more would be welcome. What does not fit is dropped."""
        waits = sum(sample.size_bytes for sample in tuple(self._waiting))
        for sample in samples:
            waits += sample.size_bytes
            if len(self._waiting) < MOST_REQUESTS and waits <= MOST_BYTES:
                self._waiting.append(sample)
        self._bell.set()
        return len(self._waiting) < MOST_REQUESTS // 4 and waits < MOST_BYTES // 4

    def counts(self) -> Shadow:
        """Since this began."""
        with self._lock:
            return Shadow(
                self._digest,
                self._rows,
                self._agreed,
                tuple(self._latency.tolist()),
                self._bins(self._confidence, self._candidate.contract),
                self._bins(self._base_confidence, self._base),
                self._failures,
            )

    def stop(self, timeout_s: float) -> bool:
        """End the thread; False if the request in work is not done in time: ask again."""
        self._waiting.clear()
        self._stopping.set()
        self._bell.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _bins(self, counts: NDArray[np.int64], contract: Contract) -> tuple[int, ...]:
        return tuple(counts.tolist()) if has_confidence(contract) else ()

    # --- the thread ---

    def _work(self) -> None:
        _yield_to_others()
        while not self._stopping.is_set():
            self._bell.wait()
            self._bell.clear()
            while self._waiting and not self._stopping.wait(self._batch() * (1 / SHARE - 1)):
                pass

    def _batch(self) -> float:
        """Some requests; the processor time that they took, in seconds."""
        began = self._cpu_s()
        while self._waiting and not self._stopping.is_set():
            try:
                sample = self._waiting.popleft()
            except IndexError:
                break  # dropped by `stop`
            self._answer(sample)
            if self._cpu_s() - began >= BATCH_S:
                break
        return self._cpu_s() - began

    def _answer(self, sample: Sample) -> None:
        mine = self._candidate.contract
        try:
            given = [Given(each.name, each.datatype, each.shape) for each in sample.inputs]
            rows = check_inputs(mine, given)
            inputs = {each.name: array_of(each) for each in sample.inputs}
            started = time.perf_counter()
            got = self._candidate.shadow(inputs)
            seconds = time.perf_counter() - started
            wanted = {each.name: array_of(each) for each in sample.outputs}
            found = compare(mine, self._base, got, wanted, rows)
        except (InvalidRequest, ModelFailed, ValueError, TypeError, KeyError, MemoryError) as error:
            with self._lock:
                self._failures += 1
                if self._failures & (self._failures - 1) == 0:
                    log.warning("beside, %d requests failed: %s", self._failures, error)
            return
        with self._lock:
            self._rows += rows
            self._agreed += int(found.agreed.sum())
            self._latency[latency_slot(seconds)] += 1
            self._confidence += confidence_counts(found.mine)
            self._base_confidence += confidence_counts(found.base)


def _yield_to_others() -> None:
    """Of this thread only: on Linux, niceness is a thread's. It cannot be taken back."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST)
    except OSError as error:
        log.warning("beside, at ordinary priority: %s", error)
