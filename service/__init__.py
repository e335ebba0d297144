"""Sonomark: checks that ultrasound images carry the annotations a hospital requires."""

import os

__version__ = "0.1.0"

# ONNX Runtime's own builds report their use to its maker, from their import on, unless this is set before that. A
# hospital's machines speak to nobody unasked.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
