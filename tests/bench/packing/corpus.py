"""The files of `make bench NAME=payload`: real models, their updates, and how they are made.

Each family of files is trained once from fixed seeds and kept under `build/bench/payload-corpus`,
with the versions of what made it; another recipe or another version makes it anew. Case names are
those of the study that the format comes from.
"""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from tests.bench.packing import numpy_models, sklearn_models, transforms

RECIPE: Final = 1
"""Raised whenever the files of the same libraries become others."""
TORCH_MODELS: Final = Path(__file__).with_name("torch_models.py")
PYTHONS: Final = (sys.executable, "/usr/bin/python3")
"""Where PyTorch is looked for."""
LIBRARIES: Final = ("numpy", "onnx", "onnxruntime", "scikit-learn", "skl2onnx")


@dataclass(frozen=True, slots=True)
class Case:
    """`base` None: a first install. `kind`: what the file is full of."""

    name: str
    what: str
    target: str
    base: str | None = None
    kind: str = "floats"
    """floats, halves, trees or integers."""

    @property
    def is_update(self) -> bool:
        return self.base is not None

    @property
    def is_large(self) -> bool:
        return self.name.startswith("B")


def _case(name: str, what: str, target: str, base: str | None, kind: str = "floats") -> Case:
    return Case(name, what, target, base, kind)


CASES: Final = (
    _case("1a", "CNN, two layers tuned", "cnn_two_layers", "cnn_base"),
    _case("1b", "CNN, last layer tuned", "cnn_last_layer", "cnn_base"),
    _case("1c", "CNN, last layer, normalisation live", "cnn_last_layer_live", "cnn_base"),
    _case("2a", "CNN, Adam 1e-5", "cnn_adam_low", "cnn_base"),
    _case("2b", "CNN, SGD 1e-4", "cnn_sgd_low", "cnn_base"),
    _case("3a", "CNN, Adam 1e-3", "cnn_adam_high", "cnn_base"),
    _case("3b", "CNN, trained anew", "cnn_anew", "cnn_base"),
    _case("4a", "MLP, trained on", "mlp_warm", "mlp_base"),
    _case("4b", "MLP, trained anew", "mlp_cold", "mlp_base"),
    _case("5a", "forest, 5 % more rows", "rf_more", "rf_base", "trees"),
    _case("5b", "forest, 20 trees appended", "rf_longer", "rf_base", "trees"),
    _case("5c", "forest, 20 of 200 trees swapped", "rf_swapped", "rf_base", "trees"),
    _case("5d", "forest of integers, 5 % more rows", "rfi_more", "rfi_base", "trees"),
    _case("5e", "forest regressor, 5 % more rows", "rfr_more", "rfr_base", "trees"),
    _case("5f", "boosted trees, 5 % more rows", "gb_more", "gb_base", "trees"),
    _case("5g", "boosted trees, 20 appended", "gb_longer", "gb_base", "trees"),
    _case("5h", "boosted classifier, 5 % more rows", "gbc_more", "gbc_base", "trees"),
    _case("6a", "CNN int8, Adam 1e-5", "cnn_adam_low_int8", "cnn_base_int8", "integers"),
    _case("6b", "CNN int8, Adam 1e-3", "cnn_adam_high_int8", "cnn_base_int8", "integers"),
    _case("6c", "MLP dynamic int8, trained on", "mlp_warm_int8", "mlp_base_int8", "integers"),
    _case("7a", "CNN float16, Adam 1e-5", "cnn_adam_low_half", "cnn_base_half", "halves"),
    _case("7b", "CNN float16, Adam 1e-3", "cnn_adam_high_half", "cnn_base_half", "halves"),
    _case("8a", "CNN, only the graph", "cnn_base_softmax", "cnn_base"),
    _case("9a", "CNN, only the names", "cnn_base_renamed", "cnn_base"),
    _case("9b", "CNN, names and Adam 1e-5", "cnn_adam_low_renamed", "cnn_base"),
    _case("9c", "CNN, other exporter", "cnn_base_other", "cnn_base"),
    _case("9d", "CNN, other exporter and Adam 1e-5", "cnn_adam_low_other", "cnn_base"),
    _case("10a", "CNN, first", "cnn_base", None),
    _case("10b", "CNN float16, first", "cnn_base_half", None, "halves"),
    _case("10c", "CNN int8, first", "cnn_base_int8", None, "integers"),
    _case("10d", "forest, first", "rf_base", None, "trees"),
    _case("10e", "boosted trees, first", "gb_base", None, "trees"),
    _case("B1", "ResNet-18, last layer tuned", "resnet_head", "resnet_base"),
    _case("B2", "ResNet-18, Adam 1e-5", "resnet_low", "resnet_base"),
    _case("B6", "ResNet-18 int8, Adam 1e-5", "resnet_low_int8", "resnet_base_int8", "integers"),
    _case("B7", "ResNet-18 float16, Adam 1e-5", "resnet_low_half", "resnet_base_half", "halves"),
    _case("B8", "ResNet-18, only the graph", "resnet_base_softmax", "resnet_base"),
    _case("B10", "ResNet-18, first", "resnet_base", None),
)


