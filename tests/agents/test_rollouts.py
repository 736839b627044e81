"""Fast rollouts against SB3's own: the same transitions, and the same promises to callbacks."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv, SimpleMultiObsEnv
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from agents import rollouts

ACTIONS: dict[str, gym.Space] = {
    "box": spaces.Box(-0.5, 1.0, (3,), np.float32),
    "double-box": spaces.Box(-0.5, 1.0, (2,), np.float64),
    "matrix-box": spaces.Box(
        np.array([[-0.1], [-9.0]]), np.array([[0.1], [9.0]]), (2, 1), np.float64
    ),
    "scalar-box": spaces.Box(-1.0, 1.0, (), np.float32),
    "discrete": spaces.Discrete(4),
    "multi-discrete": spaces.MultiDiscrete([2, 3]),
    "multi-binary": spaces.MultiBinary(3),
}
OBSERVATIONS: dict[str, gym.Space] = {
    "box": spaces.Box(-1.0, 1.0, (4,), np.float32),
    "double-matrix": spaces.Box(-1.0, 1.0, (2, 3), np.float64),
    "image": spaces.Box(0, 255, (1, 36, 36), np.uint8),
    "discrete": spaces.Discrete(5),
    "multi-discrete": spaces.MultiDiscrete([2, 3]),
    "multi-binary": spaces.MultiBinary(3),
}
TRANSITIONS = ("observations", "actions", "episode_starts")
# The rewards in the buffer hold γV(s') where a time limit struck.
COMPUTED = ("values", "log_probs", "rewards", "advantages", "returns")


class Probe(gym.Env[Any, Any]):
    """Random observations, rewards that depend on the action, and both kinds of end."""

    def __init__(self, observation_space: gym.Space, action_space: gym.Space) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.n_steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert np.shape(action) == self.action_space.shape
        if isinstance(self.action_space, spaces.Box):
            assert np.all(action >= self.action_space.low)
            assert np.all(action <= self.action_space.high)
        self.n_steps += 1
        terminated, truncated = bool(self.np_random.random() < 0.1), self.n_steps >= 6
        info = {"is_success": terminated} if terminated or truncated else {}
        return self.observation_space.sample(), float(np.sum(action)), terminated, truncated, info


class Theirs(stable_baselines3.PPO):
    """SB3's rollouts, with a training step that is the same whatever the last bit of a value."""

    @torch.no_grad()
    def train(self) -> None:
        for parameter in self.policy.parameters():
            phase = torch.arange(parameter.numel()) + self._n_updates
            parameter += 0.05 * torch.sin(phase).view_as(parameter)
        self._n_updates += 1


class Ours(Theirs):
    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
    ) -> bool:
        return rollouts.collect_rollouts(self, env, callback, rollout_buffer, n_rollout_steps)


class Keep(BaseCallback):
    """Keeps a copy of everything that a rollout leaves behind."""

    def __init__(self) -> None:
        super().__init__()
        self.history: list[dict[str, Any]] = []
        self.paid: list[np.ndarray] = []

    def _on_step(self) -> bool:
        self.paid.append(self.locals["rewards"].copy())
        return True

    def _on_rollout_end(self) -> None:
        model = self.model
        buffer = model.rollout_buffer
        kept = {name: deepcopy(getattr(buffer, name)) for name in (*TRANSITIONS, *COMPUTED)}
        kept |= {
            "paid": np.array(self.paid),
            "last_obs": deepcopy(model._last_obs),
            "last_episode_starts": model._last_episode_starts.copy(),
            "episodes": [(info["r"], info["l"]) for info in model.ep_info_buffer],
            "successes": list(model.ep_success_buffer),
            "num_timesteps": model.num_timesteps,
            "full": (buffer.pos, buffer.full),
        }
        self.history.append(kept)


