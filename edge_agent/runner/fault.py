"""A deliberate crash, for tests only: `OUTRIDER_TEST_ABORT=<model>[/<version>]:<doing>`; doing is
`load`, `probe`, `infer` or `shadow`.

No ONNX file aborts onnxruntime in every one of its versions, and a crash that tests rely on has to.
"""

from __future__ import annotations

import os

from edge_agent.runner.blame import Doing

VARIABLE = "OUTRIDER_TEST_ABORT"


def abort_if_asked(doing: Doing, model: str, version: str) -> None:
    asked = os.environ.get(VARIABLE)
    if asked in (f"{model}:{doing}", f"{model}/{version}:{doing}"):
        os.abort()
