"""Statistics out of SB3's ``VecNormalize``, and into one."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from agents.errors import RunFolderError
from hub.normalizer import Normalizer, Statistics

__all__ = ["load_statistics", "normalizer_of", "statistics", "wrap"]


def statistics(wrapper: VecNormalize) -> Statistics:
    """Return copies of the running statistics, named as :attr:`Normalizer.arrays`."""
    arrays: Statistics = {}
    for name, moments in _moments(wrapper).items():
        arrays[f"{name}.mean"] = np.array(moments.mean, dtype=np.float64)
        arrays[f"{name}.var"] = np.array(moments.var, dtype=np.float64)
        arrays[f"{name}.count"] = np.array(moments.count, dtype=np.float64)
    return arrays


def normalizer_of(wrapper: VecNormalize) -> Normalizer:
    """Return the statistics and settings of ``wrapper`` as they stand now."""
    return Normalizer(
        statistics(wrapper),
        norm_obs=bool(wrapper.norm_obs),
        norm_reward=bool(wrapper.norm_reward),
        clip_obs=float(wrapper.clip_obs),
        clip_reward=float(wrapper.clip_reward),
        gamma=float(wrapper.gamma),
        epsilon=float(wrapper.epsilon),
    )


def load_statistics(wrapper: VecNormalize, arrays: Statistics) -> None:
    """Put what :func:`statistics` returned back; discounted returns start anew.

    :raises RunFolderError: names or shapes do not fit this environment.
    """
    moments = _moments(wrapper)
    expected = {f"{name}.{part}" for name in moments for part in ("mean", "var", "count")}
    if expected != set(arrays):
        raise RunFolderError(
            f"The saved normaliser holds {sorted(arrays)}, this environment needs "
            f"{sorted(expected)}; it belongs to another environment."
        )
    for name, target in moments.items():
        if np.shape(target.mean) != arrays[f"{name}.mean"].shape:
            raise RunFolderError(
                f"The saved normaliser's {name} has shape {arrays[f'{name}.mean'].shape}, this "
                f"environment's has {np.shape(target.mean)}."
            )
        target.mean = arrays[f"{name}.mean"].copy()
        target.var = arrays[f"{name}.var"].copy()
        target.count = float(arrays[f"{name}.count"])


def wrap(normalizer: Normalizer, venv: VecEnv, *, training: bool = True) -> VecNormalize:
    """Return ``venv`` in a ``VecNormalize`` that goes on with these statistics.

    :param training: False to freeze them and to leave rewards as they are, as evaluations want it.
    :raises RunFolderError: names or shapes do not fit this environment.
    """
    keys = None
    if normalizer.norm_obs and isinstance(venv.observation_space, spaces.Dict):
        keys = [key for key in venv.observation_space if f"obs.{key}.mean" in normalizer.arrays]
    wrapper = VecNormalize(
        venv,
        training=training,
        norm_obs=normalizer.norm_obs,
        norm_reward=normalizer.norm_reward and training,
        clip_obs=normalizer.clip_obs,
        clip_reward=normalizer.clip_reward,
        gamma=normalizer.gamma,
        epsilon=normalizer.epsilon,
        norm_obs_keys=keys,
    )
    load_statistics(wrapper, normalizer.arrays)
    return wrapper


def _moments(wrapper: VecNormalize) -> dict[str, RunningMeanStd]:
    moments: dict[str, RunningMeanStd] = {}
    if wrapper.norm_obs:
        # SB3 declares one and keeps a dict of them for Dict observations.
        obs_rms: RunningMeanStd | dict[str, RunningMeanStd] = wrapper.obs_rms
        if isinstance(obs_rms, RunningMeanStd):
            moments["obs"] = obs_rms
        else:
            moments.update({f"obs.{key}": rms for key, rms in obs_rms.items()})
    moments["ret"] = wrapper.ret_rms
    return moments
