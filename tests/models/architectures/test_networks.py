"""One contract for every network of the paper: sizes, export, parameter count."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from models.architectures import NETWORKS, build
from models.architectures.costumed_unet import CostumedUNet
from models.architectures.resnet import resnet34

MILLIONS = {
    "costumed_unet": 0.7,
    "fcn": 51.9,
    "deeplabv3": 26.0,
    "linknet": 21.8,
    "manet": 31.8,
    "unetplusplus": 26.1,
    "multiresunet": 7.8,
}
"""Parameters in millions as the paper counts them."""


@pytest.fixture(scope="module", params=MILLIONS)
def named(request: pytest.FixtureRequest) -> tuple[str, nn.Module]:
    torch.manual_seed(0)
    return request.param, build(request.param)


def parameters(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def test_parameters_are_as_many_as_the_paper_counts(named: tuple[str, nn.Module]) -> None:
    name, network = named
    assert round(parameters(network) / 1e6, 1) == MILLIONS[name]


def test_a_restoration_has_the_size_of_its_frame(named: tuple[str, nn.Module]) -> None:
    network = named[1].eval()
    for height, width in ((2, 3), (3, 2)):
        frame = torch.rand(2, 3, height * network.stride, width * network.stride)
        with torch.no_grad():
            restoration = network(frame)
        assert restoration.shape == frame.shape
        assert torch.isfinite(restoration).all()


def test_every_weight_learns(named: tuple[str, nn.Module]) -> None:
    network = named[1].train()
    network(torch.rand(2, 3, 64, 64)).square().mean().backward()
    still = [weight for weight, tensor in network.named_parameters() if tensor.grad is None]
    assert not still


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_exported_graph_computes_the_same(named: tuple[str, nn.Module], tmp_path: Path) -> None:
    network = named[1].eval()
    example = torch.rand(2, 3, 64, 96)
    torch.onnx.export(
        network,
        (example,),
        tmp_path / "network.onnx",
        dynamo=False,
        opset_version=17,
        input_names=["frame"],
        output_names=["restoration"],
        dynamic_axes={"frame": {0: "n", 2: "h", 3: "w"}, "restoration": {0: "n", 2: "h", 3: "w"}},
    )
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    for frame in (example, torch.rand(1, 3, 96, 128)):
        with torch.no_grad():
            expected = network(frame).numpy()
        (restoration,) = session.run(None, {"frame": frame.numpy()})
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(restoration / scale, expected / scale, atol=2e-4)


def test_the_costumed_unet_shares_its_blocks_as_published() -> None:
    assert parameters(CostumedUNet()) == 700_611
    assert parameters(CostumedUNet(shared=False)) == 1_344_147


def test_the_dilated_encoder_keeps_an_eighth() -> None:
    sizes = [features.shape[-1] for features in resnet34(output_stride=8)(torch.rand(1, 3, 64, 64))]
    assert sizes == [32, 16, 8, 8, 8]


def test_an_unknown_network_is_answered_with_the_known_ones() -> None:
    with pytest.raises(KeyError, match="manet"):
        build("unet3000")
    assert set(MILLIONS) < set(NETWORKS)
