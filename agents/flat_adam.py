"""``torch.optim.Adam`` on one flat vector: the same steps without a loop over parameters."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from agents.functional.fisher import flatten, write_flat

__all__ = ["FlatAdam"]


class FlatAdam:
    """Takes over an optimiser for some of its parameters, and gives it back with its state.

    ``m ← β₁m + (1 − β₁)g``, ``v ← β₂v + (1 − β₂)g²``, ``θ ← θ − α m̂ / (√v̂ + ε)`` in the order of
    operations of ``torch.optim.Adam``, so that equal gradients give equal parameters.

    :param optimizer: one that :meth:`can_take_over` accepts.
    :param parameters: those to step, ``n`` entries in all.

    Ref: Kingma & Ba 2014, arXiv:1412.6980, algorithm 1.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]):
        self._optimizer = optimizer
        self._parameters = parameters
        self._group = optimizer.param_groups[0]
        self._n_steps = _n_steps(optimizer, parameters[0])
        self.flat = flatten(parameter.detach() for parameter in parameters)
        self._first_moment = self._gather("exp_avg")
        self._second_moment = self._gather("exp_avg_sq")
        sizes = [parameter.numel() for parameter in parameters]
        self.views = [
            part.view_as(parameter)
            for part, parameter in zip(torch.split(self.flat, sizes), parameters, strict=True)
        ]
        """The parameters as parts of :attr:`flat`, which :meth:`step` moves."""

    @staticmethod
    def can_take_over(optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]) -> bool:
        """Tell whether ``optimizer`` is plain Adam on ``parameters``, stepped together so far."""
        if type(optimizer) is not torch.optim.Adam or len(optimizer.param_groups) != 1:
            return False
        group = optimizer.param_groups[0]
        if group["weight_decay"] or group["amsgrad"] or group["maximize"]:
            return False
        held = {id(parameter) for parameter in group["params"]}
        if not held.issuperset(map(id, parameters)):
            return False
        return len({_n_steps(optimizer, parameter) for parameter in parameters}) == 1

    def step(self, gradient: torch.Tensor) -> None:
        """Move :attr:`flat` one step against ``gradient`` of shape ``(n,)``."""
        self._n_steps += 1
        beta1, beta2 = self._group["betas"]
        self._first_moment.lerp_(gradient, 1.0 - beta1)
        self._second_moment.mul_(beta2).addcmul_(gradient, gradient, value=1.0 - beta2)
        step_size = self._group["lr"] / (1.0 - beta1**self._n_steps)
        root_correction = (1.0 - beta2**self._n_steps) ** 0.5
        denominator = self._second_moment.sqrt().div_(root_correction).add_(self._group["eps"])
        self.flat.addcdiv_(self._first_moment, denominator, value=-step_size)

    def write_back(self) -> None:
        """Write parameters and moments where SB3 reads and saves them."""
        write_flat(self.flat, self._parameters)
        for name, vector in (("exp_avg", self._first_moment), ("exp_avg_sq", self._second_moment)):
            tensors = []
            for parameter in self._parameters:
                state = self._optimizer.state[parameter]
                state["step"] = torch.tensor(float(self._n_steps))
                tensors.append(state.setdefault(name, torch.zeros_like(parameter)))
            write_flat(vector, tensors)

    def _gather(self, name: str) -> torch.Tensor:
        state = self._optimizer.state
        return flatten(
            state[parameter][name] if parameter in state else torch.zeros_like(parameter)
            for parameter in self._parameters
        ).detach()


def _n_steps(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> int:
    state = optimizer.state.get(parameter)
    return int(state["step"]) if state else 0
