import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from agents.errors import RunFolderError
from zoo.normalizer import ObservationNormalizer, load_statistics, statistics

BOX = spaces.Box(-np.inf, np.inf, (3,), np.float32)


class Noise(gymnasium.Env):
    action_space = spaces.Discrete(2)

    def __init__(self, space):
        self.observation_space = space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action):
        return self._observe(), float(self.np_random.normal(5, 2)), False, False, {}

    def _observe(self):
        def draw():
            return (100 * self.np_random.standard_normal(3) + 7).astype(np.float32)

        if isinstance(self.observation_space, spaces.Dict):
            return {key: draw() for key in self.observation_space}
        return draw()


def wrapped(space=BOX, n_steps=50, **settings):
    env = VecNormalize(DummyVecEnv([lambda: Noise(space)] * 2), **settings)
    env.seed(0)
    env.reset()
    for _ in range(n_steps):
        env.step(np.zeros(2, int))
    return env


@pytest.mark.parametrize("settings", [{}, {"clip_obs": 0.5, "epsilon": 1e-2}, {"norm_obs": False}])
def test_same_arithmetic_as_vec_normalize(settings):
    env = wrapped(**settings)
    frozen = ObservationNormalizer.frozen(env)
    raw = np.random.default_rng(0).normal(0, 300, (1000, 3)).astype(np.float32)
    expected = env.normalize_obs(raw)
    result = frozen(raw)
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result, expected)


def test_dict_observations():
    env = wrapped(spaces.Dict({"arm": BOX, "leg": BOX}), norm_obs_keys=["leg"])
    arrays = statistics(env)
    assert sorted(arrays) == [
        *("obs.leg.count", "obs.leg.mean", "obs.leg.var"),
        *("ret.count", "ret.mean", "ret.var"),
    ]
    raw = {"arm": np.full((1, 3), 9, np.float32), "leg": np.full((1, 3), 50, np.float32)}
    result = ObservationNormalizer.frozen(env)(raw)
    np.testing.assert_array_equal(result["arm"], raw["arm"])
    np.testing.assert_array_equal(result["leg"], env.normalize_obs(raw)["leg"])


def test_round_trip_is_exact():
    env = wrapped()
    fresh = wrapped(n_steps=0)
    load_statistics(fresh, statistics(env))
    for ours, theirs in ((fresh.obs_rms, env.obs_rms), (fresh.ret_rms, env.ret_rms)):
        np.testing.assert_array_equal(ours.mean, theirs.mean)
        np.testing.assert_array_equal(ours.var, theirs.var)
        assert ours.count == theirs.count
    assert env.obs_rms.mean.dtype == np.float64


def test_statistics_are_copies():
    env = wrapped()
    frozen, before = ObservationNormalizer.frozen(env), statistics(env)
    raw = np.ones((1, 3), np.float32)
    result = frozen(raw)
    for _ in range(20):
        env.step(np.zeros(2, int))
    np.testing.assert_array_equal(frozen(raw), result)
    assert before["obs.count"] + 40 == statistics(env)["obs.count"]


def test_statistics_of_another_environment():
    wide = wrapped(spaces.Box(-1, 1, (3,), np.float32))
    arrays = statistics(wide) | {"obs.mean": np.zeros(4)}
    with pytest.raises(RunFolderError, match=r"obs has shape \(4,\)"):
        load_statistics(wrapped(), arrays)
    with pytest.raises(RunFolderError, match="another environment"):
        load_statistics(wrapped(norm_obs=False), statistics(wide))
