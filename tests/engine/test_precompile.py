"""What is compiled when an image is built is all that a server asks for."""

import subprocess
import sys
from pathlib import Path

WATCH = """
import sys
import numpy as np
from pathlib import Path
from driftline_kernels.disk_cache import DriverCache
asked, load = set(), DriverCache.load_overload
def recorded(self, signature, context):
    asked.add(self._file(signature, context.codegen()))
    return load(self, signature, context)
DriverCache.load_overload = recorded

from driftline.engine.precompile import precompile
precompile()
compiled = set(asked)

from driftline.features import spec
from driftline.features.transform import Transform
from driftline.monitor.monitor import Monitor
from driftline.monitor.reference.profile import Profile
from driftline.protocols import numbers

folder, random = Path(sys.argv[1]), np.random.default_rng(1)
columns = {
    "price": random.normal(size=500), "city": random.choice(["a", "b", "c"], 500).astype(object),
    "day": np.array([f"2013-01-{day:02}" for day in random.integers(1, 28, 500)], object),
}
steps = [
    spec.Impute("price", "median"), spec.Standardise("price"),
    spec.Ordinal("city"), spec.DatePart("day", "weekday"),
]
Transform(steps).fit(columns).save(folder / "transform.json")
matrix = Transform.load(folder / "transform.json").apply(columns)
table = {name: columns[name] for name in ("price", "city")}
table["probabilities"] = random.random((500, 2), np.float32)
for watched in (table, {"input": matrix}):
    Profile.fit(watched).save(folder / "profile.arrow")
    monitor = Monitor(Profile.load(folder / "profile.arrow"), window_rows=400, look_rows=100)
    monitor.warm_up()
    for rows in (1, 7, 300, 500):
        monitor.observe({name: column[:rows] for name, column in watched.items()})
    monitor.report(2)
numbers.load()
assert len(compiled) > 10, compiled
assert asked == compiled, asked - compiled
"""


def test_a_server_finds_all_kernels(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WATCH, tmp_path], capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
