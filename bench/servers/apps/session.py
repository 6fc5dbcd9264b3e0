"""The model that every Python peer serves: ONNX Runtime with one thread, in the peer's own environment."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt
import onnxruntime

MODEL, OUTPUT = os.environ["MODEL"], os.environ["OUTPUT"]


class Session:
    """MODEL: rows in, rows of OUTPUT out."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])

    def run(self, matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The output of a matrix (rows, width)."""
        rows: npt.NDArray[np.float32] = self._session.run([OUTPUT], {"input": matrix})[0]
        return rows

    def run_together(self, matrices: list[npt.NDArray[np.float32]]) -> list[npt.NDArray[np.float32]]:
        """The outputs of several matrices, run as one batch."""
        rows = self.run(np.concatenate(matrices))
        return np.split(rows, np.cumsum([len(matrix) for matrix in matrices])[:-1])
