"""The names: a joint is moved, and the number with its name moves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation, FrameStackObservation, RescaleAction

from hub.control_names import describe_control

_BODIES = ["Ant", "HalfCheetah", "Hopper", "Humanoid", "HumanoidStandup", "InvertedPendulum"]
_BODIES += ["InvertedDoublePendulum", "Reacher", "Swimmer", "Walker2d"]
TASKS = [f"{body}-v{version}" for body in _BODIES for version in (4, 5)] + ["Pusher-v5"]
CLASSIC = ["CartPole-v1", "Pendulum-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Acrobot-v1"]

every_task = pytest.mark.parametrize("env_id", TASKS)


@pytest.fixture
def make() -> Iterator[Any]:
    made: list[gym.Env[Any, Any]] = []

    def make(env_id: str, **kwargs: Any) -> gym.Env[Any, Any]:
        made.append(gym.make(env_id, **kwargs))
        return made[-1]

    yield make
    for env in made:
        env.close()


def _moved(core: Any, qpos: Any, qvel: Any, names: list[str]) -> set[str]:
    """Return the names of the numbers that differ from the initial state's."""
    observations = []
    for state in ((core.init_qpos, core.init_qvel), (qpos, qvel)):
        core.set_state(*(part.copy() for part in state))
        observations.append(core._get_obs())
    return {names[index] for index in np.flatnonzero(observations[0] != observations[1])}


@every_task
def test_a_name_for_every_number(make: Any, env_id: str) -> None:
    env = make(env_id)
    found = describe_control(env)
    assert (
        len(found.observation_names)
        == len(found.observation_units)
        == env.observation_space.shape[0]
    )
    assert len(set(found.observation_names)) == len(found.observation_names)
    assert not any(name.startswith("obs_") for name in found.observation_names)
    assert len(found.action_names) == len(found.action_units) == env.action_space.shape[0]
    assert all(found.observation_units)
    assert all(found.action_units)
    assert found.control_dt == pytest.approx(
        env.unwrapped.model.opt.timestep * env.unwrapped.frame_skip
    )
    assert found.frame_skip == env.unwrapped.frame_skip


@every_task
def test_moving_a_joint_moves_its_number(make: Any, env_id: str) -> None:
    env = make(env_id)
    names = list(describe_control(env).observation_names)
    core: Any = env.unwrapped
    n_named = 0
    for joint in range(core.model.njnt):
        if core.model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_FREE:
            continue
        name = core.model.joint(joint).name
        qpos, qvel = core.init_qpos.copy(), core.init_qvel.copy()
        qpos[core.model.jnt_qposadr[joint]] += 0.01
        own = {f"{name}_{part}" for part in ("angle", "position", "sin", "cos")} & set(names)
        assert own <= _moved(core, qpos, qvel, names)
        rest = {part for part in names if part.endswith(("_angle", "_position", "_sin", "_cos"))}
        assert not (rest - own) & _moved(core, qpos, qvel, names)
        n_named += bool(own)
        qvel[core.model.jnt_dofadr[joint]] += 0.01
        own = {f"{name}_{part}" for part in ("velocity", "angular_velocity")} & set(names)
        rest = {part for part in names if part.endswith("velocity")}
        assert _moved(core, core.init_qpos, qvel, names) & rest == own
    assert n_named >= core.model.nu


@every_task
def test_an_action_drives_the_joint_it_names(make: Any, env_id: str) -> None:
    env = make(env_id)
    found = describe_control(env)
    core: Any = env.unwrapped
    assert len(found.joint_names) == core.model.nu
    for index, (joint, unit) in enumerate(zip(found.joint_names, found.action_units, strict=True)):
        core.set_state(core.init_qpos, core.init_qvel)
        core.data.ctrl[:] = 0.0
        core.data.ctrl[index] = 0.01
        mujoco.mj_forward(core.model, core.data)
        (driven,) = np.flatnonzero(core.data.qfrc_actuator)
        assert core.model.joint(joint).dofadr[0] == driven
        factor, _, symbol = unit.rpartition(" ")
        assert core.data.qfrc_actuator[driven] == pytest.approx(0.01 * float(factor or 1.0))
        is_slide = core.model.joint(joint).type[0] == mujoco.mjtJoint.mjJNT_SLIDE
        assert symbol == ("N" if is_slide else "N·m")


