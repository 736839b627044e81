"""The learning curve of a run: ``evaluations.npz`` in the format of SB3's ``EvalCallback``."""

from __future__ import annotations

import io

import numpy as np

from agents.errors import RunFolderError
from hub.atomic import write_bytes
from zoo.evaluation import Evaluation
from zoo.runs import RunFolder

__all__ = ["load_evaluations", "save_evaluations"]


def save_evaluations(run: RunFolder, evaluations: dict[int, Evaluation]) -> None:
    """Write the learning curve in the format of SB3's ``EvalCallback``."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        timesteps=np.array(list(evaluations), dtype=np.int64),
        results=np.array([e.returns for e in evaluations.values()]),
        ep_lengths=np.array([e.lengths for e in evaluations.values()], dtype=np.int64),
    )
    write_bytes(run.evaluations, buffer.getvalue())


def load_evaluations(run: RunFolder, num_timesteps: int) -> dict[int, Evaluation]:
    """Return the learning curve up to ``num_timesteps``; later points are dropped."""
    if num_timesteps == 0 or not run.evaluations.is_file():
        return {}
    try:
        with np.load(run.evaluations) as arrays:
            columns = [arrays[name] for name in ("timesteps", "results", "ep_lengths")]
            return {
                int(timesteps): Evaluation([], list(returns), list(lengths))
                for timesteps, returns, lengths in zip(*columns, strict=True)
                if timesteps <= num_timesteps
            }
    except Exception as error:  # whatever NumPy and zipfile make of damage
        raise RunFolderError(
            f"{run.evaluations} is corrupted ({type(error).__name__}). Delete it to go on without "
            "the learning curve so far."
        ) from error
