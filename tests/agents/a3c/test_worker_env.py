"""How workers come by environments of their own."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecEnv,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
)

from agents.a3c import A3C
from agents.a3c.worker_env import make_worker_env, worker_env_recipe
from agents.errors import ConfigError


def made(env: VecEnv, worker_env: Any = None) -> VecEnv:
    return make_worker_env(worker_env_recipe(env, worker_env), t_start=0.0)


def inner(env: VecEnv, index: int = 0) -> Any:
    unwrapped = env.unwrapped
    assert isinstance(unwrapped, DummyVecEnv)
    return unwrapped.envs[index]


def test_a_gymnasium_environment_is_made_again() -> None:
    given = make_vec_env("Pendulum-v1", n_envs=2, env_kwargs={"g": 5.0})
    env = made(given)
    assert env.num_envs == 2
    assert inner(env).unwrapped.g == inner(env, 1).unwrapped.g == 5.0
    assert inner(env) is not inner(env, 1)
    assert inner(env).unwrapped is not inner(given).unwrapped
    assert inner(env).spec.max_episode_steps == 200


def test_its_wrappers_are_made_again() -> None:
    def wrapped() -> gym.Env[Any, Any]:
        env = gym.make("Pendulum-v1", max_episode_steps=7)
        return Monitor(gym.wrappers.FrameStackObservation(env, 3))

    given = VecNormalize(DummyVecEnv([wrapped]))
    env = made(given)
    assert env.observation_space.shape == (3, 3)
    assert inner(env).spec.max_episode_steps == 7
    env.seed(0)
    env.reset()
    for _ in range(7):
        _, _, dones, infos = env.step(np.zeros((1, 1)))
    assert dones[0]
    assert infos[0]["episode"]["l"] == 7


def test_episodes_are_counted_once() -> None:
    plain = made(DummyVecEnv([lambda: gym.make("CartPole-v1")]))
    assert isinstance(plain, VecMonitor)
    own = made(
        DummyVecEnv([lambda: gym.make("CartPole-v1")]),
        lambda: Monitor(gym.make("CartPole-v1")),
    )
    assert not isinstance(own, VecMonitor)


def test_a_name_a_function_and_a_vector() -> None:
    given = make_vec_env("CartPole-v1", n_envs=2)
    for worker_env in (
        "CartPole-v1",
        lambda: gym.make("CartPole-v1"),
        lambda: make_vec_env("CartPole-v1", n_envs=2),
    ):
        env = made(given, worker_env)
        assert env.num_envs == 2
        assert inner(env).spec.id == "CartPole-v1"
    with pytest.raises(ConfigError, match=r"worker_env made 3 environments.*env has 2; make 2"):
        made(given, lambda: make_vec_env("CartPole-v1", n_envs=3))


class Unrecorded(gym.Wrapper[Any, Any, Any, Any]):
    """Does not say what it was made with."""


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda script: DummyVecEnv([script]), "it did not come from gymnasium.make"),
        (
            lambda _: VecFrameStack(make_vec_env("CartPole-v1"), 2),
            "cannot make VecFrameStack again",
        ),
        (
            lambda _: make_vec_env("CartPole-v1", wrapper_class=Unrecorded),
            "cannot make the wrapper Unrecorded of CartPole-v1 again",
        ),
    ],
)
def test_what_cannot_be_made_again_is_said(script: Any, make: Any, message: str) -> None:
    agent = A3C("MlpPolicy", make(script), n_workers=2)
    with pytest.raises(ConfigError, match=message) as raised:
        agent.learn(100)
    assert "Pass worker_env=" in str(raised.value)
    assert "n_workers=1" in str(raised.value)


def test_dictionaries_are_not_normalised_by_workers() -> None:
    from stable_baselines3.common.envs import SimpleMultiObsEnv

    venv = VecNormalize(DummyVecEnv([SimpleMultiObsEnv]), norm_obs_keys=["vec"])
    agent = A3C("MultiInputPolicy", venv, n_workers=2, worker_env=SimpleMultiObsEnv)
    with pytest.raises(ConfigError, match="Workers cannot normalise Dict observations"):
        agent.learn(100)
