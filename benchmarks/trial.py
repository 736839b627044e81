"""Try a candidate of a task's settings: one training, one row in ``benchmarks/tuning/trials.csv``.

``python -m benchmarks.trial npg Humanoid-v4 --hyperparams gae_lambda=0.7`` trains with the preset
and these changes on a seed of trials and scores the final agent with their evaluation seed, so
that neither a training nor an episode of the benchmark has a say in the choice of settings
(docs/tuning.md). ``--untuned`` begins with the file's default entry instead.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import zoo.evaluate
import zoo.train
from agents.registry import algorithm_class
from hub.seeding import SEED_STARTS, TUNING_EVALUATION_SEED
from zoo.cli import execute
from zoo.plain_yaml import flow_yaml
from zoo.presets import override_entry, parse_overrides, read_entry

TRIALS = Path(__file__).parent / "tuning" / "trials.csv"


def settings_of(
    algo: str, env_id: str, overrides: Sequence[str], *, untuned: bool = False
) -> tuple[dict[str, Any], int]:
    """Return what differs from the default entry, and the number of steps.

    :param overrides: ``KEY=VALUE`` texts, on top of the preset.
    :param untuned: on top of the default entry.
    :raises UnknownName: no such algorithm, entry or key.
    """
    algorithm_class(algo)  # an unknown name is an error here
    entry = read_entry(algo, env_id, None, untuned)
    entry = _numbers(override_entry(entry, parse_overrides(overrides)))
    default = _numbers(read_entry(algo, env_id, None, untuned=True))
    n_timesteps = int(entry.pop("n_timesteps"))
    del entry["source"]
    differences = {key: entry[key] for key in sorted(entry) if entry[key] != default.get(key)}
    if "policy_kwargs" in differences:
        differences["policy_kwargs"] = _policy_differences(
            differences["policy_kwargs"], default.get("policy_kwargs", {})
        )
    return differences, n_timesteps


def _policy_differences(given: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keywords that differ; None stands for what is left out."""
    keys = sorted({*given, *default})
    return {key: given.get(key) for key in keys if given.get(key) != default.get(key)}


def _numbers(value: Any) -> Any:
    """Turn ``1e-3``, which YAML 1.1 takes for a text, into the number that it means."""
    if isinstance(value, dict):
        return {key: _numbers(inner) for key, inner in value.items()}
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def train_and_score(
    algo: str, env_id: str, seed: int, overrides: Sequence[str], *, untuned: bool, folder: Path
) -> list[float]:
    """Train on one core and return the final agent's returns in the evaluation of trials."""
    command = ["--algo", algo, "--env", env_id, "--seed", str(seed), "-f", str(folder)]
    command += ["--num-threads", "1", "--env-threads", "1", *["--untuned"] * untuned]
    if overrides:
        command += ["--hyperparams", *overrides]
    if zoo.train.main(command):
        raise SystemExit(1)
    (run,) = folder.glob(f"{algo}/{env_id}_*")
    report = folder / "trial.json"
    seed_option = ["--seed", str(TUNING_EVALUATION_SEED)]
    if zoo.evaluate.main([str(run), *seed_option, "-o", str(report)]):
        raise SystemExit(1)
    returns: list[float] = json.loads(report.read_text())["returns"]
    return returns


def row(
    algo: str, env_id: str, settings: str, seed: int, n_timesteps: int, returns: Sequence[float]
) -> str:
    """Return a line of the table."""
    mean, std = statistics.fmean(returns), statistics.pstdev(returns)
    digits = 2 if abs(mean) < 100 else 1
    numbers = (seed, n_timesteps, round(mean, digits), round(std, digits))
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([algo, env_id, settings, *numbers])
    return line.getvalue()


def append(line: str) -> None:
    """Add a line to the table in one write, so that trials side by side do not mix theirs."""
    descriptor = os.open(TRIALS, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def main() -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("algo")
    parser.add_argument("env_id")
    first_seed = SEED_STARTS["tuning"]
    parser.add_argument("--seed", type=int, default=first_seed, help=f"default {first_seed}")
    parser.add_argument("--untuned", action="store_true", help="begin with the default entry")
    parser.add_argument("--hyperparams", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return execute(parser, _run, None)


def _run(args: argparse.Namespace) -> None:
    settings, n_timesteps = settings_of(
        args.algo, args.env_id, args.hyperparams, untuned=args.untuned
    )
    with tempfile.TemporaryDirectory() as folder:
        returns = train_and_score(
            args.algo,
            args.env_id,
            args.seed,
            args.hyperparams,
            untuned=args.untuned,
            folder=Path(folder),
        )
    text = flow_yaml(settings)
    line = row(args.algo, args.env_id, text, args.seed, n_timesteps, returns)
    append(line)
    print(line, end="")


if __name__ == "__main__":
    sys.exit(main())
