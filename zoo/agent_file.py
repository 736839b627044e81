"""One ``.zip`` per saved agent: SB3's own archive with its normaliser and counters inside.

``NPG.load("best_model.zip")`` reads it as any SB3 model. Two more members make it whole:
``normalizer.safetensors`` and ``training_state.json``. Being one file, a model and its normaliser
are written together or not at all. Reading it here never unpickles anything: weights are loaded
with ``weights_only=True``, the rest is JSON and safetensors.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.numpy
import torch
from stable_baselines3.common.base_class import BaseAlgorithm

from agents.errors import RunFolderError
from hub.atomic import write_bytes
from hub.normalizer import Statistics

__all__ = ["AgentFile", "load_agent_file", "save_agent_file"]

_NORMALIZER = "normalizer.safetensors"
_STATE = "training_state.json"
# What a new episode sets anew; saving it would only make the file larger.
_NOT_SAVED = ("_last_obs", "_last_original_obs", "_last_episode_starts")


class AgentFile(NamedTuple):
    """What :func:`load_agent_file` found."""

    parameters: dict[str, Any]
    """State dicts as ``BaseAlgorithm.set_parameters`` takes them."""
    normalizer: Statistics | None
    """From :func:`hub.vec_normalize.statistics`, None if the agent was trained without."""
    training_state: dict[str, Any]
    """Counters and other JSON values; empty if the file does not come from this project."""


def save_agent_file(
    path: Path,
    model: BaseAlgorithm,
    normalizer: Statistics | None,
    training_state: dict[str, Any],
) -> None:
    """Write ``model`` with everything that belongs to it, whole or not at all.

    :param normalizer: from :func:`hub.vec_normalize.statistics`.
    :param training_state: JSON values needed to continue training.
    """
    buffer = io.BytesIO()
    model.save(buffer, exclude=_NOT_SAVED)
    with zipfile.ZipFile(buffer, "a") as archive:
        if normalizer is not None:
            archive.writestr(_NORMALIZER, safetensors.numpy.save(normalizer))
        archive.writestr(_STATE, json.dumps(training_state))
    write_bytes(path, buffer.getvalue())


def load_agent_file(path: Path) -> AgentFile:
    """Read an agent without unpickling anything.

    :raises RunFolderError: the file is missing, truncated or corrupted.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # without it, a member with a damaged name counts as absent
            if damaged is not None:
                raise zipfile.BadZipFile(f"Bad member {damaged!r}")
            names = set(archive.namelist())
            parameters = {
                name.removesuffix(".pth"): _load_state_dict(archive.read(name))
                for name in {"policy.pth"} | {n for n in names if _is_state_dict(n)}
            }
            normalizer = (
                safetensors.numpy.load(archive.read(_NORMALIZER)) if _NORMALIZER in names else None
            )
            state = json.loads(archive.read(_STATE)) if _STATE in names else {}
    except FileNotFoundError as error:
        raise RunFolderError(f"There is no {path}.") from error
    except Exception as error:  # whatever zipfile, torch, json and safetensors make of damage
        detail = " ".join(str(error).split())[:200]
        raise RunFolderError(
            f"{path} is corrupted ({type(error).__name__}: {detail}). Delete it to use an earlier "
            "checkpoint of the run."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(p, dict) for p in parameters.values()):
        raise RunFolderError(f"{path} is not an agent: its members hold something else.")
    return AgentFile(parameters, normalizer, state)


def _is_state_dict(name: str) -> bool:
    return name.endswith(".pth") and name != "pytorch_variables.pth"


def _load_state_dict(content: bytes) -> dict[str, Any]:
    state_dict: dict[str, Any] = torch.load(
        io.BytesIO(content), map_location="cpu", weights_only=True
    )
    return state_dict
