"""A whole fitted transform on CUDA, in Numba's simulator: the bits of the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import driftline as dl
from driftline.features.sources import Reader
from driftline_kernels import transforms as kernel

ROWS = 60

SIMULATED = """
import sys
import numpy as np
from numba import cuda
from driftline_kernels import transforms as kernel

given = np.load(sys.argv[1])
program = kernel.Program(*[None] * 10)._replace(
    code=cuda.to_device(given["code"]), parameters=cuda.to_device(given["parameters"])
)
registers, out = cuda.to_device(given["registers"]), cuda.to_device(given["out"])
kernel.run(registers, program, out)
np.savez(sys.argv[2], registers=registers.copy_to_host(), out=out.copy_to_host())
"""


def columns(seed: int) -> dict[str, Any]:
    """Numbers, categories of text and of numbers, times as whole microseconds; some are missing."""
    random = np.random.default_rng(seed)
    numbers = random.normal(2, 3, (4, ROWS))
    numbers[random.random((4, ROWS)) < 0.15] = np.nan
    texts = random.choice(np.array(["a", "b", "ä", "", "x" * 40, None], object), (3, ROWS))
    times = random.integers(-(10**16), 10**16, (2, ROWS))
    return {
        **dict(zip("abcd", numbers, strict=True)),
        **dict(zip("stu", texts, strict=True)),
        "n": random.integers(0, 6, ROWS),
        "y": times[0],
        "z": times[1],
    }


def every_step(unknown: Any = "error") -> dl.Transform:
    """All that the kernel can do, fitted; a number that is not known is an error, or what is said."""
    steps = [
        dl.Read(["y", "z"], "datetime"),
        dl.Impute(["a", "b"], "median", indicator=True),
        dl.Standardise("a"),
        dl.Missing("c", into="gone"),
        dl.Clip("b", low=0),
        dl.Log1p("b"),
        dl.Robust("c", into="robust"),
        dl.MinMax("c", clip=True, into="range"),
        dl.Bucketise("c"),
        dl.Quantile("c", 20, normal=True, into="normal"),
        dl.Power("c", 0.5, "yeo_johnson", into="yeo_johnson"),
        dl.Power("c", -1, "box_cox", into="box_cox"),
        dl.Power("d", 3, into="cube"),
        *(dl.Arithmetic("a", sign, "b", into=f"a{sign}b") for sign in "+-*/"),
        dl.Arithmetic("d", "*", 0.1),
        dl.Linear(["a", "b", "c"], [0.1, -2, 3.3], 0.7, into="sum"),
        dl.Piecewise("c", [0, 2], [[1, 0, 0], [0.1, 0.2, -0.3], [3, 2, 1]], 5, into="pieces"),
        dl.Equals("s", "ä", into="is_umlaut"),
        dl.Equals("n", 3, into="is_three"),
        dl.Cross(["s", "n"]),
        dl.OneHot("s_x_n"),
        dl.Cross(["t", "u"], into="mixed"),
        dl.Hash("mixed", 11),
        dl.Hash("u", 13),
        dl.Ordinal("s", into="place"),
        dl.OneHot("s", min_frequency=5, unknown="infrequent"),
        dl.TargetMean("t", into="mean"),
        dl.Frequency("t"),
        dl.OneHot("n", categories=(0, 1, 2, 3, 4), unknown=unknown),
        *(dl.DatePart("y", part) for part in ("year", "month", "day", "hour", "minute", "second")),
        *(dl.DatePart("z", part) for part in ("weekday", "yearday", "quarter", "epoch")),
        dl.Cyclic("z_weekday", 7),
        dl.Cyclic("y_year", 4),
    ]
    return dl.Transform(steps).fit(columns(0), np.arange(ROWS) % 2)


def test_a_whole_transform_on_cuda_has_the_bits_of_the_cpu(tmp_path: Path) -> None:
    transform, data = every_step(), columns(1)
    data["d"][:2] = np.inf, -np.inf
    program = transform._program
    registers = np.zeros((program.registers, ROWS))
    with Reader(transform.inputs).open(data) as sources:
        kernel.read(sources.table, program, registers)
    inputs_file, results_file, script = (
        tmp_path / name for name in ("given.npz", "made.npz", "simulated.py")
    )
    out = np.full((ROWS, transform.width), 7, np.float32)
    np.savez(inputs_file, code=program.code, parameters=program.parameters, registers=registers, out=out)
    script.write_text(SIMULATED)
    simulator = {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, script, inputs_file, results_file]
    run = subprocess.run(command, env=os.environ | simulator, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    kernel.run(registers, program, out)
    theirs = np.load(results_file)
    assert theirs["out"].tobytes() == out.tobytes()
    assert theirs["registers"][kernel.FAULTS].tobytes() == registers[kernel.FAULTS].tobytes()
    assert np.count_nonzero(registers[kernel.FAULTS]) == np.count_nonzero(data["n"] == 5) > 0
    with_known_categories = {name: column[data["n"] < 5] for name, column in data.items()}
    assert transform.apply(with_known_categories).tobytes() == out[data["n"] < 5].tobytes()
    assert set(program.code[:, 0].tolist()) == set(range(kernel.PIECEWISE + 1))  # every operation
