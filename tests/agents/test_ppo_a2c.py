"""Our PPO and A2C against Stable-Baselines3's: the same parameters, metrics and files."""

from __future__ import annotations

import re
from pathlib import Path
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
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import explained_variance
from torch import nn

from agents import A2C, PPO
from agents.functional import flatten
from agents.gaussian_mlp import find_gaussian_mlp
from agents.rollout_batch import whole_batch

SB3: dict[type[OnPolicyAlgorithm], type[OnPolicyAlgorithm]] = {
    PPO: stable_baselines3.PPO,
    A2C: stable_baselines3.A2C,
}
SMALL: dict[type[OnPolicyAlgorithm], dict[str, Any]] = {
    PPO: {"n_steps": 32, "batch_size": 32, "n_epochs": 4},
    A2C: {"n_steps": 8},
}
both = pytest.mark.parametrize("cls", [PPO, A2C])


class Reach(gym.Env[np.ndarray, np.ndarray]):
    """Rewards an action close to the observation; ends in both ways."""

    observation_space = spaces.Box(-1.0, 1.0, (3,), np.float32)

    def __init__(self, action_space: gym.Space | None = None) -> None:
        self.action_space = action_space or spaces.Box(-1.0, 1.0, (3,), np.float32)

    def _observe(self) -> np.ndarray:
        self.state = self.np_random.uniform(-1.0, 1.0, 3).astype(np.float32)
        return self.state

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.n_steps = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = -float(np.square(np.mean(action) - self.state).sum())
        self.n_steps += 1
        return self._observe(), reward, self.n_steps % 5 == 0, self.n_steps >= 12, {}


def make(
    cls: type[OnPolicyAlgorithm], policy: Any = "MlpPolicy", env: Any = None, **kwargs: Any
) -> OnPolicyAlgorithm:
    ours = next(mine for mine, theirs in SB3.items() if cls in (mine, theirs))
    settings = {"seed": 3, "policy_kwargs": {"net_arch": [16, 16]}} | SMALL[ours] | kwargs
    return cls(policy, env or make_vec_env(Reach, 4), **settings)


def learn(
    cls: type[OnPolicyAlgorithm],
    n_rollouts: int,
    callback: BaseCallback | None = None,
    **kwargs: Any,
) -> OnPolicyAlgorithm:
    agent = make(cls, **kwargs)
    # Never dumped, so that the logger keeps the metrics of the last update.
    n_timesteps = n_rollouts * agent.n_steps * agent.n_envs
    return agent.learn(n_timesteps, callback=callback, log_interval=10**6)


def weights(agent: OnPolicyAlgorithm) -> torch.Tensor:
    return flatten(parameter.detach() for parameter in agent.policy.parameters())


def metrics(agent: OnPolicyAlgorithm) -> dict[str, float]:
    logged = agent.logger.name_to_value
    return {key: float(value) for key, value in logged.items() if key.startswith("train/")}


