"""One loaded model: from a request's bytes to an answer's, counted and blamed.

Where the model works no longer, the signed rules of its bundle answer in its place, or, as its
policy says, nothing does. Then the model itself is not loaded.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from edge_agent.runner.blame import DOING, Doing, Notebook, note_of
from edge_agent.runner.bundle import Bundle, read_bundle, read_golden
from edge_agent.runner.contract import check_inputs, check_outputs
from edge_agent.runner.counts import Tally
from edge_agent.runner.feedback import parse_feedback
from edge_agent.runner.oip import (
    Array,
    Encoded,
    InferenceRequest,
    encode_metadata,
    encode_response,
    inputs_of,
    parse_request,
)
from edge_agent.runner.probe import difference
from edge_agent.runner.rules import RulesSession
from edge_agent.runner.samples import Samples
from edge_agent.runner.session import ModelFailed, Session, TooLarge
from edge_agent.runner.views import Load, RunnerFailed
from protocol.errors import Failed, InvalidRequest, NotUnderstood, OutriderError, PeerError
from protocol.members import Profile, TensorSpec

log = logging.getLogger(__name__)

BY_RULES: Final = {"answered_by": "rules"}
"""Parameters of an answer that no model gave."""

Before = Callable[[Doing, str, str], None]
"""Called with (what is done, model, version) right before onnxruntime gets control."""


class Served:
    def __init__(self, load: Load, index: int, notebook: Notebook, before: Before) -> None:
        """Load the bundle as model number `index` of the notebook.

        Raises `RunnerFailed` OUT-D302 with the reason, OUT-D330 for a bundle from the future,
        OUT-D202 for one that memory does not suffice for.
        """
        self.load = load
        self.answering = load.answering
        self._session: Session | None
        self._rules: RulesSession | None
        self._notes = {doing: note_of(doing, index) for doing in DOING}
        self._notebook = notebook
        self._before = before
        self._failures = 0
        self.samples: Samples | None = None
        """Where copies of some requests are kept, while somebody wants them."""
        try:
            with notebook.busy("load", index):
                self._bundle = read_bundle(load.path)
                self.version = self._bundle.index.version
                self._session = self._rules = None
                if load.answering == "model":
                    before("load", load.model, self.version)
                    self._session = Session(self._bundle)
                elif load.answering == "rules":
                    self._rules = _rules(self._bundle)
        except (PeerError, ValueError, OSError, ModelFailed, MemoryError) as error:
            code = "OUT-D330" if isinstance(error, NotUnderstood) else "OUT-D302"
            if isinstance(error, TooLarge | MemoryError):
                code = "OUT-D202"
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
        # It has its own form of the profile: thousands of numbers need not stay as objects.
        self._bundle = replace(self._bundle, profile=Profile(self._bundle.profile.rows))

    def infer(self, body: bytes | bytearray, header: str | None = None) -> Encoded:
        """`header` is the value of `Inference-Header-Content-Length`, None without.

        Raises `InvalidRequest` for what breaks the contract, `Failed` where the model fails
        (OUT-I110) or the policy refuses to answer (OUT-D352).
        """
        started = time.perf_counter()
        try:
            parsed = parse_request(body, header)
            request = parsed.request
            contract = self.contract
            rows = check_inputs(contract, request.inputs)
            wanted = contract.outputs
            if request.outputs:
                wanted = check_outputs(contract, [output.name for output in request.outputs])
            inputs = inputs_of(parsed)
        except InvalidRequest:
            self.tally.refused()
            raise
        if self._session is None:
            return self._instead(request, wanted, inputs)
        try:
            outputs = self._run("infer", inputs)
            answer = self._encoded(request, wanted, outputs)
            first = inputs[contract.inputs[0].name]
            now_s = time.perf_counter()
            columns = self.tally.columns
            watched = first if columns is None else columns(inputs, outputs, rows)
            self.tally.answered(watched, outputs, rows, now_s - started)
            if (samples := self.samples) is not None:
                samples.offer(inputs, outputs, now_s)
        except (ModelFailed, ValueError, TypeError, MemoryError) as error:
            # A model may also return what cannot be written or counted: strings that are not
            # text, fewer rows than it was given. That is its failure as well.
            self.tally.failed()
            self._note(error)
            raise Failed("OUT-I110", f"{self.load.model} failed on this input: {error}") from error
        return answer

    def _instead(
        self,
        request: InferenceRequest,
        wanted: Sequence[TensorSpec],
        inputs: Mapping[str, Array],
    ) -> Encoded:
        if self._rules is None:
            why = f"{self.load.model} stopped working well, and its signed policy says refuse"
            raise Failed("OUT-D352", why)
        answer = self._encoded(request, wanted, self._rules.run(inputs), BY_RULES)
        self.tally.answered_by_rules()
        return answer

    def _encoded(
        self,
        request: InferenceRequest,
        wanted: Sequence[TensorSpec],
        outputs: Mapping[str, Array],
        parameters: Mapping[str, str] | None = None,
    ) -> Encoded:
        """Raises `ValueError` or `TypeError` for what cannot be written."""
        return encode_response(
            self.load.model,
            self.version,
            request.id,
            wanted,
            outputs,
            request.binary_outputs(wanted),
            parameters,
        )

    def feedback(self, body: bytes | bytearray) -> int:
        """Count true labels that came; returns how many.

        Raises `InvalidRequest` OUT-I117 for what is no feedback, OUT-I107 where it is about
        another version, `Failed` OUT-D352 where it is not the model that answers.
        """
        feedback = parse_feedback(body)
        if (about := feedback.version) is not None and about != self.version:
            raise InvalidRequest(
                "OUT-I107",
                f"{self.load.model}/{repr(about[:80])[1:-1]} does not run here, "
                f"{self.version} does",
            )
        if self._session is None:
            raise Failed("OUT-D352", f"{self.load.model} itself does not answer here now")
        self.tally.feedback(feedback.correct, feedback.confidence)
        return len(feedback.correct)

    def count_refused(self) -> None:
        """A request that was refused before its body got here."""
        self.tally.refused()

    def probe(self) -> None:
        """Golden vectors. Raises `RunnerFailed` OUT-D301 if they do not come out as signed, or
        if it is not the model that answers."""
        try:
            golden = read_golden(self._bundle)
            outputs = self._run("probe", dict(golden.inputs))
        except (PeerError, OSError, ModelFailed, ValueError, MemoryError) as error:
            why = error.why if isinstance(error, OutriderError) else str(error)
            short = isinstance(error, TooLarge | MemoryError)
            raise self._probe_failed(why, "OUT-D202" if short else "OUT-D301") from error
        if found := difference(self.contract, golden.outputs, outputs):
            raise self._probe_failed(found)

    def shadow(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """All outputs, counted nowhere. Raises `ModelFailed`."""
        return self._run("shadow", inputs)

    def _run(self, doing: Doing, inputs: dict[str, Array]) -> dict[str, Array]:
        notebook = self._notebook
        notebook.begin(self._notes[doing])
        try:
            if self._session is None:
                raise ModelFailed("the model is not loaded: it does not answer here")
            self._before(doing, self.load.model, self.version)
            return self._session.run(inputs)
        finally:
            notebook.end()

    def _probe_failed(self, why: str, code: str = "OUT-D301") -> RunnerFailed:
        return RunnerFailed(
            code,
            f"{self.load.model}: {why}",
            model=self.load.model,
            digest=self.load.digest,
        )

    def _note(self, error: Exception) -> None:
        """Log the 1st, 2nd, 4th, 8th ... failure: a broken model must not fill the disk."""
        self._failures += 1
        if self._failures & (self._failures - 1) == 0:
            log.warning("%s failed %d times: %s", self.load.model, self._failures, error)


def _rules(bundle: Bundle) -> RulesSession:
    """Raises `ValueError`."""
    if bundle.policy.rules is None:
        raise ValueError("its policy has no rules")
    return RulesSession(bundle.policy.rules, bundle.contract, bundle.profile.columns)
