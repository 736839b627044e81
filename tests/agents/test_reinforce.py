"""REINFORCE: its gradient against exact enumeration, and what the returns of an episode are."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.policies import ActorCriticPolicy

from agents import REINFORCE, ActorCritic
from agents.episodes import Episodes
from agents.errors import ConfigError, UnknownName
from agents.functional import flatten

every_psi = pytest.mark.parametrize("psi", ["return", "reward_to_go", "baseline"])
ENDLESS = 1e9  # no gradient is as long as that
PLAIN: dict[str, Any] = {
    "normalize_advantage": False,
    "max_grad_norm": ENDLESS,
    "learning_rate": 1.0,
    "policy_kwargs": {"net_arch": [], "optimizer_class": torch.optim.SGD},
    "seed": 1,
}

# --- A small problem, in full -------------------------------------------------------------------
#
# Three states, two actions, at most three steps. Every probability is a multiple of 1/4, so that
# the batch in which each trajectory appears as often as it is likely *is* the expectation.

N_STATES, N_ACTIONS, HORIZON = 3, 2, 3
POLICY = np.array([[3, 1], [2, 2], [1, 3]])
"""Quarters: how likely action ``a`` is in state ``s``."""
# Quarters: how likely state s' follows (s, a); what is missing to four ends the episode.
TRANSITIONS = np.array([[[1, 2, 1], [0, 2, 0]], [[2, 0, 2], [1, 1, 1]], [[0, 4, 0], [1, 0, 0]]])
REWARDS = np.array([[1.0, -0.5], [0.3, 2.0], [-1.0, 0.7]])
START = 0


class Trajectory:
    """States, actions and how often it appears among 4^(2 · HORIZON)."""

    def __init__(self, states: list[int], actions: list[int], weight: int) -> None:
        self.states, self.actions, self.weight = states, actions, weight
        self.rewards = [REWARDS[s, a] for s, a in zip(states, actions, strict=True)]


def trajectories() -> Iterator[Trajectory]:
    def extend(states: list[int], actions: list[int], weight: int) -> Iterator[Trajectory]:
        state, rest = states[-1], HORIZON - len(states)
        for action in range(N_ACTIONS):
            likely = weight * POLICY[state, action]
            taken = [*actions, action]
            following = TRANSITIONS[state, action]
            stop = 4 if rest == 0 else 4 - following.sum()
            if stop:
                yield Trajectory(states, taken, int(likely * stop * 16**rest))
            if rest:
                for successor in np.flatnonzero(following):
                    more = int(likely * following[successor])
                    yield from extend([*states, int(successor)], taken, more)

    return extend([START], [], 1)


def exact_gradient(gamma: float, discount_late_states: bool) -> np.ndarray:
    """Return ``Σ_t w_t Σ_s P(s_t = s) Σ_a ∇π(a|s) Q_t(s, a)`` by dynamic programming.

    With ``w_t = γ^t`` it is the gradient of the expected discounted return, with ``w_t = 1`` what
    methods follow that leave γ^t out.

    :return: by the logit of each action in each state, shape ``(N_ACTIONS, N_STATES)``.
    """
    policy, transitions = POLICY / 4.0, TRANSITIONS / 4.0
    action_values = np.zeros((HORIZON + 1, N_STATES, N_ACTIONS))
    for t in range(HORIZON - 1, -1, -1):
        values = (policy * action_values[t + 1]).sum(axis=1)
        action_values[t] = REWARDS + gamma * transitions @ values
    occupancy = np.eye(N_STATES)[START]
    gradient = np.zeros((N_ACTIONS, N_STATES))
    for t in range(HORIZON):
        weight = gamma**t if discount_late_states else 1.0
        mean = (policy * action_values[t]).sum(axis=1, keepdims=True)
        advantage = policy * (action_values[t] - mean)  # Σ_b Q(b) ∂π(b)/∂logit(a)
        gradient += weight * (occupancy[:, None] * advantage).T
        occupancy = np.einsum("s,sa,sap->p", occupancy, policy, transitions)
    return gradient


class Table(gym.Env[Any, Any]):
    """Only the spaces of the problem: a state is a number, which SB3 makes one-hot."""

    observation_space = spaces.Discrete(N_STATES)
    action_space = spaces.Discrete(N_ACTIONS)


def table_agent(psi: str, **kwargs: Any) -> REINFORCE:
    """Return an agent whose policy is ``POLICY`` and whose logits are its weights."""
    agent = REINFORCE("MlpPolicy", make_vec_env(Table, 1), psi=psi, **PLAIN | kwargs)
    with torch.no_grad():
        agent.policy.action_net.weight.copy_(torch.log(torch.tensor(POLICY.T / 4.0)))
        agent.policy.action_net.bias.zero_()
        agent.policy.value_net.weight.copy_(torch.tensor([[0.5, -2.0, 1.5]]))
    return agent


@functools.cache
def everything() -> Episodes:
    """Return all trajectories side by side, each as often as it is likely."""
    columns = [trajectory for trajectory in trajectories() for _ in range(trajectory.weight)]
    shape = (HORIZON, len(columns))
    arrays: dict[str, Any] = {
        "observations": np.zeros(shape, dtype=np.int64),
        "actions": np.zeros(shape, dtype=np.int64),
        "rewards": np.zeros(shape, dtype=np.float32),
        "starts": np.zeros(shape, dtype=bool),
        "ends": np.zeros(shape, dtype=bool),
        "counted": np.zeros(shape, dtype=bool),
    }
    for column, trajectory in enumerate(columns):
        length = len(trajectory.states)
        arrays["observations"][:length, column] = trajectory.states
        arrays["actions"][:length, column] = trajectory.actions
        arrays["rewards"][:length, column] = trajectory.rewards
        arrays["starts"][0, column] = True
        arrays["ends"][length - 1, column] = True
        arrays["counted"][:length, column] = True
    return Episodes(time_limits=[], **arrays)


def gradient_on_everything(psi: str, gamma: float, **kwargs: Any) -> np.ndarray:
    """Return the gradient that the agent follows on the whole problem, per episode."""
    agent = table_agent(psi, gamma=gamma, **kwargs)
    episodes = everything()
    agent._fill(agent.rollout_buffer, episodes)
    batch = next(iter(agent.rollout_buffer.get(batch_size=None)))
    before = agent.policy.action_net.weight.detach().clone()
    agent.set_logger(_no_logger())
    agent._step(batch, agent._psi(batch))
    change = agent.policy.action_net.weight.detach() - before  # plain descent at rate 1
    return change.numpy() * len(batch.advantages) / episodes.n_episodes


def _no_logger() -> Any:
    from stable_baselines3.common.logger import Logger

    return Logger(folder=None, output_formats=[])


def test_the_enumeration_is_complete() -> None:
    each = list(trajectories())
    assert sum(trajectory.weight for trajectory in each) == 4 ** (2 * HORIZON)
    assert {len(trajectory.states) for trajectory in each} == {1, 2, 3}


@every_psi
def test_the_gradient_is_the_exact_one(psi: str) -> None:
    expected = exact_gradient(1.0, discount_late_states=True)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(gradient_on_everything(psi, 1.0), expected, atol=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 0.9])
def test_the_whole_discounted_return_gives_the_discounted_gradient(gamma: float) -> None:
    expected = exact_gradient(gamma, discount_late_states=True)
    np.testing.assert_allclose(gradient_on_everything("return", gamma), expected, atol=1e-5)


@pytest.mark.parametrize("psi", ["reward_to_go", "baseline"])
@pytest.mark.parametrize("gamma", [0.5, 0.9])
def test_the_discounted_reward_to_go_counts_late_states_in_full(psi: str, gamma: float) -> None:
    expected = exact_gradient(gamma, discount_late_states=False)
    assert not np.allclose(expected, exact_gradient(gamma, discount_late_states=True), atol=1e-3)
    np.testing.assert_allclose(gradient_on_everything(psi, gamma), expected, atol=1e-5)


def test_the_baseline_lowers_the_variance_and_not_the_mean() -> None:
    """With the exact values as baseline; the mean is the same, as tested above with a wrong one."""
    variances = {}
    for psi in ("return", "reward_to_go", "baseline"):
        agent = table_agent(psi, gamma=1.0)
        with torch.no_grad():
            values = torch.tensor([[0.9, 1.2, 0.6]])  # close to the mean reward-to-go
            agent.policy.value_net.weight.copy_(values)
        agent._fill(agent.rollout_buffer, everything())
        variances[psi] = float(agent.rollout_buffer.advantages.var())
    assert variances["return"] > variances["reward_to_go"] > variances["baseline"]


# --- What Ψ is ----------------------------------------------------------------------------------


class Script(gym.Env[Any, Any]):
    """Episodes of given lengths that pay 1, 2, 3, …; the observation is the number of steps."""

    observation_space = spaces.Box(-1.0, 100.0, (1,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, lengths: list[int], truncated: bool = False) -> None:
        self.lengths = itertools.cycle(lengths)
        self.truncated = truncated

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.length, self.n_steps = next(self.lengths), 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.n_steps += 1
        obs = np.full(1, self.n_steps, np.float32)
        over = self.n_steps >= self.length
        ends = (False, over) if self.truncated else (over, False)
        return obs, float(self.n_steps), *ends, {}


def script_agent(psi: str, lengths: list[int], *, truncated: bool = False, **kw: Any) -> REINFORCE:
    env = make_vec_env(lambda: Script(lengths, truncated), 1)
    settings: dict[str, Any] = {"gamma": 0.5, "n_steps": 4, "seed": 1, "n_critic_updates": 2}
    return REINFORCE("MlpPolicy", env, psi=psi, **settings | kw)


class KeepBuffer(BaseCallback):
    """Keeps what is in the buffer when the rollout ends."""

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        buffer = self.model.rollout_buffer
        names = ("observations", "rewards", "returns", "advantages", "values", "episode_starts")
        self.kept = {name: getattr(buffer, name)[:, 0].copy() for name in names}


def rollout(agent: REINFORCE) -> dict[str, np.ndarray]:
    keep = KeepBuffer()
    agent.learn(1, callback=keep)
    return keep.kept


@pytest.mark.parametrize("truncated", [False, True])
def test_returns_by_hand(truncated: bool) -> None:
    # Lengths 3 and 2, γ = 1/2: G = (1 + 2/2 + 3/4, 2 + 3/2, 3) and (1 + 2/2, 2).
    to_go, whole = [2.75, 3.5, 3.0, 2.0, 2.0], [2.75, 2.75, 2.75, 2.0, 2.0]
    for psi, expected in (("return", whole), ("reward_to_go", to_go)):
        kept = rollout(script_agent(psi, [3, 2], truncated=truncated))
        np.testing.assert_allclose(kept["advantages"], expected)
        np.testing.assert_allclose(kept["returns"], to_go)
        np.testing.assert_array_equal(kept["episode_starts"], [1, 0, 0, 1, 0])
        np.testing.assert_array_equal(kept["observations"].flatten(), [0, 1, 2, 0, 1])
        np.testing.assert_array_equal(kept["rewards"], [1, 2, 3, 1, 2])
        assert not kept["values"].any()


def values_at(agent: REINFORCE, observations: list[float]) -> np.ndarray:
    with torch.no_grad():
        column = torch.tensor(observations).unsqueeze(1)
        return agent.policy.predict_values(column).flatten().numpy()


def test_a_baseline_is_subtracted() -> None:
    agent = script_agent("baseline", [3, 2])
    values = values_at(agent, [0.0, 1.0, 2.0, 0.0, 1.0])
    kept = rollout(agent)
    np.testing.assert_allclose(kept["values"], values, rtol=1e-6)
    np.testing.assert_allclose(kept["returns"], [2.75, 3.5, 3.0, 2.0, 2.0])
    np.testing.assert_allclose(kept["advantages"], kept["returns"] - values, rtol=1e-5)


def test_with_a_baseline_a_time_limit_bootstraps() -> None:
    agent = script_agent("baseline", [3, 2], truncated=True)
    values = values_at(agent, [0.0, 1.0, 2.0, 3.0])
    last, earlier = values[3], values[2]  # of the observations that were never acted on
    expected = [2.75 + last / 8, 3.5 + last / 4, 3 + last / 2, 2 + earlier / 4, 2 + earlier / 2]
    kept = rollout(agent)
    np.testing.assert_allclose(kept["returns"], expected, rtol=1e-6)
    np.testing.assert_allclose(kept["advantages"], expected - kept["values"], rtol=1e-5)


# --- Updates ------------------------------------------------------------------------------------


def critic(agent: REINFORCE) -> torch.Tensor:
    nets = (agent.policy.mlp_extractor.value_net, agent.policy.value_net)
    return flatten(p.detach() for net in nets for p in net.parameters())


def actor(agent: REINFORCE) -> torch.Tensor:
    policy = agent.policy
    nets = (policy.mlp_extractor.policy_net, policy.action_net)
    return flatten(p.detach() for net in nets for p in net.parameters())


@pytest.mark.parametrize("psi", ["return", "reward_to_go"])
def test_without_a_baseline_the_value_network_is_left_alone(psi: str) -> None:
    agent = script_agent(psi, [3, 2])
    before, policy_before = critic(agent), actor(agent)
    agent.learn(50)
    assert torch.equal(critic(agent), before)
    assert not torch.equal(actor(agent), policy_before)
    assert "train/value_loss" not in agent.logger.name_to_value


@pytest.mark.parametrize("which", ["adam", "gauss_newton"])
def test_the_baseline_learns_the_returns(which: str) -> None:
    agent = script_agent(
        "baseline",
        [3],
        n_steps=40,
        critic=which,
        critic_learning_rate=1e-2,
        critic_damping=1e-3,
        n_critic_updates=20,
    )
    agent.learn(42 * 15)
    np.testing.assert_allclose(values_at(agent, [0.0, 1.0, 2.0]), [2.75, 3.5, 3.0], atol=0.1)


def test_critic_and_policy_have_learning_rates_of_their_own() -> None:
    agent = script_agent("baseline", [3, 2], learning_rate=0.0, critic_learning_rate=1e-2)
    before, value_before = actor(agent), critic(agent)
    agent.learn(20)
    assert torch.equal(actor(agent), before)
    assert not torch.equal(critic(agent), value_before)
    agent = script_agent("baseline", [3, 2], learning_rate=1e-2, critic_learning_rate=0.0)
    before, value_before = actor(agent), critic(agent)
    agent.learn(20)
    assert torch.equal(critic(agent), value_before)
    assert not torch.equal(actor(agent), before)


class Noisy(gym.Env[Any, Any]):
    """Episodes of eight steps, cut off by a time limit, that pay for the action."""

    observation_space = spaces.Box(-1.0, 1.0, (3,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.n_steps = 0
        return self.np_random.uniform(-1.0, 1.0, 3).astype(np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.n_steps += 1
        obs = self.np_random.uniform(-1.0, 1.0, 3).astype(np.float32)
        return obs, float(np.sum(action)), False, self.n_steps >= 8, {}


@pytest.mark.parametrize("which", ["adam", "gauss_newton"])
def test_with_a_baseline_it_is_actor_critic_with_lambda_one(which: str) -> None:
    """Where rollouts are whole episodes anyway, updates are the same, one after the other."""
    settings: dict[str, Any] = {
        "critic": which,
        "n_critic_updates": 2,
        "batch_size": 16,
        "gamma": 0.9,
        "seed": 3,
        "ent_coef": 0.01,
    }
    weights = []
    for cls, own in ((REINFORCE, {"psi": "baseline"}), (ActorCritic, {"gae_lambda": 1.0})):
        agent = cls("MlpPolicy", make_vec_env(Noisy, 3), n_steps=16, **own, **settings)
        fresh = flatten(p.detach() for p in agent.policy.parameters())
        agent.learn(3 * 48)
        weights.append(flatten(p.detach() for p in agent.policy.parameters()))
        assert not torch.allclose(weights[-1], fresh, rtol=0.0, atol=1e-3)
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-4)


class SlowPolicy(ActorCriticPolicy):
    """Acts as SB3's, which nobody can tell without running it."""

    def forward(self, obs: torch.Tensor, deterministic: bool = False) -> Any:
        return super().forward(obs, deterministic)


