"""A3C: asynchronous advantage actor-critic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.vec_env import VecEnv

from agents.a3c.crew import CrewLearner
from agents.a3c.lstm_policy import LstmPolicy, LstmState
from agents.a3c.shared_optimizer import RMSprop
from agents.a3c.solo import SoloLearner
from agents.a3c.supervision import CRASH_POLICIES
from agents.a3c.update_log import UpdateLog
from agents.a3c.worker_env import WorkerEnv
from agents.errors import ConfigError, UnknownName
from agents.on_policy import OnPolicyAgent

__all__ = ["A3C"]

_Self = TypeVar("_Self", bound="A3C")


class A3C(OnPolicyAgent):
    """Workers learn side by side and change shared parameters without waiting for each other.

    Each worker, a process with environments, networks and random streams of its own, repeats:
    copy the shared ``θ``; take ``n_steps`` steps; compute ``g``, the gradient of

    ``mean_t[ −A_t log π_θ(a_t|s_t) + vf_coef · (R_t − V_θ(s_t))² − ent_coef · H(π_θ(·|s_t)) ]``

    with the n-step return ``R_t = r_t + γ r_{t+1} + … + γ^k V(s_{t+k})`` up to the segment's or
    the episode's end and ``A_t = R_t − V(s_t)``; and step the shared parameters and statistics,

    ``v ← α v + (1 − α) g²,   θ ← θ − η g / √(v + ε)``

    (``η = learning_rate``, ``α = rms_prop_alpha``, ``ε = rms_prop_eps``). There is no lock. How
    many updates others made between copying ``θ`` and using ``g`` is measured in every update.

    With ``n_workers=1`` everything happens in this process, on ``env`` itself, and the same seed
    gives the same parameters. With more workers a run does not repeat itself bit for bit: which
    update comes first is for the operating system to say.

    With more workers, callbacks run in this process, when a worker's finished segment has arrived:
    ``on_rollout_start``, ``on_step`` once per step, ``on_rollout_end``. ``locals`` hold
    ``rewards``, ``dones``, ``infos`` (of episodes that ended), ``worker`` and ``n_steps``. The
    policy they see is a copy that is refreshed between segments. While a callback is busy a worker
    goes on for at most eight segments. ``env`` is not stepped; its ``VecNormalize`` keeps the
    statistics for all.

    >>> from agents import A3C
    >>> agent = A3C("MlpPolicy", "CartPole-v1", n_workers=4, seed=0)

    Ref: Mnih et al. 2016, arXiv:1602.01783, algorithm S3 and section 4. Differs from it: means
    over the segment instead of sums, so that ``learning_rate`` does not depend on ``n_steps``; a
    segment goes on into the next episode (the trace is cut there), so that all have one length; a
    time limit is bootstrapped with ``V``, a real end is not; gradients are clipped by their norm;
    ``learning_rate`` is constant unless a schedule is given.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"``, ``"MlpLstmPolicy"``
        (a memory: one LSTM under both heads) or a policy class.
    :param env: environment or its Gymnasium id.
    :param n_workers: processes that learn; 1 for none but this one.
    :param worker_env: how a worker makes its environments: a Gymnasium id, or a function without
        arguments that returns one environment (it is called ``n_envs`` times) or a ``VecEnv``.
        None makes those of ``env`` again from their Gymnasium specs.
    :param on_worker_crash: ``"raise"`` ends training when a worker dies, ``"continue"`` warns and
        goes on with the others.
    :param learning_rate: ``η``; a float or a function of the remaining progress.
    :param n_steps: steps of a segment in each environment (``t_max`` in the paper).
    :param gamma: discount.
    :param gae_lambda: λ of the advantages; 1 is the paper's n-step return.
    :param ent_coef: ``β``, weight of the entropy bonus.
    :param vf_coef: weight of the value loss.
    :param max_grad_norm: longest gradient; a longer one is scaled down to it.
    :param rms_prop_alpha: ``α``.
    :param rms_prop_eps: ``ε``, under the root.
    :param exploration_temperatures: worker ``w`` acts at temperature number ``w`` (counted
        round): logits are divided by it, a Gaussian's standard deviation multiplied. Samples are
        weighed by ``min(1, π/b)``, ``b`` being the policy that acted. None lets every worker act
        as ``π``, with a random stream of its own. Several workers only.
    :param normalize_advantage: scale advantages to mean 0 and standard deviation 1 per segment.
    :param kwargs: ``use_sde``, ``policy_kwargs``, ``seed``, … as in
        :class:`~agents.on_policy.OnPolicyAgent`.
    :raises ConfigError: a parameter is out of its range.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        **OnPolicyAgent.policy_aliases,
        "MlpLstmPolicy": LstmPolicy,
    }
    resumable_attributes: ClassVar[tuple[str, ...]] = ("n_skipped_updates",)

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        *,
        n_workers: int = 1,
        worker_env: WorkerEnv | None = None,
        on_worker_crash: str = "raise",
        learning_rate: float | Schedule = 7e-4,
        n_steps: int = 5,
        gae_lambda: float = 1.0,
        ent_coef: float = 0.01,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        rms_prop_alpha: float = 0.99,
        rms_prop_eps: float = 1e-5,
        exploration_temperatures: Sequence[float] | None = None,
        normalize_advantage: bool = False,
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            gae_lambda=gae_lambda,
            normalize_advantage=normalize_advantage,
            _init_setup_model=False,
            **kwargs,
        )
        self.n_workers = n_workers
        self.worker_env = worker_env
        self.on_worker_crash = on_worker_crash
        self.ent_coef = ent_coef
        self.vf_coef = vf_coef
        self.max_grad_norm = max_grad_norm
        self.rms_prop_alpha = rms_prop_alpha
        self.rms_prop_eps = rms_prop_eps
        self.exploration_temperatures = exploration_temperatures
        self.n_skipped_updates = 0
        self.has_worker_processes = n_workers > 1
        """Whether experience comes from other processes and ``env`` is not stepped."""
        self.lstm_state: LstmState | None = None
        """Of a recurrent policy after the last step in ``env``."""
        self._present_learner: SoloLearner | CrewLearner | None = None
        self._update_log = UpdateLog()
        if _init_setup_model:
            self._setup_model()

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.on_worker_crash not in CRASH_POLICIES:
            raise UnknownName("value of on_worker_crash", self.on_worker_crash, CRASH_POLICIES)
        self._check("n_workers", self.n_workers >= 1, "at least 1; 4 is customary")
        alpha_fits = 0.0 <= self.rms_prop_alpha < 1.0
        self._check("rms_prop_alpha", alpha_fits, "in [0, 1); 0.99 is customary")
        for name in ("max_grad_norm", "rms_prop_eps"):
            self._check(name, 0.0 < getattr(self, name) < math.inf, "positive and finite")
        for name in ("ent_coef", "vf_coef"):
            self._check(name, 0.0 <= getattr(self, name) < math.inf, "finite and not negative")
        if "optimizer_class" in (self.policy_kwargs or {}):
            raise ConfigError(
                "A3C steps with RMSprop, whose statistics its workers share; leave optimizer_class "
                "out of policy_kwargs."
            )
        self._check_temperatures()

    def _check_temperatures(self) -> None:
        temperatures = self.exploration_temperatures
        if temperatures is None:
            return
        if not temperatures or not all(0.0 < value < math.inf for value in temperatures):
            raise ConfigError(
                f"exploration_temperatures={temperatures} must be positive numbers, such as "
                "[1.0, 1.5]."
            )
        if self.n_workers == 1:
            raise ConfigError(
                "exploration_temperatures tell workers apart; pass n_workers=2 or more with them."
            )

    def _setup_model(self) -> None:
        super()._setup_model()
        self.policy.optimizer = RMSprop(
            self.policy.parameters(),
            lr=self.lr_schedule(1),
            alpha=self.rms_prop_alpha,
            eps=self.rms_prop_eps,
        )

    def _excluded_save_params(self) -> list[str]:
        return [
            *super()._excluded_save_params(),
            *("worker_env", "lstm_state", "_present_learner", "_update_log"),
        ]

    def learn(
        self: _Self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 100,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> _Self:
        """Train for ``total_timesteps`` environment steps of all workers together, as in SB3.

        However this ends, no worker is left.

        :param log_interval: segments between two rows of the log.
        :raises WorkerCrashed: a worker has died and ``on_worker_crash="raise"``, or none is left.
        :raises ConfigError: the workers cannot make their environments.
        """
        self._present_learner = None
        try:
            return super().learn(
                total_timesteps,
                callback,
                log_interval,
                tb_log_name,
                reset_num_timesteps,
                progress_bar,
            )
        finally:
            self._learner.close()
            self._present_learner = None

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
    ) -> bool:
        """Collect a segment, or take in one that a worker has collected and learnt from."""
        return self._learner.collect(env, callback, rollout_buffer, n_rollout_steps)

    def train(self) -> None:
        """Step with the segment's gradient, or refresh the copy of what the workers share."""
        self._update_learning_rate(self.policy.optimizer)
        update = self._learner.update()
        self._n_updates += 1
        self.n_skipped_updates += update.skipped
        self._update_log.add(update)
        self._log_update()

    def _log_update(self) -> None:
        for name, value in self._update_log.metrics().items():
            self.logger.record(f"train/{name}", value)
        self.logger.record("train/n_workers", self._learner.n_workers)
        self.logger.record("train/crashed_workers", self._learner.n_crashed)
        self.logger.record("train/skipped_updates", self.n_skipped_updates)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        log_std = getattr(self.policy, "log_std", None)
        if log_std is not None:
            self.logger.record("train/std", float(log_std.detach().exp().mean()))

    def dump_logs(self, iteration: int = 0) -> None:
        """Write the log; what it averages begins anew."""
        super().dump_logs(iteration)
        self._update_log.reset()

    @property
    def rmsprop(self) -> RMSprop:
        """The policy's optimiser."""
        optimizer = self.policy.optimizer
        if not isinstance(optimizer, RMSprop):
            raise TypeError(f"A3C steps with its own RMSprop, not {type(optimizer).__name__}")
        return optimizer

    @property
    def _learner(self) -> SoloLearner | CrewLearner:
        if self._present_learner is None:
            self._present_learner = (
                CrewLearner(self) if self.has_worker_processes else SoloLearner(self)
            )
        return self._present_learner

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """Process ids of the workers that are alive; empty outside of :meth:`learn`."""
        return self._learner.pids
