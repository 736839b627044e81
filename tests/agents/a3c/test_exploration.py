"""Temperatures: what the policy becomes, and that it comes back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from agents.a3c import A3C
from agents.a3c.exploration import tempered, worker_temperature
from agents.functional import flatten


def parameters(agent: A3C) -> torch.Tensor:
    return flatten(parameter.detach() for parameter in agent.policy.parameters())


def distribution(agent: A3C) -> Any:
    rng = np.random.default_rng(0)
    shape = agent.observation_space.shape or ()
    obs = torch.as_tensor(rng.normal(size=(5, *shape)).astype(np.float32))
    with torch.no_grad():
        return agent.policy.get_distribution(obs).distribution


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_parameters_come_back_bit_for_bit(env_id: str) -> None:
    agent = A3C("MlpPolicy", env_id, seed=0)
    before = parameters(agent)
    with tempered(agent.policy, 3.0):
        assert not torch.equal(parameters(agent), before)
    assert torch.equal(parameters(agent), before)
    with tempered(agent.policy, 1.0):
        assert torch.equal(parameters(agent), before)


def test_logits_are_divided() -> None:
    agent = A3C("MlpPolicy", "CartPole-v1", seed=0)
    with torch.no_grad():
        agent.policy.action_net.weight.mul_(100.0)
    logits = distribution(agent).logits
    with tempered(agent.policy, 2.5):
        expected = torch.log_softmax(logits / 2.5, dim=1)
        torch.testing.assert_close(distribution(agent).logits, expected, rtol=1e-4, atol=1e-5)


def test_the_standard_deviation_is_multiplied_and_the_mean_is_not() -> None:
    agent = A3C("MlpPolicy", "Pendulum-v1", seed=0)
    plain = distribution(agent)
    with tempered(agent.policy, 2.5):
        bold = distribution(agent)
    torch.testing.assert_close(bold.stddev, 2.5 * plain.stddev)
    assert torch.equal(bold.mean, plain.mean)


def test_temperatures_are_dealt_out_in_turn() -> None:
    assert [worker_temperature([0.5, 2.0], worker) for worker in range(4)] == [0.5, 2.0, 0.5, 2.0]
    assert worker_temperature(None, 3) == 1.0
