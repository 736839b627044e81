"""Where the time of a training goes, part by part, in microseconds per environment step."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from stable_baselines3.common.vec_env import VecEnv

__all__ = ["PARTS", "time_parts"]

PARTS = ("mj_step", "environments", "rollout", "policy update", "critic update", "rest")


def time_parts(
    make_model: Callable[[Callable[[VecEnv], VecEnv]], Any], n_timesteps: int
) -> dict[str, float]:
    """Return what each of :data:`PARTS` takes in a training on one thread.

    ``mj_step`` is all stepping of the physics, for the humanoids with the contact forces that
    Gymnasium computes; ``environments`` are observations, rewards and resets; ``rollout`` is
    acting, normalising, callbacks and advantages; ``rest`` is logging and the like.

    :param make_model: makes the agent, NPG or TRPO; it is handed what to wrap its bare
        :class:`zoo.mujoco_vec_env.MujocoVecEnv` in.
    :param n_timesteps: how long to train.
    """
    seconds: defaultdict[str, float] = defaultdict(float)

    def timed(function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = function(*args, **kwargs)
            seconds[part] += time.perf_counter() - start
            return result

        return call

    def watched(venv: Any) -> Any:
        physics = venv._task._physics
        physics.advance = timed(physics.advance, "physics")
        venv.step_wait = timed(venv.step_wait, "stepping")
        return venv

    model = make_model(watched)
    for method, part in (
        ("collect_rollouts", "collecting"),
        ("_update_policy", "policy update"),
        ("_update_critic", "critic update"),
    ):
        setattr(model, method, timed(getattr(model, method), part))
    model.learn(2 * model.n_steps * model.n_envs)  # what happens only once is left out
    seconds.clear()
    before = model.num_timesteps
    timed(model.learn, "all")(n_timesteps, reset_num_timesteps=False)
    n_steps = model.num_timesteps - before
    micro = {part: 1e6 * value / n_steps for part, value in seconds.items()}
    updates = micro["policy update"] + micro["critic update"]
    return {
        "mj_step": micro["physics"],
        "environments": micro["stepping"] - micro["physics"],
        "rollout": micro["collecting"] - micro["stepping"],
        "policy update": micro["policy update"],
        "critic update": micro["critic update"],
        "rest": micro["all"] - micro["collecting"] - updates,
    }
