"""An ONNX file of this project, opened: what goes in, what comes out, what it says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from agents.errors import BundleError, MissingDependency
from hub.bundle_format import strict_json
from hub.bundle_format.bundle_folder import AGENT, MAX_AGENT_BYTES, digest_bytes, read_file
from hub.bundle_format.plain_data import check_env_kwargs
from hub.onnx_safety import MAX_ONNX_BYTES, check_onnx

__all__ = ["OnnxFile", "OnnxInput"]

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


@dataclass(frozen=True)
class OnnxFile:
    """A file that passed every check, and the session that computes it in one thread."""

    path: Path
    session: Any
    metadata: Mapping[str, str]
    observation_space: dict[str, Any]
    """In the JSON form of :mod:`hub.bundle_format.spaces`; so is ``action_space``."""
    action_space: dict[str, Any]
    inputs: tuple[OnnxInput, ...]
    action_shape: tuple[int, ...]
    action_dtype: np.dtype[Any]
    action_names: tuple[str, ...]
    control_dt: float | None
    env_id: str | None
    env_kwargs: dict[str, Any]
    """Of the environment that the agent was trained in, beside its defaults."""

    @property
    def is_dict(self) -> bool:
        """Whether an observation is a mapping of parts."""
        return bool(self.observation_space["type"] == "Dict")

    @classmethod
    def open(cls, path: Path) -> OnnxFile:
        """Read a file, check it and make it ready to compute.

        :raises BundleError: it is missing, damaged, unsafe or not one of ours, or it is not the one
            that ``agent.json`` beside it lists.
        :raises MissingDependency: ONNX Runtime is not installed.
        """
        content = _read(path)
        _check_digest(path, content)
        return cls.from_bytes(content, path)

    @classmethod
    def from_bytes(cls, content: bytes, path: Path) -> OnnxFile:
        """Check a file's content and make it ready to compute; ``path`` names it in messages.

        :raises BundleError: it is damaged, unsafe or not one of ours.
        :raises MissingDependency: ONNX Runtime is not installed.
        """
        check_onnx(content, str(path))
        session = _make_session(content, path)
        values, given, outputs = _description(session, path)
        reader = _Metadata(values, path)
        observation_space = reader.space("observation_space")
        parts = (
            observation_space.get("spaces")
            if observation_space["type"] == "Dict"
            else {"obs": observation_space}
        )
        if not isinstance(parts, dict) or set(parts) != set(given):
            raise reader.contradiction(f"inputs {', '.join(sorted(given))}")
        action = outputs.get("actions")
        if action is None:
            raise BundleError(
                f"{path} gives {', '.join(outputs)}, no actions to apply. Take the agent's "
                "policy.onnx; ONNX Runtime itself runs this one."
            )
        action_shape, action_dtype = reader.tensor(action)
        return cls(
            path=path,
            session=session,
            metadata=dict(reader.values),
            observation_space=observation_space,
            action_space=reader.space("action_space"),
            inputs=tuple(
                reader.input(given[name], space, is_dict=observation_space["type"] == "Dict")
                for name, space in parts.items()
            ),
            action_shape=action_shape,
            action_dtype=action_dtype,
            action_names=reader.names("action_names"),
            control_dt=reader.seconds("control_dt"),
            env_id=reader.values.get("env_id"),
            env_kwargs=reader.arguments("env_kwargs"),
        )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_ONNX_BYTES + 1)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror or error}.") from error


def _check_digest(path: Path, content: bytes) -> None:
    """Compare a file of a bundle with what ``agent.json`` says about it.

    A stranger could change both; what it finds is damage, and files of two bundles mixed up.
    """
    manifest = path.parent / AGENT
    if not manifest.is_file():
        return
    files = strict_json.mapping(
        strict_json.parse(read_file(path.parent, AGENT, MAX_AGENT_BYTES), str(manifest)),
        str(manifest),
        optional=None,
    ).get("files")
    record = files.get(path.name) if isinstance(files, dict) else None
    digest = record.get("sha256") if isinstance(record, dict) else None
    if digest != digest_bytes(content).sha256:
        raise BundleError(
            f"{path} is not the file that {AGENT} beside it lists: it was changed or damaged. Get "
            "the bundle again."
        )


def _make_session(content: bytes, path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependency(
            f"ONNX files need ONNX Runtime ({error}). Type: pip install onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised; nothing else is of interest
    try:
        return onnxruntime.InferenceSession(
            content,
            options,
            providers=["CPUExecutionProvider"],
            enable_fallback=0,  # to the same provider, with a banner on standard output
        )
    except Exception as error:  # ONNX Runtime has a class for each stage
        reason = " ".join(str(error).split())[:200]
        raise BundleError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load {path}: {reason}"
        ) from error


class _Node(NamedTuple):
    """An input or output as ONNX Runtime describes it."""

    name: str
    type: str
    shape: list[Any]


def _description(
    session: Any, path: Path
) -> tuple[dict[str, str], dict[str, _Node], dict[str, _Node]]:
    """Return metadata, inputs and outputs, each by name."""
    try:
        nodes = [
            [_Node(node.name, node.type, node.shape) for node in part]
            for part in (session.get_inputs(), session.get_outputs())
        ]
        values = dict(session.get_modelmeta().custom_metadata_map)
    except UnicodeDecodeError as error:
        raise BundleError(
            f"{path} holds a text that is not UTF-8; it is damaged or not one of ours."
        ) from error
    inputs, outputs = ({node.name: node for node in part} for part in nodes)
    return values, inputs, outputs


class _Metadata:
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

    def tensor(self, node: _Node) -> tuple[tuple[int, ...], np.dtype[Any]]:
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

    def input(self, node: _Node, space: Any, *, is_dict: bool) -> OnnxInput:
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
