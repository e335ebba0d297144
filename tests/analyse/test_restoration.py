"""The network's folder, its device, and what goes in and comes out."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import tomli_w
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from service import demo
from service.analyse import restoration
from service.analyse.annotations import Calibration, Kind, Thresholds, read_marks
from service.analyse.devices import GPUS, choose_device, devices
from service.analyse.pipeline import reading
from service.analyse.restoration import Network, Restored, load_network
from service.errors import NetworkError
from service.settings import WEIGHTS, Settings
from tests.tiny_network import YELLOW, look_again, look_closely, write_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights") / "tiny")


@pytest.fixture(scope="module")
def network(weights: Path) -> Network:
    return Network(weights)


def marked(rows: int, columns: int) -> np.ndarray:
    frame = np.full((rows, columns, 3), 90, np.uint8)
    frame[-3:, -5:] = YELLOW  # at the edge that is padded
    return frame


@given(rows=st.integers(4, 70), columns=st.integers(6, 70))
@hypothesis_settings(max_examples=30, deadline=None)
def test_frames_of_any_size_come_back_in_their_size(network: Network, rows: int, columns: int) -> None:
    frame = marked(rows, columns)
    (restored,) = network.restore([frame])
    assert (restored.frame == frame).all()
    yellow = (frame == YELLOW).all(axis=2)
    assert (restored.restoration == np.where(yellow[..., None], 0, frame)).all()
    assert ((restored.residual == 255) == yellow).all()
    assert restored.kinds.shape == (5, rows, columns) and ((restored.kinds[1] == 255) == yellow).all()


def test_frames_of_different_sizes_keep_their_order(network: Network) -> None:
    frames = [marked(40, 50), marked(64, 96), marked(40, 50), marked(33, 31)]
    for frame, restored in zip(frames, network.restore(frames), strict=True):
        assert (restored.frame == frame).all()


def test_a_batch_gives_what_single_frames_give(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [np.roll(marked(48, 64), shift, axis=1) for shift in range(5)]
    single = [network.restore([frame])[0] for frame in frames]
    monkeypatch.setattr(restoration, "BATCH", {"openvino": 3, "cpu": 3})
    for one, batched in zip(single, network.restore(frames), strict=True):
        assert (one.kinds == batched.kinds).all() and (one.restoration == batched.restoration).all()


@pytest.mark.parametrize("again", [look_again, look_closely])
def test_all_looks_of_many_frames_are_those_of_one(
    again: Callable[[Path, float], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes mixed, none a multiple of the stride, some smaller than it, one larger than the network takes."""
    sizes = [(48, 64), (20, 30), (45, 61), (20, 30), (48, 64), (1, 1), (1030, 40), (20, 30)]
    frames = [np.roll(marked(rows, columns), shift, axis=1) for shift, (rows, columns) in enumerate(sizes)]
    folder = again(write_weights(tmp_path / "weights"), 0.5)
    single = [Network(folder).restore([frame])[0] for frame in frames]
    monkeypatch.setattr(restoration, "BATCH", dict.fromkeys(("openvino", "cpu"), 2))
    for device in [each for each in devices() if each not in GPUS]:
        for one, batched in zip(single, Network(folder, device).restore(frames), strict=True):
            assert one.kinds.shape == (5, *batched.frame.shape[:2])
            assert np.abs(one.kinds.astype(int) - batched.kinds).max() <= 1
            assert (one.restoration == batched.restoration).all()


def test_a_mark_that_only_one_look_sees_is_half_as_probable(tmp_path: Path) -> None:
    network = Network(look_again(write_weights(tmp_path / "weights"), 0.5))
    frame = np.full((60, 80, 3), 90, np.uint8)
    frame[20:40, 20:40] = YELLOW
    frame[50, 60] = YELLOW  # which is grey in the mean of four pixels
    (restored,) = network.restore([frame])
    assert restored.kinds[1, 30, 30] == 255 and restored.kinds[1, 50, 60] == 128
    assert (restored.frame == frame).all() and (restored.restoration[frame[..., 2] == 0] == 0).all()
    assert not restored.kinds[[0, 2, 3, 4]].any()


def test_a_mark_that_is_none_from_closely_is_half_as_probable(tmp_path: Path) -> None:
    network = Network(look_closely(write_weights(tmp_path / "weights"), 0.5))
    frame = np.full((300, 400, 3), 90, np.uint8)
    frame[60:80, 60:80] = YELLOW
    frame[250, 300] = YELLOW  # of which enlarging makes a spot that is no longer pure
    (restored,) = network.restore([frame])
    assert restored.kinds[1, 70, 70] == 255 and restored.kinds[1, 250, 300] == 128
    assert (restored.residual == np.where((frame == YELLOW).all(axis=2), 255, 0)).all(), "evidence is the first look's"
    assert not restored.kinds[[0, 2, 3, 4]].any()


