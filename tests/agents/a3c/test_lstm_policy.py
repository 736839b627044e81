"""The policy with a memory: its arithmetic, its states, and that it remembers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.envs import SimpleMultiObsEnv
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv

from agents.a3c import A3C
from agents.a3c.gradient import LossWeights, SegmentLoss
from agents.a3c.lstm_policy import LstmPolicy
from agents.errors import ConfigError
from agents.functional import flatten

SPACES: dict[str, gym.Space[Any]] = {
    "box": spaces.Box(-1.0, 1.0, (3,), np.float32),
    "discrete": spaces.Discrete(4),
    "multi-discrete": spaces.MultiDiscrete([2, 3]),
    "multi-binary": spaces.MultiBinary(3),
}
SMALL: dict[str, Any] = {"policy_kwargs": {"net_arch": [5], "lstm_hidden_size": 6}, "seed": 2}


class _Keep(BaseCallback):
    def _on_step(self) -> bool:
        return True


class Recall(gym.Env[Any, Any]):
    """Shows a sign once; three blank steps later it is to be repeated."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.sign, self.n_steps = int(self.np_random.integers(2)), 0
        return np.array([2.0 * self.sign - 1.0, 0.0], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.n_steps += 1
        asked = self.n_steps == 3
        obs = np.array([0.0, float(asked)], np.float32)
        if self.n_steps < 4:
            return obs, 0.0, False, False, {}
        return obs, float(action == self.sign), True, False, {}


def two_envs(script: Any, kind: str = "discrete") -> DummyVecEnv:
    ends = [{2: "truncated"}, {4: "terminated"}]
    rewards = [1.0, -2.0, 0.5, 3.0, 1.5]
    return DummyVecEnv(
        [lambda end=end: script(rewards, end, SPACES[kind]) for end in ends]  # type: ignore[misc]
    )


def collected(script: Any, kind: str = "discrete", n_segments: int = 1, **kwargs: Any) -> A3C:
    agent = A3C("MlpLstmPolicy", two_envs(script, kind), n_steps=8, **(SMALL | kwargs))
    _, callback = agent._setup_learn(1000, _Keep())
    for _ in range(n_segments):
        assert agent.collect_rollouts(agent.env, callback, agent.rollout_buffer, 8)  # type: ignore[arg-type]
    return agent


def policy_of(agent: A3C) -> LstmPolicy:
    assert isinstance(agent.policy, LstmPolicy)
    return agent.policy


def test_a_step_by_hand() -> None:
    """i, f, g, o = W_x x + b_x + W_h h + b_h;  c' = σ(f) c + σ(i) tanh g;  h' = σ(o) tanh c'."""
    policy = policy_of(A3C("MlpLstmPolicy", "CartPole-v1", **SMALL))
    torch.manual_seed(0)
    obs, (hidden, cell) = torch.randn(2, 4), torch.randn(2, 2, 6)
    with torch.no_grad():
        latent, state = policy.advance(obs, (hidden, cell), torch.tensor([0.0, 1.0]))
        going_on = torch.tensor([[1.0], [0.0]])
        body, lstm = policy._torso.body[0], policy._torso.lstm
        inputs = torch.tanh(obs @ body.weight.T + body.bias)
        gates = inputs @ lstm.weight_ih.T + lstm.bias_ih + lstm.bias_hh
        gates += (hidden * going_on) @ lstm.weight_hh.T
        i, f, g, o = gates.chunk(4, dim=1)
        new_cell = torch.sigmoid(f) * cell * going_on + torch.sigmoid(i) * torch.tanh(g)
        new_hidden = torch.sigmoid(o) * torch.tanh(new_cell)
    torch.testing.assert_close(state, (new_hidden, new_cell))
    assert torch.equal(latent, state[0])


@pytest.mark.parametrize("kind", list(SPACES))
def test_a_segment_is_evaluated_as_it_was_collected(script: Any, kind: str) -> None:
    """Over resets, and beginning with a state: the second segment."""
    agent = collected(script, kind, n_segments=2)
    buffer, learner = agent.rollout_buffer, agent._learner
    start = learner._start_state  # type: ignore[union-attr]
    assert start is not None
    assert start[0].abs().max() > 0.0
    values, log_prob, entropy = policy_of(agent).evaluate_segment(buffer, start)
    np.testing.assert_allclose(values.detach().view(8, 2), buffer.values, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(log_prob.detach().view(8, 2), buffer.log_probs, rtol=1e-4, atol=1e-6)
    assert entropy is not None
    assert buffer.episode_starts.sum() >= 4


def test_time_limits_are_bootstrapped_with_the_state_of_their_episode(script: Any) -> None:
    """Environment 0 is cut off every third step, environment 1 really ends every fifth."""
    agent = collected(script, gamma=0.5)
    policy, buffer = policy_of(agent), agent.rollout_buffer
    state, env = policy.start_state(2), script()
    expected = np.array([[1.0, -2.0, 0.5] * 3, [1.0, -2.0, 0.5, 3.0, 1.5, 1.0, -2.0, 0.5, 3.0]])
    expected = expected[:, :8].T.copy()
    for step in range(8):
        obs = torch.as_tensor(buffer.observations[step])
        starts = torch.as_tensor(buffer.episode_starts[step])
        with torch.no_grad():
            _, state = policy.advance(obs, state, starts)
            if step % 3 == 2:
                env.n_steps = 3
                last = torch.as_tensor(env.observe()[None])
                value = policy.predict_values(last, (state[0][:1], state[1][:1]), torch.zeros(1))
                expected[step, 0] += 0.5 * value.item()
    np.testing.assert_allclose(buffer.rewards, expected, rtol=1e-5)


def test_the_gradient_flows_through_time(script: Any) -> None:
    """Against a loop over the steps that calls the whole policy each time."""
    agent = collected(script, n_segments=2)
    policy, buffer = policy_of(agent), agent.rollout_buffer
    start = agent._learner._start_state  # type: ignore[union-attr]
    loss = SegmentLoss(policy, LossWeights(ent_coef=0.1, vf_coef=0.5, max_grad_norm=1e9))
    segment = loss.gradient(buffer, start)
    state, terms = start, []
    for step in range(8):
        obs = torch.as_tensor(buffer.observations[step])
        starts = torch.as_tensor(buffer.episode_starts[step])
        latent, state = policy.advance(obs, state, starts)
        distribution = policy._get_action_dist_from_latent(latent)
        log_prob = distribution.log_prob(torch.as_tensor(buffer.actions[step]).long().flatten())
        values = policy.value_net(latent).flatten()
        terms.append(
            -torch.as_tensor(buffer.advantages[step]) * log_prob
            + 0.5 * (torch.as_tensor(buffer.returns[step]) - values).square()
            - 0.1 * distribution.entropy()
        )
    expected = flatten(torch.autograd.grad(torch.cat(terms).mean(), list(policy.parameters())))
    torch.testing.assert_close(segment.gradient, expected, rtol=1e-4, atol=1e-6)
    names = [name for name, _ in policy.named_parameters()]
    sizes = [parameter.numel() for parameter in policy.parameters()]
    recurrent = torch.split(expected, sizes)[names.index("mlp_extractor.lstm.weight_hh")]
    assert recurrent.abs().max() > 1e-3


def test_predict_carries_the_state_and_forgets_it(script: Any) -> None:
    agent = collected(script, "box")
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 2, 2)).astype(np.float32)
    _, state = agent.predict(first, deterministic=True)
    assert state is not None
    assert [part.shape for part in state] == [(1, 2, 6), (1, 2, 6)]
    fresh, _ = agent.predict(second, deterministic=True)
    carried, _ = agent.predict(second, state=state, deterministic=True)
    assert not np.allclose(carried, fresh, atol=1e-7)
    reset, _ = agent.predict(
        second, state=state, episode_start=np.array([True, False]), deterministic=True
    )
    np.testing.assert_allclose(reset, [fresh[0], carried[1]], rtol=1e-6)
    alone, alone_state = agent.predict(second[0], deterministic=True)
    assert alone.shape == (3,)
    np.testing.assert_allclose(alone, fresh[0], rtol=1e-5)
    assert alone_state is not None
    assert alone_state[0].shape == (1, 1, 6)


