"""Search spaces: what they may say, and that the shipped ones make agents."""

from __future__ import annotations

import optuna
import pytest
from stable_baselines3.common.env_util import make_vec_env

from agents.errors import ConfigError, UnknownName
from agents.registry import algorithm_class
from hub.schedules import Linear
from zoo.config import resolve_config
from zoo.hyperparameters import resolve_hyperparameters
from zoo.tuning.search_space import known_spaces, load_space, parse_space

SPACE = """
target_kl: {low: 0.005, high: 0.1, log: true, falls_to: [1.0, 0.1, 0.0]}
gamma: {choices: [0.98, 0.99]}
n_epochs: {low: 2, high: 10, step: 4}
rollout:
  choices:
    small: {n_envs: 2, n_steps: 64}
    large: {n_envs: 4, n_steps: 512, batch_size: {choices: [64, 128]}}
policy_kwargs.net_arch: {choices: {narrow: {policy_kwargs.net_arch: {pi: [8], vf: [8]}}, none: {}}}
"""


def fixed(**params: object) -> optuna.trial.FixedTrial:
    return optuna.trial.FixedTrial(params)


def test_settings_of_a_trial() -> None:
    trial = fixed(
        **{
            "target_kl": 0.0123456,
            "target_kl falls to": 0.1,
            "gamma": 0.99,
            "n_epochs": 6,
            "rollout": "large",
            "rollout=large.batch_size": 128,
            "policy_kwargs.net_arch": "narrow",
        }
    )
    assert parse_space(SPACE, "test").suggest(trial) == {
        "target_kl": {"schedule": "linear", "start": 0.0123, "end": 0.00123},
        "gamma": 0.99,
        "n_epochs": 6,
        "n_envs": 4,
        "n_steps": 512,
        "batch_size": 128,
        "policy_kwargs.net_arch": {"pi": [8], "vf": [8]},
    }


def test_parameters_of_a_choice_are_asked_for_only_with_it() -> None:
    trial = fixed(
        **{
            "target_kl": 0.02,
            "target_kl falls to": 1.0,
            "gamma": 0.98,
            "n_epochs": 2,
            "rollout": "small",
            "policy_kwargs.net_arch": "none",
        }
    )
    assert parse_space(SPACE, "test").suggest(trial) == {
        "target_kl": 0.02,
        "gamma": 0.98,
        "n_epochs": 2,
        "n_envs": 2,
        "n_steps": 64,
    }


def test_ranges_are_those_of_the_file() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    parse_space(SPACE, "test").suggest(trial)
    distributions = trial.distributions
    assert distributions["target_kl"] == optuna.distributions.FloatDistribution(0.005, 0.1, True)
    assert distributions["n_epochs"] == optuna.distributions.IntDistribution(2, 10, step=4)
    assert distributions["gamma"] == optuna.distributions.CategoricalDistribution((0.98, 0.99))


def test_corners_hold_every_value_once_at_least() -> None:
    corners = parse_space(SPACE, "test").corners()
    starts = [c["target_kl"] for c in corners]
    assert 0.005 in starts
    assert 0.1 in starts
    assert {"schedule": "linear", "start": 0.1, "end": 0.0} in starts
    assert {"schedule": "linear", "start": 0.005, "end": 0.0005} in starts
    assert {c["n_epochs"] for c in corners} == {2, 10}
    assert {c["n_envs"] for c in corners} == {2, 4}
    assert {c.get("batch_size") for c in corners} == {None, 64, 128}
    assert any("policy_kwargs.net_arch" not in corner for corner in corners)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "a search space maps settings"),
        ("target_kl: 0.02", "is no parameter; write {low: …, high: …}"),
        ("target_kl: {low: 0.1, high: 0.01}", "from 0.1 to 0.01 is no range"),
        ("target_kl: {low: 0.0, high: 0.01, log: true}", "on a logarithmic scale is no range"),
        ("target_kl: {low: small, high: 0.01}", "'low' is 'small'; write a number"),
        ("target_kl: {low: 0.1}", "'high' is None; write a number"),
        ("target_kl: {low: 0.1, hihg: 1}", "Did you mean 'high'?"),
        ("target_kl: {low: 0.1, high: 1, falls_to: 0.5}", "falls_to is 0.5"),
        ("target_kl: {low: 0.1, high: 1, log: true, step: 0.1}", "step is 0.1"),
        ("gamma: {choices: []}", "'choices' is []"),
        ("gamma: {choices: [0.9], low: 1}", "Unknown key of test, gamma 'low'"),
        ("net: {choices: [[64, 64]]}", "needs a name"),
        ("net: {choices: {small: 64}}", "small: 64 is no mapping"),
        ("a: {choices: !!python/name:os.system [1]}", "is refused"),
    ],
)
def test_what_is_no_search_space(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_space(text, "test")
    assert message in str(raised.value)


def test_unknown_algorithm() -> None:
    with pytest.raises(UnknownName, match="Give one of your own: --search-space FILE"):
        load_space("mine")


@pytest.mark.parametrize("algo", known_spaces())
def test_every_corner_of_a_shipped_space_makes_an_agent(algo: str) -> None:
    for corner in load_space(algo).corners():
        config = resolve_config(
            algo, "Walker2d-v4", overrides=corner, untuned=True, seed=0, device="cpu"
        )
        n_samples = config.n_envs * config.agent["n_steps"]
        if "buffer_size" not in config.agent:  # those draw their batches from a memory
            assert n_samples % config.agent.get("batch_size", n_samples) == 0
        env = make_vec_env("Pendulum-v1", n_envs=1)  # light, and takes every policy here
        agent = algorithm_class(algo)(
            config.policy, env, device="cpu", **(config.agent_kwargs() | {"n_steps": n_samples})
        )
        assert agent.gamma == corner["gamma"]


def test_shipped_spaces_hold_what_is_known_to_matter() -> None:
    """The levers that moved our own runs, and the values the shipped presets have."""
    parameters = load_space("npg").parameters
    assert {"target_kl", "rollout", "gamma", "critic", "normalize", "networks"} <= set(parameters)
    assert 0.9999 in load_space("npg").definition["gamma"]["choices"]  # decides Swimmer
    assert load_space("trpo").definition == load_space("npg").definition
    preset = resolve_hyperparameters("npg", "Walker2d-v4")
    assert 0.005 <= preset.agent["target_kl"] <= 0.1


def test_a_schedule_is_one() -> None:
    space = parse_space("learning_rate: {low: 1e-4, high: 1e-2, falls_to: [0.5]}", "test")
    (first, *_) = space.corners()
    config = resolve_config("npg", "Hopper-v4", overrides=first, seed=0, device="cpu")
    assert config.agent_kwargs()["learning_rate"] == Linear(1e-4, 5e-5)
