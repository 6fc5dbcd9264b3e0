"""PyTorch's models: exported programs (.pt2), TorchScript, and whole modules in a pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from driftline.convert.example import Example
from driftline.convert.source import Source
from driftline.tensors import Array


def native(model: Any, source: Source) -> TorchModel:
    """Load a file, or take a module."""
    if not isinstance(model, Path):
        return TorchModel(model.eval())
    if model.suffix == ".pt2":
        return TorchModel(torch.export.load(model))
    if not source.pickled:
        return TorchModel(torch.jit.load(model, map_location="cpu").eval())
    return TorchModel(torch.load(model, map_location="cpu", weights_only=False).eval())


class TorchModel:
    """A module: tensors in and out, rows along the first dimension of each."""

    kind = "torch"
    columns: tuple[str, ...] = ()  # tensors have none
    texts = ()
    classes = None

    def __init__(self, model: Any) -> None:
        self._model = model

    def export(self, example: Example, path: Path) -> None:
        """Write it as ONNX, its weights in the same file."""
        tensors = self._tensors(example)
        if isinstance(self._model, torch.jit.ScriptModule):
            names = ["input"] if len(tensors) == 1 else [f"input_{index}" for index in range(len(tensors))]
            dynamic_axes = {name: {0: "rows"} for name in (*names, "output")}
            torch.onnx.export(
                self._model, tensors, path, dynamo=False, input_names=names, output_names=["output"],
                dynamic_axes=dynamic_axes,
            )  # fmt: skip
            return
        if isinstance(self._model, torch.export.ExportedProgram):
            program = torch.onnx.export(self._model, dynamo=True, verbose=False)
        else:
            rows = torch.export.Dim("rows")
            program = torch.onnx.export(
                self._model,
                tensors,
                dynamo=True,
                verbose=False,
                dynamic_shapes=tuple({0: rows} for _ in tensors),
            )
        program.save(path, external_data=False)

    def predict(self, example: Example) -> list[Array]:
        """Return its outputs: one tensor, several, or several by name."""
        exported = isinstance(self._model, torch.export.ExportedProgram)
        module = self._model.module() if exported else self._model
        with torch.no_grad():
            outputs = module(*self._tensors(example))
        if isinstance(outputs, torch.Tensor):
            outputs = (outputs,)
        tensors = outputs.values() if isinstance(outputs, dict) else outputs
        return [tensor.detach().numpy() for tensor in tensors]

    def _tensors(self, example: Example) -> tuple[Any, ...]:
        arrays = {"": example.matrix()} if example.is_table else example.arrays
        # Numbers from JSON and from most files are doubles; modules take floats.
        floats = {
            name: array.astype("float32") if array.dtype == "float64" else array
            for name, array in arrays.items()
        }
        return tuple(torch.from_numpy(array.copy()) for array in floats.values())