def assert_same(ours: OnPolicyAlgorithm, theirs: OnPolicyAlgorithm) -> None:
    """Compare parameters, optimiser state and all that the last update logged."""
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-5, atol=1e-5)
    mine, others = ours.policy.optimizer.state_dict(), theirs.policy.optimizer.state_dict()
    assert mine["param_groups"] == others["param_groups"]
    assert set(mine["state"]) == set(others["state"])
    for index, expected in others["state"].items():
        assert set(mine["state"][index]) == set(expected)
        for name, value in expected.items():
            torch.testing.assert_close(
                mine["state"][index][name], value, rtol=1e-3, atol=1e-5, msg=name
            )
    assert ours._n_updates == theirs._n_updates
    assert set(metrics(ours)) == set(metrics(theirs))
    for name, value in metrics(theirs).items():
        assert metrics(ours)[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name


@pytest.fixture
def no_slow_path(monkeypatch: pytest.MonkeyPatch) -> list[OnPolicyAlgorithm]:
    """Make our classes fail when they call SB3's update; returns the agents that wanted to."""
    return _spy(monkeypatch, allowed=False)


@pytest.fixture
def slow_calls(monkeypatch: pytest.MonkeyPatch) -> list[OnPolicyAlgorithm]:
    """The agents of our classes that took SB3's update, once for each."""
    return _spy(monkeypatch, allowed=True)


def _spy(monkeypatch: pytest.MonkeyPatch, *, allowed: bool) -> list[OnPolicyAlgorithm]:
    calls: list[OnPolicyAlgorithm] = []

    def patch(cls: type[OnPolicyAlgorithm], original: Any) -> None:
        def train(self: OnPolicyAlgorithm) -> None:
            if type(self) in SB3:
                assert allowed, "our agent took SB3's update"
                calls.append(self)
            original(self)

        monkeypatch.setattr(cls, "train", train)

    for cls in SB3.values():
        patch(cls, cls.train)
    return calls


def falling(progress_remaining: float) -> float:
    return 0.02 + 0.2 * progress_remaining


SETTINGS: list[tuple[type[OnPolicyAlgorithm], dict[str, Any]]] = [
    (PPO, {}),
    (PPO, {"clip_range_vf": 0.05}),
    (PPO, {"clip_range_vf": falling, "learning_rate": 1e-2}),
    (PPO, {"ent_coef": 0.1, "vf_coef": 0.3}),
    (PPO, {"max_grad_norm": 0.01}),
    (PPO, {"max_grad_norm": 1e6}),
    (PPO, {"normalize_advantage": False}),
    (PPO, {"batch_size": 128}),
    (PPO, {"clip_range": falling, "learning_rate": 3e-3}),
    (PPO, {"clip_range": 0.01, "learning_rate": 3e-3}),
    (PPO, {"learning_rate": lambda progress: 1e-2 * (0.1 + progress**2)}),
    (PPO, {"policy_kwargs": {"net_arch": {"pi": [8], "vf": []}, "activation_fn": nn.ReLU}}),
    (PPO, {"policy_kwargs": {"log_std_init": -1.0, "optimizer_kwargs": {"betas": (0.5, 0.9)}}}),
    (PPO, {"gae_lambda": 0.0, "gamma": 0.5}),
    (A2C, {}),
    (A2C, {"use_rms_prop": False}),
    (A2C, {"ent_coef": 0.1, "vf_coef": 0.3}),
    (A2C, {"max_grad_norm": 0.01}),
    (A2C, {"max_grad_norm": 1e6}),
    (A2C, {"normalize_advantage": True}),
    (A2C, {"learning_rate": lambda progress: 1e-2 * (0.1 + progress**2)}),
    (A2C, {"policy_kwargs": {"optimizer_class": torch.optim.AdamW}}),
    (A2C, {"policy_kwargs": {"net_arch": {"pi": [8], "vf": []}, "activation_fn": nn.SiLU}}),
]


def _name(value: Any) -> str:
    """Name a case without addresses in memory, which differ from process to process."""
    if isinstance(value, type):
        return value.__name__
    return re.sub(r"<function (\S+) at \w+>", r"\1", str(value))


@pytest.mark.usefixtures("no_slow_path")
@pytest.mark.parametrize("n_rollouts", [1, 4])
@pytest.mark.parametrize(("cls", "kwargs"), SETTINGS, ids=_name)
def test_updates_are_sb3s(
    cls: type[OnPolicyAlgorithm], kwargs: dict[str, Any], n_rollouts: int
) -> None:
    ours, theirs = (learn(each, n_rollouts, **kwargs) for each in (cls, SB3[cls]))
    assert_same(ours, theirs)
    fresh = weights(make(cls, **kwargs))
    assert not torch.allclose(weights(ours), fresh, rtol=0.0, atol=1e-5)


@pytest.mark.usefixtures("no_slow_path")
@pytest.mark.parametrize("batch_size", [50, 127])
@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size:UserWarning")
def test_a_last_minibatch_may_be_smaller(batch_size: int) -> None:
    # With 127 the last one is a single sample, whose advantage has no spread.
    ours, theirs = (learn(cls, 2, batch_size=batch_size) for cls in (PPO, SB3[PPO]))
    assert_same(ours, theirs)
    n_minibatches = -(-128 // batch_size)
    steps = {int(state["step"]) for state in ours.policy.optimizer.state.values()}
    assert steps == {2 * 4 * n_minibatches}


@pytest.mark.usefixtures("no_slow_path")
@pytest.mark.parametrize("target_kl", [1e-9, 2e-3, 1e9])
def test_a_large_kl_ends_the_update(target_kl: float) -> None:
    kwargs = {"target_kl": target_kl, "learning_rate": 1e-2, "n_epochs": 3}
    ours, theirs = (learn(cls, 1, **kwargs) for cls in (PPO, SB3[PPO]))
    assert_same(ours, theirs)
    n_steps = int(ours.policy.optimizer.state[ours.policy.log_std]["step"])
    if target_kl == 1e9:
        assert n_steps == 3 * 4
    else:
        assert 0 < n_steps < 3 * 4
        assert metrics(ours)["train/n_updates"] < 3


class Disturbed(BaseCallback):
    """Moves the policy after the rollout, so that even the first ratios are far from one."""

    def _on_step(self) -> bool:
        return True

    @torch.no_grad()
    def _on_rollout_end(self) -> None:
        for parameter in self.model.policy.parameters():
            parameter += 0.2 * torch.cos(torch.arange(parameter.numel())).view_as(parameter)


@pytest.mark.usefixtures("no_slow_path")
@pytest.mark.parametrize("kwargs", [{}, {"clip_range_vf": 0.1}, {"target_kl": 1e-3}], ids=str)
def test_samples_outside_the_clip_range_are_sb3s(kwargs: dict[str, Any]) -> None:
    ours, theirs = (learn(cls, 1, Disturbed(), **kwargs) for cls in (PPO, SB3[PPO]))
    if "target_kl" not in kwargs:  # then not one step is taken, and SB3 has no state at all
        assert_same(ours, theirs)
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-5, atol=1e-5)
    assert metrics(ours)["train/clip_fraction"] > 0.1
    for name, value in metrics(theirs).items():
        assert metrics(ours)[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name


class Reads(BaseCallback):
    """Goes through the rollout by the buffer's own ``get``, as some callbacks do."""

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        next(iter(self.model.rollout_buffer.get(batch_size=None)))


@both
@pytest.mark.usefixtures("no_slow_path")
def test_a_callback_may_read_the_buffer_first(cls: type[OnPolicyAlgorithm]) -> None:
    ours, theirs = (learn(each, 2, Reads()) for each in (cls, SB3[cls]))
    assert_same(ours, theirs)


def test_the_whole_batch_is_in_the_buffers_order() -> None:
    agent = learn(PPO, 1)
    found = find_gaussian_mlp(agent.policy)
    assert found is not None
    buffer = agent.rollout_buffer
    before = whole_batch(buffer, found)
    raw = buffer.observations.copy()
    for env in range(4):
        part = before.inputs[env * 32 : (env + 1) * 32].numpy()
        np.testing.assert_array_equal(part, raw[:, env])
    batch = next(iter(buffer.get(batch_size=None)))  # flattens the buffer, then shuffles
    after = whole_batch(buffer, found)
    for mine, again in zip(before, after, strict=True):
        assert torch.equal(mine, again)
    order = [int((after.inputs == row).all(dim=1).nonzero()[0]) for row in batch.observations]
    taken = after.take(torch.tensor(order))
    for name in ("actions", "old_values", "old_log_prob", "advantages", "returns"):
        assert torch.equal(getattr(taken, name), getattr(batch, name)), name


@both
def test_saved_agents_are_sb3s(cls: type[OnPolicyAlgorithm], tmp_path: Path) -> None:
    agents = {name: learn(each, 2) for name, each in (("ours", cls), ("theirs", SB3[cls]))}
    observations = np.random.default_rng(0).uniform(-1.0, 1.0, (20, 3)).astype(np.float32)
    for name, agent in agents.items():
        agent.save(tmp_path / name)
        reader = SB3[cls] if name == "ours" else cls
        loaded = reader.load(tmp_path / name, env=agent.get_env())
        assert type(loaded) is reader
        assert torch.equal(weights(loaded), weights(agent))
        expected, _ = agent.predict(observations, deterministic=True)
        actions, _ = loaded.predict(observations, deterministic=True)
        np.testing.assert_array_equal(actions, expected)
        state = agent.policy.optimizer.state_dict()["state"]
        for index, entries in loaded.policy.optimizer.state_dict()["state"].items():
            for key, value in entries.items():
                assert torch.equal(value, state[index][key])
        # And it goes on where the other stopped.
        loaded.learn(agent.n_steps * 4, reset_num_timesteps=False)
        assert loaded._n_updates > agent._n_updates
        assert torch.isfinite(weights(loaded)).all()
        assert not torch.equal(weights(loaded), weights(agent))


@pytest.mark.usefixtures("no_slow_path")
@both
def test_either_goes_on_from_the_others_file_alike(
    cls: type[OnPolicyAlgorithm], tmp_path: Path
) -> None:
    learn(SB3[cls], 2).save(tmp_path / "start")
    agents = []
    for each in (cls, SB3[cls]):
        agent = each.load(tmp_path / "start", env=make_vec_env(Reach, 4))
        agent.set_random_seed(7)
        agents.append(agent.learn(2 * agent.n_steps * 4, log_interval=10**6))
    assert_same(*agents)


class OwnBuffer(RolloutBuffer):
    pass


class OwnEvaluation(ActorCriticPolicy):
    def evaluate_actions(self, obs: Any, actions: torch.Tensor) -> Any:
        values, log_prob, entropy = super().evaluate_actions(obs, actions)
        return values, log_prob, 0.5 * entropy


UNCOMMON: dict[str, dict[str, Any]] = {
    "discrete": {"env": lambda: Reach(spaces.Discrete(4))},
    "multi-binary": {"env": lambda: Reach(spaces.MultiBinary(3))},
    "cnn": {
        "env": lambda: FakeImageEnv(3, 36, 36, discrete=False),
        "policy": "CnnPolicy",
        "policy_kwargs": {},
    },
    "gsde": {"use_sde": True},
    "unshared": {"policy_kwargs": {"share_features_extractor": False}},
    "own buffer": {"rollout_buffer_class": OwnBuffer},
    "own evaluation": {"policy": OwnEvaluation, "ent_coef": 0.1},
}


@both
@pytest.mark.parametrize("name", list(UNCOMMON))
def test_what_is_not_common_takes_sb3s_update(
    cls: type[OnPolicyAlgorithm], name: str, slow_calls: list[OnPolicyAlgorithm]
) -> None:
    kwargs = dict(UNCOMMON[name])
    make_env = kwargs.pop("env", Reach)
    ours, theirs = (
        learn(each, 2, env=make_vec_env(make_env, 4), **kwargs) for each in (cls, SB3[cls])
    )
    assert slow_calls == [ours, ours]
    if name != "cnn":  # whose screens come from a generator that no seed reaches
        assert_same(ours, theirs)


@pytest.mark.parametrize(
    "policy_kwargs",
    [
        {"optimizer_class": torch.optim.AdamW},
        {"optimizer_class": torch.optim.RMSprop},
        {"optimizer_kwargs": {"weight_decay": 0.01}},
        {"optimizer_kwargs": {"amsgrad": True}},
    ],
    ids=str,
)
def test_ppo_leaves_other_optimisers_to_sb3(
    policy_kwargs: dict[str, Any], slow_calls: list[OnPolicyAlgorithm]
) -> None:
    kwargs = {"policy_kwargs": policy_kwargs | {"net_arch": [8]}}
    ours, theirs = (learn(cls, 2, **kwargs) for cls in (PPO, SB3[PPO]))
    assert slow_calls == [ours, ours]
    assert_same(ours, theirs)


def test_the_metrics_of_one_full_batch_step_are_plain_arithmetic() -> None:
    agent = learn(PPO, 1, n_epochs=1, batch_size=128, ent_coef=0.1, vf_coef=0.25)
    buffer = agent.rollout_buffer
    errors = buffer.values - buffer.returns
    entropy = 3 * 0.5 * (1.0 + np.log(2.0 * np.pi))
    logged = metrics(agent)
    # The first step starts from the old policy: all ratios are one, advantages average to zero.
    assert logged["train/value_loss"] == pytest.approx(np.square(errors).mean(), rel=1e-5)
    assert logged["train/entropy_loss"] == pytest.approx(-entropy, rel=1e-6)
    assert logged["train/policy_gradient_loss"] == pytest.approx(0.0, abs=1e-6)
    assert logged["train/approx_kl"] == pytest.approx(0.0, abs=1e-6)
    assert logged["train/clip_fraction"] == 0.0
    expected = -0.1 * entropy + 0.25 * np.square(errors).mean()
    assert logged["train/loss"] == pytest.approx(expected, abs=1e-5)
    assert logged["train/std"] == pytest.approx(agent.policy.log_std.detach().exp().mean().item())
    explained = explained_variance(buffer.values.flatten(), buffer.returns.flatten())
    assert logged["train/explained_variance"] == pytest.approx(explained)
