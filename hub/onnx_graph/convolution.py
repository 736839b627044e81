"""Convolutions: ONNX's own operator in float32, a matrix product over gathered patches in float64.

ONNX Runtime's Conv knows float32 only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from hub.onnx_graph.graph import GraphBuilder, Tensor

__all__ = ["Convolution", "emit_convolution"]


@dataclass(frozen=True)
class Convolution:
    """What a convolution over any number of axes is made of."""

    kernel: npt.NDArray[Any]
    """Shape ``(n_out, n_in / groups, *extent)``."""
    bias: npt.NDArray[Any]
    """Shape ``(n_out,)``."""
    strides: Sequence[int]
    pads: Sequence[tuple[int, int]]
    """Zeros before and after each axis."""
    dilations: Sequence[int]
    groups: int = 1

    def grid(self, image: Sequence[int]) -> tuple[int, ...]:
        """Return the output's extent for an image of shape ``(n_in, *extent)``."""
        axes = zip(
            image[1:], self.kernel.shape[2:], self.strides, self.pads, self.dilations, strict=True
        )
        return tuple(
            (length + sum(pad) - dilation * (extent - 1) - 1) // stride + 1
            for length, extent, stride, pad, dilation in axes
        )

    def dense_kernel(self) -> npt.NDArray[Any]:
        """Return the kernel without groups, zero between them: ``(n_out, n_in, *extent)``."""
        n_out, n_part, *extent = self.kernel.shape
        dense = np.zeros((n_out, n_part * self.groups, *extent), dtype=self.kernel.dtype)
        n_rows = n_out // self.groups
        for group in range(self.groups):
            rows = slice(group * n_rows, (group + 1) * n_rows)
            dense[rows, group * n_part : (group + 1) * n_part] = self.kernel[rows]
        return dense


def emit_convolution(
    builder: GraphBuilder, convolution: Convolution, image: Tensor, scope: str
) -> Tensor:
    """Return the convolution of ``image``, shape ``(n_out, *grid)``."""
    shape = (len(convolution.bias), *convolution.grid(image.shape))
    if builder.dtype == np.float64:
        return _as_product(builder, convolution, image, shape, scope)
    weight = builder.real(f"{scope}.weight", convolution.kernel)
    bias = builder.real(f"{scope}.bias", convolution.bias)
    return builder.node(
        "Conv",
        [image, weight, bias],
        scope,
        shape,
        strides=list(convolution.strides),
        pads=[pad[0] for pad in convolution.pads] + [pad[1] for pad in convolution.pads],
        dilations=list(convolution.dilations),
        group=convolution.groups,
    )


def _as_product(
    builder: GraphBuilder,
    convolution: Convolution,
    image: Tensor,
    shape: tuple[int, ...],
    scope: str,
) -> Tensor:
    kernel = convolution.dense_kernel()
    n_out, n_positions, n_patch = shape[0], prod(shape[1:]), prod(kernel.shape[1:])
    sources = builder.constant(f"{scope}.patches", _patch_sources(convolution, image.shape))
    weight = builder.real(f"{scope}.weight", kernel.reshape(n_out, n_patch).T)
    bias = builder.real(f"{scope}.bias", convolution.bias)
    shape_name = builder.constant(f"{scope}.shape", np.array([-1, *shape], dtype=np.int64))
    flat = builder.node("Flatten", [image], f"{scope}/flat", (prod(image.shape),), axis=1)
    if any(sum(pad) for pad in convolution.pads):  # one zero, which the padding points to
        pads = builder.constant(f"{scope}.pads", np.array([0, 0, 0, 1], dtype=np.int64))
        flat = builder.node("Pad", [flat, pads], f"{scope}/padded", (flat.shape[0] + 1,))
    patches = builder.node(
        "Gather", [flat, sources], f"{scope}/patches", (n_positions, n_patch), axis=1
    )
    product = builder.node("MatMul", [patches, weight], f"{scope}/product", (n_positions, n_out))
    pixels = builder.node("Add", [product, bias], f"{scope}/pixels", product.shape)
    planes = builder.node(
        "Transpose", [pixels], f"{scope}/planes", (n_out, n_positions), perm=[0, 2, 1]
    )
    return builder.node("Reshape", [planes, shape_name], scope, shape)


def _patch_sources(convolution: Convolution, image: Sequence[int]) -> npt.NDArray[np.int32]:
    """Return for each output position where its patch lies in the flat image.

    :return: shape ``(n_positions, n_in · extent)``; padding lies behind the image's end.
    """
    extent = convolution.kernel.shape[2:]
    flat = np.arange(prod(image), dtype=np.int32).reshape(tuple(image))
    flat = np.pad(flat, [(0, 0), *convolution.pads], constant_values=prod(image))
    spread = [
        dilation * (length - 1) + 1
        for length, dilation in zip(extent, convolution.dilations, strict=True)
    ]
    axes = tuple(range(1, len(image)))
    windows = np.lib.stride_tricks.sliding_window_view(flat, spread, axis=axes)
    steps = [slice(None, None, step) for step in (*convolution.strides, *convolution.dilations)]
    windows = windows[:, *steps]  # (channels, *grid, *extent)
    windows = np.moveaxis(windows, 0, len(axes))
    n_patch = image[0] * prod(extent)
    return np.ascontiguousarray(windows.reshape(-1, n_patch), dtype=np.int32)
