"""Working on a study: trials side by side until there are enough of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from agents.errors import NaturalZooError
from zoo.campaign.progress import duration
from zoo.jobs import wait_for_any
from zoo.tuning.protocol import Protocol
from zoo.tuning.study import StudyFolder
from zoo.tuning.trials import Ending, TrialRun

if TYPE_CHECKING:
    from optuna import Study

__all__ = ["search", "tally"]

_POLL_SECONDS = 0.5
_MOST_FAILURES_AT_FIRST = 5


def search(
    study: Study,
    folder: StudyFolder,
    protocol: Protocol,
    *,
    n_trials: int,
    n_jobs: int,
    sampler: str = "tpe",
    seed: int = 0,
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> None:
    """Work on the study until it has ``n_trials`` trials, those of other processes included.

    However this process ends, its trainings end, too, and the next one goes on with its trials.

    :param n_jobs: trials side by side, one core each.
    :param sampler: how settings are chosen: ``"tpe"`` or ``"random"``.
    :param seed: of the sampler.
    :param say: is told what happens.
    :raises NaturalZooError: the first trials have all failed, so that something else is wrong.
    """
    running: list[TrialRun] = []
    began = time.monotonic()
    try:
        while True:
            while len(running) < n_jobs:
                claim = folder.claim(study, n_trials, sampler, seed)
                if claim is None:
                    break
                running.append(TrialRun(claim, protocol))
            if not running:
                return
            for trial in list(running):
                ending = trial.poll()
                if ending is not None:
                    running.remove(trial)
                    _tell(study, trial, ending)
                    say(_described(study, trial, ending, n_trials, time.monotonic() - began))
                    _give_up_if_hopeless(study)
            jobs = [trial.job for trial in running if trial.job is not None]
            if jobs and len(jobs) == len(running):  # all are training
                wait_for_any(jobs, _POLL_SECONDS)
    finally:
        for trial in running:
            trial.stop()


def tally(study: Study) -> dict[str, int]:
    """Return the number of trials in each state."""
    counts: dict[str, int] = {}
    for trial in study.get_trials(deepcopy=False):
        name = trial.state.name.lower()
        counts[name] = counts.get(name, 0) + 1
    return counts


def _tell(study: Study, trial: TrialRun, ending: Ending) -> None:
    try:
        study.tell(trial.number, ending.value, state=ending.state)
    except RuntimeError:  # another machine took this one for dead, and failed the trial
        return
    finally:
        trial.stop()
        trial.claim.remove_folder()


def _described(study: Study, trial: TrialRun, ending: Ending, n_trials: int, seconds: float) -> str:
    state = ending.state.name
    if state == "COMPLETE":
        returns = ", ".join(f"{value:.1f}" for value in ending.returns)
        what = f"{ending.value:.2f} (seeds: {returns})"
    elif ending.error:
        what = f"{'given up' if state == 'PRUNED' else 'FAILED'}: {ending.error}"
    else:
        what = f"pruned during seed {len(ending.returns) + 1}"
    counts = tally(study)
    n_ended = sum(count for name, count in counts.items() if name not in ("running", "waiting"))
    best = ""
    if counts.get("complete"):
        best = f", best {study.best_value:.2f} (trial {study.best_trial.number})"
    return f"[{n_ended}/{n_trials}] trial {trial.number}: {what}{best}, {duration(seconds)} so far"


def _give_up_if_hopeless(study: Study) -> None:
    trials = study.get_trials(deepcopy=False)
    ended = [trial for trial in trials if trial.state.is_finished()]
    if len(ended) >= _MOST_FAILURES_AT_FIRST and all(t.state.name == "FAIL" for t in ended):
        raise NaturalZooError(
            f"All of the first {len(ended)} trials have failed, the last one: "
            f"{ended[-1].user_attrs.get('error')} Nothing can be learnt from that; try the "
            "settings with zoo.train."
        )
