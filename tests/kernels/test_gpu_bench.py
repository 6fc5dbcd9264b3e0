"""The checks of `python -m bench gpu`: they cover every kernel, pass, and see a kernel that is wrong."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench.__main__ import main
from bench.gpu import Sizes, measure
from bench.gpu_kernels import cases, check
from click.testing import CliRunner
from fake_gpu import Cpu
from naive_kernels import SIMULATED
from onnx_models import scale

from driftline.engine.cuda.device import Gpu, missing
from driftline_kernels.ahead_of_time import SIGNATURES

pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.skipif(not SIMULATED, reason="there may be no GPU"),
]


def test_every_kernel_is_checked_and_finds_what_the_cpu_does() -> None:
    for case in cases(40, 3):
        check(Gpu(0), case)


def test_each_kernel_has_a_case() -> None:
    names = {case.kernel for case in cases(10, 2)} | {"rows_cuda._settle_cuda"}  # behind what is kept of rows
    assert sorted(names) == sorted(SIGNATURES)


def test_a_wrong_result_is_seen() -> None:
    for case in cases(40, 3):
        calls = 0

        def wrong(*arguments: Any, call: Any = case.call, place: int = case.written[0]) -> None:
            nonlocal calls
            call(*arguments)
            written = arguments[place]
            while isinstance(written, tuple):
                written = written.counts if hasattr(written, "counts") else written[0]
            calls += 1
            if calls == 1:  # that of the device
                written.flat[0] = np.asarray(written).flat[0] + 77

        with pytest.raises(AssertionError, match=case.kernel):
            check(Cpu(), replace(case, call=wrong))


def test_what_is_timed_runs_and_every_figure_is_there(tmp_path: Path) -> None:
    """With the CPU's memory in the GPU's place, and hardly any rows: the figures mean nothing here."""
    result = measure(Cpu(), 2, scale(tmp_path / "m.onnx", 2.0), Sizes((1, 2), 10, 7, 100, 1024, 1))
    assert set(result.figures["kernels_gb_s"]) == {case.name for case in cases(10, 2)}
    assert {tuple(points) for points in result.figures["ns"].values()} == {(1, 2)}
    assert len(result.table.rows) == 1 + len(result.figures["kernels_gb_s"]) + 2 * len(result.figures["ns"])


@pytest.mark.skipif(not missing(), reason="there is a GPU")
def test_without_a_gpu_a_line_says_what_is_missing() -> None:
    done = CliRunner().invoke(main, ["gpu"])
    assert done.exit_code == 2
    assert re.fullmatch(r"Error: gpu: no .+\n", done.output)
