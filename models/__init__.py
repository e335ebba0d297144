import service  # noqa: F401 - before ONNX Runtime is loaded, which it silences
