"""The builder: unique names, and what ONNX Runtime can compute in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from agents.errors import ExportError
from hub.onnx_graph.graph import FLOAT64_OPERATORS, GraphBuilder

# What an operator takes beside one real matrix: attributes, and further inputs.
_ATTRIBUTES: dict[str, dict[str, Any]] = {
    "ArgMax": {"axis": 1},
    "Cast": {"to": TensorProto.FLOAT},
    "Concat": {"axis": 1},
    "Constant": {"value": numpy_helper.from_array(np.ones(2))},
    "ConstantOfShape": {"value": numpy_helper.from_array(np.ones(1))},
    "Einsum": {"equation": "ij->j"},
    "Gather": {"axis": 1},
    "MaxPool": {"kernel_shape": [2, 2]},
    "ReduceMax": {"axes": [1]},
    "ReduceMean": {"axes": [1]},
    "Transpose": {"perm": [1, 0]},
}
_BINARY = (
    *("Add", "Concat", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
    *("MatMul", "Max", "Min", "Mul", "Pow", "Sub", "Sum"),
)
_TRUE = np.ones((3, 3), dtype=bool)
_INPUTS: dict[str, list[Any]] = {
    **{operator: ["x", np.ones((3, 3))] for operator in _BINARY},
    **{operator: [_TRUE, _TRUE] for operator in ("And", "Or")},
    "BatchNormalization": ["x", *[np.ones(3)] * 4],
    "Clip": ["x", np.array(-1.0), np.array(1.0)],
    "Constant": [],
    "ConstantOfShape": [np.array([2])],
    "Expand": ["x", np.array([2, 3, 3])],
    "Gather": ["x", np.array([1, 0])],
    "MaxPool": [np.ones((1, 1, 4, 4))],
    "Not": [_TRUE],
    "Pad": ["x", np.array([0, 0, 0, 1])],
    "ReduceSum": ["x", np.array([1])],
    "Reshape": ["x", np.array([9])],
    "Slice": ["x", np.array([0]), np.array([2])],
    "Squeeze": [np.ones((1, 3))],
    "Tile": ["x", np.array([2, 1])],
    "Unsqueeze": ["x", np.array([0])],
    "Where": [np.eye(3) > 0, "x", "x"],
}


@pytest.mark.parametrize("operator", sorted(FLOAT64_OPERATORS))
def test_float64_operators_run(operator: str) -> None:
    inputs, constants = [], []
    for value in _INPUTS.get(operator, ["x"]):
        inputs.append(value if isinstance(value, str) else f"c{len(constants)}")
        if not isinstance(value, str):
            constants.append(numpy_helper.from_array(value, inputs[-1]))
    node = helper.make_node(operator, inputs, ["y"], **_ATTRIBUTES.get(operator, {}))
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [3, 3])],
        [onnx.ValueInfoProto(name="y")],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    session = onnxruntime.InferenceSession(
        onnx.shape_inference.infer_shapes(model, strict_mode=True).SerializeToString(),
        providers=["CPUExecutionProvider"],
    )
    values = np.arange(1.0, 10.0).reshape(3, 3)
    assert np.all(np.isfinite(session.run(None, {"x": values})[0]))


def test_float64_refuses_the_rest() -> None:
    builder = GraphBuilder("float64")
    value = builder.input("x", TensorProto.DOUBLE, (2,))
    with pytest.raises(ExportError, match="Elu, which ONNX Runtime cannot compute in float64"):
        builder.node("Elu", [value], "y", (2,))


def test_names_are_given_once() -> None:
    builder = GraphBuilder("float32")
    value = builder.input("x", TensorProto.FLOAT, (2,))
    assert builder.real("x", 1.0) == "x_1"
    assert builder.node("Tanh", [value], "x", (2,)).name == "x_2"
    with pytest.raises(ExportError, match="'x' is needed twice"):
        builder.output("x", TensorProto.FLOAT, value)


def test_an_input_can_be_an_output() -> None:
    builder = GraphBuilder("float32")
    builder.output("y", TensorProto.FLOAT, builder.input("x", TensorProto.FLOAT, (2,)))
    model = builder.model({"k": "v"}, "copies")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    values = np.array([[1.0, 2.0]], dtype=np.float32)
    np.testing.assert_array_equal(session.run(None, {"x": values})[0], values)
    assert session.get_modelmeta().custom_metadata_map == {"k": "v"}
