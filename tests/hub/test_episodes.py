import gymnasium
import numpy as np
import pytest

from agents.errors import EnvironmentFault
from hub.episodes import PlayedEpisode, play_episode
from hub.gym_env import make_gym_env
from zoo.evaluation import evaluate

WEIGHTS = np.random.default_rng(0).normal(size=(17, 6))


def act(observation):
    return np.tanh(observation @ WEIGHTS)


def test_an_episode_is_that_of_the_evaluation_to_the_last_bit():
    expected = evaluate(
        lambda rows: np.stack([act(row) for row in rows]), "HalfCheetah-v4", seeds=[5]
    )
    frames = []
    env = make_gym_env("HalfCheetah-v4")
    played = play_episode(env, act, 5, on_frame=lambda: frames.append(None))
    env.close()
    assert played == PlayedEpisode(expected.returns[0], 1000, ended=True)
    assert len(frames) == 1001


def test_max_steps_cuts_an_episode():
    env = make_gym_env("HalfCheetah-v4")
    played = play_episode(env, act, 0, max_steps=3)
    env.close()
    assert (played.length, played.ended) == (3, False)


def test_rewards_must_be_numbers():
    class Broken(gymnasium.Wrapper):
        def step(self, action):
            return (*self.env.step(action)[:1], np.nan, False, False, {})

    env = Broken(make_gym_env("CartPole-v1"))
    with pytest.raises(
        EnvironmentFault, match="nan as reward at step 1 of the episode with seed 7"
    ):
        play_episode(env, lambda _: 0, 7)
