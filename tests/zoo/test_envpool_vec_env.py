import sys

import gymnasium
import numpy as np
import pytest
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

from agents.errors import ConfigError, MissingDependency
from hub.gym_env import make_gym_env
from zoo.envpool_vec_env import EnvPoolVecEnv
from zoo.envs import make_vec_env

pytest.importorskip("envpool", reason="EnvPool has builds for some systems only")


def play(venv, n_steps, seed=0):
    """Return observations (first one included), rewards, dones and infos of random actions."""
    venv.action_space.seed(seed)
    obs, rewards, dones, infos = [venv.reset()], [], [], []
    for _ in range(n_steps):
        actions = np.stack([venv.action_space.sample() for _ in range(venv.num_envs)])
        result = venv.step(actions)
        for kept, new in zip((obs, rewards, dones, infos), result, strict=True):
            kept.append(new)
    return np.stack(obs), np.stack(rewards), np.stack(dones), infos


@pytest.mark.parametrize("env_id", ["Reacher-v4", "HalfCheetah-v5", "InvertedPendulum-v4"])
def test_spaces_are_gymnasiums(env_id):
    venv, env = EnvPoolVecEnv(env_id, 2, seed=0, num_threads=1), make_gym_env(env_id)
    assert venv.observation_space == env.observation_space
    assert venv.action_space == env.action_space
    assert venv.action_space.dtype == np.float32
    assert venv.spec == env.spec
    assert venv.render_mode is None


@pytest.mark.parametrize("env_id", ["Reacher-v4", "InvertedPendulum-v4"])
def test_shapes_dtypes_and_infos_are_those_of_dummy_vec_env(env_id):
    pool = play(EnvPoolVecEnv(env_id, 3, seed=0, num_threads=1), 60)
    dummy = play(make_vec_env(env_id, 3, 0, "dummy"), 60)
    for mine, theirs in zip(pool[:3], dummy[:3], strict=True):
        assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)
    keys = {"TimeLimit.truncated", "terminal_observation"}
    for *_, dones, infos in (pool, dummy):
        assert dones.any()
        for done, step_infos in zip(dones, infos, strict=True):
            for i, info in enumerate(step_infos):
                assert (info.keys() & keys == keys) == done[i]
                assert isinstance(info["TimeLimit.truncated"], bool)
                assert done[i] or not info["TimeLimit.truncated"]


def test_time_limit_ends_and_resets_in_the_same_step():
    obs, _, dones, infos = play(EnvPoolVecEnv("Reacher-v4", 3, seed=0, num_threads=1), 120)
    assert np.flatnonzero(dones.any(axis=1)).tolist() == [49, 99]
    assert dones[49].all()
    for i in range(3):
        assert infos[49][i]["TimeLimit.truncated"] is True
        last = infos[49][i]["terminal_observation"]
        # a first observation has tiny angles and velocities, the last one has not
        np.testing.assert_allclose(obs[50][i, 0:2], 1.0, atol=0.01)
        assert np.abs(obs[50][i, 6:8]).max() < 0.006
        assert np.abs(last[6:8]).max() > 0.1
        # a new episode draws a new target
        assert not np.array_equal(last[4:6], obs[50][i, 4:6])


def test_fall_is_not_a_truncation():
    obs, rewards, dones, infos = play(EnvPoolVecEnv("InvertedPendulum-v4", 4, 0, num_threads=1), 60)
    step, i = (int(index[0]) for index in np.nonzero(dones))
    last = infos[step][i]["terminal_observation"]
    assert infos[step][i]["TimeLimit.truncated"] is False
    assert abs(last[1]) > 0.2  # fallen: the angle is beyond the limit
    assert np.abs(obs[step + 1][i]).max() <= 0.01  # reset: the noise of the initial state
    going_on = ~dones[step]
    assert going_on.any()
    assert rewards[step][going_on].tolist() == [1.0] * int(going_on.sum())
    # the others go on: their observations move by less than a step can
    assert np.abs(obs[step + 1] - obs[step])[going_on, 0].max() < 0.2


def test_fall_on_the_last_step_of_the_limit_is_not_a_truncation():
    """EnvPool calls it truncated, Gymnasium and SB3 do not."""
    *_, dones, infos = play(EnvPoolVecEnv("InvertedPendulum-v4", 1, 0, num_threads=1), 60)
    length = int(np.flatnonzero(dones[:, 0])[0]) + 1
    assert infos[length - 1][0]["TimeLimit.truncated"] is False
    for limit, truncated in [(length, False), (length - 1, True)]:
        kwargs = {"max_episode_steps": limit}
        venv = EnvPoolVecEnv("InvertedPendulum-v4", 1, 0, kwargs, num_threads=1)
        *_, dones, infos = play(venv, limit)
        assert np.flatnonzero(dones[:, 0]).tolist() == [limit - 1]
        assert infos[limit - 1][0]["TimeLimit.truncated"] is truncated


def test_limit_counts_from_each_environments_own_reset():
    venv = EnvPoolVecEnv("Hopper-v4", 4, 0, {"max_episode_steps": 20}, num_threads=1)
    *_, dones, infos = play(venv, 200)
    n_truncated = 0
    for i in range(4):
        ends = np.flatnonzero(dones[:, i])
        for start, end in zip([-1, *ends[:-1]], ends, strict=True):
            truncated = infos[end][i]["TimeLimit.truncated"]
            assert (end - start == 20) if truncated else (end - start <= 20)
            n_truncated += truncated
    assert 0 < n_truncated < dones.sum()


