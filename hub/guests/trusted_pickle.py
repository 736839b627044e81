"""The one place that unpickles a file, and only because the caller said so in that call."""

from __future__ import annotations

import pickle  # what this module is for
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm

from agents.errors import BundleError
from hub.guests.sb3_names import algorithm_named
from hub.normalizer import Normalizer
from hub.vec_normalize import normalizer_of

__all__ = ["load_trusting"]


def load_trusting(
    archive: Path, algo: str, normalizer: Path | None, n_envs: int | None, device: str
) -> tuple[BaseAlgorithm, Normalizer | None]:
    """Load an SB3 archive and its statistics by SB3's own means, which run code in them.

    :param archive: the ``.zip``.
    :param algo: name of its algorithm.
    :param normalizer: pickled ``VecNormalize``.
    :param n_envs: environments that it will be given; None for as many as it was trained in.
    :param device: of torch.
    :raises BundleError: they cannot be loaded all the same.
    """
    try:
        changes: dict[str, Any] = {} if n_envs is None else {"n_envs": n_envs}
        model = algorithm_named(algo).load(archive, device=device, **changes)
        if normalizer is None:
            return model, None
        with normalizer.open("rb") as file:
            return model, normalizer_of(pickle.load(file))  # noqa: S301 - the caller's choice
    except Exception as error:  # a pickle may raise anything
        detail = " ".join(str(error).split())[:300]
        raise BundleError(
            f"{archive} cannot be loaded, trusted or not ({type(error).__name__}: {detail})."
        ) from error
