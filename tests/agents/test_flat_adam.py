"""Adam on a flat vector against torch's own, bit for bit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from agents.flat_adam import FlatAdam
from agents.functional import flatten

SHAPES = {
    "one entry": [(1,)],
    "a vector": [(7,)],
    "a network": [(64, 17), (64,), (6, 64), (6,)],
    "odd sizes": [(3,), (5, 7), (1, 1), (2, 3, 4)],
}
every_shape = pytest.mark.parametrize("name", list(SHAPES))


def twins(name: str = "odd sizes") -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    parameters = [nn.Parameter(torch.randn(shape)) for shape in SHAPES[name]]
    return parameters, copy.deepcopy(parameters)


def gradients(parameters: list[nn.Parameter], n_steps: int) -> list[list[torch.Tensor]]:
    """Return gradients on many scales, some of them zero."""
    return [
        [10.0 ** (step % 9 - 6) * torch.randn_like(p) * (step % 5 > 0) for p in parameters]
        for step in range(n_steps)
    ]


def torch_steps(
    optimizer: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    steps: list[list[torch.Tensor]],
) -> None:
    for gradient in steps:
        for parameter, part in zip(parameters, gradient, strict=True):
            parameter.grad = part.clone()
        optimizer.step()


def flat_steps(
    optimizer: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    steps: list[list[torch.Tensor]],
) -> None:
    adam = FlatAdam(optimizer, parameters)
    for gradient in steps:
        adam.step(flatten(gradient))
    adam.write_back()


def assert_equal(
    optimizer: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    expected_optimizer: torch.optim.Optimizer,
    expected: list[nn.Parameter],
) -> None:
    for parameter, other in zip(parameters, expected, strict=True):
        assert torch.equal(parameter, other)
        state, other_state = optimizer.state[parameter], expected_optimizer.state[other]
        assert set(state) == set(other_state)
        for key, value in other_state.items():
            assert torch.equal(state[key], value), key
            assert (state[key].dtype, state[key].shape) == (value.dtype, value.shape), key
            assert not state[key].requires_grad


@every_shape
@pytest.mark.parametrize(
    "settings",
    [{}, {"lr": 3e-4, "eps": 1e-5}, {"lr": 0.1, "betas": (0.5, 0.9)}, {"betas": (0.0, 0.999)}],
    ids=str,
)
def test_fifty_steps_are_torchs(name: str, settings: dict[str, Any]) -> None:
    mine, theirs = twins(name)
    ours, expected = torch.optim.Adam(mine, **settings), torch.optim.Adam(theirs, **settings)
    steps = gradients(mine, 50)
    start = flatten(mine).detach()
    flat_steps(ours, mine, steps)
    torch_steps(expected, theirs, steps)
    assert_equal(ours, mine, expected, theirs)
    assert not torch.equal(flatten(mine), start)


def test_the_views_move_with_each_step_and_the_parameters_at_the_end() -> None:
    mine, theirs = twins()
    ours, expected = torch.optim.Adam(mine), torch.optim.Adam(theirs)
    before = flatten(mine).detach()
    adam = FlatAdam(ours, mine)
    for gradient in gradients(mine, 3):
        adam.step(flatten(gradient))
        torch_steps(expected, theirs, [gradient])
        for view, other in zip(adam.views, theirs, strict=True):
            assert torch.equal(view, other)
        assert torch.equal(flatten(mine), before)
    adam.write_back()
    assert torch.equal(flatten(mine), flatten(theirs))


def test_state_is_handed_over_and_back() -> None:
    mine, theirs = twins()
    ours, expected = torch.optim.Adam(mine), torch.optim.Adam(theirs)
    for turn, steps in enumerate(gradients(mine, 5) for _ in range(6)):
        (flat_steps if turn % 2 else torch_steps)(ours, mine, steps)
        torch_steps(expected, theirs, steps)
        assert_equal(ours, mine, expected, theirs)


def test_a_learning_rate_set_meanwhile_is_obeyed() -> None:
    mine, theirs = twins()
    ours, expected = torch.optim.Adam(mine), torch.optim.Adam(theirs)
    adam = FlatAdam(ours, mine)
    for learning_rate, gradient in zip((1e-2, 0.0, 1e-4), gradients(mine, 3), strict=True):
        ours.param_groups[0]["lr"] = expected.param_groups[0]["lr"] = learning_rate
        adam.step(flatten(gradient))
        torch_steps(expected, theirs, [gradient])
    adam.write_back()
    assert_equal(ours, mine, expected, theirs)


def test_the_state_survives_saving_and_loading() -> None:
    mine, theirs = twins()
    ours, expected = torch.optim.Adam(mine), torch.optim.Adam(theirs)
    first, second = gradients(mine, 4), gradients(mine, 4)
    flat_steps(ours, mine, first)
    torch_steps(expected, theirs, first)

    loaded = copy.deepcopy(mine)
    optimizer = torch.optim.Adam(loaded, lr=1.0)
    optimizer.load_state_dict(copy.deepcopy(ours.state_dict()))
    flat_steps(optimizer, loaded, second)
    torch_steps(expected, theirs, second)
    assert_equal(optimizer, loaded, expected, theirs)


def test_no_step_changes_nothing() -> None:
    mine, theirs = twins()
    ours, expected = torch.optim.Adam(mine), torch.optim.Adam(theirs)
    flat_steps(ours, mine, [])
    assert torch.equal(flatten(mine), flatten(theirs))
    steps = gradients(mine, 3)
    torch_steps(ours, mine, steps)
    torch_steps(expected, theirs, steps)
    assert_equal(ours, mine, expected, theirs)


def test_parameters_left_out_stay() -> None:
    mine, theirs = twins()
    ours, expected = torch.optim.Adam(mine), torch.optim.Adam(theirs)
    before = flatten(mine[2:]).detach()
    steps = gradients(mine[:2], 5)
    flat_steps(ours, mine[:2], steps)
    torch_steps(expected, theirs[:2], steps)
    assert torch.equal(flatten(mine[2:]), before)
    assert_equal(ours, mine[:2], expected, theirs[:2])
    assert set(ours.state_dict()["state"]) == set(expected.state_dict()["state"]) == {0, 1}


def test_plain_adam_can_be_taken_over() -> None:
    parameters, _ = twins()
    optimizer = torch.optim.Adam(parameters, lr=1e-3, eps=1e-5, betas=(0.8, 0.9))
    assert FlatAdam.can_take_over(optimizer, parameters)
    assert FlatAdam.can_take_over(optimizer, parameters[1:])
    torch_steps(optimizer, parameters, gradients(parameters, 2))
    assert FlatAdam.can_take_over(optimizer, parameters)


@pytest.mark.parametrize("setting", ["weight_decay", "amsgrad", "maximize"])
def test_other_kinds_of_adam_cannot(setting: str) -> None:
    parameters, _ = twins()
    value = 0.1 if setting == "weight_decay" else True
    assert not FlatAdam.can_take_over(torch.optim.Adam(parameters, **{setting: value}), parameters)


@pytest.mark.parametrize("cls", [torch.optim.AdamW, torch.optim.NAdam, torch.optim.RMSprop])
def test_other_optimisers_cannot(cls: type[torch.optim.Optimizer]) -> None:
    class OwnAdam(torch.optim.Adam):
        pass

    parameters, _ = twins()
    assert not FlatAdam.can_take_over(cls(parameters), parameters)
    assert not FlatAdam.can_take_over(OwnAdam(parameters), parameters)


def test_groups_with_settings_of_their_own_cannot() -> None:
    parameters, _ = twins()
    groups = [{"params": parameters[:2]}, {"params": parameters[2:], "lr": 0.1}]
    assert not FlatAdam.can_take_over(torch.optim.Adam(groups), parameters)


def test_parameters_stepped_apart_cannot() -> None:
    parameters, _ = twins()
    optimizer = torch.optim.Adam(parameters)
    torch_steps(optimizer, parameters[:1], gradients(parameters[:1], 1))
    assert not FlatAdam.can_take_over(optimizer, parameters)
    assert FlatAdam.can_take_over(optimizer, parameters[:1])
    assert FlatAdam.can_take_over(optimizer, parameters[1:])


def test_parameters_of_another_optimiser_cannot() -> None:
    # torch would leave them where they are.
    parameters, _ = twins()
    assert not FlatAdam.can_take_over(torch.optim.Adam(parameters[1:]), parameters)
