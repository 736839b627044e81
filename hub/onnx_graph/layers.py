"""torch layers as ONNX nodes.

The layers of SB3's own networks are written directly; any other module is traced by torch
(:mod:`hub.onnx_graph.torch_modules`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from hub.onnx_graph.activations import ACTIVATIONS
from hub.onnx_graph.convolution import Convolution, emit_convolution
from hub.onnx_graph.graph import GraphBuilder, Tensor
from hub.onnx_graph.torch_modules import emit_traced

__all__ = ["emit_flatten", "emit_module", "emit_modules", "weights"]


def emit_modules(
    builder: GraphBuilder, modules: Sequence[nn.Module], value: Tensor, scope: str
) -> Tensor:
    """Apply ``modules`` one after the other; tensors are named ``scope.0``, ``scope.1`` …"""
    for index, module in enumerate(modules):
        value = emit_module(builder, module, value, f"{scope}.{index}")
    return value


def emit_module(builder: GraphBuilder, module: nn.Module, value: Tensor, scope: str) -> Tensor:
    """Apply one module to ``value``.

    :raises ExportError: torch cannot trace it, or a float64 graph cannot hold it.
    """
    emit = _LAYERS.get(type(module))
    if emit is None or module._forward_hooks or module._forward_pre_hooks:
        return emit_traced(builder, module, value, scope)
    return emit(builder, module, value, scope)


def weights(parameter: torch.Tensor) -> npt.NDArray[Any]:
    """Return a parameter as an array."""
    array: npt.NDArray[Any] = parameter.detach().cpu().numpy()
    return array


def emit_flatten(builder: GraphBuilder, value: Tensor, scope: str) -> Tensor:
    """Make one vector of each observation."""
    if len(value.shape) == 1:
        return value
    return builder.node("Flatten", [value], f"{scope}/flat", (prod(value.shape),), axis=1)


def _identity(builder: GraphBuilder, module: nn.Module, value: Tensor, scope: str) -> Tensor:
    return value


def _sequential(builder: GraphBuilder, module: Any, value: Tensor, scope: str) -> Tensor:
    return emit_modules(builder, tuple(module), value, scope)


def _flatten(builder: GraphBuilder, module: nn.Flatten, value: Tensor, scope: str) -> Tensor:
    if (module.start_dim, module.end_dim) != (1, -1):
        return emit_traced(builder, module, value, scope)
    return emit_flatten(builder, value, scope)


def _linear(builder: GraphBuilder, module: nn.Linear, value: Tensor, scope: str) -> Tensor:
    """Return ``x Wᵀ + b``, as MatMul and Add.

    Gemm would be one node less, but older versions of ONNX Runtime fuse it with the activation
    into an operator that knows no float64.
    """
    weight = builder.real(f"{scope}.weight", weights(module.weight).T)
    shape = (*value.shape[:-1], module.out_features)
    parameters = dict(module.named_parameters())
    if "bias" not in parameters:
        return builder.node("MatMul", [value, weight], scope, shape)
    bias = builder.real(f"{scope}.bias", weights(parameters["bias"]))
    product = builder.node("MatMul", [value, weight], f"{scope}/product", shape)
    return builder.node("Add", [product, bias], scope, shape)


def _conv2d(builder: GraphBuilder, module: nn.Conv2d, value: Tensor, scope: str) -> Tensor:
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        return emit_traced(builder, module, value, scope)
    parameters = {name: weights(parameter) for name, parameter in module.named_parameters()}
    convolution = Convolution(
        kernel=parameters["weight"],
        bias=parameters.get("bias", np.zeros(module.out_channels)),
        strides=module.stride,
        pads=[(pad, pad) for pad in module.padding],
        dilations=module.dilation,
        groups=module.groups,
    )
    return emit_convolution(builder, convolution, value, scope)


_LAYERS: dict[type[nn.Module], Callable[[GraphBuilder, Any, Tensor, str], Tensor]] = {
    **ACTIVATIONS,
    nn.Conv2d: _conv2d,
    nn.Dropout: _identity,
    nn.Flatten: _flatten,
    nn.Identity: _identity,
    nn.Linear: _linear,
    nn.Sequential: _sequential,
}
