"""Writing an ONNX graph node by node, in one floating-point type throughout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

from agents.errors import ExportError

__all__ = ["FLOAT64_OPERATORS", "IR_VERSION", "OPSET", "FloatType", "GraphBuilder", "Tensor"]

# Old enough for the runtimes that robots, game engines and OpenCV carry.
OPSET = 15
IR_VERSION = 8

FloatType = Literal["float32", "float64"]

# What ONNX Runtime's CPU provider computes in float64 (tests/hub/test_onnx_graph.py tries each).
# fmt: off
FLOAT64_OPERATORS = frozenset((
    "Abs", "Add", "And", "ArgMax", "BatchNormalization", "Cast", "Ceil", "Clip", "Concat",
    "Constant", "ConstantOfShape", "Cos", "Div", "Einsum", "Equal", "Exp", "Expand",
    "Flatten", "Floor", "Gather", "Greater", "GreaterOrEqual", "Identity", "Less",
    "LessOrEqual", "Log", "LogSoftmax", "MatMul", "Max", "MaxPool", "Min", "Mul", "Neg",
    "Not", "Or", "Pad", "Pow", "Reciprocal", "ReduceL2", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceSum", "Relu", "Reshape", "Round", "Shape", "Sigmoid", "Sign", "Sin",
    "Slice", "Softmax", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "Tile", "Transpose",
    "Unsqueeze", "Where",
))
# fmt: on


@dataclass(frozen=True)
class Tensor:
    """A value in the graph."""

    name: str
    shape: tuple[int, ...]
    """Of one observation: without the batch axis."""


class GraphBuilder:
    """Collects nodes and constants; every name is given once, so the bytes are deterministic.

    :param dtype: type of all real numbers inside, and of real-valued inputs.
    """

    def __init__(self, dtype: FloatType) -> None:
        self.dtype = np.dtype(dtype)
        self.elem_type: int = helper.np_dtype_to_tensor_dtype(self.dtype)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[tuple[onnx.ValueInfoProto, str]] = []
        self._names: set[str] = set()

    def input(self, name: str, elem_type: int, shape: Sequence[int]) -> Tensor:
        """Declare an input of shape ``(batch, *shape)``."""
        self._claim(name)
        info = helper.make_tensor_value_info(name, elem_type, ["batch", *shape])
        self._inputs.append(info)
        return Tensor(name, tuple(shape))

    def output(self, name: str, elem_type: int, source: Tensor) -> None:
        """Declare an output of shape ``(batch, *source.shape)`` that holds ``source``."""
        self._claim(name)
        info = helper.make_tensor_value_info(name, elem_type, ["batch", *source.shape])
        self._outputs.append((info, source.name))

    def real(self, name: str, values: Any) -> str:
        """Add a constant of the graph's floating-point type; returns its unique name."""
        return self.constant(name, np.asarray(values).astype(self.dtype))

    def constant(self, name: str, values: np.ndarray[Any, Any]) -> str:
        """Add a constant as it is; returns its unique name."""
        name = self.unique(name)
        # A 0-d array must stay one (Clip wants its bounds so), which ascontiguousarray would not.
        self._constants[name] = numpy_helper.from_array(np.array(values, order="C"), name)
        return name

    def node(
        self,
        operator: str,
        inputs: Sequence[Tensor | str],
        name: str,
        shape: Sequence[int],
        **attributes: Any,
    ) -> Tensor:
        """Add a node with one output, whose values have ``shape`` beside the batch axis."""
        output = self.unique(name)
        names = [value.name if isinstance(value, Tensor) else value for value in inputs]
        self.add_node(operator, names, [output], **attributes)
        return Tensor(output, tuple(int(length) for length in shape))

    def add_node(
        self, operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any
    ) -> None:
        """Add a node whose output names have been made by :meth:`unique`.

        :raises ExportError: a float64 graph needs an operator that has no float64 form.
        """
        self._require_precision(operator)
        self._nodes.append(helper.make_node(operator, inputs, outputs, **attributes))

    def splice(self, node: onnx.NodeProto) -> None:
        """Add a node made elsewhere; its names are already unique here."""
        self._require_precision(node.op_type)
        self._nodes.append(node)

    def unique(self, name: str) -> str:
        """Return ``name``, with a number if it is taken, and take it."""
        candidate, number = name, 1
        while candidate in self._names:
            candidate, number = f"{name}_{number}", number + 1
        self._names.add(candidate)
        return candidate

    def model(self, metadata: Mapping[str, str], description: str) -> onnx.ModelProto:
        """Return the checked model.

        :param metadata: written as ``metadata_props``, in alphabetical order.
        :param description: one line for people who open the file in a viewer.
        """
        outputs = self._write_outputs()
        graph = helper.make_graph(
            self._nodes, "policy", self._inputs, outputs, list(self._constants.values())
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="natural-zoo",
            doc_string=description,
        )
        helper.set_model_props(model, dict(sorted(metadata.items())))
        onnx.checker.check_model(model, full_check=True)
        return model

    def _write_outputs(self) -> list[onnx.ValueInfoProto]:
        """Give what nodes compute the names of the outputs."""
        renamed: dict[str, str] = {info.name: info.name for info in self._inputs}
        for info, source in self._outputs:
            if source in renamed:
                self.add_node("Identity", [renamed[source]], [info.name])
                continue
            renamed[source] = info.name
            for node in self._nodes:
                for names in (node.input, node.output):
                    names[:] = [info.name if name == source else name for name in names]
        return [info for info, _ in self._outputs]

    def _claim(self, name: str) -> None:
        if name in self._names:
            raise ExportError(
                f"The name '{name}' is needed twice in the ONNX graph; rename that key of the "
                "Dict observation."
            )
        self._names.add(name)

    def _require_precision(self, operator: str) -> None:
        if self.dtype == np.float64 and operator not in FLOAT64_OPERATORS:
            raise ExportError(
                f"The network needs the operator {operator}, which ONNX Runtime cannot compute in "
                "float64; export float32 alone, or train with other layers (Tanh, ReLU, ELU, SiLU)."
            )
