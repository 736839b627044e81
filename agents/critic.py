"""Fitting the critic to the returns of one batch, without touching the policy.

The critic is ``V(s)``, given observations, or ``Q(s, a)`` of an action-value policy, given
:class:`agents.critic_values.StateActions`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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
    take,
)
from agents.errors import UnknownName
from agents.flat_adam import FlatAdam
from agents.functional.fisher import (
    dependent_parameters,
    flatten,
)
from agents.functional.mlp import MLPLinearization
from agents.gauss_newton import fit_gauss_newton
from agents.mlp_structure import MLPStructure

__all__ = [
    "CRITICS",
    "check_critic",
    "critic_parameters",
    "fit_adam",
    "fit_critic",
]

CRITICS = ("adam", "gauss_newton")


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
        :func:`agents.gauss_newton.fit_gauss_newton`.
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
    mlp = critic_network(policy, observations)
    if mlp is not None:
        candidates: Sequence[nn.Parameter] = mlp.parameters
    else:
        values = critic_values(policy, take(observations, slice(0, 1)))
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
        return mean_squared_error(policy, observations, returns)
    mlp = critic_network(policy, observations)
    whole = mlp is not None and len(mlp.parameters) == len(parameters)
    if mlp is not None and whole and FlatAdam.can_take_over(policy.optimizer, parameters):
        with torch.no_grad():
            inputs = critic_inputs(policy, mlp, observations)
            return _fit_adam_by_hand(
                mlp, policy.optimizer, inputs, returns, n_epochs=n_epochs, batch_size=batch_size
            )
    losses = []
    policy.optimizer.zero_grad(set_to_none=True)
    for _ in range(n_epochs):
        for index in torch.split(torch.randperm(len(returns), device=returns.device), batch_size):
            values = critic_values(policy, take(observations, index))
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
