"""Ratios, off-policy advantages and emphasis, against hand arithmetic and exact gradients."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import pytest
import torch

from agents.functional import (
    effective_sample_size,
    emphatic_weights,
    generalized_advantages,
    importance_ratios,
    off_policy_advantages,
)

N_LAYERS, N_STATES, N_ACTIONS = 3, 2, 2


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).unsqueeze(1)


def flags(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.bool).unsqueeze(1)


NONE = flags(0, 0, 0)


def test_ratios_and_their_bound() -> None:
    log_probs = torch.tensor([0.5, 0.1, 0.9]).log()
    behavior = torch.tensor([0.25, 0.2, 0.1]).log()
    assert torch.allclose(importance_ratios(log_probs, behavior), torch.tensor([2.0, 0.5, 9.0]))
    clipped = importance_ratios(log_probs, behavior, max_ratio=1.5)
    assert torch.allclose(clipped, torch.tensor([1.5, 0.5, 1.5]))
    assert torch.equal(importance_ratios(behavior, behavior), torch.ones(3))


def test_effective_sample_size() -> None:
    assert effective_sample_size(torch.ones(7)) == 1.0
    assert effective_sample_size(torch.tensor([2.0, 0.0])) == 0.5
    assert effective_sample_size(torch.tensor([3.0, 1.0])) == pytest.approx(16 / 20)
    assert effective_sample_size(torch.zeros(3)) == 0.0


REWARDS, VALUES, NEXT_VALUES = column(1, 2, 3), column(10, 20, 30), column(20, 30, 40)
RATIOS = column(100, 2, 3)


def test_advantages_by_hand() -> None:
    # γ = λ = ½: δ = (1, −3, −7); A_2 = −7, A_1 = −3 + ¼·3·(−7), A_0 = 1 + ¼·2·A_1. Not ρ_0.
    settings = {"gamma": 0.5, "gae_lambda": 0.5}
    ends = (NONE, NONE)
    result = off_policy_advantages(REWARDS, VALUES, NEXT_VALUES, *ends, RATIOS, **settings)
    assert torch.equal(result, column(1 - 8.25 / 2, -8.25, -7))
    # A real end and a time limit both cut; only the time limit has a future.
    for ends, residual in (((flags(0, 1, 0), NONE), -18), ((NONE, flags(0, 1, 0)), -3)):
        result = off_policy_advantages(REWARDS, VALUES, NEXT_VALUES, *ends, RATIOS, **settings)
        assert torch.equal(result, column(1 + residual / 2, residual, -7))


def test_a_ratio_of_one_gives_generalized_advantages_bit_for_bit() -> None:
    generator = torch.Generator().manual_seed(1)
    rewards, values, next_values = torch.randn(3, 40, 5, generator=generator)
    terminated, truncated = torch.rand(2, 40, 5, generator=generator) < 0.1
    arguments = (rewards, values, next_values, terminated, truncated)
    settings = {"gamma": 0.97, "gae_lambda": 0.9}
    result = off_policy_advantages(*arguments, torch.ones_like(rewards), **settings)
    assert torch.equal(result, generalized_advantages(*arguments, **settings))


def test_advantages_and_traces_are_two_views_of_one_sum() -> None:
    """``Σ ρ_t A_t x_t = Σ δ_t e_t`` for any vectors ``x_t``, also across ends."""
    generator = torch.Generator().manual_seed(2)
    n_steps, gamma, gae_lambda = 30, 0.9, 0.8
    shape = (4, n_steps, 1)
    rewards, values, next_values, ratios = torch.randn(shape, generator=generator).double()
    ratios = ratios.exp()
    x = torch.randn(n_steps, 6, generator=generator).double()
    terminated, truncated = torch.rand(2, n_steps, 1, generator=generator) < 0.1
    advantages = off_policy_advantages(
        rewards,
        values,
        next_values,
        terminated,
        truncated,
        ratios,
        gamma=gamma,
        gae_lambda=gae_lambda,
    )
    trace, total = torch.zeros(6).double(), torch.zeros(6).double()
    for step in range(n_steps):
        trace = ratios[step] * (x[step] + gamma * gae_lambda * trace)
        future = 0.0 if terminated[step] else gamma * next_values[step]
        total += (rewards[step] + future - values[step]) * trace
        if terminated[step] or truncated[step]:
            trace = torch.zeros_like(trace)
    torch.testing.assert_close((ratios * advantages * x).sum(0), total, rtol=1e-12, atol=1e-12)


def test_emphasis_by_hand() -> None:
    # F = 1, 1 + ½·2·1 = 2, 1 + ½·4·2 = 5; after an end, 1 again.
    ratios = column(2, 4, 8)
    settings = {"gamma": 0.5}
    assert torch.equal(emphatic_weights(ratios, NONE, emphasis=1.0, **settings), column(1, 2, 5))
    cut = emphatic_weights(ratios, flags(0, 1, 0), emphasis=1.0, **settings)
    assert torch.equal(cut, column(1, 2, 1))
    half = emphatic_weights(ratios, NONE, emphasis=0.5, **settings)
    assert torch.equal(half, column(1, 1.5, 3))
    none = emphatic_weights(ratios * math.inf, NONE, emphasis=0.0, **settings)
    assert torch.equal(none, column(1, 1, 1))


class Problem(NamedTuple):
    """A small episodic problem with every quantity drawn at random, and its two policies."""

    start: torch.Tensor
    rewards: torch.Tensor
    """Shape ``(layer, state, action)``."""
    transitions: torch.Tensor
    """To the states of the next layer or to the end: ``(layer, state, action, n_states + 1)``."""
    logits: torch.Tensor
    """Of the target policy, ``(layer, state, action)``: what is differentiated by."""
    behavior: torch.Tensor
    """Probabilities, same shape."""
    baseline: torch.Tensor
    """Any values at all, ``(layer, state)``: with λ = 1 they must not matter."""


def problem(on_policy: bool = False) -> Problem:
    generator = torch.Generator().manual_seed(4)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).double()

    shape = (N_LAYERS, N_STATES, N_ACTIONS)
    logits, behavior = draw(*shape).requires_grad_(), draw(*shape).softmax(-1)
    return Problem(
        draw(N_STATES).softmax(-1),
        draw(*shape),
        draw(*shape, N_STATES + 1).softmax(-1),
        logits,
        logits.detach().softmax(-1) if on_policy else behavior,
        draw(N_LAYERS, N_STATES),
    )


def target_values(mdp: Problem, gamma: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``V_π`` and ``Q_π`` by dynamic programming, differentiable by the logits."""
    values, action_values = [], []
    following = torch.zeros(N_STATES).double()
    policy = mdp.logits.softmax(-1)
    for layer in reversed(range(N_LAYERS)):
        future = mdp.transitions[layer, ..., :N_STATES] @ following
        action_value = mdp.rewards[layer] + gamma * future
        following = (policy[layer] * action_value).sum(-1)
        values.insert(0, following)
        action_values.insert(0, action_value)
    return torch.stack(values), torch.stack(action_values)


