"""From a fitted scikit-learn estimator to a bundle, through skl2onnx."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import skl2onnx
import sklearn
from numpy.typing import NDArray
from skl2onnx.common.data_types import FloatTensorType

from control_plane.catalog.build import BuiltBundle, build
from control_plane.catalog.card import CardFields
from control_plane.catalog.measured import Monitoring, Outputs
from control_plane.catalog.profile import Wishes
from control_plane.catalog.session import Session
from protocol.bundle import Needs
from protocol.errors import InvalidRequest
from protocol.members import Policy

Array = NDArray[Any]

OPSET: Final = 17
"""Old enough for onnxruntime 1.12, which is what many devices still have."""
_ML_OPSET: Final = 3
_MAX_DIFFERING_SHARE: Final = 0.01
"""Rows on a threshold of a tree may go the other way in float32."""


def build_estimator(
    estimator: Any,
    table: Any,
    reference: str,
    *,
    y: Array | None = None,
    metrics: Mapping[str, float] | None = None,
    input_name: str = "input",
    into: Path | None = None,
    card: CardFields | None = None,
    policy: Policy | None = None,
    dev: bool = False,
    needs: Needs | None = None,
    outputs: Outputs | None = None,
    opset: int = OPSET,
    wishes: Wishes | None = None,
) -> BuiltBundle:
    """Convert, check that the ONNX model answers like the estimator, and `build`.

    `table` are sample rows [rows, features], numbers only, best of all rows that the estimator was
    not trained on; the columns of a data frame give the features their names. With `y`, the card
    says how many of these rows the shipped model gets right, or how much of their variance it
    explains (`samples_accuracy`, `samples_r2`), and the profile of a classifier says what its
    confidence is worth; `metrics` says what was measured elsewhere, `wishes` what is monitored.

    Raises `InvalidRequest`: OUT-B102 when skl2onnx cannot convert it, OUT-B112 when the result
    differs, and whatever `build` raises.
    """
    rows = _rows(table)
    names = _column_names(table)
    model = _convert(estimator, rows.shape[1], input_name, opset)
    classes = _classes(estimator)
    said = outputs or Outputs()
    if said.classes is None and classes is not None:
        said = replace(said, classes=[str(name) for name in classes])
    with tempfile.TemporaryDirectory(prefix="outrider-convert-") as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString(deterministic=True))
        predicted = _predicted(Session(path).run({input_name: rows}), classes)
        _require_same(np.asarray(estimator.predict(table)).ravel(), predicted, classes is not None)
        fields = card or CardFields()
        measured = dict(fields.metrics) | dict(metrics or {})
        if y is not None:
            measured |= _score(np.asarray(y).ravel(), predicted, classes is not None)
        framework = f"scikit-learn {sklearn.__version__}, skl2onnx {skl2onnx.__version__}"
        fields = replace(fields, metrics=measured, framework=fields.framework or framework)
        return build(
            path,
            {input_name: rows},
            reference,
            into=into,
            card=fields,
            policy=policy,
            dev=dev,
            needs=needs,
            outputs=said,
            monitoring=Monitoring(
                names,
                None if y is None or classes is None else np.asarray(y).ravel(),
                wishes or Wishes(),
            ),
        )


def _rows(table: Any) -> NDArray[np.float32]:
    try:
        rows = np.asarray(table).astype(np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(
            "OUT-B108", f"the rows hold something that is no number: {error}"
        ) from error
    if rows.ndim != 2 or not rows.size:
        raise InvalidRequest(
            "OUT-B108", f"the rows have shape {list(rows.shape)}, wanted rows, features"
        )
    return rows


def _column_names(table: Any) -> Sequence[str] | None:
    columns = getattr(table, "columns", None)
    return None if columns is None else [str(name) for name in columns]


def _convert(estimator: Any, width: int, name: str, opset: int) -> onnx.ModelProto:
    # Without zipmap, probabilities are a tensor and not a list of dictionaries.
    options = {"zipmap": False} if sklearn.base.is_classifier(estimator) else None
    try:
        model: onnx.ModelProto = skl2onnx.to_onnx(
            estimator,
            initial_types=[(name, FloatTensorType([None, width]))],
            options=options,
            target_opset={"": opset, "ai.onnx.ml": _ML_OPSET},
        )
    except Exception as error:
        # Converters are many and raise what they like, none of it under a common base.
        raise InvalidRequest(
            "OUT-B102", f"skl2onnx: {' '.join(str(error).split())[:300]}"
        ) from error
    _tidy(model)
    return model


def _tidy(model: onnx.ModelProto) -> None:
    """Drop repeated opset imports, and a label that is text.

    Text cannot be a golden vector; class names are in the contract, in the order of the
    probabilities.
    """
    imports = {each.domain: each.version for each in model.opset_import}
    del model.opset_import[:]
    for domain, version in sorted(imports.items()):
        model.opset_import.add(domain=domain, version=version)
    outputs = list(model.graph.output)
    text = [o for o in outputs if o.type.tensor_type.elem_type == onnx.TensorProto.STRING]
    if len(text) < len(outputs):
        for each in text:
            model.graph.output.remove(each)


def _classes(estimator: Any) -> list[Any] | None:
    if not sklearn.base.is_classifier(estimator):
        return None
    classes = np.asarray(estimator.classes_)
    return list(classes.tolist()) if classes.ndim == 1 else None


def _predicted(outputs: Mapping[str, Array], classes: list[Any] | None) -> Array:
    """What `predict` would say: label, or most probable class, or the only output."""
    if "label" in outputs:
        return outputs["label"].ravel()
    if classes is not None and "probabilities" in outputs:
        found: Array = np.asarray(classes)[outputs["probabilities"].argmax(axis=1)]
        return found
    return next(iter(outputs.values())).ravel()


def _require_same(wanted: Array, got: Array, discrete: bool) -> None:
    if wanted.shape != got.shape:
        raise InvalidRequest("OUT-B112", f"{got.size} answers for {wanted.size} rows")
    if discrete:
        differ = wanted.astype(str) != got.astype(str)
    else:
        scale = float(np.std(wanted.astype(np.float64))) or 1.0
        differ = ~np.isclose(
            got.astype(np.float64), wanted.astype(np.float64), rtol=1e-3, atol=1e-3 * scale
        )
    if differ.mean() > _MAX_DIFFERING_SHARE:
        raise InvalidRequest("OUT-B112", f"{int(differ.sum())} of {len(differ)} rows differ")


def _score(y: Array, predicted: Array, discrete: bool) -> dict[str, float]:
    if y.shape != predicted.shape:
        raise InvalidRequest("OUT-B108", f"{y.size} labels for {predicted.size} rows")
    if discrete:
        return {"samples_accuracy": float((y.astype(str) == predicted.astype(str)).mean())}
    wanted, got = y.astype(np.float64), predicted.astype(np.float64)
    spread = float(((wanted - wanted.mean()) ** 2).sum())
    return {"samples_r2": 1 - float(((wanted - got) ** 2).sum()) / spread if spread else 0.0}