def test_seed_then_reset_repeats_the_episodes():
    venv = EnvPoolVecEnv("Hopper-v4", 3, seed=7, num_threads=1)
    first = play(venv, 80)
    unseeded = play(venv, 80)
    venv.seed(7)
    again = play(venv, 80)
    other_threads = play(EnvPoolVecEnv("Hopper-v4", 3, seed=7, num_threads=2), 80)
    venv.seed(8)
    other = play(venv, 80)
    assert first[2].any()
    for run in (again, other_threads):
        for mine, theirs in zip(first[:3], run[:3], strict=True):
            np.testing.assert_array_equal(mine, theirs)
    assert not np.array_equal(first[0][0], unseeded[0][0])
    assert not np.array_equal(first[0][0], other[0][0])
    np.testing.assert_array_equal(first[0][0, 1], other[0][0, 0])  # environment i has seed + i


def test_seed_before_the_first_reset_counts():
    venv = EnvPoolVecEnv("Hopper-v4", 2, seed=1, num_threads=1)
    venv.seed(7)
    expected = EnvPoolVecEnv("Hopper-v4", 2, seed=7, num_threads=1).reset()
    np.testing.assert_array_equal(venv.reset(), expected)


def test_any_seed_of_sb3_is_taken():
    venv = EnvPoolVecEnv("InvertedPendulum-v4", 2, seed=2**32 - 1, num_threads=1)
    assert np.isfinite(venv.reset()).all()
    drawn = [EnvPoolVecEnv("InvertedPendulum-v4", 2, num_threads=1).reset() for _ in range(2)]
    assert not np.array_equal(*drawn)


def test_returned_arrays_are_not_written_again():
    venv = EnvPoolVecEnv("InvertedPendulum-v4", 4, seed=0, num_threads=1)
    venv.reset()
    actions = np.full((4, 1), 3.0, dtype=np.float32)
    results = [venv.step(actions) for _ in range(300)]
    venv.seed(0)
    venv.reset()
    for obs, rewards, dones, infos in results:
        obs_again, rewards_again, dones_again, infos_again = venv.step(actions)
        np.testing.assert_array_equal(obs, obs_again)
        np.testing.assert_array_equal(rewards, rewards_again)
        np.testing.assert_array_equal(dones, dones_again)
        for i in np.flatnonzero(dones):
            np.testing.assert_array_equal(
                infos[i]["terminal_observation"], infos_again[i]["terminal_observation"]
            )


def test_wrappers_of_sb3_work_on_it():
    venv = VecNormalize(VecMonitor(EnvPoolVecEnv("Reacher-v5", 2, seed=0, num_threads=1)))
    *_, infos = play(venv, 50)
    assert [info["episode"]["l"] for info in infos[49]] == [50, 50]


def test_setting_reaches_the_pool():
    kwargs = {"reset_noise_scale": 0.0}
    venv = EnvPoolVecEnv("Walker2d-v4", 2, 0, kwargs, num_threads=1)
    expected = make_gym_env("Walker2d-v4", kwargs).reset(seed=0)[0]
    np.testing.assert_allclose(venv.reset(), np.stack([expected, expected]), atol=1e-12)
    assert venv.get_attr("reset_noise_scale") == [0.0, 0.0]
    assert venv.get_attr("max_episode_steps", indices=0) == [1000]


@pytest.mark.parametrize(
    ("env_id", "kwargs", "message"),
    [
        ("Hopper-v4", {"healthy_z_range": (0.5, 2.0)}, "EnvPool cannot set healthy_z_range of"),
        ("Hopper-v4", {"no_such": 1}, "refuses the environment arguments no_such=1"),
        ("Hopper-v5", {"xml_file": "hopper.xml"}, "EnvPool cannot set xml_file of Hopper-v5"),
        ("gymnasium:CartPole-v1", {}, "EnvPool has no environment 'gymnasium:CartPole-v1'"),
        ("Blackjack-v1", {}, "only an array that is the same in both"),
    ],
)
def test_what_envpool_cannot_do_is_said_in_one_line(env_id, kwargs, message):
    with pytest.raises(ConfigError) as raised:
        EnvPoolVecEnv(env_id, 1, 0, kwargs, num_threads=1)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    if "refuses" not in message:
        assert str(raised.value).endswith("Use --vec-env dummy.")


def test_access_to_single_environments_is_refused_clearly():
    venv = EnvPoolVecEnv("Reacher-v4", 2, seed=0, num_threads=1)
    assert venv.env_is_wrapped(gymnasium.wrappers.TimeLimit) == [False, False]
    assert [spec.id for spec in venv.get_attr("spec")] == ["Reacher-v4"] * 2
    assert not venv.has_attr("np_random")
    for refused in (
        lambda: venv.get_attr("np_random"),
        lambda: venv.set_attr("reset_noise_scale", 0.0),
        lambda: venv.env_method("state_vector"),
    ):
        with pytest.raises(AttributeError, match="--vec-env dummy"):
            refused()


def test_missing_envpool_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(MissingDependency, match=r"pip install 'natural-zoo\[envpool\]'"):
        EnvPoolVecEnv("Reacher-v4", 1)
