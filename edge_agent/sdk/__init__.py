"""Ask the models of this device from a Python application.

Two ways, with the same call and the same answer:

    from edge_agent.sdk import Client, Local

    with Client("digits") as digits:                # asks the runner, over its Unix socket
        answer = digits.infer(pixels)               # numpy in: pixels is float32 [n, 64]
        answer.outputs["probabilities"]             # numpy out
        answer.version                              # which version said so

    with Local("digits") as digits:                 # runs the model in this process
        answer = digits.infer(pixels)

Whoever learns later what was true says so, and both count it:

    digits.feedback(truth, predicted, sure, version=answer.version)

`Client` is the one to begin with. It asks the process that runs models: a model that crashes takes
that process down and never the application, a new version begins between two requests, and a
connection that ends under it is opened again, once. It needs numpy and msgspec only.

`Local` saves the way there and back, some hundred microseconds, and costs safety: a model that
crashes takes the application with it. It follows what serves on this device, counts every answer as
a runner does, and hands the counts to the agent. docs/how-to/ask-from-an-application.md states its
limits; read them before you choose it.

Inputs are a dictionary of arrays by name, or one array for a model with one input. Arrays must
have the datatype of the contract: nothing is converted in secret. Errors are those of
`protocol.errors`: `InvalidRequest` for what breaks the contract, `Unavailable` where nobody answers
now and a later try may succeed, `Failed` where the model fails on this input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_agent.sdk.answer import Answer, Inputs
from edge_agent.sdk.client import Client
from edge_agent.sdk.wire import Metadata

if TYPE_CHECKING:
    from edge_agent.sdk.local import Local, Standing

__all__ = ["Answer", "Client", "Inputs", "Local", "Metadata", "Standing"]


def __getattr__(name: str) -> Any:
    # Whoever only asks over the socket need not load onnxruntime.
    if name in ("Local", "Standing"):
        from edge_agent.sdk import local

        return getattr(local, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