def train(
    cls: type[stable_baselines3.PPO],
    make_env: Callable[[], VecEnv],
    n_rollouts: int = 3,
    policy: Any = "MlpPolicy",
    **kwargs: Any,
) -> list[dict[str, Any]]:
    env = make_env()
    settings = {"n_steps": 16, "batch_size": 8, "seed": 3, "policy_kwargs": {"net_arch": [8, 8]}}
    agent = cls(policy, env, **(settings | kwargs))
    keep = Keep()
    agent.learn(n_rollouts * agent.n_steps * env.num_envs, callback=keep)
    env.close()
    assert len(keep.history) == n_rollouts
    return keep.history


def assert_same(
    ours: list[dict[str, Any]], theirs: list[dict[str, Any]], *, exact: bool = False
) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        for name, expected in other.items():
            if isinstance(expected, dict):
                assert set(mine[name]) == set(expected)
                for key, array in expected.items():
                    np.testing.assert_array_equal(mine[name][key], array, err_msg=key)
            elif name in COMPUTED and not exact:
                np.testing.assert_allclose(mine[name], expected, rtol=1e-5, atol=1e-5, err_msg=name)
            else:
                np.testing.assert_array_equal(mine[name], expected, err_msg=name)


@pytest.fixture
def no_slow_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """SB3's own method is out of our reach, so that a test of the fast path is one."""
    monkeypatch.setattr(rollouts, "OnPolicyAlgorithm", None)


@pytest.fixture
def slow_calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The calls that our method hands on to SB3's."""
    calls: list[Any] = []

    def collect(*args: Any) -> bool:
        calls.append(args)
        return OnPolicyAlgorithm.collect_rollouts(*args)

    monkeypatch.setattr(rollouts, "OnPolicyAlgorithm", SimpleNamespace(collect_rollouts=collect))
    return calls


def probe(
    observations: str = "box", actions: str = "box", n_envs: int = 3, *, normalize: bool = False
) -> Callable[[], VecEnv]:
    def make() -> VecEnv:
        venv: VecEnv = make_vec_env(
            lambda: Probe(OBSERVATIONS[observations], ACTIONS[actions]), n_envs, seed=5
        )
        return VecNormalize(venv) if normalize else venv

    return make


@pytest.mark.usefixtures("no_slow_path")
@pytest.mark.parametrize("n_envs", [1, 3, 17])
@pytest.mark.parametrize("actions", list(ACTIONS))
def test_the_same_transitions_in_every_action_space(actions: str, n_envs: int) -> None:
    make_env = probe(actions=actions, n_envs=n_envs)
    ours, theirs = train(Ours, make_env), train(Theirs, make_env)
    assert_same(ours, theirs)
    assert theirs[-1]["episodes"]


@pytest.mark.usefixtures("no_slow_path")
@pytest.mark.parametrize("observations", list(OBSERVATIONS))
def test_the_same_transitions_for_every_observation_space(observations: str) -> None:
    make_env = probe(observations, "discrete")
    assert_same(train(Ours, make_env), train(Theirs, make_env))


@pytest.mark.usefixtures("no_slow_path")
@pytest.mark.parametrize("activation", [torch.nn.Tanh, torch.nn.ReLU, torch.nn.ELU, torch.nn.SiLU])
@pytest.mark.parametrize("layers", [[], [5], {"pi": [6, 5], "vf": []}])
def test_the_same_transitions_for_every_network(activation: type, layers: Any) -> None:
    kwargs = {"policy_kwargs": {"net_arch": layers, "activation_fn": activation}}
    assert_same(train(Ours, probe(), **kwargs), train(Theirs, probe(), **kwargs))


