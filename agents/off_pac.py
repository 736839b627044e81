"""Off-PAC: learning one policy from what another one does."""

from __future__ import annotations

import math
from itertools import islice
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import FloatSchedule
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from agents.behavior import Behavior, make_behavior
from agents.behavior_cloning import clone_behavior
from agents.behavior_rollouts import BehaviorRollouts
from agents.errors import ConfigError, UnknownName
from agents.gradient_critic import SecondaryCritic, critic_only_parameters
from agents.off_policy_loss import OffPolicySettings, off_policy_loss
from agents.on_policy import OnPolicyAgent
from agents.trajectory_buffer import TrajectoryBatch, TrajectoryBuffer
from agents.transitions import Dataset, read_transitions

__all__ = ["CRITICS", "OffPAC"]

CRITICS = ("gtd", "td")


class OffPAC(OnPolicyAgent):
    """Off-policy actor-critic: a behaviour policy acts, the target policy learns from it.

    Each transition is stored with ``log b(a|s)``. With ``ρ = π/b``, ``δ = r + γV(s') − V(s)`` and
    eligibility traces along trajectories, an update follows, averaged over a batch::

        actor      Σ δ_t e_t,  e_t = ρ_t (∇log π(a_t|s_t) + γλ e_{t−1})
        critic     Σ δ_t e_t − γ (1 − λ)(wᵀe_t) ∇V(s_{t+1}),  e_t = ρ_t (∇V(s_t) + γλ e_{t−1})
        secondary  Σ δ_t e_t − (wᵀx_t) x_t                     (x: the critic's last hidden layer)

    which is GTD(λ) for the critic. With ``behavior="target"`` and one gradient step per rollout
    ρ is 1 and the actor's update is the on-policy gradient with generalised advantages.

    Ref: Degris, White and Sutton 2012, arXiv:1205.4839, Algorithm 1. Deviations:

    - parameters stand still over a batch of sequences instead of changing at every step, so that
      networks can be trained with Adam; traces begin anew with each sequence;
    - the critic is a network. ``w`` is linear in its last hidden layer and all layers follow the
      corrected gradient (Patterson et al. 2022, JMLR 23(145)); with ``net_arch`` without hidden
      layers it is the paper's linear GTD(λ);
    - data of the last ``buffer_size`` steps are used again, which off-policy costs nothing but
      ratios further from 1;
    - advantages may be scaled (``normalize_advantage``) and ratios bounded (``max_ratio``).

    It stands on SB3's ``OnPolicyAlgorithm`` and not on its ``OffPolicyAlgorithm``: traces need
    whole rollouts in the order they happened and each action's probability, where the latter
    stores single transitions without it and acts with a policy that has none.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a policy class with
        SB3's own critic.
    :param env: environment or its Gymnasium id; with ``dataset`` it only says what the spaces are.
    :param learning_rate: of the actor's Adam (the paper's ``α_u``); a float or a function of the
        remaining progress, as are the next two.
    :param critic_learning_rate: of the critic's (``α_v``).
    :param secondary_learning_rate: of the secondary weights' (``α_w``).
    :param n_steps: steps per environment between two calls of the learner.
    :param buffer_size: transitions that are kept, of all environments; at least
        ``n_steps · n_envs``, which keeps the last rollout alone.
    :param batch_size: transitions of a gradient step.
    :param sequence_length: steps of the sequences that a batch is made of, along which traces
        run; None for the smaller of ``n_steps`` and ``batch_size``.
    :param gradient_steps: gradient steps per rollout.
    :param gamma: discount.
    :param gae_lambda: λ of the traces of actor and critic.
    :param behavior: who acts: ``"mixture"`` (the target policy and, with probability ``epsilon``,
        a uniform action), ``"tempered"`` (the target policy at another ``temperature``),
        ``"uniform"``, ``"target"``, or a :class:`~agents.behavior.Behavior`.
    :param behavior_kwargs: of the behaviour's constructor, such as ``{"epsilon": 0.2}``.
    :param dataset: learn from these transitions alone and let nobody act:
        :class:`~agents.transitions.Transitions`, a list of
        :class:`~agents.transitions.Transition`, a Minari dataset or its id. Where log-probabilities
        are missing, they are those of a policy that is cloned from the data. A "timestep" is then
        a transition that could have been collected: there are ``gradient_steps`` updates per
        ``n_steps · n_envs`` of them.
    :param max_ratio: bound on ρ, for actor and critic alike; None for none, as in the paper.
    :param emphasis: η in [0, 1]: 0 is Off-PAC, 1 weighs states so that the actor follows the
        whole gradient of ``Σ_s d_b(s) V_π(s)`` (ACE, Imani et al. 2018).
    :param critic: ``"gtd"``, or ``"td"`` for uncorrected TD(λ), which can diverge.
    :param normalize_advantage: scale advantages to mean 0 and standard deviation 1 under the
        target policy, per batch.
    :param ent_coef: weight of the entropy in the actor's objective.
    :param max_grad_norm: bound on the norm of the actor's and of the critic's gradient.
    :param use_sde: generalised state-dependent exploration (Box actions only).
    :param sde_sample_freq: steps between new noise matrices; -1 for once per rollout.
    :param stats_window_size: episodes that the logged means cover.
    :param tensorboard_log: folder for TensorBoard, None for no such log.
    :param policy_kwargs: of the policy class.
    :param verbose: 0 silent, 1 information, 2 debugging.
    :param seed: of all random generators.
    :param device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
    :raises ConfigError: a parameter is out of its range, or the data do not fit.

    >>> agent = OffPAC("MlpPolicy", "CartPole-v1", behavior_kwargs={"epsilon": 0.2}, seed=0)
    >>> agent.learn(1_000).num_timesteps
    1024
    """

    resumable_attributes = ("n_skipped_updates",)

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        *,
        learning_rate: float | Schedule = 1e-3,
        critic_learning_rate: float | Schedule = 1e-3,
        secondary_learning_rate: float | Schedule = 1e-3,
        n_steps: int = 64,
        buffer_size: int = 8192,
        batch_size: int = 512,
        sequence_length: int | None = None,
        gradient_steps: int = 4,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        behavior: str | Behavior = "mixture",
        behavior_kwargs: dict[str, Any] | None = None,
        dataset: Dataset | str | None = None,
        max_ratio: float | None = None,
        emphasis: float = 0.0,
        critic: str = "gtd",
        normalize_advantage: bool = True,
        ent_coef: float = 0.0,
        max_grad_norm: float = 0.5,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
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
            normalize_advantage=normalize_advantage,
            use_sde=use_sde,
            sde_sample_freq=sde_sample_freq,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=False,
        )
        self.critic_learning_rate = critic_learning_rate
        self.secondary_learning_rate = secondary_learning_rate
        self.buffer_size = buffer_size
        self.batch_size = batch_size
        self.sequence_length = sequence_length
        self.gradient_steps = gradient_steps
        self.behavior = behavior
        self.behavior_kwargs = behavior_kwargs
        self.dataset = dataset
        self.max_ratio = max_ratio
        self.emphasis = emphasis
        self.critic = critic
        self.ent_coef = ent_coef
        self.max_grad_norm = max_grad_norm
        self.n_skipped_updates = 0
        if _init_setup_model:
            self._check_parameters()
            self._setup_model()

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.critic not in CRITICS:
            raise UnknownName("critic", self.critic, CRITICS)
        self._check_ranges()
        n_collected = self.n_steps * self.n_envs
        if self.dataset is None and self.buffer_size < n_collected:
            raise ConfigError(
                f"buffer_size={self.buffer_size} does not hold the n_steps·n_envs = {n_collected} "
                f"transitions of one rollout; pass at least {n_collected}."
            )

    def _check_ranges(self) -> None:
        for name in ("n_steps", "batch_size", "gradient_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1.")
        for name in ("gamma", "gae_lambda", "emphasis"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"{name}={getattr(self, name)} must be between 0 and 1.")
        if self.sequence_length is not None and not 1 <= self.sequence_length <= self.batch_size:
            raise ConfigError(
                f"sequence_length={self.sequence_length} must be between 1 and "
                f"batch_size={self.batch_size}."
            )
        if self.max_ratio is not None and not self.max_ratio > 0.0:
            raise ConfigError(f"max_ratio={self.max_ratio} must be positive, or None for no bound.")

    def _setup_model(self) -> None:
        super()._setup_model()
        if type(self.policy).predict_values is not ActorCriticPolicy.predict_values:
            raise ConfigError(
                f"{type(self.policy).__name__} values states in a way of its own, and GTD(λ) needs "
                "the features that values are linear in; leave predict_values as SB3 has it."
            )
        self._make_optimizers()
        self._critic_schedule = FloatSchedule(self.critic_learning_rate)
        self._secondary_schedule = FloatSchedule(self.secondary_learning_rate)
        behavior = make_behavior(self.behavior, self.behavior_kwargs)
        if self.dataset is not None:
            self.trajectories = self._load_dataset(self.dataset)
        else:
            behavior.check(self.policy)
            self.trajectories = TrajectoryBuffer(
                max(self.buffer_size // self.n_envs, self.n_steps),
                self.observation_space,
                self.action_space,
                n_envs=self.n_envs,
                device=self.device,
            )
        self._rollouts = BehaviorRollouts(behavior, self.trajectories)

    def _make_optimizers(self) -> None:
        """Give actor, critic and secondary weights a learning rate of their own."""
        critic_only = critic_only_parameters(self.policy)
        known = {id(parameter) for parameter in critic_only}
        actor = [p for p in self.policy.parameters() if id(p) not in known]
        make: Any = self.policy.optimizer_class
        settings: dict[str, Any] = {"lr": self.lr_schedule(1.0), **self.policy.optimizer_kwargs}
        groups = [{"params": actor}, {"params": critic_only}]
        self.policy.optimizer = make(groups, **settings)
        self.secondary = SecondaryCritic(self.policy.mlp_extractor.latent_dim_vf).to(self.device)
        self.secondary_optimizer = make(self.secondary.parameters(), **settings)

    def _load_dataset(self, dataset: Dataset | str) -> TrajectoryBuffer:
        """Return the data as trajectories with log-probabilities."""
        if self.env is not None and unwrap_vec_normalize(self.env) is not None:
            raise ConfigError(
                "The environment is normalised and the data set is not; pass an environment "
                "without VecNormalize (--hyperparams normalize=false)."
            )
        transitions = read_transitions(dataset)
        transitions.check(self.observation_space, self.action_space)
        transitions = transitions.for_policy(self.policy)
        log_probs = transitions.log_probs
        if log_probs is None:
            log_probs = clone_behavior(self.policy, transitions, seed=self.seed or 0)
        return TrajectoryBuffer.of_transitions(
            transitions,
            log_probs,
            self.observation_space,
            self.action_space,
            device=self.device,
        )

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
    ) -> bool:
        """Let the behaviour policy act, or count the steps in which a data set is learnt from.

        :param rollout_buffer: not used; trajectories are kept in :attr:`trajectories`.
        """
        if self.dataset is not None:
            return self._rollouts.pass_time(self, env, callback, n_rollout_steps)
        return self._rollouts.collect(self, env, callback, n_rollout_steps)

    def train(self) -> None:
        """Take :attr:`gradient_steps` gradient steps on sequences from :attr:`trajectories`."""
        self.policy.set_training_mode(True)
        self._set_learning_rates()
        length = self.sequence_length or min(self.n_steps, self.batch_size)
        batches = self.trajectories.batches(length, self.batch_size // length)
        metrics = [self._update(batch) for batch in islice(batches, self.gradient_steps)]
        for key in metrics[0]:
            self.logger.record(f"train/{key}", float(np.mean([each[key] for each in metrics])))
        log_std = getattr(self.policy, "log_std", None)
        if isinstance(log_std, torch.Tensor):
            self.logger.record("train/std", float(log_std.detach().exp().mean()))
        self.logger.record("train/buffer_transitions", self.trajectories.n_transitions)
        self.logger.record("train/skipped_updates", self.n_skipped_updates)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _set_learning_rates(self) -> None:
        progress = self._current_progress_remaining
        actor, critic = self.policy.optimizer.param_groups
        (secondary,) = self.secondary_optimizer.param_groups
        for name, group, schedule in (
            ("learning_rate", actor, self.lr_schedule),
            ("critic_learning_rate", critic, self._critic_schedule),
            ("secondary_learning_rate", secondary, self._secondary_schedule),
        ):
            group["lr"] = schedule(progress)
            self.logger.record(f"train/{name}", group["lr"])

    def _update(self, batch: TrajectoryBatch) -> dict[str, float]:
        """Take one gradient step, or none if its gradient is not finite; returns its metrics."""
        settings = OffPolicySettings(
            gamma=self.gamma,
            gae_lambda=self.gae_lambda,
            max_ratio=self.max_ratio,
            emphasis=self.emphasis,
            normalize_advantage=self.normalize_advantage,
            gradient_correction=self.critic == "gtd",
        )
        loss = off_policy_loss(self.policy, self.secondary, batch, settings)
        total = loss.policy_loss - self.ent_coef * loss.entropy + loss.critic_loss
        self.policy.optimizer.zero_grad()
        self.secondary_optimizer.zero_grad()
        (total + loss.secondary_loss).backward()  # type: ignore[no-untyped-call]
        norms = [
            float(torch.nn.utils.clip_grad_norm_(group["params"], self.max_grad_norm))
            for group in self.policy.optimizer.param_groups
        ]
        if all(math.isfinite(norm) for norm in norms):
            self.policy.optimizer.step()
            self.secondary_optimizer.step()
        else:
            self.n_skipped_updates += 1
        self._n_updates += 1
        return loss.metrics | {
            "policy_loss": float(loss.policy_loss.detach()),
            "entropy": float(loss.entropy.detach()),
            "actor_grad_norm": norms[0],
            "critic_grad_norm": norms[1],
        }

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.optimizer", "secondary", "secondary_optimizer"], []

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "dataset", "trajectories", "_rollouts"]
