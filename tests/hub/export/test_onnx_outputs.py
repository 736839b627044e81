"""The outputs that one asks for: values, and distributions to sample from."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from sb3_contrib import TQC
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3
from stable_baselines3.common.policies import ActorCriticPolicy

from agents.errors import ExportError, UnknownName
from hub.normalizer import Normalizer
from hub.onnx_export import build_policy_onnx

N = 64


def _agent(agents: Any, algorithm: Any, action: str, **options: Any) -> Any:
    if algorithm not in (A2C, PPO):
        options["buffer_size"] = 10
    model = algorithm("MlpPolicy", agents.World("vector", action), device="cpu", **options)
    agents.enlarge(model.policy, 1.2)
    return model


def _tensors(agents: Any, model: Any) -> tuple[Any, Normalizer, torch.Tensor]:
    """Return raw observations, statistics, and what SB3 makes of the two."""
    observations = agents.sample(model.observation_space, N)
    normalizer = agents.statistics(model.observation_space)
    return observations, normalizer, torch.as_tensor(normalizer(observations))


def _outputs(model: onnx.ModelProto) -> list[str]:
    return [info.name for info in model.graph.output]


@pytest.mark.parametrize("shared", [True, False])
def test_state_values(agents: Any, shared: bool) -> None:
    options = {"share_features_extractor": shared, "net_arch": {"pi": [8], "vf": [16, 4]}}
    model = _agent(agents, PPO, "box", policy_kwargs=options)
    observations, normalizer, seen = _tensors(agents, model)
    file = build_policy_onnx(model.policy, normalizer, outputs=("actions", "value"))
    assert _outputs(file) == ["actions", "value"]
    with torch.no_grad():
        expected = model.policy.predict_values(seen).numpy()[:, 0]
    np.testing.assert_allclose(agents.run_onnx(file, observations, "value"), expected, atol=1e-5)
    np.testing.assert_array_equal(
        agents.run_onnx(file, observations),
        agents.run_onnx(build_policy_onnx(model.policy, normalizer), observations),
    )


@pytest.mark.parametrize("algorithm", [SAC, TD3])
def test_action_values(agents: Any, algorithm: Any) -> None:
    model = _agent(agents, algorithm, "asymmetric")
    observations, normalizer, seen = _tensors(agents, model)
    file = build_policy_onnx(model.policy, normalizer, outputs=("value",))
    with torch.no_grad():
        best = model.actor(seen, deterministic=True) if algorithm is SAC else model.actor(seen)
        expected = torch.cat(model.critic(seen, best), dim=1).min(dim=1).values
    values = agents.run_onnx(file, observations, "value")
    assert values.shape == (N,)
    np.testing.assert_allclose(values, expected, atol=1e-5, rtol=1e-5)


class OwnValues(ActorCriticPolicy):
    def predict_values(self, obs: Any) -> torch.Tensor:
        return -super().predict_values(obs)


def test_values_of_ones_own(agents: Any) -> None:
    policy = OwnValues(
        agents.OBSERVATIONS["vector"], agents.ACTIONS["box"], lr_schedule=lambda _: 0.0
    )
    assert build_policy_onnx(policy).graph.output[0].name == "actions"
    with pytest.raises(ExportError, match=r"overrides predict_values\(\).*; leave out --value"):
        build_policy_onnx(policy, outputs=("value",))


def test_quantiles(agents: Any) -> None:
    model = _agent(agents, TQC, "asymmetric")
    observations, normalizer, seen = _tensors(agents, model)
    file = build_policy_onnx(model.policy, normalizer, outputs=("value",))
    with torch.no_grad():
        expected = model.critic(seen, model.actor(seen, deterministic=True)).mean(dim=(1, 2))
    values = agents.run_onnx(file, observations, "value")
    np.testing.assert_allclose(values, expected, atol=1e-5, rtol=1e-5)


def test_best_q_values(agents: Any) -> None:
    model = _agent(agents, DQN, "discrete")
    observations, normalizer, seen = _tensors(agents, model)
    file = build_policy_onnx(model.policy, normalizer, outputs=("actions", "value"))
    with torch.no_grad():
        expected, choices = model.q_net(seen).max(dim=1)
    np.testing.assert_allclose(
        agents.run_onnx(file, observations, "value"), expected, atol=1e-5, rtol=1e-5
    )
    np.testing.assert_array_equal(agents.run_onnx(file, observations), choices)


def test_values_say_what_scales_them(agents: Any) -> None:
    model = _agent(agents, A2C, "box")
    normalizer = agents.statistics(model.observation_space)
    normalizer.arrays["ret.var"] = np.array(6.25 - 1e-8)
    file = build_policy_onnx(model.policy, normalizer, outputs=("value",))
    properties = {entry.key: entry.value for entry in file.metadata_props}
    assert float(properties["reward_std"]) == pytest.approx(2.5, rel=1e-12)
    assert float(properties["clip_reward"]) == 10.0
    plain = Normalizer(normalizer.arrays, norm_reward=False)
    file = build_policy_onnx(model.policy, plain, outputs=("value",))
    assert "reward_std" not in {entry.key for entry in file.metadata_props}


@pytest.mark.parametrize(
    "options",
    [{}, {"use_sde": True}, {"use_sde": True, "policy_kwargs": {"squash_output": True}}],
)
def test_gaussian_policies(agents: Any, options: dict[str, Any]) -> None:
    model = _agent(agents, PPO, "asymmetric", **options)
    observations, normalizer, seen = _tensors(agents, model)
    file = build_policy_onnx(model.policy, normalizer, outputs=("distribution",))
    assert _outputs(file) == ["mean", "log_std"]
    with torch.no_grad():
        normal = model.policy.get_distribution(seen).distribution
    for name, expected in (("mean", normal.mean), ("log_std", normal.stddev.log())):
        values = agents.run_onnx(file, observations, name)
        assert values.shape == (N, 6)
        np.testing.assert_allclose(values, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("algorithm", [SAC, TQC])
@pytest.mark.parametrize("use_sde", [False, True])
def test_squashed_policies(agents: Any, algorithm: Any, use_sde: bool) -> None:
    model = _agent(agents, algorithm, "asymmetric", use_sde=use_sde)
    observations, normalizer, seen = _tensors(agents, model)
    file = build_policy_onnx(model.policy, normalizer, outputs=("distribution",))
    with torch.no_grad():
        mean, log_std, further = model.actor.get_action_dist_params(seen)
        model.actor.action_dist.proba_distribution(mean, log_std, *further.values())
    normal = model.actor.action_dist.distribution
    np.testing.assert_allclose(
        agents.run_onnx(file, observations, "log_std"), normal.stddev.detach().log(), atol=1e-5
    )
    properties = {entry.key: entry.value for entry in file.metadata_props}
    assert properties["sampling"].startswith("low + (tanh(mean + exp(log_std) * noise)")
    low, high = model.action_space.low.ravel(), model.action_space.high.ravel()
    mean = agents.run_onnx(file, observations, "mean")
    actions = low + (np.tanh(mean) + 1) / 2 * (high - low)  # the formula, without noise
    expected = agents.run_sb3(model.policy, normalizer, observations).reshape(N, -1)
    np.testing.assert_allclose(actions, expected, atol=1e-5)


@pytest.mark.parametrize("action", ["discrete", "multi-discrete", "multi-binary"])
def test_logits(agents: Any, action: str) -> None:
    model = _agent(agents, A2C, action)
    observations, normalizer, seen = _tensors(agents, model)
    file = build_policy_onnx(model.policy, normalizer, outputs=("distribution",))
    assert _outputs(file) == ["logits"]
    logits = torch.as_tensor(agents.run_onnx(file, observations, "logits"))
    with torch.no_grad():
        inside = model.policy.get_distribution(seen)
    if action == "discrete":
        np.testing.assert_allclose(logits.softmax(1), inside.distribution.probs, atol=1e-5)
    elif action == "multi-discrete":
        for part, one in zip(logits.split([2, 4, 3], dim=1), inside.distribution, strict=True):
            np.testing.assert_allclose(part.softmax(1), one.probs, atol=1e-5)
    else:
        np.testing.assert_allclose(logits.sigmoid(), inside.distribution.probs, atol=1e-5)


def test_all_at_once_in_float64(agents: Any) -> None:
    """Outputs may be each other's inputs: an unbounded action is its own mean."""
    model = _agent(agents, SAC, "box")
    observations, normalizer, _ = _tensors(agents, model)
    file = build_policy_onnx(
        model.policy, normalizer, dtype="float64", outputs=("actions", "value", "distribution")
    )
    assert _outputs(file) == ["actions", "value", "mean", "log_std"]
    for name in _outputs(file):
        np.testing.assert_allclose(
            agents.run_onnx(file, observations, name), agents.run_numpy(file, observations, name)
        )


@pytest.mark.parametrize(("algorithm", "action"), [(TD3, "box"), (DQN, "discrete")])
def test_deterministic_policies_have_no_distribution(
    agents: Any, algorithm: Any, action: str
) -> None:
    model = _agent(agents, algorithm, action)
    with pytest.raises(ExportError, match=r"is deterministic: .* Leave out --stochastic"):
        build_policy_onnx(model.policy, outputs=("distribution",))


@pytest.mark.parametrize("outputs", [("action",), ()])
def test_unknown_outputs(agents: Any, outputs: tuple[str, ...]) -> None:
    model = _agent(agents, A2C, "box")
    with pytest.raises(UnknownName, match="Known: actions, distribution, value"):
        build_policy_onnx(model.policy, outputs=outputs)