def behavior_visits(mdp: Problem) -> torch.Tensor:
    """Return ``d_b``: how often the behaviour policy is in each state, per episode."""
    visits = [mdp.start]
    for layer in range(N_LAYERS - 1):
        step = torch.einsum("sa,san->sn", mdp.behavior[layer], mdp.transitions[layer])
        visits.append(visits[-1] @ step[:, :N_STATES])
    return torch.stack(visits)


def estimated_gradient(
    mdp: Problem, *, gamma: float, emphasis: float, gae_lambda: float = 1.0
) -> torch.Tensor:
    """Return ``E_b[Σ_t M_t ρ_t A_t ∇log π]``, the expectation over every trajectory there is."""
    end = N_STATES  # the state after the end
    rows: list[tuple[float, list[tuple[int, int]]]] = []
    choices = list(itertools.product(range(N_ACTIONS), range(N_STATES + 1)))
    for first in range(N_STATES):
        for steps in itertools.product(choices, repeat=N_LAYERS):
            probability, state, path = float(mdp.start[first]), first, []
            for layer, (action, next_state) in enumerate(steps):
                if state == end:
                    probability *= float((action, next_state) == (0, end))  # counted once
                    continue
                path.append((state, action))
                probability *= float(mdp.behavior[layer, state, action])
                probability *= float(mdp.transitions[layer, state, action, next_state])
                state = next_state
            if probability > 0.0:
                rows.append((probability, path))
    probabilities = torch.tensor([p for p, _ in rows], dtype=torch.float64)
    torch.testing.assert_close(probabilities.sum(), torch.ones(()).double())

    shape = (N_LAYERS, len(rows))
    states, actions = torch.zeros(shape).long(), torch.zeros(shape).long()
    lived = torch.zeros(shape).double()
    for i, (_, path) in enumerate(rows):
        for layer, (state, action) in enumerate(path):
            states[layer, i], actions[layer, i], lived[layer, i] = state, action, 1.0
    layers = torch.arange(N_LAYERS).unsqueeze(1).expand(shape)
    log_probs = mdp.logits.log_softmax(-1)[layers, states, actions]
    ratios = importance_ratios(log_probs.detach(), mdp.behavior.log()[layers, states, actions])
    values = mdp.baseline[layers, states]
    terminated = torch.cat([lived[1:] == 0.0, torch.ones(1, len(rows), dtype=torch.bool)])
    nowhere = torch.zeros_like(terminated)
    next_values = torch.cat([values[1:], torch.full((1, len(rows)), math.nan).double()])
    advantages = off_policy_advantages(
        mdp.rewards[layers, states, actions],
        values,
        next_values,
        terminated,
        nowhere,
        ratios,
        gamma=gamma,
        gae_lambda=gae_lambda,
    )
    weights = emphatic_weights(ratios, terminated, gamma=gamma, emphasis=emphasis)
    loss = (probabilities * lived * weights * ratios * advantages * log_probs).sum()
    return torch.autograd.grad(loss, mdp.logits)[0]


