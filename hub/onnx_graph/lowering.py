"""Operators of traced networks that have no float64 form, composed from ones that do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from agents.errors import ExportError
from hub.onnx_graph.activations import emit_one_and_exp
from hub.onnx_graph.convolution import Convolution, emit_convolution
from hub.onnx_graph.graph import GraphBuilder, Tensor

__all__ = ["TracedNode", "lower"]


@dataclass(frozen=True)
class TracedNode:
    """A node as torch wrote it, with what is known about its inputs."""

    node: onnx.NodeProto
    names: list[str]
    """Of the inputs, in our graph."""
    constants: list[npt.NDArray[Any] | None]
    """The values of inputs that are constants."""
    shapes: list[tuple[int, ...] | None]
    """The shapes of inputs without their batch axis, where they are known."""

    def attributes(self) -> dict[str, Any]:
        """Return the attributes as Python values."""
        return {entry.name: helper.get_attribute_value(entry) for entry in self.node.attribute}

    def input(self, index: int) -> Tensor:
        """Return an input that changes with the observation.

        :raises ExportError: its shape is not known before it runs.
        """
        shape = self.shapes[index]
        if shape is None:
            raise ExportError(
                f"The shape that {self.node.op_type} is given is not known; export float32 alone, "
                "or write the layer with fixed shapes."
            )
        return Tensor(self.names[index], shape)

    def constant(self, index: int) -> npt.NDArray[Any]:
        """Return the value of a constant input.

        :raises ExportError: it is computed from the observation.
        """
        value = self.constants[index]
        if value is None:
            raise ExportError(
                f"The weights of {self.node.op_type} depend on the observation; export float32 "
                "alone."
            )
        return value


def lower(builder: GraphBuilder, traced: TracedNode, scope: str) -> str | None:
    """Write a node in other operators if float64 needs that; returns its output's name."""
    emit = _LOWERED.get(traced.node.op_type) if builder.dtype == np.float64 else None
    return None if emit is None else emit(builder, traced, scope).name


def _gemm(builder: GraphBuilder, traced: TracedNode, scope: str) -> Tensor:
    """As MatMul and Add, which older ONNX Runtimes do not fuse into an operator for float32."""
    attributes = traced.attributes()
    weight = traced.constant(1)
    weight = weight.T if attributes.get("transB") else weight
    if attributes.get("transA"):
        raise ExportError("A product with the transposed batch has no meaning for one observation.")
    weight = weight * attributes.get("alpha", 1.0)
    shape = (weight.shape[1],)
    name = builder.real(f"{scope}.weight", weight)
    product = builder.node("MatMul", [traced.names[0], name], f"{scope}/product", shape)
    if len(traced.names) < 3:
        return product
    bias = builder.real(f"{scope}.bias", traced.constant(2) * attributes.get("beta", 1.0))
    return builder.node("Add", [product, bias], f"{scope}/sum", shape)


def _conv(builder: GraphBuilder, traced: TracedNode, scope: str) -> Tensor:
    attributes = traced.attributes()
    image, kernel = traced.input(0), traced.constant(1)
    n_axes = kernel.ndim - 2
    convolution = Convolution(
        kernel=kernel,
        bias=traced.constant(2) if len(traced.names) > 2 else np.zeros(len(kernel)),
        strides=attributes.get("strides", [1] * n_axes),
        pads=_pads(attributes, image.shape[1:], kernel.shape[2:]),
        dilations=attributes.get("dilations", [1] * n_axes),
        groups=attributes.get("group", 1),
    )
    return emit_convolution(builder, convolution, image, f"{scope}/conv")


def _pads(
    attributes: Mapping[str, Any], image: Sequence[int], extent: Sequence[int]
) -> list[tuple[int, int]]:
    """Return the zeros before and after each axis, as numbers or as ``auto_pad`` gives them."""
    n_axes = len(extent)
    mode = attributes.get("auto_pad", b"NOTSET")
    if mode not in (b"SAME_UPPER", b"SAME_LOWER"):
        pads = attributes.get("pads", [0] * 2 * n_axes)
        return list(zip(pads[:n_axes], pads[n_axes:], strict=True))
    axes = zip(
        image,
        extent,
        attributes.get("strides", [1] * n_axes),
        attributes.get("dilations", [1] * n_axes),
        strict=True,
    )
    found = []
    for length, size, stride, dilation in axes:
        n_out = -(-length // stride)
        total = max((n_out - 1) * stride + dilation * (size - 1) + 1 - length, 0)
        halves = (total // 2, total - total // 2)
        found.append(halves if mode == b"SAME_UPPER" else halves[::-1])
    return found


def _global_average(builder: GraphBuilder, traced: TracedNode, scope: str) -> Tensor:
    image = traced.input(0)
    axes = list(range(2, len(image.shape) + 1))
    shape = (image.shape[0], *[1] * (len(image.shape) - 1))
    return builder.node("ReduceMean", [image], f"{scope}/average", shape, axes=axes, keepdims=1)


def _sigmoid(builder: GraphBuilder, traced: TracedNode, scope: str) -> Tensor:
    """As a quotient: a product with its input would be fused, see ``activations``."""
    value = Tensor(traced.names[0], traced.shapes[0] or ())
    one = builder.real("one", 1.0)
    divisor = emit_one_and_exp(builder, value, f"{scope}/sigmoid")
    return builder.node("Div", [one, divisor], f"{scope}/sigmoid", value.shape)


_LOWERED: Mapping[str, Callable[[GraphBuilder, TracedNode, str], Tensor]] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average,
    "Sigmoid": _sigmoid,
}
