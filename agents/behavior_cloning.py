"""Behaviour log-probabilities for data that come without them."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import obs_as_tensor

from agents.transitions import Array, Observations, Transitions

__all__ = ["clone_behavior"]

_HELD_OUT = 0.1
_PATIENCE = 5
"""Epochs without a better held-out likelihood after which the best policy is taken."""


def clone_behavior(
    policy: ActorCriticPolicy,
    transitions: Transitions,
    *,
    seed: int,
    n_epochs: int = 100,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
) -> Array:
    """Estimate ``log b(a|s)`` of every transition by cloning the policy that made the data.

    A policy of the same networks is fitted to the actions by maximum likelihood; a tenth of the
    transitions is held out, and the parameters that explain those best are taken. Estimated
    ratios are consistent, and often vary less than true ones (Hanna et al. 2019,
    arXiv:1806.01347), as far as the data's policy is one that these networks can be.

    :param policy: the untrained target policy; it is not changed.
    :param transitions: with actions as the policy's distribution takes them.
    :param seed: of the order of samples; no other random generator is touched.
    :param n_epochs: passes over the data, at most.
    :param batch_size: samples of a gradient step.
    :param learning_rate: of Adam.
    :return: shape ``(n,)``.
    """
    clone = deepcopy(policy)
    clone.set_training_mode(True)
    optimizer = torch.optim.Adam(clone.parameters(), lr=learning_rate)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(transitions))
    n_held_out = max(int(_HELD_OUT * len(order)), 1)
    held_out, fitted = order[:n_held_out], order[n_held_out:]
    best, best_parameters, n_worse = -np.inf, deepcopy(clone.state_dict()), 0
    for _ in range(n_epochs):
        rng.shuffle(fitted)
        for first in range(0, len(fitted), batch_size):
            rows = fitted[first : first + batch_size]
            loss = -_log_probs(clone, transitions, rows).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(clone.parameters(), 1.0)
            optimizer.step()
        likelihood = float(_in_parts(clone, transitions, held_out, batch_size).mean())
        if likelihood > best:
            best, best_parameters, n_worse = likelihood, deepcopy(clone.state_dict()), 0
        else:
            n_worse += 1
        if n_worse >= _PATIENCE:
            break
    clone.load_state_dict(best_parameters)
    return _in_parts(clone, transitions, np.arange(len(transitions)), batch_size)


def _log_probs(policy: ActorCriticPolicy, transitions: Transitions, rows: Array) -> torch.Tensor:
    observations = obs_as_tensor(_rows(transitions.observations, rows), policy.device)
    actions = torch.as_tensor(transitions.actions[rows], device=policy.device)
    if isinstance(policy.action_space, spaces.Discrete):
        actions = actions.long().flatten()
    else:
        actions = actions.float().flatten(start_dim=1)
    log_probs: torch.Tensor = policy.get_distribution(observations).log_prob(actions)
    return log_probs


def _in_parts(
    policy: ActorCriticPolicy, transitions: Transitions, rows: Array, batch_size: int
) -> Array:
    parts = np.array_split(rows, max(len(rows) // batch_size, 1))
    with torch.no_grad():
        log_probs = [_log_probs(policy, transitions, part) for part in parts]
    return torch.cat(log_probs).cpu().numpy()


def _rows(observations: Observations, rows: Array) -> Observations:
    if isinstance(observations, dict):
        return {key: values[rows] for key, values in observations.items()}
    return observations[rows]