@every_psi
def test_fast_and_slow_policies_learn_the_same(psi: str) -> None:
    weights = []
    for policy in ("MlpPolicy", SlowPolicy):
        agent = REINFORCE(policy, make_vec_env(Noisy, 2), psi=psi, n_steps=10, seed=2)
        agent.learn(6 * 32)
        weights.append(flatten(p.detach() for p in agent.policy.parameters()))
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-5)


def test_a_hooked_network_is_differentiated_automatically_with_the_same_result() -> None:
    """A hook makes the network none of those that are differentiated by hand."""
    weights = []
    for hooked in (False, True):
        agent = REINFORCE("MlpPolicy", make_vec_env(Noisy, 2), n_steps=10, seed=2, ent_coef=0.1)
        if hooked:
            for net in (agent.policy.action_net, agent.policy.value_net):
                net.register_forward_hook(lambda *_: None)
        agent.learn(6 * 32)
        weights.append(flatten(p.detach() for p in agent.policy.parameters()))
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-4)


def test_a_gradient_that_is_not_finite_is_not_followed() -> None:
    agent = script_agent("reward_to_go", [3, 2], normalize_advantage=False)
    before = actor(agent)
    agent._psi = lambda batch: batch.advantages * math.nan  # type: ignore[method-assign]
    agent.learn(20)
    assert torch.equal(actor(agent), before)
    assert agent.n_skipped_updates == agent._n_updates > 0
    assert agent.logger.name_to_value["train/skipped_updates"] == agent.n_skipped_updates


