"""Several processes train one network as one process would that sees all their crops."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models.architectures.unshuffle_unet import UnshuffleUNet
from models.checkpoint import CHECKPOINT
from models.runs import SPLIT

STEPS = 3
WORKER = """
import sys, torch
from models.distributed import Ranks, end_process
from tests.models.test_distributed import STEPS, crops, network, step
with Ranks() as ranks:
    one = network(seed=ranks.rank)
    joined = ranks.joined(one)
    optimiser = torch.optim.SGD(one.parameters(), lr=0.05)
    for number in range(STEPS):
        optimiser.zero_grad()
        step(joined, crops(number, ranks.rank)).backward()
        optimiser.step()
    assert ranks.any(ranks.rank == 1) and not ranks.any(False)
    if ranks.first:
        torch.save(dict(one.named_parameters()), sys.argv[1])
end_process()
"""


def network(seed: int) -> UnshuffleUNet:
    torch.manual_seed(seed)
    return UnshuffleUNet(channels=(8, 8, 8, 8, 8), dilations=(1,)).train()


def crops(step_: int, rank: int) -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(10 * step_ + rank))


def step(one: torch.nn.Module, frames: torch.Tensor) -> torch.Tensor:
    restoration, logits = one(frames)
    return (restoration - frames.flip(3)).abs().mean() + logits.square().mean()


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=280)


def test_two_processes_learn_what_one_learns_from_both_batches(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    done = torchrun(str(tmp_path / "worker.py"), str(tmp_path / "two.pt"))
    assert done.returncode == 0, done.stderr
    alone = network(seed=0)
    optimiser = torch.optim.SGD(alone.parameters(), lr=0.05)
    for number in range(STEPS):
        optimiser.zero_grad()
        for rank in range(2):
            (step(alone, crops(number, rank)) / 2).backward()
        optimiser.step()
    together = torch.load(tmp_path / "two.pt", weights_only=True)
    start = dict(network(seed=0).named_parameters())
    for name, weight in alone.named_parameters():
        assert torch.allclose(weight, together[name], atol=1e-5), name
    assert any(not torch.allclose(start[name], together[name], atol=1e-4) for name in start)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(2)
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(8):
        noise = cv2.GaussianBlur(rng.normal(0, 1, (96, 96)).astype(np.float32), (0, 0), 3)
        cv2.imwrite(
            str(folder / f"tissue_{number}a.png"), cv2.normalize(noise, None, 0, 180, cv2.NORM_MINMAX, cv2.CV_8U)
        )
    return folder


def test_torchrun_trains_writes_once_and_resumes(data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    text = (Path("models/recipes") / "smoke.toml").read_text()
    recipe.write_text(text.replace("steps = 60", "steps = 4").replace("pool = 64", "pool = 16"))
    command = ("-m", "models", "train", str(recipe), "--data", str(data), "--out", str(tmp_path / "run"))
    first = torchrun(*command)
    assert first.returncode == 0, first.stderr
    run = tmp_path / "run"
    assert torch.load(run / CHECKPOINT, weights_only=True)["state"]["step"] == 4
    assert set(json.loads((run / SPLIT).read_text())) == {"training", "validation"}
    assert len(list(run.glob("events.*"))) == 1

    recipe.write_text(recipe.read_text().replace("steps = 4", "steps = 6"))
    second = torchrun(*command, "--resume")
    assert second.returncode == 0, second.stderr
    assert torch.load(run / CHECKPOINT, weights_only=True)["state"]["step"] == 6
