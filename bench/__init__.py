"""One command per performance claim, each measured against a peer in the same run."""

import service  # noqa: F401 - before ONNX Runtime is loaded, which it silences
