import json

import numpy as np
import pytest
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

from agents.errors import RunFolderError
from agents.npg import NPG
from hub.gym_env import make_gym_env
from zoo.agent_file import AgentFile
from zoo.segments import TrainingState, begin_segment, capture, restore, set_statistics


def through_json(state):
    return TrainingState.from_dict(json.loads(json.dumps(state.to_dict())))


def make_model(normalize=True):
    env = VecMonitor(DummyVecEnv([lambda: make_gym_env("CartPole-v1")] * 2))
    model = NPG("MlpPolicy", VecNormalize(env) if normalize else env, n_steps=32, seed=0)
    model.set_logger(Logger(None, []))
    return model


def test_numbers_keep_their_types():
    """A mean of float32 returns differs from that of the same returns as Python's floats."""
    metrics = {"a": np.float32(0.1), "b": 3, "c": 0.1, "d": np.float64(0.1), "e": "why"}
    state = TrainingState(
        num_timesteps=5,
        best_mean_return=-np.inf,
        recent_episodes=[{"r": np.float32(0.1), "l": np.int32(7), "t": 0.25}],
        recent_successes=[np.bool_(True), False],
        metrics=metrics | {"image": object()},
        metrics_excluded={"b": ("tensorboard",), "c": None},
    )
    read = through_json(state)
    assert read.metrics == metrics
    assert [type(value) for value in read.metrics.values()] == [
        *(np.float32, int, float, np.float64, str)
    ]
    assert {key: type(value) for key, value in read.recent_episodes[0].items()} == {
        "r": np.float32,
        "l": np.int32,
        "t": float,
    }
    assert read.recent_successes == [True, False]
    assert read.metrics_excluded == {"b": ["tensorboard"], "c": None}
    assert read.best_mean_return == -np.inf


@pytest.mark.parametrize(
    "values",
    [
        [],
        {"surprise": 1},
        {"num_timesteps": "many"},
        {"num_timesteps": -1},
        {"segment": None},
        {"counters": []},
        {"recent_episodes": {}},
        {"metrics": {"a": {"numpy": "nonsense", "value": 1}}},
    ],
)
def test_state_of_something_else_is_refused(values):
    with pytest.raises(RunFolderError, match="Start a new run"):
        TrainingState.from_dict(values)


def test_captured_state_can_be_restored():
    model = make_model().learn(256)
    model.logger.record("train/kept", np.float32(0.3), exclude=("csv",))
    model.logger.record("train/reason", "none")
    boundary = capture(model, iteration=4, elapsed_seconds=100.0)
    other = make_model()
    restore(other, through_json(boundary.state))
    assert other._n_updates == model._n_updates == 4
    assert other.n_skipped_updates == model.n_skipped_updates
    assert list(other.ep_info_buffer or ()) == []  # `learn` makes it
    assert other.logger.name_to_value == model.logger.name_to_value
    assert other.logger.name_to_excluded["train/kept"] == ("csv",)
    set_statistics(other, AgentFile({}, boundary.statistics, {}))
    np.testing.assert_array_equal(other.env.obs_rms.mean, model.env.obs_rms.mean)


def test_captured_state_does_not_move_on():
    model = make_model().learn(128)
    boundary = capture(model)
    before = json.dumps(boundary.state.to_dict())
    count = float(boundary.statistics["obs.count"])
    model.learn(128, reset_num_timesteps=False)
    assert json.dumps(boundary.state.to_dict()) == before
    assert float(boundary.statistics["obs.count"]) == count < float(model.env.obs_rms.count)


def test_counter_that_is_missing_is_named():
    state = TrainingState(counters={"_n_updates": 1})
    with pytest.raises(RunFolderError, match="does not hold '_episode_num'"):
        restore(make_model(), state)


def test_normaliser_must_be_on_both_sides():
    with pytest.raises(RunFolderError, match="holds no normaliser"):
        set_statistics(make_model(), AgentFile({}, None, {}))
    with pytest.raises(RunFolderError, match="holds a normaliser"):
        set_statistics(make_model(normalize=False), AgentFile({}, {}, {}))


def test_segment_begins_the_same_whatever_came_before():
    fresh, used = make_model(normalize=False), make_model(normalize=False).learn(200)
    for model in (fresh, used):
        begin_segment(model, seed=5, segment=2)
    np.testing.assert_array_equal(fresh._last_obs, used._last_obs)
    assert used._last_episode_starts.all()
    for _ in range(50):
        action = fresh.action_space.sample()
        assert action == used.action_space.sample()
        mine, theirs = (model.env.step([action, 0]) for model in (fresh, used))
        np.testing.assert_array_equal(mine[0], theirs[0])
    begin_segment(used, seed=5, segment=3)
    begin_segment(fresh, seed=5, segment=2)
    assert not np.array_equal(fresh._last_obs, used._last_obs)