def test_free_bodies(make: Any) -> None:
    env = make("Ant-v5")
    names = list(describe_control(env).observation_names)
    core: Any = env.unwrapped
    for index, name in ((2, "root_z"), (3, "root_qw"), (6, "root_qz")):
        qpos = core.init_qpos.copy()
        qpos[index] += 0.1
        assert name in _moved(core, qpos, core.init_qvel, names)
    for index, name in ((0, "root_vx"), (2, "root_vz"), (3, "root_wx"), (5, "root_wz")):
        qvel = core.init_qvel.copy()
        qvel[index] += 0.1
        assert {part for part in _moved(core, core.init_qpos, qvel, names)} == {name}


def test_humanoid_bodies(make: Any) -> None:
    """A body's numbers: mass, inertia, velocity, forces."""
    env = make("Humanoid-v4")
    env.reset(seed=1)
    core: Any = env.unwrapped
    foot = core.model.body("right_foot").id
    env.action_space.seed(0)
    for _ in range(200):
        observation = env.step(env.action_space.sample())[0]
        if core.data.cfrc_ext[foot][5] > 0.0:  # it touches the ground
            break
    found = describe_control(make("Humanoid-v4"))
    numbers = dict(zip(found.observation_names, observation, strict=True))
    units = dict(zip(found.observation_names, found.observation_units, strict=True))
    assert numbers["right_foot_mass"] == core.model.body_mass[foot]
    assert units["right_foot_mass"] == "kg"
    assert numbers["right_foot_wy"] == core.data.cvel[foot][1]
    assert numbers["right_foot_vx"] == core.data.cvel[foot][3]
    assert numbers["right_foot_contact_force_z"] == core.data.cfrc_ext[foot][5] > 0.0
    knee = core.model.joint("right_knee").dofadr[0]
    assert numbers["right_knee_actuator_torque"] == core.data.qfrc_actuator[knee]
    assert numbers["right_foot_inertia_zz"] == core.data.cinert[foot][2]
    assert numbers["right_foot_mass_offset_x"] == pytest.approx(
        core.model.body_mass[foot] * (core.data.xipos[foot] - core.data.subtree_com[1])[0]
    )


def test_distances(make: Any) -> None:
    env = make("Reacher-v5")
    observation, _ = env.reset(seed=2)
    found = describe_control(make("Reacher-v5"))
    numbers = dict(zip(found.observation_names, observation, strict=True))
    core: Any = env.unwrapped
    tip, target = core.data.body("fingertip").xpos, core.data.body("target").xpos
    assert numbers["fingertip_minus_target_x"] == tip[0] - target[0]
    assert numbers["target_y_position"] == core.data.qpos[3]


@pytest.mark.parametrize(
    ("env_id", "kwargs", "n_names"),
    [
        ("Ant-v4", {"use_contact_forces": True}, 111),
        ("Ant-v5", {"include_cfrc_ext_in_observation": False}, 27),
        ("HalfCheetah-v5", {"exclude_current_positions_from_observation": False}, 18),
        ("Humanoid-v5", {"include_cinert_in_observation": False}, 218),
        ("Humanoid-v5", {"include_cvel_in_observation": False}, 270),
        ("Humanoid-v5", {"include_qfrc_actuator_in_observation": False}, 331),
    ],
)
def test_options_of_a_task(make: Any, env_id: str, kwargs: Any, n_names: int) -> None:
    names = describe_control(make(env_id, **kwargs)).observation_names
    assert len(names) == n_names
    assert not any(name.startswith("obs_") for name in names)


@pytest.mark.parametrize("env_id", CLASSIC)
def test_classic_control(make: Any, env_id: str) -> None:
    env = make(env_id)
    found = describe_control(env)
    assert len(found.observation_names) == env.observation_space.shape[0]
    assert not any(name.startswith("obs_") for name in found.observation_names)
    is_discrete = isinstance(env.action_space, spaces.Discrete)
    n_actions = env.action_space.n if is_discrete else env.action_space.shape[0]
    assert len(found.action_names) == n_actions
    assert not any(name.startswith("action_") for name in found.action_names)
    assert len(found.action_units) == (0 if is_discrete else n_actions)


