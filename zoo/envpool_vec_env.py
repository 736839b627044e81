"""EnvPool behind the vectorised-environment contract of Stable-Baselines3."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from agents.errors import ConfigError, MissingDependency
from hub.gym_env import env_arguments, make_gym_env

__all__ = ["EnvPoolVecEnv", "import_envpool"]

_N_SEEDS = 2**31  # EnvPool holds seeds as int32
_NO_LIMIT = 2**31 - 1
# EnvPool looks for the model file among its own, not where Gymnasium would.
_NOT_THE_SAME = {"xml_file"}
_READ_CONTACT_FORCES = ("Humanoid", "HumanoidStandup")


def import_envpool() -> Any:
    """Return the EnvPool module.

    :raises MissingDependency: EnvPool is not installed.
    """
    try:
        return importlib.import_module("envpool")
    except ImportError as error:
        raise MissingDependency(
            "--vec-env envpool needs EnvPool, which is not installed (or has no build for this "
            "system). Type: pip install 'natural-zoo[envpool]', or use --vec-env dummy."
        ) from error


class EnvPoolVecEnv(VecEnv):
    """Environments stepped by EnvPool's C++ threads, with the semantics of ``DummyVecEnv``.

    What differs between the two and how it is bridged:

    - EnvPool resets an environment on the step *after* the end of its episode. Here it is reset
      within the same step: ``infos[i]["terminal_observation"]`` holds the last observation.
    - EnvPool reports an episode that ends by itself on the last step of its time limit as
      truncated. Here the pool has no limit and the steps are counted outside, so that
      ``infos[i]["TimeLimit.truncated"]`` is "truncated and not terminated", as SB3 says it.
    - EnvPool fixes seeds when it is made. Here ``seed(s)`` followed by ``reset()`` makes the pool
      anew: environment ``i`` has the seed ``s + i``, and the same episodes follow every time, for
      any number of threads. (They are not Gymnasium's episodes: the generators differ.)
    - EnvPool leaves contact forces at zero in Humanoid-v4 and HumanoidStandup-v4, which observe
      them. Gymnasium computes them, so they are switched on (``post_constraint``).

    ``infos`` carry these two keys and nothing else: EnvPool's values per task are left out, since
    a dictionary per environment and step would cost more than the step.

    :param env_id: an id that both Gymnasium and EnvPool know.
    :param n_envs: number of environments.
    :param seed: seed of the first environment; None draws one.
    :param env_kwargs: settings of the task that EnvPool and Gymnasium call by the same name.
    :param num_threads: C++ threads; 0 lets EnvPool take one per processor core.
    :raises ConfigError: EnvPool has no such task or setting.
    :raises MissingDependency: EnvPool is not installed.
    """

    def __init__(
        self,
        env_id: str,
        n_envs: int,
        seed: int | None = None,
        env_kwargs: Mapping[str, Any] | None = None,
        num_threads: int = 0,
    ) -> None:
        self._envpool = import_envpool()
        self.env_id = env_id
        self._num_threads = num_threads
        with make_gym_env(env_id, env_kwargs) as reference:
            self.spec = reference.spec
            observation_space = reference.observation_space
            action_space = reference.action_space
        self._task_settings = _task_settings(self._envpool, env_id, dict(env_kwargs or {}))
        limit = self.spec.max_episode_steps if self.spec is not None else None
        self._max_episode_steps = _NO_LIMIT if limit is None else limit
        self._pool: Any = None
        self._actions: np.ndarray | None = None
        self._pool_seeds: list[int | None] = []
        self._episode_steps = np.zeros(n_envs, dtype=np.int64)
        super().__init__(n_envs, observation_space, action_space)
        self.seed(seed)
        self._make_pool()
        self._check_spaces()

    def _make_pool(self) -> None:
        """Make a fresh pool from the seeds that the constructor or ``seed`` has set."""
        self.close()
        self._pool_seeds = list(self._seeds)
        try:
            self._pool = self._envpool.make(
                self.env_id,
                env_type="gymnasium",
                num_envs=self.num_envs,
                num_threads=self._num_threads,
                env_seed=[int(seed or 0) % _N_SEEDS for seed in self._seeds],
                **self._task_settings,
            )
        except (TypeError, ValueError, AssertionError) as error:
            given = ", ".join(f"{name}={value!r}" for name, value in self._task_settings.items())
            raise ConfigError(
                f"EnvPool refuses a value among the environment arguments of {self.env_id} "
                f"({given}): {type(error).__name__}. Correct it, or use --vec-env dummy."
            ) from error

    def _check_spaces(self) -> None:
        """Refuse what this class does not translate: anything but plain, equal arrays."""
        with warnings.catch_warnings():
            # of Gymnasium's Box, about the precision of the bounds that EnvPool declares
            warnings.filterwarnings("ignore", r".*precision lowered", UserWarning)
            mine, theirs = self.observation_space, self._pool.observation_space
        plain = isinstance(mine, spaces.Box) and isinstance(theirs, spaces.Box)
        if plain and mine.shape == theirs.shape and mine.dtype == theirs.dtype:
            return
        raise ConfigError(
            f"EnvPool observes {self.env_id} as {theirs}, Gymnasium as {mine}; only an array "
            f"that is the same in both is allowed. Use --vec-env dummy."
        )

    def reset(self) -> np.ndarray:
        """Start new episodes everywhere, from the seeds if ``seed`` was called before."""
        if self._seeds[0] is not None and self._pool_seeds != self._seeds:
            self._make_pool()
        self._pool_seeds = []  # these seeds are used up: naming them again makes a new pool
        self._reset_seeds()
        self._reset_options()
        self._episode_steps[:] = 0
        obs: np.ndarray = self._pool.reset()[0]
        return obs

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for :meth:`step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Step all environments and reset those whose episode ended.

        EnvPool hands over freshly allocated arrays at every step, so nothing is copied.
        """
        obs, rewards, terminated, _, _ = self._pool.step(self._actions)
        self._episode_steps += 1
        dones = self._episode_steps >= self._max_episode_steps
        dones |= terminated
        infos: list[dict[str, Any]] = [{"TimeLimit.truncated": False} for _ in range(self.num_envs)]
        if dones.any():
            self._start_episodes(np.flatnonzero(dones), obs, terminated, infos)
        return obs, rewards, dones, infos

    def _start_episodes(
        self,
        finished: np.ndarray,
        obs: np.ndarray,
        terminated: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Reset some environments and put their first observations into ``obs``.

        :param finished: indices of the environments.
        :param obs: shape ``(n_envs, ...)``, the last observations of their episodes.
        :param terminated: shape ``(n_envs,)``, whether an episode ended other than by its limit.
        :param infos: one dictionary per environment, completed here.
        """
        for i in finished:
            infos[i]["terminal_observation"] = obs[i].copy()
            infos[i]["TimeLimit.truncated"] = not terminated[i]
        first_obs, info = self._pool.reset(finished.astype(np.int32))
        obs[info["env_id"]] = first_obs
        self._episode_steps[finished] = 0

    def close(self) -> None:
        """Stop the threads and free the pool."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of the pool, the same for each environment.

        :param attr_name: ``render_mode`` (always None: EnvPool is for training), ``spec``, or a
            setting of the task such as ``reset_noise_scale``.
        :param indices: the environments that are asked.
        """
        if attr_name == "render_mode":
            value: Any = None
        elif attr_name == "spec":
            value = self.spec
        elif attr_name == "max_episode_steps":
            value = self._max_episode_steps
        elif self._pool is not None and attr_name in self._pool.spec.config._fields:
            value = getattr(self._pool.spec.config, attr_name)
        else:
            raise AttributeError(
                f"EnvPool's environments have no attribute '{attr_name}' to read; "
                f"use --vec-env dummy."
            )
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Refuse: EnvPool's settings are fixed when the pool is made."""
        raise AttributeError(
            f"EnvPool's settings are fixed when it is made, '{attr_name}' cannot be set; "
            f"pass it as an environment argument, or use --vec-env dummy."
        )

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Refuse: there is no Python object per environment to call."""
        raise AttributeError(
            f"EnvPool's environments are C++ and have no method '{method_name}' to call; "
            f"use --vec-env dummy."
        )

    def env_is_wrapped(
        self,
        wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]],
        indices: VecEnvIndices = None,
    ) -> list[bool]:
        """Return False for each environment: Gymnasium's wrappers cannot reach into the pool."""
        return [False for _ in self._get_indices(indices)]


def _task_settings(envpool: Any, env_id: str, env_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the settings to make a task of EnvPool with.

    :param envpool: the module.
    :param env_id: the task.
    :param env_kwargs: what the user asks for.
    :raises ConfigError: EnvPool has no such task, or no such setting of it.
    """
    if env_id not in envpool.list_all_envs():
        raise ConfigError(f"EnvPool has no environment '{env_id}'. Use --vec-env dummy.")
    config = envpool.make_spec(env_id).config
    known = set(config._fields) & set(env_arguments(env_id)) - _NOT_THE_SAME
    unknown = sorted(set(env_kwargs) - known)
    if unknown:
        raise ConfigError(
            f"EnvPool cannot set {', '.join(unknown)} of {env_id}, only "
            f"{', '.join(sorted(known))}. Use --vec-env dummy."
        )
    settings = dict(env_kwargs)
    if env_id.split("-")[0] in _READ_CONTACT_FORCES:
        settings["post_constraint"] = True
    return settings | {"max_episode_steps": _NO_LIMIT}
