"""One trial: the same settings with several seeds, one after the other, pruned on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agents.errors import NaturalZooError
from hub.seeding import TUNING_EVALUATION_SEED
from zoo.jobs import Job
from zoo.tuning.protocol import Protocol, aggregate
from zoo.tuning.scoring import DIVERGED, Scoring
from zoo.tuning.search_space import Overrides
from zoo.tuning.study import Claim

if TYPE_CHECKING:
    from optuna.trial import TrialState

__all__ = ["ERROR", "OVERRIDES", "RETURNS", "Ending", "TrialRun"]

OVERRIDES, RETURNS, ERROR = "overrides", "returns", "error"
"""What a study keeps of a trial besides its value."""


@dataclass(frozen=True)
class Ending:
    """How a trial ended.

    :param state: complete, pruned or failed.
    :param value: the objective, None without one.
    :param returns: the mean return of each seed that was finished.
    :param error: why it failed or was given up; empty otherwise.
    """

    state: TrialState
    value: float | None
    returns: tuple[float, ...]
    error: str = ""


class TrialRun:
    """A trial under way.

    The seeds are trained one after the other, so that a bad trial costs one training, not all.
    After every look at a training, and after every training, the objective of what is known so far
    is reported, and the pruner decides.

    :param claim: the trial; what an earlier process has trained of it is kept.
    :param protocol: of the study.
    """

    def __init__(self, claim: Claim, protocol: Protocol) -> None:
        self.claim = claim
        self._protocol = protocol
        self._trial = claim.trial
        self._returns: list[float] = []
        self._scoring: Scoring | None = None
        # What a process before this one has reported is not reported again, only decided again.
        self._reported = set(claim.intermediate_steps())
        self._decided: set[int] = set()

    @property
    def number(self) -> int:
        """The trial's number in the study."""
        return self._trial.number

    @property
    def job(self) -> Job | None:
        """The process that trains, None between two."""
        return None if self._scoring is None else self._scoring.job

    @property
    def n_seeds_done(self) -> int:
        """Seeds that are trained and scored."""
        return len(self._returns)

    def poll(self) -> Ending | None:
        """Look at the training under way, start the next one; returns the ending when it is there.

        :raises OSError: the trial's folder cannot be written.
        """
        self.claim.sign()
        if self._scoring is None:
            try:
                self._scoring = self._start(self._protocol.seeds[len(self._returns)])
            except NaturalZooError as error:  # a combination that no agent can be made of
                return self._ending("FAIL", error=str(error))
        exit_code = self._scoring.exit_code
        if self._look(self._scoring):
            return self._ending("PRUNED")
        if exit_code is None:
            return None
        if exit_code != 0:
            # Settings that diverge are bad, which the sampler should learn; other faults are not.
            state = "PRUNED" if exit_code == DIVERGED else "FAIL"
            return self._ending(state, error=self._scoring.error())
        return self._finish_seed(self._scoring)

    def stop(self) -> None:
        """End the training; another process can go on with the trial."""
        if self._scoring is not None:
            self._scoring.stop()
        self.claim.release()

    def _start(self, seed: int) -> Scoring:
        overrides: Overrides | None = self._trial.user_attrs.get(OVERRIDES)
        if overrides is None:
            overrides = self._protocol.space.suggest(self._trial)
            self._trial.set_user_attr(OVERRIDES, overrides)
        return Scoring(
            self._protocol.config(overrides, seed),
            self.claim.folder,
            evaluation_seed=TUNING_EVALUATION_SEED,
            n_episodes=self._protocol.n_episodes,
        )

    def _look(self, scoring: Scoring) -> bool:
        """Report the evaluations that are new; returns whether the trial is to be pruned."""
        n_evaluations = self._protocol.n_evaluations
        first = len(self._returns) * (n_evaluations + 1)
        for timesteps, value in scoring.curve().items():
            index = timesteps // self._protocol.period - 1
            if index < n_evaluations and self._report(first + index, value):
                return True
        return False

    def _finish_seed(self, scoring: Scoring) -> Ending | None:
        self._returns.append(scoring.mean_return())
        scoring.remove_run()
        self._scoring = None
        self._trial.set_user_attr(RETURNS, self._returns)
        if len(self._returns) == self._protocol.n_seeds:
            return self._ending("COMPLETE")
        step = len(self._returns) * (self._protocol.n_evaluations + 1) - 1
        return self._ending("PRUNED") if self._report(step) else None

    def _report(self, step: int, current: float | None = None) -> bool:
        """Report the objective over the finished seeds and the one under way."""
        if step in self._decided:
            return False
        self._decided.add(step)
        if step not in self._reported:
            returns = [*self._returns, *([] if current is None else [current])]
            self._trial.report(aggregate(self._protocol.objective, returns), step)
        return self._trial.should_prune()

    def _ending(self, state: str, error: str = "") -> Ending:
        from optuna.trial import TrialState

        value = None
        if state == "COMPLETE":
            value = aggregate(self._protocol.objective, self._returns)
        if error:
            self._trial.set_user_attr(ERROR, error)
        return Ending(TrialState[state], value, tuple(self._returns), error)
