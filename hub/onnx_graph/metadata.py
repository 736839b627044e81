"""What an ONNX file says about itself, as ``metadata_props``: strings by key.

Values are JSON unless they are a plain word, a plain number or, as ``joint_names``, a list with
commas for the C++ programs that read it so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hub.bundle_format.spaces import space_to_json
from hub.control_names import ControlNames, Labels
from hub.normalizer import Normalizer
from hub.onnx_graph.heads import action_postprocess
from hub.policy_network import PolicyNetwork, Scaling

__all__ = ["FORMAT_VERSION", "agent_metadata", "network_metadata", "reward_metadata"]

FORMAT_VERSION = "1"


def agent_metadata(
    *,
    algo: str,
    env_id: str,
    control: ControlNames,
    versions: Mapping[str, str | None],
    env_kwargs: Mapping[str, Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
    license: str | None = None,
) -> dict[str, str]:
    """Return what is known about the agent beside its network.

    :param algo: registered name, such as ``"npg"``.
    :param control: from :func:`hub.control_names.describe_control`.
    :param versions: of the packages that it was trained with, by name.
    :param env_kwargs: arguments of the environment beside its defaults.
    :param evaluation: a summary of the returns that it reaches.
    :param license: an SPDX name.
    """
    metadata = {
        "algo": algo,
        "env_id": env_id,
        "versions": json.dumps(dict(versions)),
        "observation_names": _labels(control.observation_names),
        "observation_units": _labels(control.observation_units),
        "action_names": _labels(control.action_names),
        "action_units": _labels(control.action_units),
    }
    if control.joint_names:
        metadata["joint_names"] = ",".join(control.joint_names)
    if control.control_dt is not None:
        metadata["control_dt"] = repr(control.control_dt)
    if control.frame_skip is not None:
        metadata["frame_skip"] = str(control.frame_skip)
    if env_kwargs:
        metadata["env_kwargs"] = json.dumps(dict(env_kwargs))
    if evaluation is not None:
        metadata["evaluation"] = json.dumps(dict(evaluation))
    if license is not None:
        metadata["license"] = license
    return metadata


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
    layouts = {
        entry.name: "HWC" if entry.is_transposed else "CHW"
        for entry in network.inputs
        if entry.is_image or entry.is_transposed
    }
    if layouts:
        metadata["image_layout"] = json.dumps(layouts) if network.is_dict else layouts["obs"]
    if any(observation.scaling for observation in network.inputs):
        metadata["obs_normalization"] = "in-graph"
        metadata["obs_mean"] = _scalings(network, lambda scaling: scaling.mean.tolist())
        metadata["obs_std"] = _scalings(network, lambda scaling: scaling.std.tolist())
        metadata["clip_obs"] = _scalings(network, lambda scaling: _number(scaling.clip))
    return metadata


def reward_metadata(normalizer: Normalizer | None) -> dict[str, str]:
    """Return what a file with values has to tell: a value times ``reward_std`` is in true rewards.

    Empty if the agent was trained with rewards as they were.
    """
    if normalizer is None or not normalizer.norm_reward:
        return {}
    std = np.sqrt(normalizer.arrays["ret.var"] + normalizer.epsilon)
    return {"reward_std": repr(float(std)), "clip_reward": repr(float(normalizer.clip_reward))}


def _labels(labels: Labels) -> str:
    if isinstance(labels, Mapping):
        return json.dumps({key: list(part) for key, part in labels.items()}, ensure_ascii=False)
    return json.dumps(list(labels), ensure_ascii=False)


def _number(value: float) -> float | str:
    """Return a number as JSON has it, an infinity as in the spaces."""
    return value if math.isfinite(value) else str(value)


def _scalings(network: PolicyNetwork, part: Callable[[Scaling], Any]) -> str:
    parts = {
        observation.name: part(observation.scaling)
        for observation in network.inputs
        if observation.scaling is not None
    }
    return json.dumps(parts if network.is_dict else parts["obs"])
