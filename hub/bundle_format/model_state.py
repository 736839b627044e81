"""What an agent has learnt as named arrays: its networks, and what its training goes on with.

``policy.safetensors`` holds the policy's ``state_dict``; a tensor that goes by several names there
(a shared features extractor) is written once, under the first. ``optimizer.safetensors`` holds the
rest of what SB3 saves, by the attribute it belongs to:

- ``NAME/lr``: an optimiser's learning rates, one float64 per parameter group;
- ``NAME/INDEX/SLOT``: its state for the parameter of that index, counted through all groups;
  a whole number that is no tensor is an int64 of shape ``()``;
- ``NAME/TENSOR``: a tensor of a module other than the policy;
- ``NAME``: a tensor by itself, such as ``log_ent_coef`` of SAC.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.save_util import recursive_getattr

from agents.errors import BundleError
from hub.bundle_format.bundle_folder import OPTIMIZER, POLICY
from hub.bundle_format.tensor_file import Arrays

__all__ = [
    "load_policy_state",
    "load_training_state",
    "policy_state",
    "training_state",
]

_POLICY = "policy"
# Slots of Adam and RMSprop that hold means of squares, whose roots are taken.
_SQUARES = frozenset(("exp_avg_sq", "max_exp_avg_sq", "square_avg"))


# --- Out of a model -----------------------------------------------------------------------------


def policy_state(model: BaseAlgorithm) -> Arrays:
    """Return copies of the policy's tensors by name.

    :raises BundleError: the policy keeps something else than tensors.
    """
    return {name: _array(tensor, name) for name, tensor in _tensors(model.policy, "").items()}


def training_state(model: BaseAlgorithm) -> Arrays:
    """Return copies of what training goes on with, named as in the module's docstring."""
    arrays: Arrays = {}
    for name, optimizer in _optimizers(model).items():
        rates = [float(group["lr"]) for group in optimizer.param_groups]
        arrays[f"{name}/lr"] = np.array(rates, np.float64)
        for index, parameter in enumerate(_parameters(optimizer)):
            for slot, value in optimizer.state.get(parameter, {}).items():
                if value is not None:
                    arrays[f"{name}/{index}/{slot}"] = _array(value, f"{name}/{index}/{slot}")
    for name, tensor in _other_tensors(model).items():
        arrays[name] = _array(tensor, name)
    return arrays


def _array(value: Any, name: str) -> npt.NDArray[Any]:
    if isinstance(value, int) and not isinstance(value, bool):
        return np.array(value, np.int64)
    if not isinstance(value, torch.Tensor):
        raise BundleError(
            f"'{name}' is a {type(value).__name__}, not a tensor; a bundle holds tensors only."
        )
    if value.dtype not in _NUMPY_TYPES:
        raise BundleError(
            f"'{name}' is of type {value.dtype}, which a bundle does not hold; convert the policy "
            "with `model.policy.float()`."
        )
    return value.detach().cpu().numpy().copy()


_NUMPY_TYPES = {
    torch.float16: np.dtype(np.float16),
    torch.float32: np.dtype(np.float32),
    torch.float64: np.dtype(np.float64),
    torch.int8: np.dtype(np.int8),
    torch.int16: np.dtype(np.int16),
    torch.int32: np.dtype(np.int32),
    torch.int64: np.dtype(np.int64),
    torch.uint8: np.dtype(np.uint8),
}


