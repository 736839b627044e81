"""The order of the KL, its value by hand, and what is summed and what is averaged."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Bernoulli, Categorical, Normal

from agents.functional import mean_kl, take_states


def gaussian(*mean_and_std: tuple[float, float]) -> Normal:
    means, stds = zip(*mean_and_std, strict=True)
    return Normal(torch.tensor([means]), torch.tensor([stds]))


def gaussian_kl(old: tuple[float, float], new: tuple[float, float]) -> float:
    """Return ``log(σ_new/σ_old) + (σ_old² + (μ_old − μ_new)²) / 2σ_new² − 1/2``."""
    (mean_old, std_old), (mean_new, std_new) = old, new
    square = std_old**2 + (mean_old - mean_new) ** 2
    return math.log(std_new / std_old) + square / (2.0 * std_new**2) - 0.5


def test_the_expectation_is_under_the_old_policy() -> None:
    old, new = (0.0, 1.0), (1.0, 2.0)
    forward, backward = gaussian_kl(old, new), gaussian_kl(new, old)
    assert (round(forward, 4), round(backward, 4)) == (0.4431, 1.3069)
    assert float(mean_kl(gaussian(old), gaussian(new))) == pytest.approx(forward, rel=1e-6)
    assert float(mean_kl(gaussian(new), gaussian(old))) == pytest.approx(backward, rel=1e-6)


def test_categorical_order_by_hand() -> None:
    old = Categorical(probs=torch.tensor([[0.5, 0.5]]))
    new = Categorical(probs=torch.tensor([[0.9, 0.1]]))
    forward = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    backward = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    assert abs(forward - backward) > 0.1
    assert float(mean_kl(old, new)) == pytest.approx(forward, rel=1e-6)
    assert float(mean_kl(new, old)) == pytest.approx(backward, rel=1e-6)


def test_action_dimensions_are_summed() -> None:
    old, new = [(0.0, 1.0), (3.0, 0.5)], [(1.0, 2.0), (2.0, 0.7)]
    expected = sum(gaussian_kl(a, b) for a, b in zip(old, new, strict=True))
    assert float(mean_kl(gaussian(*old), gaussian(*new))) == pytest.approx(expected, rel=1e-6)


def test_states_are_averaged() -> None:
    old = Normal(torch.zeros(4, 1), torch.ones(4, 1))
    new = Normal(torch.tensor([[0.0], [1.0], [2.0], [3.0]]), torch.ones(4, 1))
    assert float(mean_kl(old, new)) == pytest.approx((0 + 0.5 + 2.0 + 4.5) / 4)


def test_bits_are_summed_and_states_averaged() -> None:
    old = Bernoulli(probs=torch.full((2, 3), 0.5))
    new = Bernoulli(probs=torch.tensor([[0.9, 0.5, 0.5], [0.9, 0.9, 0.5]]))
    one = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert float(mean_kl(old, new)) == pytest.approx((1 * one + 2 * one) / 2, rel=1e-6)


def test_parts_of_a_sequence_are_summed() -> None:
    half, skewed = torch.tensor([[0.5, 0.5]] * 3), torch.tensor([[0.9, 0.1]] * 3)
    third, other = torch.full((3, 3), 1 / 3), torch.tensor([[0.5, 0.25, 0.25]] * 3)
    old = [Categorical(probs=half), Categorical(probs=third)]
    new = [Categorical(probs=skewed), Categorical(probs=other)]
    expected = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    expected += (math.log(2 / 3) + 2 * math.log(4 / 3)) / 3
    assert float(mean_kl(old, new)) == pytest.approx(expected, rel=1e-5)


def test_a_policy_does_not_diverge_from_itself() -> None:
    logits = torch.randn(5, 4)
    assert float(mean_kl(Categorical(logits=logits), Categorical(logits=logits))) == 0.0


def test_an_action_that_became_impossible_is_infinitely_far() -> None:
    old = Categorical(probs=torch.tensor([[0.5, 0.5]]))
    assert float(mean_kl(old, Categorical(probs=torch.tensor([[1.0, 0.0]])))) == math.inf


def test_a_distribution_and_a_sequence_cannot_be_compared() -> None:
    one = Categorical(probs=torch.tensor([[0.5, 0.5]]))
    with pytest.raises(ValueError, match="cannot compare Categorical with list"):
        mean_kl(one, [one])
    with pytest.raises(ValueError, match="cannot compare list with Categorical"):
        mean_kl([one], one)


def test_sequences_of_different_lengths_cannot_be_compared() -> None:
    one = Categorical(probs=torch.tensor([[0.5, 0.5]]))
    with pytest.raises(ValueError, match=r"zip\(\)"):
        mean_kl([one], [one, one])


def test_states_are_taken_from_each_kind_of_distribution() -> None:
    index = torch.tensor([4, 0])
    logits = torch.randn(5, 3)
    kinds = [Normal(torch.randn(5, 3), torch.rand(5, 3)), Bernoulli(logits=logits)]
    for whole in [*kinds, Categorical(logits=logits), Categorical(probs=logits.exp())]:
        part = take_states(whole, index)
        assert type(part) is type(whole)
        expected = torch.distributions.kl_divergence(whole, whole.expand(whole.batch_shape))
        assert part.batch_shape == expected[index].shape
        sample = whole.sample()
        torch.testing.assert_close(part.log_prob(sample[index]), whole.log_prob(sample)[index])
    first, second = take_states([Categorical(logits=logits), kinds[0]], index)
    torch.testing.assert_close(first.probs, torch.softmax(logits, dim=1)[index])
    assert torch.equal(second.mean, kinds[0].mean[index])
