"""What an ONNX file of this project says about itself, read with the suspicion it deserves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from agents.errors import BundleError
from hub.bundle_format import strict_json
from hub.bundle_format.plain_data import check_env_kwargs

__all__ = ["OnnxInput", "OnnxMetadata", "OnnxNode"]

FORMAT_VERSION = "1"
"""Of the metadata that is read here."""
_DTYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int64)": np.int64,
}
_INTEGER_SPACES = ("Discrete", "MultiDiscrete", "MultiBinary")


@dataclass(frozen=True)
class OnnxInput:
    """One part of an observation, or all of it under the name ``obs``."""

    name: str
    shape: tuple[int, ...]
    """Of one observation, without a batch axis."""
    dtype: np.dtype[Any]
    mean: npt.NDArray[np.float64] | None = None
    """Of training, None if the observation is not normalised; so is ``std``."""
    std: npt.NDArray[np.float64] | None = None
    n_values: npt.NDArray[np.int64] | None = None
    """Of each element of a discrete space: it lies in 0 … ``n_values`` − 1."""
    elements: tuple[str, ...] = ()
    """What each element is, in C order; empty if that is not known."""


class OnnxNode(NamedTuple):
    """An input or output as ONNX Runtime describes it."""

    name: str
    type: str
    shape: list[Any]


class OnnxMetadata:
    """Reads what a file says about itself, which may be wrong.

    :param values: ``metadata_props``.
    :param path: of the file, for messages.
    :raises BundleError: the file is not one of ours.
    """

    def __init__(self, values: Mapping[str, str], path: Path) -> None:
        self.values = values
        self._path = path
        version = values.get("format_version")
        if version is None:
            raise BundleError(
                f"{path} was not exported by natural-zoo: its metadata has no format_version. "
                "Run it with onnxruntime itself."
            )
        if version != FORMAT_VERSION:
            raise BundleError(
                f"{path} has format {version[:20]}, this natural-zoo reads {FORMAT_VERSION}. "
                "Type: pip install --upgrade natural-zoo"
            )

    def contradiction(self, what: str) -> BundleError:
        """Return the error of a graph that is not what its metadata says."""
        return BundleError(
            f"{self._path} has {what}, which its metadata contradicts; it is damaged or not one of "
            "ours. Export it again."
        )

    def json(self, key: str) -> Any:
        """Return a value, None if there is none."""
        if key not in self.values:
            return None
        return strict_json.parse(
            self.values[key].encode("utf-8", "replace"), f"The metadata '{key}' of {self._path}"
        )

    def space(self, key: str) -> dict[str, Any]:
        """Return a space."""
        value = self.json(key)
        if not isinstance(value, dict) or not isinstance(value.get("type"), str):
            raise self._unreadable(key)
        return value

    def names(self, key: str, part: str | None = None) -> tuple[str, ...]:
        """Return a list of names, empty if there is none."""
        value = self.json(key)
        if part is not None and isinstance(value, dict):
            value = value.get(part)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise self._unreadable(key)
        return tuple(value)

    def arguments(self, key: str) -> dict[str, Any]:
        """Return keyword arguments, empty if there are none."""
        value = self.json(key)
        return {} if value is None else check_env_kwargs(value, f"'{key}' of {self._path}")

    def seconds(self, key: str) -> float | None:
        """Return a duration, None if there is none."""
        try:
            return None if key not in self.values else float(self.values[key])
        except ValueError as error:
            raise self._unreadable(key) from error

    def tensor(self, node: OnnxNode) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Return shape without the batch axis, and type, of an input or output."""
        batch, *shape = node.shape or [0]
        if (
            isinstance(batch, int)
            or not all(isinstance(n, int) and n > 0 for n in shape)
            or node.type not in _DTYPES
        ):
            raise BundleError(
                f"{self._path}: '{node.name}' is {node.type} of shape {node.shape}; a policy's are "
                f"[batch, …] of {', '.join(_DTYPES)}. It is not one of ours."
            )
        return tuple(shape), np.dtype(_DTYPES[node.type])

    def input(self, node: OnnxNode, space: Any, *, is_dict: bool) -> OnnxInput:
        """Return an input with what is known about it."""
        shape, dtype = self.tensor(node)
        if not isinstance(space, dict):
            raise self._unreadable("observation_space")
        part = node.name if is_dict else None
        mean, std = (self._statistic(key, part, shape) for key in ("obs_mean", "obs_std"))
        if std is not None and not (std > 0).all():
            raise self._unreadable("obs_std")
        return OnnxInput(
            name=node.name,
            shape=shape,
            dtype=dtype,
            mean=mean if std is not None else None,
            std=std if mean is not None else None,
            n_values=self._n_values(space, shape),
            elements=self.names("observation_names", part),
        )

    def _statistic(
        self, key: str, part: str | None, shape: tuple[int, ...]
    ) -> npt.NDArray[np.float64] | None:
        value = self.json(key)
        if part is not None and isinstance(value, dict):
            value = value.get(part)
        if value is None:
            return None
        try:
            array = np.array(value, dtype=np.float64)
        except (ValueError, TypeError) as error:
            raise self._unreadable(key) from error
        if array.shape != shape or not np.isfinite(array).all():
            raise self._unreadable(key)
        return array

    def _n_values(
        self, space: dict[str, Any], shape: tuple[int, ...]
    ) -> npt.NDArray[np.int64] | None:
        if space.get("type") not in _INTEGER_SPACES:
            return None
        count = {"Discrete": space.get("n"), "MultiBinary": 2}.get(space["type"], space.get("nvec"))
        try:
            counts = np.array(count, dtype=np.int64)
            return counts.reshape(shape) if counts.ndim else np.full(shape, counts)
        except (ValueError, TypeError, OverflowError) as error:
            raise self._unreadable("observation_space") from error

    def _unreadable(self, key: str) -> BundleError:
        return BundleError(
            f"{self._path}: its metadata '{key}' is missing or unreadable; it is damaged or not "
            "one of ours. Export it again."
        )
