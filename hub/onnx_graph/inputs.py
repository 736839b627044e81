"""Raw observations in the graph: normalised, clipped, one-hot, scaled; what extractors are fed."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from onnx import TensorProto

from hub.onnx_graph.graph import GraphBuilder, Tensor
from hub.policy_network import ObservationInput, Scaling

__all__ = ["emit_input", "one_hot_sources"]

# By how much, in standard deviations, the mean may be off.
_COARSE = 1e-6


def emit_input(builder: GraphBuilder, observation: ObservationInput) -> Tensor:
    """Declare an input and return what SB3's ``preprocess_obs`` makes of it, normalised.

    A Box of uint8 (images) enters as such, other Boxes in the graph's type, Discrete and
    MultiDiscrete as int64, MultiBinary as int8.
    """
    space = observation.space
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return _one_hot(builder, observation.name, space)
    elem_type = _elem_type(builder, space)
    raw = builder.input(observation.name, elem_type, space.shape or ())
    value = raw
    if elem_type != builder.elem_type:
        value = builder.node("Cast", [raw], f"{raw.name}/real", raw.shape, to=builder.elem_type)
    if observation.scaling is not None:
        value = _normalize(builder, value, observation.name, observation.scaling)
    if observation.is_transposed:
        *image, channels = value.shape
        value = builder.node(
            "Transpose",
            [value],
            f"{raw.name}/channels_first",
            (channels, *image),
            perm=[0, 3, 1, 2],
        )
    if observation.is_image:
        white = builder.real("white", 255.0)
        value = builder.node("Div", [value, white], f"{raw.name}/image", value.shape)
    return value


def _elem_type(builder: GraphBuilder, space: spaces.Space[Any]) -> int:
    if isinstance(space, spaces.MultiBinary):
        return TensorProto.INT8
    if space.dtype == np.uint8:
        return TensorProto.UINT8
    return builder.elem_type


def _normalize(builder: GraphBuilder, value: Tensor, name: str, scaling: Scaling) -> Tensor:
    std = builder.real(f"{name}.std", scaling.std)
    bounds = [
        builder.real(f"{name}.{end}", sign * scaling.clip)
        for end, sign in (("low", -1.0), ("high", 1.0))
    ]
    value = _center(builder, value, name, scaling)
    value = builder.node("Div", [value, std], f"{name}/scaled", value.shape)
    return builder.node("Clip", [value, *bounds], f"{name}/normalized", value.shape)


def _center(builder: GraphBuilder, value: Tensor, name: str, scaling: Scaling) -> Tensor:
    """Subtract the mean, in two parts if one float32 is too coarse for it.

    A number that hardly changes (a body's mass) has a standard deviation near its own rounding
    error, and a mean that is off by that much would be another observation altogether.
    """
    mean = scaling.mean.astype(builder.dtype)
    mean_name = builder.real(f"{name}.mean", mean)
    value = builder.node("Sub", [value, mean_name], f"{name}/centered", value.shape)
    rest = scaling.mean - mean
    if np.all(np.abs(rest) <= _COARSE * scaling.std):
        return value
    rest_name = builder.real(f"{name}.mean_rest", rest)
    return builder.node("Sub", [value, rest_name], f"{name}/centered_finely", value.shape)


def _one_hot(
    builder: GraphBuilder, name: str, space: spaces.Discrete | spaces.MultiDiscrete
) -> Tensor:
    """Compare each component with each of its choices: [2, 0] of (3, 2) → [0, 0, 1, 1, 0]."""
    column, choice = one_hot_sources(space)
    raw = builder.input(name, TensorProto.INT64, space.shape or ())
    if raw.shape:
        columns = builder.constant(f"{name}.columns", column)
        value = builder.node("Gather", [raw, columns], f"{name}/repeated", column.shape, axis=1)
    else:
        axes = builder.constant(f"{name}.axes", np.array([1], dtype=np.int64))
        value = builder.node("Unsqueeze", [raw, axes], f"{name}/column", (1,))
    choices = builder.constant(f"{name}.choices", choice)
    hits = builder.node("Equal", [value, choices], f"{name}/hits", choice.shape)
    return builder.node("Cast", [hits], f"{name}/one_hot", choice.shape, to=builder.elem_type)


def one_hot_sources(
    space: spaces.Discrete | spaces.MultiDiscrete,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return for each one-hot element which component it looks at and which value it stands for."""
    counts = [int(n) for n in np.ravel(getattr(space, "nvec", getattr(space, "n", 0)))]
    column = np.repeat(np.arange(len(counts)), counts)
    starts = np.array([0, *accumulate(counts)][:-1])
    return column, np.arange(sum(counts)) - starts[column]
