"""RMSprop whose parameters and statistics several processes step at once, without a lock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from multiprocessing.context import BaseContext
from typing import Any, overload

import numpy as np
import torch
from torch import nn

from agents.functional.fisher import flatten, write_flat

__all__ = ["RMSprop", "SharedOptimizer", "rmsprop_step"]


@torch.no_grad()
def rmsprop_step(
    parameters: list[torch.Tensor],
    square_avgs: list[torch.Tensor],
    gradients: list[torch.Tensor],
    *,
    learning_rate: float,
    alpha: float,
    eps: float,
) -> None:
    """Take one step in place: ``v ← α v + (1 − α) g²``, ``θ ← θ − η g / √(v + ε)``.

    :param parameters: ``θ``.
    :param square_avgs: ``v``, of the same shapes.
    :param gradients: ``g``, of the same shapes.
    :param learning_rate: ``η``.
    :param alpha: ``α``, what is kept of the running mean.
    :param eps: ``ε``, *inside* the root, where ``torch.optim.RMSprop`` has it outside.

    Ref: Mnih et al. 2016, arXiv:1602.01783, section 4.
    """
    torch._foreach_mul_(square_avgs, alpha)
    torch._foreach_addcmul_(square_avgs, gradients, gradients, 1.0 - alpha)
    roots = torch._foreach_add(square_avgs, eps)
    torch._foreach_sqrt_(roots)
    torch._foreach_addcdiv_(parameters, gradients, roots, -learning_rate)


class RMSprop(torch.optim.Optimizer):
    """:func:`rmsprop_step` as an optimiser; its state is what a saved agent holds.

    ``square_avg`` begins at zero.

    :param params: parameters to step.
    :param lr: learning rate ``η``.
    :param alpha: what is kept of the running mean of ``g²``.
    :param eps: added under the root.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 7e-4,
        alpha: float = 0.99,
        eps: float = 1e-5,
    ) -> None:
        super().__init__(params, {"lr": lr, "alpha": alpha, "eps": eps})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Step every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            stepped = [p for p in group["params"] if p.grad is not None]
            rmsprop_step(
                stepped,
                self.square_avgs(stepped),
                [p.grad for p in stepped],
                learning_rate=float(group["lr"]),
                alpha=group["alpha"],
                eps=group["eps"],
            )
        return loss

    def step_along(self, gradient: torch.Tensor, parameters: Sequence[nn.Parameter]) -> None:
        """Step some parameters with a flat gradient, the rest of the group standing still.

        :param gradient: shape ``(n,)``.
        :param parameters: of the first group, ``n`` entries in all.
        """
        group = self.param_groups[0]
        parts = torch.split(gradient, [parameter.numel() for parameter in parameters])
        rmsprop_step(
            list(parameters),
            self.square_avgs(parameters),
            [part.view_as(p) for part, p in zip(parts, parameters, strict=True)],
            learning_rate=float(group["lr"]),
            alpha=group["alpha"],
            eps=group["eps"],
        )

    def square_avgs(self, parameters: Iterable[nn.Parameter]) -> list[torch.Tensor]:
        """Return the running mean of ``g²`` of each parameter, to be changed in place."""
        found = []
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["square_avg"] = torch.zeros_like(parameter)
            found.append(state["square_avg"])
        return found


class SharedOptimizer:
    """Parameters ``θ`` and RMSprop's ``v`` in memory that all processes read and write.

    Nobody waits for anybody. Two workers that push at the same time may each lose some of the
    other's change, and who pulls meanwhile may get a mixture of old and new entries: this is the
    algorithm's (Hogwild's) bargain. A single entry is never torn, since the memory is aligned.

    Hand it to a process as an argument; each process makes its own view of the same memory.

    :param context: of the processes to come.
    :param parameters: the start, ``n`` entries in all.
    :param square_avgs: RMSprop's statistics at the start, of the same shapes.
    :param n_workers: who may push.
    :param alpha: as in :func:`rmsprop_step`.
    :param eps: as in :func:`rmsprop_step`.

    Ref: Mnih et al. 2016, arXiv:1602.01783, section 4 ("shared RMSProp"); Recht et al. 2011,
    arXiv:1106.5730.
    """

    def __init__(
        self,
        context: BaseContext,
        parameters: Sequence[torch.Tensor],
        square_avgs: Sequence[torch.Tensor],
        n_workers: int,
        *,
        alpha: float,
        eps: float,
    ) -> None:
        n_entries = sum(parameter.numel() for parameter in parameters)
        # One writer per entry of the clock, hence exact without a lock.
        self._raw: tuple[Any, Any, Any] = (
            context.RawArray("f", n_entries),
            context.RawArray("f", n_entries),
            context.RawArray("q", n_workers),
        )
        self._alpha, self._eps = alpha, eps
        self._map()
        self._parameters.copy_(flatten(parameters))
        self._square_avg.copy_(flatten(square_avgs))

    def _map(self) -> None:
        raw_parameters, raw_square_avg, raw_clock = self._raw
        self._parameters = torch.from_numpy(np.frombuffer(raw_parameters, np.float32))
        self._square_avg = torch.from_numpy(np.frombuffer(raw_square_avg, np.float32))
        self._clock = np.frombuffer(raw_clock, np.int64)

    def __getstate__(self) -> dict[str, Any]:
        return {"_raw": self._raw, "_alpha": self._alpha, "_eps": self._eps}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._map()

    @property
    def n_updates(self) -> int:
        """Pushes of all workers so far."""
        return int(self._clock.sum())

    def pull(self, parameters: Sequence[torch.Tensor]) -> int:
        """Copy ``θ`` into ``parameters``.

        :return: the updates that are certainly in it, for :meth:`push`.
        """
        n_updates = self.n_updates
        write_flat(self._parameters, parameters)
        return n_updates

    def pull_square_avgs(self, square_avgs: Sequence[torch.Tensor]) -> None:
        """Copy ``v`` into ``square_avgs``."""
        write_flat(self._square_avg, square_avgs)

    def push(
        self, gradient: torch.Tensor, *, learning_rate: float, worker: int, pulled_at: int
    ) -> int:
        """Step ``θ`` and ``v`` with one worker's gradient.

        :param gradient: shape ``(n,)``.
        :param learning_rate: ``η``.
        :param worker: who pushes.
        :param pulled_at: what :meth:`pull` returned when the worker got the parameters that the
            gradient was taken at.
        :return: the staleness of the gradient: updates by others between that pull and this push.
        """
        staleness = self.n_updates - pulled_at
        rmsprop_step(
            [self._parameters],
            [self._square_avg],
            [gradient.to(self._parameters)],
            learning_rate=learning_rate,
            alpha=self._alpha,
            eps=self._eps,
        )
        self._clock[worker] += 1
        return staleness

    def is_finite(self) -> bool:
        """Tell whether every parameter is a number."""
        return bool(torch.isfinite(self._parameters).all())
