"""Small ONNX files that keep the contract of `alexnet export`: real graphs, made without torch."""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from alexnet_cli.inference.onnx_file import seal

SIZE, CROP, FEATURES = 32, 28, 24
CLASSES = ["cat", "dog", "owl", "pug", "ram", "sow"]


def write_onnx(
    path: Path,
    *,
    seed: int = 0,
    size: int = SIZE,
    classes: list[str] = CLASSES,
    fingerprint: str | None = None,
    feature: str = "fc7",
    without: str = "",
    **metadata: str,
) -> Path:
    """A random network at ``path``: mean and crop, one hidden layer with its ReLU, ``feature``; classes.

    ``without``: a metadata key to leave out; ``metadata``: to set others than usual.
    """
    random = np.random.default_rng(seed)
    crop, side = size - 4, np.arange(2, size - 2)
    weights = {
        "mean": np.full((size, size, 3), 120, np.float32),
        "w7": random.normal(0, 1e-3, (crop * crop * 3, FEATURES)).astype(np.float32),
        "w8": random.normal(0, 1, (FEATURES, len(classes))).astype(np.float32),
        "flat": np.array([0, -1], np.int64),
        "rows": side,
        "columns": side,
    }
    nodes = [
        helper.make_node("Gather", ["image", "rows"], ["r"], axis=1),
        helper.make_node("Gather", ["r", "columns"], ["rc"], axis=2),
        helper.make_node("Cast", ["rc"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["mean", "rows"], ["mr"], axis=0),
        helper.make_node("Gather", ["mr", "columns"], ["mrc"], axis=1),
        helper.make_node("Sub", ["pixels", "mrc"], ["centred"]),
        helper.make_node("Reshape", ["centred", "flat"], ["row"]),
        helper.make_node("MatMul", ["row", "w7"], ["a7"]),
        helper.make_node("Relu", ["a7"], [feature]),
        helper.make_node("MatMul", [feature, "w8"], ["a8"]),
        helper.make_node("Softmax", ["a8"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", size, size, 3]),
        ],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", len(classes)]),
            helper.make_tensor_value_info(feature, TensorProto.FLOAT, ["N", FEATURES]),
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    told = {
        "alexnet_format": "1",
        "classes": json.dumps(classes),
        "fingerprint": fingerprint or f"seed-{seed}",
        "recipe": "",
        "precision": "fp32",
        "crop": str(crop),
    } | metadata
    for key, value in told.items():
        if key != without:
            model.metadata_props.add(key=key, value=value)
    path.parent.mkdir(parents=True, exist_ok=True)
    return save(model, path)


def save(model: onnx.ModelProto, path: Path) -> Path:
    """Write ``model`` with the checksum of what it is now."""
    kept = [one for one in model.metadata_props if one.key != "checksum"]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, path)
    seal(path)
    return path
