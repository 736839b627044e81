"""Stepping together must give the numbers of stepping one by one, bit for bit."""

from __future__ import annotations

import functools
import itertools
import threading

import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv

import zoo.mujoco_vec_env
from agents.errors import ConfigError
from hub.env_ids import MUJOCO_TASKS
from hub.gym_env import make_gym_env
from zoo.agent_file import load_agent_file
from zoo.mujoco_tasks import OneByOne
from zoo.mujoco_tasks.planar import PlanarRunner
from zoo.mujoco_vec_env import MujocoVecEnv
from zoo.train import main

IDS = [f"{task}-v{v}" for task in MUJOCO_TASKS for v in (4, 5) if (task, v) != ("Pusher", 4)]
N_ENVS = 3


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("env_id", IDS)
def test_it_equals_gymnasium_bit_for_bit(env_id, num_threads):
    """Long enough for the episodes of Hopper and Walker2d to end several times."""
    together = MujocoVecEnv(env_id, N_ENVS, num_threads=num_threads)
    one_by_one = DummyVecEnv([functools.partial(make_gym_env, env_id)] * N_ENVS)
    for env in (together, one_by_one):
        env.seed(5)
    np.testing.assert_array_equal(together.reset(), one_by_one.reset())
    rng = np.random.default_rng(0)
    space = together.action_space
    n_ends = 0
    for _ in range(120):
        actions = rng.uniform(space.low, space.high, (N_ENVS, *space.shape)).astype(np.float32)
        mine, theirs = together.step(actions), one_by_one.step(actions)
        for ours, reference in zip(mine[:3], theirs[:3], strict=True):
            np.testing.assert_array_equal(ours, reference)
            assert ours.dtype == reference.dtype
        for info, reference in zip(mine[3], theirs[3], strict=True):
            assert info["TimeLimit.truncated"] == reference["TimeLimit.truncated"]
            if "terminal_observation" in reference:
                n_ends += 1
                np.testing.assert_array_equal(
                    info["terminal_observation"], reference["terminal_observation"]
                )
            assert ("terminal_observation" in info) == ("terminal_observation" in reference)
    assert n_ends > 0 or env_id.split("-")[0] in (
        *("Ant", "HalfCheetah", "HumanoidStandup", "Swimmer"),
    )
    together.close()
    one_by_one.close()


@pytest.mark.parametrize(
    ("env_id", "env_kwargs"),
    [
        ("Walker2d-v4", {"terminate_when_unhealthy": False}),
        ("Walker2d-v5", {"terminate_when_unhealthy": False, "healthy_reward": 2.0}),
        ("Hopper-v4", {"exclude_current_positions_from_observation": False}),
        ("HalfCheetah-v5", {"ctrl_cost_weight": 0.5, "forward_reward_weight": 2.0}),
        ("Ant-v4", {"use_contact_forces": True, "healthy_z_range": (0.5, 0.8)}),
        ("Ant-v5", {"include_cfrc_ext_in_observation": False, "main_body": "torso"}),
        ("Ant-v5", {"terminate_when_unhealthy": False, "forward_reward_weight": 0.3}),
        ("Humanoid-v4", {"terminate_when_unhealthy": False}),
        ("Humanoid-v4", {"exclude_current_positions_from_observation": False}),
        ("Humanoid-v5", {"include_cinert_in_observation": False, "contact_cost_weight": 1e-3}),
        ("HumanoidStandup-v5", {"include_cvel_in_observation": False, "impact_cost_weight": 1.0}),
    ],
)
def test_arguments_count(env_id, env_kwargs):
    together = MujocoVecEnv(env_id, 2, env_kwargs)
    one_by_one = DummyVecEnv([functools.partial(make_gym_env, env_id, env_kwargs)] * 2)
    for env in (together, one_by_one):
        env.seed(1)
        env.reset()
    actions = np.full((2, *together.action_space.shape), 0.7, dtype=np.float32)
    for _ in range(60):
        mine, theirs = together.step(actions), one_by_one.step(actions)
        for ours, reference in zip(mine[:3], theirs[:3], strict=True):
            np.testing.assert_array_equal(ours, reference)
    together.close()
    one_by_one.close()


def test_a_time_limit_is_told_from_an_end():
    env = MujocoVecEnv("Reacher-v4", 2)
    env.seed(0)
    env.reset()
    actions = np.zeros((2, 2), dtype=np.float32)
    for _ in range(49):
        assert not env.step(actions)[2].any()
    _, _, dones, infos = env.step(actions)
    assert dones.all()
    assert [info["TimeLimit.truncated"] for info in infos] == [True, True]
    assert not env.step(actions)[2].any()
    env.close()


def test_other_environments_are_refused():
    with pytest.raises(ConfigError, match=r"^CartPole-v1 is not one of Gymnasium's MuJoCo tasks"):
        MujocoVecEnv("CartPole-v1", 1)


def test_attributes_and_methods_reach_gymnasium():
    env = MujocoVecEnv("Hopper-v4", 2)
    assert env.get_attr("frame_skip") == [4, 4]
    assert env.get_attr("render_mode") == [None, None]
    env.reset()
    assert [state.shape for state in env.env_method("state_vector")] == [(12,), (12,)]
    with pytest.raises(AttributeError, match="cannot be set"):
        env.set_attr("frame_skip", 5)
    assert env.env_is_wrapped(object) == [False, False]
    env.close()


def test_it_trains_as_gymnasium_one_by_one_does(tmp_path):
    """The same seed gives the same run, whichever way the same environments are stepped."""
    settings = ["--algo", "npg", "--env", "Hopper-v4", "--seed", "2", "-n", "2048", "-P"]
    settings += ["--hyperparams", "n_steps=32", "--eval-freq", "0"]
    weights = []
    for backend in ("mujoco", "dummy"):
        folder = tmp_path / backend
        assert main([*settings, "--vec-env", backend, "-f", str(folder)]) == 0
        run = folder / "npg" / "Hopper-v4_1"
        weights.append(load_agent_file(run / "Hopper-v4.zip").parameters["policy"])
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_threads_are_taken_only_where_they_pay(monkeypatch):
    monkeypatch.setattr(zoo.mujoco_vec_env, "_available_cores", lambda: 4)
    tasks = {"InvertedPendulum-v4": 2, "Pusher-v5": 2, "Humanoid-v4": 32}
    numbers = {}
    for env_id, n_envs in tasks.items():
        before = threading.active_count()
        env = MujocoVecEnv(env_id, n_envs)
        numbers[env_id] = 1 + threading.active_count() - before
        env.close()
    assert numbers == {"InvertedPendulum-v4": 1, "Pusher-v5": 1, "Humanoid-v4": 4}


def test_physics_alone_pays_for_a_thread_sooner_than_gymnasium_s_steps(monkeypatch):
    monkeypatch.setattr(zoo.mujoco_vec_env, "_available_cores", lambda: 4)
    seconds = itertools.cycle([0.0, 20e-6])  # before and after each step of the physics
    monkeypatch.setattr(zoo.mujoco_vec_env.time, "perf_counter", lambda: next(seconds))
    envs = [make_gym_env("Reacher-v4").unwrapped] * 16  # 320 µs
    physics = PlanarRunner([make_gym_env("HalfCheetah-v4").unwrapped], None)
    assert zoo.mujoco_vec_env._threads_that_pay(envs, physics) == 2
    assert zoo.mujoco_vec_env._threads_that_pay(envs, OneByOne(envs, None)) == 1
