"""ONNX Runtime's execution providers for a GPU, and their options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnxruntime

from driftline.config import Engine
from driftline.engine.cuda.device import PROVIDER, Device
from driftline.errors import ConfigError
from driftline.tensors import TensorSpec

TENSORRT = "TensorrtExecutionProvider"

Provider = tuple[str, Mapping[str, str]]


def check(engine: Engine) -> None:
    """Raise ConfigError if TensorRT is wanted and these settings or this ONNX Runtime don't support it."""
    if not engine.tensorrt:
        return
    if engine.device == "cpu":
        raise ConfigError("engine.tensorrt = true: expected engine.device to be a GPU, got 'cpu'")
    if engine.cuda_graphs:
        raise ConfigError(
            "engine.tensorrt = true: expected engine.cuda_graphs = false: it keeps one graph only"
        )
    available = onnxruntime.get_available_providers()
    if engine.device != "auto" and TENSORRT not in available:
        raise ConfigError(
            f"engine.tensorrt = true: expected an onnxruntime with {TENSORRT}, it has {', '.join(available)}"
        )


def cuda(device: Device, tf32: bool = False, graphs: bool = False, shared: bool = True) -> Provider:
    """Return the provider of ONNX Runtime's own kernels, on a GPU.

    tf32    whether matrix products may round their factors to 10 bits
    graphs  whether runs can be recorded; ONNX Runtime then refuses models with control flow or nodes on the
            CPU
    shared  whether all runs use the device's stream, one after the other, as bindings require; else each
            has a stream of its own
    """
    options = device_options(device) | {"use_tf32": str(int(tf32))}
    if not shared:
        del options["user_compute_stream"]
    return PROVIDER, options | ({"enable_cuda_graph": "1"} if graphs else {})


def tensorrt(device: Device, options: Mapping[str, str], engines: Path | None) -> Provider:
    """Return the provider TensorRT, on the device's stream.

    options  see `engine_options`
    engines  the folder where it caches engines; None: it builds them at each start
    """
    merged = {**device_options(device), **options}
    for cache in ("engine", "timing") if engines is not None else ():
        merged |= {f"trt_{cache}_cache_enable": "True", f"trt_{cache}_cache_path": str(engines)}
    return TENSORRT, merged


def engine_options(inputs: Sequence[TensorSpec], max_rows: int, fp16: bool) -> dict[str, str]:
    """Return the options that determine the engines TensorRT builds for a model.

    inputs    of the model; if only their rows vary, an engine is built once for all numbers of rows up to
              `max_rows`, else whenever a shape is outside the range of those before it
    max_rows  rows of the largest batch, 0 if unknown
    fp16      whether it may compute in half precision
    """
    options = {"trt_fp16_enable": str(fp16)}
    dynamic = [spec for spec in inputs if -1 in spec.shape]
    if not max_rows or any(spec.shape[0] != -1 or -1 in spec.shape[1:] for spec in dynamic):
        return options
    if not dynamic or any({*spec.name} & {*":,"} for spec in dynamic):  # the separators of names and shapes
        return options
    for profile, rows in (("min", 1), ("opt", max_rows), ("max", max_rows)):
        shapes = [f"{spec.name}:{'x'.join(map(str, (rows, *spec.shape[1:])))}" for spec in dynamic]
        options[f"trt_profile_{profile}_shapes"] = ",".join(shapes)
    return options


def device_options(device: Device) -> dict[str, str]:
    """Return the options that select a GPU and its stream."""
    return {"device_id": str(device.index), "user_compute_stream": str(device.stream)}
