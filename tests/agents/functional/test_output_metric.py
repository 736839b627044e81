"""Metrics of the distributions' own parameters: by hand and as Hessians of the KL."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Bernoulli, Categorical, Normal, kl_divergence

from agents.functional import bernoulli_metric, categorical_metric, gaussian_mean_metric


def test_gaussian_by_hand() -> None:
    # 1/σ² for σ = 1/2 and 2.
    log_std = torch.tensor([math.log(0.5), math.log(2.0)])
    result = gaussian_mean_metric(torch.tensor([[1.0, 1.0], [3.0, -8.0]]), log_std)
    torch.testing.assert_close(result, torch.tensor([[4.0, 0.25], [12.0, -2.0]]))


def test_bernoulli_by_hand() -> None:
    # p = 1/2 and p = 3/4.
    logits = torch.tensor([[0.0, math.log(3.0)]])
    result = bernoulli_metric(torch.tensor([[1.0, 16.0]]), logits)
    torch.testing.assert_close(result, torch.tensor([[0.25, 3.0]]))


def test_categorical_by_hand() -> None:
    # p = (1/2, 1/4, 1/4), u = (4, 0, 0): p∘u − p (p·u) = (2, 0, 0) − 2p.
    logits = torch.tensor([[2.0, 1.0, 1.0]]).log()
    result = categorical_metric(torch.tensor([[4.0, 0.0, 0.0]]), logits, [3])
    torch.testing.assert_close(result, torch.tensor([[1.0, -0.5, -0.5]]))


def test_categorical_blocks_do_not_mix() -> None:
    logits, u = torch.randn(4, 5), torch.randn(4, 5)
    together = categorical_metric(u, logits, [2, 3])
    apart = [
        categorical_metric(u[:, :2], logits[:, :2], [2]),
        categorical_metric(u[:, 2:], logits[:, 2:], [3]),
    ]
    assert torch.equal(together, torch.cat(apart, dim=1))
    torch.testing.assert_close(together[:, :2].sum(dim=1), torch.zeros(4))


def test_categorical_does_not_see_a_common_shift() -> None:
    logits = torch.randn(4, 3, dtype=torch.float64)
    shift = torch.full((4, 3), 7.0, dtype=torch.float64)
    result = categorical_metric(shift, logits, [3])
    torch.testing.assert_close(result, torch.zeros_like(shift), rtol=0.0, atol=1e-14)


@pytest.mark.parametrize("kind", ["gaussian", "categorical", "multi-categorical", "bernoulli"])
def test_each_is_the_hessian_of_the_kl(kind: str) -> None:
    z = torch.randn(5, dtype=torch.float64)
    u = torch.randn(1, 5, dtype=torch.float64)
    log_std = torch.randn(5, dtype=torch.float64)

    def divergence(new: torch.Tensor) -> torch.Tensor:
        if kind == "gaussian":
            return kl_divergence(Normal(z, log_std.exp()), Normal(new, log_std.exp())).sum()
        if kind == "bernoulli":
            return kl_divergence(Bernoulli(logits=z), Bernoulli(logits=new)).sum()
        sizes = [5] if kind == "categorical" else [2, 3]
        parts = zip(torch.split(z, sizes), torch.split(new, sizes), strict=True)
        return sum(kl_divergence(Categorical(logits=a), Categorical(logits=b)) for a, b in parts)

    hessian = torch.autograd.functional.hessian(divergence, z.clone())
    result = {
        "gaussian": lambda: gaussian_mean_metric(u, log_std),
        "categorical": lambda: categorical_metric(u, z.unsqueeze(0), [5]),
        "multi-categorical": lambda: categorical_metric(u, z.unsqueeze(0), [2, 3]),
        "bernoulli": lambda: bernoulli_metric(u, z.unsqueeze(0)),
    }[kind]()
    torch.testing.assert_close(result, u @ hessian, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("logit", [-500.0, 500.0])
def test_certain_actions_have_no_information(logit: float) -> None:
    logits = torch.tensor([[logit, 0.0]])
    assert torch.equal(categorical_metric(torch.ones(1, 2), logits, [2]), torch.zeros(1, 2))
    assert bernoulli_metric(torch.ones(1, 2), logits).tolist() == [[0.0, 0.25]]
