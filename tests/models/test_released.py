"""Weights that were released can be trained on: the network comes back from the graph as it was."""

from __future__ import annotations

import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import tomli_w
import torch

from models import recipe
from models.architectures.unshuffle_unet import UnshuffleUNet
from models.checkpoint import CHECKPOINT
from models.errors import DataError, RecipeError
from models.graph import Served, folded, write_graph
from models.released import parameters_in, released
from models.served import Graph, Weights
from models.train import train
from models.variation import mixed_primaries
from service.analyse.restoration import Network
from tests.models.tiny_weights import write_tiny_weights

WEIGHTS = Path("models/weights/sonomark")


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """Frames of speckle with a white cross in each, uint8 (4, 96, 128, 3)."""
    rng = np.random.default_rng(3)
    grey = cv2.GaussianBlur(rng.normal(0, 1, (96, 4 * 128)).astype(np.float32), (0, 0), 2)
    level = cv2.normalize(grey, None, 0, 200, cv2.NORM_MINMAX).astype(np.uint8)
    batch = np.stack(np.split(level, 4, axis=1))[..., None].repeat(3, axis=-1)
    batch[:, 40, 50:64] = batch[:, 33:47, 57] = 255
    return np.ascontiguousarray(batch)


def tensor(frames: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255


def test_the_network_computes_what_its_graph_does(frames: np.ndarray) -> None:
    network = Served(released(WEIGHTS, tensor(frames))).eval()
    with torch.no_grad():
        ours = [output.numpy().astype(int) for output in network(torch.from_numpy(frames))]
    theirs = Graph(WEIGHTS / "model.onnx", 1024)._session.run(None, {"frame": frames})
    assert [int(np.abs(a - b).max()) <= 2 for a, b in zip(ours, theirs, strict=True)] == [True] * 3


def test_its_normalisation_is_that_of_the_examples(frames: np.ndarray) -> None:
    """In training mode, batch statistics of the same examples change next to nothing."""
    network = released(WEIGHTS, tensor(frames))
    with torch.no_grad():
        still, _ = network.eval()(tensor(frames))
        moving, _ = network.train()(tensor(frames))
    assert float((still - moving).abs().max()) < 0.02


def test_changed_weights_are_refused(frames: np.ndarray, tmp_path: Path) -> None:
    shutil.copytree(WEIGHTS, tmp_path / "weights")
    with (tmp_path / "weights" / "model.onnx").open("ab") as graph:
        graph.write(b"\0")
    with pytest.raises(DataError, match="not the file its card describes"):
        released(tmp_path / "weights", tensor(frames))


def test_a_card_of_another_network_is_refused(frames: np.ndarray, tmp_path: Path) -> None:
    shutil.copytree(WEIGHTS, tmp_path / "weights")
    card = tomllib.loads((tmp_path / "weights" / "card.toml").read_text())
    context = len(card["architecture"]["dilations"])
    card["architecture"]["dilations"].append(8)
    (tmp_path / "weights" / "card.toml").write_text(tomli_w.dumps(card))
    with pytest.raises(DataError, match=rf"lacks context\.{context}"):
        released(tmp_path / "weights", tensor(frames))


def test_parameters_that_are_equal_are_stored_once_and_read_again(tmp_path: Path) -> None:
    """As those of blocks that were added and have not learned yet."""
    network = UnshuffleUNet(channels=(8, 8, 8, 8, 8), top_blocks=1, dilations=(1, 1)).eval()
    network.context[1].load_state_dict(network.context[0].state_dict())
    plain = folded(network)
    write_graph(Served(plain), tmp_path / "model.onnx")
    read = parameters_in(tmp_path / "model.onnx")
    assert len(onnx.load(str(tmp_path / "model.onnx")).graph.initializer) < len(read)
    assert read.keys() == plain.state_dict().keys()
    assert all(torch.equal(read[name], weight) for name, weight in plain.state_dict().items())


def test_a_run_starts_from_released_weights_and_counts_their_steps(frames: np.ndarray, tmp_path: Path) -> None:
    for number, frame in enumerate(np.concatenate([frames, frames[:, ::-1]])):
        cv2.imwrite(str(tmp_path / f"tissue_{number}a.png"), np.roll(frame, 17 * number, axis=0))
    smoke = recipe.load("smoke")
    product = recipe.load("product")
    tiny = replace(
        product,
        steps=1,
        batch=2,
        pool=16,
        crops=replace(smoke.crops, side=64),
        split=replace(smoke.split, held_out_sources=(), share=0.3),
    )
    run = train(tiny, tmp_path, tmp_path / "run", start_from=WEIGHTS)
    state = torch.load(run / CHECKPOINT, weights_only=True)["state"]
    assert state["step"] == 1 and state["earlier_steps"] > 1000
    narrow = replace(tiny, network=replace(product.network, channels=(8, 16, 24, 32, 48)))
    with pytest.raises(RecipeError, match="another network"):
        train(narrow, tmp_path, tmp_path / "narrow", start_from=WEIGHTS)


def test_mixed_primaries_leave_greys_alone() -> None:
    rng = np.random.default_rng(0)
    matrices = [mixed_primaries(rng) for _ in range(40)]
    assert np.allclose([matrix.sum(axis=1) for matrix in matrices], 1, atol=1e-6)
    assert any(np.abs(matrix - np.eye(3)).max() > 0.2 for matrix in matrices)


@pytest.mark.parametrize(("second_look", "close_ups"), [(0.7, 0), (0.0, 3), (0.7, 2)])
def test_training_and_service_look_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second_look: float, close_ups: int
) -> None:
    monkeypatch.setattr("service.analyse.close_ups._NOTICED", 8)  # weights that are sure of nothing see some of it
    weights = write_tiny_weights(tmp_path / "weights")
    card = tomllib.loads((weights / "card.toml").read_text())
    card["second_look"], card["close_ups"] = second_look, close_ups
    for look in ("far", "close"):
        card["thresholds"]["body_marker"][look], card["thresholds"]["text"][look] = 0.5, 1.0
    (weights / "card.toml").write_text(tomli_w.dumps(card))
    rng = np.random.default_rng(3)
    frames = [rng.integers(0, 255, (*size, 3), np.uint8) for size in ((20, 30), (75, 131), (96, 1100))]
    for frame, served in zip(frames, Network(weights).restore(frames), strict=True):
        trained = Weights(weights).graph(frame)
        assert (trained.kinds == served.kinds).all() and (trained.residual == served.residual).all()
        near = Graph(weights / "model.onnx", 1024)(frame).kinds
        assert (trained.kinds[[1, 2, 4]] == near[[1, 2, 4]]).all() and (trained.kinds[[0, 3]] != near[[0, 3]]).any()
