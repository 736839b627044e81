"""Run folders: every path of a run is known here and nowhere else.

The layout is RL Zoo's::

    logs/npg/Walker2d-v4_1/
        Walker2d-v4.zip              final agent            best_model.zip      best evaluation
        rl_model_100000_steps.zip    checkpoint             evaluations.npz     learning curve
        0.monitor.csv                training episodes      progress.csv        training metrics
        evaluation.json              final evaluation, every episode
        bundle/                      the final agent as it is published, ONNX files included
        Walker2d-v4/config.yml       everything needed to repeat the run
        Walker2d-v4/command.txt      what was typed         Walker2d-v4/vecnormalize.pkl  for RL Zoo
"""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agents.errors import NaturalZooError, RunFolderError
from hub.atomic import write_text
from hub.locate import BUNDLE_FOLDER, settings_folders
from zoo.config import RunConfig
from zoo.locks import FileLock

__all__ = [
    "RunFolder",
    "create_run_folder",
    "folder_name",
    "load_config",
    "make_run",
    "run_folders",
]

_CHECKPOINT = re.compile(r"rl_model_(\d+)_steps\.zip")


@dataclass(frozen=True)
class RunFolder:
    """The files of one run.

    :param path: the folder, such as ``logs/npg/Walker2d-v4_1``.
    :param env_id: Gymnasium id of the task.
    """

    path: Path
    env_id: str

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Return an existing run.

        :raises RunFolderError: there is no run at ``path``.
        """
        settings = settings_folders(path)
        if len(settings) != 1:
            raise RunFolderError(
                f"'{path}' is not a run folder: it has no ENV/config.yml. "
                "Give a folder such as logs/npg/Walker2d-v4_1."
            )
        return cls(path, settings[0].name)

    @property
    def settings(self) -> Path:
        """Folder of the settings."""
        return self.path / folder_name(self.env_id)

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.settings / "config.yml"

    @property
    def command(self) -> Path:
        """The command line."""
        return self.settings / "command.txt"

    @property
    def vec_normalize(self) -> Path:
        """The pickled normaliser that RL Zoo reads; never read here."""
        return self.settings / "vecnormalize.pkl"

    @property
    def final_model(self) -> Path:
        """The agent when training ended."""
        return self.path / f"{folder_name(self.env_id)}.zip"

    @property
    def best_model(self) -> Path:
        """The agent with the best periodic evaluation."""
        return self.path / "best_model.zip"

    def checkpoint(self, timesteps: int) -> Path:
        """Return the path of the checkpoint after ``timesteps`` steps."""
        return self.path / f"rl_model_{timesteps}_steps.zip"

    def checkpoints(self) -> dict[int, Path]:
        """Return the checkpoints that exist, by timesteps in rising order."""
        found = {
            int(match[1]): path
            for path in self.path.glob("rl_model_*_steps.zip")
            if (match := _CHECKPOINT.fullmatch(path.name))
        }
        return dict(sorted(found.items()))

    @property
    def bundle(self) -> Path:
        """The final agent as it is published: weights, ONNX files and evaluation."""
        return self.path / BUNDLE_FOLDER

    @property
    def evaluations(self) -> Path:
        """Periodic evaluations, in SB3's ``EvalCallback`` format."""
        return self.path / "evaluations.npz"

    @property
    def final_evaluation(self) -> Path:
        """The final evaluation with every episode."""
        return self.path / "evaluation.json"

    @property
    def monitor(self) -> Path:
        """Training episodes, in SB3's ``Monitor`` format."""
        return self.path / "0.monitor.csv"

    @property
    def progress(self) -> Path:
        """Training metrics, in SB3's CSV logger format."""
        return self.path / "progress.csv"

    @property
    def wandb_id(self) -> Path:
        """Name of the run at Weights & Biases, which a resumed run continues."""
        return self.settings / "wandb_id.txt"

    def finished_timesteps(self) -> int | None:
        """Return the steps after which the final evaluation was made, None before that."""
        try:
            return int(json.loads(self.final_evaluation.read_text())["num_timesteps"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process from training in this folder (not on Windows).

        However this process ends, the lock ends with it.

        :raises RunFolderError: another process trains in it.
        """
        lock = FileLock(self.path)
        if not lock.acquire():
            raise RunFolderError(
                f"Another process is training in {self.path}. Wait for it, or start a new run."
            )
        try:
            yield
        finally:
            lock.release()

    def remove(self) -> None:
        """Delete the folder of a run that never began."""
        shutil.rmtree(self.path, ignore_errors=True)

    def remove_temporary_files(self) -> None:
        """Delete what a killed process was writing."""
        for folder in (self.path, self.settings):
            for path in (*folder.glob(".*.tmp"), *folder.glob(f".{BUNDLE_FOLDER}.*.old")):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def create_run_folder(log_folder: Path, algo: str, env_id: str) -> RunFolder:
    """Make the next free ``log_folder/algo/ENV_k``, k = 1, 2, …; safe against parallel starts.

    :raises RunFolderError: the folder cannot be written.
    """
    parent = log_folder / algo
    try:
        parent.mkdir(parents=True, exist_ok=True)
        number = max((k for k, _ in _numbered_runs(parent, env_id)), default=0) + 1
        while True:
            path = parent / f"{folder_name(env_id)}_{number}"
            try:
                path.mkdir()
            except FileExistsError:
                number += 1
                continue
            run = RunFolder(path, env_id)
            run.settings.mkdir()
            return run
    except OSError as error:
        raise RunFolderError(
            f"Cannot write to the log folder {parent}: {error.strerror or error}. "
            "Choose another one with --log-folder."
        ) from error


def make_run(run: RunFolder, config: RunConfig) -> None:
    """Make the folder of a run that has not begun: ``zoo.train --resume`` begins it.

    A run of the same settings is left as far as it has come; any other is removed.

    :raises RunFolderError: the folder cannot be written.
    """
    try:
        if dataclasses.replace(load_config(run), source=config.source) == config:
            return
    except NaturalZooError:
        pass
    run.remove()
    try:
        run.settings.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(
            f"Cannot write to {run.path}: {error.strerror or error}. Choose another --log-folder."
        ) from error
    options = {
        "algo": config.algo,
        "env": config.env_id,
        "seed": config.seed,
        "n-timesteps": config.n_timesteps,
        "num-threads": config.n_threads,
        "eval-freq": config.eval_freq or 0,
        "eval-episodes": config.n_eval_episodes,
        "save-freq": config.save_freq or 0,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    write_text(run.command, shlex.join(["python", "-m", "zoo.train", *words]) + "\n")
    write_text(run.config, config.to_yaml())


def load_config(run: RunFolder) -> RunConfig:
    """Return the configuration that a run was started with.

    :raises RunFolderError: it cannot be read.
    :raises ConfigError: it is not a configuration.
    """
    try:
        text = run.config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunFolderError(f"{run.config} cannot be read: {reason}.") from error
    return RunConfig.from_yaml(text, str(run.config))


def run_folders(log_folder: Path, algo: str, env_id: str) -> list[RunFolder]:
    """Return the runs of ``algo`` on ``env_id`` that have a configuration, newest first."""
    numbered = sorted(_numbered_runs(log_folder / algo, env_id), reverse=True)
    runs = [RunFolder(path, env_id) for _, path in numbered]
    return [run for run in runs if run.config.is_file()]


def folder_name(env_id: str) -> str:
    """Return RL Zoo's folder name of an environment: no namespace separator, no module."""
    return env_id.rpartition(":")[2].replace("/", "-")


def _numbered_runs(parent: Path, env_id: str) -> Iterator[tuple[int, Path]]:
    pattern = re.compile(re.escape(folder_name(env_id)) + r"_(\d+)")
    if parent.is_dir():
        for path in parent.iterdir():
            if match := pattern.fullmatch(path.name):
                yield int(match[1]), path
