"""One loaded model: from a request's bytes to an answer's, counted and blamed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from edge_agent.runner.blame import Doing, Notebook
from edge_agent.runner.bundle import read_bundle, read_golden
from edge_agent.runner.contract import check_inputs, check_outputs
from edge_agent.runner.counts import Tally
from edge_agent.runner.oip import (
    Array,
    encode_metadata,
    encode_response,
    parse_request,
    to_array,
)
from edge_agent.runner.probe import difference
from edge_agent.runner.session import ModelFailed, Session
from edge_agent.runner.views import Load, RunnerFailed
from protocol.errors import Failed, InvalidRequest, NotUnderstood, OutriderError, PeerError

log = logging.getLogger(__name__)

Before = Callable[[Doing, str, str], None]
"""Called with (what is done, model, version) right before onnxruntime gets control."""


class Served:
    def __init__(self, load: Load, index: int, notebook: Notebook, before: Before) -> None:
        """Load the bundle as model number `index` of the notebook.

        Raises `RunnerFailed` OUT-D302 with the reason, OUT-D330 for a bundle from the future.
        """
        self.load = load
        self._index = index
        self._notebook = notebook
        self._before = before
        self._failures = 0
        try:
            with notebook.busy("load", index):
                self._bundle = read_bundle(load.path)
                self.version = self._bundle.index.version
                before("load", load.model, self.version)
                self._session = Session(self._bundle)
        except (PeerError, ValueError, OSError, ModelFailed) as error:
            code = "OUT-D330" if isinstance(error, NotUnderstood) else "OUT-D302"
            why = error.why if isinstance(error, OutriderError) else str(error)
            raise RunnerFailed(
                code, f"{load.model}: {why}", model=load.model, digest=load.digest
            ) from error
        self.contract = self._bundle.contract
        self.metadata = encode_metadata(load.model, self.version, self.contract)
        self.tally = Tally(
            load.model,
            load.digest,
            load.manifest,
            self._bundle.variant.member("profile").digest,
            self.contract,
            self._bundle.profile,
        )

    def infer(self, body: bytes) -> bytes:
        """Raises `InvalidRequest` for what breaks the contract, `Failed` where the model fails."""
        started = time.perf_counter()
        try:
            request = parse_request(body)
            rows = check_inputs(self.contract, [tensor.given for tensor in request.inputs])
            wanted = check_outputs(self.contract, [output.name for output in request.outputs])
            inputs = {tensor.name: to_array(tensor) for tensor in request.inputs}
        except InvalidRequest:
            self.tally.refused()
            raise
        try:
            outputs = self._run("infer", inputs)
            answer = encode_response(
                self.load.model,
                self.version,
                request.id,
                [(spec, outputs[spec.name]) for spec in wanted],
            )
            first = inputs[self.contract.inputs[0].name]
            self.tally.answered(first, outputs, rows, time.perf_counter() - started)
        except (ModelFailed, ValueError, TypeError) as error:
            # A model may also return what cannot be written or counted: strings that are not
            # text, fewer rows than it was given. That is its failure as well.
            self.tally.failed()
            self._note(error)
            raise Failed("OUT-I110", f"{self.load.model} failed on this input: {error}") from error
        return answer

    def count_refused(self) -> None:
        """A request that was refused before its body got here."""
        self.tally.refused()

    def probe(self) -> None:
        """Golden vectors. Raises `RunnerFailed` OUT-D301 if they do not come out as signed."""
        try:
            golden = read_golden(self._bundle)
            outputs = self._run("probe", golden.inputs)
        except (PeerError, OSError, ModelFailed, ValueError) as error:
            why = error.why if isinstance(error, OutriderError) else str(error)
            raise self._probe_failed(why) from error
        if found := difference(self.contract, golden.outputs, outputs):
            raise self._probe_failed(found)

    def _run(self, doing: Doing, inputs: Mapping[str, Array]) -> dict[str, Array]:
        with self._notebook.busy(doing, self._index):
            self._before(doing, self.load.model, self.version)
            return self._session.run(inputs)

    def _probe_failed(self, why: str) -> RunnerFailed:
        return RunnerFailed(
            "OUT-D301",
            f"{self.load.model}: {why}",
            model=self.load.model,
            digest=self.load.digest,
        )

    def _note(self, error: Exception) -> None:
        """Log the 1st, 2nd, 4th, 8th ... failure: a broken model must not fill the disk."""
        self._failures += 1
        if self._failures & (self._failures - 1) == 0:
            log.warning("%s failed %d times: %s", self.load.model, self._failures, error)
