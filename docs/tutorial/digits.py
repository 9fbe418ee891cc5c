"""Trains a small model on scikit-learn's handwritten digits and writes what the tutorial needs.

digits.onnx   the model: 64 pixels in, label and probabilities out
digits.npz    sample rows as devices will meet them: rows that it was not trained on
row.json      one inference request
v2.onnx       a better model, trained on more rows
"""

import json
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

pixels, labels = load_digits(return_X_y=True)
pixels = pixels.astype(np.float32) / 16
train, held_out, train_labels, held_out_labels = train_test_split(
    pixels, labels, test_size=500, random_state=0
)
for name, rows in (("digits", 600), ("v2", len(train))):
    model = LogisticRegression(max_iter=1000).fit(train[:rows], train_labels[:rows])
    onnx = to_onnx(
        model,
        initial_types=[("pixels", FloatTensorType([None, 64]))],
        options={"zipmap": False},  # probabilities as a tensor, not as dictionaries
        target_opset={"": 17, "ai.onnx.ml": 3},
    )
    Path(f"{name}.onnx").write_bytes(onnx.SerializeToString())
    print(f"{name}.onnx  {rows} rows, accuracy {model.score(held_out, held_out_labels):.3f}")
np.savez("digits.npz", pixels=held_out)
row = {"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": held_out[0].tolist()}
Path("row.json").write_text(json.dumps({"inputs": [row]}))
