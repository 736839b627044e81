"""Does the fast path learn as the slow one? Same task, same hyperparameters, same seeds.

``python -m benchmarks.fast_and_slow`` trains NPG and PPO on Walker2d-v4 both ways and writes
``benchmarks/results/fast_and_slow.json`` (training returns of every episode) and a picture. Runs
that are already in the file are not repeated.

The fast way is what ``zoo.train`` does: environments stepped together, actors alone per step,
gradients by hand, statistics updated once per rollout. The slow way steps Gymnasium one by one
behind SB3's ``VecNormalize``, collects with SB3's own method and differentiates automatically; for
PPO it is Stable-Baselines3's class itself.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any
from unittest import mock

import stable_baselines3
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

import agents
from agents.rollout_normalize import RolloutNormalize
from benchmarks.learning_parity import Episodes, draw
from benchmarks.measure import PICTURES, RESULTS
from hub.atomic import write_text
from hub.versions import installed_versions
from zoo.config import resolve_config
from zoo.envs import make_vec_env

FILE = RESULTS / "fast_and_slow.json"
WAYS = {
    "NPG, slow": "#d55e00",
    "NPG, fast": "#0072b2",
    "PPO, slow": "#cc79a7",
    "PPO, fast": "#009e73",
}


class SlowNPG(agents.NPG):
    """NPG with SB3's rollouts."""

    def collect_rollouts(self, *args: Any, **kwargs: Any) -> bool:
        """Collect as SB3 does."""
        return OnPolicyAlgorithm.collect_rollouts(self, *args, **kwargs)


def train(way: str, env_id: str, seed: int, n_timesteps: int, callback: BaseCallback) -> None:
    """Train one way."""
    algo, _, speed = way.partition(", ")
    # PPO's preset for this task has one environment; its default, SB3's settings with 8, uses all
    # that the fast way has.
    config = resolve_config(algo.lower(), env_id, seed=seed, untuned=algo == "PPO")
    fast = speed == "fast"
    venv = make_vec_env(env_id, config.n_envs, seed, "mujoco" if fast else "dummy")
    normalize: dict[str, Any] = config.normalize or {}
    env: Any = VecMonitor(venv)
    env = (
        RolloutNormalize(env, config.agent["n_steps"], **normalize)
        if fast
        else VecNormalize(env, **normalize)
    )
    classes: dict[str, type[BaseAlgorithm]] = {
        "NPG, fast": agents.NPG,
        "NPG, slow": SlowNPG,
        "PPO, fast": agents.PPO,
        "PPO, slow": stable_baselines3.PPO,
    }
    model = classes[way](
        policy=config.policy, env=env, seed=seed, device="cpu", **config.agent_kwargs()
    )
    model.learn(n_timesteps, callback=callback)
    env.close()


def run(way: str, env_id: str, seed: int, n_timesteps: int) -> dict[str, Any]:
    """Train once and return the episodes and the wall time."""
    episodes = Episodes()
    start = time.perf_counter()
    if way == "NPG, slow":  # no network is recognised, so all are differentiated automatically
        with (
            mock.patch("agents.policy_model.actor_mlp", return_value=None),
            mock.patch("agents.critic_values.critic_mlp", return_value=None),
        ):
            train(way, env_id, seed, n_timesteps, episodes)
    else:
        train(way, env_id, seed, n_timesteps, episodes)
    return {
        "library": way,
        "env_id": env_id,
        "seed": seed,
        "seconds": round(time.perf_counter() - start, 1),
        "timesteps": episodes.timesteps,
        "returns": episodes.returns,
    }


def main() -> None:
    """Run what is missing, then write results and picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", default="Walker2d-v4")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("-n", "--n-timesteps", type=int, default=300_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    entries = json.loads(FILE.read_text())["runs"] if FILE.is_file() else []
    done = {(e["library"], e["env_id"], e["seed"]) for e in entries}
    for seed in range(args.seeds):
        for way in WAYS:
            if (way, args.env, seed) in done:
                continue
            entries.append(run(way, args.env, seed, args.n_timesteps))
            report = {"n_timesteps": args.n_timesteps, "versions": installed_versions()}
            RESULTS.mkdir(exist_ok=True)
            write_text(FILE, json.dumps(report | {"runs": entries}) + "\n")
            print(f"{way} seed {seed}: {entries[-1]['seconds']} s")
    draw(entries, PICTURES / "fast_and_slow.png", args.n_timesteps, WAYS, f"Two ways on {args.env}")


if __name__ == "__main__":
    main()
