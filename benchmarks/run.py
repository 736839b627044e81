"""``python -m benchmarks.run``: measure ours beside its peers in one run; `make bench`.

Each section writes ``benchmarks/results/<section>.json``; the last one, ``report``, draws
``benchmarks/results/speed.png`` and writes the tables of ``docs/speed.md`` from those files. Leave
the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.measure import interleaved, save, summary
from benchmarks.memory import memory_growth, startup_seconds
from benchmarks.physics import physics_rate
from benchmarks.report import write_report
from benchmarks.training_rate import default_rate, shared_a2c, shared_ppo, shared_trpo
from benchmarks.updates import NETWORKS, compare_updates
from hub.env_ids import MUJOCO_TASKS

ENV_ID = "Walker2d-v4"
SLOW = ("Ant", "Humanoid", "HumanoidStandup", "Pusher")


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def peers(repeats: int, scale: float) -> None:
    """Whole training with the peers' hyperparameters, and ours by default, on one core."""
    n = int(20_000 * scale)
    sections: dict[str, dict[str, Callable[[], float]]] = {
        "TRPO": shared_trpo(ENV_ID, n) | {"ours, default": default_rate("trpo", ENV_ID, 2 * n, 1)},
        "PPO": shared_ppo(ENV_ID, n),
        "A2C": shared_a2c(ENV_ID, n),
    }
    content = {
        name: summary(interleaved(subjects, repeats, lambda m, name=name: _say(f"{name}: {m}")))
        for name, subjects in sections.items()
    }
    save("peers", {"env_id": ENV_ID, "unit": "environment steps per second", "algorithms": content})


def limits(repeats: int, scale: float) -> None:
    """Our default configurations against MuJoCo's own stepping, on one and two cores."""
    content: dict[str, Any] = {}
    for task in MUJOCO_TASKS:
        env_id = f"{task}-v5" if task == "Pusher" else f"{task}-v4"
        n = int((5_000 if task in SLOW else 15_000) * scale)
        subjects = {
            "physics, 1 core": physics_rate(env_id, n),
            "physics, 2 cores": physics_rate(env_id, n, processes=2),
        }
        for algo in ("npg", "trpo", "ppo", "a2c"):
            subjects[f"{algo}, 1 core"] = default_rate(algo, env_id, n, 1)
        subjects["npg, 2 cores"] = default_rate("npg", env_id, n, 2)
        values = interleaved(subjects, repeats, lambda m, env_id=env_id: _say(f"{env_id}: {m}"))
        content[env_id] = summary(values)
        save("limits", {"unit": "environment steps per second", "tasks": content})


def updates(repeats: int, scale: float) -> None:
    """Fisher product, CG solve and whole update, over batch sizes and networks."""
    content: dict[str, Any] = {}
    for network in NETWORKS:
        for n_samples in (1024, 2048, 4096, 16384, 65536):
            runs = [compare_updates(n_samples, network) for _ in range(repeats)]
            key = f"{network}, N={n_samples}"
            content[key] = summary({name: [run[name] for run in runs] for name in runs[0]})
            _say(f"updates: {key}")
            save("updates", {"unit": "seconds per call", "cases": content})


def scaling(repeats: int, scale: float) -> None:
    """How the cost of our NPG grows with environments, batch and parameters."""
    import agents
    from benchmarks.training_rate import rate_of

    n = int(15_000 * scale)
    common: dict[str, Any] = {"backend": "envpool", "frozen_statistics": True}
    subjects: dict[str, Callable[[], float]] = {}
    for n_envs in (1, 2, 4, 8, 16, 32, 64):
        subjects[f"environments: {n_envs}"] = rate_of(
            agents.NPG, ENV_ID, n_envs, n, n_steps=1024 // n_envs, batch_size=256, **common
        )
    for n_steps in (32, 64, 128, 256, 512):
        subjects[f"batch: {16 * n_steps}"] = rate_of(
            agents.NPG, ENV_ID, 16, max(n, 32 * n_steps), n_steps=n_steps, batch_size=256, **common
        )
    for width in (32, 64, 128, 256):
        subjects[f"hidden units: {width}"] = rate_of(
            agents.NPG,
            ENV_ID,
            16,
            n,
            n_steps=64,
            batch_size=256,
            policy_kwargs={"net_arch": [width, width]},
            **common,
        )
    values = interleaved(subjects, repeats, lambda m: _say(f"scaling: {m}"))
    save("scaling", {"unit": "environment steps per second", "cases": summary(values)})


def memory(repeats: int, scale: float) -> None:
    """Start-up time of the commands and memory over a million steps."""
    startups = {
        "import agents.errors": lambda: startup_seconds("-c", "import agents.errors"),
        "zoo.train --help": lambda: startup_seconds("-m", "zoo.train", "--help"),
        "import stable_baselines3": lambda: startup_seconds("-c", "import stable_baselines3"),
    }
    content = summary(interleaved(startups, repeats, _say))
    checkpoints = [10_000, 100_000, 250_000, 500_000, int(1_000_000 * min(scale, 1.0))]
    growth = memory_growth("npg", "HalfCheetah-v4", sorted(set(checkpoints)))
    save("memory", {"startup_seconds": content, "npg HalfCheetah-v4": growth})


def acting(repeats: int, scale: float) -> None:
    """From one observation to the action: SB3, torch, ONNX Runtime."""
    from benchmarks.runtime_latency import measure

    measure(rounds=2 * repeats, n_calls=int(3000 * scale))


SECTIONS: dict[str, Callable[[int, float], None]] = {
    "peers": peers,
    "limits": limits,
    "updates": updates,
    "scaling": scaling,
    "memory": memory,
    "acting": acting,
}


def main() -> None:
    """Run the sections that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=[*SECTIONS, "report"], help="default: all")
    parser.add_argument("--repeats", type=int, default=3, help="default 3")
    parser.add_argument("--scale", type=float, default=1.0, help="length of the runs; default 1")
    args = parser.parse_args()
    for name in args.only or [*SECTIONS, "report"]:
        if name == "report":
            write_report()
        else:
            SECTIONS[name](args.repeats, args.scale)


if __name__ == "__main__":
    main()
