import warnings

import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env as sb3_make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

import zoo.envs
from agents.errors import ConfigError, MissingDependency, UnknownName
from zoo.envs import choose_backend, env_arguments, make_gym_env, make_vec_env, parity_note
from zoo.finite_check import FiniteCheck
from zoo.mujoco_vec_env import MujocoVecEnv


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
        raise zoo.envs.gymnasium.error.DependencyNotInstalled("Box2D is not installed")

    monkeypatch.setattr(zoo.envs.gymnasium, "make", refuse)
    with pytest.raises(MissingDependency, match=r"LunarLander-v3 needs a package .* Box2D"):
        make_gym_env("LunarLander-v3")


@pytest.mark.parametrize(
    ("backend", "backend_class"), [("dummy", DummyVecEnv), ("subproc", SubprocVecEnv)]
)
def test_environment_i_gets_seed_plus_i(backend, backend_class):
    venv = make_vec_env("InvertedPendulum-v4", 3, 5, backend)
    assert isinstance(venv, FiniteCheck)
    assert isinstance(venv.unwrapped, backend_class)
    obs = venv.reset()
    venv.close()
    env = make_gym_env("InvertedPendulum-v4")
    expected = np.stack([env.reset(seed=5 + i)[0] for i in range(3)])
    np.testing.assert_array_equal(obs, expected)
    theirs = sb3_make_vec_env(lambda: make_gym_env("InvertedPendulum-v4"), 3, seed=5)
    np.testing.assert_array_equal(obs, theirs.reset())


def test_subproc_reports_refused_arguments_in_the_parent():
    with pytest.raises(ConfigError, match="refuses the environment arguments camera_id=1"):
        make_vec_env("CartPole-v1", 2, 0, "subproc", {"camera_id": 1})


def test_envpool_backend():
    pytest.importorskip("envpool")
    from zoo.envpool_vec_env import EnvPoolVecEnv

    venv = make_vec_env("InvertedPendulum-v4", 2, 3, "envpool", n_threads=1)
    assert isinstance(venv, FiniteCheck)
    assert isinstance(venv.unwrapped, EnvPoolVecEnv)
    expected = EnvPoolVecEnv("InvertedPendulum-v4", 2, 3, num_threads=1).reset()
    np.testing.assert_array_equal(venv.reset(), expected)


def test_wrong_names_and_counts():
    with pytest.raises(UnknownName, match=r"Unknown backend 'envpol'\. Did you mean 'envpool'"):
        make_vec_env("InvertedPendulum-v4", 2, 0, "envpol")
    with pytest.raises(UnknownName, match="Did you mean 'InvertedPendulum-v4'"):
        make_vec_env("InvertdPendulum-v4", 2, 0)
    with pytest.raises(ConfigError, match="--n-envs is 0"):
        make_vec_env("InvertedPendulum-v4", 0, 0)


def test_explicit_backend_is_taken_as_it_is():
    for backend in ("dummy", "subproc", "envpool", "mujoco"):
        assert choose_backend(backend, "HumanoidStandup-v4") == backend


def test_auto_steps_gymnasiums_mujoco_tasks_together():
    assert choose_backend("auto", "Walker2d-v4") == "mujoco"
    assert choose_backend("auto", "HumanoidStandup-v5") == "mujoco"
    assert choose_backend("auto", "CartPole-v1") == "dummy"
    venv = make_vec_env("InvertedPendulum-v4", 2, 3, "auto")
    assert isinstance(venv.unwrapped, MujocoVecEnv)


def test_parity_note(monkeypatch):
    pytest.importorskip("envpool")
    assert parity_note("Walker2d-v4") is None
    assert parity_note("CartPole-v1") == (
        "EnvPool's CartPole-v1 has not been compared with Gymnasium's."
    )
    assert "differs from Gymnasium's: 8.1% of the steps" in parity_note("HumanoidStandup-v4")
    monkeypatch.setattr(zoo.envs, "_installed_version", lambda package: "99.0.0")
    assert "installed are 99.0.0 and 99.0.0" in parity_note("Walker2d-v4")
