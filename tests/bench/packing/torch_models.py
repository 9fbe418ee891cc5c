"""Convolutional networks trained with PyTorch: part of `make bench NAME=payload`.

    torch_models.py versions            of torch and numpy, as JSON
    torch_models.py NAME DIGITS FOLDER  train and export one family, `cnn` or `resnet`

DIGITS is an .npz with `images` [n, 8, 8] float32 from 0 to 1, `labels` [n] int64, and the same of
another site, `site_images` and `site_labels`. Each model is written as FOLDER/MODEL.onnx, by
PyTorch's own exporter, and its parameters by name as FOLDER/MODEL.npz. It imports nothing of the
project: it runs wherever torch is.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch  # type: ignore[import-not-found,unused-ignore]  # it is where this runs
from torch import nn  # type: ignore[import-not-found,unused-ignore]  # as above

functional = nn.functional

SEED: Final = 7
BATCH: Final = 64
OPSET: Final = 13
CNN_EPOCHS: Final = 8
TUNING_EPOCHS: Final = 3
RESNET_EPOCHS: Final = 4
RESNET_SIDE: Final = 32

Data = tuple[Any, Any]
"""Images [n, 1, side, side] and labels [n], as tensors."""


class Cnn(nn.Module):  # type: ignore[misc,unused-ignore]  # without types here
    """1.15 M parameters: three convolutions with batch normalisation, two dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Sequential(
            *_convolution(1, 32),
            *_convolution(32, 64),
            nn.MaxPool2d(2),
            *_convolution(64, 128),
            nn.Flatten(),
        )
        self.hidden = nn.Linear(2048, 512)
        self.head = nn.Linear(512, 10)

    def forward(self, x: Any) -> Any:
        return self.head(functional.relu(self.hidden(self.f(x))))


def _convolution(before: int, after: int) -> list[nn.Module]:
    layer = nn.Conv2d(before, after, 3, padding=1)
    return [layer, nn.BatchNorm2d(after), nn.ReLU()]


class Block(nn.Module):  # type: ignore[misc,unused-ignore]  # without types here
    """Two convolutions around which the input is added."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.short = nn.Sequential()
        if stride != 1 or before != after:
            self.short = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, x: Any) -> Any:
        inside = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(inside)) + self.short(x))


class ResNet18(nn.Module):  # type: ignore[misc,unused-ignore]  # without types here
    """11.2 M parameters, as in the paper but for one input channel and ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        widths = [64, 64, 128, 256, 512]
        blocks: list[nn.Module] = []
        for place in range(4):
            before, after = widths[place], widths[place + 1]
            blocks += [Block(before, after, 1 if place == 0 else 2), Block(after, after, 1)]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(512, 10)

    def forward(self, x: Any) -> Any:
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.head(torch.flatten(functional.adaptive_avg_pool2d(self.blocks(x), 1), 1))


Optimizer = Callable[[Iterable[Any]], Any]


def train(
    model: nn.Module,
    data: Data,
    epochs: int,
    optimizer: Optimizer,
    only: Iterable[nn.Module] | None = None,
    *,
    live: bool = True,
) -> nn.Module:
    """Cross-entropy over shuffled batches, of all parameters or `only` those of some layers; not
    `live`: batch normalisation stays as it is."""
    torch.manual_seed(SEED)
    layers = [model] if only is None else list(only)
    parameters = [each for layer in layers for each in layer.parameters()]
    chosen = {id(each) for each in parameters}
    for each in model.parameters():
        each.requires_grad_(id(each) in chosen)
    steps = optimizer(parameters)
    model.train(live)
    images, labels = data
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(BATCH):
            if len(rows) < BATCH // 2:
                continue
            steps.zero_grad()
            functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            steps.step()
    return model.eval()


def adam(rate: float) -> Optimizer:
    return lambda parameters: torch.optim.Adam(parameters, rate)


def sgd(rate: float) -> Optimizer:
    return lambda parameters: torch.optim.SGD(parameters, rate, momentum=0.9)


