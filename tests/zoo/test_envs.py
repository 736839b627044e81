import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env as sb3_make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

import zoo.envs
from agents.errors import ConfigError, UnknownName
from hub.gym_env import make_gym_env
from zoo.envs import choose_backend, make_vec_env, parity_note
from zoo.finite_check import FiniteCheck
from zoo.mujoco_vec_env import MujocoVecEnv


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
