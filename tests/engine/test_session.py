from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import ONNX_TYPES, Shape, gather, identity, save_model, scale

from driftline.engine.cuda.device import PROVIDER
from driftline.engine.session import COLUMNS, CPU, Session
from driftline.errors import BadRequest, ConfigError, ModelError

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def raw_model(
    path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], *initializers: Any
) -> Path:
    """Write a model that the checker would not let pass, or that `save_model` has no words for."""
    graph = helper.make_graph(nodes, "graph", inputs, outputs, list(initializers))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


# -- signatures ---------------------------------------------------------------------------------


@pytest.mark.parametrize("datatype", ONNX_TYPES)
def test_every_datatype_is_told_and_computed(tmp_path: Path, datatype: str) -> None:
    session = Session(identity(tmp_path / "m.onnx", datatype, ("N", 2)))
    (x,), (y,) = session.signature.inputs, session.signature.outputs
    assert (x.name, x.datatype.name, x.shape) == ("x", datatype, (-1, 2))
    assert (y.name, y.datatype.name, y.shape) == ("y", datatype, (-1, 2))
    values = [["é\0", ""]] if datatype == "BYTES" else [[0, 1]]
    array = np.array(values, x.datatype.dtype)
    outputs = session.run({"x": array}, ["y"])
    assert outputs["y"].dtype == array.dtype
    assert outputs["y"].tolist() == array.tolist()


@pytest.mark.parametrize(
    ("shape", "told", "batched"),
    [
        (("N", 3), (-1, 3), True),
        ((None, 3), (-1, 3), True),
        (("N",), (-1,), True),
        (("N", "M"), (-1, -1), True),
        ((4, 3), (4, 3), False),
        ((4, "M"), (4, -1), False),
        ((), (), False),
    ],
)
def test_the_first_dimension_counts_rows_if_it_is_free(
    tmp_path: Path, shape: Shape, told: tuple[int, ...], batched: bool
) -> None:
    signature = Session(identity(tmp_path / "m.onnx", "FP32", shape)).signature
    assert (signature.inputs[0].shape, signature.batched) == (told, batched)


@pytest.mark.parametrize(
    ("a", "b", "y", "batched"),
    [
        (("N", 3), ("N", 3), ("N", 3), True),
        ((None, 3), (None, 3), (None, 3), True),
        (("N", 3), (None, 3), ("N", 3), True),
        (("N", 3), ("N", 3), ("K", 3), True),
        (("N", 3), ("M", 3), ("N", 3), False),
        (("N", 3), (1, 3), ("N", 3), False),
        (("N", 3), (), ("N", 3), False),
        (("N", 3), ("N", 3), (5, 3), False),
    ],
)
def test_the_first_dimensions_of_several_tensors_must_agree(
    tmp_path: Path, a: Shape, b: Shape, y: Shape, batched: bool
) -> None:
    path = save_model(
        tmp_path / "m.onnx",
        [helper.make_node("Add", ["a", "b"], ["y"])],
        {"a": (FLOAT, a), "b": (FLOAT, b)},
        {"y": (FLOAT, y)},
    )
    signature = Session(path).signature
    assert [spec.name for spec in signature.inputs] == ["a", "b"]
    assert signature.batched is batched


def test_a_model_without_inputs_has_no_rows(tmp_path: Path) -> None:
    node = helper.make_node("RandomNormal", [], ["y"], shape=[2, 3])
    path = save_model(tmp_path / "m.onnx", [node], {}, {"y": (FLOAT, (None, 3))})
    session = Session(path)
    assert not session.signature.batched
    assert session.run({}, ["y"])["y"].shape == (2, 3)


def test_initializers_are_no_inputs(tmp_path: Path) -> None:
    tensor = helper.make_tensor_value_info
    factor = numpy_helper.from_array(np.array(2, np.float32), "factor")
    path = raw_model(
        tmp_path / "m.onnx",
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        [tensor("x", FLOAT, ["N"]), tensor("factor", FLOAT, [])],
        [tensor("y", FLOAT, ["N"])],
        factor,
    )
    assert [spec.name for spec in Session(path).signature.inputs] == ["x"]


def test_a_type_that_the_protocol_has_not_is_refused_by_tensor(tmp_path: Path) -> None:
    sequence = helper.make_value_info(
        "y", helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, ["N"]))
    )
    path = raw_model(
        tmp_path / "m.onnx",
        [helper.make_node("SplitToSequence", ["x"], ["y"])],
        [helper.make_tensor_value_info("x", FLOAT, ["N"])],
        [sequence],
    )
    with pytest.raises(ModelError, match=r"m\.onnx: tensor 'y': expected one of BOOL, .*, got seq\(tensor"):
        Session(path)