def cnn(base: Data, site: Data, save: Callable[[str, nn.Module, int], None]) -> None:
    def fresh(seed: int) -> Cnn:
        torch.manual_seed(seed)
        return Cnn()

    def tuned(optimizer: Optimizer) -> nn.Module:
        return train(copy.deepcopy(first), site, TUNING_EPOCHS, optimizer)

    def tuned_head(layers: Callable[[Cnn], list[nn.Module]], *, live: bool) -> nn.Module:
        model = copy.deepcopy(first)
        return train(model, site, TUNING_EPOCHS, adam(1e-3), layers(model), live=live)

    first = fresh(SEED)
    train(first, base, CNN_EPOCHS, adam(1e-3))
    made = {
        "base": lambda: first,
        "two_layers": lambda: tuned_head(lambda model: [model.hidden, model.head], live=False),
        "last_layer": lambda: tuned_head(lambda model: [model.head], live=False),
        "last_layer_live": lambda: tuned_head(lambda model: [model.head], live=True),
        "adam_low": lambda: tuned(adam(1e-5)),
        "sgd_low": lambda: tuned(sgd(1e-4)),
        "adam_high": lambda: tuned(adam(1e-3)),
        "anew": lambda: train(fresh(SEED + 1), site, CNN_EPOCHS, adam(1e-3)),
    }
    for name, make in made.items():
        save(f"cnn_{name}", make(), 8)


def resnet(base: Data, site: Data, save: Callable[[str, nn.Module, int], None]) -> None:
    torch.manual_seed(SEED)
    first = ResNet18()
    base, site = _larger(base), _larger(site)
    train(first, base, RESNET_EPOCHS, adam(1e-3))
    save("resnet_base", first, RESNET_SIDE)
    model = copy.deepcopy(first)
    train(model, site, TUNING_EPOCHS, adam(1e-3), [model.head], live=False)
    save("resnet_head", model, RESNET_SIDE)
    save("resnet_low", train(copy.deepcopy(first), site, 1, adam(1e-5)), RESNET_SIDE)


def _larger(data: Data) -> Data:
    size = (RESNET_SIDE, RESNET_SIDE)
    grown = functional.interpolate(data[0], size, mode="bilinear", align_corners=False)
    return grown, data[1]


def export(model: nn.Module, path: Path, side: int) -> None:
    options: dict[str, Any] = {"dynamo": False} if torch.__version__ >= "2.5" else {}
    torch.onnx.export(
        model,
        torch.zeros(1, 1, side, side),
        str(path),
        opset_version=OPSET,
        input_names=["image"],
        output_names=["scores"],
        dynamic_axes={"image": {0: "rows"}, "scores": {0: "rows"}},
        **options,
    )


def share_right(model: nn.Module, data: Data) -> float:
    with torch.no_grad():
        return float((model(data[0]).argmax(1) == data[1]).float().mean())


def main(family: str, digits: Path, folder: Path) -> None:
    # Sums over parts of a batch depend on how many parts there are.
    torch.set_num_threads(1)
    with np.load(digits) as read:
        base, site = (
            (
                torch.from_numpy(read[f"{which}images"])[:, None],
                torch.from_numpy(read[f"{which}labels"]),
            )
            for which in ("", "site_")
        )

    def save(name: str, model: nn.Module, side: int) -> None:
        export(model, folder / f"{name}.onnx", side)
        state = {key: value.numpy() for key, value in model.state_dict().items()}
        np.savez(folder / f"{name}.npz", **state)
        data = _larger(site) if side == RESNET_SIDE else site
        print(f"{name}: {share_right(model, data):.0%} right at the site", flush=True)

    {"cnn": cnn, "resnet": resnet}[family](base, site, save)


if __name__ == "__main__":
    if sys.argv[1:] == ["versions"]:
        print(json.dumps({"torch": torch.__version__, "numpy": np.__version__}))
    else:
        main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
