"""A limit on the tensors that are made while a network is built from a stranger's description."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from agents.errors import BundleError

__all__ = ["AllocationLimit"]

# Everything that layers make their parameters with.
_FACTORIES = frozenset((torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full))
#: Elements that may be made beyond those of the file: small constants, sample observations.
_SLACK = 2**22


class AllocationLimit(TorchFunctionMode):
    """Refuses, before any memory is taken, tensors that the weights in the file do not justify.

    ``agent.json`` takes a few bytes to ask for a layer of 2⁴⁰ weights or for 10⁹ critics; a file
    that holds such weights does not exist. So while a network is built no tensor may be larger than
    the largest in the files, nor all together larger than all of them, nor many times as many.

    :param sizes: elements of each tensor in the files.
    """

    def __init__(self, sizes: Iterable[int]) -> None:
        super().__init__()
        known = list(sizes)
        self._largest = max([*known, _SLACK])
        self._left = 2 * sum(known) + _SLACK
        self._calls_left = 10 * len(known) + 1000

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Count the elements of a new tensor before it is made."""
        kwargs = kwargs or {}
        if func in _FACTORIES:
            self._count(_n_elements(args, kwargs))
        return func(*args, **kwargs)

    def _count(self, n_elements: int) -> None:
        self._left -= n_elements
        self._calls_left -= 1
        if n_elements > self._largest or self._left < 0 or self._calls_left < 0:
            raise BundleError(
                "agent.json describes a network with more weights than the files hold; its "
                "policy_kwargs or spaces were changed."
            )


def _n_elements(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    size = kwargs.get("size", args)
    if len(size) and isinstance(size[0], tuple | list | torch.Size):
        size = size[0]
    return math.prod(operator.index(length) for length in size if hasattr(length, "__index__"))
