"""What `bench.cuda` says of two devices' answers; here both of them are the processor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.cuda import Agreement, compare, least_bytes, marked
from models.architectures.unshuffle_unet import UnshuffleUNet
from models.graph import Served, folded
from models.released import released
from models.served import Output, Weights
from service.analyse.annotations import Kind
from tests.models.tiny_weights import SHAPE, write_speckle, write_tiny_weights


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_weights(tmp_path / "weights")


def test_the_same_network_says_the_same(folder: Path, tmp_path: Path) -> None:
    weights = Weights(folder)
    served = Served(folded(released(folder, torch.rand(2, 3, 64, 64)))).eval()
    data = write_speckle(tmp_path / "speckle", count=3)
    found = compare(served, weights, marked(data, 4, weights.graph.max_side), torch.float32, "cpu")
    assert (found.read, found.changed) == (4 * len(Kind), 0)
    assert found.worst <= 2, "rounding alone"
    bfloat = compare(served, weights, marked(data, 4, weights.graph.max_side), torch.bfloat16, "cpu")
    assert bfloat.worst >= found.worst and bfloat.read == found.read


def test_what_differs_is_counted(folder: Path) -> None:
    weights, nothing = Weights(folder), np.zeros((len(Kind), 64, 64), np.uint8)
    here = Output(
        np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64, 3), np.uint8), np.full((64, 64), 90, np.uint8), nothing
    )
    full = nothing.copy()
    full[1, 10:40, 10:40] = 250
    assert weights.read(here).scores != weights.read(replace(here, kinds=full)).scores
    agreement = Agreement()
    agreement.add(weights, here, here)
    agreement.add(weights, here, replace(here, kinds=full))
    assert (agreement.read, agreement.changed, agreement.worst) == (2 * len(Kind), 1, 250)


def test_the_frames_are_the_same_each_time_and_fit_the_network(tmp_path: Path) -> None:
    data = write_speckle(tmp_path / "speckle", count=3, side=100)
    first, again = list(marked(data, 3, 96)), list(marked(data, 3, 96))
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    assert {side % 32 for frame in first for side in frame.shape[:2]} == {0}
    assert max(side for frame in first for side in frame.shape[:2]) == 96


def test_a_frame_moves_at_least_what_its_convolutions_read_and_write() -> None:
    shape = {**SHAPE, "channels": tuple(SHAPE["channels"]), "dilations": tuple(SHAPE["dilations"])}
    network = UnshuffleUNet(**shape).eval()
    first = next(each for each in network.modules() if isinstance(each, torch.nn.Conv2d))
    wider = least_bytes(UnshuffleUNet(**{**shape, "channels": (16, *shape["channels"][1:])}).eval())
    half = 608 * 800 / 4
    assert least_bytes(network) > 2 * half * (first.in_channels + first.out_channels)
    assert wider > least_bytes(network)
