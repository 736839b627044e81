"""What a bundle says about an SB3 agent, tried out before it is believed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, VecTransposeImage
from stable_baselines3.common.vec_env.base_vec_env import VecEnvWrapper

from agents.errors import BundleError
from hub.bundle_format.agent_arguments import arguments_to_json, policy_kwargs_to_json
from hub.bundle_format.agent_builder import build_agent, policy_class
from hub.bundle_format.agent_classes import REGISTERED, library_of
from hub.bundle_format.bundle_folder import NORMALIZER, OPTIMIZER, POLICY, digest_bytes
from hub.bundle_format.counters import counters_to_json
from hub.bundle_format.manifest import Manifest, parse_manifest
from hub.bundle_format.model_state import policy_state, training_state
from hub.bundle_format.normalizer_file import normalization_of, write_normalizer
from hub.bundle_format.plain_data import to_plain
from hub.bundle_format.tensor_file import write_tensors
from hub.normalizer import Normalizer
from hub.vec_normalize import normalizer_of
from hub.versions import installed_versions

__all__ = ["describe_agent"]


def describe_agent(
    model: BaseAlgorithm,
    *,
    algo: str,
    env_id: str,
    env_kwargs: Mapping[str, Any],
    normalizer: Normalizer | VecNormalize | None,
    optimizer: bool,
) -> tuple[Manifest, dict[str, bytes]]:
    """Return the manifest and the files of the agent itself; arguments as of ``save_bundle``.

    :raises BundleError: the agent holds what a bundle cannot.
    """
    library = library_of(type(model), algo)
    policy = _policy_name(model, algo)
    transposed = _transposed_images(model)
    statistics = _normalizer(model, normalizer)
    weights = policy_state(model)
    training = training_state(model) if optimizer else None
    contents = {POLICY: write_tensors(weights, POLICY)}
    if statistics is not None:
        contents[NORMALIZER] = write_normalizer(statistics, model.observation_space)
    if training is not None:
        contents[OPTIMIZER] = write_tensors(training, OPTIMIZER)
    manifest = Manifest(
        library=library,
        algorithm=algo,
        policy=policy,
        arguments=arguments_to_json(model),
        policy_kwargs=policy_kwargs_to_json(
            policy_class(type(model), policy), _policy_kwargs(model)
        ),
        observation_space=model.observation_space,
        action_space=model.action_space,
        transposed_images=transposed,
        env_id=env_id,
        env_kwargs=to_plain(env_kwargs, "env_kwargs"),
        n_envs=model.n_envs,
        counters=counters_to_json(model),
        normalization=None if statistics is None else normalization_of(statistics),
        versions=_versions(library),
        files={name: digest_bytes(content) for name, content in contents.items()},
    )
    manifest = parse_manifest(manifest.content())
    _check_twin(model, build_agent(manifest, weights, training, device="cpu", buffers=False))
    return manifest, contents


def _policy_name(model: BaseAlgorithm, algo: str) -> str:
    policy = type(_plain(model.policy))
    for name, known in model.policy_aliases.items():
        if policy is known:
            return name
    raise BundleError(
        f"The agent's policy is a {policy.__module__}.{policy.__qualname__}; a bundle names its "
        f"policy, and {algo} knows {', '.join(model.policy_aliases)}."
    )


def _policy_kwargs(model: BaseAlgorithm) -> dict[str, Any]:
    kwargs = dict(model.policy_kwargs)
    net_arch = kwargs.get("net_arch")
    if isinstance(net_arch, list) and len(net_arch) == 1 and isinstance(net_arch[0], dict):
        kwargs["net_arch"] = net_arch[0]  # as it was written before SB3 1.8
    return kwargs


def _transposed_images(model: BaseAlgorithm) -> tuple[str, ...]:
    """Return which images the policy reads with their channels first, unlike the environment."""
    venv: VecEnv | None = model.env
    while isinstance(venv, VecEnvWrapper):
        if isinstance(venv, VecTransposeImage) and not venv.skip:
            if isinstance(venv.observation_space, spaces.Dict):
                return tuple(f"obs.{key}" for key in venv.image_space_keys)
            return ("obs",)
        venv = venv.venv
    return ()


def _normalizer(model: BaseAlgorithm, given: Normalizer | VecNormalize | None) -> Normalizer | None:
    wrapper = model.get_vec_normalize_env() if given is None else given
    return normalizer_of(wrapper) if isinstance(wrapper, VecNormalize) else wrapper


def _versions(library: str) -> dict[str, str | None]:
    return installed_versions() if library == REGISTERED else installed_versions(library)


def _check_twin(model: BaseAlgorithm, twin: BaseAlgorithm) -> None:
    """Refuse an agent whose description gives another one."""
    ours, theirs = repr(_plain(model.policy)), repr(_plain(twin.policy))
    if ours != theirs:
        raise BundleError(
            "The agent's networks are not those that its policy_kwargs describe; a bundle cannot "
            "hold a policy that was changed after it was made."
        )
    written = policy_state(twin)
    for name, array in policy_state(model).items():
        if not np.array_equal(array, written[name]):
            raise BundleError(f"The agent's '{name}' did not survive being written.")


def _plain(policy: BasePolicy) -> Any:
    return getattr(policy, "_orig_mod", policy)
