"""Actor-critic: what Ψ is, the step it leads to, and what the critics learn."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv, SimpleMultiObsEnv

from agents import A2C, ActorCritic
from agents.errors import ConfigError, UnknownName
from agents.functional import flatten

ACTIONS: dict[str, gym.Space] = {
    "box": spaces.Box(-1.0, 1.0, (2,), np.float32),
    "discrete": spaces.Discrete(4),
    "multi-discrete": spaces.MultiDiscrete([2, 3]),
    "multi-binary": spaces.MultiBinary(3),
}
PSI = ["advantage", "td_residual", "q"]
every_psi = pytest.mark.parametrize("psi", PSI)
SGD: dict[str, Any] = {"net_arch": [8], "optimizer_class": torch.optim.SGD}
ENDLESS = 1e9  # no gradient is as long as that


class Walk(gym.Env[Any, Any]):
    """Random states, pay for the action, both kinds of end."""

    observation_space = spaces.Box(-1.0, 1.0, (3,), np.float32)

    def __init__(self, kind: str = "box", time_limit: int = 7) -> None:
        self.action_space, self.time_limit = ACTIONS[kind], time_limit

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.n_steps = 0
        return self.np_random.uniform(-1.0, 1.0, 3).astype(np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.n_steps += 1
        obs = self.np_random.uniform(-1.0, 1.0, 3).astype(np.float32)
        terminated = bool(self.np_random.random() < 0.1)
        return obs, float(np.sum(action)), terminated, self.n_steps >= self.time_limit, {}


def make(psi: str = "advantage", kind: str = "box", policy: Any = None, **kw: Any) -> ActorCritic:
    env = make_vec_env(lambda: Walk(kind), 3)
    name = policy or ("MlpQPolicy" if psi == "q" else "MlpPolicy")
    settings: dict[str, Any] = {"n_steps": 12, "seed": 2, "gamma": 0.9, "batch_size": 12}
    return ActorCritic(name, env, psi=psi, **settings | kw)


class Keep(BaseCallback):
    """Keeps what a rollout left and the policy that collected it."""

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        buffer = self.model.rollout_buffer
        names = ("observations", "actions", "rewards", "episode_starts", "values")
        self.kept = {name: getattr(buffer, name).copy() for name in (*names, "returns")}
        self.kept["advantages"] = buffer.advantages.copy()
        self.kept["dones"] = self.model._last_episode_starts.copy()


def actor(agent: ActorCritic) -> torch.Tensor:
    policy = agent.policy
    parts = [*policy.mlp_extractor.policy_net.parameters(), *policy.action_net.parameters()]
    if hasattr(policy, "log_std"):
        parts.append(policy.log_std)
    return flatten(p.detach() for p in parts)


def critic(agent: ActorCritic) -> torch.Tensor:
    nets = (agent.policy.mlp_extractor.value_net, agent.policy.value_net)
    return flatten(p.detach() for net in nets for p in net.parameters())


# --- Ψ ------------------------------------------------------------------------------------------


def rollout(agent: ActorCritic) -> tuple[dict[str, np.ndarray], torch.Tensor]:
    """Return one rollout and its Ψ in the order of the buffer, shape ``(n_steps, n_envs)``."""
    keep = Keep()
    agent.train = lambda: None  # type: ignore[method-assign]
    agent.learn(agent.n_steps * agent.n_envs, callback=keep)
    buffer = agent.rollout_buffer
    # One sample at a time, in the buffer's own order.
    batch = next(iter(buffer.get(batch_size=None)))
    everything = buffer._get_samples(np.arange(len(batch.returns)))
    psi = agent._psi(everything).reshape(agent.n_envs, agent.n_steps).T
    return keep.kept, psi


def residuals(kept: dict[str, np.ndarray], last_values: np.ndarray, gamma: float) -> np.ndarray:
    """Return ``r + γ V(s') − V(s)``; the rewards hold ``γ V(s')`` where a time limit struck."""
    following = np.concatenate([kept["values"][1:], last_values[None]])
    over = np.concatenate([kept["episode_starts"][1:], kept["dones"][None]]).astype(bool)
    return kept["rewards"] + gamma * np.where(over, 0.0, following) - kept["values"]


def test_the_td_residual_is_one_step_whatever_lambda_says() -> None:
    agent = make("td_residual", gae_lambda=0.7)
    kept, psi = rollout(agent)
    with torch.no_grad():
        last = agent.policy.predict_values(torch.as_tensor(agent._last_obs)).flatten().numpy()
    expected = residuals(kept, last, 0.9)
    np.testing.assert_allclose(psi.numpy(), expected, rtol=1e-4, atol=1e-5)
    # And the critic's target is the one-step one.
    np.testing.assert_allclose(kept["returns"], kept["values"] + expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.7, 1.0])
def test_the_advantage_is_the_sum_of_decaying_residuals(gae_lambda: float) -> None:
    agent = make("advantage", gae_lambda=gae_lambda)
    kept, psi = rollout(agent)
    with torch.no_grad():
        last = agent.policy.predict_values(torch.as_tensor(agent._last_obs)).flatten().numpy()
    delta = residuals(kept, last, 0.9)
    over = np.concatenate([kept["episode_starts"][1:], kept["dones"][None]]).astype(bool)
    expected = np.zeros_like(delta)
    for env in range(3):
        for t in range(12):
            weight = 1.0
            for later in range(t, 12):
                expected[t, env] += weight * delta[later, env]
                weight *= 0.9 * gae_lambda
                if over[later, env]:
                    break
    np.testing.assert_allclose(psi.numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", list(ACTIONS))
def test_q_is_the_critics_value_of_the_action(kind: str) -> None:
    agent = make("q", kind)
    kept, psi = rollout(agent)
    observations = torch.as_tensor(kept["observations"].reshape(36, 3))
    actions = torch.as_tensor(kept["actions"].reshape(36, -1))
    actions = actions.long().flatten() if kind == "discrete" else actions.float()
    with torch.no_grad():
        expected = agent.policy.action_values(observations, actions)  # type: ignore[operator]
    np.testing.assert_allclose(psi.numpy(), expected.reshape(12, 3), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.8])
def test_the_targets_of_q_are_sarsas(gae_lambda: float) -> None:
    agent = make("q", gae_lambda=gae_lambda)
    kept, _ = rollout(agent)
    over = np.concatenate([kept["episode_starts"][1:], kept["dones"][None]]).astype(bool)
    values, rewards, returns = kept["values"], kept["rewards"], kept["returns"]
    # G_t = r + γ ((1 − λ) Q(s', a') + λ G_{t+1}); the last row hangs on an action drawn later.
    for t in range(11):
        mixed = (1.0 - gae_lambda) * values[t + 1] + gae_lambda * returns[t + 1]
        expected = rewards[t] + 0.9 * np.where(over[t], 0.0, mixed)
        np.testing.assert_allclose(returns[t], expected, rtol=1e-4, atol=1e-5)


# --- The step -----------------------------------------------------------------------------------


@every_psi
@pytest.mark.parametrize("kind", list(ACTIONS))
@pytest.mark.parametrize("hooked", [False, True])
def test_the_step_goes_along_the_gradient_of_the_definition(
    psi: str, kind: str, hooked: bool
) -> None:
    """By hand for the common MLP, automatically for a hooked one: both are autograd's."""
    kw: dict[str, Any] = {"learning_rate": 0.3, "max_grad_norm": ENDLESS, "ent_coef": 0.2}
    agent = make(psi, kind, policy_kwargs=SGD, critic_learning_rate=1e-3, **kw)
    if hooked:
        agent.policy.action_net.register_forward_hook(lambda *_: None)
    expected: list[torch.Tensor] = []
    step = agent._step

    def compare(batch: Any, weights: torch.Tensor) -> Any:
        distribution = agent.policy.get_distribution(batch.observations)
        log_prob = distribution.log_prob(agent._actions(batch))
        assert float(weights.mean()) == pytest.approx(0.0, abs=1e-5)
        assert float(weights.std()) == pytest.approx(1.0, abs=1e-4)
        objective = (weights * log_prob).mean() + 0.2 * distribution.entropy().mean()
        names = ["policy_net", "action_net", "log_std"]
        mine = [p for n, p in agent.policy.named_parameters() if any(k in n for k in names)]
        gradient = torch.autograd.grad(objective, mine)
        expected.append(flatten(p.detach() + 0.3 * g for p, g in zip(mine, gradient, strict=True)))
        moved = step(batch, weights)
        expected.append(flatten(p.detach() for p in mine))
        assert {id(p) for p in moved} == {id(p) for p in mine}
        return moved

    agent._step = compare  # type: ignore[method-assign]
    agent.learn(36)
    torch.testing.assert_close(expected[1], expected[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("kind", ["box", "discrete"])
def test_the_actors_step_is_a2cs(kind: str, normalize: bool) -> None:
    """Same rollout, same advantages: without its critic's share A2C moves the actor likewise."""
    weights = []
    for cls, own in ((ActorCritic, {"psi": "advantage"}), (A2C, {"vf_coef": 0.0})):
        agent = cls(
            "MlpPolicy",
            make_vec_env(lambda: Walk(kind), 3),
            n_steps=12,
            seed=2,
            gae_lambda=0.8,
            learning_rate=0.1,
            ent_coef=0.05,
            max_grad_norm=0.2,
            normalize_advantage=normalize,
            policy_kwargs=SGD,
            **own,
        )
        agent.learn(36)
        weights.append(actor(agent))
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-6)


def test_a_long_gradient_is_shortened() -> None:
    agent = make(learning_rate=1.0, max_grad_norm=0.01, policy_kwargs=SGD)
    before = actor(agent)
    agent.learn(36, log_interval=10**6)
    assert agent.logger.name_to_value["train/grad_norm"] > 0.05
    assert float((actor(agent) - before).norm()) == pytest.approx(0.01, rel=1e-3)


@every_psi
def test_actor_and_critic_do_not_move_each_other(psi: str) -> None:
    agent = make(psi, learning_rate=0.0, critic_learning_rate=1e-2)
    before, value_before = actor(agent), critic(agent)
    agent.learn(108)
    assert torch.equal(actor(agent), before)
    assert not torch.equal(critic(agent), value_before)
    agent = make(psi, learning_rate=1e-2, critic_learning_rate=0.0)
    before, value_before = actor(agent), critic(agent)
    agent.learn(108)
    assert torch.equal(critic(agent), value_before)
    assert not torch.equal(actor(agent), before)


def test_a_schedule_for_each() -> None:
    agent = make(learning_rate=lambda left: 0.1 * left, critic_learning_rate=lambda left: 0.0)
    before = critic(agent)
    agent.learn(72, log_interval=10**6)
    assert torch.equal(critic(agent), before)
    assert agent.logger.name_to_value["train/learning_rate"] == pytest.approx(0.0)  # at the end


@every_psi
def test_a_gradient_that_is_not_finite_is_not_followed(psi: str) -> None:
    agent = make(psi, normalize_advantage=False)
    before = actor(agent)
    agent._psi = lambda batch: batch.advantages + math.inf  # type: ignore[method-assign]
    agent.learn(72, log_interval=10**6)
    assert torch.equal(actor(agent), before)
    assert agent.n_skipped_updates == 2
    assert agent.logger.name_to_value["train/skipped_updates"] == 2


# --- The critics --------------------------------------------------------------------------------


class TwoStates(gym.Env[Any, Any]):
    """Action 1 leads to the other state, action 0 stays; pay is 1 in state 1. Never ends."""

    observation_space = spaces.Discrete(2)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.state = int(self.np_random.integers(2))
        return self.state, {}

    def step(self, action: Any) -> tuple[int, float, bool, bool, dict[str, Any]]:
        reward = float(self.state)
        self.state = self.state ^ int(action)
        return self.state, reward, False, False, {}


def exact_action_values(policy: np.ndarray, gamma: float) -> np.ndarray:
    """Solve ``Q = r + γ P π Q``, shape ``(2 states, 2 actions)``."""
    successor = [0, 1, 1, 0]  # of (0, 0), (0, 1), (1, 0), (1, 1)
    matrix = np.eye(4)
    for pair in range(4):
        for action in range(2):
            state = successor[pair]
            matrix[pair, 2 * state + action] -= gamma * policy[state, action]
    return np.linalg.solve(matrix, [0.0, 0.0, 1.0, 1.0]).reshape(2, 2)


def test_q_learns_the_policys_action_values() -> None:
    agent = ActorCritic(
        "MlpQPolicy",
        make_vec_env(TwoStates, 4),
        psi="q",
        gamma=0.8,
        gae_lambda=0.5,
        n_steps=32,
        batch_size=32,
        learning_rate=0.0,
        critic_learning_rate=lambda left: 1e-3 + 0.02 * left,
        seed=1,
        policy_kwargs={"net_arch": {"pi": [], "vf": [16]}},
    )
    policy = np.array([[0.7, 0.3], [0.4, 0.6]])
    with torch.no_grad():
        agent.policy.action_net.weight.copy_(torch.log(torch.tensor(policy.T)))
    agent.learn(128 * 40)
    states, actions = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    with torch.no_grad():
        learnt = agent.policy.action_values(states, actions).reshape(2, 2)  # type: ignore[operator]
    expected = exact_action_values(policy, 0.8)
    assert np.ptp(expected) > 0.5
    np.testing.assert_allclose(learnt.numpy(), expected, atol=0.15)


def test_v_learns_the_policys_values() -> None:
    agent = ActorCritic(
        "MlpPolicy",
        make_vec_env(TwoStates, 4),
        psi="td_residual",
        gamma=0.8,
        n_steps=32,
        batch_size=32,
        learning_rate=0.0,
        critic_learning_rate=lambda left: 1e-3 + 0.02 * left,
        seed=1,
        policy_kwargs={"net_arch": {"pi": [], "vf": [16]}},
    )
    agent.learn(128 * 40)
    probs = np.full((2, 2), 0.5)
    with torch.no_grad():  # SB3's orthogonal start is nearly, not exactly, uniform
        for state in range(2):
            probs[state] = agent.policy.get_distribution(
                torch.tensor([state])
            ).distribution.probs.numpy()
        learnt = agent.policy.predict_values(torch.tensor([0, 1])).flatten().numpy()
    expected = (probs * exact_action_values(probs, 0.8)).sum(axis=1)
    np.testing.assert_allclose(learnt, expected, atol=0.15)


# --- What goes together -------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["MlpPolicy", "CnnPolicy", "MultiInputPolicy"])
def test_q_needs_a_critic_of_actions(policy: str) -> None:
    with pytest.raises(ConfigError, match="psi=q needs a policy whose critic values actions"):
        make("q", policy=policy)


@pytest.mark.parametrize("psi", ["advantage", "td_residual"])
def test_a_critic_of_actions_is_for_q(psi: str) -> None:
    with pytest.raises(ConfigError, match=rf"psi={psi} needs a policy whose critic values states"):
        make(psi, policy="MlpQPolicy")


def test_an_unknown_psi_is_refused() -> None:
    with pytest.raises(UnknownName, match="Unknown psi of ActorCritic 'gae'"):
        make("gae", policy="MlpPolicy")
    with pytest.raises(UnknownName, match="Known: advantage, q, td_residual"):
        make("return", policy="MlpPolicy")


@every_psi
def test_what_is_saved_goes_on_alike(psi: str, tmp_path: Path) -> None:
    agent = make(psi).learn(72)
    agent.save(tmp_path / "agent")
    weights = []
    for _ in range(2):
        loaded = ActorCritic.load(tmp_path / "agent", env=make_vec_env(Walk, 3))
        assert loaded.psi == psi
        assert loaded.rollout_buffer.gae_lambda == (0.0 if psi == "td_residual" else 0.95)
        loaded.set_random_seed(5)
        loaded.learn(72, reset_num_timesteps=False)
        weights.append(flatten(p.detach() for p in loaded.policy.parameters()))
    assert torch.equal(*weights)


@pytest.mark.parametrize("policy", ["CnnQPolicy", "MultiInputQPolicy"])
def test_q_on_images_and_dictionaries(policy: str) -> None:
    def make_env() -> gym.Env[Any, Any]:
        if policy == "CnnQPolicy":
            return FakeImageEnv(action_dim=3, screen_height=36, screen_width=36)
        return SimpleMultiObsEnv(random_start=False, channel_last=False)

    agent = ActorCritic(policy, make_vec_env(make_env, 2), psi="q", n_steps=16, seed=1)
    before, value_before = actor(agent), critic(agent)
    agent.learn(64)
    for now, then in ((actor(agent), before), (critic(agent), value_before)):
        assert torch.isfinite(now).all()
        assert not torch.equal(now, then)
