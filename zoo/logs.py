"""SB3 loggers that go on after a resume: CSV in the run folder, TensorBoard, Weights & Biases."""

from __future__ import annotations

import csv
import dataclasses
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import (
    CSVOutputFormat,
    HumanOutputFormat,
    KVWriter,
    Logger,
    TensorBoardOutputFormat,
    filter_excluded_keys,
)

from agents.errors import MissingDependency
from zoo.atomic import write_text
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
    run: RunFolder, config: RunConfig, options: TrackingOptions, num_timesteps: int
) -> Logger:
    """Return a logger that continues after ``num_timesteps`` steps; 0 starts anew.

    What was written beyond ``num_timesteps``, by a process that was killed later, is dropped.

    :raises MissingDependency: TensorBoard or wandb is asked for and not installed.
    """
    writers: list[KVWriter] = [_csv_writer(run.progress, num_timesteps)]
    if options.verbose:
        writers.append(HumanOutputFormat(sys.stderr))
    if options.tensorboard_log is not None:
        writers.append(_tensorboard_writer(options.tensorboard_log, run, num_timesteps))
    if options.track:
        writers.append(_WandbWriter(run, config, options))
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
        row for row in rows if None not in row.values() and float(row[column] or "inf") <= limit
    )
    return out.getvalue()


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


def _tensorboard_writer(
    folder: Path, run: RunFolder, num_timesteps: int
) -> TensorBoardOutputFormat:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingDependency(
            "TensorBoard is not installed; pip install 'natural-zoo[tensorboard]'."
        ) from error
    name = f"{run.path.parent.name}_{run.path.name}"
    log_dir = str(folder / name)
    output = TensorBoardOutputFormat(log_dir)
    if num_timesteps > 0:
        # SB3 offers no purge_step: events beyond the checkpoint would be shown twice.
        output.writer.close()
        output.writer = SummaryWriter(log_dir=log_dir, purge_step=num_timesteps + 1)
    return output


class _WandbWriter(KVWriter):
    """Sends every metric to one Weights & Biases run, which a resumed run continues."""

    def __init__(self, run: RunFolder, config: RunConfig, options: TrackingOptions) -> None:
        try:
            import wandb
        except ImportError as error:
            raise MissingDependency(
                "wandb is not installed; pip install 'natural-zoo[wandb]'."
            ) from error
        self._run = wandb.init(
            project=options.wandb_project,
            entity=options.wandb_entity,
            name=f"{config.algo}-{run.path.name}",
            id=f"{config.algo}-{run.path.name}-{config.seed}",
            resume="allow",
            config=dataclasses.asdict(config),
            dir=str(run.path),
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
