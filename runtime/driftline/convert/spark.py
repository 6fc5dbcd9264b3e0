"""Spark ML's fitted pipelines: the folder that `save` writes, which MLflow keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnxmltools import convert_sparkml
from onnxmltools.convert.common.data_types import FloatTensorType, StringTensorType
from pyspark.ml import PipelineModel
from pyspark.sql import SparkSession

from driftline.convert.example import Example
from driftline.convert.source import Source
from driftline.errors import BadRequest
from driftline.tensors import Array


def native(model: Path, source: Source) -> SparkModel:
    """Load a pipeline's folder."""
    session = SparkSession.builder.master("local[*]").config("spark.ui.enabled", "false").getOrCreate()
    return SparkModel(PipelineModel.load(str(model.resolve())), session)


class SparkModel:
    """A pipeline of transformers: single columns in, `prediction` and `probability` out."""

    kind = "spark"
    classes = None
    texts = ()

    def __init__(self, pipeline: Any, session: Any) -> None:
        self._pipeline = pipeline
        self._session = session

    @property
    def columns(self) -> tuple[str, ...]:
        """None: a pipeline takes the columns that its steps name from a table."""
        return ()

    def export(self, example: Example, path: Path) -> None:
        """Write it as ONNX, with its predictions as the only outputs."""
        if not example.is_table:
            raise BadRequest("a Spark ML pipeline: expected a table with its columns as the example")
        types = [
            (name, (FloatTensorType if array.dtype.kind in "fiub" else StringTensorType)([None, 1]))
            for name, array in example.arrays.items()
        ]
        model = convert_sparkml(self._pipeline, "pipeline", types, spark_session=self._session)
        outputs = {output.name: output for output in model.graph.output}
        del model.graph.output[:]
        model.graph.output.extend(outputs[name] for name in self._outputs())
        path.write_bytes(model.SerializeToString())

    def predict(self, example: Example) -> list[Array]:
        """Return the columns of predictions, vectors as rows."""
        frame = self._pipeline.transform(self._session.createDataFrame(example.data)).toPandas()
        return [np.array([_plain(value) for value in frame[name]]) for name in self._outputs()]

    def _outputs(self) -> list[str]:
        last_stage = self._pipeline.stages[-1]
        params = [name for name in ("predictionCol", "probabilityCol") if last_stage.hasParam(name)]
        return [last_stage.getOrDefault(name) for name in params]


def _plain(value: Any) -> Any:
    return value.toArray() if hasattr(value, "toArray") else value
