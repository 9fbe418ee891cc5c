"""The convolutional network trained with numpy alone, where there is no PyTorch: part of
`make bench NAME=payload`.

The same layers, names of parameters and kinds of training as `torch_models.Cnn`, in float32; what
is trained here is a network of its own, not PyTorch's to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from threadpoolctl import threadpool_limits

from tests.bench.packing import transforms

Array = npt.NDArray[np.float32]
State = dict[str, Array]
Update = Callable[[str, Array, Array], Array]
"""Name of a parameter, its values, its gradient: the new values."""

SEED: Final = 7
BATCH: Final = 64
EPOCHS: Final = 4
TUNING_EPOCHS: Final = 2
MOMENTUM: Final = 0.1
EPSILON: Final = np.float32(transforms.EPSILON)
SHAPES: Final[Mapping[str, tuple[int, ...]]] = {
    "f.0.weight": (32, 1, 3, 3),
    "f.3.weight": (64, 32, 3, 3),
    "f.7.weight": (128, 64, 3, 3),
    "hidden.weight": (512, 2048),
    "head.weight": (10, 512),
}


def fresh(seed: int, shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> State:
    """Weights as He et al. start them; the normalisation of a convolution follows it."""
    rng = np.random.default_rng(seed)
    state: State = {}
    for name, shape in shapes.items():
        scale = np.sqrt(2 / np.prod(shape[1:]))
        state[name] = (scale * rng.standard_normal(shape)).astype(np.float32)
        state[name.replace("weight", "bias")] = np.zeros(shape[0], np.float32)
        if len(shape) > 2:
            norm = f"f.{int(name.split('.')[1]) + 1}"
            for part, value in (
                ("weight", 1),
                ("bias", 0),
                ("running_mean", 0),
                ("running_var", 1),
            ):
                state[f"{norm}.{part}"] = np.full(shape[0], value, np.float32)
    return state


# --- one step -----------------------------------------------------------------------------------


def gradients(state: State, images: Array, labels: Any, *, live: bool) -> tuple[float, State]:
    """Mean cross-entropy of images [n, 1, side, side] and its derivative by each parameter;
    `live`: normalised by the batch, whose moments join the running ones of `state`."""
    backward: list[Callable[[Array], Array]] = []
    found: State = {}
    at = images
    for place, after, pooled in transforms.CONVOLUTIONS:
        at = _convolve(state, f"f.{place}", at, found, backward)
        at = _normalise(state, f"f.{after}", at, found, backward, live=live)
        at = _rectify(at, backward)
        if pooled:
            at = _pool(at, backward)
    shape = at.shape
    backward.append(lambda up: up.reshape(shape))
    at = _dense(state, "hidden", at.reshape(len(at), -1), found, backward)
    at = _rectify(at, backward)
    scores = _dense(state, "head", at, found, backward)
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    loss = float(-np.log(np.maximum(shares[rows, labels], 1e-12)).mean())
    up = shares
    up[rows, labels] -= 1
    up /= np.float32(len(labels))
    for step in reversed(backward):
        up = step(up)
    return loss, found


Steps = list[Callable[[Array], Array]]


def _convolve(state: State, layer: str, x: Array, found: State, backward: Steps) -> Array:
    weight = state[f"{layer}.weight"]
    # [n, height, width, channels, 3, 3]: what each pixel of the output sees.
    seen = sliding_window_view(_padded(x), (3, 3), axis=(2, 3)).transpose(0, 2, 3, 1, 4, 5)
    n, height, width = seen.shape[:3]
    columns = seen.reshape(n * height * width, -1)
    flat = weight.reshape(len(weight), -1)
    y = (columns @ flat.T + state[f"{layer}.bias"]).reshape(n, height, width, -1)

    def step(up: Array) -> Array:
        rows = up.transpose(0, 2, 3, 1).reshape(-1, len(weight))
        found[f"{layer}.weight"] = (rows.T @ columns).reshape(weight.shape)
        found[f"{layer}.bias"] = rows.sum(axis=0)
        back = (rows @ flat).reshape(n, height, width, x.shape[1], 3, 3)
        down = np.zeros((n, x.shape[1], height + 2, width + 2), np.float32)
        for row in range(3):
            for column in range(3):
                part = back[..., row, column].transpose(0, 3, 1, 2)
                down[:, :, row : row + height, column : column + width] += part
        return down[:, :, 1:-1, 1:-1]

    backward.append(step)
    return np.ascontiguousarray(y.transpose(0, 3, 1, 2))


def _padded(x: Array) -> Array:
    return np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))


def _normalise(
    state: State, norm: str, x: Array, found: State, backward: Steps, *, live: bool
) -> Array:
    over = (0, 2, 3)
    mean, variance = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
    if live:
        count = x.size // x.shape[1]
        mean, variance = x.mean(axis=over), x.var(axis=over)
        for part, moment in (("mean", mean), ("var", variance * (count / (count - 1)))):
            name = f"{norm}.running_{part}"
            state[name] = ((1 - MOMENTUM) * state[name] + MOMENTUM * moment).astype(np.float32)
    root = 1 / np.sqrt(variance + EPSILON)
    centred = (x - mean[:, None, None]) * root[:, None, None]
    gamma = state[f"{norm}.weight"]

    def step(up: Array) -> Array:
        found[f"{norm}.weight"] = (up * centred).sum(axis=over)
        found[f"{norm}.bias"] = up.sum(axis=over)
        down = up * gamma[:, None, None]
        if live:
            down = down - down.mean(axis=over)[:, None, None]
            down -= centred * (down * centred).mean(axis=over)[:, None, None]
        return np.asarray(down * root[:, None, None], np.float32)

    backward.append(step)
    return np.asarray(gamma[:, None, None] * centred + state[f"{norm}.bias"][:, None, None])


def _rectify(x: Array, backward: Steps) -> Array:
    positive = x > 0
    backward.append(lambda up: up * positive)
    return x * positive


def _pool(x: Array, backward: Steps) -> Array:
    n, channels, height, width = x.shape
    parts = x.reshape(n, channels, height // 2, 2, width // 2, 2).transpose(0, 1, 2, 4, 3, 5)
    cells = parts.reshape(n, channels, height // 2, width // 2, 4)
    largest = cells.argmax(axis=-1)[..., None]

    def step(up: Array) -> Array:
        down = np.zeros_like(cells)
        np.put_along_axis(down, largest, up[..., None], axis=-1)
        back = down.reshape(n, channels, height // 2, width // 2, 2, 2)
        return back.transpose(0, 1, 2, 4, 3, 5).reshape(x.shape)

    backward.append(step)
    return np.take_along_axis(cells, largest, axis=-1)[..., 0]


def _dense(state: State, layer: str, x: Array, found: State, backward: Steps) -> Array:
    weight = state[f"{layer}.weight"]

    def step(up: Array) -> Array:
        found[f"{layer}.weight"] = up.T @ x
        found[f"{layer}.bias"] = up.sum(axis=0)
        return up @ weight

    backward.append(step)
    return x @ weight.T + state[f"{layer}.bias"]


# --- many ---------------------------------------------------------------------------------------


def adam(rate: float) -> Update:
    """Kingma and Ba's, with their constants."""
    first: State = {}
    second: State = {}
    rounds: dict[str, int] = {}

    def update(name: str, values: Array, slope: Array) -> Array:
        step = rounds[name] = rounds.get(name, 0) + 1
        first[name] = 0.9 * first.get(name, 0 * slope) + 0.1 * slope
        second[name] = 0.999 * second.get(name, 0 * slope) + 0.001 * slope * slope
        mean, square = first[name] / (1 - 0.9**step), second[name] / (1 - 0.999**step)
        return np.asarray(values - rate * mean / (np.sqrt(square) + 1e-8), np.float32)

    return update


