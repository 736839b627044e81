"""What a worker pushes, against torch's autograd and hand arithmetic."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from agents.a3c import A3C
from agents.a3c.gradient import LossWeights, SegmentGradient, SegmentLoss
from agents.functional import flatten

SPACES: dict[str, gym.Space[Any]] = {
    "box": spaces.Box(-1.0, 1.0, (3,), np.float32),
    "discrete": spaces.Discrete(4),
    "multi-discrete": spaces.MultiDiscrete([2, 3]),
    "multi-binary": spaces.MultiBinary(3),
}
ENDS = {3: "terminated", 11: "truncated"}


class _Keep(BaseCallback):
    """Stops after the first segment."""

    def _on_step(self) -> bool:
        return True


def collected(script: Any, kind: str, **kwargs: Any) -> A3C:
    """Return an agent with one segment in its buffer, collected and not learnt from."""
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=12)
    env = DummyVecEnv([lambda: script(rewards, ENDS, SPACES[kind]) for _ in range(2)])
    settings: dict[str, Any] = {"n_steps": 8, "seed": 3, "max_grad_norm": 1e9} | kwargs
    agent = A3C("MlpPolicy", env, **settings)
    _, callback = agent._setup_learn(1000, _Keep())
    assert agent.collect_rollouts(env, callback, agent.rollout_buffer, agent.n_steps)
    return agent


def a2c_loss(agent: A3C, *, correct_exploration: bool = False) -> torch.Tensor:
    """Return the loss written out, differentiable."""
    batch = next(iter(agent.rollout_buffer.get(batch_size=None)))
    actions = batch.actions
    if isinstance(agent.action_space, spaces.Discrete):
        actions = actions.long().flatten()
    values, log_prob, entropy = agent.policy.evaluate_actions(batch.observations, actions)
    weights: Any = 1.0
    if correct_exploration:
        weights = torch.exp(log_prob.detach() - batch.old_log_prob).clamp(max=1.0)
        assert sorted(set(weights.numpy().round(4).tolist())) == [0.5, 1.0]
    policy_loss = -(weights * batch.advantages * log_prob).mean()
    value_loss = (batch.returns - values.flatten()).square().mean()
    return policy_loss + agent.vf_coef * value_loss - agent.ent_coef * entropy.mean()


def autograd(agent: A3C, loss: torch.Tensor, parameters: list[Any]) -> torch.Tensor:
    return flatten(torch.autograd.grad(loss, parameters))


def own_gradient(agent: A3C, **weights: Any) -> tuple[SegmentGradient, list[Any]]:
    loss = SegmentLoss(
        agent.policy,
        LossWeights(
            **{"ent_coef": agent.ent_coef, "vf_coef": agent.vf_coef, "max_grad_norm": 1e9} | weights
        ),
    )
    return loss.gradient(agent.rollout_buffer), loss.parameters


@pytest.mark.parametrize("kind", list(SPACES))
def test_the_gradient_is_that_of_the_a2c_loss(script: Any, kind: str) -> None:
    agent = collected(script, kind, ent_coef=0.05, vf_coef=0.3)
    segment, parameters = own_gradient(agent)
    assert sum(p.numel() for p in parameters) == sum(p.numel() for p in agent.policy.parameters())
    expected = autograd(agent, a2c_loss(agent), parameters)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(segment.gradient, expected, rtol=1e-4, atol=1e-6)
    assert segment.norm == pytest.approx(float(expected.norm()), rel=1e-4)


@pytest.mark.parametrize("kind", ["box", "discrete"])
def test_a_long_gradient_is_scaled_down(script: Any, kind: str) -> None:
    agent = collected(script, kind)
    whole, _ = own_gradient(agent)
    clipped, _ = own_gradient(agent, max_grad_norm=whole.norm / 4)
    torch.testing.assert_close(clipped.gradient, whole.gradient / 4, rtol=1e-4, atol=1e-9)
    assert clipped.norm == pytest.approx(whole.norm, rel=1e-6)


@pytest.mark.parametrize("kind", ["box", "discrete"])
def test_a_reward_that_is_no_number_gives_no_usable_gradient(script: Any, kind: str) -> None:
    agent = collected(script, kind)
    assert own_gradient(agent)[0].is_finite
    agent.rollout_buffer.returns[0] = np.nan
    assert not own_gradient(agent)[0].is_finite


@pytest.mark.parametrize("kind", ["box", "discrete"])
def test_importance_weights_are_at_most_one(script: Any, kind: str) -> None:
    """The policy that acted gave half of the actions twice the odds, the others half."""
    agent = collected(script, kind)
    buffer = agent.rollout_buffer
    n_samples = buffer.log_probs.size
    ratios = np.where(np.arange(n_samples) < n_samples // 2, 0.5, 2.0).astype(np.float32)
    next(iter(buffer.get(batch_size=None)))  # flattens the arrays
    buffer.log_probs -= np.log(ratios).reshape(buffer.log_probs.shape)
    segment, parameters = own_gradient(agent, correct_exploration=True)
    expected = autograd(agent, a2c_loss(agent, correct_exploration=True), parameters)
    torch.testing.assert_close(segment.gradient, expected, rtol=1e-4, atol=1e-6)


def values_of(agent: A3C, observations: Any) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        tensor = torch.as_tensor(np.asarray(observations, np.float32))
        return agent.policy.predict_values(tensor).flatten().numpy()


def test_n_step_returns_by_hand(script: Any) -> None:
    """Six steps: a time limit after the third, a real end after the fifth, the segment's end."""
    rewards, gamma = [1.0, 2.0, 3.0], 0.5
    env = script(rewards)
    episodes = iter([{2: "truncated"}, {1: "terminated"}, {}])
    reset = env.reset

    def next_episode(**kwargs: Any) -> Any:
        env.ends = next(episodes)
        return reset(**kwargs)

    env.reset = next_episode
    agent = A3C("MlpPolicy", env, n_steps=6, gamma=gamma, seed=0)
    _, callback = agent._setup_learn(1000, _Keep())
    assert agent.collect_rollouts(agent.env, callback, agent.rollout_buffer, 6)

    def observation(n_steps: int) -> np.ndarray[Any, Any]:
        env.n_steps = n_steps
        return env.observe()

    seen = agent.rollout_buffer.observations[:, 0]
    np.testing.assert_array_equal(seen, [observation(n) for n in (0, 1, 2, 0, 1, 0)])
    time_limit, cut = values_of(agent, [observation(3), observation(1)])
    third = 3.0 + gamma * time_limit
    second = 2.0 + gamma * third
    fifth = 2.0  # a real end: no future
    expected = [1.0 + gamma * second, second, third, 1.0 + gamma * fifth, fifth, 1.0 + gamma * cut]
    np.testing.assert_allclose(agent.rollout_buffer.returns.flatten(), expected, rtol=1e-5)
    np.testing.assert_allclose(
        agent.rollout_buffer.advantages.flatten(),
        np.array(expected) - values_of(agent, seen),
        rtol=1e-4,
        atol=1e-6,
    )
