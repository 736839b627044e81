"""Fitting the critic to the returns of one batch, without touching the policy.

The critic is ``V(s)``, given observations, or ``Q(s, a)`` of an action-value policy, given
:class:`StateActions`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, overload

import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from agents.action_value import ActionValuePolicy, action_critic_mlp
from agents.errors import UnknownName
from agents.flat_adam import FlatAdam
from agents.functional.conjugate_gradient import conjugate_gradient
from agents.functional.fisher import (
    MatVec,
    dependent_parameters,
    flatten,
    gauss_newton_vector_product,
    write_flat,
)
from agents.functional.line_search import backtracking_line_search
from agents.functional.mlp import MLPLinearization
from agents.mlp_structure import MLPStructure, critic_mlp

__all__ = [
    "CRITICS",
    "StateActions",
    "check_critic",
    "critic_parameters",
    "fit_adam",
    "fit_critic",
    "fit_gauss_newton",
]

CRITICS = ("adam", "gauss_newton")

_GAUSS_NEWTON_CG_ITERS = 10
_GAUSS_NEWTON_BACKTRACKS = 4


class StateActions(NamedTuple):
    """What ``Q`` is evaluated at: N observations and as many actions."""

    observations: PyTorchObs
    actions: torch.Tensor


def check_critic(name: str) -> None:
    """Refuse a name that :func:`fit_critic` does not know.

    :raises UnknownName: it is none of :data:`CRITICS`.
    """
    if name not in CRITICS:
        raise UnknownName("critic", name, CRITICS)


def fit_critic(
    policy: ActorCriticPolicy,
    parameters: Sequence[nn.Parameter],
    observations: PyTorchObs | StateActions,
    returns: torch.Tensor,
    *,
    critic: str,
    n_updates: int,
    batch_size: int,
    damping: float,
) -> float:
    """Fit the critic as an algorithm's parameters of these names say.

    :param critic: ``"adam"`` for :func:`fit_adam`, ``"gauss_newton"`` for
        :func:`fit_gauss_newton`.
    :param n_updates: passes over the batch of the former, steps of the latter.
    :param batch_size: of the former.
    :param damping: of the latter.
    :return: the critic's loss.
    """
    check_critic(critic)
    if critic == "gauss_newton":
        return fit_gauss_newton(
            policy, parameters, observations, returns, n_steps=n_updates, damping=damping
        )
    return fit_adam(
        policy, parameters, observations, returns, n_epochs=n_updates, batch_size=batch_size
    )


def critic_parameters(
    policy: ActorCriticPolicy,
    observations: PyTorchObs | StateActions,
    policy_parameters: Sequence[nn.Parameter],
) -> list[nn.Parameter]:
    """Return the parameters that the value depends on and the action distribution does not.

    Layers shared with the policy belong to the policy: moving them for the critic's sake would
    move the policy outside its trust region.
    """
    shared = {id(parameter) for parameter in policy_parameters}
    mlp = _network(policy, observations)
    if mlp is not None:
        candidates: Sequence[nn.Parameter] = mlp.parameters
    else:
        values = _values(policy, _take(observations, slice(0, 1)))
        candidates = dependent_parameters(values.sum(), policy.parameters())
    return [parameter for parameter in candidates if id(parameter) not in shared]


def fit_adam(
    policy: ActorCriticPolicy,
    parameters: Sequence[nn.Parameter],
    observations: PyTorchObs | StateActions,
    returns: torch.Tensor,
    *,
    n_epochs: int,
    batch_size: int,
) -> float:
    """Minimise ``mean (V(s) − return)²`` by minibatch steps of the policy's own optimiser.

    A minibatch whose loss is not finite is passed over: one step along it would leave NaN, or an
    infinite second moment in the optimiser, for good.

    :param policy: its ``optimizer`` steps the critic alone, since only the critic has gradients.
    :param parameters: of the critic, from :func:`critic_parameters`.
    :param observations: N of them.
    :param returns: shape ``(N,)``.
    :param n_epochs: passes over the batch, each in a new random order.
    :param batch_size: samples per step; the last step of a pass may have fewer.
    :return: the loss averaged over all steps.
    """
    if not parameters:
        return _mean_squared_error(policy, observations, returns)
    mlp = _network(policy, observations)
    whole = mlp is not None and len(mlp.parameters) == len(parameters)
    if mlp is not None and whole and FlatAdam.can_take_over(policy.optimizer, parameters):
        with torch.no_grad():
            inputs = _inputs(policy, mlp, observations)
            return _fit_adam_by_hand(
                mlp, policy.optimizer, inputs, returns, n_epochs=n_epochs, batch_size=batch_size
            )
    losses = []
    policy.optimizer.zero_grad(set_to_none=True)
    for _ in range(n_epochs):
        for index in torch.split(torch.randperm(len(returns), device=returns.device), batch_size):
            values = _values(policy, _take(observations, index))
            loss = nn.functional.mse_loss(values, returns[index])
            losses.append(loss.detach())
            if not torch.isfinite(loss):
                continue
            gradients = torch.autograd.grad(loss, parameters)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            policy.optimizer.step()
    policy.optimizer.zero_grad(set_to_none=True)
    return float(torch.stack(losses).mean())


def _fit_adam_by_hand(
    mlp: MLPStructure,
    optimizer: torch.optim.Optimizer,
    inputs: torch.Tensor,
    returns: torch.Tensor,
    *,
    n_epochs: int,
    batch_size: int,
) -> float:
    """Do what :func:`fit_adam` does, with gradients by hand and one flat vector to step."""
    adam = FlatAdam(optimizer, mlp.parameters)
    losses = []
    for _ in range(n_epochs):
        order = torch.randperm(len(returns), device=returns.device)
        minibatches = zip(
            torch.split(inputs[order], batch_size),
            torch.split(returns[order], batch_size),
            strict=True,
        )
        for states, targets in minibatches:
            network = MLPLinearization(adam.views[0::2], adam.views[1::2], mlp.activation, states)
            errors = network.outputs.flatten() - targets
            loss = float(errors @ errors) / len(errors)
            losses.append(loss)
            if math.isfinite(loss):
                cotangent = errors.mul_(2.0 / len(errors)).unsqueeze(1)
                adam.step(flatten(network.vjp(cotangent)))
    adam.write_back()
    return sum(losses) / len(losses)


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
        return _mean_squared_error(policy, observations, returns)
    loss = float("nan")
    for values, product in _linearizations(policy, parameters, observations, n_steps):
        residuals = returns - values
        loss = float((residuals * residuals).mean())
        rhs = product.transposed(residuals)
        try:
            direction = conjugate_gradient(
                product.damped(damping), rhs, max_iters=_GAUSS_NEWTON_CG_ITERS
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
            max_backtracks=_GAUSS_NEWTON_BACKTRACKS,
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
    mlp = _network(policy, observations)
    for _ in range(n_steps):
        if mlp is not None and len(mlp.parameters) == len(parameters):
            with torch.no_grad():
                network = mlp.linearize(_inputs(policy, mlp, observations))
            yield network.outputs.flatten(), _mlp_jacobian(network, parameters)
        else:
            values = _values(policy, observations)
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
        return loss - _mean_squared_error(policy, observations, returns), 0.0

    return evaluate


@torch.no_grad()
def _mean_squared_error(
    policy: ActorCriticPolicy, observations: PyTorchObs | StateActions, returns: torch.Tensor
) -> float:
    return float(nn.functional.mse_loss(_values(policy, observations), returns))


def _network(
    policy: ActorCriticPolicy, observations: PyTorchObs | StateActions
) -> MLPStructure | None:
    """Return the critic's layers if it is a common MLP."""
    if isinstance(observations, StateActions):
        return action_critic_mlp(policy)
    return critic_mlp(policy)


