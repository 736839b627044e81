"""From the network's output to the action that goes into ``env.step``."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from onnx import TensorProto

from hub.onnx_graph.activations import emit_clip
from hub.onnx_graph.graph import GraphBuilder, Tensor

__all__ = ["action_bounds", "action_postprocess", "action_resolution", "emit_actions"]

_RESOLUTION_BITS = 20

Bounds = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


def action_postprocess(space: spaces.Space[Any], *, squashed: bool) -> str:
    """Say in a word or two what the graph does to the network's output."""
    if isinstance(space, spaces.Box):
        return "tanh+unscale in-graph" if squashed else "clip in-graph"
    if isinstance(space, spaces.MultiBinary):
        return "threshold in-graph"
    return "argmax in-graph"


def emit_actions(
    builder: GraphBuilder, space: spaces.Space[Any], value: Tensor, *, squashed: bool
) -> None:
    """Declare the output ``actions``.

    :param value: the mean (Box), the logits, or a value per choice (Discrete).
    :param squashed: the mean goes through tanh and is stretched to the bounds, not clipped.
    """
    if isinstance(space, spaces.Box):
        _emit_box(builder, space, value, squashed=squashed)
    elif isinstance(space, spaces.Discrete):
        actions = builder.node("ArgMax", [value], "choice", (), axis=1, keepdims=0)
        builder.output("actions", TensorProto.INT64, actions)
    elif isinstance(space, spaces.MultiDiscrete):
        actions = _choices(builder, [int(n) for n in space.nvec], value)
        builder.output("actions", TensorProto.INT64, actions)
    else:
        zero = builder.real("zero", 0.0)
        likely = builder.node("Greater", [value, zero], "likely", value.shape)
        actions = builder.node("Cast", [likely], "choice", value.shape, to=TensorProto.INT8)
        builder.output("actions", TensorProto.INT8, actions)


def action_bounds(space: spaces.Box) -> Bounds:
    """Return ``low`` and ``high`` in float32, flat, never outside the space's own bounds.

    The bounds of a float64 space lie between float32 numbers: 0.1 would be rounded to
    0.10000000149, which the space does not contain.
    """
    exact_low, exact_high = space.low.ravel(), space.high.ravel()
    low, high = exact_low.astype(np.float32), exact_high.astype(np.float32)
    infinity = np.float32(np.inf)
    low = np.where(low < exact_low, np.nextafter(low, infinity), low)
    high = np.where(high > exact_high, np.nextafter(high, -infinity), high)
    return low.astype(np.float32), high.astype(np.float32)


def action_resolution(space: spaces.Box) -> npt.NDArray[np.float64]:
    """Return what the actions of a float64 file are multiples of, one number per element.

    ``2⁻²⁰``, or that part of the bound (rounded up to a power of two) if it is smaller than 1.

    Runtimes differ by about 1e-15, and a rounding gives different results where a boundary lies
    between two of them. Towards zero float32 has ever more boundaries, which would make one number
    in 10⁷ differ; with this grid it is at most one in 3·10⁹ (docs/onnx.md). A millionth of the
    bound is less than any actuator resolves.
    """
    low, high = action_bounds(space)
    scale = np.maximum(np.abs(low), np.abs(high)).astype(np.float64)
    is_small = (scale > 0.0) & (scale < 1.0)
    exponent = np.ceil(np.log2(np.where(is_small, scale, 1.0)))
    return np.asarray(np.exp2(exponent - _RESOLUTION_BITS), dtype=np.float64)


def _emit_box(builder: GraphBuilder, space: spaces.Box, value: Tensor, *, squashed: bool) -> None:
    low, high = action_bounds(space)
    if squashed:
        value = _unscaled(builder, value, low, high)
    if builder.dtype == np.float64:
        value = _on_grid(builder, value, action_resolution(space))
    if builder.dtype == np.float64 or not squashed:
        value = _clipped(builder, value, low, high)
    if builder.dtype == np.float64:
        value = builder.node("Cast", [value], "rounded", value.shape, to=TensorProto.FLOAT)
    if space.shape != value.shape:
        shape = builder.constant("action.shape", np.array([-1, *space.shape], dtype=np.int64))
        value = builder.node("Reshape", [value, shape], "shaped", space.shape)
    builder.output("actions", TensorProto.FLOAT, value)


def _on_grid(builder: GraphBuilder, value: Tensor, resolution: npt.NDArray[np.float64]) -> Tensor:
    """Round to multiples of ``resolution``, powers of two: the quotient and product are exact."""
    step = builder.real("action.resolution", resolution)
    value = builder.node("Div", [value, step], "action/steps", value.shape)
    value = builder.node("Round", [value], "action/whole_steps", value.shape)
    return builder.node("Mul", [value, step], "action/on_grid", value.shape)


def _clipped(
    builder: GraphBuilder, value: Tensor, low: npt.NDArray[Any], high: npt.NDArray[Any]
) -> Tensor:
    if np.all(np.isinf(low)) and np.all(np.isinf(high)):
        return value
    if np.all(low == low[0]) and np.all(high == high[0]):
        return emit_clip(builder, value, float(low[0]), float(high[0]), "action", "clipped")
    floor, ceiling = builder.real("action.low", low), builder.real("action.high", high)
    value = builder.node("Max", [value, floor], "raised", value.shape)
    return builder.node("Min", [value, ceiling], "clipped", value.shape)


def _unscaled(
    builder: GraphBuilder, value: Tensor, low: npt.NDArray[Any], high: npt.NDArray[Any]
) -> Tensor:
    """Return ``low + (0.5 (tanh(x) + 1)) (high − low)``, in SB3's order of operations."""
    low, high = low.astype(builder.dtype), high.astype(builder.dtype)
    steps = [
        ("Add", "one", np.float64(1.0)),
        ("Mul", "half", np.float64(0.5)),
        ("Mul", "action.range", high - low),
        ("Add", "action.low", low),
    ]
    value = builder.node("Tanh", [value], "squashed", value.shape)
    for operator, name, operand in steps:
        constant = builder.real(name, operand)
        value = builder.node(operator, [value, constant], f"unscale/{name}", value.shape)
    return value


def _choices(builder: GraphBuilder, counts: list[int], logits: Tensor) -> Tensor:
    """Return the best choice of each group of ``counts`` logits."""
    axes = builder.constant("choice.axes", np.array([1], dtype=np.int64))
    parts, start = [], 0
    for index, count in enumerate(counts):
        ends = [
            builder.constant(f"choice.{index}.{name}", np.array([place], dtype=np.int64))
            for name, place in (("start", start), ("stop", start + count))
        ]
        group = builder.node("Slice", [logits, *ends, axes], f"logits/{index}", (count,))
        parts.append(builder.node("ArgMax", [group], f"choice/{index}", (1,), axis=1, keepdims=1))
        start += count
    return builder.node("Concat", parts, "choices", (len(counts),), axis=1)
