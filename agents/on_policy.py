"""What our own on-policy algorithms have in common, whatever their update is."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import (
    ActorCriticCnnPolicy,
    ActorCriticPolicy,
    BasePolicy,
    MultiInputActorCriticPolicy,
)
from stable_baselines3.common.type_aliases import (
    GymEnv,
    MaybeCallback,
    RolloutBufferSamples,
    Schedule,
)

from agents.errors import ConfigError
from agents.functional.advantages import standardized
from agents.rollouts import FastRollouts

__all__ = ["OnPolicyAgent"]

_Self = TypeVar("_Self", bound="OnPolicyAgent")


class OnPolicyAgent(FastRollouts):
    """An SB3 on-policy algorithm without a loss: spaces, policies, fast rollouts, checks.

    Which losses and critics there are is the subclass's business, and so are the parameters that
    SB3's base class has for them (``ent_coef``, ``vf_coef``, ``max_grad_norm``).

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a policy class.
    :param env: environment or its Gymnasium id.
    :param learning_rate: of the policy's optimiser; a float or a function of the remaining
        progress.
    :param n_steps: steps per environment and update; a batch has ``n_steps · n_envs`` samples.
    :param gamma: discount.
    :param gae_lambda: λ of the generalised advantage estimates.
    :param normalize_advantage: scale advantages to mean 0 and standard deviation 1 per batch.
    :param use_sde: generalised state-dependent exploration (Box actions only).
    :param sde_sample_freq: steps between new noise matrices; -1 for once per rollout.
    :param rollout_buffer_class: as in SB3.
    :param rollout_buffer_kwargs: as in SB3.
    :param stats_window_size: episodes that the logged means cover.
    :param tensorboard_log: folder for TensorBoard, None for no such log.
    :param policy_kwargs: of the policy class.
    :param verbose: 0 silent, 1 information, 2 debugging.
    :param seed: of all random generators.
    :param device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
    :raises ConfigError: a parameter is out of its range.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": ActorCriticPolicy,
        "CnnPolicy": ActorCriticCnnPolicy,
        "MultiInputPolicy": MultiInputActorCriticPolicy,
    }
    supported_action_spaces = (
        spaces.Box,
        spaces.Discrete,
        spaces.MultiDiscrete,
        spaces.MultiBinary,
    )

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        *,
        learning_rate: float | Schedule = 1e-3,
        n_steps: int = 2048,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        normalize_advantage: bool = True,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        rollout_buffer_class: type[RolloutBuffer] | None = None,
        rollout_buffer_kwargs: dict[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            gamma=gamma,
            gae_lambda=gae_lambda,
            ent_coef=0.0,
            vf_coef=0.0,
            max_grad_norm=0.0,
            use_sde=use_sde,
            sde_sample_freq=sde_sample_freq,
            rollout_buffer_class=rollout_buffer_class,
            rollout_buffer_kwargs=rollout_buffer_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=False,
        )
        self.normalize_advantage = normalize_advantage
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        self._check_parameters()
        super()._setup_model()

    def _check_parameters(self) -> None:
        """Refuse what cannot work, before anything is built.

        :raises ConfigError: with the value, the allowed range and what to pass instead.
        """
        if not isinstance(self.action_space, self.supported_action_spaces):
            allowed = ", ".join(space.__name__ for space in self.supported_action_spaces)
            raise ConfigError(
                f"{type(self).__name__} cannot act in {self.action_space}; "
                f"it supports {allowed} actions."
            )
        if self.n_steps * self.n_envs < 2:
            raise ConfigError(
                f"n_steps·n_envs = {self.n_steps}·{self.n_envs} is less than 2, so a batch has no "
                "spread; pass a larger n_steps."
            )

    def _check(self, name: str, allowed: bool, rule: str) -> None:
        """Refuse the value of the attribute ``name`` unless it is allowed.

        :param rule: what the value must be, and what is customary.
        :raises ConfigError: it is not allowed.
        """
        if not allowed:
            raise ConfigError(f"{name}={getattr(self, name)} must be {rule}.")

    def _actions(self, batch: RolloutBufferSamples) -> torch.Tensor:
        """Return the batch's actions as the distribution takes them; SB3 stores floats."""
        if isinstance(self.action_space, spaces.Discrete):
            return batch.actions.long().flatten()
        return batch.actions

    def _advantages(self, batch: RolloutBufferSamples) -> torch.Tensor:
        """Return the batch's advantages as ``normalize_advantage`` asks."""
        return standardized(batch.advantages) if self.normalize_advantage else batch.advantages

    def learn(
        self: _Self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> _Self:
        """Train for ``total_timesteps`` environment steps, as in SB3.

        :param tb_log_name: name of the TensorBoard run; None takes the algorithm's name.
        """
        return super().learn(
            total_timesteps=total_timesteps,
            callback=callback,
            log_interval=log_interval,
            tb_log_name=tb_log_name or type(self).__name__,
            reset_num_timesteps=reset_num_timesteps,
            progress_bar=progress_bar,
        )
