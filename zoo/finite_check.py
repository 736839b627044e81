"""Stop at the first observation or reward that is not a number, and say where it came from."""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from agents.errors import EnvironmentFault

__all__ = ["FiniteCheck"]


class FiniteCheck(VecEnvWrapper):
    """Raise when an observation or a reward is NaN or infinite.

    A network trained on such a value is lost without a word, so the run ends here instead. A
    healthy environment pays one pass over each array and step, some microseconds.

    :param venv: the environments to watch.
    :param env_id: their name, for the message, which counts steps from when this was made.
    """

    def __init__(self, venv: VecEnv, env_id: str) -> None:
        super().__init__(venv)
        self._env_id = env_id
        self._n_vec_steps = 0

    def reset(self) -> VecEnvObs:
        """Reset all environments and check their observations."""
        obs = self.venv.reset()
        self._check_obs(obs)
        return obs

    def step_wait(self) -> VecEnvStepReturn:
        """Step all environments; check rewards, observations and the last ones of episodes."""
        obs, rewards, dones, infos = self.venv.step_wait()
        self._n_vec_steps += 1
        self._check_array(rewards, "reward")
        self._check_obs(obs)
        if dones.any():
            self._check_terminal_obs(dones, infos)
        return obs, rewards, dones, infos

    def _check_obs(self, obs: VecEnvObs) -> None:
        if isinstance(obs, np.ndarray):
            self._check_array(obs, "observation")
            return
        items = obs.items() if isinstance(obs, dict) else enumerate(obs)
        for key, array in items:
            self._check_array(array, f"observation {key!r}")

    def _check_array(self, array: np.ndarray, what: str) -> None:
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise self._fault(array, what)

    def _check_terminal_obs(self, dones: np.ndarray, infos: list[dict[str, Any]]) -> None:
        for i in np.flatnonzero(dones):
            last = infos[i].get("terminal_observation")
            parts = last.items() if isinstance(last, dict) else [(None, last)]
            for key, value in parts:
                array = np.asarray(value)
                if array.dtype.kind == "f" and not np.isfinite(array).all():
                    what = "terminal observation" + ("" if key is None else f" {key!r}")
                    raise self._fault(array[None], what, first_env=int(i))

    def _fault(self, array: np.ndarray, what: str, first_env: int = 0) -> EnvironmentFault:
        """Return the error for the first value that is not finite.

        :param array: shape ``(n_envs, ...)``, with such a value.
        :param what: what the array holds.
        :param first_env: the environment of its first row.
        """
        first = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        value = "NaN" if np.isnan(array[first]) else f"{array[first]:+}"
        component = f", component {','.join(map(str, first[1:]))}," if len(first) > 1 else ""
        return EnvironmentFault(
            f"{self._env_id} returned {value} as {what}{component} of environment "
            f"{first_env + first[0]} at step {self._n_vec_steps}; observations and rewards must "
            f"be finite. Correct the environment or its arguments, or try --vec-env dummy."
        )
