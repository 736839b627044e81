import json
import platform

import gymnasium
import numpy as np
import pytest

from agents.errors import ConfigError
from agents.npg import NPG
from hub.gym_env import make_gym_env
from hub.seeding import evaluation_seeds
from zoo.evaluation import (
    Evaluation,
    evaluate,
    evaluation_report,
    one_by_one,
    policy_actor,
    report_json,
)

SEEDS = evaluation_seeds(0, 7)


def balance(observations):
    """Push the cart to where the pole leans."""
    return (observations[:, 2] > 0).astype(int)


def play_alone(env_id, actor, seeds):
    """Play the episodes one after the other, as plainly as possible."""
    returns, lengths = [], []
    for seed in seeds:
        with make_gym_env(env_id) as env:
            observation, _ = env.reset(seed=seed)
            episode, ended = [], False
            while not ended:
                action = actor(observation[None])[0]
                observation, reward, terminated, truncated, _ = env.step(action)
                episode.append(reward)
                ended = terminated or truncated
        returns.append(sum(episode))
        lengths.append(len(episode))
    return returns, lengths


@pytest.mark.parametrize("n_envs", [1, 3, 7, 50])
def test_equals_one_episode_at_a_time(n_envs):
    returns, lengths = play_alone("CartPole-v1", balance, SEEDS)
    ended = []
    result = evaluate(
        *(balance, "CartPole-v1"), seeds=SEEDS, n_envs=n_envs, on_episode=lambda: ended.append(1)
    )
    assert result.seeds == SEEDS
    assert result.returns == returns
    assert result.lengths == lengths
    assert len(ended) == 7
    assert len(set(lengths)) > 1


def test_rewards_are_raw_and_time_limits_count():
    result = evaluate(lambda o: np.zeros((len(o), 1), np.float32), "Pendulum-v1", seeds=SEEDS[:2])
    assert result.lengths == [200, 200]
    zero = [play_alone("Pendulum-v1", lambda o: np.zeros((1, 1), np.float32), [s]) for s in SEEDS]
    assert result.returns == [zero[0][0][0], zero[1][0][0]]
    assert result.mean_return < -500


def test_environment_arguments():
    result = evaluate(balance, "CartPole-v1", seeds=SEEDS, env_kwargs={"max_episode_steps": 5})
    assert result.lengths == [5] * 7


def test_environments_are_closed_after_an_error(monkeypatch):
    closed = []
    monkeypatch.setattr(gymnasium.Wrapper, "close", lambda self: closed.append(self))

    def fail(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        evaluate(fail, "CartPole-v1", seeds=SEEDS, n_envs=3)
    assert len(closed) == 3
    with pytest.raises(ConfigError):
        evaluate(fail, "CartPole-v1", seeds=SEEDS, env_kwargs={"colour": "red"})


def test_deterministic_and_sampled_actions():
    model = NPG("MlpPolicy", "CartPole-v1", seed=0)
    observations = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    mode = policy_actor(model.policy, None, deterministic=True)(observations)
    np.testing.assert_array_equal(mode, model.predict(observations, deterministic=True)[0])
    sampled = policy_actor(model.policy, None, deterministic=False)(observations)
    assert 0 < (sampled != mode).mean() < 1


def test_normaliser_comes_first():
    seen = []

    class Policy:
        def predict(self, observations, state, episode_start, deterministic):
            seen.append(observations)
            return np.zeros(len(observations), int), None

    policy_actor(Policy(), lambda o: o * 2, deterministic=True)(np.ones((1, 4)))
    np.testing.assert_array_equal(seen[0], np.full((1, 4), 2.0))


def test_one_by_one():
    """What acts sees one observation, whatever the batch."""
    seen = []

    def act(observation):
        seen.append(observation)
        return np.full(2, len(seen))

    actions = one_by_one(act)(np.arange(6.0).reshape(3, 2))
    assert [row.tolist() for row in seen] == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    assert actions.tolist() == [[1, 1], [2, 2], [3, 3]]
    one_by_one(act)({"a": np.array([[1.0], [2.0]]), "b": np.array([3, 4])})
    assert [(row["a"].tolist(), row["b"]) for row in seen[3:]] == [([1.0], 3), ([2.0], 4)]


def test_report():
    evaluation = Evaluation([5, 6], [1.0, 4.0], [10, 20])
    report = json.loads(report_json(evaluation_report(evaluation, algo="npg")))
    assert report == evaluation_report(evaluation, algo="npg")
    versions, machine = report.pop("versions"), report.pop("machine")
    assert (machine["system"], machine["architecture"]) == (platform.system(), platform.machine())
    assert machine["processor"]
    assert report == {
        "algo": "npg",
        "mean_return": 2.5,
        "std_return": 1.5,
        "seeds": [5, 6],
        "returns": [1.0, 4.0],
        "lengths": [10, 20],
    }
    assert versions["gymnasium"] == gymnasium.__version__
    assert {"natural-zoo", "python", "torch", "mujoco", "numpy"} < set(versions)
