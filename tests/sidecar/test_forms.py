"""What is read together is what would be read one by one."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import orjson
import pytest

from driftline.columns import columns_of
from driftline.config import Monitoring
from driftline.monitor.reference.profile import Profile
from driftline.sidecar.agent import Agent
from driftline.sidecar.decoding import Decoder
from driftline.sidecar.exchange import Body, Exchange

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((500, 3)).astype(np.float32)
PROFILE = Profile.fit({"x": X, "total": X.sum(axis=1)})


def tensor(name: str, values: Any, **more: Any) -> dict[str, Any]:
    array = np.array(values, np.float32)
    return {"name": name, "datatype": "FP32", "shape": array.shape, "data": array.ravel().tolist()} | more


def exchange(request: Any, answer: Any) -> Exchange:
    option = orjson.OPT_SERIALIZE_NUMPY
    return Exchange("", Body(orjson.dumps(request, option=option)), Body(orjson.dumps(answer, option=option)))


def outputs(count: int = 1) -> Any:
    return {"id": str(random.random()), "outputs": [tensor("total", RANDOM.standard_normal(count))]}


def rows(count: int) -> Any:
    return RANDOM.standard_normal((count, 3)).tolist()


def flat(count: int = 1, **more: Any) -> Exchange:
    return exchange({"id": "7", "inputs": [tensor("x", rows(count), **more)]}, outputs(count))


def nested() -> Exchange:
    values = rows(2)
    return exchange({"inputs": [tensor("x", values, data=values), tensor("more", [1])]}, outputs(2))


def v1(*instances: Any, predictions: Any) -> Exchange:
    return exchange({"instances": instances}, {"predictions": predictions})


ONE_FORM = {
    "flat": lambda: flat(),
    "several rows": lambda: flat(4),
    "nested": nested,
    "rows without names": lambda: v1(*rows(2), predictions=RANDOM.random(2).tolist()),
    "nothing measured": lambda: v1([None, 1, True], predictions=[[0.5]]),
    "no answer": lambda: Exchange("", Body(orjson.dumps({"instances": rows(3)}))),
}
ALONE = {
    "of named rows": lambda: v1({"x_0": 1, "x_1": 2, "x_2": 3}, predictions=[1]),
    "a frame": lambda: exchange({"dataframe_split": {"data": rows(1)}}, {"predictions": [1.0]}),
    "columns": lambda: exchange({"inputs": {"x_0": [1], "x_1": [2], "x_2": [3]}}, {"predictions": [1.0]}),
    "long": lambda: flat(400),
}
WRONG = {
    "no JSON": lambda: Exchange("", Body(b"{")),
    "no object": lambda: Exchange("", Body(b"[1]")),
    "a number too few": lambda: flat(data=[1, 2]),
    "another shape": lambda: flat(shape=[1.0, 3]),
    "a negative shape": lambda: flat(shape=[-1, -3]),
    "text": lambda: flat(data=[1, 2, "3"]),
    "an unknown datatype": lambda: flat(datatype="FP99"),
    "a datatype that is none": lambda: flat(datatype=["FP32"]),
    "its bytes not there": lambda: flat(parameters={"binary_data_size": 12}),
    "a column too many": lambda: v1([1, 2, 3, 4, 5], predictions=[1]),
    "no outputs": lambda: exchange({"instances": rows(1)}, {}),
}


def lists(columns: Any) -> dict[str, list[Any]]:
    return {name: np.asarray(one, float).tolist() for name, one in columns_of(columns).items()}


@pytest.mark.parametrize("form", ONE_FORM)
def test_those_of_one_form_are_one(form: str) -> None:
    decoder, exchanges = Decoder(PROFILE), [ONE_FORM[form]() for _ in range(5)]
    [(members, found)] = decoder.together(exchanges)
    assert members == exchanges
    each = [lists(decoder.columns(one)) for one in exchanges]
    together = {name: [value for one in each for value in one[name]] for name in each[0]}
    np.testing.assert_equal(lists(found), together)


@pytest.mark.parametrize("form", [*ALONE, *WRONG])
def test_all_else_is_read_alone(form: str) -> None:
    made = (ALONE | WRONG)[form]
    assert all(found is None for _, found in Decoder(PROFILE).together([made(), made()]))


async def test_the_same_is_counted_whatever_comes_together() -> None:
    exchanges = [make() for make in [*ONE_FORM.values(), *ALONE.values(), *WRONG.values()] for _ in range(4)]
    exchanges += [v1(*rows(1), predictions=[1, 2]), v1(*rows(2), predictions=[1])]  # as many, but together
    random.Random(0).shuffle(exchanges)
    agents = [Agent(PROFILE, "m", Monitoring()) for _ in range(2)]
    for agent in agents:
        await agent.load()
    agents[0].observe_all(exchanges)
    for one in exchanges:
        agents[1].observe(one)
    first, second = agents
    assert first.exchanges == second.exchanges
    assert first.exchanges["failed"] > first.exchanges["other model"] == 0
    assert first.ready().rows == second.ready().rows
    assert first.observer.skipped_rows == second.observer.skipped_rows
    for agent in agents:
        agent.close(finish=False)
