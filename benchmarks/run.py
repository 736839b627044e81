"""``python -m benchmarks.run``: measure ours beside its peers in one run; `make bench`.

Each section writes ``benchmarks/results/<section>.json``; the last one, ``report``, draws
``docs/images/speed.png`` and writes the tables of ``docs/speed.md`` from those files. Leave
the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.breakdown import PARTS, time_parts
from benchmarks.measure import RESULTS, interleaved, on_cores, save, summary
from benchmarks.memory import memory_growth, startup_seconds
from benchmarks.physics import physics_rate, random_episodes, training_episodes
from benchmarks.report import write_report
from benchmarks.training_rate import (
    default_model,
    default_rate,
    shared_a2c,
    shared_ppo,
    shared_trpo,
    shared_trpo_model,
    tianshou,
)
from benchmarks.updates import NETWORKS, compare_updates
from hub.env_ids import MUJOCO_TASKS

ENV_ID = "Walker2d-v4"
UNIT = "environment steps per second"
SLOW = ("Ant", "Humanoid", "HumanoidStandup", "Pusher")
PEER_CASES = ("TRPO", "PPO", "A2C", "NPG as in Tianshou", "TRPO as in Tianshou")
LIMIT_CASES = tuple(f"{task}-v5" if task == "Pusher" else f"{task}-v4" for task in MUJOCO_TASKS)
UPDATE_BATCHES = (1024, 2048, 4096, 16384, 65536)
UPDATE_CASES = tuple(f"{network}, N={n}" for network in NETWORKS for n in UPDATE_BATCHES)


def _kept(section: str, key: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the earlier results that ``--cases`` leaves as they are."""
    path = RESULTS / f"{section}.json"
    if not options.cases or not path.is_file():
        return {}
    earlier: dict[str, Any] = json.loads(path.read_text())[key]
    return earlier


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def peers(options: argparse.Namespace) -> None:
    """Whole training with the peers' hyperparameters, and ours by default."""
    n = int(20_000 * options.scale)
    sections: dict[str, dict[str, Callable[[], float]]] = {
        "TRPO": shared_trpo(ENV_ID, n) | {"ours, default": default_rate("trpo", ENV_ID, 2 * n)},
        "PPO": shared_ppo(ENV_ID, n),
        "A2C": shared_a2c(ENV_ID, n),
    }
    if options.tianshou:
        for algo in ("npg", "trpo"):
            name = f"{algo.upper()} as in Tianshou"
            sections[name] = tianshou(algo, ENV_ID, n, options.tianshou)
    content = _kept("peers", "algorithms", options)
    for n_cores in (1, 2):
        for name, subjects in sections.items():
            if options.cases and name not in options.cases:
                continue
            heading = f"{name}, {n_cores} core{'s' * (n_cores > 1)}"
            pinned = {who: on_cores(n_cores, subject) for who, subject in subjects.items()}
            content[heading] = _measured(pinned, options, heading)
            save("peers", {"env_id": ENV_ID, "unit": UNIT, "algorithms": content})


