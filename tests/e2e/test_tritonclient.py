"""The stock client keeps its connections while the version under it changes a hundred times."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton

from edge_agent.runners import Load, Runners
from tests.fakes.bundles import make_bundle
from tests.fakes.takes import take_everything

PROMOTIONS = 100
ROW = np.array([[0.1, -0.2, 0.3, 0.4]], np.float32)


class StockCaller(threading.Thread):
    """Asks on one connection until it is told to stop; never asks twice for one answer."""

    def __init__(self, port: int, *, binary: bool, pause_s: float) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._binary = binary
        self._pause_s = pause_s
        self._end = threading.Event()
        self.versions: Counter[str] = Counter()
        self.failures: list[str] = []

    def run(self) -> None:
        tensor = triton.InferInput("pixels", [1, 4], "FP32")
        tensor.set_data_from_numpy(ROW, binary_data=self._binary)
        outputs = [triton.InferRequestedOutput("probabilities", binary_data=self._binary)]
        with triton.InferenceServerClient(f"127.0.0.1:{self._port}") as client:
            while not self._end.is_set():
                try:
                    result = client.infer("toy", [tensor], outputs=outputs)
                    assert abs(float(result.as_numpy("probabilities").sum()) - 1) < 1e-5
                    self.versions[result.get_response()["model_version"]] += 1
                # Blind: whatever a stock client may raise is a failed request.
                except Exception as error:  # noqa: BLE001 - counted, and the test fails on it
                    self.failures.append(repr(error))
                self._end.wait(self._pause_s)

    def finish(self) -> None:
        self._end.set()
        self.join(30)


@pytest.mark.e2e
@pytest.mark.timeout(1800)
def test_no_request_of_a_stock_client_fails_over_a_hundred_promotions(tmp_path: Path):
    loads = []
    for version, seed in (("v1", 1), ("v2", 2)):
        bundle = make_bundle(tmp_path / "bundles", version=version, weights_seed=seed)
        loads.append(Load(bundle.model, bundle.digest, bundle.manifest, bundle.path))
    runners = Runners(tmp_path / "run", port=0)
    runners.adopt()
    counted = 0
    try:
        serving = runners.start((loads[0],)).id
        runners.promote(serving)
        callers = [
            StockCaller(runners.port, binary=binary, pause_s=pause_s)
            for binary in (True, False)
            # Without a pause, now and then, and once in about every promotion.
            for pause_s in (0.0, 0.02, 0.6)
        ]
        for caller in callers:
            caller.start()
        for turn in range(1, PROMOTIONS + 1):
            candidate = runners.start((loads[turn % 2],)).id
            runners.probe(candidate, "toy")
            runners.promote(candidate)
            runners.drain(serving)
            counted += take_everything(runners, serving)
            serving = candidate
        for caller in callers:
            caller.finish()
        assert [caller.failures for caller in callers] == [[]] * len(callers)
        assert runners.deaths() == ()
        for caller in callers:
            assert set(caller.versions) == {"v1", "v2"}
        answered = sum(caller.versions.total() for caller in callers)
        # And none was counted twice or not at all.
        assert counted + runners.peek(serving)["toy"].answers == answered
    finally:
        for view in runners.views():
            runners.kill(view.id)
        runners.close()
