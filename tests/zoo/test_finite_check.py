from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

from agents.errors import EnvironmentFault
from zoo.finite_check import FiniteCheck


class Breaking(gymnasium.Env[Any, Any]):
    """Counts steps; returns ``bad`` as part of an observation or as the reward at one of them."""

    action_space = spaces.Discrete(2)

    def __init__(self, where="", at=0, bad=np.nan, as_dict=False, length=100):
        box = spaces.Box(-np.inf, np.inf, (3,), np.float64)
        self.observation_space = spaces.Dict({"arm": box, "leg": box}) if as_dict else box
        self.where, self.at, self.bad, self.as_dict, self.length = where, at, bad, as_dict, length

    def _observe(self):
        obs = np.full(3, float(self.n_steps))
        if self.where == "observation" and self.n_steps == self.at:
            obs[1] = self.bad
        return {"arm": np.zeros(3), "leg": obs} if self.as_dict else obs

    def reset(self, *, seed=None, options=None):
        self.n_steps = 0
        return self._observe(), {}

    def step(self, action):
        self.n_steps += 1
        broken = self.where == "reward" and self.n_steps == self.at
        reward = self.bad if broken else 1.0
        return self._observe(), reward, self.n_steps == self.length, False, {}


def make_checked(*broken, **common):
    fns = [lambda settings=settings: Breaking(**common, **settings) for settings in broken]
    return FiniteCheck(DummyVecEnv(fns), "Breaking-v0")


def run(venv, n_steps):
    venv.reset()
    for _ in range(n_steps):
        result = venv.step(np.zeros(venv.num_envs, dtype=int))
    return result


def test_healthy_environment_passes_unchanged():
    obs, rewards, dones, infos = run(make_checked({}, {}, length=5), 7)
    np.testing.assert_array_equal(obs, np.full((2, 3), 2.0))
    np.testing.assert_array_equal(rewards, [1.0, 1.0])
    np.testing.assert_array_equal(dones, [False, False])
    assert infos == [{"TimeLimit.truncated": False}] * 2


def test_reward_is_located():
    venv = make_checked({}, {"where": "reward", "at": 3})
    with pytest.raises(EnvironmentFault) as raised:
        run(venv, 5)
    assert str(raised.value).startswith(
        "Breaking-v0 returned NaN as reward of environment 1 at step 3;"
    )


@pytest.mark.parametrize(("bad", "name"), [(np.nan, "NaN"), (np.inf, "+inf"), (-np.inf, "-inf")])
def test_observation_is_located(bad, name):
    venv = make_checked({}, {}, {"where": "observation", "at": 2, "bad": bad})
    with pytest.raises(EnvironmentFault) as raised:
        run(venv, 5)
    assert str(raised.value).startswith(
        f"Breaking-v0 returned {name} as observation, component 1, of environment 2 at step 2;"
    )


def test_dict_observation_names_its_key():
    venv = make_checked({"where": "observation", "at": 2}, as_dict=True)
    with pytest.raises(EnvironmentFault, match="observation 'leg', component 1, of environment 0"):
        run(venv, 5)


def test_first_observation_is_checked():
    with pytest.raises(EnvironmentFault, match="at step 0;"):
        run(make_checked({"where": "observation", "at": 0}), 1)


@pytest.mark.parametrize(("as_dict", "key"), [(False, ""), (True, " 'leg'")])
def test_terminal_observation_is_checked(as_dict, key):
    settings = {"where": "observation", "at": 4}
    venv = make_checked({}, settings, length=4, as_dict=as_dict)
    with pytest.raises(EnvironmentFault) as raised:
        run(venv, 6)
    assert f"NaN as terminal observation{key}, component 1, of environment 1 at step 4" in str(
        raised.value
    )


def test_finite_values_whose_sum_overflows_pass():
    venv = make_checked(
        *[{"where": "observation", "at": 1, "bad": np.finfo(np.float64).max}] * 2, length=9
    )
    obs, *_ = run(venv, 1)
    assert obs[0, 1] == np.finfo(np.float64).max
