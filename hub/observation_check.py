"""Whether an observation can be what a policy was trained on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from agents.errors import ObservationError

__all__ = [
    "FAR_CALLS",
    "FAR_STDS",
    "IMPOSSIBLE_STDS",
    "ObservationCheck",
    "UnlikeTraining",
    "choice_check",
]

FAR_STDS = 20.0
"""Standard deviations from the mean of training that are a reason to warn if they stay."""
FAR_CALLS = 10
"""Calls in a row: a single blow takes Humanoid's contact forces to 180 standard deviations."""
IMPOSSIBLE_STDS = 1000.0
"""Standard deviations from the mean of training that are a reason to warn at once."""

Array = npt.NDArray[Any]


class UnlikeTraining(UserWarning):
    """Observations are far from all that a policy was trained on."""


class ObservationCheck:
    """Refuses what is not a number, and warns once of what training never saw.

    Per call and input it costs a microsecond: with ``z = (obs − mean) / std``, a sum of squares of
    at most ``FAR_STDS²`` says that every element is a number and none is far. Only a larger one is
    looked at element by element.

    :param name: of the input, for messages.
    :param mean: of training, shape of one observation; None checks for numbers only.
    :param std: of training, same shape; above 0.
    :param elements: names of the elements in C order, for messages; may be empty.
    """

    def __init__(
        self,
        name: str,
        mean: Array | None = None,
        std: Array | None = None,
        elements: Sequence[str] = (),
    ) -> None:
        self._name = name
        self._elements = tuple(elements)
        self._mean = None if mean is None else np.ravel(mean)
        self._std = None if std is None else np.ravel(std)
        self._limit = float(np.finfo(np.float32).max) if mean is None else FAR_STDS**2
        self._n_far_calls = 0

    def of(self, buffer: Array) -> Callable[[], None]:
        """Return a function that looks at ``buffer`` as it is when called.

        :param buffer: raw observations, shape ``(batch, ...)``, floating-point, in C order.
        :return: a function that raises :class:`~agents.errors.ObservationError` for NaN and
            infinity, and may warn.
        """
        rows = buffer.reshape(len(buffer), -1)
        flat = buffer.reshape(-1)
        if self._mean is None or self._std is None:

            def check_numbers() -> None:
                if not flat.dot(flat) <= self._limit:  # true for NaN, too
                    self._look_closer(rows, None)

            return check_numbers
        mean, inverse_std = (x.astype(buffer.dtype) for x in (self._mean, 1.0 / self._std))
        z = np.zeros_like(rows)
        flat_z = z.reshape(-1)
        subtract, multiply = np.subtract, np.multiply

        def check() -> None:
            subtract(rows, mean, z)
            multiply(z, inverse_std, z)
            if flat_z.dot(flat_z) <= self._limit:
                self._n_far_calls = 0
            else:
                self._look_closer(rows, z)

        return check

    def _look_closer(self, rows: Array, z: Array | None) -> None:
        finite = np.isfinite(rows)
        if not finite.all():
            row, element = (int(i) for i in np.argwhere(~finite)[0])
            raise ObservationError(
                f"{self._named(element)} of '{self._name}' is {rows[row, element]}"
                f"{f' in row {row} of the batch' if len(rows) > 1 else ''}; observations must be "
                "finite numbers. Check the sensor, or the simulation before this step."
            )
        if z is None or self._limit > FAR_STDS**2:
            return
        distances = np.abs(z)
        if distances.max() <= FAR_STDS:  # many small ones make a large sum
            self._n_far_calls = 0
            return
        self._n_far_calls += 1
        if self._n_far_calls == FAR_CALLS or distances.max() > IMPOSSIBLE_STDS:
            self._warn(rows, distances)

    def _warn(self, rows: Array, distances: Array) -> None:
        self._limit = float(np.finfo(np.float32).max)  # once is enough; numbers they must stay
        row, element = (int(i) for i in np.unravel_index(distances.argmax(), distances.shape))
        if self._mean is None or self._std is None:
            return
        warnings.warn(
            f"{self._named(element)} of '{self._name}' is {rows[row, element]:.6g}, "
            f"{distances[row, element]:.0f} standard deviations from what training saw "
            f"({self._mean[element]:.6g} ± {self._std[element]:.6g}). Observations go in raw: "
            "check units, order and that nothing normalises them before. This is said once; "
            "check_range=False silences it.",
            UnlikeTraining,
            stacklevel=6,  # whoever called the policy
        )

    def _named(self, element: int) -> str:
        name = self._elements[element] if element < len(self._elements) else ""
        return f"Element {element} ({name})" if name else f"Element {element}"


def choice_check(name: str, n_values: Array, buffer: Array) -> Callable[[], None]:
    """Return a function that looks whether discrete observations are choices that there are.

    :param name: of the input, for messages.
    :param n_values: how many choices each element has, shape of one observation.
    :param buffer: the observations, shape ``(batch, ...)``.
    :return: a function that raises :class:`~agents.errors.ObservationError`.
    """

    highest = np.broadcast_to(n_values - 1, buffer.shape)

    def check() -> None:
        wrong = (buffer < 0) | (buffer > highest)
        if wrong.any():
            index = tuple(np.argwhere(wrong)[0])
            raise ObservationError(
                f"An element of '{name}' is {buffer[index]}; it must be in 0 … {highest[index]}."
            )

    return check
