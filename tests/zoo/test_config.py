"""RunConfig: complete, written down exactly, and enough to build the agent again."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

from agents.errors import ConfigError, UnknownName
from agents.npg import NPG
from hub.schedules import Linear
from zoo.config import RunConfig, resolve_config


def test_everything_is_resolved() -> None:
    config = resolve_config("npg", "HalfCheetah-v4", seed=3)
    assert config.algo == "npg"
    assert config.env_id == "HalfCheetah-v4"
    assert config.seed == 3
    assert config.n_timesteps == 1_000_000
    assert config.n_envs == 16
    assert config.agent["target_kl"] == 0.04
    assert config.agent["cg_rtol"] == 1e-6  # the constructor's default, written down
    assert config.normalize is not None
    assert config.normalize["gamma"] == config.agent["gamma"] == 0.99
    assert config.env_kwargs == {}
    assert (config.eval_freq, config.n_eval_episodes, config.n_eval_envs) == (50_000, 5, 10)
    assert (config.save_freq, config.log_interval, config.env_threads) == (100_000, None, None)
    assert (config.vec_env, config.n_threads, config.device) == ("dummy", 1, "cpu")
    assert "RL Zoo" in config.source


def test_a_curve_has_twenty_points_by_default() -> None:
    assert resolve_config("npg", "CartPole-v1", seed=0, n_timesteps=100_000).eval_freq == 5000
    assert resolve_config("npg", "CartPole-v1", seed=0, n_timesteps=10).eval_freq == 1
    assert resolve_config("npg", "CartPole-v1", seed=0, eval_freq=700).eval_freq == 700
    assert resolve_config("npg", "CartPole-v1", seed=0, eval_freq=None).eval_freq is None


def test_flags_beat_overrides() -> None:
    config = resolve_config(
        "ppo",
        "Walker2d-v4",
        overrides=["n_timesteps=5", "n_envs=2", "env_kwargs={a: 1, b: 2}", "gamma=0.5"],
        n_timesteps=7,
        n_envs=3,
        env_kwargs={"b": 4},
    )
    assert (config.n_timesteps, config.n_envs, config.agent["gamma"]) == (7, 3, 0.5)
    assert config.env_kwargs == {"a": 1, "b": 4}
    assert config.source.endswith("; changed: env_kwargs, env_kwargs.b, gamma, n_envs, n_timesteps")


@pytest.mark.parametrize(
    ("algo", "env_id"),
    [("npg", "InvertedPendulum-v5"), ("ppo", "CartPole-v1"), ("a2c", "Pendulum-v1")],
)
def test_yaml_round_trip_is_exact(algo: str, env_id: str) -> None:
    config = resolve_config(
        algo, env_id, overrides=["learning_rate=lin_7.3e-05"], env_kwargs={"text": "1e6"}
    )
    text = config.to_yaml()
    assert RunConfig.from_yaml(text) == config
    assert RunConfig.from_yaml(text).to_yaml() == text
    assert text.startswith(f"algo: {algo}\nenv_id: {env_id}\n")


def test_is_plain_data() -> None:
    fields = dataclasses.asdict(resolve_config("npg", "InvertedPendulum-v4"))
    assert json.loads(json.dumps(fields)) == fields


def test_hand_written_numbers_are_typed() -> None:
    config = resolve_config("ppo", "CartPole-v1", seed=0)
    text = config.to_yaml().replace("n_timesteps: 100000", "n_timesteps: 1e5")
    assert RunConfig.from_yaml(text) == config


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed:", "sed:", "Unknown key of run/config.yml 'sed'. Did you mean 'seed'?"),
        ("seed: 0\n", "", "run/config.yml: 'seed' is missing"),
        ("save_freq: 100000", "save_freq: 0", "save_freq: 0 is below 1; write save_freq: 1 or"),
        ("seed: 0\n", "seed: 0\nseed: 1\n", "'seed' is given twice"),
        ("seed: 0\n", "seed: 0.5\n", "seed: 0.5 is not a whole number"),
        ("seed: 0\n", "seed: !!python/name:os.system\n", "is refused"),
        ("agent:", "agent: 5\nx:", "Unknown key"),
    ],
)
def test_bad_yaml(old: str, new: str, message: str) -> None:
    text = resolve_config("ppo", "CartPole-v1", seed=0).to_yaml()
    assert old in text
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_yaml(text.replace(old, new, 1), "run/config.yml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_not_a_mapping() -> None:
    with pytest.raises(ConfigError, match="a run's configuration is a mapping"):
        RunConfig.from_yaml("- 1")


def test_seed_is_chosen_and_recorded() -> None:
    seeds = {resolve_config("ppo", "CartPole-v1").seed for _ in range(5)}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert resolve_config("ppo", "CartPole-v1", seed=0).seed == 0
    assert resolve_config("ppo", "CartPole-v1", seed=2**31 - 100_001).seed == 2**31 - 100_001


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"seed": -1}, "seed=-1 must be in 0 … 2147383647; try --seed 0."),
        ({"seed": 2**31 - 100_000}, "seed=2147383648 must be in 0 … 2147383647"),
        ({"n_threads": 0}, "n_threads: 0 is below 1; write n_threads: 1 or more."),
        ({"env_threads": 0}, "env_threads: 0 is below 1"),
        ({"n_eval_episodes": 0}, "n_eval_episodes: 0 is below 1"),
        ({"n_eval_envs": 0}, "n_eval_envs: 0 is below 1"),
        ({"n_timesteps": 0}, "n_timesteps: 0 is below 1"),
        ({"n_envs": 0}, "n_envs: 0 is below 1"),
        ({"device": "gpu"}, "device: 'gpu' is unknown; write auto, cpu or cuda."),
        ({"overrides": ["gama=1"]}, "Unknown ppo setting 'gama'. Did you mean 'gamma'?"),
    ],
)
def test_refused(flags: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_config("ppo", "CartPole-v1", **flags)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_rl_zoo_sentinels_mean_never() -> None:
    config = resolve_config("ppo", "CartPole-v1", eval_freq=-1, save_freq=-1, log_interval=-1)
    assert (config.eval_freq, config.save_freq, config.log_interval) == (None, None, None)


def test_missing_cuda_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="'cuda' was asked for, but torch finds no CUDA"):
        resolve_config("ppo", "CartPole-v1", device="cuda")


def test_agent_kwargs_build_the_agent() -> None:
    config = resolve_config("ppo", "CartPole-v1", seed=1)
    kwargs = config.agent_kwargs()
    assert kwargs["learning_rate"] == Linear(0.001, 0.0)
    env = make_vec_env(config.env_id, n_envs=config.n_envs)
    agent = PPO(config.policy, env, seed=config.seed, device=config.device, **kwargs)
    assert (agent.n_steps, agent.gamma, agent.gae_lambda, agent.n_epochs) == (32, 0.98, 0.8, 20)
    assert agent.lr_schedule(0.5) == 0.0005


def test_agent_kwargs_build_a_natural_gradient_agent() -> None:
    config = resolve_config("npg", "InvertedPendulum-v4", n_envs=2)
    kwargs = config.agent_kwargs()
    assert kwargs["step_size"] == Linear(0.3, 0.0)
    agent = NPG(config.policy, "Pendulum-v1", seed=1, device=config.device, **kwargs)
    assert agent.n_steps == 128
    assert agent.policy.log_std.detach().tolist() == [-0.5]
    assert isinstance(agent.policy.mlp_extractor.policy_net[1], torch.nn.Tanh)


def test_agent_kwargs_check_an_edited_record() -> None:
    config = resolve_config("ppo", "CartPole-v1")
    edited = dataclasses.replace(config, agent=config.agent | {"gama": 0.5})
    with pytest.raises(UnknownName, match="Unknown ppo setting 'gama'"):
        edited.agent_kwargs()
