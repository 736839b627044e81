import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from agents.errors import RunFolderError
from hub.vec_normalize import load_statistics, normalizer_of, statistics, wrap

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
    frozen = normalizer_of(env)
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
    result = normalizer_of(env)(raw)
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
    frozen, before = normalizer_of(env), statistics(env)
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


@pytest.mark.parametrize(
    ("space", "settings"),
    [
        (BOX, {"clip_obs": 3.0, "clip_reward": 2.0, "gamma": 0.9, "epsilon": 1e-3}),
        (BOX, {"norm_obs": False}),
        (BOX, {"norm_reward": False}),
        (spaces.Dict({"arm": BOX, "leg": BOX}), {}),
        (spaces.Dict({"arm": BOX, "leg": BOX}), {"norm_obs_keys": ["leg"]}),
    ],
    ids=str,
)
def test_a_new_wrapper_goes_on_as_the_old_one(space, settings):
    old = wrapped(space, **settings)
    fresh = DummyVecEnv([lambda: Noise(space)] * 2)
    new = wrap(normalizer_of(old), fresh)
    for env in (old, new):
        env.seed(7)
        env.reset()
    for _ in range(20):
        for ours, theirs in zip(
            new.step(np.zeros(2, int)), old.step(np.zeros(2, int)), strict=True
        ):
            if isinstance(theirs, dict):
                for key in theirs:
                    np.testing.assert_array_equal(ours[key], theirs[key])
            elif isinstance(theirs, np.ndarray):
                np.testing.assert_array_equal(ours, theirs)
    assert {name: array.tobytes() for name, array in statistics(new).items()} == {
        name: array.tobytes() for name, array in statistics(old).items()
    }


def test_a_wrapper_for_evaluation_stands_still():
    old = wrapped()
    new = wrap(normalizer_of(old), DummyVecEnv([lambda: Noise(BOX)]), training=False)
    before = statistics(new)
    new.seed(0)
    new.reset()
    rewards = [new.step(np.zeros(1, int))[1] for _ in range(20)]
    assert np.mean(rewards) > 3  # raw: their mean is 5
    np.testing.assert_array_equal(statistics(new)["obs.mean"], before["obs.mean"])
