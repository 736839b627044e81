"""The statistics of a normaliser as a file, checked against the observations they are for."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from agents.errors import BundleError
from hub.bundle_format.bundle_folder import NORMALIZER
from hub.bundle_format.manifest import Normalization
from hub.bundle_format.spaces import Space
from hub.bundle_format.tensor_file import read_tensors, write_tensors
from hub.normalizer import Normalizer, Statistics

__all__ = ["normalization_of", "read_normalizer", "write_normalizer"]

_PARTS = ("mean", "var", "count")


def normalization_of(normalizer: Normalizer) -> Normalization:
    """Return the settings that go into agent.json."""
    names = Normalization.__annotations__
    return Normalization(**{name: getattr(normalizer, name) for name in names})


def write_normalizer(normalizer: Normalizer, space: Space) -> bytes:
    """Return the file's content.

    :raises BundleError: the statistics are not those of observations from ``space``.
    """
    _check(normalizer.arrays, normalizer.norm_obs, space)
    return write_tensors(normalizer.arrays, NORMALIZER)


def read_normalizer(content: bytes, settings: Normalization, space: Space) -> Normalizer:
    """Return the normaliser of a bundle.

    :raises BundleError: the file is damaged or belongs to other observations.
    """
    arrays = read_tensors(content, NORMALIZER)
    _check(arrays, settings.norm_obs, space)
    return Normalizer(arrays, **vars(settings))


def _check(arrays: Statistics, norm_obs: bool, space: Space) -> None:
    shapes = {"ret": ()} | (_shapes(arrays, space) if norm_obs else {})
    expected = {f"{name}.{part}" for name in shapes for part in _PARTS}
    if different := expected ^ arrays.keys():
        name = min(different)
        raise BundleError(
            f"{NORMALIZER} {'lacks' if name in expected else 'has'} '{name}'; agent.json asks for "
            f"{', '.join(sorted(expected))}."
        )
    for name, shape in shapes.items():
        for part in _PARTS:
            array, needed = arrays[f"{name}.{part}"], () if part == "count" else shape
            if array.dtype != np.float64 or array.shape != needed:
                raise BundleError(
                    f"{NORMALIZER}: '{name}.{part}' is {array.dtype} of shape {list(array.shape)}; "
                    f"the agent's observations need float64 of shape {list(needed)}. If a wrapper "
                    "changes observations after VecNormalize, put VecNormalize outermost."
                )
        if (arrays[f"{name}.var"] < 0).any() or not arrays[f"{name}.count"] > 0:
            raise BundleError(f"{NORMALIZER}: '{name}' has a negative variance or no samples.")


def _shapes(arrays: Statistics, space: Space) -> dict[str, tuple[int, ...]]:
    """Return the shape of every part of an observation that is normalised."""
    if isinstance(space, spaces.Box):
        return {"obs": space.shape}
    if isinstance(space, spaces.Dict):
        return {
            f"obs.{key}": part.shape
            for key, part in space.spaces.items()
            if isinstance(part, spaces.Box) and f"obs.{key}.mean" in arrays
        }
    raise BundleError(f"Only Box observations are normalised, and the agent's are {space}.")
