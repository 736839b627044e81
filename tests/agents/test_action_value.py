"""Policies whose critic values actions: what the critic sees, and what SB3 makes of it."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from torch import nn

from agents import ActorCritic, rollouts
from agents.action_value import (
    ActionValueCnnPolicy,
    ActionValuePolicy,
    MultiInputActionValuePolicy,
    action_critic_mlp,
)
from agents.critic import critic_parameters, fit_adam
from agents.critic_values import StateActions
from agents.functional import flatten
from agents.gauss_newton import fit_gauss_newton
from agents.mlp_structure import actor_mlp, critic_mlp

N = 30
VECTOR = spaces.Box(-1.0, 1.0, (4,), np.float32)
SPACES: dict[str, gym.Space] = {
    "box": spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 1.0], np.float32)),
    "discrete": spaces.Discrete(3),
    "multi-discrete": spaces.MultiDiscrete([2, 3]),
    "multi-binary": spaces.MultiBinary(3),
}
every_space = pytest.mark.parametrize("kind", list(SPACES))


def make(space: gym.Space, cls: type = ActionValuePolicy, **kwargs: Any) -> ActionValuePolicy:
    policy: ActionValuePolicy = cls(VECTOR, space, lambda _: 1e-2, **kwargs)
    return policy


def sample(policy: ActionValuePolicy) -> tuple[torch.Tensor, torch.Tensor]:
    observations = torch.rand(N, 4) * 2 - 1
    with torch.no_grad():
        return observations, policy.get_distribution(observations).get_actions()


ENCODINGS: list[tuple[gym.Space, list[Any], list[list[float]]]] = [
    (SPACES["box"], [[-2.0, 0.5], [9.0, -3.0]], [[-1.0, 0.0], [1.0, -1.0]]),
    (spaces.Box(-np.inf, np.inf, (2,)), [[-7.0, 0.5]], [[-7.0, 0.5]]),
    (SPACES["discrete"], [2, 0], [[0, 0, 1], [1, 0, 0]]),
    (SPACES["multi-discrete"], [[1, 0], [0, 2]], [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]]),
    (SPACES["multi-binary"], [[1, 0, 1]], [[1, 0, 1]]),
]


@pytest.mark.parametrize(("space", "actions", "expected"), ENCODINGS, ids=str)
def test_the_critic_sees_what_the_environment_sees(
    space: gym.Space, actions: list[Any], expected: list[list[float]]
) -> None:
    policy = make(space)
    observations = torch.rand(len(actions), 4)
    dtype = torch.float32 if isinstance(space, spaces.Box | spaces.MultiBinary) else torch.int64
    inputs = policy.critic_inputs(observations, torch.tensor(actions, dtype=dtype))
    torch.testing.assert_close(inputs[:, :4], observations)
    torch.testing.assert_close(inputs[:, 4:], torch.tensor(expected, dtype=torch.float32))


def test_squashed_actions_are_seen_as_they_are() -> None:
    policy = make(SPACES["box"], use_sde=True, squash_output=True)
    inputs = policy.critic_inputs(torch.zeros(1, 4), torch.tensor([[-0.5, 0.25]]))
    assert inputs[0, 4:].tolist() == [-0.5, 0.25]


@every_space
def test_values_are_of_the_actions(kind: str) -> None:
    policy = make(SPACES[kind])
    observations, actions = sample(policy)
    values, log_prob, entropy = policy.evaluate_actions(observations, actions)
    assert values.shape == (N, 1)
    torch.testing.assert_close(values, policy.action_values(observations, actions))
    distribution = policy.get_distribution(observations)
    torch.testing.assert_close(log_prob, distribution.log_prob(actions))
    assert entropy is not None
    inputs = torch.cat([observations, policy._encoded(actions)], dim=1)
    hidden = policy.mlp_extractor.value_net(inputs)
    torch.testing.assert_close(values, policy.value_net(hidden))


@every_space
def test_what_sb3_asks_for(kind: str) -> None:
    policy = make(SPACES[kind])
    observations, _ = sample(policy)
    torch.manual_seed(3)
    actions, values, log_prob = policy(observations)
    assert actions.shape == (N, *SPACES[kind].shape)
    torch.testing.assert_close(values, policy.action_values(observations, actions))
    torch.testing.assert_close(
        log_prob, policy.get_distribution(observations).log_prob(actions), rtol=1e-5, atol=1e-5
    )
    torch.manual_seed(3)  # the same draw
    torch.testing.assert_close(policy.predict_values(observations), values)
    # The values do not pull at the actor, not even through an action that was drawn from it.
    values.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in policy.action_net.parameters())


def test_the_value_of_a_state_is_the_mean_over_actions() -> None:
    policy = make(SPACES["discrete"])
    with torch.no_grad():
        policy.action_net.weight.add_(torch.randn_like(policy.action_net.weight))
        state = torch.rand(1, 4)
        each = policy.action_values(state.expand(3, 4), torch.arange(3)).flatten()
        expected = float(policy.get_distribution(state).distribution.probs[0] @ each)
        drawn = policy.predict_values(state.expand(20_000, 4))
    assert float(drawn.std()) > 0.0
    assert float(drawn.mean()) == pytest.approx(expected, abs=5 * float(drawn.std()) / 20_000**0.5)


@pytest.mark.parametrize(
    ("arch", "widths"),
    [
        (None, [64, 64]),
        ([], []),
        ([8, 5], [8, 5]),
        ({"pi": [3], "vf": [7]}, [7]),
        ({"pi": [3], "vf": []}, []),
    ],
)
def test_the_critics_layers(arch: Any, widths: list[int]) -> None:
    policy = make(SPACES["box"], net_arch=arch)
    mlp = action_critic_mlp(policy)
    assert mlp is not None
    assert [layer.out_features for layer in mlp.layers] == [*widths, 1]
    assert mlp.layers[0].in_features == 4 + 2
    assert actor_mlp(policy) is not None  # the actor is a common one
    assert critic_mlp(policy) is None
    observations, actions = sample(policy)
    with torch.no_grad():
        values = policy.action_values(observations, actions)
        torch.testing.assert_close(mlp.outputs(policy.critic_inputs(observations, actions)), values)
    held = {id(p) for group in policy.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in policy.parameters()}


def test_a_state_critic_is_none_of_these() -> None:
    assert action_critic_mlp(ActorCritic("MlpPolicy", "CartPole-v1").policy) is None


class Hooked(ActionValuePolicy):
    """Values actions in a way that only automatic differentiation follows."""

    def action_values(self, obs: Any, actions: torch.Tensor) -> torch.Tensor:
        return super().action_values(obs, actions)


@every_space
@pytest.mark.parametrize("critic", ["adam", "gauss_newton"])
def test_fitting_by_hand_is_autograds(kind: str, critic: str) -> None:
    policies = [make(SPACES[kind]), make(SPACES[kind], Hooked)]
    policies[1].load_state_dict(policies[0].state_dict())
    observations, actions = sample(policies[0])
    targets = 2.0 + torch.randn(N)
    losses = []
    for policy in policies:
        before = flatten(p.detach() for p in policy.action_net.parameters())
        inputs = StateActions(observations, actions)
        parameters = critic_parameters(policy, inputs, [])
        assert {id(p) for p in parameters} == {
            id(p)
            for net in (policy.mlp_extractor.value_net, policy.value_net)
            for p in net.parameters()
        }
        torch.manual_seed(5)
        if critic == "adam":
            loss = fit_adam(policy, parameters, inputs, targets, n_epochs=4, batch_size=8)
        else:
            loss = fit_gauss_newton(policy, parameters, inputs, targets, n_steps=1, damping=0.1)
        losses.append(loss)
        assert torch.equal(flatten(p.detach() for p in policy.action_net.parameters()), before)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    mine, other = (flatten(p.detach() for p in policy.parameters()) for policy in policies)
    torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


def test_pairs_need_a_critic_of_pairs() -> None:
    policy = ActorCritic("MlpPolicy", "CartPole-v1").policy
    inputs = StateActions(torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(TypeError, match="ActorCriticPolicy has no action-value critic"):
        critic_parameters(policy, inputs, [])


def test_images_and_dictionaries() -> None:
    image = spaces.Box(0, 255, (1, 36, 36), np.uint8)
    cnn = ActionValueCnnPolicy(image, SPACES["discrete"], lambda _: 1e-3)
    batch = torch.randint(0, 256, (3, 1, 36, 36), dtype=torch.uint8)
    actions, values, _ = cnn(batch)
    torch.testing.assert_close(values, cnn.action_values(batch, actions))
    assert action_critic_mlp(cnn) is None  # its features have parameters
    inputs = StateActions(batch, actions)
    own = critic_parameters(cnn, inputs, list(cnn.features_extractor.parameters()))
    assert {id(p) for p in own} == {id(p) for p in cnn.value_net.parameters()}

    space = spaces.Dict({"image": image, "vector": VECTOR})
    several = MultiInputActionValuePolicy(space, SPACES["box"], lambda _: 1e-3)
    observations = {"image": batch, "vector": torch.rand(3, 4)}
    actions, values, _ = several(observations)
    torch.testing.assert_close(values, several.action_values(observations, actions))


class Walk(gym.Env[Any, Any]):
    """Real ends only, so that SB3's rollouts draw no action for a time limit in between."""

    observation_space = VECTOR

    def __init__(self, action_space: gym.Space) -> None:
        self.action_space = action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.np_random.uniform(-1.0, 1.0, 4).astype(np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs = self.np_random.uniform(-1.0, 1.0, 4).astype(np.float32)
        return obs, float(np.sum(action)), bool(self.np_random.random() < 0.2), False, {}


@every_space
def test_fast_rollouts_are_sb3s(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def buffer_of(fast: bool) -> Any:
        with monkeypatch.context() as patch:
            if not fast:
                patch.setattr(rollouts, "acts_as_sb3", lambda _: False)
            agent = ActorCritic(
                "MlpQPolicy",
                make_vec_env(lambda: Walk(SPACES[kind]), 3),
                psi="q",
                n_steps=20,
                seed=4,
                learning_rate=0.0,
            )
            agent.learn(60)
            return agent.rollout_buffer

    fast, slow = buffer_of(True), buffer_of(False)
    for name in ("observations", "actions", "rewards", "values", "log_probs", "returns"):
        np.testing.assert_allclose(
            getattr(fast, name), getattr(slow, name), rtol=1e-4, atol=1e-5, err_msg=name
        )


def test_nn_modules_are_saved_with_the_policy() -> None:
    names = set(make(SPACES["box"], net_arch=[8]).state_dict())
    assert {"mlp_extractor.value_net.0.weight", "value_net.weight"} <= names
    assert isinstance(make(SPACES["box"]).mlp_extractor.value_net, nn.Sequential)
