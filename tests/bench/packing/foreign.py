"""bsdiff4 and ZipNN, in an environment of their own: part of `make bench NAME=payload`.

    foreign.py versions               which can be imported here, as JSON
    foreign.py bsdiff4 TARGET BASE    bytes of its patch, as JSON
    foreign.py zipnn TARGET           bytes of the smallest of what it can be set to
    foreign.py zipnn TARGET BASE      the same of TARGET xor BASE, as far as the latter goes

Each undoes what it did and compares; null stands for what cannot be had. It imports nothing of the
project.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np

NAMES: Final = ("bsdiff4", "zipnn")
ELEMENTS: Final = ("float32", "float16", "bfloat16")
METHODS: Final = ("AUTO", "ZSTD")
NEWER: Final = ("float8_e4m3fn", "float8_e5m2", "uint16", "uint32", "uint64")
"""Element types of later PyTorch that ZipNN puts into a list; of bytes it needs none of them."""


def load(name: str) -> Any:
    warnings.simplefilter("ignore")
    if name == "zipnn":
        torch = importlib.import_module("torch")
        for element in NEWER:
            if not hasattr(torch, element):
                setattr(torch, element, element)
    return importlib.import_module(name)


def versions() -> dict[str, str]:
    found = {}
    for name in NAMES:
        # They fail in their own ways where a library below them has another version.
        with contextlib.suppress(Exception):
            load(name)
            found[name] = importlib.metadata.version(name)
    return found


def bsdiff4(target: bytes, base: bytes) -> int:
    tool = load("bsdiff4")
    patch = tool.diff(base, target)
    if tool.patch(base, patch) != target:
        raise SystemExit("bsdiff4 does not give back what it was given")
    return len(patch)


def zipnn(target: bytes, base: bytes | None) -> int | None:
    """Bytes are counted without the base's length, which would have to be said as well. None if
    it brings its process down whatever it is set to."""
    data = target if base is None else xor(target, base)
    load("zipnn")
    found = [_apart(data, element, method) for element in ELEMENTS for method in METHODS]
    return min((each for each in found if each is not None), default=None)


def _apart(data: bytes, element: str, method: str) -> int | None:
    """In a process of its own: on some files and settings it is aborted."""
    told, tell = os.pipe()
    if (child := os.fork()) == 0:
        os.write(tell, str(_zipped(data, element, method)).encode())
        os._exit(0)
    os.close(tell)
    with os.fdopen(told) as read:
        said = read.read()
    os.waitpid(child, 0)
    return int(said) if said else None


def _zipped(data: bytes, element: str, method: str) -> int:
    tool = load("zipnn")

    def made() -> Any:
        return tool.ZipNN(input_format="byte", bytearray_dtype=element, method=method)

    packed = made().compress(bytearray(data))
    if bytes(made().decompress(packed)) != data:
        os._exit(1)
    return len(packed)


def xor(target: bytes, base: bytes) -> bytes:
    common = min(len(target), len(base))
    mixed = np.frombuffer(target, np.uint8, common) ^ np.frombuffer(base, np.uint8, common)
    return mixed.tobytes() + target[common:]


def main(arguments: list[str]) -> None:
    what, *paths = arguments
    if what == "versions":
        found: Any = versions()
    else:
        target, *bases = (Path(path).read_bytes() for path in paths)
        base = bases[0] if bases else None
        found = zipnn(target, base) if what == "zipnn" or base is None else bsdiff4(target, base)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
