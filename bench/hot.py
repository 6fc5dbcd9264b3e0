"""The cost of every request, piece by piece: `make bench` compares it with the previous run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench import models
from bench.requests import json_request
from bench.servers.own import named, transform
from driftline.engine.model import Model
from driftline.monitor.monitor import Monitor
from driftline.monitor.reference.profile import Profile
from driftline.protocols import numbers
from driftline.protocols.v2 import V2Codec
from driftline.tensors import DATATYPES, Signature, TensorSpec

SIZES = {"1 x 30": (1, models.FEATURES), "32 x 30": (32, models.FEATURES), "1 x 150,528": (1, models.PIXELS)}


@pytest.mark.parametrize("size", SIZES)
def test_read_json(benchmark: Any, size: str) -> None:
    rows, width = SIZES[size]
    codec, matrix = codec_of(width), models.rows(rows, width)
    body = json_request("model", matrix, "output").body
    call = benchmark(lambda: codec.decode(body))
    assert np.array_equal(call.inputs["input"], matrix)


@pytest.mark.parametrize("rows", [1, 32])
def test_write_json(benchmark: Any, rows: int) -> None:
    codec, matrix = codec_of(models.FEATURES), models.rows(rows, models.FEATURES)
    call = codec.decode(json_request("model", matrix, "output").body)
    benchmark(lambda: codec.encode(call, {"output": matrix[:, :2]}))


@pytest.mark.parametrize("rows", [1, 64])
def test_trees(benchmark: Any, rows: int) -> None:
    model, matrix = Model.load(models.xgboost()), models.rows(rows, models.FEATURES)
    benchmark(lambda: model.predict({"input": matrix}))


@pytest.mark.parametrize("rows", [1, 64])
def test_observe(benchmark: Any, rows: int) -> None:
    profile = Profile.fit({"input": models.rows(20_000, models.FEATURES, seed=3)})
    monitor, columns = Monitor(profile, look_rows=0), {"input": models.rows(rows, models.FEATURES)}
    benchmark(lambda: monitor.observe(columns))


@pytest.mark.parametrize("rows", [1, 64])
def test_transform(benchmark: Any, rows: int) -> None:
    fitted, columns = transform(), named(models.rows(rows, models.FEATURES))
    benchmark(lambda: fitted.apply(columns))


def codec_of(width: int) -> V2Codec:
    """Return a codec, its kernel loaded, of a model with `input` (rows, width) and `output` (rows, 2)."""
    numbers.load()
    fp32 = DATATYPES["FP32"]
    inputs, outputs = (TensorSpec(name, fp32, (-1, n)) for name, n in (("input", width), ("output", 2)))
    return V2Codec(Signature((inputs,), (outputs,), True), "model", 1)
