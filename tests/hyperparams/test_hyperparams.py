"""The shipped values: every file loads, every entry fits its algorithm and has a source."""

from __future__ import annotations

import importlib.resources

import gymnasium
import pytest
from stable_baselines3.common.env_util import make_vec_env

from agents.registry import algorithm_class
from zoo.hyperparameters import Hyperparameters, build_agent_kwargs, resolve_hyperparameters
from zoo.presets import read_entries

ALGORITHMS = (
    "a2c",
    "a3c",
    "actor_critic",
    "npg",
    "off_pac",
    "ppo",
    "ppo_kl",
    "reinforce",
    "trpo",
)
CLASSIC_CONTROL = {
    "Acrobot-v1",
    "CartPole-v1",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "Pendulum-v1",
}
BOTH_VERSIONS = [
    "Ant",
    "HalfCheetah",
    "Hopper",
    "Humanoid",
    "HumanoidStandup",
    "InvertedDoublePendulum",
    "InvertedPendulum",
    "Reacher",
    "Swimmer",
    "Walker2d",
]
REQUIRED = {f"{task}-{version}" for task in BOTH_VERSIONS for version in ("v4", "v5")}
REQUIRED |= {"Pusher-v5"} | CLASSIC_CONTROL
ENTRIES = [
    (algo, env_id) for algo in ALGORITHMS for env_id in read_entries(algo) if env_id != "default"
]

# What would silently be a different algorithm if it changed.
SHIPPED = [
    ("trpo", "HalfCheetah-v4", "target_kl", 0.04),
    ("trpo", "Hopper-v5", "gamma", 0.995),
    ("npg", "Swimmer-v4", "gamma", 0.9995),
    ("npg", "Humanoid-v4", "gae_lambda", 0.7),
    ("npg", "Pusher-v5", "cg_max_iters", 10),
    ("ppo", "Walker2d-v4", "learning_rate", 3e-4),
    ("ppo", "MountainCarContinuous-v0", "batch_size", 8),
    ("ppo", "CartPole-v1", "clip_range", {"schedule": "linear", "start": 0.2, "end": 0.0}),
    ("ppo_kl", "HalfCheetah-v4", "target_kl", 0.02),
    ("a2c", "Swimmer-v5", "gamma", 0.9999),
    ("a2c", "Hopper-v4", "ent_coef", 0.01),
    ("a3c", "Walker2d-v5", "n_workers", 4),
    ("a3c", "CartPole-v1", "normalize_advantage", True),
]


def resolve(algo: str, env_id: str) -> Hyperparameters:
    return resolve_hyperparameters(algo, env_id)


def test_one_file_per_algorithm() -> None:
    names = {path.name for path in importlib.resources.files("hyperparams").iterdir()}
    expected = {f"{algo}.yml" for algo in ALGORITHMS}
    assert {name for name in names if name.endswith(".yml")} == expected


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_every_task_has_an_entry(algo: str) -> None:
    assert set(read_entries(algo)) == REQUIRED | {"default"}


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_default_trains_untuned(algo: str) -> None:
    tuned = resolve_hyperparameters(algo, "Acrobot-v1", untuned=True)
    assert tuned.n_timesteps == 1_000_000
    assert tuned.source == f"untuned: the default entry of hyperparams/{algo}.yml"


@pytest.mark.parametrize(("algo", "env_id"), ENTRIES)
def test_entry_fits_its_algorithm(algo: str, env_id: str) -> None:
    tuned = resolve(algo, env_id)
    assert len(tuned.source) > 20
    assert 20_000 <= tuned.n_timesteps <= 1_000_000
    n_samples = tuned.agent["n_steps"] * tuned.n_envs
    assert n_samples % tuned.agent.get("batch_size", n_samples) == 0
    as_it_comes = {"CartPole-v1"}
    if algo not in ("a2c", "a3c", "off_pac"):
        as_it_comes |= {"Pendulum-v1"}
    assert (tuned.normalize is None) == (env_id in as_it_comes)
    assert env_id in gymnasium.registry


@pytest.mark.parametrize(("algo", "env_id"), ENTRIES)
def test_constructor_takes_the_entry_without_a_warning(algo: str, env_id: str) -> None:
    tuned = resolve(algo, env_id)
    env = make_vec_env("Pendulum-v1", n_envs=tuned.n_envs)  # light, and takes every policy here
    agent = algorithm_class(algo)(
        tuned.policy, env, device="cpu", **build_agent_kwargs(tuned.agent)
    )
    assert agent.gamma == tuned.agent["gamma"]
    assert agent.n_steps == tuned.agent["n_steps"]


@pytest.mark.parametrize("algo", ALGORITHMS)
@pytest.mark.parametrize("task", BOTH_VERSIONS)
def test_v5_shares_the_values_of_v4(algo: str, task: str) -> None:
    assert resolve(algo, f"{task}-v5") == resolve(algo, f"{task}-v4")


@pytest.mark.parametrize(("algo", "env_id", "key", "value"), SHIPPED)
def test_shipped_values(algo: str, env_id: str, key: str, value: object) -> None:
    assert resolve(algo, env_id).agent[key] == value


@pytest.mark.parametrize(("algo", "key"), [("npg", "step_size"), ("trpo", "max_step_size")])
@pytest.mark.parametrize("task", ["InvertedPendulum-v4", "InvertedDoublePendulum-v5"])
def test_pendulums_end_with_smaller_steps(algo: str, key: str, task: str) -> None:
    schedule = build_agent_kwargs(resolve(algo, task).agent)[key]
    assert schedule(1.0) in (0.3, 0.1)
    assert schedule(0.0) == 0.0
