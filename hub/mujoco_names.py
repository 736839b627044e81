"""Names and units of MuJoCo tasks, read from the model and checked against the simulation.

An observation of Gymnasium's tasks is a row of blocks (joint positions, joint velocities, body
inertias …). Each way to compose one is tried after a few steps of the environment; the way that
gives the observation number by number names it. A task that no way explains stays unnamed, so a
name is never a guess.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import numpy.typing as npt

__all__ = ["name_actions", "name_observation", "simulation"]

Array = npt.NDArray[Any]

# mujoco.mjtJoint and mujoco.mjtTrn, which need not be imported for other tasks.
_FREE, _BALL, _SLIDE, _HINGE = range(4)
_DRIVES_A_JOINT = 0
_MOTOR = 0  # of mjtGain (fixed) and mjtBias (none)

# What Gymnasium's tasks limit velocities and contact forces to.
_LIMITS = (np.inf, 10.0, 1.0)
_N_STEPS = 3


class Simulation(NamedTuple):
    """MuJoCo's description of a task and its present state."""

    model: Any
    data: Any


class Block(NamedTuple):
    """Some numbers with their names and units."""

    names: list[str]
    units: list[str]
    values: Array

    def part(self, start: int, stop: int | None = None) -> Block:
        """Return some of the numbers."""
        return Block(self.names[start:stop], self.units[start:stop], self.values[start:stop])


_NOTHING = Block([], [], np.zeros(0))


def simulation(env: gym.Env[Any, Any]) -> Simulation | None:
    """Return the simulation inside ``env``, None if it is not one of MuJoCo's."""
    core = env.unwrapped
    model, data = getattr(core, "model", None), getattr(core, "data", None)
    if not all(hasattr(model, name) for name in ("jnt_type", "actuator_trnid", "nq")):
        return None
    return Simulation(model, data)


def name_observation(env: gym.Env[Any, Any]) -> tuple[list[str], list[str]] | None:
    """Return the names and units of a vector observation, None if it cannot be explained."""
    observation, _ = _play(env)
    found = simulation(env)
    if found is None:
        return None
    for blocks in _compositions(found, len(observation)):
        if _explains(blocks, observation):
            names = [name for block in blocks for name in block.names]
            return names, [unit for block in blocks for unit in block.units]
    return None


def name_actions(env: gym.Env[Any, Any]) -> tuple[list[str], list[str], list[str]] | None:
    """Return names, units and joints of the actions, None if they are not the controls themselves.

    A unit such as ``"100 N·m"`` is what an action of 1 exerts: the actuator's gear.
    """
    _, action = _play(env)
    found = simulation(env)
    if found is None or not np.array_equal(action.ravel(), found.data.ctrl.astype(action.dtype)):
        return None
    model = found.model
    names, units, joints = [], [], []
    for index in range(model.nu):
        actuator = model.actuator(index)
        if actuator.trntype[0] != _DRIVES_A_JOINT:
            return None
        joint = int(actuator.trnid[0])
        joints.append(_joint_name(model, joint))
        names.append(actuator.name or joints[-1])
        units.append(_effort(model, index, joint))
    return names, units, joints


def _play(env: gym.Env[Any, Any]) -> tuple[Array, Array]:
    """Return the observation and the action of a step in which everything moves."""
    observation, _ = env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(_N_STEPS):
        action = env.action_space.sample()
        observation, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            break
    return np.asarray(observation), np.asarray(action)


def _effort(model: Any, index: int, joint: int) -> str:
    actuator = model.actuator(index)
    is_motor = actuator.gaintype[0] == _MOTOR and actuator.biastype[0] == _MOTOR
    if not is_motor or model.jnt_type[joint] not in (_SLIDE, _HINGE):
        return ""
    factor = float(actuator.gear[0] * actuator.gainprm[0])
    unit = "N" if model.jnt_type[joint] == _SLIDE else "N·m"
    return unit if factor == 1.0 else f"{factor:g} {unit}"


def _explains(blocks: Sequence[Block], observation: Array) -> bool:
    start = 0
    for block in blocks:
        part = observation[start : start + len(block.values)]
        start += len(block.values)
        clipped = (np.clip(block.values, -limit, limit).astype(part.dtype) for limit in _LIMITS)
        if not any(np.array_equal(part, values) for values in clipped):
            return False
    return True


# --- The ways to compose an observation -----------------------------------------------------------


def _compositions(task: Simulation, n_elements: int) -> Iterator[Sequence[Block]]:
    for slots in (_locomotion(task), _double_pendulum(task), _reacher(task), _pusher(task)):
        for blocks in product(*slots):
            if sum(len(block.values) for block in blocks) == n_elements:
                yield blocks


def _locomotion(task: Simulation) -> list[list[Block]]:
    """State, and what else Ant and Humanoid are told; the place in the world may be left out."""
    position, velocity = _positions(task), _velocities(task)
    further = [_inertias(task), _body_velocities(task), _actuator_forces(task), _contacts(task)]
    sizes = [10, 6, 6, 6]  # of the first body, the world, or of the root's degrees of freedom
    return [
        [position, position.part(1), position.part(2)],
        [velocity],
        *([_NOTHING, block.part(size), block] for block, size in zip(further, sizes, strict=True)),
    ]


