"""The file itself: clean, deterministic, readable by old runtimes, for any batch."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from stable_baselines3 import A2C

from hub.bundle_format.spaces import space_from_json
from hub.onnx_export import build_policy_onnx, onnx_bytes


@pytest.fixture(scope="module")
def model(agents: Any) -> A2C:
    agent = A2C("MlpPolicy", agents.World("matrix", "asymmetric"), device="cpu")
    agents.enlarge(agent.policy)
    return agent


def _properties(file: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in file.metadata_props}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_contract(agents: Any, model: A2C, dtype: Any) -> None:
    normalizer = agents.statistics(model.observation_space)
    file = build_policy_onnx(model.policy, normalizer, dtype=dtype)
    onnx.checker.check_model(file, full_check=True)
    assert [(entry.domain, entry.version) for entry in file.opset_import] == [("", 15)]
    assert file.ir_version == 8
    session = onnxruntime.InferenceSession(onnx_bytes(file), providers=["CPUExecutionProvider"])
    (given,), (taken,) = session.get_inputs(), session.get_outputs()
    kind = {"float32": "tensor(float)", "float64": "tensor(double)"}[dtype]
    assert (given.name, given.type, given.shape) == ("obs", kind, ["batch", 2, 3])
    assert (taken.name, taken.type) == ("actions", "tensor(float)")
    assert taken.shape == ["batch", 2, 3]
    assert not any(entry.data_location for entry in file.graph.initializer)


def test_same_agent_same_bytes(agents: Any, model: A2C) -> None:
    normalizer = agents.statistics(model.observation_space)
    one = onnx_bytes(build_policy_onnx(model.policy, normalizer, metadata={"b": "1", "a": "2"}))
    two = onnx_bytes(build_policy_onnx(model.policy, normalizer, metadata={"a": "2", "b": "1"}))
    assert one == two
    for trace in (b"/home", b"/root", b"/tmp", b"/usr", b".py", b"torch"):
        assert trace not in one


def test_any_batch(agents: Any, model: A2C) -> None:
    file = build_policy_onnx(model.policy, dtype="float64")
    observations = agents.sample(model.observation_space, 7)
    together = agents.run_onnx(file, observations)
    one_by_one = [agents.run_onnx(file, one[None])[0] for one in observations]
    np.testing.assert_array_equal(together, one_by_one)
    assert agents.run_onnx(file, observations[:0]).shape == (0, 2, 3)


def test_names_are_those_of_the_layers(model: A2C) -> None:
    graph = build_policy_onnx(model.policy).graph
    weights = {entry.name: onnx.numpy_helper.to_array(entry) for entry in graph.initializer}
    first = model.policy.mlp_extractor.policy_net[0]
    np.testing.assert_array_equal(weights["pi.0.weight"], first.weight.detach().numpy().T)
    np.testing.assert_array_equal(
        weights["action_net.0.bias"], model.policy.action_net.bias.detach().numpy()
    )
    assert [node.op_type for node in graph.node] == [
        *("Flatten", "MatMul", "Add", "Tanh", "MatMul", "Add", "Tanh"),
        *("MatMul", "Add", "Max", "Min", "Reshape"),
    ]


def test_network_metadata(agents: Any, model: A2C) -> None:
    normalizer = agents.statistics(model.observation_space)
    file = build_policy_onnx(model.policy, normalizer, metadata={"env_id": "World-v0"})
    properties = _properties(file)
    assert properties["format_version"] == "1"
    assert properties["env_id"] == "World-v0"
    assert properties["obs_normalization"] == "in-graph"
    assert properties["action_postprocess"] == "clip in-graph"
    mean, variance = normalizer.arrays["obs.mean"], normalizer.arrays["obs.var"]
    np.testing.assert_array_equal(json.loads(properties["obs_mean"]), mean)
    np.testing.assert_array_equal(json.loads(properties["obs_std"]), np.sqrt(variance + 1e-8))
    assert json.loads(properties["clip_obs"]) == 2.5
    for name, space in (("observation", model.observation_space), ("action", model.action_space)):
        assert space_from_json(json.loads(properties[f"{name}_space"])) == space


def test_network_metadata_of_a_dict(agents: Any) -> None:
    agent = A2C("MultiInputPolicy", agents.World("dict", "multi-binary"), device="cpu")
    normalizer = agents.statistics(agent.observation_space, ("grid",))
    properties = _properties(build_policy_onnx(agent.policy, normalizer))
    assert json.loads(properties["obs_mean"]) == {
        "grid": normalizer.arrays["obs.grid.mean"].tolist()
    }
    assert properties["clip_obs"] == '{"grid": 2.5}'
    assert properties["action_postprocess"] == "threshold in-graph"
    assert properties["image_layout"] == '{"camera": "CHW"}'


def test_metadata_is_json_also_without_a_clip(agents: Any, model: A2C) -> None:
    normalizer = agents.statistics(model.observation_space)
    file = build_policy_onnx(model.policy, dataclasses.replace(normalizer, clip_obs=math.inf))
    assert json.loads(_properties(file)["clip_obs"]) == "inf"
    observations = 100.0 * agents.sample(model.observation_space, 8)
    unclipped = dataclasses.replace(normalizer, clip_obs=1e30)
    np.testing.assert_array_equal(
        agents.run_onnx(file, observations),
        agents.run_onnx(build_policy_onnx(model.policy, unclipped), observations),
    )


def test_without_normalizer(model: A2C) -> None:
    properties = _properties(build_policy_onnx(model.policy))
    assert properties["obs_normalization"] == "none"
    assert not {"obs_mean", "obs_std", "clip_obs"} & properties.keys()