def test_classic_control_is_true(make: Any) -> None:
    """What the tables say, seen in the environments."""
    env = make("CartPole-v1")
    found = describe_control(env)
    core: Any = env.unwrapped
    env.reset(seed=0)
    core.state = np.array([0.0, 1.0, 0.0, 0.5])
    observation = env.step(found.action_names.index("push_right"))[0]
    numbers = dict(zip(found.observation_names, observation, strict=True))
    assert numbers["cart_position"] == pytest.approx(found.control_dt * 1.0)
    assert numbers["pole_angle"] == pytest.approx(found.control_dt * 0.5)
    assert numbers["cart_velocity"] > 1.0

    env = make("Pendulum-v1")
    found = describe_control(env)
    env.reset(seed=0)
    env.unwrapped.state = np.array([0.3, 0.7])
    numbers = dict(zip(found.observation_names, env.unwrapped._get_obs(), strict=True))
    assert numbers["pendulum_cos"] == pytest.approx(np.cos(0.3))
    assert numbers["pendulum_angular_velocity"] == pytest.approx(0.7)
    assert found.control_dt == 0.05

    env = make("Acrobot-v1")
    found = describe_control(env)
    core = env.unwrapped
    env.reset(seed=0)
    core.state = np.array([0.1, 0.2, 0.3, 0.4])
    numbers = dict(zip(found.observation_names, core._get_ob(), strict=True))
    assert numbers["link2_sin"] == pytest.approx(np.sin(0.2))
    assert numbers["link2_angular_velocity"] == pytest.approx(0.4)
    assert [
        core.AVAIL_TORQUE[found.action_names.index(f"torque_{t}")] for t in ("-1", "0", "+1")
    ] == [-1, 0, 1]


class Unknown(gym.Env[Any, Any]):
    def __init__(self, observation: spaces.Space[Any], action: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = observation, action


def test_unknown_tasks() -> None:
    box = spaces.Box(-1.0, 1.0, (2, 2), np.float32)
    image = spaces.Box(0, 255, (8, 8, 3), np.uint8)
    found = describe_control(Unknown(box, spaces.MultiDiscrete([2, 3])))
    assert list(found.observation_names) == ["obs_0", "obs_1", "obs_2", "obs_3"]
    assert list(found.observation_units) == [""] * 4
    assert list(found.action_names) == ["action_0", "action_1"]
    assert found.control_dt is found.frame_skip is None
    found = describe_control(Unknown(spaces.Dict({"a": box, "i": image}), spaces.Discrete(3)))
    assert found.observation_names == {"a": ["a_0", "a_1", "a_2", "a_3"], "i": []}
    assert found.observation_units == {"a": [""] * 4, "i": []}
    assert list(found.action_names) == ["action_0", "action_1", "action_2"]
    found = describe_control(Unknown(spaces.Discrete(5), spaces.MultiBinary(2)))
    assert list(found.observation_names) == ["obs_0"]


def test_wrappers_that_change_numbers_take_the_names_away(make: Any) -> None:
    """A wrong name is worse than none."""
    stacked = FlattenObservation(FrameStackObservation(make("Walker2d-v5"), 2))
    found = describe_control(stacked)
    assert list(found.observation_names)[:2] == ["obs_0", "obs_1"]
    assert found.action_names[0] == "thigh_joint"
    half = np.array([0.5], dtype=np.float32)
    found = describe_control(RescaleAction(make("InvertedPendulum-v5"), -half, half))
    assert found.observation_names[0] == "slider_position"
    assert list(found.action_names) == ["action_0"]
    assert not found.joint_names
    doubled = gym.wrappers.TransformObservation(
        make("Hopper-v5"), lambda values: 2 * values, make("Hopper-v5").observation_space
    )
    assert next(iter(describe_control(doubled).observation_names)) == "obs_0"
