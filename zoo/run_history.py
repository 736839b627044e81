"""What run folders hold about their training, read and nothing else.

A run folder has RL Zoo's layout, ``logs/<algo>/<Env>_<k>/``, holding

- ``0.monitor.csv`` (and ``1.monitor.csv`` … where each environment has its own): one row per
  finished episode;
- ``evaluations.npz``: the returns of every evaluation during training;
- ``<Env>/config.yml``: what was trained.
"""

from __future__ import annotations

import csv
import glob
import json
import logging
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import yaml
from numpy.typing import NDArray

from agents.errors import ConfigError, RunFolderError, nearest_match

__all__ = [
    "Episodes",
    "Floats",
    "Run",
    "find_runs",
    "read_episodes",
    "read_evaluations",
    "read_run",
]

Floats: TypeAlias = NDArray[np.float64]

MONITOR_PATTERN = "*.monitor.csv"
EVALUATIONS = "evaluations.npz"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A run folder and what was trained in it.

    :param folder: the run folder.
    :param algo: the algorithm's name, such as ``"npg"``.
    :param env_id: the environment's id, such as ``"Walker2d-v4"``.
    :param seed: None if the folder does not say.
    """

    folder: Path
    algo: str
    env_id: str
    seed: int | None = None


@dataclass(frozen=True)
class Episodes:
    """The finished episodes of a run in the order in which they ended.

    :param returns: sum of rewards of each episode, shape ``(n_episodes,)``.
    :param lengths: steps of each episode, shape ``(n_episodes,)``.
    :param steps: steps of training, over all environments, when each episode ended; the sum of the
        lengths so far where the monitor file does not say it, which leaves out unfinished episodes.
    :param minutes: wall-clock time at the end of each episode since training began; the pause
        before a resumed session is not counted.
    """

    returns: Floats
    lengths: Floats
    steps: Floats
    minutes: Floats


def find_runs(patterns: Sequence[str]) -> list[Run]:
    """Return the runs that ``patterns`` name, each once; ``_2`` comes before ``_10``.

    :param patterns: each a run folder, a folder with runs anywhere below it, or a glob of those.
    :raises ConfigError: a pattern names nothing that exists, or a file.
    :raises RunFolderError: there is no run in or below an existing folder.
    """
    found: dict[Path, Path] = {}
    for pattern in patterns:
        folders = [run for folder in _match(pattern) for run in _runs_in(folder)]
        if not folders:
            raise RunFolderError(
                f"No run in or below '{pattern}': a run folder holds '0.monitor.csv' or "
                f"'{EVALUATIONS}'. Give a folder such as 'logs/npg/Walker2d-v4_1'."
            )
        for folder in folders:
            found.setdefault(folder.resolve(), folder)
    return [read_run(folder) for folder in sorted(found.values(), key=_natural_key)]


def _match(pattern: str) -> list[Path]:
    path = Path(pattern)
    if path.is_dir():
        return [path]
    if path.exists():
        raise ConfigError(f"'{pattern}' is a file. Give the run folder: '{path.parent}'.")
    folders = [Path(name) for name in glob.glob(pattern, recursive=True) if Path(name).is_dir()]
    if folders:
        return folders
    siblings = [entry.name for entry in path.parent.glob("*") if entry.is_dir()]
    match = nearest_match(path.name, siblings)
    hint = f"Did you mean '{path.parent / match}'?" if match else "See what there is: ls logs/*"
    raise ConfigError(f"'{pattern}' is neither a folder nor a pattern that matches one. {hint}")


def _runs_in(folder: Path) -> list[Path]:
    if _is_run(folder):
        return [folder]
    files = [*folder.rglob(MONITOR_PATTERN), *folder.rglob(EVALUATIONS)]
    return list({file.parent: None for file in files})


def _is_run(folder: Path) -> bool:
    if (folder / EVALUATIONS).exists() or list(folder.glob(MONITOR_PATTERN)):
        return True
    # A run without data yet has its configuration already, in a folder named as its environment.
    name = folder.resolve().name
    return any(name.startswith(config.parent.name) for config in folder.glob("*/config.yml"))


def _natural_key(path: Path) -> list[tuple[int, str]]:
    pieces = re.split(r"(\d+)", str(path))
    return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in pieces]


def read_run(folder: Path) -> Run:
    """Return what was trained in a run folder.

    ``<Env>/config.yml`` says it.  RL Zoo writes that file with Python object tags, which are never
    executed here; algorithm and environment then follow from the path, ``<algo>/<Env>_<k>``.
    """
    config = _read_config(folder)
    place = folder.resolve()
    algo, env_id, seed = config.get("algo"), config.get("env_id"), config.get("seed")
    return Run(
        folder=folder,
        algo=algo if isinstance(algo, str) else place.parent.name,
        env_id=env_id if isinstance(env_id, str) else re.sub(r"_\d+$", "", place.name),
        seed=seed if isinstance(seed, int) else None,
    )


def _read_config(folder: Path) -> dict[str, object]:
    for path in sorted(folder.glob("*/config.yml")):
        try:
            config = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError):
            continue
        if isinstance(config, dict):
            return config
    return {}


@dataclass
class _MonitorFile:
    start: float
    rows: list[tuple[float, float, float, float]]
    """Return, length, seconds and timesteps (NaN if the file has no such column)."""


def read_episodes(folder: Path) -> Episodes:
    """Return the finished episodes of a run.

    Several monitor files, one per environment, are merged by time.  A last line without a line
    feed is still being written and is left out; an unreadable line elsewhere, as a killed run
    leaves it when it is resumed, is left out with a warning.

    :raises RunFolderError: there is no finished episode, or a file has another format.
    """
    paths = sorted(folder.glob(MONITOR_PATTERN))
    if not paths and (folder / EVALUATIONS).exists():
        raise RunFolderError(
            f"'{folder}' has no '{MONITOR_PATTERN}', only evaluations. Draw these: -y eval -x steps"
        )
    files = [file for file in map(_read_monitor, paths) if file.rows]
    if not files:
        raise RunFolderError(
            f"No finished episode yet in '{folder}'. Wait for the first one, or train again."
        )
    origin = min(file.start for file in files)
    rows = [(r, n, t + file.start - origin, k) for file in files for r, n, t, k in file.rows]
    returns, lengths, seconds, timesteps = np.array(sorted(rows, key=lambda row: row[2])).T
    steps = timesteps if np.isfinite(timesteps).all() else np.cumsum(lengths)
    return Episodes(returns=returns, lengths=lengths, steps=steps, minutes=seconds / 60.0)


def _read_monitor(path: Path) -> _MonitorFile:
    complete_lines = path.read_bytes().decode("utf-8", errors="replace").split("\n")[:-1]
    file = _MonitorFile(start=0.0, rows=[])
    columns: list[str] = []
    elapsed = session = 0.0  # seconds: at the last episode, and when the current session began
    unreadable = 0
    for line in complete_lines:
        fields = next(csv.reader([line]), [])
        if line.startswith("#"):
            session = elapsed
            file.start = file.start if file.rows else _start_time(line)
        elif not fields or fields == columns:
            continue
        elif not columns:
            columns = _check_columns(fields, path)
        elif (row := _parse_row(fields, columns)) is None:
            unreadable += 1
        else:
            episode_return, length, seconds, timesteps = row
            if session + seconds < elapsed:  # the clock went back: a resumed session
                session = elapsed
            elapsed = session + seconds
            file.rows.append((episode_return, length, elapsed, timesteps))
    if unreadable:
        logger.warning("%s: left out %d unreadable line(s)", path, unreadable)
    return file


def _start_time(line: str) -> float:
    try:
        return float(json.loads(line[1:])["t_start"])
    except (ValueError, KeyError, TypeError):
        return 0.0


def _check_columns(fields: list[str], path: Path) -> list[str]:
    if not {"r", "l", "t"} <= set(fields):
        raise RunFolderError(
            f"'{path}' is no Monitor file: its header is '{','.join(fields)[:60]}', "
            "not 'r,l,t'. Move it out of the run folder."
        )
    return fields


def _parse_row(fields: list[str], columns: list[str]) -> tuple[float, float, float, float] | None:
    if len(fields) != len(columns):
        return None
    cells = dict(zip(columns, fields, strict=True))
    try:
        row = float(cells["r"]), float(cells["l"]), float(cells["t"])
        timesteps = float(cells.get("timesteps", "nan"))
    except ValueError:
        return None
    return (*row, timesteps) if np.isfinite(row).all() and row[1] > 0 else None


def read_evaluations(folder: Path) -> tuple[Floats, Floats]:
    """Return steps and mean return of each evaluation during training, by rising steps.

    :raises RunFolderError: there is none, or the file cannot be read.
    """
    path = folder / EVALUATIONS
    advice = "Train with --eval-freq, or draw the training return: -y train."
    if not path.exists():
        raise RunFolderError(f"No evaluation yet in '{folder}'. {advice}")
    try:
        # Opened here because NumPy leaves the file of a damaged archive open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            steps = np.asarray(data["timesteps"], dtype=np.float64)
            results = np.asarray(data["results"], dtype=np.float64)
        if steps.ndim != 1 or results.ndim != 2 or len(steps) != len(results):
            raise ValueError(f"timesteps {steps.shape} and results {results.shape} do not match")
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RunFolderError(f"'{path}' cannot be read: {error}. {advice}") from error
    if results.size == 0:
        raise RunFolderError(f"No evaluation yet in '{folder}'. {advice}")
    latest = dict(zip(steps.tolist(), results.mean(axis=1).tolist(), strict=True))
    ordered = sorted(latest)  # a resumed run repeats steps: the later evaluation counts
    return np.array(ordered), np.array([latest[step] for step in ordered])
