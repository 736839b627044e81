"""What a file says about itself, as a deployer reads it."""

from __future__ import annotations

import json
from typing import Any

import gymnasium as gym
import onnxruntime
import pytest
from stable_baselines3 import A2C

from hub.control_names import ControlNames, describe_control
from hub.onnx_export import build_policy_onnx, onnx_bytes
from hub.onnx_graph.metadata import agent_metadata


def test_through_onnx_runtime() -> None:
    """The questions: inside or outside? which number is which? how often? what return?"""
    env = gym.make("Ant-v5")
    metadata = agent_metadata(
        algo="a2c",
        env_id="Ant-v5",
        control=describe_control(env),
        versions={"torch": "2.13.0", "envpool": None},
        env_kwargs={"reset_noise_scale": 0.2},
        evaluation={"mean_return": 1.5, "n_episodes": 100},
        license="MIT",
    )
    file = build_policy_onnx(A2C("MlpPolicy", env, device="cpu").policy, metadata=metadata)
    session = onnxruntime.InferenceSession(onnx_bytes(file), providers=["CPUExecutionProvider"])
    found = session.get_modelmeta().custom_metadata_map
    assert found["joint_names"].split(",")[:2] == ["hip_4", "ankle_4"]
    assert json.loads(found["action_names"])[0] == "hip_4"
    assert json.loads(found["action_units"]) == ["150 N·m"] * 8
    assert json.loads(found["observation_names"])[:2] == ["root_z", "root_qw"]
    assert len(json.loads(found["observation_units"])) == 105
    assert float(found["control_dt"]) == 0.05
    assert int(found["frame_skip"]) == 5
    assert json.loads(found["env_kwargs"]) == {"reset_noise_scale": 0.2}
    assert json.loads(found["versions"]) == {"torch": "2.13.0", "envpool": None}
    assert json.loads(found["evaluation"])["mean_return"] == 1.5
    assert (found["algo"], found["env_id"], found["license"]) == ("a2c", "Ant-v5", "MIT")
    env.close()


@pytest.mark.parametrize(
    "key", ["joint_names", "control_dt", "frame_skip", "env_kwargs", "evaluation", "license"]
)
def test_what_is_not_known_is_left_out(key: str) -> None:
    control: Any = ControlNames({"a": ["a_0"]}, {"a": [""]}, ["action_0"], [""])
    metadata = agent_metadata(algo="npg", env_id="Mine-v0", control=control, versions={})
    assert json.loads(metadata["observation_names"]) == {"a": ["a_0"]}
    assert key not in metadata
