"""Environments as a loaded agent needs them: transposed, normalised and of its spaces."""

from __future__ import annotations

from typing import Any

import gymnasium
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.utils import check_for_correct_spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, unwrap_vec_normalize

from agents.errors import ConfigError, RunFolderError
from hub.bundle_format.manifest import Manifest
from hub.normalizer import Normalizer
from hub.vec_normalize import load_statistics, wrap

__all__ = ["prepare_env"]


def prepare_env(
    env: gymnasium.Env[Any, Any] | VecEnv, manifest: Manifest, normalizer: Normalizer | None
) -> VecEnv:
    """Return ``env`` wrapped for training, its statistics those of ``normalizer``.

    :raises ConfigError: its spaces are not the agent's, or it scales what the agent takes raw.
    """
    venv = _vectorized(env)
    if manifest.transposed_images:  # else SB3 does it after normalising, if it has to
        venv = BaseAlgorithm._wrap_env(venv, verbose=0)
    wrapper = unwrap_vec_normalize(venv)
    if normalizer is None and wrapper is not None:
        raise ConfigError(
            f"The agent takes {manifest.env_id} as it is, and this environment is in a "
            "VecNormalize. Pass the environment without it."
        )
    try:
        if normalizer is not None and wrapper is None:
            venv = wrap(normalizer, venv)
        elif normalizer is not None and wrapper is not None:
            load_statistics(wrapper, normalizer.arrays)
        venv = BaseAlgorithm._wrap_env(venv, verbose=0)
        check_for_correct_spaces(venv, manifest.observation_space, manifest.action_space)
    except (ValueError, RunFolderError) as error:
        raise ConfigError(
            f"The agent was trained on {manifest.env_id}, which this environment is not: "
            f"{' '.join(str(error).split())}"
        ) from error
    return venv


def _vectorized(env: gymnasium.Env[Any, Any] | VecEnv) -> VecEnv:
    if isinstance(env, VecEnv):
        return env
    monitored = env if is_wrapped(env, Monitor) else Monitor(env)
    return DummyVecEnv([lambda: monitored])