def _tensors(module: torch.nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    """Return parameters and buffers themselves, each once, by its first name."""
    module = getattr(module, "_orig_mod", module)  # what torch.compile has wrapped
    tensors, seen = {}, set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[prefix + name] = tensor
    return tensors


def _saved(model: BaseAlgorithm) -> Iterator[tuple[str, Any]]:
    """Yield every attribute that SB3 saves as a state dict, except the policy."""
    for name in model._get_torch_save_params()[0]:
        if name != _POLICY:
            yield name, recursive_getattr(model, name)


def _optimizers(model: BaseAlgorithm) -> dict[str, torch.optim.Optimizer]:
    return {
        name: saved for name, saved in _saved(model) if isinstance(saved, torch.optim.Optimizer)
    }


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _other_tensors(model: BaseAlgorithm) -> dict[str, torch.Tensor]:
    """Return the tensors of modules other than the policy, and those that stand alone."""
    tensors: dict[str, torch.Tensor] = {}
    for name, saved in _saved(model):
        if isinstance(saved, torch.nn.Module):
            tensors.update(_tensors(saved, f"{name}/"))
    for name in model._get_torch_save_params()[1]:
        tensor = recursive_getattr(model, name)
        if tensor is not None:
            tensors[name] = tensor
    return tensors


# --- Into a model -------------------------------------------------------------------------------


def load_policy_state(model: BaseAlgorithm, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write ``arrays`` into the policy.

    :raises BundleError: names, shapes or types are not those of this policy; nothing is written.
    """
    _write(_tensors(model.policy, ""), arrays, POLICY)


def load_training_state(model: BaseAlgorithm, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write what :func:`training_state` returned.

    :raises BundleError: it belongs to another algorithm or network.
    """
    rest = dict(arrays)
    for name, optimizer in _optimizers(model).items():
        own = {key: rest.pop(key) for key in arrays if key.startswith(f"{name}/")}
        _load_optimizer(optimizer, name, own)
    _write(_other_tensors(model), rest, OPTIMIZER)


def _write(
    targets: Mapping[str, torch.Tensor], arrays: Mapping[str, npt.NDArray[Any]], where: str
) -> None:
    for name in targets:
        if name not in arrays:
            raise BundleError(f"{where} lacks '{name}', which the agent of agent.json has.")
    for name, array in arrays.items():
        if name not in targets:
            raise BundleError(f"{where} has '{name}', which the agent of agent.json has not.")
        _check_fits(array, targets[name], f"{where}: '{name}'")
    with torch.no_grad():
        for name, array in arrays.items():
            targets[name].copy_(torch.from_numpy(array))


def _check_fits(array: npt.NDArray[Any], target: torch.Tensor, where: str) -> None:
    if array.shape != target.shape:
        raise BundleError(
            f"{where} has the shape {list(array.shape)}, the agent of agent.json needs "
            f"{list(target.shape)}."
        )
    if array.dtype != _NUMPY_TYPES.get(target.dtype):
        raise BundleError(
            f"{where} is of type {array.dtype}, the agent of agent.json needs {target.dtype}."
        )


def _load_optimizer(
    optimizer: torch.optim.Optimizer, name: str, arrays: dict[str, npt.NDArray[Any]]
) -> None:
    groups, parameters = optimizer.param_groups, _parameters(optimizer)
    rates = arrays.pop(f"{name}/lr", None)
    if rates is None or rates.shape != (len(groups),) or rates.dtype != np.float64:
        raise BundleError(f"{OPTIMIZER} needs '{name}/lr' of {len(groups)} float64 numbers.")
    if (rates < 0.0).any():
        raise BundleError(f"{OPTIMIZER}: '{name}/lr' has a negative learning rate.")
    slots = _slots(optimizer)
    state: dict[torch.Tensor, dict[str, Any]] = defaultdict(dict)
    for key, array in arrays.items():
        index, _, slot = key.removeprefix(f"{name}/").partition("/")
        where = f"{OPTIMIZER}: '{key}'"
        if not index.isdecimal() or str(int(index)) != index or int(index) >= len(parameters):
            raise BundleError(f"{where} belongs to no parameter; {name} has {len(parameters)}.")
        if slot not in slots:
            raise BundleError(f"{where} is no state of {type(optimizer).__name__}.")
        parameter = parameters[int(index)]
        state[parameter][slot] = _slot_value(array, slots[slot], parameter, where)
    for number, parameter in enumerate(parameters):
        if parameter in state and (missing := slots.keys() - state[parameter].keys()):
            raise BundleError(f"{OPTIMIZER} lacks '{name}/{number}/{min(missing)}'.")
    for group, rate in zip(groups, rates.tolist(), strict=True):
        group["lr"] = rate
    optimizer.state.update(state)


def _slots(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return an example of each slot that a step leaves behind, from a step of a trial parameter.

    Its shape tells what belongs to a whole parameter, ``()``, and what to each of its elements.
    """
    trial = torch.nn.Parameter(torch.zeros(2))
    trial.grad = torch.zeros(2)
    twin = copy.copy(optimizer)
    twin.state = defaultdict(dict)
    twin.param_groups = [{**optimizer.param_groups[0], "params": [trial]}]
    twin.step()
    return {slot: value for slot, value in twin.state[trial].items() if value is not None}


def _slot_value(
    array: npt.NDArray[Any], example: Any, parameter: torch.nn.Parameter, where: str
) -> Any:
    if isinstance(example, int):
        if array.dtype != np.int64 or array.shape != () or array < 0:
            raise BundleError(f"{where} must be a whole number, an int64 of shape [].")
        return int(array)
    target = parameter.detach() if example.shape else example
    _check_fits(array, target.to(example.dtype) if not example.shape else target, where)
    slot = where.rstrip("'").rpartition("/")[2]
    if (slot in _SQUARES or not example.shape) and (array < 0).any():
        raise BundleError(f"{where} is negative.")
    tensor = torch.from_numpy(array.copy())
    return tensor.to(parameter.device) if example.shape else tensor