def test_a_look_from_afar_and_close_ups_both_count(tmp_path: Path) -> None:
    """Places are those of the first look, whatever was seen from afar."""
    network = Network(look_closely(look_again(write_weights(tmp_path / "weights"), 0.5), 0.5))
    frame = np.full((300, 400, 3), 90, np.uint8)
    frame[60:80, 60:80] = YELLOW
    frame[251, 301] = YELLOW
    (restored,) = network.restore([frame])
    assert restored.kinds[1, 70, 70] == 255 and restored.kinds[1, 251, 301] == 64


def test_warming_up_opens_what_close_ups_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(look_closely(write_weights(tmp_path / "weights"), 0.5))
    shapes: list[tuple[int, ...]] = []
    infer = network._infer
    monkeypatch.setattr(network, "_infer", lambda seen, outputs: shapes.append(seen.shape) or infer(seen, outputs))
    network.warm_up(600, 800)
    assert shapes == [(1, 608, 800, 3), (1, 256, 256, 3)]


def test_the_second_look_is_part_of_how_an_output_is_read(tmp_path: Path) -> None:
    once = write_weights(tmp_path / "once")
    twice = look_again(write_weights(tmp_path / "twice"), 0.0)
    closely = look_closely(write_weights(tmp_path / "closely"), 0.0)
    assert len({Network(folder).card.digest for folder in (once, twice, closely)}) == 3
    assert Network(once).name == Network(twice).name


def test_a_frame_larger_than_the_network_takes_is_reduced(network: Network) -> None:
    (restored,) = network.restore([np.zeros((1200, 2048, 3), np.uint8)])
    assert restored.frame.shape == (600, 1024, 3) and restored.kinds.shape == (5, 600, 1024)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("no folder", "no network"),
        ("other bytes", "not those"),
        ("no graph", "cannot be read"),
        ("card without digest", "cannot be used"),
        ("card that is no TOML", "cannot be used"),
        ("another contract", "other inputs"),
        ("no graph at all", "cannot run"),
    ],
)
def test_weights_that_are_not_what_they_claim_are_refused(tmp_path: Path, damage: str, reason: str) -> None:
    folder = write_weights(tmp_path / "weights")
    card = tomllib.loads((folder / "card.toml").read_text())
    match damage:
        case "no folder":
            folder = tmp_path / "nowhere"
        case "other bytes":
            (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes() + b"\0")
        case "no graph":
            (folder / "model.onnx").unlink()
        case "card without digest":
            del card["sha256"]
            (folder / "card.toml").write_text(tomli_w.dumps(card))
        case "card that is no TOML":
            (folder / "card.toml").write_text("name = ")
        case "another contract":
            replace_graph(folder, card, other_graph())
        case "no graph at all":
            replace_graph(folder, card, b"not a graph")
    with pytest.raises(NetworkError, match=reason) as refused:
        Network(folder)
    assert refused.value.cure


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda card: card.update(second_look=2.0), "second_look is 2.0"),
        (lambda card: card.update(second_look=-1), "second_look is -1"),
        (lambda card: card.update(second_look="x"), "second_look is 'x'"),
        (lambda card: card.update(second_look=float("nan")), "second_look is nan"),
        (lambda card: card.update(second_look=True), "second_look is True"),
        (lambda card: card.update(close_ups=-1), "close_ups is -1"),
        (lambda card: card.update(close_ups=2.5), "close_ups is 2.5"),
        (lambda card: card["thresholds"]["text"].update(far="x"), "far is 'x'"),
        (lambda card: card["thresholds"]["text"].update(close=1.1), "close is 1.1"),
        (lambda card: card["thresholds"]["text"].update(far=-0.1), "far is -0.1"),
        (lambda card: card["thresholds"].pop("text"), "has no 'text'"),
        (lambda card: card.update(stride=0), "stride is 0"),
        (lambda card: card.update(quantised="yes"), "cannot be used"),
        (lambda card: card["thresholds"]["text"].update(near=0.5), "thresholds.text knows no near"),
        (lambda card: card["thresholds"]["text"].update(absent=0.9), "thresholds.text.absent is above"),
        (lambda card: card["calibration"]["text"].update(mass=float("inf")), "calibration.text.mass is inf"),
        (lambda card: card["calibration"].pop("text"), "no table calibration.text"),
    ],
)
def test_a_card_that_says_what_cannot_be_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    folder = write_weights(tmp_path / "weights")
    card = tomllib.loads((folder / "card.toml").read_text())
    change(card)
    (folder / "card.toml").write_text(tomli_w.dumps(card))
    with pytest.raises(NetworkError, match="card") as refused:
        reading(Network(folder).card)
    assert said in str(refused.value) and refused.value.cure