@pytest.mark.usefixtures("no_slow_path")
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("env_id", ["InvertedPendulum-v4", "Reacher-v4"])
def test_the_same_transitions_in_mujoco(env_id: str, normalize: bool) -> None:
    def make_env() -> VecEnv:
        # Short limits: both envs are cut off several times, and the pendulum falls as well.
        venv: VecEnv = make_vec_env(
            env_id, 2, seed=1, env_kwargs={"max_episode_steps": 12 if env_id[0] == "I" else 25}
        )
        return VecNormalize(venv) if normalize else venv

    ours, theirs = (train(cls, make_env, n_steps=64) for cls in (Ours, Theirs))
    assert_same(ours, theirs)
    lengths = {length for _, length in theirs[-1]["episodes"]}
    assert max(lengths) == (12 if env_id[0] == "I" else 25)


@pytest.mark.usefixtures("no_slow_path")
def test_the_same_bootstrapping_of_scaled_terminal_observations() -> None:
    make_env = probe(normalize=True)
    ours, theirs = (train(cls, make_env, gamma=0.9) for cls in (Ours, Theirs))
    assert_same(ours, theirs)
    # The rewards that are kept hold γV(s'), which scaled rewards within ±10 do not always show.
    plain = train(Ours, make_env, gamma=1e-12)
    assert not np.array_equal(plain[0]["rewards"], ours[0]["rewards"])


class OwnBuffer(RolloutBuffer):
    pass


class OwnDistribution(ActorCriticPolicy):
    def get_distribution(self, obs: Any) -> Any:
        return super().get_distribution(obs)


class OwnForward(ActorCriticPolicy):
    """Explores around the mean with little noise."""

    def forward(self, obs: Any, deterministic: bool = False) -> Any:
        actions, values, log_prob = super().forward(obs, deterministic=True)
        return actions + 0.01 * torch.randn_like(actions), values, log_prob


class OwnValues(ActorCriticPolicy):
    """Knows that no state is worth more than one, when asked for values alone."""

    def predict_values(self, obs: Any) -> torch.Tensor:
        return super().predict_values(obs).clamp(max=0.0)


def image() -> VecEnv:
    env = FakeImageEnv(action_dim=3, screen_height=36, screen_width=36)
    env.observation_space.seed(0)
    return make_vec_env(lambda: env, 1)


def dictionary() -> VecEnv:
    return make_vec_env(lambda: SimpleMultiObsEnv(random_start=False, channel_last=False), 2)


@pytest.mark.parametrize(
    ("make_env", "kwargs"),
    [
        (image, {"policy": "CnnPolicy", "policy_kwargs": {}}),
        (dictionary, {"policy": "MultiInputPolicy", "policy_kwargs": {}}),
        (probe(), {"use_sde": True, "sde_sample_freq": 4}),
        (probe(), {"rollout_buffer_class": OwnBuffer}),
        (probe(), {"policy": OwnDistribution}),
        (probe(), {"policy": OwnForward}),
        (probe(), {"policy": OwnValues}),
    ],
    ids=["cnn", "dict", "gsde", "buffer", "own distribution", "own forward", "own values"],
)
def test_what_is_not_common_takes_sb3s_method(
    make_env: Callable[[], VecEnv], kwargs: dict[str, Any], slow_calls: list[Any]
) -> None:
    ours, theirs = train(Ours, make_env, **kwargs), train(Theirs, make_env, **kwargs)
    assert len(slow_calls) == 3
    assert_same(ours, theirs, exact=True)


class Watch(BaseCallback):
    """Writes down what it is shown at each step."""

    def __init__(self, limit: int = 10**9) -> None:
        super().__init__()
        self.limit = limit
        self.steps: list[dict[str, Any]] = []
        self.ends: list[dict[str, Any]] = []
        self.positions: list[int] = []
        self.grad_enabled: list[bool] = []

    def _on_rollout_start(self) -> None:
        self.grad_enabled.append(torch.is_grad_enabled())
        assert not self.model.rollout_buffer.full

    def _on_step(self) -> bool:
        self.grad_enabled.append(torch.is_grad_enabled())
        # SB3 adds γV(s') to the array of rewards once the callback has returned.
        self.steps.append(self.locals | {"rewards": self.locals["rewards"].copy()})
        self.positions.append(self.model.rollout_buffer.pos)
        return len(self.steps) < self.limit

    def _on_rollout_end(self) -> None:
        self.grad_enabled.append(torch.is_grad_enabled())
        self.ends.append(dict(self.locals))


