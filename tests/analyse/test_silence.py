"""Libraries that report their use to their makers are silenced before they are loaded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.compose import HOUSE


def _home_after(program: str, home: Path) -> list[str]:
    """What a process leaves in its home, where ONNX Runtime keeps an identifier of the machine and its reports."""
    unset = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    command = [sys.executable, "-B", "-c", program]
    subprocess.run(command, env=kept | {"HOME": str(home)}, cwd=HOUSE, check=True, timeout=60)
    return [str(found.relative_to(home)) for found in home.rglob("*onnxruntime*")]


@pytest.mark.parametrize("program", ["from service.analyse import devices", "from models import graph"])
def test_onnx_runtime_identifies_this_machine_to_nobody(program: str, tmp_path: Path) -> None:
    assert _home_after(program, tmp_path) == []


def test_it_would_otherwise(tmp_path: Path) -> None:
    assert _home_after("import onnxruntime", tmp_path), "this build reports nothing: the silencing can go"
