"""Acting with a trained agent, without torch and without Stable-Baselines3.

::

    from hub.runtime import OnnxPolicy

    policy = OnnxPolicy("npg-Walker2d-v4")
    action = policy(observation)

Needs NumPy and ONNX Runtime only. The observation goes in as the environment or the sensors give
it, what comes out is the action to apply: normalisation, clipping and the choice of the best action
are inside the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agents.errors import BundleError, ObservationError
from hub.locate import onnx_path
from hub.observation_check import ObservationCheck, UnlikeTraining, choice_check
from hub.onnx_file import OnnxFile
from hub.onnx_metadata import OnnxInput

__all__ = ["OnnxPolicy", "UnlikeTraining"]

_MAX_KEPT_ROWS = 1024
_MAX_KEPT_CALLS = 8

Array = npt.NDArray[Any]


class OnnxPolicy:
    """A trained policy: ``policy(observation)`` is the action to apply.

    One observation in, one action out; a batch of shape ``(n, ...)`` in, ``n`` actions out. The
    buffers that ONNX Runtime reads and writes are made once per batch size, so that a call costs
    microseconds; it computes in the calling thread. Two threads need an instance each.

    :param agent: a ``.onnx`` file, a bundle, a run folder or the name of a published agent.
    :param float64: take a folder's ``policy.f64.onnx`` instead of its ``policy.onnx``: a little
        slower, and the same actions to the last bit on every machine. A file is taken as it is.
    :param check_range: warn once (:class:`UnlikeTraining`) when observations are far from all that
        training saw: a single one by 1000 standard deviations, or ten calls in a row by 20. NaN and
        infinity are refused in any case. Costs a microsecond per call.
    :raises BundleError: the file is damaged, unsafe or not one of ours.
    :raises UnknownName: no agent has that name.
    """

    def __init__(
        self, agent: str | Path, *, float64: bool = False, check_range: bool = True
    ) -> None:
        self._open(OnnxFile.open(onnx_path(agent, float64=float64)), check_range)

    @classmethod
    def from_bytes(
        cls, content: bytes, *, name: str = "policy.onnx", check_range: bool = True
    ) -> OnnxPolicy:
        """Return the policy of a file that is in memory; ``name`` stands for it in messages."""
        policy = cls.__new__(cls)
        policy._open(OnnxFile.from_bytes(content, Path(name)), check_range)
        return policy

    def _open(self, file: OnnxFile, check_range: bool) -> None:
        self._file = file
        self._checks = {
            entry.name: ObservationCheck(
                entry.name,
                *((entry.mean, entry.std) if check_range else (None, None)),
                entry.elements,
            )
            for entry in file.inputs
        }
        # By the shape of the observation, or for a Dict by its number of rows.
        self._calls: dict[Any, _Call] = {}

    # --- what the file says about itself --------------------------------------------------------

    @property
    def path(self) -> Path:
        """The file that acts."""
        return self._file.path

    @property
    def metadata(self) -> dict[str, str]:
        """Everything that the file says about itself, as text by key."""
        return dict(self._file.metadata)

    @property
    def env_id(self) -> str | None:
        """Gymnasium id of the task that the agent was trained on."""
        return self._file.env_id

    @property
    def env_kwargs(self) -> dict[str, Any]:
        """Arguments of that task beside its defaults."""
        return dict(self._file.env_kwargs)

    @property
    def observation_space(self) -> dict[str, Any]:
        """The space of one observation: what ``hub.bundle_format.spaces.space_from_json`` reads."""
        return self._file.observation_space

    @property
    def action_space(self) -> dict[str, Any]:
        """The space of one action: what ``hub.bundle_format.spaces.space_from_json`` reads."""
        return self._file.action_space

    @property
    def observation_names(self) -> tuple[str, ...] | dict[str, tuple[str, ...]]:
        """What each element of an observation is, by key for a Dict; empty where not known."""
        names = {entry.name: entry.elements for entry in self._file.inputs}
        return names if self._file.is_dict else names["obs"]

    @property
    def action_names(self) -> tuple[str, ...]:
        """What each element of an action moves; empty where not known."""
        return self._file.action_names

    @property
    def control_dt(self) -> float | None:
        """Seconds from one action to the next; None for a task without a clock."""
        return self._file.control_dt

    # --- acting ---------------------------------------------------------------------------------

    def __call__(self, observation: Any) -> Any:
        """Return the action for one observation, or the actions for a batch of them.

        :param observation: raw; an array of the shape of one observation or with a batch axis
            before it, for a Dict space a mapping of such arrays. Images may have channels last.
        :return: an array of its own, ``(*action_shape)`` or ``(n, *action_shape)``; for a single
            Discrete action a NumPy integer.
        :raises ObservationError: keys, shape or type do not fit, or an element is not finite.
        :raises BundleError: the file fails on it, which one of ours never does.
        """
        try:
            call = self._calls[observation.shape]
        except (AttributeError, KeyError, TypeError):  # the first of its shape, or no array
            return self._prepare(observation)()
        try:
            np.copyto(call.observation, observation)
        except TypeError as error:
            raise _wrong_type(self._file.inputs[0], observation) from error
        return call()

    def _prepare(self, observation: Any) -> Callable[[], Any]:
        """Return the call for an observation of any kind, and make the next of its shape fast."""
        arrays = self._arrays(observation)
        rows = {name: self._n_rows(name, array) for name, array in arrays.items()}
        n_rows, *others = rows.values()
        if any(other != n_rows for other in others):
            raise ObservationError(
                "The parts of the observation differ in their batch axis: "
                + ", ".join(f"'{name}' has {_rows_text(n)}" for name, n in rows.items())
            )
        if n_rows == 0:
            return lambda: np.zeros((0, *self._file.action_shape), self._file.action_dtype)
        call = self._call(n_rows)
        for entry in self._file.inputs:
            try:
                np.copyto(call.parts[entry.name], arrays[entry.name])
            except TypeError as error:
                raise _wrong_type(entry, arrays[entry.name]) from error
        return call

    def _arrays(self, observation: Any) -> dict[str, Array]:
        """Return the parts as arrays of the shapes that the file expects."""
        expected = [entry.name for entry in self._file.inputs]
        if not self._file.is_dict:
            observation = {"obs": observation}
        if not isinstance(observation, Mapping) or set(observation) != set(expected):
            given = (
                f"has the keys {', '.join(map(repr, observation))}"
                if isinstance(observation, Mapping)
                else f"is {_kind(observation)}"
            )
            raise ObservationError(
                f"The observation {given}; this agent's is a dict with the keys "
                f"{', '.join(map(repr, expected))}."
            )
        return {
            entry.name: _as_array(entry, observation[entry.name]) for entry in self._file.inputs
        }

    def _n_rows(self, name: str, array: Array) -> int | None:
        """Return the length of the batch axis, None if there is none."""
        shape = next(entry.shape for entry in self._file.inputs if entry.name == name)
        return None if array.shape == shape else len(array)

    def _call(self, n_rows: int | None) -> _Call:
        key: Any = n_rows
        if not self._file.is_dict:
            shape = self._file.inputs[0].shape
            key = shape if n_rows is None else (n_rows, *shape)
        call = self._calls.get(key)
        if call is None:
            call = _Call(self._file, n_rows, self._checks)
            if (n_rows or 1) <= _MAX_KEPT_ROWS:
                if len(self._calls) == _MAX_KEPT_CALLS:
                    del self._calls[next(iter(self._calls))]
                self._calls[key] = call
        return call


class _Call:
    """Everything that a call with a given number of rows needs, bound once.

    :param file: what computes.
    :param n_rows: of the batch; None for one observation without a batch axis.
    :param checks: of the observation, by input.
    """

    def __init__(
        self, file: OnnxFile, n_rows: int | None, checks: Mapping[str, ObservationCheck]
    ) -> None:
        n = n_rows or 1
        self._path = file.path
        self._run = file.session.run_with_iobinding
        self._binding = file.session.io_binding()
        self.parts: dict[str, Array] = {}
        """Where the observation is to be written, by input."""
        self._checks: list[Callable[[], None]] = []
        self._buffers: list[Array] = []
        for entry in file.inputs:
            buffer = np.zeros((n, *entry.shape), entry.dtype)
            self._bind(self._binding.bind_input, entry.name, buffer)
            self.parts[entry.name] = buffer if n_rows is not None else _first(buffer)
            if entry.n_values is not None:
                self._checks.append(choice_check(entry.name, entry.n_values, buffer))
            elif entry.dtype.kind == "f":
                self._checks.append(checks[entry.name].of(buffer))
        self.observation = next(iter(self.parts.values()))
        """The only part, if there is one only."""
        actions = np.zeros((n, *file.action_shape), file.action_dtype)
        self._bind(self._binding.bind_output, "actions", actions)
        self._take = _taker(actions, n_rows)

    def _bind(self, bind: Callable[..., None], name: str, buffer: Array) -> None:
        self._buffers.append(buffer)  # ONNX Runtime has its address only
        bind(name, "cpu", 0, buffer.dtype.type, buffer.shape, buffer.ctypes.data)

    def __call__(self) -> Any:
        """Return the actions for what :attr:`parts` hold."""
        for check in self._checks:
            check()
        try:
            self._run(self._binding)
        except Exception as error:  # a graph whose shapes depend on its input
            reason = " ".join(str(error).split())[:200]
            raise BundleError(f"{self._path} cannot be computed: {reason}") from error
        return self._take()


def _first(buffer: Array) -> Array:
    """Return a view of the first row, also where that is one number."""
    return buffer.reshape(buffer.shape[1:])


def _taker(actions: Array, n_rows: int | None) -> Callable[[], Any]:
    """Return a function that gives what is in the buffer to the caller, to keep."""
    if n_rows is not None:
        return actions.copy
    if actions.ndim == 1:
        return lambda: actions[0]
    return _first(actions).copy


def _as_array(entry: OnnxInput, value: Any) -> Array:
    """Return ``value`` as an array, an image with its channels first."""
    try:
        array = np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise ObservationError(f"'{entry.name}' is not an array: {error}") from error
    if array.dtype.kind not in "biufc":
        raise _wrong_type(entry, value)
    n = len(entry.shape)
    if array.shape == entry.shape or (array.ndim == n + 1 and array.shape[1:] == entry.shape):
        return array
    channels_last = entry.shape[1:] + entry.shape[:1]
    if entry.dtype == np.uint8 and n == 3 and array.shape[-3:] == channels_last:
        return _as_array(entry, np.moveaxis(array, -1, -3))
    elements = f" ({', '.join(entry.elements)})" if entry.elements else ""
    raise ObservationError(
        f"'{entry.name}' has shape {array.shape}; this agent takes {entry.shape}{elements}, or "
        f"{_shape_text(entry.shape)} for a batch."
    )


def _shape_text(shape: tuple[int, ...]) -> str:
    return f"({', '.join(['n', *map(str, shape)])})"


def _wrong_type(entry: OnnxInput, observation: Any) -> ObservationError:
    return ObservationError(
        f"'{entry.name}' is {_kind(observation)}; this agent takes {entry.dtype}, and whatever "
        "NumPy casts to it as the same kind."
    )


def _kind(value: Any) -> str:
    return f"an array of {value.dtype}" if hasattr(value, "dtype") else f"a {type(value).__name__}"


def _rows_text(n_rows: int | None) -> str:
    return "none" if n_rows is None else f"{n_rows} rows"