def watch(cls: type[stable_baselines3.PPO], limit: int = 10**9) -> Watch:
    env = probe()()
    agent = cls("MlpPolicy", env, n_steps=8, batch_size=24, seed=3)
    callback = Watch(limit)
    agent.learn(2 * 8 * 3, callback=callback)
    return callback


@pytest.mark.usefixtures("no_slow_path")
def test_callbacks_see_each_step_as_in_sb3() -> None:
    ours, theirs = watch(Ours), watch(Theirs)
    assert len(ours.steps) == len(theirs.steps) == 16
    for mine, other in zip(ours.steps, theirs.steps, strict=True):
        for name in ("actions", "clipped_actions", "new_obs", "rewards", "dones"):
            np.testing.assert_array_equal(mine[name], other[name], err_msg=name)
        for name in ("n_steps", "n_rollout_steps"):
            assert mine[name] == other[name]
        assert [set(info) for info in mine["infos"]] == [set(info) for info in other["infos"]]
    assert ours.positions == theirs.positions == [*range(8)] * 2
    shown = ours.steps[-1]
    assert shown["self"] is ours.model
    assert shown["env"] is ours.model.env
    assert shown["callback"] is ours
    assert shown["rollout_buffer"] is ours.model.rollout_buffer
    assert not np.array_equal(shown["actions"], shown["clipped_actions"])


@pytest.mark.usefixtures("no_slow_path")
def test_the_rollouts_values_are_there_when_it_ends() -> None:
    callback = watch(Ours)
    assert len(callback.ends) == 2
    buffer, end = callback.model.rollout_buffer, callback.ends[-1]
    for name in ("values", "log_probs"):
        shown = end[name].reshape(8, 3).numpy()
        np.testing.assert_array_equal(shown, getattr(buffer, name), err_msg=name)
    assert end["n_steps"] == watch(Theirs).ends[-1]["n_steps"] == 8


@pytest.mark.usefixtures("no_slow_path")
def test_autograd_works_inside_callbacks() -> None:
    callback = watch(Ours)
    assert len(callback.grad_enabled) == 2 * (1 + 8 + 1)
    assert all(callback.grad_enabled)


@pytest.mark.usefixtures("no_slow_path")
@pytest.mark.parametrize("limit", [1, 8, 11])
def test_a_callback_ends_training_at_once(limit: int) -> None:
    ours, theirs = watch(Ours, limit), watch(Theirs, limit)
    assert len(ours.steps) == limit
    assert ours.model.num_timesteps == theirs.model.num_timesteps == 3 * limit
    assert ours.model._n_updates == theirs.model._n_updates == (limit - 1) // 8
    assert len(ours.ends) == len(theirs.ends) == (limit - 1) // 8
    assert len(ours.model.ep_info_buffer) == len(theirs.model.ep_info_buffer)


