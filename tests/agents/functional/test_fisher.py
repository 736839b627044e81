"""Fisher and Gauss-Newton products against matrices built the long way, in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Categorical, Distribution, Normal

from agents.functional import (
    dependent_parameters,
    fisher_vector_product,
    flatten,
    gauss_newton_vector_product,
    mean_kl,
    write_flat,
)

N_STATES, N_INPUTS = 7, 3


class TinyPolicy(nn.Module):
    """A float64 network with ``n_outputs`` outputs and, for Gaussians, a free log std."""

    def __init__(self, n_outputs: int, *, gaussian: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(N_INPUTS, 4), nn.Tanh(), nn.Linear(4, n_outputs))
        self.log_std = nn.Parameter(torch.randn(n_outputs)) if gaussian else None
        self.double()

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.body(states)


@pytest.fixture
def states() -> torch.Tensor:
    return torch.randn(N_STATES, N_INPUTS, dtype=torch.float64)


def dense(product: Callable[[torch.Tensor], torch.Tensor], n: int) -> torch.Tensor:
    """Return the matrix whose columns are the products with unit vectors."""
    return torch.stack([product(unit) for unit in torch.eye(n, dtype=torch.float64)], dim=1)


def flat_gradient(scalar: torch.Tensor, parameters: list[nn.Parameter]) -> torch.Tensor:
    gradients = torch.autograd.grad(scalar, parameters, retain_graph=True, allow_unused=True)
    return flatten(
        torch.zeros_like(parameter) if gradient is None else gradient
        for parameter, gradient in zip(parameters, gradients, strict=True)
    )


def n_entries(parameters: list[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def detached(distribution: Distribution) -> Distribution:
    if isinstance(distribution, Normal):
        return Normal(distribution.loc.detach(), distribution.scale.detach())
    return type(distribution)(logits=distribution.logits.detach())


def explicit_discrete_fisher(
    distributions: list[Distribution], parameters: list[nn.Parameter]
) -> torch.Tensor:
    """Return ``Σ_s Σ_a π ∇log π ∇log πᵀ / N`` by enumerating every action of every part."""
    fisher = torch.zeros(n_entries(parameters), n_entries(parameters), dtype=torch.float64)
    for distribution in distributions:
        # Shape (n_choices, N) or (2, N, n_bits): independent parts contribute one by one.
        for log_probs in distribution.log_prob(distribution.enumerate_support(expand=True)):
            for log_prob in log_probs.flatten():
                score = flat_gradient(log_prob, parameters)
                fisher += log_prob.exp().detach() * torch.outer(score, score)
    return fisher / N_STATES


def cases(states: torch.Tensor, kind: str) -> tuple[list[Distribution], list[nn.Parameter]]:
    sizes = {"categorical": [4], "multi-categorical": [2, 3], "bernoulli": [3]}[kind]
    policy = TinyPolicy(sum(sizes))
    blocks = torch.split(policy(states), sizes, dim=1)
    family = Bernoulli if kind == "bernoulli" else Categorical
    return [family(logits=block) for block in blocks], list(policy.parameters())


@pytest.mark.parametrize("kind", ["categorical", "multi-categorical", "bernoulli"])
def test_discrete_product_is_the_explicit_fisher(states: torch.Tensor, kind: str) -> None:
    distributions, parameters = cases(states, kind)
    kl = mean_kl([detached(d) for d in distributions], distributions)
    matrix = dense(fisher_vector_product(kl, parameters), n_entries(parameters))
    expected = explicit_discrete_fisher(distributions, parameters)
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(matrix, expected, rtol=1e-10, atol=1e-13)


def test_gaussian_product_is_the_explicit_fisher(states: torch.Tensor) -> None:
    # F = Jᵀ M J with M = diag(1/σ², 2) for (mean, log σ), from Jacobians taken row by row.
    policy = TinyPolicy(2, gaussian=True)
    parameters = list(policy.parameters())
    mean, scale = policy(states), policy.log_std.exp()
    expected = torch.zeros(n_entries(parameters), n_entries(parameters), dtype=torch.float64)
    for state in range(N_STATES):
        for action in range(2):
            row = flat_gradient(mean[state, action], parameters)
            expected += torch.outer(row, row) / scale[action].detach() ** 2
            row = flat_gradient(policy.log_std[action], parameters)
            expected += 2.0 * torch.outer(row, row)
    expected /= N_STATES
    distribution = Normal(mean, scale.expand_as(mean))
    kl = mean_kl(detached(distribution), distribution)
    matrix = dense(fisher_vector_product(kl, parameters), n_entries(parameters))
    torch.testing.assert_close(matrix, expected, rtol=1e-10, atol=1e-13)


def test_gaussian_product_is_the_expected_outer_product_of_scores(states: torch.Tensor) -> None:
    # E_a[∇log π ∇log πᵀ] by Gauss-Hermite quadrature: its three points are exact up to degree
    # five, the square of the log-std score has degree four.
    policy = TinyPolicy(1, gaussian=True)
    parameters = list(policy.parameters())
    mean, scale = policy(states), policy.log_std.exp()
    distribution = Normal(mean, scale.expand_as(mean))
    nodes = [-(3.0**0.5), 0.0, 3.0**0.5]
    weights = [1 / 6, 2 / 3, 1 / 6]
    expected = torch.zeros(n_entries(parameters), n_entries(parameters), dtype=torch.float64)
    for node, weight in zip(nodes, weights, strict=True):
        actions = (mean + node * scale).detach()
        for log_prob in distribution.log_prob(actions).flatten():
            score = flat_gradient(log_prob, parameters)
            expected += weight * torch.outer(score, score) / N_STATES
    kl = mean_kl(detached(distribution), distribution)
    matrix = dense(fisher_vector_product(kl, parameters), n_entries(parameters))
    torch.testing.assert_close(matrix, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("kind", ["categorical", "bernoulli", "gaussian"])
def test_both_orders_of_the_kl_have_the_same_hessian(states: torch.Tensor, kind: str) -> None:
    policy = TinyPolicy(3, gaussian=kind == "gaussian")
    outputs = policy(states)
    new: Distribution
    if kind == "gaussian":
        new = Normal(outputs, policy.log_std.exp().expand_as(outputs))
    else:
        new = (Bernoulli if kind == "bernoulli" else Categorical)(logits=outputs)
    old, parameters = detached(new), list(policy.parameters())
    forward = dense(fisher_vector_product(mean_kl(old, new), parameters), n_entries(parameters))
    backward = dense(fisher_vector_product(mean_kl(new, old), parameters), n_entries(parameters))
    torch.testing.assert_close(forward, backward, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["categorical", "multi-categorical", "bernoulli"])
def test_the_matrix_is_symmetric_and_has_no_negative_eigenvalue(
    states: torch.Tensor, kind: str
) -> None:
    distributions, parameters = cases(states, kind)
    kl = mean_kl([detached(d) for d in distributions], distributions)
    matrix = dense(fisher_vector_product(kl, parameters), n_entries(parameters))
    torch.testing.assert_close(matrix, matrix.T, rtol=1e-10, atol=1e-14)
    eigenvalues = torch.linalg.eigvalsh(matrix)
    assert eigenvalues.min() > -1e-12
    assert eigenvalues.max() > 1e-3


def test_damping_is_added_to_the_diagonal(states: torch.Tensor) -> None:
    distributions, parameters = cases(states, "categorical")
    kl = mean_kl([detached(d) for d in distributions], distributions)
    n = n_entries(parameters)
    plain = dense(fisher_vector_product(kl, parameters), n)
    damped = dense(fisher_vector_product(kl, parameters, 0.3), n)
    torch.testing.assert_close(
        damped - plain, 0.3 * torch.eye(n, dtype=torch.float64), rtol=0.0, atol=1e-14
    )


def test_products_are_detached_and_leave_no_gradients(states: torch.Tensor) -> None:
    distributions, parameters = cases(states, "categorical")
    kl = mean_kl([detached(d) for d in distributions], distributions)
    vector = torch.randn(n_entries(parameters), dtype=torch.float64)
    copy = vector.clone()
    assert not fisher_vector_product(kl, parameters, 0.1)(vector).requires_grad
    assert all(parameter.grad is None for parameter in parameters)
    assert torch.equal(vector, copy)


@pytest.mark.parametrize("damping", [0.0, 0.7])
@pytest.mark.parametrize("linear", [False, True])
def test_gauss_newton_product_is_explicit(
    states: torch.Tensor, damping: float, linear: bool
) -> None:
    network = (nn.Linear(N_INPUTS, 1) if linear else TinyPolicy(1)).double()
    parameters = list(network.parameters())
    outputs = network(states).flatten()
    jacobian = torch.stack([flat_gradient(output, parameters) for output in outputs])
    n = n_entries(parameters)
    expected = jacobian.T @ jacobian / N_STATES + damping * torch.eye(n, dtype=torch.float64)
    matrix = dense(gauss_newton_vector_product(outputs, parameters, damping), n)
    torch.testing.assert_close(matrix, expected, rtol=1e-11, atol=1e-14)


def test_flatten_keeps_the_order_of_list_and_rows() -> None:
    parts = [torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor(5.0), torch.tensor([6.0])]
    assert torch.equal(flatten(parts), torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))


def test_flatten_makes_a_copy_even_of_one_vector() -> None:
    part = torch.ones(3)
    flatten([part]).zero_()
    assert torch.equal(part, torch.ones(3))


def test_write_flat_is_the_inverse_of_flatten() -> None:
    parameters = list(TinyPolicy(2, gaussian=True).parameters())
    vector = torch.randn(n_entries(parameters), dtype=torch.float64)
    write_flat(vector, parameters)
    assert torch.equal(flatten(parameters).detach(), vector)
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in parameters)
    assert torch.equal(parameters[0].detach().flatten(), vector[: parameters[0].numel()])


@pytest.mark.parametrize("change", [-1, 1])
def test_write_flat_refuses_a_vector_of_another_length(change: int) -> None:
    parameters = list(TinyPolicy(2).parameters())
    with pytest.raises((RuntimeError, ValueError)):
        write_flat(torch.zeros(n_entries(parameters) + change), parameters)


def test_dependent_parameters_keeps_the_order_and_drops_the_rest() -> None:
    first, frozen, unused, last = (nn.Parameter(torch.ones(2)) for _ in range(4))
    frozen.requires_grad_(requires_grad=False)
    output = (last * first * frozen).sum()
    found = dependent_parameters(output, [first, frozen, unused, last])
    assert [id(parameter) for parameter in found] == [id(first), id(last)]


@pytest.mark.parametrize("factor", [0.0, float("nan")])
def test_dependence_is_in_the_graph_not_in_the_number(factor: float) -> None:
    # At θ_old the gradient of the KL is zero everywhere; in a broken batch it is NaN.
    used = nn.Parameter(torch.ones(2))
    assert dependent_parameters((factor * used).sum(), [used])[0] is used


def test_dependent_parameters_keeps_the_graph() -> None:
    used = nn.Parameter(torch.ones(2))
    output = (used * used).sum()
    dependent_parameters(output, [used])
    (gradient,) = torch.autograd.grad(output, [used])
    assert torch.equal(gradient, 2.0 * torch.ones(2))


def test_an_output_that_depends_on_nothing_has_no_parameters() -> None:
    frozen = nn.Parameter(torch.ones(2), requires_grad=False)
    assert dependent_parameters(frozen.sum(), [frozen, nn.Parameter(torch.ones(1))]) == []
    assert dependent_parameters(nn.Parameter(torch.ones(2)).sum(), [frozen]) == []