# -- maps ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("labels", [[0, 1, 2], ["a", "b", "c"]])
def test_a_classifier_of_skl2onnx_gives_its_scores_as_a_matrix(tmp_path: Path, labels: list[Any]) -> None:
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    classifier = LogisticRegression().fit(x, labels * 20)
    path = tmp_path / "m.onnx"
    path.write_bytes(to_onnx(classifier, x[:1]).SerializeToString())
    session = Session(path)
    label, scores = session.signature.outputs
    assert session.signature.batched
    assert (scores.datatype.name, scores.shape) == ("FP32", (-1, -1))
    assert label.datatype.name == ("BYTES" if labels == ["a", "b", "c"] else "INT64")
    outputs = session.run({"X": x}, [label.name, scores.name])
    assert outputs[label.name].tolist() == classifier.predict(x).tolist()
    np.testing.assert_allclose(outputs[scores.name], classifier.predict_proba(x), atol=1e-6)
    assert outputs[scores.name].dtype == np.float32
    assert session.run({"X": x[:0]}, [scores.name])[scores.name].ndim == 2


def test_scores_are_in_the_order_of_their_labels(tmp_path: Path) -> None:
    maps = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(FLOAT, []))
    path = raw_model(
        tmp_path / "m.onnx",
        [helper.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_strings=["b", "c", "a"])],
        [helper.make_tensor_value_info("x", FLOAT, ["N", 3])],
        [helper.make_value_info("y", helper.make_sequence_type_proto(maps))],
    )
    session = Session(path)
    assert session.signature.batched
    outputs = session.run({"x": np.array([[1, 2, 3], [4, 5, 6]], np.float32)}, ["y"])
    assert outputs["y"].tolist() == [[3, 1, 2], [6, 4, 5]]


# -- loading ------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"no model at all", b"\x08\x08" * 50, "truncated", None])
def test_a_file_that_is_no_model_is_refused_in_one_line(tmp_path: Path, content: bytes | str | None) -> None:
    path = tmp_path / "m.onnx"
    if content == "truncated":
        whole = scale(path, 2).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"^\S*m\.onnx: .+$") as caught:
        Session(path)
    assert "\n" not in str(caught.value)


def external(folder: Path, location: str) -> Path:
    """A model `y = x * w` whose `w` lies in another file."""
    weights = np.arange(3, dtype=np.float32)
    tensor = numpy_helper.from_array(weights, "w")
    onnx.external_data_helper.set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    folder.mkdir(exist_ok=True)
    return raw_model(
        folder / "m.onnx",
        [helper.make_node("Mul", ["x", "w"], ["y"])],
        [helper.make_tensor_value_info("x", FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", FLOAT, ["N", 3])],
        tensor,
    )


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('["a", "b", "c"]', ("a", "b", "c")),
        ('["a", "b"]', None),
        ('["a", "b", "a"]', None),
        ('["a", "b", ""]', None),
        ("a,b,c", None),
        ("3", None),
        ("[" * 100_000, None),
    ],
)
def test_a_matrix_knows_the_names_of_its_columns(
    tmp_path: Path, text: str, names: tuple[str, ...] | None
) -> None:
    path = identity(tmp_path / "model.onnx")
    model = onnx.load(path)
    model.metadata_props.add(key=COLUMNS, value=text)
    onnx.save(model, path)
    if names is None:
        with pytest.raises(
            ModelError, match=r"'driftline.columns': expected a different name for each column of x \[-1, 3\]"
        ):
            Session(path)
    else:
        assert [spec.column_names for spec in Session(path).signature.inputs] == [names]


def test_external_data_is_read_beside_the_model(tmp_path: Path) -> None:
    path = external(tmp_path / "m", "weights.bin")
    with pytest.raises(ModelError, match=r"m\.onnx: .*weights\.bin"):
        Session(path)
    (path.parent / "weights.bin").write_bytes(np.arange(3, dtype=np.float32).tobytes())
    assert Session(path).run({"x": np.ones((1, 3), np.float32)}, ["y"])["y"].tolist() == [[0, 1, 2]]


def test_external_data_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(12))
    for location in ("../weights.bin", str(tmp_path / "weights.bin")):
        with pytest.raises(ModelError, match=r"m\.onnx: "):
            Session(external(tmp_path / "m", location))


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this machine has CUDA"
)
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_gpu_is_not_silently_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(ConfigError, match=r"^device 'cuda': ONNX Runtime can't use CUDAEx"):
        Session(identity(tmp_path / "m.onnx"), "cuda", providers=[(PROVIDER, {"device_id": "0"})])


