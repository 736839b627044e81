"""Fitting the critic by damped Gauss-Newton steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from agents.critic_values import (
    StateActions,
    critic_inputs,
    critic_network,
    critic_values,
    mean_squared_error,
)
from agents.functional.conjugate_gradient import conjugate_gradient
from agents.functional.fisher import (
    MatVec,
    flatten,
    gauss_newton_vector_product,
    write_flat,
)
from agents.functional.line_search import backtracking_line_search
from agents.functional.mlp import MLPLinearization

__all__ = ["fit_gauss_newton"]

_CG_ITERS = 10
_BACKTRACKS = 4


def fit_gauss_newton(
    policy: ActorCriticPolicy,
    parameters: Sequence[nn.Parameter],
    observations: PyTorchObs | StateActions,
    returns: torch.Tensor,
    *,
    n_steps: int,
    damping: float,
) -> float:
    """Minimise ``½ mean (V(s) − return)²`` by damped Gauss-Newton steps on the whole batch.

    Each step solves ``(JᵀJ / N + damping · I) d = Jᵀ(return − V) / N`` by conjugate gradient and
    takes the longest of ``d, d/2, …, d/16`` that lowers the loss, or stays where it is.

    :param policy: whose value function is fitted.
    :param parameters: of the critic, from :func:`critic_parameters`.
    :param observations: N of them.
    :param returns: shape ``(N,)``.
    :param n_steps: Gauss-Newton steps.
    :param damping: Levenberg-Marquardt damping.
    :return: the mean squared error before the last step.

    Ref: Schulman et al. 2015, arXiv:1506.02438, section 5. Differs from it: a fixed damping in
    place of the trust-region constraint, which needs no estimate of the residuals' variance.
    """
    if not parameters:
        return mean_squared_error(policy, observations, returns)
    loss = float("nan")
    for values, product in _linearizations(policy, parameters, observations, n_steps):
        residuals = returns - values
        loss = float((residuals * residuals).mean())
        rhs = product.transposed(residuals)
        try:
            direction = conjugate_gradient(
                product.damped(damping), rhs, max_iters=_CG_ITERS
            ).solution
        except ValueError:  # residuals that are not finite, or NotPositiveDefinite
            return loss
        start = flatten(parameter.detach() for parameter in parameters)
        decrease = _loss_decrease(policy, parameters, observations, returns, loss)
        result = backtracking_line_search(
            decrease,
            start,
            direction,
            predicted_gain=0.0,
            max_constraint=0.0,
            shrink=0.5,
            max_backtracks=_BACKTRACKS,
        )
        write_flat(result.point, parameters)
    return loss


class _Jacobian:
    """Products with the Jacobian ``J`` of the N values with respect to the parameters."""

    def __init__(
        self,
        transposed: Callable[[torch.Tensor], torch.Tensor],
        damped: Callable[[float], MatVec],
    ) -> None:
        self.transposed = transposed
        """Maps ``u`` of shape ``(N,)`` to ``Jᵀu / N``."""
        self.damped = damped
        """Maps a damping to the product ``v ↦ (JᵀJ / N + damping · I) v``."""


def _linearizations(
    policy: ActorCriticPolicy,
    parameters: Sequence[nn.Parameter],
    observations: PyTorchObs | StateActions,
    n_steps: int,
) -> Iterator[tuple[torch.Tensor, _Jacobian]]:
    """Yield the values and their Jacobian at the parameters of the moment, ``n_steps`` times."""
    mlp = critic_network(policy, observations)
    for _ in range(n_steps):
        if mlp is not None and len(mlp.parameters) == len(parameters):
            with torch.no_grad():
                network = mlp.linearize(critic_inputs(policy, mlp, observations))
            yield network.outputs.flatten(), _mlp_jacobian(network, parameters)
        else:
            values = critic_values(policy, observations)
            yield values.detach(), _autograd_jacobian(values, parameters)


def _mlp_jacobian(network: MLPLinearization, parameters: Sequence[nn.Parameter]) -> _Jacobian:
    n_states = len(network.outputs)
    shapes = [parameter.shape for parameter in parameters]
    sizes = [shape.numel() for shape in shapes]

    def transposed(residuals: torch.Tensor) -> torch.Tensor:
        return flatten(network.vjp(residuals.unsqueeze(1) / n_states))

    def damped(damping: float) -> MatVec:
        def product(vector: torch.Tensor) -> torch.Tensor:
            parts = torch.split(vector, sizes)
            tangents = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
            return transposed(network.jvp(tangents).squeeze(1)).add_(vector, alpha=damping)

        return product

    return _Jacobian(transposed, damped)


def _autograd_jacobian(values: torch.Tensor, parameters: Sequence[nn.Parameter]) -> _Jacobian:
    def transposed(residuals: torch.Tensor) -> torch.Tensor:
        weights = residuals / len(values)
        return flatten(
            torch.autograd.grad(values, parameters, grad_outputs=weights, retain_graph=True)
        )

    return _Jacobian(
        transposed, lambda damping: gauss_newton_vector_product(values, parameters, damping)
    )


def _loss_decrease(
    policy: ActorCriticPolicy,
    parameters: Sequence[nn.Parameter],
    observations: PyTorchObs | StateActions,
    returns: torch.Tensor,
    loss: float,
) -> Callable[[torch.Tensor], tuple[float, float]]:
    """Return a function that writes a candidate and tells by how much the loss falls."""

    def evaluate(candidate: torch.Tensor) -> tuple[float, float]:
        write_flat(candidate, parameters)
        return loss - mean_squared_error(policy, observations, returns), 0.0

    return evaluate
