"""The result of one training run as a small JSON file: everything a table or a picture needs.

A run that failed has a file, too: leaving it out would silently turn "five seeds" into "the four
seeds that went well".
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agents.errors import RunFolderError
from hub.atomic import write_text
from hub.seeding import FINAL_EVALUATION_SEED
from hub.versions import installed_versions
from zoo.agent_file import load_agent_file
from zoo.campaign.cells import Cell, Places
from zoo.config import RunConfig
from zoo.hyperparameters import check_agent
from zoo.periodic_evaluations import load_evaluations
from zoo.provenance import machine
from zoo.runs import RunFolder

__all__ = [
    "Result",
    "collect",
    "differences",
    "failure",
    "load_result",
    "load_results",
    "save_result",
]

_FORMAT = 1


@dataclass(frozen=True)
class Result:
    """What one cell of the grid came to.

    :param config: all settings of the run, as its ``config.yml`` has them; one of an older version
        may lack some that are new.
    :param attempts: the Git commit of each attempt, None for code outside of a checkout; an attempt
        that was killed and the one that resumed it are two.
    :param versions: of everything that a number can depend on.
    :param machine: what the time depends on, see :func:`zoo.provenance.machine`.
    :param error: why the run failed, None if it finished.
    :param n_timesteps: steps that were trained.
    :param seconds: of training with its periodic evaluations, over all attempts; what a killed
        attempt did after its last checkpoint is not counted.
    :param returns: of each episode of the final evaluation.
    :param lengths: of the same episodes.
    :param curve: steps and the returns of the episodes of each periodic evaluation.
    """

    config: dict[str, Any]
    attempts: list[str | None]
    versions: dict[str, Any]
    machine: dict[str, Any]
    error: str | None = None
    n_timesteps: int = 0
    seconds: float = 0.0
    returns: tuple[float, ...] = ()
    lengths: tuple[int, ...] = ()
    curve: tuple[tuple[int, tuple[float, ...]], ...] = ()

    @property
    def cell(self) -> Cell:
        """The cell of the grid."""
        return Cell(self.config["algo"], self.config["env_id"], self.config["seed"])

    @property
    def mean_return(self) -> float:
        """Mean return of the final evaluation."""
        return float(np.mean(self.returns))

    @property
    def std_return(self) -> float:
        """Standard deviation over the episodes of the final evaluation."""
        return float(np.std(self.returns))


def collect(run: RunFolder, config: RunConfig, attempts: Sequence[str | None]) -> Result:
    """Read the result out of a finished run folder.

    :param config: that the run was started with.
    :param attempts: the Git commit of each attempt.
    :raises RunFolderError: the run is not finished, or a file of it is damaged.
    """
    try:
        report = json.loads(run.final_evaluation.read_text(encoding="utf-8"))
        n_timesteps = int(report["num_timesteps"])
        state = load_agent_file(run.final_model).training_state
        evaluations = load_evaluations(run, n_timesteps)
        return Result(
            config=dataclasses.asdict(config),
            attempts=list(attempts),
            versions=report["versions"],
            machine=machine(),
            n_timesteps=n_timesteps,
            seconds=round(float(state["elapsed_seconds"]), 1),
            returns=tuple(map(float, report["returns"])),
            lengths=tuple(map(int, report["lengths"])),
            curve=tuple(
                (timesteps, tuple(map(float, evaluation.returns)))
                for timesteps, evaluation in sorted(evaluations.items())
            ),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"{run.path} has no readable final evaluation ({type(error).__name__}: {error})."
        ) from error


def failure(config: RunConfig, attempts: Sequence[str | None], error: str) -> Result:
    """Return the result of a run that did not finish.

    :param error: why, in a line.
    """
    return Result(
        config=dataclasses.asdict(config),
        attempts=list(attempts),
        versions=dict(installed_versions()),
        machine=dict(machine()),
        error=error,
    )


def save_result(path: Path, result: Result) -> None:
    """Write ``result``, whole or not at all, one line per value."""
    content: dict[str, Any] = {
        "format": _FORMAT,
        "status": "finished" if result.error is None else "failed",
        **dataclasses.asdict(result.cell),
    }
    if result.error is None:
        content |= {
            "mean_return": result.mean_return,
            "std_return": result.std_return,
            "n_timesteps": result.n_timesteps,
            "seconds": result.seconds,
            "evaluation": {
                "deterministic": True,
                "seed": FINAL_EVALUATION_SEED,
                "returns": result.returns,
                "lengths": result.lengths,
            },
            "curve": {
                "timesteps": [timesteps for timesteps, _ in result.curve],
                "returns": [returns for _, returns in result.curve],
            },
        }
    else:
        content["error"] = result.error
    content |= {
        "attempts": result.attempts,
        "versions": result.versions,
        "machine": result.machine,
        "config": result.config,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, _as_json(content, 0) + "\n")


def load_result(path: Path) -> Result:
    """Read what :func:`save_result` wrote.

    :raises RunFolderError: the file is damaged or something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise ValueError(f"its format is {content['format']}, this version reads {_FORMAT}")
        result = Result(
            config=dict(content["config"]),
            attempts=list(content["attempts"]),
            versions=dict(content["versions"]),
            machine=dict(content["machine"]),
        )
        if str(result.cell.seed) != path.stem:
            raise ValueError(f"it holds seed {result.cell.seed}")
        if content["status"] == "failed":
            return dataclasses.replace(result, error=str(content["error"]))
        return dataclasses.replace(result, **_outcome(content))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(
            f"{path} is not a result of zoo.benchmark ({type(error).__name__}: {error}). Delete it "
            "to train that run again."
        ) from error


def load_results(places: Places) -> list[Result]:
    """Return every result of a campaign in the order of the names.

    :raises RunFolderError: one is damaged.
    """
    return [load_result(path) for path in places.result_files()]


def _outcome(content: dict[str, Any]) -> dict[str, Any]:
    evaluation, curve = content["evaluation"], content["curve"]
    if not evaluation["returns"]:
        raise ValueError("it has no episode")
    return {
        "n_timesteps": int(content["n_timesteps"]),
        "seconds": float(content["seconds"]),
        "returns": tuple(map(float, evaluation["returns"])),
        "lengths": tuple(map(int, evaluation["lengths"])),
        "curve": tuple(
            (int(timesteps), tuple(map(float, returns)))
            for timesteps, returns in zip(curve["timesteps"], curve["returns"], strict=True)
        ),
    }


def differences(recorded: Mapping[str, Any], wanted: RunConfig) -> list[str]:
    """Return the settings that two runs differ in, where the numbers can depend on them.

    A setting that an older version did not have counts as what is the default now.

    :param recorded: :attr:`Result.config`.
    """
    new = _flat(dataclasses.asdict(wanted))
    defaults = check_agent(wanted.algo, wanted.policy, {})
    old = defaults | _flat({**dataclasses.asdict(wanted), **recorded})
    return [
        f"{key}: {old.get(key)} → {new.get(key)}"
        for key in dict.fromkeys([*new, *old])
        if old.get(key) != new.get(key)
    ]


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    run = {key: value for key, value in config.items() if key not in ("agent", "source")}
    agent: dict[str, Any] = config["agent"]
    return run | agent


def _as_json(value: Any, depth: int) -> str:
    """Return JSON with a line per value: a hundred returns on one line read and compare best."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    indent = " " * (depth + 1)
    lines = [
        f"{indent}{json.dumps(key)}: {_as_json(item, depth + 1)}" for key, item in value.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n" + " " * depth + "}"
