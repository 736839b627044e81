"""The optional outputs of a stochastic policy: what the caller samples from.

==================  ====================  ========================================================
action space        outputs               an action is
==================  ====================  ========================================================
Box                 ``mean``, ``log_std``  ``mean + exp(log_std) · noise``, clipped or squashed
Discrete            ``logits``            drawn from ``softmax(logits)``
MultiDiscrete       ``logits``            drawn from the softmax of each group of ``nvec`` logits
MultiBinary         ``logits``            1 with probability ``sigmoid(logits)``
==================  ====================  ========================================================
"""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import StateDependentNoiseDistribution
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from torch import nn

from agents.errors import ExportError
from hub.onnx_graph.activations import emit_clip
from hub.onnx_graph.graph import GraphBuilder, Tensor
from hub.onnx_graph.layers import emit_module, weights
from hub.policy_network import PolicyNetwork

__all__ = ["emit_distribution", "sampling"]

# How SAC and TQC bound what their networks give.
_LOG_STD_MIN, _LOG_STD_MAX = -20.0, 2.0


def sampling(network: PolicyNetwork) -> str:
    """Say in a formula what becomes of the outputs and a standard normal ``noise``."""
    space = network.action_space
    if isinstance(space, spaces.Box) and network.squashed:
        return "low + (tanh(mean + exp(log_std) * noise) + 1) / 2 * (high - low)"
    if isinstance(space, spaces.Box):
        return "clip(mean + exp(log_std) * noise, low, high)"
    if isinstance(space, spaces.MultiBinary):
        return "1 with probability sigmoid(logits)"
    if isinstance(space, spaces.MultiDiscrete):
        return "each from softmax of its group of nvec logits"
    return "from softmax(logits)"


def emit_distribution(
    builder: GraphBuilder, policy: BasePolicy, latent: Tensor, output: Tensor
) -> None:
    """Declare the outputs ``mean`` and ``log_std``, or ``logits``.

    With gSDE, whose noise is drawn once for many steps, ``log_std`` is that of a single step.

    :param latent: what the last layer was fed with.
    :param output: what it gave.
    :raises ExportError: the policy is deterministic (TD3, DDPG, DQN).
    """
    owner: Any = policy if isinstance(policy, ActorCriticPolicy) else getattr(policy, "actor", None)
    if not hasattr(owner, "action_dist"):
        raise ExportError(
            f"A {type(policy).__name__} is deterministic: it has no distribution to sample from. "
            "Leave out --stochastic."
        )
    if not isinstance(policy.action_space, spaces.Box):
        builder.output("logits", builder.elem_type, output)
        return
    log_std = _log_std(builder, owner, latent, output)
    builder.output("mean", builder.elem_type, output)
    builder.output("log_std", builder.elem_type, log_std)


def _log_std(builder: GraphBuilder, owner: Any, latent: Tensor, mean: Tensor) -> Tensor:
    if isinstance(owner.action_dist, StateDependentNoiseDistribution):
        return _state_dependent(builder, owner.action_dist, owner.log_std, latent)
    if isinstance(owner.log_std, nn.Module):
        raw = emit_module(builder, owner.log_std, latent, "log_std_net")
        return emit_clip(builder, raw, _LOG_STD_MIN, _LOG_STD_MAX, "log_std_net", "bounded")
    constant = builder.real("log_std.parameter", weights(owner.log_std))
    shape = builder.node("Shape", [mean], "log_std/shape", ())
    return builder.node("Expand", [constant, shape], "log_std/expanded", mean.shape)


def _state_dependent(
    builder: GraphBuilder,
    distribution: StateDependentNoiseDistribution,
    log_std: torch.Tensor,
    latent: Tensor,
) -> Tensor:
    """``½ log(latent² std² + epsilon)``."""
    std = weights(distribution.get_std(log_std))
    variances = builder.real("log_std.variances", std.astype("float64") ** 2)
    shape = (std.shape[1],)
    epsilon, half = builder.real("epsilon", distribution.epsilon), builder.real("half", 0.5)
    squares = builder.node("Mul", [latent, latent], "log_std/squares", latent.shape)
    variance = builder.node("MatMul", [squares, variances], "log_std/variance", shape)
    safe = builder.node("Add", [variance, epsilon], "log_std/safe", shape)
    logarithm = builder.node("Log", [safe], "log_std/log", shape)
    return builder.node("Mul", [logarithm, half], "log_std/half", shape)
