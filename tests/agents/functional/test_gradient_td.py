"""GTD(λ): the update by hand, its known fixed point, and Baird's counterexample, where TD fails."""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import numpy as np
import pytest
import torch

from agents.functional import GTDState, gtd_step, gtd_weights, off_policy_advantages
from agents.functional.gradient_td import secondary_traces

GAMMA, LAMBDA = 0.9, 0.4


def tensor(values: object) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def test_one_step_by_hand() -> None:
    # γ = λ = ½, ρ = 2, v = (1, 2), w = (3, −1), e = (4, 0), x = (1, 0), x' = (0, 1):
    # δ = 1 + ½·2 − 1 = 1, e ← 2·((1, 0) + ¼·(4, 0)) = (4, 0), wᵀe = 12, wᵀx = 3.
    # v ← (1, 2) + 0.1·((4, 0) − ¼·12·(0, 1)) = (1.4, 1.7)
    # w ← (3, −1) + 0.01·((4, 0) − 3·(1, 0)) = (3.01, −1)
    state = GTDState(tensor([1, 2]), tensor([3, -1]), tensor([4, 0]))
    x, next_x = tensor([1, 0]), tensor([0, 1])
    sizes = {"gamma": 0.5, "gae_lambda": 0.5, "step_size": 0.1, "secondary_step_size": 0.01}
    after = gtd_step(state, x, 1.0, next_x, 2.0, **sizes)
    torch.testing.assert_close(after.weights, tensor([1.4, 1.7]))
    torch.testing.assert_close(after.secondary_weights, tensor([3.01, -1.0]))
    torch.testing.assert_close(after.trace, tensor([4, 0]))

    # A real end has no next state: δ = 0, and nothing is left of the trace.
    end = gtd_step(state, x, 1.0, next_x * math.nan, 2.0, terminated=True, **sizes)
    torch.testing.assert_close(end.weights, tensor([1, 2]))
    torch.testing.assert_close(end.secondary_weights, tensor([2.97, -1.0]))
    assert torch.equal(end.trace, tensor([0, 0]))

    # A time limit bootstraps as above; the whole γ wᵀe x' is corrected, since λ is 0 there.
    cut = gtd_step(state, x, 1.0, next_x, 2.0, truncated=True, **sizes)
    torch.testing.assert_close(cut.weights, tensor([1.4, 1.4]))
    assert torch.equal(cut.trace, tensor([0, 0]))


