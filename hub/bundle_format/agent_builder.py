"""An SB3 agent from a manifest and arrays, built without a byte of code from either."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize
from stable_baselines3.her import HerReplayBuffer

from agents.errors import BundleError, UnknownName
from hub import signatures
from hub.bundle_format.agent_arguments import arguments_from_json, policy_kwargs_from_json
from hub.bundle_format.agent_classes import agent_class
from hub.bundle_format.allocation_limit import AllocationLimit
from hub.bundle_format.counters import load_counters
from hub.bundle_format.manifest import Manifest
from hub.bundle_format.model_state import load_policy_state, load_training_state
from hub.bundle_format.tensor_file import Arrays

__all__ = ["MAX_BUFFER_BYTES", "build_agent", "policy_class"]

# What the bundle itself decides, and nobody who loads it.
_FIXED = frozenset(("policy", "env", "policy_kwargs", "device", "_init_setup_model"))
#: Memory that the buffers of an agent may ask for. SB3 takes it page by page as they fill.
MAX_BUFFER_BYTES = 2**36


def policy_class(algorithm: type[BaseAlgorithm], name: str) -> type[BasePolicy]:
    """Return the policy that ``algorithm`` knows as ``name``.

    :raises BundleError: it knows none of that name.
    """
    if name not in algorithm.policy_aliases:
        raise BundleError(str(UnknownName("policy", name, algorithm.policy_aliases)))
    return algorithm.policy_aliases[name]


def build_agent(
    manifest: Manifest,
    weights: Arrays,
    training: Arrays | None,
    *,
    env: VecEnv | None = None,
    device: torch.device | str = "auto",
    changes: Mapping[str, Any] | None = None,
    buffers: bool = True,
) -> BaseAlgorithm:
    """Return the agent; the global random generators are left as they are.

    :param weights: the policy's tensors.
    :param training: what training goes on with, None to begin with fresh optimisers.
    :param env: wrapped as the agent needs it, None to act only.
    :param changes: constructor arguments as plain data, which replace those of the manifest.
    :param buffers: False to leave out the memory for experience, of an agent that only acts.
    :raises BundleError: manifest or arrays are damaged, contradict each other or ask for too much.
    :raises ConfigError: ``env`` or ``changes`` do not fit the agent.
    :raises MissingDependency: the algorithm's package is not installed.
    """
    algorithm = agent_class(manifest.library, manifest.algorithm)
    policy = policy_class(algorithm, manifest.policy)
    arguments = arguments_from_json(algorithm, manifest.arguments)
    policy_kwargs = policy_kwargs_from_json(policy, manifest.policy_kwargs)
    arguments |= _changed(algorithm, changes or {})
    sizes = [array.size for array in (*weights.values(), *(training or {}).values())]
    try:
        with _random_generators_kept(), AllocationLimit(sizes):
            model = algorithm(  # type: ignore[call-arg]
                manifest.policy, None, device=device, _init_setup_model=False, **arguments
            )
            model.policy_kwargs = policy_kwargs
            _place(model, manifest, env)
            if buffers:
                _check_buffers(model)
            else:
                _leave_out_buffers(model)
            _check_parameters(model)
            model._setup_model()
            load_policy_state(model, weights)
            if training is not None:
                load_training_state(model, training)
            load_counters(model, manifest.counters)
            if model.use_sde:
                model.policy.reset_noise()  # type: ignore[operator]
    except BundleError:
        raise
    except Exception as error:  # whatever SB3 and torch make of arguments that do not go together
        detail = " ".join(str(error).split())[:200]
        raise BundleError(
            f"The {manifest.algorithm} of agent.json cannot be built: {type(error).__name__}: "
            f"{detail}"
        ) from error
    return model


def _changed(algorithm: type[BaseAlgorithm], changes: Mapping[str, Any]) -> dict[str, Any]:
    known = signatures.parameters(algorithm).keys() - _FIXED
    for name in changes:
        if name not in known:
            raise UnknownName(f"{algorithm.__name__} argument", name, known)
    return dict(changes)


def _place(model: BaseAlgorithm, manifest: Manifest, env: VecEnv | None) -> None:
    """Give the model its spaces and environments, as SB3's constructor does."""
    model.observation_space = copy.deepcopy(manifest.observation_space)
    model.action_space = copy.deepcopy(manifest.action_space)
    model.n_envs = manifest.n_envs if env is None else env.num_envs
    model.env = env
    model._vec_normalize_env = None if env is None else unwrap_vec_normalize(env)


def _check_parameters(model: BaseAlgorithm) -> None:
    """Let our own algorithms refuse what they refuse when they are made."""
    check = getattr(model, "_check_parameters", None)
    if check is not None:
        check()


class _NoBuffer:
    """Stands where a buffer would be in an agent that only acts."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass


def _leave_out_buffers(model: Any) -> None:
    model.rollout_buffer_class = _NoBuffer
    model.replay_buffer = _NoBuffer()


def _check_buffers(model: BaseAlgorithm) -> None:
    """Refuse memory that no machine has, before a buffer asks for it.

    :raises ConfigError: the buffer needs an environment.
    """
    replay_class = getattr(model, "replay_buffer_class", None)
    if replay_class is not None and issubclass(replay_class, HerReplayBuffer) and model.env is None:
        raise BundleError(
            "This agent's HerReplayBuffer needs the environment: load_model(env), or load_policy() "
            "to act only."
        )
    per_step = 2 * _n_bytes(model.observation_space) + _n_bytes(model.action_space) + 64
    steps = max(getattr(model, "buffer_size", 0), getattr(model, "n_steps", 0) * model.n_envs)
    if steps * per_step > MAX_BUFFER_BYTES:
        raise BundleError(
            f"The agent's buffer of {steps} steps needs {steps * per_step / 2**30:.0f} GiB, more "
            f"than {MAX_BUFFER_BYTES // 2**30} GiB; pass a smaller buffer_size or n_steps."
        )


def _n_bytes(space: spaces.Space[Any]) -> int:
    if isinstance(space, spaces.Dict):
        return sum(_n_bytes(part) for part in space.spaces.values())
    dtype = space.dtype or np.dtype(np.int64)
    return int(np.prod(space.shape or (), dtype=np.int64)) * dtype.itemsize


@contextmanager
def _random_generators_kept() -> Iterator[None]:
    """Undo what building an agent does to the global generators: SB3 seeds and draws from them."""
    python, numpy = random.getstate(), np.random.get_state()
    # Asking a GPU that nobody uses for its generator would take memory on it.
    in_use: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    gpus = range(torch.cuda.device_count()) if in_use else ()
    try:
        with torch.random.fork_rng(devices=gpus):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