def test_why_a_gpu_can_not_be_used_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    create = onnxruntime.InferenceSession._create_inference_session

    def fail(self: Any, providers: Any, *rest: Any) -> None:
        if providers and PROVIDER in providers[0]:
            raise RuntimeError("CUDA failure 2: out of memory")
        create(self, providers, *rest)

    monkeypatch.setattr(onnxruntime.InferenceSession, "_create_inference_session", fail)
    monkeypatch.setattr(onnxruntime.InferenceSession, "_fallback_providers", [CPU], raising=False)
    with pytest.raises(ModelError, match=r"CUDA failure 2: out of memory$"):
        Session(identity(tmp_path / "m.onnx"), "cuda", providers=[(PROVIDER, {"device_id": "0"})])
    assert capsys.readouterr().out == ""


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_only_a_gpu_quiets_what_onnx_runtime_warns_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    severities: list[int] = []
    monkeypatch.setattr(onnxruntime, "set_default_logger_severity", severities.append)
    Session(identity(tmp_path / "m.onnx"))
    assert severities == []
    with pytest.raises(ConfigError):
        Session(identity(tmp_path / "m.onnx"), "cuda", providers=[(PROVIDER, {"device_id": "0"})])
    assert severities == [3]


# -- running ------------------------------------------------------------------------------------


def test_only_the_named_outputs_are_computed_in_their_order(tmp_path: Path) -> None:
    session = Session(scale(tmp_path / "m.onnx", 2))
    x = np.ones((2, 3), np.float32)
    assert list(session.run({"x": x}, ["total", "y"])) == ["total", "y"]
    assert {name: array.tolist() for name, array in session.run({"x": x}, ["total"]).items()} == {
        "total": [6, 6]
    }


@pytest.mark.parametrize("layout", ["rows of none", "read-only", "transposed", "strided"])
def test_arrays_of_any_layout_are_taken(tmp_path: Path, layout: str) -> None:
    x = np.arange(18, dtype=np.float32).reshape(6, 3)
    array: Any = {
        "rows of none": x[:0],
        "read-only": np.frombuffer(x.tobytes(), np.float32).reshape(6, 3),
        "transposed": x.reshape(3, 6).T,
        "strided": x[::2],
    }[layout]
    outputs = Session(scale(tmp_path / "m.onnx", 2)).run({"x": array}, ["y", "total"])
    assert outputs["y"].tolist() == (2 * array).tolist()
    assert outputs["total"].tolist() == (2 * array).sum(axis=1).tolist()


def test_an_index_out_of_range_is_the_clients_fault(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    session = Session(gather(tmp_path / "m.onnx"))
    with pytest.raises(BadRequest, match=r"^the model refused the inputs: .*idx=99 must be within"):
        session.run({"i": np.array([1, 99])}, ["y"])
    assert session.run({"i": np.array([1])}, ["y"])["y"].tolist() == [[1]]
    assert capfd.readouterr().err == ""


def test_a_shape_that_only_the_model_knows_is_the_clients_fault(tmp_path: Path) -> None:
    path = save_model(
        tmp_path / "m.onnx",
        [helper.make_node("Add", ["a", "b"], ["y"])],
        {"a": (FLOAT, ("N", "K")), "b": (FLOAT, ("N", "L"))},
        {"y": (FLOAT, ("N", None))},
    )
    with pytest.raises((BadRequest, ModelError), match=r"^the model (refused|failed)"):
        Session(path).run({"a": np.ones((1, 2), np.float32), "b": np.ones((1, 3), np.float32)}, ["y"])


def test_a_division_by_zero_is_no_crash(tmp_path: Path) -> None:
    path = save_model(
        tmp_path / "m.onnx",
        [helper.make_node("Div", ["a", "b"], ["y"])],
        {"a": (INT64, ("N",)), "b": (INT64, ("N",))},
        {"y": (INT64, ("N",))},
    )
    session = Session(path)
    with pytest.raises(ModelError, match=r"^the model failed: .*division by zero"):
        session.run({"a": np.array([1]), "b": np.array([0])}, ["y"])
    assert session.run({"a": np.array([6]), "b": np.array([3])}, ["y"])["y"].tolist() == [2]


def test_nobody_is_told_of_a_model(tmp_path: Path) -> None:
    model = identity(tmp_path / "m.onnx")
    code = f"from driftline import Model; Model.load({str(model)!r})"
    left_out = ("CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    home = tmp_path / "home"
    home.mkdir()
    subprocess.run([sys.executable, "-c", code], check=True, env=environment | {"HOME": str(home)})
    # What is to be sent is kept in a folder there first.
    assert not list(home.rglob("Microsoft"))
