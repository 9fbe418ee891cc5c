"""Versions of what is installed here.

`importlib.metadata` knows them, and brings two megabytes of modules that stay for as long as a
process does. So `outrider-agent run` asks it before it becomes the agent, which is to live for
months, and leaves what it heard in the environment, for the agent and its runners.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

VARIABLE: Final = "OUTRIDER_INSTALLED"
OF_INTEREST: Final = ("outrider", "onnxruntime")
IF_THERE: Final = ("brotli",)
"""Distributions that a device may do without."""


def version_of(distribution: str) -> str:
    """Raises `importlib.metadata.PackageNotFoundError` for what is not installed."""
    for said in os.environ.get(VARIABLE, "").split():
        name, _, version = said.partition("==")
        if name == distribution:
            return version
    return _looked_up(distribution)


def remember() -> None:
    """Look all of them up, for this process and those that it starts or becomes. Raises as
    `version_of` does."""
    from importlib.metadata import PackageNotFoundError

    found = [f"{name}=={_looked_up(name)}" for name in OF_INTEREST]
    for name in IF_THERE:
        with suppress(PackageNotFoundError):
            found.append(f"{name}=={_looked_up(name)}")
    os.environ[VARIABLE] = " ".join(found)


def _looked_up(distribution: str) -> str:
    from importlib.metadata import version

    return version(distribution)
