import warnings

import gymnasium
import numpy as np
import pytest

from agents.errors import ConfigError, MissingDependency
from hub.gym_env import env_arguments, make_gym_env


def test_v4_is_made_without_advice_to_upgrade():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = make_gym_env("InvertedPendulum-v4")
    assert env.spec.id == "InvertedPendulum-v4"


def test_arguments_reach_the_environment():
    env = make_gym_env("Hopper-v4", {"reset_noise_scale": 0.0, "max_episode_steps": 3})
    obs, _ = env.reset(seed=0)
    np.testing.assert_array_equal(obs, [1.25, *[0.0] * 10])
    ends = [env.step(np.zeros(3, dtype=np.float32))[3] for _ in range(3)]
    assert ends == [False, False, True]


@pytest.mark.parametrize(
    ("env_id", "kwargs", "allowed"),
    [
        ("CartPole-v1", {"camera_id": 1}, "Allowed: sutton_barto_reward, max_episode_steps."),
        ("CartPole-v1", {"frame_skip": 5}, "Allowed: sutton_barto_reward, max_episode_steps."),
        ("Hopper-v4", {"forward_reward": 1.0}, "Allowed: forward_reward_weight, ctrl_cost_weight"),
        ("Hopper-v5", {"xml_file": "no_such.xml"}, "Allowed: xml_file, frame_skip"),
    ],
)
def test_refused_arguments_are_named_with_what_is_allowed(env_id, kwargs, allowed):
    with pytest.raises(ConfigError) as raised:
        make_gym_env(env_id, kwargs)
    (name, value), message = next(iter(kwargs.items())), str(raised.value)
    assert message.startswith(f"{env_id} refuses the environment arguments {name}={value!r}: ")
    assert allowed in message
    assert "\n" not in message


def test_env_arguments():
    assert env_arguments("CartPole-v1") == ["sutton_barto_reward", "max_episode_steps"]
    assert "healthy_z_range" in env_arguments("Hopper-v4")


def test_missing_package_of_an_environment(monkeypatch):
    def refuse(*args, **kwargs):
        raise gymnasium.error.DependencyNotInstalled("Box2D is not installed")

    monkeypatch.setattr(gymnasium, "make", refuse)
    with pytest.raises(MissingDependency, match=r"LunarLander-v3 needs a package .* Box2D"):
        make_gym_env("LunarLander-v3")
