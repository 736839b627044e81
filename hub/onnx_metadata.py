"""What an ONNX file says about itself, as ``metadata_props``: strings by key.

Values are JSON unless they are a plain word, a plain number or, as ``joint_names``, a list with
commas for the C++ programs that read it so.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hub.onnx_heads import action_postprocess
from hub.policy_network import PolicyNetwork, Scaling
from hub.spaces import space_to_json

__all__ = ["FORMAT_VERSION", "network_metadata"]

FORMAT_VERSION = "1"


def network_metadata(network: PolicyNetwork) -> dict[str, str]:
    """Return what the network itself tells.

    ``obs_mean`` and ``obs_std`` are written so that the same float64 is read back; with a Dict
    observation they and ``clip_obs`` are objects by key and hold the normalised keys only.
    """
    metadata = {
        "format_version": FORMAT_VERSION,
        "observation_space": json.dumps(space_to_json(network.observation_space)),
        "action_space": json.dumps(space_to_json(network.action_space)),
        "action_postprocess": action_postprocess(network.action_space, squashed=network.squashed),
        "obs_normalization": "none",
    }
    if any(observation.is_image for observation in network.inputs):
        metadata["image_layout"] = "CHW"
    if any(observation.scaling for observation in network.inputs):
        metadata["obs_normalization"] = "in-graph"
        metadata["obs_mean"] = _scalings(network, lambda scaling: scaling.mean.tolist())
        metadata["obs_std"] = _scalings(network, lambda scaling: scaling.std.tolist())
        metadata["clip_obs"] = _scalings(network, lambda scaling: scaling.clip)
    return metadata


def _scalings(network: PolicyNetwork, part: Callable[[Scaling], Any]) -> str:
    parts = {
        observation.name: part(observation.scaling)
        for observation in network.inputs
        if observation.scaling is not None
    }
    return json.dumps(parts if network.is_dict else parts["obs"])