class Missing(Exception):
    """What a family needs is not on this machine."""


Make = Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class Family:
    """Files made together, of files of other families."""

    make: Make
    files: tuple[str, ...]
    needs: tuple[str, ...] = ()
    trained_by: str = ""
    """A library besides `LIBRARIES`."""


# --- making -------------------------------------------------------------------------------------


@cache
def torch_python() -> tuple[str, str] | None:
    """An interpreter that has PyTorch, and its version."""
    for python in PYTHONS:
        asked = subprocess.run(
            [python, str(TORCH_MODELS), "versions"], capture_output=True, text=True, check=False
        )
        if asked.returncode == 0:
            return python, json.loads(asked.stdout)["torch"]
    return None


def _torch(family: str, folder: Path) -> None:
    found = torch_python()
    if found is None:
        raise Missing("PyTorch is not on this machine")
    command = [found[0], str(TORCH_MODELS), family, str(_digits(folder)), str(folder)]
    subprocess.run(command, check=True, stdout=sys.stderr)


def _cnn(folder: Path) -> None:
    if torch_python() is None:
        numpy_models.cnn(_digits(folder), folder)
    else:
        _torch("cnn", folder)


def _digits(folder: Path) -> Path:
    path = folder / "digits.npz"
    if not path.exists():
        sklearn_models.digits_file(path)
    return path


def _changed(change: Callable[[bytes], bytes], suffix: str, names: Iterable[str], at: Path) -> None:
    for name in names:
        made = change((at / f"{name}.onnx").read_bytes())
        (at / f"{name}_{suffix}.onnx").write_bytes(made)


def _other(names: Iterable[str], folder: Path) -> None:
    for name in names:
        with np.load(folder / f"{name}.npz") as state:
            (folder / f"{name}_other.onnx").write_bytes(transforms.exported(state))


def _int8(names: Iterable[str], side: int, folder: Path) -> None:
    with np.load(_digits(folder)) as read:
        small = read["images"][: transforms.CALIBRATED_ON]
    times = side // small.shape[1]
    rows = small.repeat(times, axis=1).repeat(times, axis=2)[:, None]
    for name in names:
        made = transforms.int8_static(folder / f"{name}.onnx", rows)
        (folder / f"{name}_int8.onnx").write_bytes(made)


def _dynamic(names: Iterable[str], folder: Path) -> None:
    for name in names:
        made = transforms.int8_dynamic(folder / f"{name}.onnx")
        (folder / f"{name}_int8.onnx").write_bytes(made)


def _of(change: Callable[..., None], *given: Any, suffix: str, names: tuple[str, ...]) -> Family:
    needs = tuple(f"{name}.onnx" for name in names)
    files = tuple(f"{name}_{suffix}.onnx" for name in names)
    return Family(partial(change, *given), files, needs)


def _trained(make: Make, names: str, by: str = "") -> Family:
    return Family(make, tuple(f"{name}.onnx" for name in names.split()), trained_by=by)


_CNN: Final = (
    "cnn_base cnn_two_layers cnn_last_layer cnn_last_layer_live cnn_adam_low cnn_sgd_low"
    " cnn_adam_high cnn_anew"
)
_TUNED: Final = ("cnn_base", "cnn_adam_low", "cnn_adam_high")
_TWO: Final = ("cnn_base", "cnn_adam_low")
_RESNETS: Final = ("resnet_base", "resnet_low")
_MLPS: Final = ("mlp_base", "mlp_warm")

