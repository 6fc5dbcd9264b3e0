"""The benchmarks' models, made from fixed seeds and cached in bench/cache/."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bench.common import HERE, Matrix

CACHE = HERE / "cache"
FEATURES = 30
MLP = (512, 2048, 2048, 2048, 16)
TEN_MEGABYTES = (512, 2048, 700, 16)
PIXELS = 224 * 224 * 3


def cached(name: str, make: Callable[[], onnx.ModelProto]) -> Path:
    """Return the path of a model that is made only once."""
    path = CACHE / f"{name}.onnx"
    if not path.exists():
        CACHE.mkdir(exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        onnx.save(make(), unfinished)
        os.replace(unfinished, path)
    return path


def rows(count: int, width: int, seed: int = 1) -> Matrix:
    """Return rows of standard normal numbers."""
    return np.random.default_rng(seed).standard_normal((count, width), np.float32)


def xgboost() -> Path:
    """100 trees of depth 6 on 30 features; `probabilities` of two classes, and a `label`."""
    return cached("xgboost", _xgboost)


def _xgboost() -> onnx.ModelProto:
    # Only making the model needs these, and they take seconds to import.
    from onnxmltools import convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType
    from xgboost import XGBClassifier

    matrix = rows(50_000, FEATURES, seed=0)
    noise = np.random.default_rng(2).standard_normal(len(matrix))
    target = np.sin(matrix[:, :10]).sum(1) + matrix[:, 10] * matrix[:, 11] + noise > 0
    classifier = XGBClassifier(n_estimators=100, max_depth=6, n_jobs=1, random_state=0).fit(matrix, target)
    inputs = [("input", FloatTensorType([None, FEATURES]))]
    model: onnx.ModelProto = convert_xgboost(classifier, initial_types=inputs)
    return model


def mlp(widths: Sequence[int] = MLP, seed: int = 0) -> Path:
    """Fully connected layers with ReLU between them, from `input` to `output`."""
    return cached(f"mlp-{'-'.join(map(str, widths))}-{seed}", lambda: _mlp(widths, seed))


def _mlp(widths: Sequence[int], seed: int) -> onnx.ModelProto:
    random = np.random.default_rng(seed)
    nodes, constants = [], []
    flow = "input"
    for layer, (fan_in, fan_out) in enumerate(pairwise(widths)):
        # He's initialisation: activations neither vanish nor overflow, whatever the depth.
        weight = random.standard_normal((fan_in, fan_out), np.float32) * np.float32(np.sqrt(2 / fan_in))
        constants.append(numpy_helper.from_array(weight, f"w{layer}"))
        constants.append(numpy_helper.from_array(np.zeros(fan_out, np.float32), f"b{layer}"))
        last = layer == len(widths) - 2
        nodes.append(
            helper.make_node("Gemm", [flow, f"w{layer}", f"b{layer}"], ["output" if last else f"sum{layer}"])
        )
        if not last:
            flow = f"layer{layer}"
            nodes.append(helper.make_node("Relu", [f"sum{layer}"], [flow]))
    return _model(nodes, widths[0], widths[-1], constants)


def double() -> Path:
    """`output` is twice the `input` of three numbers: nothing to load, and a result that is easy to check."""
    two = numpy_helper.from_array(np.array(2, np.float32), "two")
    return cached(
        "double", lambda: _model([helper.make_node("Mul", ["input", "two"], ["output"])], 3, 3, [two])
    )


def mean() -> Path:
    """`output` is the mean of an image of 224 x 224 x 3 numbers: hardly more work than reading them."""
    node = helper.make_node("ReduceMean", ["input"], ["output"], axes=[1], keepdims=1)
    return cached("mean", lambda: _model([node], PIXELS, 1, []))


def _model(
    nodes: list[onnx.NodeProto], width: int, width_out: int, constants: list[onnx.TensorProto]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ("N", width))],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ("N", width_out))],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model