class Ending(gym.Env[np.ndarray, np.ndarray]):
    """Observes the step's number, pays 1, 2 and 3, and then ends in one of two ways."""

    observation_space = spaces.Box(-10.0, 10.0, (1,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, *, by_time_limit: bool) -> None:
        self.by_time_limit = by_time_limit

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.n_steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.n_steps += 1
        end = self.n_steps == 3
        obs = np.array([self.n_steps], np.float32)
        ends = (end and not self.by_time_limit, end and self.by_time_limit)
        return obs, float(self.n_steps), *ends, {}


@pytest.mark.usefixtures("no_slow_path")
def test_a_time_limit_bootstraps_and_an_end_does_not() -> None:
    venv = DummyVecEnv([lambda: Ending(by_time_limit=False), lambda: Ending(by_time_limit=True)])
    g = 0.9
    agent = Ours("MlpPolicy", venv, n_steps=5, batch_size=10, gamma=g, gae_lambda=1.0, seed=0)
    returns: list[np.ndarray] = []

    class Read(Watch):
        def _on_rollout_end(self) -> None:
            returns.append(self.model.rollout_buffer.returns.copy())

    def value(obs: float) -> float:
        return agent.policy.predict_values(torch.tensor([[obs]])).item()

    # The values of the first rollout, before the parameters move.
    terminal, last = value(3.0), value(2.0)
    agent.learn(10, callback=Read())
    assert abs(terminal) > 1e-3
    # Two steps of the next episode, cut by the rollout's end, belong to its own trace alone.
    after = [1 + g * 2 + g**2 * last, 2 + g * last]
    ended = [1 + g * 2 + g**2 * 3, 2 + g * 3, 3.0]
    cut_off = [1 + g * 2 + g**2 * 3 + g**3 * terminal, 2 + g * 3 + g**2 * terminal]
    cut_off += [3 + g * terminal]
    expected = np.array([ended + after, cut_off + after]).T
    np.testing.assert_allclose(returns[0], expected, rtol=1e-6)


class Restarting(gym.Wrapper[Any, Any, Any, Any]):
    """Hides the ends of episodes: the next one simply begins."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        if terminated or truncated:
            obs, _ = self.env.reset()
        return obs, reward, False, False, info


@pytest.mark.usefixtures("no_slow_path")
def test_episodes_are_counted_where_a_wrapper_hides_their_end() -> None:
    def make_env() -> VecEnv:
        inner = Monitor(Probe(OBSERVATIONS["box"], ACTIONS["box"]))
        venv = DummyVecEnv([lambda: Restarting(inner)])
        venv.seed(5)
        return venv

    ours, theirs = train(Ours, make_env), train(Theirs, make_env)
    assert_same(ours, theirs)
    assert len(ours[-1]["episodes"]) >= 8


def test_environments_must_be_reset_first() -> None:
    agent = Ours("MlpPolicy", probe()(), n_steps=8, batch_size=24)
    with pytest.raises(RuntimeError, match="not reset"):
        agent.collect_rollouts(agent.env, Keep(), agent.rollout_buffer, 8)


@pytest.mark.parametrize("n_envs", [1, 2, 16])
@pytest.mark.parametrize(("gamma", "gae_lambda"), [(0.99, 0.95), (1.0, 1.0), (0.9, 0.0)])
def test_returns_and_advantages_are_sb3s_bit_for_bit(
    gamma: float, gae_lambda: float, n_envs: int
) -> None:
    rng = np.random.default_rng(0)
    space = spaces.Box(-1.0, 1.0, (1,))
    buffers = []
    for _ in range(2):
        buffer = RolloutBuffer(
            64, space, space, "cpu", gamma=gamma, gae_lambda=gae_lambda, n_envs=n_envs
        )
        buffers.append(buffer)
    ours, theirs = buffers
    theirs.rewards[:] = 10.0 * rng.standard_normal(theirs.rewards.shape)
    theirs.values[:] = 100.0 * rng.standard_normal(theirs.values.shape)
    theirs.episode_starts[:] = rng.random(theirs.episode_starts.shape) < 0.1
    for name in ("rewards", "values", "episode_starts"):
        getattr(ours, name)[:] = getattr(theirs, name)
    last_values = torch.as_tensor(rng.standard_normal(n_envs), dtype=torch.float32)
    dones = rng.random(n_envs) < 0.5
    theirs.compute_returns_and_advantage(last_values, dones)
    rollouts._compute_returns_and_advantages(ours, last_values.numpy(), dones)
    np.testing.assert_array_equal(ours.advantages, theirs.advantages)
    np.testing.assert_array_equal(ours.returns, theirs.returns)
    assert ours.advantages.any()
