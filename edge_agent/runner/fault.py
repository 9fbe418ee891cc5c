"""A deliberate crash, for tests only: `OUTRIDER_TEST_ABORT=<model>[/<version>]:<doing>`; doing is
`load`, `probe`, `infer` or `shadow`.

No ONNX file aborts onnxruntime in every one of its versions, and a crash that tests rely on has to.
"""

from __future__ import annotations

import os

from edge_agent.runner.blame import Doing

VARIABLE = "OUTRIDER_TEST_ABORT"
_ASKED = os.environ.get(VARIABLE)
"""Looked up once: this is asked before every run."""


def abort_if_asked(doing: Doing, model: str, version: str) -> None:
    if _ASKED is not None and _ASKED in (f"{model}:{doing}", f"{model}/{version}:{doing}"):
        os.abort()