def limits(options: argparse.Namespace) -> None:
    """Our default configurations against MuJoCo's own stepping, on one and two cores."""
    content = _kept("limits", "tasks", options)
    for env_id in LIMIT_CASES:
        if options.cases and env_id not in options.cases:
            continue
        n = int((10_000 if env_id.startswith(SLOW) else 30_000) * options.scale)
        random, trained = random_episodes(env_id, n // 2), training_episodes("npg", env_id, n)
        subjects = {
            "random physics, 1 core": on_cores(1, physics_rate(env_id, random)),
            "physics, 1 core": on_cores(1, physics_rate(env_id, trained)),
            "physics, 2 cores": physics_rate(env_id, trained, processes=2),
        }
        for algo in ("npg", "trpo", "ppo", "a2c"):
            subjects[f"{algo}, 1 core"] = on_cores(1, default_rate(algo, env_id, n))
        subjects["npg, 2 cores"] = on_cores(2, default_rate("npg", env_id, n))
        content[env_id] = _measured(subjects, options, env_id)
        save("limits", {"unit": UNIT, "tasks": content})


def updates(options: argparse.Namespace) -> None:
    """Fisher product, CG solve and whole update, over batch sizes and networks."""
    content = _kept("updates", "cases", options)
    for network in NETWORKS:
        for n_samples in UPDATE_BATCHES:
            key = f"{network}, N={n_samples}"
            if options.cases and key not in options.cases:
                continue
            runs = [compare_updates(n_samples, network) for _ in range(options.repeats)]
            content[key] = summary({name: [run[name] for run in runs] for name in runs[0]})
            _say(f"updates: {key}")
            save("updates", {"unit": "seconds per call", "cases": content})


def breakdown(options: argparse.Namespace) -> None:
    """Where the time of a training goes, part by part, on one core."""
    n = int(40_000 * options.scale)
    cases: dict[str, Callable[..., Any]] = {
        f"NPG, {env_id}": functools.partial(default_model, "npg", env_id, 1)
        for env_id in ("Walker2d-v4", "HalfCheetah-v4", "Humanoid-v4")
    }
    cases[f"TRPO as sb3-contrib, {ENV_ID}"] = functools.partial(shared_trpo_model, ENV_ID)
    content: dict[str, Any] = {}
    for case, make_model in cases.items():
        measure = on_cores(1, functools.partial(time_parts, make_model, n))
        runs = [measure() for _ in range(options.repeats)]
        content[case] = summary({part: [run[part] for run in runs] for part in PARTS})
        _say(f"breakdown: {case}")
        save("breakdown", {"unit": "microseconds per environment step", "cases": content})


def scaling(options: argparse.Namespace) -> None:
    """How the cost of our NPG grows with environments, batch and parameters."""
    import agents
    from benchmarks.training_rate import rate_of

    n = int(15_000 * options.scale)
    common: dict[str, Any] = {"backend": "mujoco", "frozen_statistics": True}
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
    pinned = {case: on_cores(1, subject) for case, subject in subjects.items()}
    save("scaling", {"unit": UNIT, "cases": _measured(pinned, options, "scaling")})


def memory(options: argparse.Namespace) -> None:
    """Start-up time of the commands and memory over a million steps."""
    startups = {
        "import agents.errors": lambda: startup_seconds("-c", "import agents.errors"),
        "zoo.train --help": lambda: startup_seconds("-m", "zoo.train", "--help"),
        "import stable_baselines3": lambda: startup_seconds("-c", "import stable_baselines3"),
    }
    content = _measured(startups, options, "start-up")
    checkpoints = [10_000, 100_000, 250_000, 500_000, int(1_000_000 * min(options.scale, 1.0))]
    growth = memory_growth("npg", "HalfCheetah-v4", sorted(set(checkpoints)))
    save("memory", {"startup_seconds": content, "npg HalfCheetah-v4": growth})


def acting(options: argparse.Namespace) -> None:
    """From one observation to the action: SB3, torch, ONNX Runtime."""
    from benchmarks.runtime_latency import measure

    measure(rounds=2 * options.repeats, n_calls=int(3000 * options.scale))


def _measured(
    subjects: dict[str, Callable[[], float]], options: argparse.Namespace, heading: str
) -> dict[str, Any]:
    values = interleaved(subjects, options.repeats, lambda line: _say(f"{heading}: {line}"))
    return summary(values)


def _check_cases(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse a case that no section has: it would measure nothing."""
    allowed = {*PEER_CASES, *LIMIT_CASES, *UPDATE_CASES}
    unknown = [case for case in args.cases or [] if case not in allowed]
    if unknown:
        parser.error(f"unknown --cases {unknown}; allowed: {', '.join(sorted(allowed))}")


SECTIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "peers": peers,
    "limits": limits,
    "breakdown": breakdown,
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
    parser.add_argument(
        "--cases",
        nargs="+",
        metavar="NAME",
        help="only these algorithms of `peers`, tasks of `limits`, rows of `updates`; "
        "other results are kept",
    )
    parser.add_argument("--repeats", type=int, default=3, help="default 3")
    parser.add_argument("--scale", type=float, default=1.0, help="length of the runs; default 1")
    parser.add_argument(
        "--tianshou",
        type=Path,
        metavar="PYTHON",
        help="interpreter that has Tianshou 2; without it Tianshou is left out",
    )
    args = parser.parse_args()
    _check_cases(parser, args)
    for name in args.only or [*SECTIONS, "report"]:
        if name == "report":
            write_report()
        else:
            SECTIONS[name](args)


if __name__ == "__main__":
    main()
