"""What a study has found, as small tables that are worth keeping beside the preset."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from zoo.plain_yaml import flow_yaml
from zoo.tuning.reranking import Candidate
from zoo.tuning.trials import ERROR, OVERRIDES, RETURNS

if TYPE_CHECKING:
    from optuna import Study

__all__ = ["ranking_table", "trials_table"]


def trials_table(study: Study) -> str:
    """Return a CSV line per trial that has ended: its settings, and what came of them.

    ``objective`` is the last one reported where the trial was pruned; ``returns`` are of the seeds
    that were finished; ``settings`` can be given to ``zoo.train --hyperparams`` one by one.
    """
    rows = []
    for trial in study.get_trials(deepcopy=False):
        if not trial.state.is_finished():
            continue
        objective = trial.value
        if objective is None and trial.intermediate_values:
            objective = trial.intermediate_values[max(trial.intermediate_values)]
        returns = trial.user_attrs.get(RETURNS, [])
        settings = flow_yaml(dict(trial.user_attrs.get(OVERRIDES, {})))
        error = trial.user_attrs.get(ERROR, "")
        rows.append(
            (
                trial.number,
                trial.state.name.lower(),
                "" if objective is None else _rounded(objective),
                " ".join(map(_rounded, returns)),
                settings,
                error,
            )
        )
    return _csv(("trial", "state", "objective", "returns", "settings", "error"), rows)


def ranking_table(ranked: Sequence[Candidate]) -> str:
    """Return a CSV line per candidate and seed that was trained when the best were ranked again."""
    rows = [
        (candidate.name, seed, candidate.configs[0].n_timesteps, _rounded(value))
        for candidate in ranked
        for seed, value in sorted(candidate.returns.items())
    ]
    return _csv(("candidate", "seed", "n_timesteps", "mean_return"), rows)


def _rounded(value: float) -> str:
    return f"{value:.6g}"


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
