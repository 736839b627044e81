"""An actor-critic with a memory: one LSTM under both heads."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import nn

from agents.errors import ConfigError

__all__ = ["LstmPolicy", "LstmState"]

LstmState = tuple[torch.Tensor, torch.Tensor]
"""Hidden and cell state, each of shape ``(n_envs, lstm_hidden_size)``."""


class _Torso(nn.Module):
    """Layers without memory, then the LSTM; both heads read its output."""

    def __init__(
        self, n_in: int, net_arch: list[int], activation_fn: type[nn.Module], hidden_size: int
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for n_out in net_arch:
            layers += [nn.Linear(n_in, n_out), activation_fn()]
            n_in = n_out
        self.body = nn.Sequential(*layers)
        self.lstm = nn.LSTMCell(n_in, hidden_size)
        self.latent_dim_pi = self.latent_dim_vf = hidden_size


class LstmPolicy(ActorCriticPolicy):
    """``"MlpLstmPolicy"``: observation → layers → LSTM → action distribution and value.

    The state is part of every call. :meth:`predict` follows the convention of sb3-contrib's
    ``RecurrentPPO``: pass back the state that it returned, and ``episode_start=True`` where a new
    episode begins.

    :param observation_space: any that SB3 flattens; no Dict.
    :param action_space: Box, Discrete, MultiDiscrete or MultiBinary.
    :param lr_schedule: of the optimiser.
    :param net_arch: widths of the layers before the LSTM.
    :param lstm_hidden_size: width of the LSTM.
    :param use_sde: must be False: gSDE's noise has no place for a state.
    :param kwargs: as in SB3's ``ActorCriticPolicy``.
    :raises ConfigError: one of these is not so.

    Ref: Mnih et al. 2016, arXiv:1602.01783, section 5.1 (an LSTM after the last hidden layer).
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        net_arch: list[int] | None = None,
        lstm_hidden_size: int = 64,
        use_sde: bool = False,
        **kwargs: Any,
    ) -> None:
        if use_sde:
            raise ConfigError("MlpLstmPolicy has no gSDE; pass use_sde=False or policy=MlpPolicy.")
        if isinstance(observation_space, spaces.Dict):
            raise ConfigError("MlpLstmPolicy takes no dictionaries; flatten the observations.")
        net_arch = [64] if net_arch is None else net_arch
        if not isinstance(net_arch, list) or not all(isinstance(n, int) for n in net_arch):
            raise ConfigError(
                f"net_arch={net_arch!r} of MlpLstmPolicy must be a list of the widths before the "
                "LSTM, such as [64]."
            )
        if lstm_hidden_size < 1:
            raise ConfigError(f"lstm_hidden_size={lstm_hidden_size} must be at least 1.")
        self.lstm_hidden_size = lstm_hidden_size
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=cast(Any, net_arch),
            use_sde=False,
            **kwargs,
        )

    def _build_mlp_extractor(self) -> None:
        torso = _Torso(
            self.features_dim,
            cast(list[int], self.net_arch),
            self.activation_fn,
            self.lstm_hidden_size,
        )
        self.mlp_extractor = cast(Any, torso)

    @property
    def _torso(self) -> _Torso:
        return cast(_Torso, self.mlp_extractor)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        parameters = super()._get_constructor_parameters()
        parameters["lstm_hidden_size"] = self.lstm_hidden_size
        for name in ("squash_output", "full_std", "use_expln"):  # gSDE's
            parameters.pop(name)
        return parameters

    def start_state(self, n_envs: int) -> LstmState:
        """Return the state of a new episode in each of ``n_envs`` environments."""
        zeros = torch.zeros(n_envs, self.lstm_hidden_size, device=self.device)
        return zeros, zeros

    def advance(
        self, obs: PyTorchObs, state: LstmState, episode_starts: torch.Tensor
    ) -> tuple[torch.Tensor, LstmState]:
        """Take one step in time.

        :param obs: of ``n_envs`` environments.
        :param state: before the step; forgotten where a new episode begins.
        :param episode_starts: 1 where ``obs`` is the first of its episode, shape ``(n_envs,)``.
        :return: what the heads read, shape ``(n_envs, lstm_hidden_size)``, and the new state.
        """
        inputs = self._torso.body(self._features(obs))
        state = self._step(inputs, state, episode_starts)
        return state[0], state

    def _features(self, obs: PyTorchObs) -> torch.Tensor:
        return cast(torch.Tensor, super().extract_features(obs, self.features_extractor))

    def _step(
        self, inputs: torch.Tensor, state: LstmState, episode_starts: torch.Tensor
    ) -> LstmState:
        going_on = (1.0 - episode_starts.float()).unsqueeze(1)
        hidden, cell = self._torso.lstm(inputs, (state[0] * going_on, state[1] * going_on))
        return hidden, cell

    def forward(  # type: ignore[override]
        self,
        obs: PyTorchObs,
        state: LstmState,
        episode_starts: torch.Tensor,
        deterministic: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, LstmState]:
        """Return actions, values, log-probabilities and the new state."""
        latent, state = self.advance(obs, state, episode_starts)
        distribution = self._get_action_dist_from_latent(latent)
        actions = distribution.get_actions(deterministic=deterministic)
        log_prob = distribution.log_prob(actions)
        return actions, self.value_net(latent), log_prob, state

    def predict_values(  # type: ignore[override]
        self, obs: PyTorchObs, state: LstmState, episode_starts: torch.Tensor
    ) -> torch.Tensor:
        """Return ``V(obs, state)``, shape ``(n_envs, 1)``; the state stays as it is."""
        latent, _ = self.advance(obs, state, episode_starts)
        return cast(torch.Tensor, self.value_net(latent))

    def get_distribution(  # type: ignore[override]
        self, obs: PyTorchObs, state: LstmState, episode_starts: torch.Tensor
    ) -> tuple[Distribution, LstmState]:
        """Return the action distribution and the new state."""
        latent, state = self.advance(obs, state, episode_starts)
        return self._get_action_dist_from_latent(latent), state

    def evaluate_segment(
        self, buffer: RolloutBuffer, start_state: LstmState
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Run through a segment again, so that gradients flow back through its time.

        :param buffer: full, its arrays still in order of time: ``(n_steps, n_envs, …)``.
        :param start_state: before the segment's first step; no gradient goes beyond it.
        :return: values, log-probabilities and entropies of the samples, all environments of a
            step before the next step.
        """
        n_steps, n_envs = buffer.rewards.shape
        observations = self._in_time(buffer.observations)
        inputs = self._torso.body(self._features(observations)).view(n_steps, n_envs, -1)
        episode_starts = torch.as_tensor(buffer.episode_starts, device=self.device)
        state, latents = start_state, []
        for step in range(n_steps):
            state = self._step(inputs[step], state, episode_starts[step])
            latents.append(state[0])
        latent = torch.cat(latents)
        distribution = self._get_action_dist_from_latent(latent)
        actions = self._in_time(buffer.actions)
        discrete = isinstance(self.action_space, spaces.Discrete)
        actions = actions.long().flatten() if discrete else actions.float()
        return self.value_net(latent), distribution.log_prob(actions), distribution.entropy()

    def _in_time(self, array: np.ndarray[Any, Any]) -> torch.Tensor:
        n_steps, n_envs, *shape = array.shape
        return torch.as_tensor(array.reshape(n_steps * n_envs, *shape), device=self.device)

    def predict(
        self,
        observation: np.ndarray[Any, Any] | dict[str, np.ndarray[Any, Any]],
        state: tuple[np.ndarray[Any, Any], ...] | None = None,
        episode_start: np.ndarray[Any, Any] | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray[Any, Any], tuple[np.ndarray[Any, Any], ...]]:
        """Return actions and the state to pass with the next observations.

        :param observation: of one environment or of ``n_envs``.
        :param state: hidden and cell state, each of shape ``(1, n_envs, lstm_hidden_size)``; None
            for a new episode.
        :param episode_start: bool, shape ``(n_envs,)``: where the state is to be forgotten.
        :param deterministic: the distribution's mode instead of a sample.
        """
        self.set_training_mode(False)
        obs, is_batch = self.obs_to_tensor(observation)
        n_envs = len(next(iter(obs.values())) if isinstance(obs, dict) else obs)
        before = self.start_state(n_envs)
        if state is not None:
            hidden, cell = (torch.as_tensor(part[0], device=self.device).float() for part in state)
            before = (hidden, cell)
        starts = np.zeros(n_envs) if episode_start is None else np.reshape(episode_start, n_envs)
        with torch.no_grad():
            distribution, after = self.get_distribution(
                obs, before, torch.as_tensor(starts, device=self.device)
            )
            actions = distribution.get_actions(deterministic=deterministic).cpu().numpy()
        actions = actions.reshape(-1, *(self.action_space.shape or ()))
        if isinstance(self.action_space, spaces.Box):
            actions = np.clip(actions, self.action_space.low, self.action_space.high)
        new_state = tuple(part.cpu().numpy()[None] for part in after)
        return actions if is_batch else actions[0], new_state
