"""SB3 loggers that go on after a resume: CSV in the run folder, TensorBoard, Weights & Biases."""

from __future__ import annotations

import csv
import dataclasses
import io
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import (
    CSVOutputFormat,
    HumanOutputFormat,
    KVWriter,
    Logger,
    TensorBoardOutputFormat,
    filter_excluded_keys,
)

from agents.errors import MissingDependency
from hub.atomic import write_text
from zoo.config import RunConfig
from zoo.runs import RunFolder

__all__ = ["TrackingOptions", "make_logger", "rows_until"]


@dataclass(frozen=True)
class TrackingOptions:
    """Where metrics go besides the run folder."""

    tensorboard_log: Path | None = None
    track: bool = False
    wandb_project: str = "natural-zoo"
    wandb_entity: str | None = None
    verbose: bool = False


def make_logger(
    run: RunFolder, config: RunConfig, options: TrackingOptions, model: BaseAlgorithm
) -> Logger:
    """Return a logger that continues where ``model`` is; one at 0 steps starts anew.

    What was written beyond that, by a process that was killed later, is dropped.

    :raises MissingDependency: TensorBoard or wandb is asked for and not installed.
    """
    writers: list[KVWriter] = []
    try:
        begun_before = run.progress.is_file()
        writers.append(_csv_writer(run.progress, model.num_timesteps))
        if options.verbose:
            writers.append(HumanOutputFormat(sys.stderr))
        if options.tensorboard_log is not None:
            name = f"{run.path.parent.name}_{run.path.name}"
            purge_step = _next_step(model.num_timesteps) if begun_before else None
            writers.append(_TensorBoardWriter(options.tensorboard_log / name, purge_step))
        if options.track:
            writers.append(_WandbWriter(run, config, options))
    except BaseException:
        for writer in writers:
            writer.close()
        raise
    return Logger(folder=str(run.path), output_formats=writers)


def rows_until(text: str, column: str, limit: float) -> str:
    """Return a CSV text with its header and the rows whose ``column`` is at most ``limit``."""
    rows = list(csv.DictReader(io.StringIO(text)))
    if not rows:
        return ""
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        row for row in rows if None not in row.values() and _number(row.get(column)) <= limit
    )
    return out.getvalue()


def _number(text: str | None) -> float:
    """Return a cell's number; a torn or empty cell counts as beyond every limit."""
    try:
        return float(text or "inf")
    except ValueError:
        return float("inf")


def _csv_writer(path: Path, num_timesteps: int) -> CSVOutputFormat:
    kept = ""
    if num_timesteps > 0 and path.is_file():
        kept = rows_until(path.read_text(), "time/total_timesteps", num_timesteps)
        write_text(path, kept)
    writer = CSVOutputFormat(str(path))
    if kept:
        writer.file.write(kept)
        writer.file.flush()
        writer.keys = kept.splitlines()[0].split(",")
    return writer


def _next_step(num_timesteps: int) -> int:
    return num_timesteps + 1 if num_timesteps else 0


class _TensorBoardWriter(TensorBoardOutputFormat):
    """SB3's writer, which offers no ``purge_step``: what lies beyond it is not shown twice."""

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingDependency(
                "TensorBoard is not installed; pip install 'natural-zoo[tensorboard]'."
            ) from error
        self.writer = SummaryWriter(log_dir=str(folder), purge_step=purge_step)
        self._is_closed = False


class _WandbWriter(KVWriter):
    """Sends every metric to one Weights & Biases run, which a resumed run continues."""

    def __init__(self, run: RunFolder, config: RunConfig, options: TrackingOptions) -> None:
        try:
            import wandb
        except ImportError as error:
            raise MissingDependency(
                "wandb is not installed; pip install 'natural-zoo[wandb]'."
            ) from error
        if not run.wandb_id.is_file():
            write_text(run.wandb_id, secrets.token_hex(4))
        self._run = wandb.init(
            project=options.wandb_project,
            entity=options.wandb_entity,
            name=f"{config.algo}-{run.path.name}",
            id=run.wandb_id.read_text(),
            resume="allow",
            config=dataclasses.asdict(config),
            dir=str(run.path),
            # Standard output ends with the result: wandb neither captures nor adds to it.
            settings=wandb.Settings(console="off", silent=True),
        )

    def write(
        self,
        key_values: dict[str, Any],
        key_excluded: dict[str, tuple[str, ...]],
        step: int = 0,
    ) -> None:
        kept = filter_excluded_keys(key_values, key_excluded, "wandb")
        self._run.log({key: value for key, value in kept.items()}, step=step)

    def close(self) -> None:
        self._run.finish()
