"""Measure whether EnvPool's MuJoCo tasks are Gymnasium's: ``python -m zoo.envpool_parity``.

``--vec-env auto`` takes EnvPool for the tasks that pass, read from ``envpool_parity.json`` beside
this file; ``--write`` measures anew and rewrites it.

EnvPool's environments cannot be put into a given state, Gymnasium's can. So each environment of
the pool gets a *twin* in Gymnasium, whose state is rebuilt from the pool's observation and which
then receives the same random actions. Observation, reward, and the two ways for an episode to end
are compared at every step.

*Chaos.* Contacts double a difference of rounding every few steps, until two bodies with the same
physics part. What is to be compared is the step, not its thousandth repetition: where the
observation holds the whole state, the twin follows the pool's state after every step
(:data:`_FOLLOWED`). The other tasks have short episodes without much chaos, and their twins run
free from the first step to the last, a stricter comparison.

*Tolerance.* EnvPool carries a MuJoCo of its own (3.6.0 in EnvPool 1.2.5). With mujoco 3.6.0 under
Gymnasium too, all 21 observations agree to 1e-12 and all rewards to float32's rounding, so the
formulas are the same; what remains is what changed in MuJoCo between the two versions. That is
least where the solver converges and most in Humanoid and HumanoidStandup, whose solver (PGS, 50
iterations) stops before it does: mostly 1e-6 of the scale, some percent at rare contacts. A step is
*apart* if its observation or reward differs by more than :data:`TOLERANCE` of the component's
scale, which is the largest value that it took, and at least 1. That is a fiftieth of the smallest
noise with which these tasks draw their own initial states (0.005), too little for an agent to learn
from. A task passes if at most one step in a hundred is apart (:data:`MAX_SHARE_APART`), none by
more than a tenth of the scale (:data:`MAX_DIFFERENCE`), and all episodes end alike. The agent is
evaluated on Gymnasium in any case.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from hub.env_ids import MUJOCO_TASKS
from hub.gym_env import make_gym_env
from zoo.cli import execute, make_parser
from zoo.envpool_vec_env import EnvPoolVecEnv

__all__ = ["PARITY_FILE", "TOLERANCE", "Parity", "main", "measure", "measured_ids"]

TOLERANCE = 1e-4
MAX_SHARE_APART = 0.01
MAX_DIFFERENCE = 0.1
PARITY_FILE = Path(__file__).with_suffix(".json")
_EXCLUDED = {"Pusher-v4": "Gymnasium's needs mujoco<3"}
_PACKAGES = ("envpool", "gymnasium", "mujoco")

# Tasks that observe their whole state, and how many leading coordinates (x, y) are left out:
# these move the body over an endless plane and change nothing else.
_HIDDEN_COORDINATES = {
    "Ant": 2,
    "HalfCheetah": 1,
    "Hopper": 1,
    "Humanoid": 2,
    "HumanoidStandup": 2,
    "InvertedPendulum": 0,
    "Swimmer": 2,
    "Walker2d": 1,
}
# Hopper and Walker2d are not among them: they clip the velocities that they observe.
_FOLLOWED = ("Ant", "HalfCheetah", "Humanoid", "HumanoidStandup", "InvertedPendulum", "Swimmer")


@dataclass(frozen=True)
class Parity:
    """How far EnvPool's version of a task is from Gymnasium's.

    :param max_obs_diff: largest difference of an observed component, relative to its scale.
    :param max_reward_diff: largest difference of a reward, relative to it if it is above 1.
    :param share_apart: share of the steps that differ by more than :data:`TOLERANCE`.
    :param flags_equal: whether every episode ended at the same step and in the same way.
    :param n_episodes: episodes that ended.
    :param n_steps: steps compared.
    :param twin_follows: ``"every step"`` or ``"every episode"``.
    """

    max_obs_diff: float
    max_reward_diff: float
    share_apart: float
    flags_equal: bool
    n_episodes: int
    n_steps: int
    twin_follows: str

    @property
    def reason(self) -> str | None:
        """Why the task does not pass, or None if it does."""
        if not self.flags_equal:
            return "episodes end at different steps or in different ways"
        parts = {"observations": self.max_obs_diff, "rewards": self.max_reward_diff}
        over = [f"{what} by {diff:.0e}" for what, diff in parts.items() if diff > MAX_DIFFERENCE]
        if over:
            return f"{' and '.join(over)} of their scale (at most {MAX_DIFFERENCE:.0e})"
        if self.share_apart > MAX_SHARE_APART:
            return (
                f"{self.share_apart:.1%} of the steps by more than {TOLERANCE:.0e} of the scale "
                f"(at most {MAX_SHARE_APART:.0%})"
            )
        return None

    def as_json(self) -> dict[str, Any]:
        """Return what ``envpool_parity.json`` keeps of it."""
        return {
            "ok": self.reason is None,
            "reason": self.reason,
            "max_obs_diff": float(f"{self.max_obs_diff:.2g}"),
            "max_reward_diff": float(f"{self.max_reward_diff:.2g}"),
            "share_apart": float(f"{self.share_apart:.2g}"),
            "flags_equal": self.flags_equal,
            "n_episodes": self.n_episodes,
            "n_steps": self.n_steps,
            "twin_follows": self.twin_follows,
        }


class _Twin:
    """An environment of Gymnasium that follows one of EnvPool's.

    :param env_id: the task.
    :param obs: the first observation of EnvPool's environment.
    """

    def __init__(self, env_id: str, obs: np.ndarray) -> None:
        self._task = env_id.split("-")[0]
        self.env = make_gym_env(env_id)
        self._mujoco_env: Any = self.env.unwrapped
        self.start_episode(obs)

    def start_episode(self, obs: np.ndarray) -> None:
        """Take the state that ``obs`` was observed in, with nothing left of the last episode."""
        self.env.reset(seed=0)  # the time limit starts anew
        qpos, qvel = _STATE_READERS.get(self._task, self._read_slices)(self._mujoco_env, obs)
        mujoco.mj_resetData(self._mujoco_env.model, self._mujoco_env.data)
        self._mujoco_env.set_state(qpos, qvel)

    def follow(self, obs: np.ndarray) -> None:
        """Take over the positions and velocities of ``obs`` within an episode.

        The solver's starting point and the quantities that MuJoCo computes at the beginning of a
        step stay the twin's own, as they do in the pool.
        """
        if self._task in _FOLLOWED:
            data = self._mujoco_env.data
            data.qpos[:], data.qvel[:] = self._read_slices(self._mujoco_env, obs)

    def observe(self) -> np.ndarray:
        """Return what Gymnasium observes in the present state."""
        obs: np.ndarray = self._mujoco_env._get_obs()
        return obs

    def _read_slices(self, env: Any, obs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        n_hidden = _HIDDEN_COORDINATES[self._task]
        n_seen = env.model.nq - n_hidden
        qpos = np.concatenate([env.data.qpos[:n_hidden], obs[:n_seen]])
        return qpos, obs[n_seen : n_seen + env.model.nv].copy()


def _read_reacher(env: Any, obs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cos, sin, target, velocity = obs[0:2], obs[2:4], obs[4:6], obs[6:8]
    return np.concatenate([np.arctan2(sin, cos), target]), np.concatenate([velocity, np.zeros(2)])


def _read_double_pendulum(env: Any, obs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cart, sin, cos, velocity = obs[:1], obs[1:3], obs[3:5], obs[5:8]
    return np.concatenate([cart, np.arctan2(sin, cos)]), velocity.copy()


def _read_pusher(env: Any, obs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solve for the sliding joints of object and goal, whose positions depend on them linearly."""
    qpos, qvel = env.init_qpos.copy(), np.zeros(env.model.nv)
    qpos[:7], qvel[:7] = obs[:7], obs[7:14]

    def places(slides: np.ndarray) -> np.ndarray:
        qpos[-4:] = slides
        env.set_state(qpos, qvel)
        return np.concatenate([env.get_body_com("object"), env.get_body_com("goal")])

    origin = places(np.zeros(4))
    directions = np.stack([places(unit) - origin for unit in np.eye(4)], axis=1)
    qpos[-4:] = np.linalg.lstsq(directions, obs[17:23] - origin, rcond=None)[0]
    return qpos, qvel


