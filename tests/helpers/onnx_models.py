"""Small ONNX models whose outputs are easily predicted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

NUMERIC = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
}
ONNX_TYPES = {**NUMERIC, "BYTES": TensorProto.STRING}

Shape = Sequence[int | str | None]


def save_model(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, Shape]],
    outputs: dict[str, tuple[int, Shape]],
    constants: dict[str, np.ndarray] | None = None,
) -> Path:
    """Write a model; tensors are given as {name: (ONNX type, shape)}."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def identity(path: Path, datatype: str = "FP32", shape: Shape = ("N", 3)) -> Path:
    """`y` is `x`."""
    kind = ONNX_TYPES[datatype]
    return save_model(
        path, [helper.make_node("Identity", ["x"], ["y"])], {"x": (kind, shape)}, {"y": (kind, shape)}
    )


def with_transform(folder: Path, transform: Any) -> Path:
    """Write a version whose `y` is its transform's output."""
    transform.save(folder / "transform.json")
    identity(folder / "model.onnx", shape=("N", transform.width))
    return folder


def scale(path: Path, factor: float, width: int = 3, ballast_bytes: int = 0) -> Path:
    """`y` is `factor * x`, and `total` the sum of each row of `y`; optionally a file of some size."""
    constants = {"factor": np.array(factor, np.float32), "axes": np.array([1])}
    nodes = [
        helper.make_node("Mul", ["x", "factor"], ["y"]),
        helper.make_node("ReduceSum", ["y", "axes"], ["total"], keepdims=0),
    ]
    if ballast_bytes:
        ballast = np.random.default_rng(0).random(ballast_bytes // 4, np.float32)
        constants |= {"ballast": ballast}
        nodes += [
            helper.make_node("ReduceMax", ["ballast"], ["most"], keepdims=1),
            helper.make_node("Add", ["y", "most"], ["unused"]),
        ]
    outputs: dict[str, tuple[int, Shape]] = {
        "y": (TensorProto.FLOAT, ("N", width)),
        "total": (TensorProto.FLOAT, ("N",)),
    }
    return save_model(path, nodes, {"x": (TensorProto.FLOAT, ("N", width))}, outputs, constants)


def gather(path: Path) -> Path:
    """`y` is the row `i` of a table of 10 rows, 0 to 9; the model refuses an index beyond them."""
    table = np.arange(10, dtype=np.float32).reshape(10, 1)
    return save_model(
        path,
        [helper.make_node("Gather", ["table", "i"], ["y"])],
        {"i": (TensorProto.INT64, ("N",))},
        {"y": (TensorProto.FLOAT, ("N", 1))},
        {"table": table},
    )


def slow(path: Path, width: int = 1024, layers: int = 24) -> Path:
    """A chain of square matrix products: some milliseconds per row, more with more layers."""
    weight = (np.eye(width) * 1.0).astype(np.float32)
    nodes = [
        helper.make_node(
            "MatMul", [f"h{layer}" if layer else "x", "w"], [f"h{layer + 1}" if layer < layers - 1 else "y"]
        )
        for layer in range(layers)
    ]
    return save_model(
        path,
        nodes,
        {"x": (TensorProto.FLOAT, ("N", width))},
        {"y": (TensorProto.FLOAT, ("N", width))},
        {"w": weight},
    )
