"""A trial step by step: what is reported, when it ends, and how. Trainings are scripted here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from zoo.config import RunConfig
from zoo.locks import FileLock
from zoo.tuning import trials
from zoo.tuning.protocol import Protocol, aggregate
from zoo.tuning.scoring import DIVERGED
from zoo.tuning.search_space import parse_space
from zoo.tuning.study import Claim
from zoo.tuning.trials import Ending, TrialRun


class Scripted:
    """A training that ends at once with what the script says of its seed."""

    script: dict[int, tuple[list[float], float | int]]
    started: list[int]
    job = None

    def __init__(self, config: RunConfig, folder: Path, **_: object) -> None:
        self.seed = config.seed
        self.started.append(self.seed)

    @property
    def exit_code(self) -> int:
        outcome = self.script[self.seed][1]
        return outcome if isinstance(outcome, int) else 0

    def curve(self) -> dict[int, float]:
        return {300 * (i + 1) + 7: value for i, value in enumerate(self.script[self.seed][0])}

    def mean_return(self) -> float:
        return self.script[self.seed][1]

    def error(self) -> str:
        return "went wrong"

    def remove_run(self) -> None: ...

    def stop(self) -> None: ...


Run = Callable[..., tuple[Ending, dict[int, float], list[int]]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.setattr(trials, "Scoring", Scripted)

    def run_trial(
        *script: tuple[list[float], float | int],
        pruner: optuna.pruners.BasePruner | None = None,
        objective: str = "mean",
        n_evaluations: int = 2,
        space: str = "gamma: {choices: [0.9]}",
    ) -> tuple[Ending, dict[int, float], list[int]]:
        protocol = Protocol(
            algo="npg",
            env_id="CartPole-v1",
            space=parse_space(space, "test"),
            n_timesteps=900,
            n_seeds=len(script),
            n_evaluations=n_evaluations,
            objective=objective,
        )
        Scripted.script = dict(zip(protocol.seeds, script, strict=True))
        Scripted.started = []
        study = optuna.create_study(
            direction="maximize", pruner=pruner or optuna.pruners.NopPruner()
        )
        trial = TrialRun(Claim(study.ask(), tmp_path, FileLock(tmp_path)), protocol)
        ending = None
        for _ in range(10):
            ending = ending or trial.poll()
        assert ending is not None
        study.tell(trial.number, ending.value, state=ending.state)
        return ending, study.trials[0].intermediate_values, Scripted.started

    return run_trial


def test_complete_trial(run: Run) -> None:
    ending, reported, started = run(([10.0, 20.0], 30.0), ([1.0, 2.0, 99.0], 50.0))
    assert ending == Ending(optuna.trial.TrialState.COMPLETE, 40.0, (30.0, 50.0))
    # Two looks and the end of the first training, then with the first seed's 30 in the mean;
    # the look at the very end of the second (99) is its final evaluation's business.
    assert reported == {0: 10.0, 1: 20.0, 2: 30.0, 3: 15.5, 4: 16.0}
    assert started == [200_000, 201_000]


def test_interquartile_objective(run: Run) -> None:
    returns = [0.0, 10.0, 20.0, 100.0]
    ending, reported, _ = run(*(([], value) for value in returns), objective="iqm", n_evaluations=0)
    assert ending.value == 15.0
    assert reported == {0: 0.0, 1: 5.0, 2: 10.0}


@pytest.mark.parametrize(
    ("returns", "mean", "iqm"),
    [
        ([3.0], 3.0, 3.0),
        ([0.0, 1.0, 8.0], 3.0, 3.0),
        ([8.0, 0.0, 1.0, 3.0], 3.0, 2.0),
        ([100.0, 1.0, 2.0, 3.0, -50.0], 11.2, 2.0),
        ([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 100.0], 16.875, 5.5),
    ],
)
def test_objectives(returns: list[float], mean: float, iqm: float) -> None:
    assert aggregate("mean", returns) == pytest.approx(mean)
    assert aggregate("iqm", returns) == iqm


class PruneBelow(optuna.pruners.BasePruner):
    def __init__(self, bound: float) -> None:
        self._bound = bound

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        return trial.intermediate_values[max(trial.intermediate_values)] < self._bound


def test_pruned_while_training(run: Run) -> None:
    ending, reported, started = run(([10.0, 4.0], 30.0), ([], 0.0), pruner=PruneBelow(5.0))
    assert ending.state is optuna.trial.TrialState.PRUNED
    assert ending.value is None
    assert reported == {0: 10.0, 1: 4.0}
    assert started == [200_000]  # the second seed was never begun


def test_pruned_between_seeds(run: Run) -> None:
    ending, reported, started = run(([10.0, 10.0], 4.0), ([], 0.0), pruner=PruneBelow(5.0))
    assert ending.state is optuna.trial.TrialState.PRUNED
    assert ending.returns == (4.0,)
    assert reported == {0: 10.0, 1: 10.0, 2: 4.0}
    assert started == [200_000]


def test_failed_training_fails_the_trial_alone(run: Run) -> None:
    ending, _, started = run(([], 3.5), ([], 1), ([], 3.5))
    assert ending == Ending(optuna.trial.TrialState.FAIL, None, (3.5,), "went wrong")
    assert started == [200_000, 201_000]


def test_diverged_training_counts_against_its_settings(run: Run) -> None:
    """A sampler learns from pruned trials and ignores failed ones."""
    ending, _, _ = run(([1.0], DIVERGED), ([], 3.5))
    assert ending.state is optuna.trial.TrialState.PRUNED
    assert ending.error == "went wrong"


def test_settings_that_no_agent_can_have(run: Run) -> None:
    ending, _, started = run(([], 3.5), space="n_steps: {choices: [0]}")
    assert ending.state is optuna.trial.TrialState.FAIL
    assert "n_steps: 0 is below 1" in ending.error
    assert started == []
