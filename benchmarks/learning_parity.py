"""Do our TRPO and sb3-contrib's learn the same? Same task, same hyperparameters, same seeds.

``python -m benchmarks.learning_parity`` trains both on Gymnasium's Walker2d-v4 with RL Zoo's
settings and writes ``benchmarks/results/learning_parity.json`` (training returns of every episode)
and a picture. Runs that are already in the file are not repeated.

For continuous actions sb3-contrib takes the mean of the KL divergence over states *and action
dimensions*; the paper and ours sum over the dimensions. Its ``target_kl`` 0.01 is therefore a bound
of 0.06 in Walker2d's 6 dimensions, and its damping counts 6 times. So ours is run twice: with the
same numbers ("ours, same numbers") and with the same meaning ("ours, same bound").
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import sb3_contrib
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

import agents
from benchmarks.measure import PICTURES, RESULTS
from benchmarks.training_rate import PEER_TRPO as SHARED
from hub.atomic import atomic_write, write_text
from hub.versions import installed_versions
from zoo.envs import make_vec_env

FILE = RESULTS / "learning_parity.json"
N_ENVS = 2
PEER = {"cg_max_steps": 25}
OURS = {"cg_max_iters": 25, "line_search_max_backtracks": 9, "line_search_accept_ratio": 0.0}
N_ACTIONS = 6
SAME_BOUND = {
    "target_kl": N_ACTIONS * SHARED["target_kl"],
    "cg_damping": N_ACTIONS * SHARED["cg_damping"],
}
LIBRARIES = {
    "sb3-contrib": "#d55e00",
    "ours, same numbers": "#56b4e9",
    "ours, same bound": "#0072b2",
}


class Episodes(BaseCallback):
    """Collects ``(timesteps, return)`` of every training episode."""

    def __init__(self) -> None:
        super().__init__()
        self.timesteps: list[int] = []
        self.returns: list[float] = []

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self.timesteps.append(self.num_timesteps)
                self.returns.append(round(float(info["episode"]["r"]), 2))
        return True


def run(library: str, env_id: str, seed: int, n_timesteps: int) -> dict[str, Any]:
    """Train once and return the episodes and the wall time."""
    env = VecNormalize(VecMonitor(make_vec_env(env_id, N_ENVS, seed, "dummy")))
    model: BaseAlgorithm
    if library == "sb3-contrib":
        model = sb3_contrib.TRPO("MlpPolicy", env, seed=seed, device="cpu", **SHARED, **PEER)
    else:
        settings = SHARED | OURS | (SAME_BOUND if library == "ours, same bound" else {})
        model = agents.TRPO("MlpPolicy", env, seed=seed, device="cpu", **settings)
    episodes = Episodes()
    start = time.perf_counter()
    model.learn(n_timesteps, callback=episodes)
    seconds = time.perf_counter() - start
    env.close()
    return {
        "library": library,
        "env_id": env_id,
        "seed": seed,
        "seconds": round(seconds, 1),
        "timesteps": episodes.timesteps,
        "returns": episodes.returns,
    }


def smoothed(entry: dict[str, Any], grid: np.ndarray, window: int = 50) -> np.ndarray:
    """Return the mean of the last ``window`` episodes on a grid of timesteps."""
    returns = np.array(entry["returns"])
    ends = np.searchsorted(entry["timesteps"], grid, side="right")
    return np.array([returns[max(0, end - window) : end].mean() if end else 0.0 for end in ends])


def draw(
    entries: list[dict[str, Any]],
    path: Path,
    n_timesteps: int,
    colors: dict[str, str],
    title: str,
) -> None:
    """Draw every run, one colour per library."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    grid = np.linspace(0, n_timesteps, 200)
    for library, color in colors.items():
        curves = np.array([smoothed(e, grid) for e in entries if e["library"] == library])
        for curve in curves:
            axes.plot(grid / 1e3, curve, color=color, alpha=0.35, linewidth=1)
        mean = curves.mean(axis=0)
        label = f"{library} ({len(curves)} seeds)"
        axes.plot(grid / 1e3, mean, color=color, linewidth=2.5, label=label)
    axes.set_xlabel("environment steps (thousands)")
    axes.set_ylabel("training return, last 50 episodes")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=120)


def main() -> None:
    """Run what is missing, then write results and picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", default="Walker2d-v4")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("-n", "--n-timesteps", type=int, default=300_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    entries = json.loads(FILE.read_text())["runs"] if FILE.is_file() else []
    done = {(e["library"], e["env_id"], e["seed"]) for e in entries}
    for seed in range(args.seeds):
        for library in LIBRARIES:
            if (library, args.env, seed) in done:
                continue
            entries.append(run(library, args.env, seed, args.n_timesteps))
            report = {
                "hyperparameters": SHARED | {"n_envs": N_ENVS},
                "n_timesteps": args.n_timesteps,
                "versions": installed_versions(),
                "runs": entries,
            }
            RESULTS.mkdir(exist_ok=True)
            write_text(FILE, json.dumps(report) + "\n")
            print(f"{library} seed {seed}: {entries[-1]['seconds']} s")
    title = f"TRPO on {args.env}, identical hyperparameters"
    draw(entries, PICTURES / "learning_parity.png", args.n_timesteps, LIBRARIES, title)


if __name__ == "__main__":
    main()
