"""Weights of the network's contract that need no training: whatever is pure yellow is a caliper.

The restoration paints yellow pixels black, the residual is what that changed, and the caliper plane is certain there.
"""

import tomllib
from hashlib import sha256
from pathlib import Path

import onnx
import tomli_w
from onnx import TensorProto, helper

from service.analyse.annotations import Kind

YELLOW = (255, 255, 0)


def write_weights(folder: Path, name: str = "tiny") -> Path:
    """``model.onnx`` and ``card.toml`` in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    graph = _graph()
    (folder / "model.onnx").write_bytes(graph)
    card = {
        "name": name,
        "version": "1",
        "sha256": sha256(graph).hexdigest(),
        "kinds": [kind.value for kind in Kind],
        "stride": 32,
        "max_side": 1024,
        "thresholds": {kind.value: {"pixel": 0.5, "min_pixels": 4, "absent": 0.4, "present": 0.6} for kind in Kind},
        "calibration": {
            kind.value: {
                "intercept": -4.0,
                "mass": 2.0,
                "support": 0.0,
                "peak": 2.0,
                "core": 0.0,
                "rows": 0.0,
                "columns": 0.0,
                "total": 0.0,
            }
            for kind in Kind
        },
    }
    (folder / "card.toml").write_text(tomli_w.dumps(card))
    return folder


def look_again(folder: Path, share: float) -> Path:
    """The weights with a look from afar that has this share in what is called a caliper."""
    card = tomllib.loads((folder / "card.toml").read_text())
    card["second_look"] = 0.5
    card["thresholds"]["caliper"]["far"] = share
    (folder / "card.toml").write_text(tomli_w.dumps(card))
    return folder


def look_closely(folder: Path, share: float, most: int = 3) -> Path:
    """The weights with close-ups that have this share in what is called a caliper."""
    card = tomllib.loads((folder / "card.toml").read_text())
    card["close_ups"] = most
    card["thresholds"]["caliper"]["close"] = share
    (folder / "card.toml").write_text(tomli_w.dumps(card))
    return folder


def _graph() -> bytes:
    size = ["frames", "height", "width"]
    planes = ["frames", len(Kind), "height", "width"]
    constants = [
        helper.make_tensor("red_weight", TensorProto.FLOAT, [1, 3, 1, 1], [1.0, 1.0, -1.0]),
        helper.make_tensor("almost_yellow", TensorProto.FLOAT, [], [500.0]),
        helper.make_tensor("which", TensorProto.FLOAT, [1, len(Kind), 1, 1], [255.0 * (k == "caliper") for k in Kind]),
        helper.make_tensor("channels", TensorProto.INT64, [1], [1]),
        helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
    ]
    nodes = [
        helper.make_node("Transpose", ["frame"], ["planes8"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes8"], ["planes"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["planes", "red_weight"], ["yellowness"], kernel_shape=[1, 1]),
        helper.make_node("Greater", ["yellowness", "almost_yellow"], ["is_yellow"]),
        helper.make_node("Cast", ["is_yellow"], ["yellow"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["one", "yellow"], ["tissue"]),
        helper.make_node("Mul", ["planes", "tissue"], ["restored"]),
        helper.make_node("Sub", ["planes", "restored"], ["changed"]),
        helper.make_node("ReduceMax", ["changed", "channels"], ["residual32"], keepdims=0),
        helper.make_node("Cast", ["residual32"], ["residual"], to=TensorProto.UINT8),
        helper.make_node("Transpose", ["restored"], ["restored_last"], perm=[0, 2, 3, 1]),
        helper.make_node("Cast", ["restored_last"], ["restoration"], to=TensorProto.UINT8),
        helper.make_node("Mul", ["yellow", "which"], ["kinds32"]),
        helper.make_node("Cast", ["kinds32"], ["kinds"], to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, [*size, 3])],
        [
            helper.make_tensor_value_info("restoration", TensorProto.UINT8, [*size, 3]),
            helper.make_tensor_value_info("residual", TensorProto.UINT8, size),
            helper.make_tensor_value_info("kinds", TensorProto.UINT8, planes),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()
