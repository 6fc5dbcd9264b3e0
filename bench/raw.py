"""ONNX Runtime with nothing around it: data already in memory, whole batches, outputs discarded."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

import onnxruntime

from bench.common import Matrix


class Raw:
    """A model in a session with this many threads."""

    def __init__(self, model: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

    def predict(self, matrix: Matrix, names: list[str] | None = None) -> list[Matrix]:
        """Return the outputs of one batch: those named, else all."""
        outputs: list[Matrix] = self._session.run(names, {"input": matrix})
        return outputs

    def run_all(self, matrix: Matrix, batch: int) -> float:
        """Run all rows once in batches; return the rows per second."""
        begin = perf_counter()
        for start in range(0, len(matrix), batch):
            self._session.run(None, {"input": matrix[start : start + batch]})
        return len(matrix) / (perf_counter() - begin)

    def run_for(self, matrix: Matrix, batch: int, seconds: float) -> float:
        """Run all rows in batches repeatedly; return the rows per second."""
        rounds, begin = 0, perf_counter()
        while (elapsed := perf_counter() - begin) < seconds or not rounds:
            self.run_all(matrix, batch)
            rounds += 1
        return rounds * len(matrix) / elapsed

    def scan(self, matrix: Matrix, batches: list[int], turns: int = 3) -> dict[int, float]:
        """Return the rows per second by batch size over all of `matrix`: the best of some turns."""
        rates = [{batch: self.run_all(matrix, batch) for batch in batches} for _ in range(turns)]
        return {batch: max(turn[batch] for turn in rates) for batch in batches}


def powers_of_two(smallest: int, largest: int) -> list[int]:
    """Return `smallest`, twice that, ... up to `largest`."""
    sizes = [smallest]
    while 2 * sizes[-1] <= largest:
        sizes.append(2 * sizes[-1])
    return sizes
