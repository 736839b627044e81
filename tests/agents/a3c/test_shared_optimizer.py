"""RMSprop against hand arithmetic, and what several writers make of one memory."""

from __future__ import annotations

import io
import math
import multiprocessing
import pickle

import pytest
import torch
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from torch import nn

from agents.a3c.shared_optimizer import RMSprop, SharedOptimizer, rmsprop_step

CONTEXT = multiprocessing.get_context("spawn")


def shared(
    values: list[float], n_workers: int = 2, *, alpha: float = 0.5, eps: float = 0.25
) -> SharedOptimizer:
    parameters = [torch.tensor(values)]
    return SharedOptimizer(
        CONTEXT, parameters, [torch.zeros_like(parameters[0])], n_workers, alpha=alpha, eps=eps
    )


def pulled(optimizer: SharedOptimizer, n: int = 1) -> torch.Tensor:
    values = torch.empty(n)
    optimizer.pull([values])
    return values


def test_two_steps_by_hand() -> None:
    theta, v = torch.tensor([1.0], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for gradient in (2.0, -1.0):
        rmsprop_step(
            [theta],
            [v],
            [torch.tensor([gradient], dtype=torch.float64)],
            learning_rate=0.5,
            alpha=0.9,
            eps=0.1,
        )
    first = 1.0 - 0.5 * 2.0 / math.sqrt(0.1 * 4.0 + 0.1)
    v_second = 0.9 * 0.4 + 0.1 * 1.0
    assert v.item() == pytest.approx(v_second, rel=1e-12)
    assert theta.item() == pytest.approx(first + 0.5 / math.sqrt(v_second + 0.1), rel=1e-12)


def test_the_optimiser_differs_from_tensorflow_only_in_where_statistics_begin() -> None:
    torch.manual_seed(0)
    network, twin = nn.Linear(3, 2), nn.Linear(3, 2)
    twin.load_state_dict(network.state_dict())
    ours = RMSprop(network.parameters(), lr=0.01, alpha=0.9, eps=0.1)
    theirs = RMSpropTFLike(twin.parameters(), lr=0.01, alpha=0.9, eps=0.1)
    for square_avg in ours.square_avgs(network.parameters()):
        assert not square_avg.any()
        square_avg.fill_(1.0)
    for _ in range(3):
        inputs = torch.randn(5, 3)
        for module, optimizer in ((network, ours), (twin, theirs)):
            optimizer.zero_grad()
            module(inputs).square().mean().backward()
            optimizer.step()
    for one, other in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0.0, atol=0.0)


def test_a_flat_gradient_steps_as_gradients_in_place_do() -> None:
    torch.manual_seed(0)
    network, twin = nn.Linear(3, 2), nn.Linear(3, 2)
    twin.load_state_dict(network.state_dict())
    gradient = torch.randn(8)
    flat, usual = RMSprop(network.parameters()), RMSprop(twin.parameters())
    flat.step_along(gradient, list(network.parameters()))
    twin.weight.grad, twin.bias.grad = gradient[:6].view(2, 3), gradient[6:]
    usual.step()
    for one, other in zip(network.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other)
        assert torch.equal(flat.state[one]["square_avg"], usual.state[other]["square_avg"])


def test_the_statistics_survive_saving() -> None:
    network = nn.Linear(2, 1)
    optimizer = RMSprop(network.parameters(), lr=0.5)
    optimizer.step_along(torch.tensor([1.0, 2.0, 3.0]), list(network.parameters()))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    other = RMSprop(network.parameters())
    other.load_state_dict(torch.load(file, weights_only=True))
    for ours, theirs in zip(
        optimizer.square_avgs(network.parameters()),
        other.square_avgs(network.parameters()),
        strict=True,
    ):
        assert ours.any()
        assert torch.equal(ours, theirs)
    assert other.param_groups[0]["lr"] == 0.5


def test_workers_share_parameters_and_statistics() -> None:
    """α = 1/2, ε = 1/4: v = (0 + 1.5²)/2, then half of that and half of 1."""
    optimizer = shared([1.0])
    first = optimizer.pull([torch.empty(1)])
    optimizer.push(torch.tensor([1.5]), learning_rate=0.1, worker=0, pulled_at=first)
    v = 1.5**2 / 2
    theta = 1.0 - 0.1 * 1.5 / math.sqrt(v + 0.25)
    assert pulled(optimizer).item() == pytest.approx(theta, rel=1e-6)
    optimizer.push(torch.tensor([1.0]), learning_rate=0.2, worker=1, pulled_at=1)
    v = v / 2 + 0.5
    theta -= 0.2 / math.sqrt(v + 0.25)
    assert pulled(optimizer).item() == pytest.approx(theta, rel=1e-6)
    statistics = torch.empty(1)
    optimizer.pull_square_avgs([statistics])
    assert statistics.item() == pytest.approx(v, rel=1e-6)


def test_staleness_is_what_others_did_between_pull_and_push() -> None:
    optimizer = shared([0.0], n_workers=3)

    def push(worker: int, pulled_at: int) -> int:
        return optimizer.push(torch.ones(1), learning_rate=0.1, worker=worker, pulled_at=pulled_at)

    slow = optimizer.pull([torch.empty(1)])
    for number in range(3):
        assert push(1, optimizer.pull([torch.empty(1)])) == 0  # nobody came between
        assert optimizer.n_updates == number + 1
    middle = optimizer.pull([torch.empty(1)])
    assert push(0, slow) == 3
    assert push(2, middle) == 1
    assert push(0, optimizer.pull([torch.empty(1)])) == 0
    assert optimizer.n_updates == 6


def test_parameters_of_several_shapes() -> None:
    parameters = [torch.arange(6.0).view(2, 3), torch.tensor([6.0])]
    optimizer = SharedOptimizer(
        CONTEXT, parameters, [torch.zeros(2, 3), torch.zeros(1)], 1, alpha=0.0, eps=1.0
    )
    out = [torch.empty(2, 3), torch.empty(1)]
    optimizer.pull(out)
    assert torch.equal(out[0], parameters[0])
    assert torch.equal(out[1], parameters[1])


def test_it_goes_to_a_new_process_only() -> None:
    """A copy in a file would be no shared memory."""
    with pytest.raises(pickle.PicklingError):
        pickle.dumps(shared([1.0]))


def test_a_diverged_parameter_is_seen() -> None:
    assert shared([1.0, 2.0]).is_finite()
    assert not shared([1.0, math.nan]).is_finite()
