"""Modules that are not known here, traced by torch's own exporter and put into our graph.

Only a module is traced (somebody's features extractor, an unusual layer), never a whole policy, so
that normalisation, heads and names stay those of every other file.
"""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Mapping
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import nn

from agents.errors import ExportError
from hub.onnx_graph.graph import OPSET, GraphBuilder, Tensor
from hub.onnx_graph.lowering import TracedNode, lower

__all__ = ["emit_traced"]


def emit_traced(
    builder: GraphBuilder,
    module: nn.Module,
    value: Tensor | Mapping[str, Tensor],
    scope: str,
) -> Tensor:
    """Apply a module of any kind.

    :param value: its input; a mapping if ``forward`` takes a dictionary of tensors.
    :raises ExportError: torch cannot trace it, or a float64 graph cannot hold what it computes.
    """
    sources = dict(value) if isinstance(value, Mapping) else {"x": value}
    dtype = torch.float32 if builder.dtype == "float32" else torch.float64
    examples = tuple(torch.zeros(2, *source.shape, dtype=dtype) for source in sources.values())
    try:
        frozen = copy.deepcopy(module).cpu().to(dtype).eval()
        if isinstance(value, Mapping):
            frozen = _OfDict(frozen, list(sources))
        with torch.no_grad():
            shape = tuple(frozen(*examples).shape[1:])
        traced = _trace(frozen, examples, list(sources))
    except Exception as error:  # whatever somebody's forward() and torch's exporter raise
        raise ExportError(
            f"Cannot trace {type(module).__name__} in {builder.dtype}: "
            f"{' '.join(str(error).split())[:300]}"
        ) from error
    return Tensor(_splice(builder, traced, sources, scope), shape)


class _OfDict(nn.Module):
    """Takes tensors where the module inside takes a dictionary of them."""

    def __init__(self, inside: nn.Module, keys: list[str]) -> None:
        super().__init__()
        self._inside = inside
        self._keys = keys

    def forward(self, *tensors: torch.Tensor) -> Any:
        return self._inside(dict(zip(self._keys, tensors, strict=True)))


def _trace(
    module: nn.Module, examples: tuple[torch.Tensor, ...], names: list[str]
) -> onnx.ModelProto:
    # The exporter that needs nothing beside torch and onnx; torch marks it as the older one.
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            examples,
            buffer,  # type: ignore[arg-type]  # torch says paths only, and takes files
            dynamo=False,
            opset_version=OPSET,
            input_names=names,
            output_names=["y"],
            dynamic_axes={name: {0: "batch"} for name in [*names, "y"]},
        )
    return onnx.load_from_string(buffer.getvalue())


def _splice(
    builder: GraphBuilder, traced: onnx.ModelProto, sources: Mapping[str, Tensor], scope: str
) -> str:
    """Copy nodes and constants under new names; returns the output's name."""
    graph = onnx.shape_inference.infer_shapes(traced).graph
    constants = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    shapes = {info.name: _shape(info) for info in (*graph.input, *graph.value_info)}
    names = {info.name: sources[info.name].name for info in graph.input}
    names[""] = ""  # an optional input that is not given
    for node in graph.node:
        if any(attribute.type == onnx.AttributeProto.GRAPH for attribute in node.attribute):
            raise ExportError(
                f"What {scope} computes branches on its input ({node.op_type}), which this file "
                "cannot hold; write the layer with torch.where."
            )
        entry = TracedNode(
            node,
            [names.get(name, "") for name in node.input],
            [constants.get(name) for name in node.input],
            [shapes.get(name) for name in node.input],
        )
        lowered = lower(builder, entry, scope)
        if lowered is not None:
            names[node.output[0]] = lowered
            continue
        for name in node.input:
            if name not in names:
                names[name] = builder.constant(f"{scope}.{name}", constants[name])
        copied = onnx.NodeProto(op_type=node.op_type, domain=node.domain)
        copied.attribute.extend(node.attribute)
        copied.input.extend(names[name] for name in node.input)
        for name in node.output:
            names[name] = builder.unique(f"{scope}/{node.op_type.lower()}") if name else ""
            copied.output.append(names[name])
        builder.splice(copied)
    return names[graph.output[0].name]


def _shape(info: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    """Return a value's shape without the batch axis, None where it is not known."""
    dims = list(info.type.tensor_type.shape.dim)[1:]
    known = all(dim.HasField("dim_value") for dim in dims)
    return tuple(dim.dim_value for dim in dims) if known else None