def quantised(folder: Path, digest: str | None = None) -> Path:
    """The folder with a second graph that a card may call its quantised form: the same one under other bytes."""
    from hashlib import sha256

    model = onnx.load(str(folder / "model.onnx"))
    model.doc_string = "in bytes"
    graph = model.SerializeToString()
    (folder / "model.int8.onnx").write_bytes(graph)
    card = tomllib.loads((folder / "card.toml").read_text())
    card["quantised"] = {"sha256": digest or sha256(graph).hexdigest()}
    (folder / "card.toml").write_text(tomli_w.dumps(card))
    return folder


def test_quantised_weights_are_run_and_named(tmp_path: Path) -> None:
    plain, folder = Network(write_weights(tmp_path / "plain")), quantised(write_weights(tmp_path / "both"))
    network = Network(folder)
    assert network.name == f"{plain.name}+int8"
    assert (network.restore([marked(40, 50)])[0].kinds == plain.restore([marked(40, 50)])[0].kinds).all()


def test_quantised_weights_that_are_not_what_the_card_says_are_refused(tmp_path: Path) -> None:
    folder = quantised(write_weights(tmp_path / "weights"), digest="00" * 32)
    with pytest.raises(NetworkError, match=r"model\.int8\.onnx are not those"):
        Network(folder)
    (folder / "model.int8.onnx").unlink()
    with pytest.raises(NetworkError, match="cannot be read"):
        Network(folder)


def replace_graph(folder: Path, card: dict[str, object], graph: bytes) -> None:
    from hashlib import sha256

    (folder / "model.onnx").write_bytes(graph)
    (folder / "card.toml").write_text(tomli_w.dumps(card | {"sha256": sha256(graph).hexdigest()}))


def other_graph() -> bytes:
    shape = ["n"]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["same"])],
        "other",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("same", TensorProto.UINT8, shape)],
    )
    return onnx.helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


def test_the_network_is_found_by_folder(house: Settings, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = load_network(house.model_copy(update={"network": str(weights), "provider": "cpu"}))
    assert network.name.startswith("tiny@") and network.provider in ("cpu", "openvino")


def test_cuda_is_refused_with_a_cure_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert "cuda" not in devices() and choose_device("auto") == choose_device("cpu")
    with pytest.raises(NetworkError, match="CUDA") as refused:
        choose_device("cuda")
    assert "gpu" in refused.value.cure


def test_cpu_never_means_a_graphics_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    assert devices()[0] == "cuda" == choose_device("auto")
    assert choose_device("cpu") != "cuda"


@pytest.mark.skipif(len(devices()) < 2, reason="this machine offers one device only")
@pytest.mark.skipif(not WEIGHTS.joinpath("sonomark", "card.toml").exists(), reason="no trained weights")
def test_every_device_gives_the_same_answer_within_rounding() -> None:
    speckle = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 120, (256, 320), np.uint8), (0, 0), 2)
    drawn = cv2.cvtColor(speckle, cv2.COLOR_GRAY2RGB)
    for place in ((90, 120), (220, 140)):
        cv2.drawMarker(drawn, place, YELLOW, cv2.MARKER_CROSS, 15, 1)
    real = [cv2.imread(str(path))[..., ::-1].copy() for path in (Path(demo.__file__).parent / "frames").glob("*.jpg")]
    plain, *others = [Network(WEIGHTS / "sonomark", device) for device in reversed(devices())]
    for frame in (drawn, *real):
        (expected,) = plain.restore([frame])
        for network in others:
            (answer,) = network.restore([frame])
            difference = np.abs(answer.kinds.astype(int) - expected.kinds)
            assert np.percentile(difference, 99.9) <= 8
            assert verdicts(answer) == verdicts(expected)


def verdicts(restored: Restored) -> list[str]:
    """Of every kind: absent, uncertain or present, by the card of the shipped weights."""
    card = Network(WEIGHTS / "sonomark").card
    limits = {kind: Thresholds(**card.thresholds[kind]) for kind in Kind}
    calibration = {kind: Calibration(**card.calibration[kind]) for kind in Kind}
    scores = read_marks(restored.kinds, restored.residual, limits, calibration).scores
    words = ("absent", "uncertain", "present")
    return [words[int(scores[k] >= limits[k].absent) + int(scores[k] >= limits[k].present)] for k in Kind]
