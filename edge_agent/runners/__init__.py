"""The supervisor's side of its runners. Imports neither numpy nor onnxruntime."""

from edge_agent.runner.views import (
    Death,
    Load,
    ModelWindows,
    Role,
    RunnerFailed,
    RunnerView,
    Take,
)
from edge_agent.runners.pool import Runners

__all__ = [
    "Death",
    "Load",
    "ModelWindows",
    "Role",
    "RunnerFailed",
    "RunnerView",
    "Runners",
    "Take",
]
