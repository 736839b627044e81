"""Workers that explore differently: the local policy is made bolder or more careful."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

__all__ = ["tempered", "worker_temperature"]


def worker_temperature(temperatures: Sequence[float] | None, worker: int) -> float:
    """Return the temperature of a worker: the list is dealt out in turn; 1 without a list."""
    return float(temperatures[worker % len(temperatures)]) if temperatures else 1.0


@contextmanager
@torch.no_grad()
def tempered(policy: ActorCriticPolicy, temperature: float) -> Iterator[None]:
    """Let ``policy`` act at ``temperature`` τ inside the block; parameters come back bit for bit.

    Logits are divided by τ; a Gaussian's standard deviation is multiplied by it. Log-probabilities
    taken inside are those of the policy that acted.
    """
    if temperature == 1.0:
        yield
        return
    log_std = getattr(policy, "log_std", None)
    if isinstance(log_std, nn.Parameter):
        changed = [log_std]
    else:
        changed = list(policy.action_net.parameters())
    originals = [parameter.clone() for parameter in changed]
    for parameter in changed:
        if parameter is log_std:
            parameter.add_(math.log(temperature))
        else:
            parameter.div_(temperature)
    try:
        yield
    finally:
        for parameter, original in zip(changed, originals, strict=True):
            parameter.copy_(original)