@pytest.mark.parametrize("gamma", [1.0, 0.8])
def test_ratio_weighting_is_the_exact_off_policy_gradient(gamma: float) -> None:
    """Off-PAC's ``Σ d_b(s) Σ_a ∇π(a|s) Q_π(s, a)``, whatever the baseline is."""
    mdp = problem()
    _, action_values = target_values(mdp, gamma)
    policy = mdp.logits.softmax(-1)
    objective = (behavior_visits(mdp).unsqueeze(-1) * policy * action_values.detach()).sum()
    expected = torch.autograd.grad(objective, mdp.logits)[0]
    result = estimated_gradient(mdp, gamma=gamma, emphasis=0.0)
    torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("gamma", [1.0, 0.8])
def test_full_emphasis_is_the_gradient_of_the_excursion_objective(gamma: float) -> None:
    """With η = 1 it is all of ``∇ Σ_s d_b(s) V_π(s)``; Off-PAC leaves ``∇Q`` out."""
    mdp = problem()
    values, _ = target_values(mdp, gamma)
    expected = torch.autograd.grad((behavior_visits(mdp) * values).sum(), mdp.logits)[0]
    result = estimated_gradient(mdp, gamma=gamma, emphasis=1.0)
    torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-12)
    semi_gradient = estimated_gradient(mdp, gamma=gamma, emphasis=0.0)
    assert (semi_gradient - expected).abs().max() > 0.01
    between = estimated_gradient(mdp, gamma=gamma, emphasis=0.25)
    torch.testing.assert_close(between, 0.75 * semi_gradient + 0.25 * expected)


def test_on_policy_it_is_the_exact_policy_gradient() -> None:
    """With b = π and γ = 1: the gradient of the expected return."""
    mdp = problem(on_policy=True)
    values, _ = target_values(mdp, gamma=1.0)
    expected = torch.autograd.grad(mdp.start @ values[0], mdp.logits)[0]
    result = estimated_gradient(mdp, gamma=1.0, emphasis=0.0)
    torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-12)


def test_true_values_make_every_lambda_exact() -> None:
    mdp = problem()
    exact = mdp._replace(baseline=target_values(mdp, 0.8)[0].detach())
    results = [
        estimated_gradient(exact, gamma=0.8, emphasis=0.0, gae_lambda=gae_lambda)
        for gae_lambda in (0.0, 0.5, 1.0)
    ]
    for result in results[:2]:
        torch.testing.assert_close(result, results[2], rtol=1e-10, atol=1e-12)
    biased = estimated_gradient(mdp, gamma=0.8, emphasis=0.0, gae_lambda=0.0)
    assert (biased - results[2]).abs().max() > 0.005