def sgd(rate: float) -> Update:
    """With a momentum of 0.9."""
    speed: State = {}

    def update(name: str, values: Array, slope: Array) -> Array:
        speed[name] = 0.9 * speed.get(name, 0 * slope) + slope
        return np.asarray(values - rate * speed[name], np.float32)

    return update


def train(
    state: State,
    images: Array,
    labels: Any,
    epochs: int,
    update: Update,
    only: tuple[str, ...] = ("",),
    *,
    live: bool = True,
) -> State:
    """A trained copy; `only` parameters whose names begin like that."""
    state = dict(state)
    rng = np.random.default_rng(SEED)
    # Sums over parts of a batch depend on how many parts there are.
    with threadpool_limits(1):
        for _ in range(epochs):
            order = rng.permutation(len(images))
            for first in range(0, len(order) - BATCH + 1, BATCH):
                rows = order[first : first + BATCH]
                _, found = gradients(state, images[rows], labels[rows], live=live)
                for name, slope in found.items():
                    if name.startswith(only):
                        state[name] = update(name, state[name], slope)
    return state


def cnn(digits: Path, folder: Path) -> None:
    """The models that `torch_models` makes by the same names."""
    with np.load(digits) as read:
        images, site = read["images"][:, None], read["site_images"][:, None]
        labels = read["labels"]

    def tuned(update: Update, only: tuple[str, ...] = ("",), *, live: bool = True) -> State:
        return train(base, site, labels, TUNING_EPOCHS, update, only, live=live)

    base = train(fresh(SEED), images, labels, EPOCHS, adam(1e-3))
    made = {
        "base": base,
        "two_layers": tuned(adam(1e-3), ("hidden", "head"), live=False),
        "last_layer": tuned(adam(1e-3), ("head",), live=False),
        "last_layer_live": tuned(adam(1e-3), ("head",)),
        "adam_low": tuned(adam(1e-5)),
        "sgd_low": tuned(sgd(1e-4)),
        "adam_high": tuned(adam(1e-3)),
        "anew": train(fresh(SEED + 1), site, labels, EPOCHS, adam(1e-3)),
    }
    for name, state in made.items():
        model = transforms.exported(state, np.float32, lambda parameter: f"onnx::{parameter}")
        (folder / f"cnn_{name}.onnx").write_bytes(model)
        arrays: dict[str, Any] = dict(state)
        np.savez(folder / f"cnn_{name}.npz", **arrays)