def _inputs(
    policy: ActorCriticPolicy, mlp: MLPStructure, observations: PyTorchObs | StateActions
) -> torch.Tensor:
    """Return what the first of the critic's layers is fed with, shape ``(N, n_in)``."""
    if isinstance(observations, StateActions):
        return _action_value_policy(policy).critic_inputs(*observations)
    return mlp.inputs(policy, observations)


def _values(policy: ActorCriticPolicy, observations: PyTorchObs | StateActions) -> torch.Tensor:
    """Return the critic's values, shape ``(N,)``."""
    if isinstance(observations, StateActions):
        return _action_value_policy(policy).action_values(*observations).flatten()
    return policy.predict_values(observations).flatten()


def _action_value_policy(policy: ActorCriticPolicy) -> ActionValuePolicy:
    if not isinstance(policy, ActionValuePolicy):
        raise TypeError(f"{type(policy).__name__} has no action-value critic")
    return policy


@overload
def _take(observations: StateActions, index: torch.Tensor | slice) -> StateActions: ...


@overload
def _take(observations: PyTorchObs, index: torch.Tensor | slice) -> PyTorchObs: ...


def _take(
    observations: PyTorchObs | StateActions, index: torch.Tensor | slice
) -> PyTorchObs | StateActions:
    if isinstance(observations, StateActions):
        return StateActions(_take(observations.observations, index), observations.actions[index])
    if isinstance(observations, dict):
        return {key: value[index] for key, value in observations.items()}
    return observations[index]
