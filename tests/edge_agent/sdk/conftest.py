from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def home() -> Iterator[Path]:
    """Short, because sockets below it have short paths."""
    folder = Path(tempfile.mkdtemp(prefix="or"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