FAMILIES: Final[Mapping[str, Family]] = {
    "mlp": _trained(sklearn_models.mlp, "mlp_base mlp_warm mlp_cold"),
    "forest": _trained(sklearn_models.forest, "rf_base rf_more rf_longer rf_swapped"),
    "forest of integers": _trained(sklearn_models.forest_of_integers, "rfi_base rfi_more"),
    "forest regressors": _trained(sklearn_models.regressors, "rfr_base rfr_more"),
    "boosted trees": _trained(sklearn_models.boosting, "gb_base gb_more gb_longer"),
    "boosted classifiers": _trained(sklearn_models.boosting_of_classes, "gbc_base gbc_more"),
    "CNN": _trained(_cnn, _CNN, "torch"),
    "ResNet-18": _trained(partial(_torch, "resnet"), "resnet_base resnet_head resnet_low", "torch"),
    "CNN renamed": _of(_changed, transforms.renamed, "renamed", _TWO, suffix="renamed", names=_TWO),
    "CNN edited": _of(
        _changed,
        transforms.with_softmax,
        "softmax",
        _TWO[:1],
        suffix="softmax",
        names=_TWO[:1],
    ),
    "CNN float16": _of(_changed, transforms.half, "half", _TUNED, suffix="half", names=_TUNED),
    "CNN exported otherwise": _of(_other, _TWO, suffix="other", names=_TWO),
    "CNN int8": _of(_int8, _TUNED, 8, suffix="int8", names=_TUNED),
    "MLP int8": _of(_dynamic, _MLPS, suffix="int8", names=_MLPS),
    "ResNet-18 edited": _of(
        _changed,
        transforms.with_softmax,
        "softmax",
        _RESNETS[:1],
        suffix="softmax",
        names=_RESNETS[:1],
    ),
    "ResNet-18 float16": _of(
        _changed, transforms.half, "half", _RESNETS, suffix="half", names=_RESNETS
    ),
    "ResNet-18 int8": _of(_int8, _RESNETS, 32, suffix="int8", names=_RESNETS),
}


def versions() -> dict[str, str]:
    """Of what makes the files; PyTorch's is missing where it is."""
    found = {name: importlib.metadata.version(name) for name in LIBRARIES}
    torch = torch_python()
    return found | ({"torch": torch[1]} if torch else {})


class Corpus:
    """Files under `folder`, made when they are asked for."""

    def __init__(self, folder: Path, families: Mapping[str, Family] = FAMILIES) -> None:
        self._folder = folder
        self._families = families
        self._made_by = {file: name for name, family in families.items() for file in family.files}
        self._failed: dict[str, str] = {}

    def file(self, model: str) -> Path:
        """Raises `Missing` if what makes it is not here."""
        path = self._folder / f"{model}.onnx"
        self._make(self._made_by[path.name])
        return path

    def _make(self, name: str) -> None:
        family = self._families[name]
        if name in self._failed:
            raise Missing(self._failed[name])
        note = self._folder / f"{name}.json"
        needed = {self._made_by[file] for file in family.needs}
        for other in sorted(needed):
            self._make(other)
        recipe = self._recipe(family, needed)
        whole = all((self._folder / file).exists() for file in family.files)
        if whole and note.exists() and json.loads(note.read_text()) == recipe:
            return
        print(f"making {name}", file=sys.stderr, flush=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        note.unlink(missing_ok=True)
        try:
            family.make(self._folder)
        except Missing as why:
            self._failed[name] = str(why)
            raise
        note.write_text(json.dumps(recipe) + "\n")

    def _recipe(self, family: Family, needed: Iterable[str]) -> dict[str, Any]:
        known = versions()
        names = (*LIBRARIES, family.trained_by) if family.trained_by else LIBRARIES
        of = {name: known.get(name, "") for name in names}
        before = {name: json.loads((self._folder / f"{name}.json").read_text()) for name in needed}
        return {"recipe": RECIPE, "versions": of, "of": before}