def _double_pendulum(task: Simulation) -> list[list[Block]]:
    angles, forces = _positions(task).part(1), _constraint_forces(task)
    cart = _positions(task).part(0, 1)
    return [
        [cart],
        [_turned(angles, "sin", np.sin)],
        [_turned(angles, "cos", np.cos)],
        [_velocities(task)],
        [forces, forces.part(0, 1)],
    ]


def _reacher(task: Simulation) -> list[list[Block]]:
    tip, target = _body_position(task, "fingertip"), _body_position(task, "target")
    angles = _positions(task).part(0, 2)
    offset = Block(
        [f"fingertip_minus_target_{axis}" for axis in "xyz"[: len(tip.values)]],
        tip.units,
        tip.values - target.values if len(tip.values) == len(target.values) else tip.values,
    )
    return [
        [_turned(angles, "cos", np.cos)],
        [_turned(angles, "sin", np.sin)],
        [_positions(task).part(2)],
        [_velocities(task).part(0, 2)],
        [offset, offset.part(0, 2)],
    ]


def _pusher(task: Simulation) -> list[list[Block]]:
    arm = [_positions(task).part(0, 7), _velocities(task).part(0, 7)]
    things = [_body_position(task, name) for name in ("tips_arm", "object", "goal")]
    return [[block] for block in (*arm, *things)]


# --- The blocks -----------------------------------------------------------------------------------

_POSITIONS = {
    _FREE: [("x", "m"), ("y", "m"), ("z", "m"), ("qw", "1"), ("qx", "1"), ("qy", "1"), ("qz", "1")],
    _BALL: [("qw", "1"), ("qx", "1"), ("qy", "1"), ("qz", "1")],
    _SLIDE: [("position", "m")],
    _HINGE: [("angle", "rad")],
}
_TURNING = [("wx", "rad/s"), ("wy", "rad/s"), ("wz", "rad/s")]
_VELOCITIES = {
    _FREE: [("vx", "m/s"), ("vy", "m/s"), ("vz", "m/s"), *_TURNING],
    _BALL: _TURNING,
    _SLIDE: [("velocity", "m/s")],
    _HINGE: [("angular_velocity", "rad/s")],
}
_INERTIA = [
    *((f"inertia_{axes}", "kg·m²") for axes in ("xx", "yy", "zz", "xy", "xz", "yz")),
    *((f"mass_offset_{axis}", "kg·m") for axis in "xyz"),
    ("mass", "kg"),
]
_MOTION = [*_TURNING, ("vx", "m/s"), ("vy", "m/s"), ("vz", "m/s")]
_CONTACT = [
    *((f"contact_torque_{axis}", "N·m") for axis in "xyz"),
    *((f"contact_force_{axis}", "N") for axis in "xyz"),
]


def _positions(task: Simulation) -> Block:
    return _of_joints(task, _POSITIONS, task.data.qpos)


def _velocities(task: Simulation) -> Block:
    return _of_joints(task, _VELOCITIES, task.data.qvel)


def _actuator_forces(task: Simulation) -> Block:
    return _of_joints(task, _forces("actuator"), task.data.qfrc_actuator)


def _constraint_forces(task: Simulation) -> Block:
    return _of_joints(task, _forces("constraint"), task.data.qfrc_constraint)


def _forces(kind: str) -> dict[int, list[tuple[str, str]]]:
    """Return what acts along each degree of freedom."""
    torques = [(f"{kind}_torque_{axis}", "N·m") for axis in "xyz"]
    return {
        _FREE: [*((f"{kind}_force_{axis}", "N") for axis in "xyz"), *torques],
        _BALL: torques,
        _SLIDE: [(f"{kind}_force", "N")],
        _HINGE: [(f"{kind}_torque", "N·m")],
    }


def _inertias(task: Simulation) -> Block:
    return _of_bodies(task, _INERTIA, task.data.cinert)


def _body_velocities(task: Simulation) -> Block:
    return _of_bodies(task, _MOTION, task.data.cvel)


def _contacts(task: Simulation) -> Block:
    return _of_bodies(task, _CONTACT, task.data.cfrc_ext)


def _of_joints(task: Simulation, parts: dict[int, list[tuple[str, str]]], values: Array) -> Block:
    labels = [
        (f"{_joint_name(task.model, joint)}_{part}", unit)
        for joint, kind in enumerate(task.model.jnt_type)
        for part, unit in parts[int(kind)]
    ]
    return Block([name for name, _ in labels], [unit for _, unit in labels], np.array(values))


def _of_bodies(task: Simulation, parts: list[tuple[str, str]], values: Array) -> Block:
    labels = [
        (f"{task.model.body(body).name or f'body{body}'}_{part}", unit)
        for body in range(task.model.nbody)
        for part, unit in parts
    ]
    return Block([name for name, _ in labels], [unit for _, unit in labels], values.ravel().copy())


def _body_position(task: Simulation, name: str) -> Block:
    bodies = [task.model.body(body).name for body in range(task.model.nbody)]
    if name not in bodies:
        return _NOTHING
    position = task.data.xpos[bodies.index(name)]
    return Block([f"{name}_{axis}" for axis in "xyz"], ["m"] * 3, position.copy())


def _turned(angles: Block, name: str, function: np.ufunc) -> Block:
    names = [f"{label.removesuffix('_angle')}_{name}" for label in angles.names]
    return Block(names, ["1"] * len(names), function(angles.values))


def _joint_name(model: Any, joint: int) -> str:
    return model.joint(joint).name or f"joint{joint}"