@every_psi
def test_equal_returns_move_nothing(psi: str) -> None:
    """Length 1: every return is 1; scaled, that is zero and not rounding blown up."""
    agent = script_agent(psi, [1])
    before = actor(agent)
    agent.learn(20)
    if psi != "baseline":
        assert torch.equal(actor(agent), before)
    assert torch.isfinite(actor(agent)).all()


def test_an_unknown_psi_is_refused() -> None:
    with pytest.raises(UnknownName, match=r"Unknown psi of REINFORCE 'reward'\. Did you mean"):
        script_agent("reward", [1])
    with pytest.raises(UnknownName, match="Known: baseline, return, reward_to_go"):
        script_agent("q", [1])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 0),
        ("n_critic_updates", 0),
        ("critic_damping", -1.0),
        ("ent_coef", math.inf),
        ("max_grad_norm", 0.0),
    ],
)
def test_a_parameter_out_of_range_is_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}={value} must be "):
        script_agent("baseline", [1], **{name: value})
    with pytest.raises(UnknownName, match="Unknown critic 'adma'"):
        script_agent("baseline", [1], critic="adma")


def test_logged_metrics() -> None:
    agent = script_agent("baseline", [3, 2], n_steps=4)
    agent.learn(1, log_interval=10**6)
    logged = agent.logger.name_to_value
    assert logged["rollout/episodes"] == 2
    assert logged["rollout/unused_share"] == 0.0
    assert logged["train/entropy"] == pytest.approx(0.5 * (1 + math.log(2 * math.pi)), rel=1e-5)
    assert logged["train/n_updates"] == 1
    buffer = agent.rollout_buffer
    assert logged["train/psi_mean"] == pytest.approx(float(buffer.advantages.mean()), rel=1e-5)
    assert logged["train/psi_std"] == pytest.approx(float(buffer.advantages.std(ddof=1)), rel=1e-5)
    assert {"train/value_loss", "train/explained_variance", "train/grad_norm"} <= set(logged)