@pytest.mark.parametrize("kind", list(SPACES))
def test_it_learns_in_each_space_and_is_saved(script: Any, kind: str, tmp_path: Path) -> None:
    agent = A3C("MlpLstmPolicy", two_envs(script, kind), n_steps=8, **SMALL)
    before = flatten(p.detach() for p in agent.policy.parameters())
    agent.learn(64)
    after = flatten(p.detach() for p in agent.policy.parameters())
    assert torch.isfinite(after).all()
    assert not torch.equal(after, before)
    agent.save(tmp_path / "agent")
    loaded = A3C.load(tmp_path / "agent", env=two_envs(script, kind))
    obs = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    for deterministic in (True, False):
        actions, _ = loaded.predict(obs, deterministic=deterministic)
        assert all(SPACES[kind].contains(action) for action in actions)
    np.testing.assert_array_equal(
        loaded.predict(obs, deterministic=True)[0], agent.predict(obs, deterministic=True)[0]
    )
    loaded.learn(64, reset_num_timesteps=False)
    assert loaded.num_timesteps == 128


def test_it_repeats_itself(script: Any) -> None:
    def trained() -> torch.Tensor:
        agent = A3C("MlpLstmPolicy", two_envs(script), n_steps=8, **SMALL).learn(128)
        return flatten(p.detach() for p in agent.policy.parameters())

    assert torch.equal(trained(), trained())


def test_one_process_does_what_this_process_would(
    make_crew: Callable[..., A3C], script: Any
) -> None:
    def trained(*, process: bool) -> torch.Tensor:
        agent = A3C("MlpLstmPolicy", script(), n_steps=8, worker_env=script, **SMALL)
        agent.has_worker_processes = process
        agent.learn(160)
        return flatten(p.detach() for p in agent.policy.parameters())

    assert torch.equal(trained(process=True), trained(process=False))


@pytest.mark.parametrize(
    ("env", "kwargs", "message"),
    [
        ("Pendulum-v1", {"use_sde": True}, "MlpLstmPolicy has no gSDE"),
        ("Pendulum-v1", {"policy_kwargs": {"net_arch": {"pi": [8]}}}, "must be a list of the widt"),
        ("Pendulum-v1", {"policy_kwargs": {"lstm_hidden_size": 0}}, "must be at least 1"),
        (SimpleMultiObsEnv, {}, "MlpLstmPolicy takes no dictionaries"),
    ],
)
def test_what_it_cannot_do_is_refused(env: Any, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        A3C("MlpLstmPolicy", env if isinstance(env, str) else env(), **kwargs)


@pytest.mark.slow
def test_it_remembers() -> None:
    """A policy without memory earns half of the points at best."""
    earned = {}
    for policy in ("MlpLstmPolicy", "MlpPolicy"):
        env = DummyVecEnv([Recall] * 8)
        agent = A3C(policy, env, n_steps=8, learning_rate=3e-3, seed=0)
        agent.learn(60_000)
        earned[policy], _ = evaluate_policy(agent, env, n_eval_episodes=200, warn=False)
    assert earned["MlpLstmPolicy"] > 0.95
    assert earned["MlpPolicy"] < 0.65
