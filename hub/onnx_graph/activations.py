"""Activation functions as ONNX nodes.

ONNX Runtime computes Tanh, Relu and Sigmoid in float32 and float64, but Elu, LeakyRelu, Selu and
Softplus in float32 only. Those are composed from what it has in both, so that the float64 file is
the same graph as the float32 file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from hub.onnx_graph.graph import GraphBuilder, Tensor

__all__ = ["ACTIVATIONS", "emit_clip", "emit_one_and_exp"]

Activation = Callable[[GraphBuilder, Any, Tensor, str], Tensor]


def emit_clip(
    builder: GraphBuilder, value: Tensor, low: float, high: float, scope: str, name: str
) -> Tensor:
    """Return ``value`` within ``[low, high]``."""
    bounds = [builder.real(f"{scope}.low", low), builder.real(f"{scope}.high", high)]
    return builder.node("Clip", [value, *bounds], name, value.shape)


def _operator(operator: str) -> Activation:
    def emit(builder: GraphBuilder, module: Any, value: Tensor, scope: str) -> Tensor:
        return builder.node(operator, [value], scope, value.shape)

    return emit


def _elu(builder: GraphBuilder, module: nn.ELU, value: Tensor, scope: str) -> Tensor:
    """``max(x, 0) + alpha (exp(min(x, 0)) − 1)``."""
    shape = value.shape
    zero, one = builder.real("zero", 0.0), builder.real("one", 1.0)
    negative = builder.node("Min", [value, zero], f"{scope}/negative", shape)
    grown = builder.node("Exp", [negative], f"{scope}/exp", shape)
    bent = builder.node("Sub", [grown, one], f"{scope}/bent", shape)
    if module.alpha != 1.0:
        alpha = builder.real(f"{scope}.alpha", module.alpha)
        bent = builder.node("Mul", [bent, alpha], f"{scope}/alpha", shape)
    positive = builder.node("Relu", [value], f"{scope}/positive", shape)
    return builder.node("Add", [positive, bent], scope, shape)


def _silu(builder: GraphBuilder, module: nn.SiLU, value: Tensor, scope: str) -> Tensor:
    """``x / (1 + exp(−x))``.

    As ``x sigmoid(x)`` ONNX Runtime up to 1.20 would fuse it into an operator without float64.
    """
    return builder.node("Div", [value, emit_one_and_exp(builder, value, scope)], scope, value.shape)


def emit_one_and_exp(builder: GraphBuilder, value: Tensor, scope: str) -> Tensor:
    """Return ``1 + exp(−x)``, what the logistic function divides by."""
    one = builder.real("one", 1.0)
    negated = builder.node("Neg", [value], f"{scope}/negated", value.shape)
    grown = builder.node("Exp", [negated], f"{scope}/exp", value.shape)
    return builder.node("Add", [grown, one], f"{scope}/one_and_exp", value.shape)


def _leaky_relu(builder: GraphBuilder, module: nn.LeakyReLU, value: Tensor, scope: str) -> Tensor:
    """``max(x, 0) + negative_slope min(x, 0)``."""
    zero = builder.real("zero", 0.0)
    slope = builder.real(f"{scope}.slope", module.negative_slope)
    negative = builder.node("Min", [value, zero], f"{scope}/negative", value.shape)
    leak = builder.node("Mul", [negative, slope], f"{scope}/leak", value.shape)
    positive = builder.node("Relu", [value], f"{scope}/positive", value.shape)
    return builder.node("Add", [positive, leak], scope, value.shape)


def _hardtanh(builder: GraphBuilder, module: nn.Hardtanh, value: Tensor, scope: str) -> Tensor:
    return emit_clip(builder, value, module.min_val, module.max_val, scope, scope)


ACTIVATIONS: dict[type[nn.Module], Activation] = {
    nn.ELU: _elu,
    nn.Hardtanh: _hardtanh,
    nn.LeakyReLU: _leaky_relu,
    nn.ReLU: _operator("Relu"),
    nn.ReLU6: _hardtanh,
    nn.SiLU: _silu,
    nn.Sigmoid: _operator("Sigmoid"),
    nn.Tanh: _operator("Tanh"),
}
