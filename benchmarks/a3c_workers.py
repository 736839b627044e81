"""``python -m benchmarks.a3c_workers``: how much faster A3C is with more workers.

Two tasks: one whose steps are arithmetic, so that workers share the cores, and one whose steps are
waiting (a robot, a simulator elsewhere), so that any number of cores will do. Wall-clock rates are
taken between the first and the last segment, without the start of the processes; the processor
time of learner and workers is taken with them, which says what a machine with more cores can do.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from stable_baselines3.common.callbacks import BaseCallback

from agents import A3C
from benchmarks.measure import save
from hub.gym_env import make_gym_env

ENV_ID = "Walker2d-v4"
WAIT_SECONDS = 0.002
N_WORKERS = (1, 2, 4)


class Waiting(gym.Wrapper[Any, Any, Any, Any]):
    """Takes two milliseconds more for every step, and no processor."""

    def step(self, action: Any) -> Any:
        """Wait, then step."""
        time.sleep(WAIT_SECONDS)
        return super().step(action)


def make_task(*, waiting: bool) -> gym.Env[Any, Any]:
    """Return the environment of a worker."""
    env = make_gym_env(ENV_ID)
    return Waiting(env) if waiting else env


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class _Clock(BaseCallback):
    """Reads the clocks when the first and when the last segment is there."""

    def __init__(self, n_timesteps: int) -> None:
        super().__init__()
        self._n_timesteps = n_timesteps
        self._start: tuple[int, float, list[float]] | None = None
        self.result: dict[str, float] = {}

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        agent: Any = self.model
        n_warm = self._n_timesteps // 5
        pids = [os.getpid(), *agent.worker_pids]
        if self._start is None and agent.num_timesteps >= n_warm:
            processor = [_processor_seconds(pid) for pid in pids]
            self._start = (agent.num_timesteps, time.perf_counter(), processor)
        # Before the last segments: a worker that has nothing left to do would spoil the rate.
        elif self._start and not self.result and agent.num_timesteps >= 0.95 * self._n_timesteps:
            n_start, start, before = self._start
            n_steps = agent.num_timesteps - n_start
            spent = [_processor_seconds(p) - b for p, b in zip(pids, before, strict=True)]
            self.result = {
                "steps_per_second": n_steps / (time.perf_counter() - start),
                "learner_processor_us_per_step": 1e6 * spent[0] / n_steps,
                "workers_processor_us_per_step": 1e6 * sum(spent[1:]) / n_steps,
            }


def measure(n_workers: int, *, waiting: bool, n_timesteps: int) -> dict[str, float]:
    """Train once and return the rates."""
    make = functools.partial(make_task, waiting=waiting)
    agent = A3C(
        "MlpPolicy", make(), n_workers=n_workers, worker_env=make, n_steps=32, seed=0, device="cpu"
    )
    clock = _Clock(n_timesteps)
    agent.learn(n_timesteps, callback=clock)
    return clock.result


def main() -> int:
    """Measure, save and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the length of a measurement")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, list[dict[str, float]]] = {}
    for _ in range(options.repeats):
        for waiting, n_timesteps in ((False, 30_000), (True, 6_000)):
            for n_workers in N_WORKERS:
                name = f"{'waiting' if waiting else 'arithmetic'}, {n_workers} workers"
                n = int(n_timesteps * options.scale)
                rows.setdefault(name, []).append(measure(n_workers, waiting=waiting, n_timesteps=n))
                print(name, rows[name][-1], file=sys.stderr, flush=True)
    print(save("a3c_workers", {"env_id": ENV_ID, "wait_seconds": WAIT_SECONDS, "rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
