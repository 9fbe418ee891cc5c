"""The other process: models, onnxruntime and the local HTTP interface."""