_STATE_READERS: dict[str, Callable[[Any, np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "InvertedDoublePendulum": _read_double_pendulum,
    "Pusher": _read_pusher,
    "Reacher": _read_reacher,
}


def measured_ids() -> list[str]:
    """Return the ids that are compared: v4 and v5 of each MuJoCo task, where both have it."""
    ids = [f"{task}-v{version}" for task in MUJOCO_TASKS for version in (4, 5)]
    return [env_id for env_id in ids if env_id not in _EXCLUDED]


def measure(env_id: str, n_envs: int = 4, n_steps: int = 1000, seed: int = 0) -> Parity:
    """Compare EnvPool's version of a task with Gymnasium's under random actions.

    :param env_id: one of :func:`measured_ids`.
    :param n_envs: environments, each compared.
    :param n_steps: steps of each environment; episodes follow each other.
    :param seed: of the initial states and the actions.
    """
    pool = EnvPoolVecEnv(env_id, n_envs, seed, num_threads=1)
    obs: Any = pool.reset()
    twins = [_Twin(env_id, first) for first in obs]
    pool.action_space.seed(seed)
    obs_diff, obs_scale = np.zeros(obs.shape[1]), np.ones(obs.shape[1])
    reward_diff, n_episodes, flags_equal, t, n_apart = 0.0, 0, True, 0, 0
    while t < n_steps and flags_equal:
        t += 1
        actions = np.stack([pool.action_space.sample() for _ in range(n_envs)])
        obs, rewards, dones, infos = pool.step(actions)
        for i, twin in enumerate(twins):
            twin_obs, reward, terminated, truncated, _ = twin.env.step(actions[i])
            seen = infos[i].get("terminal_observation", obs[i])
            step_diff = np.abs(seen - twin_obs)
            obs_diff = np.maximum(obs_diff, step_diff)
            obs_scale = np.maximum(obs_scale, np.abs(twin_obs))
            diff = abs(float(reward) - float(rewards[i])) / max(1.0, abs(float(reward)))
            reward_diff = max(reward_diff, diff)
            n_apart += max(float((step_diff / obs_scale).max()), diff) > TOLERANCE
            flags_equal &= (terminated or truncated) == bool(dones[i])
            flags_equal &= (truncated and not terminated) == infos[i]["TimeLimit.truncated"]
            if dones[i]:
                n_episodes += 1
                twin.start_episode(obs[i])
                obs_diff = np.maximum(obs_diff, np.abs(obs[i] - twin.observe()))
            else:
                twin.follow(obs[i])
    pool.close()
    follows = "every step" if env_id.split("-")[0] in _FOLLOWED else "every episode"
    worst = float((obs_diff / obs_scale).max())
    share_apart = n_apart / (t * n_envs)
    return Parity(
        worst, reward_diff, share_apart, bool(flags_equal), n_episodes, t * n_envs, follows
    )


def _run(args: argparse.Namespace) -> None:
    print(
        f"{'task':<28}{'observation':>12}{'reward':>10}{'apart':>8}{'ends':>8}{'episodes':>10}{'steps':>8}"
    )
    tasks = {}
    for env_id in measured_ids():
        parity = measure(env_id)
        tasks[env_id] = parity.as_json()
        ends = "equal" if parity.flags_equal else "differ"
        print(
            f"{env_id:<28}{parity.max_obs_diff:>12.1e}{parity.max_reward_diff:>10.1e}"
            f"{parity.share_apart:>8.2%}{ends:>8}"
            f"{parity.n_episodes:>10}{parity.n_steps:>8}  {parity.reason or 'ok'}",
            flush=True,
        )
    for env_id, reason in _EXCLUDED.items():
        print(f"{env_id:<28}not compared: {reason}")
    if args.write:
        versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
        content = {
            "versions": versions,
            "tolerance": TOLERANCE,
            "max_share_apart": MAX_SHARE_APART,
            "max_difference": MAX_DIFFERENCE,
            "not_compared": _EXCLUDED,
            "tasks": tasks,
        }
        PARITY_FILE.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        print(f"wrote {PARITY_FILE.name}")


def main(argv: Sequence[str] | None = None) -> int:
    """Compare all tasks; returns the exit code."""
    parser = make_parser(
        "envpool_parity",
        "Compare EnvPool's MuJoCo tasks with Gymnasium's, step by step.",
        "example:\n  python -m zoo.envpool_parity --write",
    )
    parser.add_argument("--write", action="store_true", help=f"rewrite {PARITY_FILE.name}")
    return execute(parser, _run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
