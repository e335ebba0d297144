"""Libraries that report their use to their makers are silenced before they are loaded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.compose import HOUSE

_TOLD = """
import os, sys
from importlib.abc import MetaPathFinder

class Watcher(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "onnxruntime":
            print(os.environ.get("ORT_DISABLE_TELEMETRY", "not told"))

sys.meta_path.insert(0, Watcher())
"""


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("from service.analyse import devices", "1"),
        ("from models import graph", "1"),
        ("import onnxruntime", "not told"),
    ],
)
def test_onnx_runtime_is_told_to_report_nothing_before_it_is_loaded(program: str, told: str, tmp_path: Path) -> None:
    assert _output_of(_TOLD + program, tmp_path) == told


@pytest.mark.parametrize("program", ["from service.analyse import devices", "from models import graph"])
def test_onnx_runtime_leaves_no_identifier_of_this_machine(program: str, tmp_path: Path) -> None:
    _output_of(program, tmp_path)
    assert list(tmp_path.rglob("*onnxruntime*")) == []


def _output_of(program: str, home: Path) -> str:
    """What a process prints whose home is ``home``, where ONNX Runtime keeps an identifier and its reports."""
    unset = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    command = [sys.executable, "-B", "-c", program]
    ended = subprocess.run(
        command, env=kept | {"HOME": str(home)}, cwd=HOUSE, check=True, timeout=60, capture_output=True, text=True
    )
    return ended.stdout.strip()
