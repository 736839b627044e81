"""The optional output ``value``: what the agent expects from here on.

``ActorCriticPolicy`` has a network for it. DQN's is the best Q-value. SAC, TD3 and DDPG tell the
smallest of their critics' Q-values of the deterministic action, TQC the mean of its quantiles.
All are in the units of the (scaled) rewards that the agent was trained with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.dqn.policies import DQNPolicy

from hub.onnx_graph.extractors import emit_features
from hub.onnx_graph.graph import GraphBuilder, Tensor
from hub.onnx_graph.layers import emit_modules
from hub.policy_network import extractor_body, refuse_own_methods

__all__ = ["emit_value"]

_ADVICE = "leave out --value"


def emit_value(
    builder: GraphBuilder,
    policy: BasePolicy,
    observations: Tensor | Mapping[str, Tensor],
    output: Tensor,
) -> None:
    """Declare the output ``value``, one number per observation.

    :param observations: as prepared for the features extractors.
    :param output: of the policy network: a mean, logits or Q-values.
    :raises ExportError: the policy computes values in its own way.
    """
    if isinstance(policy, ActorCriticPolicy):
        value = _state_value(builder, policy, observations)
    elif isinstance(policy, DQNPolicy):
        value = _reduce(builder, output, "ReduceMax")
    else:
        value = _action_value(builder, policy, observations, output)
    builder.output("value", builder.elem_type, value)


def _state_value(
    builder: GraphBuilder,
    policy: ActorCriticPolicy,
    observations: Tensor | Mapping[str, Tensor],
) -> Tensor:
    refuse_own_methods(type(policy), ("predict_values",), _ADVICE)
    # An extractor that is shared is written twice, and runtimes merge what is the same.
    features = emit_features(builder, policy.vf_features_extractor, observations, "vf_features")
    modules = (*extractor_body(policy.mlp_extractor, "critic"), policy.value_net)
    return _reduce(builder, emit_modules(builder, modules, features, "vf"), "ReduceMax")


def _action_value(
    builder: GraphBuilder,
    policy: BasePolicy,
    observations: Tensor | Mapping[str, Tensor],
    mean: Tensor,
) -> Tensor:
    critic: Any = policy.critic
    refuse_own_methods(type(critic), ("forward", "extract_features"), _ADVICE)
    features = emit_features(builder, critic.features_extractor, observations, "qf_features")
    action = builder.node("Tanh", [mean], "qf/action", mean.shape)  # critics know [−1, 1]
    size = features.shape[0] + action.shape[0]
    pair = builder.node("Concat", [features, action], "qf/pair", (size,), axis=1)
    q_values = [
        emit_modules(builder, tuple(network), pair, f"qf{index}")
        for index, network in enumerate(critic.q_networks)
    ]
    n_values = sum(value.shape[0] for value in q_values)
    together = builder.node("Concat", q_values, "qf/values", (n_values,), axis=1)
    has_quantiles = hasattr(critic, "n_quantiles")
    return _reduce(builder, together, "ReduceMean" if has_quantiles else "ReduceMin")


def _reduce(builder: GraphBuilder, values: Tensor, operator: str) -> Tensor:
    return builder.node(operator, [values], "value/reduced", (), axes=[1], keepdims=0)
