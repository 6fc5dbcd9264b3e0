"""transform.json: what is wrong in it is refused with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import driftline as dl
from driftline.errors import BadRequest


def _changed(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("format",), "other", "format: expected 'driftline transform'"),
        (("version",), 2, "version: expected 1 at most, got 2"),
        (("steps",), [], "steps: expected a list"),
        (("steps", 1, "step"), "magic", r"steps\[1\]: step: expected one of .* got 'magic'"),
        (("steps", 0, "centre"), 3, r"steps\[0\]: standardise: centre: expected true or false, got 3"),
        (("steps", 0, "color"), 3, r"steps\[0\]: expected .* got 'color'"),
        (("steps", 0, "fitted"), {}, r"steps\[0\]\.fitted\.mean: expected a number, got None"),
        (("steps", 0, "fitted", "mean"), "NaN", r"steps\[0\]\.fitted\.mean: expected a number"),
        (("steps", 1, "fitted", "categories"), ["a", "a"], r"steps\[1\]\.fitted\.categories"),
        (("steps", 1, "fitted", "categories"), [[], {}], r"steps\[1\]\.fitted\.categories"),
        (("steps", 0, "column"), "z", r"inputs"),
        (("inputs", 0, "kind"), "image", r"inputs\[0\]"),
        (("inputs", 0, "kind"), [], r"inputs\[0\]"),
        (("steps", 0, "step"), [], r"steps\[0\]: step: expected one of"),
        (("steps", 0, "column"), [], r"steps\[0\]: column: expected one, got \(\)"),
        (("steps", 1, "column"), ["s", "t"], r"steps\[1\]: column: expected one"),
        (("steps", 1, "fitted", "categories"), [1.5], r"steps\[1\]: one_hot of 's': expected strings as"),
        (("steps", 1, "fitted", "categories", 0), float("inf"), r"steps\[1\]\.fitted\.categories\[0\]"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_the_place(
    small: dl.Transform, tmp_path: Path, path: tuple[Any, ...], value: Any, words: str
) -> None:
    file = tmp_path / "transform.json"
    file.write_text(json.dumps(_changed(json.loads(json.dumps(small.to_dict())), path, value)))
    with pytest.raises(BadRequest, match=words) as caught:
        dl.Transform.load(file)
    assert str(file) in str(caught.value)


def _paths(document: Any) -> list[tuple[Any, ...]]:
    """Where all the values of a document stand."""
    if not isinstance(document, (dict, list)):
        return [()]
    items = document.items() if isinstance(document, dict) else enumerate(document)
    return [(), *((key, *path) for key, value in items for path in _paths(value))]


def test_a_file_with_anything_wrong_in_it_is_refused_or_works() -> None:
    columns = {"x": [1.0, 2.0], "s": ["a", "b"], "t": ["2024-01-01", "2024-01-02"]}
    steps = [
        *(dl.Impute("x"), dl.Quantile("x", into="q"), dl.Bucketise("x"), dl.Cross(["s", "x"])),
        *(dl.Equals("s", "a", into="a"), dl.Linear(["a", "x"], [1, 2], into="sum")),
        dl.Piecewise("sum", [0, 1], [[0, 1], [2, 3], [4, 5]], 2),
        *(dl.OneHot("s_x_x"), dl.TargetMean("s"), dl.DatePart("t"), dl.Cyclic("t_hour")),
    ]
    transform = dl.Transform(steps).fit(columns, [0, 1])
    text = json.dumps(transform.to_dict())
    for path in _paths(json.loads(text))[1:]:
        for value in ([], {}, None, -1, 10**30, float("nan"), True, "x", ["x"], [[1]], [["x", 1, 2]]):
            try:
                loaded = dl.Transform.from_dict(_changed(json.loads(text), path, value))
                assert loaded.apply(columns).shape == (2, loaded.width)
            except BadRequest:
                pass


def test_true_and_false_are_categories(tmp_path: Path) -> None:
    transform = dl.Transform([dl.OneHot("x", (True, False))]).fit({"x": [True, False]})
    transform.save(tmp_path / "transform.json")
    assert dl.Transform.load(tmp_path / "transform.json").apply({"x": [False, True]}).tolist() == [
        [0, 1],
        [1, 0],
    ]


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "transform.json").write_text(text)
    with pytest.raises(BadRequest, match=r"transform\.json"):
        dl.Transform.load(tmp_path / "transform.json")
    with pytest.raises(BadRequest, match=r"nowhere/transform\.json: No such file or directory$"):
        dl.Transform([dl.Pass("a")]).fit({"a": [1.0]}).save(tmp_path / "nowhere" / "transform.json")
    with pytest.raises(BadRequest, match="no such file"):
        dl.Transform.load(tmp_path / "nowhere.json")
