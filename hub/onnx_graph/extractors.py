"""SB3's features extractors as ONNX nodes."""

from __future__ import annotations

from collections.abc import Mapping

from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, NatureCNN
from torch import nn

from hub.onnx_graph.graph import GraphBuilder, Tensor
from hub.onnx_graph.layers import emit_flatten, emit_module, emit_modules
from hub.onnx_graph.torch_modules import emit_traced

__all__ = ["emit_features"]


def emit_features(
    builder: GraphBuilder,
    extractor: nn.Module,
    observations: Tensor | Mapping[str, Tensor],
    scope: str,
) -> Tensor:
    """Return the features of prepared observations.

    :param observations: by key if the observation is a Dict.
    """
    if isinstance(observations, Tensor):
        return _single(builder, extractor, observations, scope)
    if type(extractor) is CombinedExtractor:
        return _combined(builder, extractor, observations, scope)
    return emit_traced(builder, extractor, observations, scope)


def _single(builder: GraphBuilder, extractor: nn.Module, value: Tensor, scope: str) -> Tensor:
    if type(extractor) is FlattenExtractor:
        return emit_flatten(builder, value, scope)
    if type(extractor) is NatureCNN:
        value = emit_modules(builder, tuple(extractor.cnn), value, f"{scope}.cnn")
        return emit_modules(builder, tuple(extractor.linear), value, f"{scope}.linear")
    return emit_module(builder, extractor, value, scope)


def _combined(
    builder: GraphBuilder,
    extractor: CombinedExtractor,
    observations: Mapping[str, Tensor],
    scope: str,
) -> Tensor:
    parts = [
        _single(builder, module, observations[key], f"{scope}.{key}")
        for key, module in extractor.extractors.items()
    ]
    n_features = sum(part.shape[0] for part in parts)
    return builder.node("Concat", parts, scope, (n_features,), axis=1)