def test_trajectories_sum_up_what_single_steps_do() -> None:
    """Forward view = backward view, with real ends and cuts inside and at the end of the data."""
    generator = torch.Generator().manual_seed(0)
    n_steps, n_envs, n_features = 12, 3, 4
    x = torch.randn(n_steps + 1, n_envs, n_features, generator=generator, dtype=torch.float64)
    rewards = torch.randn(n_steps, n_envs, generator=generator, dtype=torch.float64)
    ratios = torch.rand(n_steps, n_envs, generator=generator, dtype=torch.float64) * 2
    terminated = torch.rand(n_steps, n_envs, generator=generator) < 0.15
    truncated = torch.rand(n_steps, n_envs, generator=generator) < 0.15
    assert terminated.any()
    assert (truncated & ~terminated)[:-1].any()
    v, w = torch.randn(2, n_features, generator=generator, dtype=torch.float64)

    settings = {"gamma": GAMMA, "gae_lambda": LAMBDA}
    values = x @ v
    ends = (terminated, truncated)
    advantages = off_policy_advantages(rewards, values[:-1], values[1:], *ends, ratios, **settings)
    gtd = gtd_weights(advantages, x[:-1] @ w, ratios, *ends, **settings)
    summed_v = torch.einsum("tb,tbf->f", gtd.on_values, x[:-1])
    summed_v += torch.einsum("tb,tbf->f", gtd.on_next_values, x[1:])
    errors = gtd.secondary_targets - x[:-1] @ w
    summed_w = torch.einsum("tb,tbf->f", errors, x[:-1])

    expected_v, expected_w = torch.zeros(2, n_features, dtype=torch.float64)
    for env in range(n_envs):
        trace = torch.zeros(n_features, dtype=torch.float64)
        for step in range(n_steps):
            after = gtd_step(
                GTDState(v, w, trace),
                x[step, env],
                float(rewards[step, env]),
                x[step + 1, env],
                float(ratios[step, env]),
                step_size=1.0,
                secondary_step_size=1.0,
                terminated=bool(terminated[step, env]),
                truncated=bool(truncated[step, env]) or step == n_steps - 1,
                **settings,
            )
            trace = after.trace
            expected_v += after.weights - v
            expected_w += after.secondary_weights - w
    torch.testing.assert_close(summed_v, expected_v, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(summed_w, expected_w, rtol=1e-12, atol=1e-12)


def test_scalar_traces_are_the_product_with_the_vector_trace() -> None:
    # ρ = 2, γλ = ¼: e = 2·(1, 0), then 2·((0, 1) + ¼·(2, 0)) = (1, 2); w = (3, 5).
    h = tensor([[3.0], [5.0], [7.0]])
    ends = torch.tensor([[False], [True], [False]])
    result = secondary_traces(h, torch.full_like(h, 2.0), ends, gamma=0.5, gae_lambda=0.5)
    torch.testing.assert_close(result, tensor([[6.0], [13.0], [14.0]]))


class Data(NamedTuple):
    """Every trajectory of a problem with its probability under the behaviour policy."""

    features: torch.Tensor
    """``x(s_t)`` and the last state's, shape ``(n_steps + 1, n_trajectories, n_features)``."""
    rewards: torch.Tensor
    terminated: torch.Tensor
    ratios: torch.Tensor
    probabilities: torch.Tensor


def baird() -> Data:
    """Baird's star: two actions in seven states, all rewards zero, all values zero.

    ``solid`` leads to the seventh state and is what the target policy always does; ``dashed``
    leads to one of the other six. The behaviour policy takes ``solid`` once in seven, so that it
    visits all states equally. ``V(s_i) = 2 v_i + v_8`` for ``i ≤ 6``, ``V(s_7) = v_7 + 2 v_8``.

    Ref: Baird 1995, in the form of Sutton & Barto 2018, example 11.1 (figure 11.1).
    """
    x = torch.zeros(7, 8, dtype=torch.float64)
    for state in range(6):
        x[state, state], x[state, 7] = 2.0, 1.0
    x[6, 6], x[6, 7] = 1.0, 2.0
    pairs = [(s, n) for s in range(7) for n in range(7)]
    features = torch.stack([torch.stack([x[s] for s, _ in pairs]), x[[n for _, n in pairs]]])
    solid = tensor([float(n == 6) for _, n in pairs])
    return Data(
        features,
        torch.zeros(1, 49, dtype=torch.float64),
        torch.zeros(1, 49, dtype=torch.bool),
        (7.0 * solid).unsqueeze(0),
        torch.full((49,), 1 / 49, dtype=torch.float64),
    )


class Layers:
    """An episodic problem of four layers in which off-policy TD(λ) diverges, too.

    In each layer ``on`` leads deeper and ``off`` ends the episode. The features of deeper states
    are larger and the behaviour policy rarely gets there, while the target policy mostly does.
    """

    features = tensor([[1.0, 0.5], [2.0, 0.0], [4.0, 0.2], [8.0, 1.0]])
    rewards: ClassVar = {"on": [1.0, -2.0, 0.5, 3.0], "off": [0.3, 1.0, -1.0, 2.0]}
    target_on = 0.95


def layered(behavior_on: float = 0.1) -> Data:
    """Enumerate its five trajectories: ``off`` after 0 … 3 steps ``on``, or ``on`` to the end."""
    problem = Layers()
    n_steps, columns = 4, []
    for n_on in range(n_steps + 1):
        length = min(n_on + 1, n_steps)
        actions = ["on"] * n_on + ["off"] * (length - n_on)
        rewards = [problem.rewards[a][t] for t, a in enumerate(actions)]
        on = (problem.target_on / behavior_on, behavior_on)
        off = ((1 - problem.target_on) / (1 - behavior_on), 1 - behavior_on)
        ratios = [on[0] if a == "on" else off[0] for a in actions]
        probability = math.prod(on[1] if a == "on" else off[1] for a in actions)
        # What follows the end is never looked at: it has no features, reward or probability.
        columns.append((length, rewards, ratios, probability))
    shape = (n_steps, len(columns))
    rewards, ratios = torch.zeros(2, *shape, dtype=torch.float64)
    terminated = torch.zeros(shape, dtype=torch.bool)
    features = torch.zeros(n_steps + 1, len(columns), 2, dtype=torch.float64)
    for i, (length, column_rewards, column_ratios, _) in enumerate(columns):
        rewards[:length, i], ratios[:length, i] = tensor(column_rewards), tensor(column_ratios)
        features[:length, i] = problem.features[:length]
        terminated[length - 1 :, i] = True
    return Data(features, rewards, terminated, ratios, tensor([c[3] for c in columns]))


def layered_fixed_point(behavior_on: float = 0.1) -> torch.Tensor:
    """Solve ``Xᵀ D_b (I − γλP)⁻¹ (r + γPXv − Xv) = 0`` from the model, without trajectories."""
    problem = Layers()
    n_states = 4
    transitions = np.diag(np.full(n_states - 1, problem.target_on), k=1)
    on, off = np.array(problem.rewards["on"]), np.array(problem.rewards["off"])
    rewards = problem.target_on * on + (1 - problem.target_on) * off
    visits = np.diag(behavior_on ** np.arange(n_states))
    x, eye = problem.features.numpy(), np.eye(n_states)
    left = x.T @ visits @ np.linalg.inv(eye - GAMMA * LAMBDA * transitions)
    return tensor(np.linalg.solve(left @ (eye - GAMMA * transitions) @ x, left @ rewards))


def expected_update(
    data: Data, v: torch.Tensor, w: torch.Tensor, gamma: float, gae_lambda: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the exact expectations of GTD(λ)'s changes of ``v`` and ``w``."""
    values, before, after = data.features @ v, data.features[:-1], data.features[1:]
    ends = (data.terminated, torch.zeros_like(data.terminated))
    settings = {"gamma": gamma, "gae_lambda": gae_lambda}
    advantages = off_policy_advantages(
        data.rewards, values[:-1], values[1:], *ends, data.ratios, **settings
    )
    gtd = gtd_weights(advantages, before @ w, data.ratios, *ends, **settings)
    mean = "tb,b,tbf->f"
    change_v = torch.einsum(mean, gtd.on_values, data.probabilities, before)
    change_v += torch.einsum(mean, gtd.on_next_values, data.probabilities, after)
    errors = gtd.secondary_targets - before @ w
    return change_v, torch.einsum(mean, errors, data.probabilities, before)


def iterate(
    data: Data,
    start: torch.Tensor,
    n_updates: int,
    *,
    gamma: float,
    gae_lambda: float,
    step_size: float,
    secondary_step_size: float,
) -> torch.Tensor:
    """Return ``v`` after ``n_updates`` expected updates from ``v = start``, ``w = 0``.

    An update is affine in ``(v, w)``: its matrix is found column by column, then raised to a power.
    """
    n = len(start)

    def updated(point: torch.Tensor) -> torch.Tensor:
        v, w = point[:n], point[n:]
        change_v, change_w = expected_update(data, v, w, gamma, gae_lambda)
        return torch.cat([v + step_size * change_v, w + secondary_step_size * change_w])

    offset = updated(torch.zeros(2 * n, dtype=torch.float64))
    affine = torch.eye(2 * n + 1, dtype=torch.float64)
    affine[: 2 * n, 2 * n] = offset
    for column, basis in enumerate(torch.eye(2 * n, dtype=torch.float64)):
        affine[: 2 * n, column] = updated(basis) - offset
    end = torch.cat([start, torch.zeros(n, dtype=torch.float64), tensor([1.0])])
    return (torch.linalg.matrix_power(affine, n_updates) @ end)[:n]


@pytest.mark.parametrize("gamma", [0.9, 0.99])
def test_td_diverges_and_gtd_converges_on_bairds_counterexample(gamma: float) -> None:
    data, start = baird(), tensor([1, 1, 1, 1, 1, 1, 10, 1])
    states = data.features[0, ::7]
    settings = {"gamma": gamma, "gae_lambda": 0.0, "step_size": 0.1}

    diverged = iterate(data, start, 5_000, secondary_step_size=0.0, **settings)
    assert (states @ diverged).abs().min() > 1e6

    converged = iterate(data, start, 20_000_000, secondary_step_size=0.1, **settings)
    assert (states @ converged).abs().max() < 1e-6  # the fixed point: every value is 0


def test_td_diverges_and_gtd_finds_the_fixed_point_with_traces() -> None:
    data, solution = layered(), layered_fixed_point()
    zeros = torch.zeros(2, dtype=torch.float64)
    update = expected_update(data, solution, zeros, GAMMA, LAMBDA)
    torch.testing.assert_close(update[0], zeros, rtol=0.0, atol=1e-12)
    torch.testing.assert_close(update[1], zeros, rtol=0.0, atol=1e-12)

    settings = {"gamma": GAMMA, "gae_lambda": LAMBDA, "step_size": 0.05}
    diverged = iterate(data, zeros, 5_000, secondary_step_size=0.0, **settings)
    assert (diverged - solution).norm() > 1e6
    converged = iterate(data, zeros, 1_000_000, secondary_step_size=0.5, **settings)
    torch.testing.assert_close(converged, solution, rtol=1e-9, atol=1e-9)


def test_the_paper_s_steps_find_the_same_fixed_point_from_samples() -> None:
    """The same problem drawn and learnt one transition at a time, as Algorithm 1 does."""
    problem, behavior_on = Layers(), 0.5
    solution = layered_fixed_point(behavior_on)
    rng = np.random.default_rng(0)
    state, mean, n_episodes = GTDState.zeros(2), torch.zeros(2, dtype=torch.float64), 12_000
    for episode in range(n_episodes):
        step_size = 0.02 / (1 + episode / 1_000)
        for layer in range(4):
            on = rng.random() < behavior_on
            target = problem.target_on if on else 1 - problem.target_on
            terminated = not on or layer == 3
            state = gtd_step(
                state,
                problem.features[layer],
                problem.rewards["on" if on else "off"][layer],
                problem.features[min(layer + 1, 3)],
                target / (behavior_on if on else 1 - behavior_on),
                gamma=GAMMA,
                gae_lambda=LAMBDA,
                step_size=step_size,
                secondary_step_size=step_size,
                terminated=terminated,
            )
            if terminated:
                break
        if episode >= n_episodes // 2:
            mean += state.weights / (n_episodes - n_episodes // 2)
    torch.testing.assert_close(mean, solution, rtol=0.05, atol=0.02)
