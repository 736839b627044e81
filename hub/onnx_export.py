"""A trained policy as one ONNX file: raw observation in, action to apply out.

The graph is ``obs → actions`` (one input per key for a Dict) with normalisation, clipping and the
action's own post-processing inside, for any batch size, in opset 15 and IR 8. In ``float64`` every
operation is done in double precision on the float32 weights, and a Box action is rounded at the
very end (``onnx_graph.heads.action_resolution``): runtimes differ by some 1e-15 inside, which the
rounding hides, so that all of them give the same actions bit for bit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import onnx
from stable_baselines3.common.policies import BasePolicy

from agents.errors import UnknownName
from hub.normalizer import Normalizer
from hub.onnx_graph.distribution import emit_distribution, sampling
from hub.onnx_graph.extractors import emit_features
from hub.onnx_graph.graph import FloatType, GraphBuilder
from hub.onnx_graph.heads import emit_actions
from hub.onnx_graph.inputs import emit_input
from hub.onnx_graph.layers import emit_modules
from hub.onnx_graph.metadata import network_metadata, reward_metadata
from hub.onnx_graph.value import emit_value
from hub.policy_network import read_policy

__all__ = ["OUTPUTS", "build_policy_onnx", "onnx_bytes"]

OUTPUTS = ("actions", "value", "distribution")

_DESCRIPTION = (
    "Raw observation in, action to apply out: normalisation, clipping and action post-processing "
    "are inside; see the metadata."
)


def build_policy_onnx(
    policy: BasePolicy,
    normalizer: Normalizer | None = None,
    *,
    transposed_images: Collection[str] = (),
    dtype: FloatType = "float32",
    metadata: Mapping[str, str] | None = None,
    outputs: Sequence[str] = ("actions",),
) -> onnx.ModelProto:
    """Return the policy as a checked ONNX model; the same policy gives the same bytes.

    :param policy: an SB3 policy (see :func:`hub.policy_network.read_policy`).
    :param normalizer: what its observations were normalised with, None without.
    :param transposed_images: ``"obs"`` or ``"obs.KEY"`` of each image that the environment gives
        with its channels last; the file takes them so.
    :param dtype: ``"float32"``, or ``"float64"`` for the bit-reproducible twin, whose Box
        observations are float64, too.
    :param metadata: ``metadata_props`` beside those that the network itself tells
        (:func:`hub.onnx_graph.metadata.network_metadata`).
    :param outputs: what the file gives, any of ``"actions"``, ``"value"``
        (:mod:`hub.onnx_graph.value`) and ``"distribution"``, which is two outputs, ``mean`` and
        ``log_std``, or one, ``logits`` (:mod:`hub.onnx_graph.distribution`).
    :raises ExportError: the policy, a space or a layer cannot be exported in this way.
    """
    unknown = set(outputs) - set(OUTPUTS)
    if unknown or not outputs:
        raise UnknownName("output", ", ".join(sorted(unknown)) or "none", OUTPUTS)
    network = read_policy(policy, normalizer, transposed_images)
    builder = GraphBuilder(dtype)
    inputs = {entry.name: emit_input(builder, entry) for entry in network.inputs}
    observations = inputs if network.is_dict else inputs["obs"]
    features = emit_features(builder, network.extractor, observations, "features")
    latent = emit_modules(builder, network.body, features, "pi")
    output = emit_modules(builder, network.output, latent, "action_net")
    properties = network_metadata(network)
    if "actions" in outputs:
        emit_actions(builder, network.action_space, output, squashed=network.squashed)
    if "value" in outputs:
        emit_value(builder, policy, observations, output)
        properties |= reward_metadata(normalizer)
    if "distribution" in outputs:
        emit_distribution(builder, policy, latent, output)
        properties["sampling"] = sampling(network)
    return builder.model({**properties, **(metadata or {})}, _DESCRIPTION)


def onnx_bytes(model: onnx.ModelProto) -> bytes:
    """Return the file's content, which is the same for the same model."""
    content: bytes = model.SerializeToString(deterministic=True)
    return content
