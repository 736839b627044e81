"""Names and units of Gymnasium's classic control tasks, which have no model to read them from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["ACTIONS", "OBSERVATIONS"]

_Table = Mapping[str, Sequence[tuple[str, str]]]

_ROOM = "gymnasium.envs.classic_control."
_CAR_STATE = (("car_position", "1"), ("car_velocity", "1"))

#: (name, unit) by the class of the environment.
OBSERVATIONS: _Table = {
    _ROOM + "acrobot.AcrobotEnv": (
        ("link1_cos", "1"),
        ("link1_sin", "1"),
        ("link2_cos", "1"),
        ("link2_sin", "1"),
        ("link1_angular_velocity", "rad/s"),
        ("link2_angular_velocity", "rad/s"),
    ),
    _ROOM + "cartpole.CartPoleEnv": (
        ("cart_position", "m"),
        ("cart_velocity", "m/s"),
        ("pole_angle", "rad"),
        ("pole_angular_velocity", "rad/s"),
    ),
    _ROOM + "continuous_mountain_car.Continuous_MountainCarEnv": _CAR_STATE,
    _ROOM + "mountain_car.MountainCarEnv": _CAR_STATE,
    _ROOM + "pendulum.PendulumEnv": (
        ("pendulum_cos", "1"),
        ("pendulum_sin", "1"),
        ("pendulum_angular_velocity", "rad/s"),
    ),
}

#: (name, unit) of each element, or of each choice of a Discrete action.
ACTIONS: _Table = {
    _ROOM + "acrobot.AcrobotEnv": (
        ("torque_-1", "N·m"),
        ("torque_0", "N·m"),
        ("torque_+1", "N·m"),
    ),
    _ROOM + "cartpole.CartPoleEnv": (("push_left", ""), ("push_right", "")),
    _ROOM + "continuous_mountain_car.Continuous_MountainCarEnv": (("engine_force", "1"),),
    _ROOM + "mountain_car.MountainCarEnv": (("push_left", ""), ("no_push", ""), ("push_right", "")),
    _ROOM + "pendulum.PendulumEnv": (("pendulum_torque", "N·m"),),
}
