"""The hand-written Jacobian products against torch.func, in float64."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import pytest
import torch
from torch import nn

from agents.functional.mlp import ACTIVATIONS, MLPLinearization

MODULES: dict[str, nn.Module] = {
    "tanh": nn.Tanh(),
    "relu": nn.ReLU(),
    "elu": nn.ELU(),
    "silu": nn.SiLU(),
}
HIDDEN = [(), (5,), (5, 4), (5, 4, 6)]
N_SAMPLES, N_INPUTS, N_OUTPUTS = 9, 3, 2

every_network = pytest.mark.parametrize("hidden", HIDDEN, ids=lambda sizes: f"{len(sizes)} hidden")
every_activation = pytest.mark.parametrize("name", list(ACTIVATIONS))


class Case(NamedTuple):
    """The same network twice: linearised by hand, and as a function of its parameters."""

    ours: MLPLinearization
    parameters: list[torch.Tensor]
    inputs: torch.Tensor
    activation: nn.Module

    def forward(self, *parameters: torch.Tensor) -> torch.Tensor:
        hidden = self.inputs
        for layer in range(len(parameters) // 2):
            if layer > 0:
                hidden = self.activation(hidden)
            hidden = hidden @ parameters[2 * layer].T + parameters[2 * layer + 1]
        return hidden

    def tangents(self) -> list[torch.Tensor]:
        return [torch.randn_like(parameter) for parameter in self.parameters]


def case(name: str, hidden: tuple[int, ...]) -> Case:
    sizes = [N_INPUTS, *hidden, N_OUTPUTS]
    parameters: list[torch.Tensor] = []
    for n_in, n_out in itertools.pairwise(sizes):
        parameters += [torch.randn(n_out, n_in).double(), torch.randn(n_out).double()]
    inputs = torch.randn(N_SAMPLES, N_INPUTS).double()
    ours = MLPLinearization(parameters[0::2], parameters[1::2], name, inputs)
    return Case(ours, parameters, inputs, MODULES[name])


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-12)


def test_every_activation_is_tested() -> None:
    assert set(MODULES) == set(ACTIVATIONS)


@every_activation
@every_network
def test_outputs(name: str, hidden: tuple[int, ...]) -> None:
    network = case(name, hidden)
    close(network.ours.outputs, network.forward(*network.parameters))


# torch.func.jvp calls the deprecated torch.jit inside torch itself.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:DeprecationWarning")
@every_activation
@every_network
def test_jvp(name: str, hidden: tuple[int, ...]) -> None:
    network = case(name, hidden)
    tangents = network.tangents()
    _, expected = torch.func.jvp(network.forward, tuple(network.parameters), tuple(tangents))
    close(network.ours.jvp(tangents), expected)


@every_activation
@every_network
def test_vjp(name: str, hidden: tuple[int, ...]) -> None:
    network = case(name, hidden)
    cotangent = torch.randn(N_SAMPLES, N_OUTPUTS).double()
    _, pullback = torch.func.vjp(network.forward, *network.parameters)
    actual = network.ours.vjp(cotangent)
    expected = pullback(cotangent)
    assert [part.shape for part in actual] == [p.shape for p in network.parameters]
    for ours, theirs in zip(actual, expected, strict=True):
        close(ours, theirs)


@every_activation
@every_network
def test_jvp_and_vjp_are_adjoint(name: str, hidden: tuple[int, ...]) -> None:
    network = case(name, hidden)
    tangents, u = network.tangents(), torch.randn(N_SAMPLES, N_OUTPUTS).double()
    left = (u * network.ours.jvp(tangents)).sum()
    pulled = zip(network.ours.vjp(u), tangents, strict=True)
    close(left, sum((a * b).sum() for a, b in pulled))


@every_activation
def test_products_repeat_and_leave_their_arguments_alone(name: str) -> None:
    # The sweeps work in place; nothing that is cached or passed in may change.
    network = case(name, (5, 4))
    tangents, u = network.tangents(), torch.randn(N_SAMPLES, N_OUTPUTS).double()
    copies, u_copy = [tangent.clone() for tangent in tangents], u.clone()
    first_jvp, first_vjp = network.ours.jvp(tangents), network.ours.vjp(u)
    assert torch.equal(network.ours.jvp(tangents), first_jvp)
    assert all(map(torch.equal, network.ours.vjp(u), first_vjp))
    assert all(map(torch.equal, tangents, copies))
    assert torch.equal(u, u_copy)


@every_activation
@pytest.mark.parametrize("x", [-800.0, -30.0, 0.0, 30.0, 800.0])
def test_activations_and_slopes_at_their_ends(name: str, x: float) -> None:
    value, slope = ACTIVATIONS[name](torch.tensor([x], dtype=torch.float64))
    point = torch.tensor([x], dtype=torch.float64, requires_grad=True)
    expected = MODULES[name](point)
    (gradient,) = torch.autograd.grad(expected.sum(), point)
    close(value, expected.detach())
    close(slope, gradient)


def test_a_linear_network_by_hand() -> None:
    network = MLPLinearization(
        [torch.tensor([[2.0, 3.0]])], [torch.tensor([1.0])], "tanh", torch.tensor([[1.0, -1.0]])
    )
    assert network.outputs.tolist() == [[0.0]]
    tangents = [torch.tensor([[10.0, 1.0]]), torch.tensor([0.5])]
    assert network.jvp(tangents).tolist() == [[9.5]]
    d_weight, d_bias = network.vjp(torch.tensor([[4.0]]))
    assert (d_weight.tolist(), d_bias.tolist()) == ([[4.0, -4.0]], [4.0])


def test_parameters_that_require_gradients_leave_no_graph() -> None:
    layer = nn.Linear(2, 1)
    network = MLPLinearization([layer.weight], [layer.bias], "tanh", torch.ones(4, 2))
    assert not network.outputs.requires_grad
    assert not network.vjp(torch.ones(4, 1))[0].requires_grad
