"""Searches from end to end: killed and resumed, shared, failing, ranked again and written."""

from __future__ import annotations

import csv
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import optuna
import pytest

from hub.seeding import evaluation_seeds, purpose_seeds
from zoo.hyperparameters import resolve_hyperparameters
from zoo.jobs import Job
from zoo.plain_yaml import load_yaml
from zoo.presets import read_entries
from zoo.tune import main
from zoo.tuning import reranking
from zoo.tuning.protocol import Protocol
from zoo.tuning.reranking import PRESET, Candidate, best, candidates, rerank
from zoo.tuning.scoring import train_and_score
from zoo.tuning.search_space import parse_space
from zoo.tuning.study import StudyFolder, open_study
from zoo.tuning.tables import trials_table

SPACE = """
target_kl: {low: 0.005, high: 0.1, log: true}
gamma: {choices: [0.98, 0.99]}
"""
NAME = "npg-CartPole-v1"


def tune(folder: Path, *more: str, space: str = SPACE) -> list[str]:
    (folder / "space.yml").write_text(space)
    return [
        *("--algo", "npg", "--env", "CartPole-v1", "--search-space", str(folder / "space.yml")),
        *("--hyperparams", "n_envs=2", "n_steps=64", "batch_size=64", "n_critic_updates=2"),
        *("-n", "384", "--n-seeds", "2", "--n-evaluations", "1", "--eval-episodes", "2"),
        *("--n-trials", "3", "--rerank", "0", "-f", str(folder), *more),
    ]


def trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    backend = optuna.storages.journal.JournalFileBackend(str(folder / NAME / "journal.log"))
    storage = optuna.storages.JournalStorage(backend)
    return optuna.load_study(study_name=NAME, storage=storage).trials


def essence(folder: Path) -> list[dict[str, Any]]:
    """Return all of a study but its times."""
    return [
        {
            "number": trial.number,
            "state": trial.state.name,
            "value": trial.value,
            "params": trial.params,
            "reports": trial.intermediate_values,
            "attributes": {k: v for k, v in trial.user_attrs.items() if k != "signed"},
        }
        for trial in trials(folder)
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuning")
    assert main(tune(folder)) == 0
    return folder


def test_study(finished: Path) -> None:
    found = trials(finished)
    assert [trial.state.name for trial in found] == ["COMPLETE"] * 3
    for trial in found:
        returns = trial.user_attrs["returns"]
        assert len(returns) == 2
        assert trial.value == pytest.approx(sum(returns) / 2, rel=1e-15)
        assert sorted(trial.intermediate_values) == [0, 1, 2]
        assert trial.intermediate_values[1] == returns[0]
        assert trial.user_attrs["overrides"]["gamma"] == trial.params["gamma"]
    assert len({trial.params["target_kl"] for trial in found}) == 3
    assert not list((finished / NAME / "trials").glob("*/"))  # nothing is left of the trainings
    table = list(csv.DictReader((finished / NAME / "trials.csv").read_text().splitlines()))
    assert [row["state"] for row in table] == ["complete"] * 3
    for row, trial in zip(table, found, strict=True):
        assert float(row["objective"]) == pytest.approx(trial.value, rel=1e-5)
        assert len(row["returns"].split()) == 2
        assert load_yaml(row["settings"], "settings") == trial.user_attrs["overrides"]
    assert (finished / NAME / "history.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_killed_and_resumed(finished: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle of a trial: resumed, the study is the same as if never killed."""
    worker = Job(main, [tune(tmp_path)], tmp_path / "worker.log")
    second_seed = tmp_path / NAME / "trials" / "1" / str(purpose_seeds("tuning", 2)[1])
    deadline = time.monotonic() + 60
    while not second_seed.exists() and time.monotonic() < deadline:
        assert worker.exit_code is None, (tmp_path / "worker.log").read_text()
        time.sleep(0.005)
    worker.kill()
    assert [trial.state.name for trial in trials(tmp_path)] == ["COMPLETE", "RUNNING"]
    assert main(tune(tmp_path)) == 0
    assert essence(tmp_path) == essence(finished)


def test_two_workers_and_one_is_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each trial is done once; what the killed worker was at is taken over."""
    command, log = tune(tmp_path, "--n-trials", "8", "--n-seeds", "1"), tmp_path / "worker.log"
    other = Job(main, [command], log)

    def kill_after_its_first_trial() -> None:
        while other.exit_code is None and "] trial " not in log.read_text():
            time.sleep(0.005)
        other.kill()

    while not (tmp_path / NAME / "trials" / "0").exists():
        assert other.exit_code is None, log.read_text()
        time.sleep(0.005)
    killer = threading.Thread(target=kill_after_its_first_trial)
    killer.start()
    assert main(command) == 0
    killer.join()
    found = trials(tmp_path)
    assert [trial.number for trial in found] == list(range(8))
    assert all(trial.state.name == "COMPLETE" for trial in found)
    texts = [log.read_text(), capsys.readouterr().err]
    for number in range(8):
        assert sum(text.count(f"] trial {number}: ") for text in texts) == 1
    assert all("] trial " in text for text in texts)


def test_failing_trials_do_not_end_the_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Half of the trials diverge in the first update.
    (tmp_path / "space.yml").write_text("learning_rate: {choices: [1e-3, 1e+30]}")
    command = [
        *("--algo", "ppo", "--env", "CartPole-v1", "--search-space", str(tmp_path / "space.yml")),
        *("--hyperparams", "n_envs=2", "n_steps=64", "batch_size=64", "n_epochs=1", "-n", "128"),
        *("--n-seeds", "1", "--n-evaluations", "0", "--eval-episodes", "2", "--n-trials", "4"),
        *("--sampler", "random", "--rerank", "0", "-f", str(tmp_path), "--study-name", NAME),
    ]
    assert main(command) == 0
    states = {t.params["learning_rate"]: t.state.name for t in trials(tmp_path)}
    assert states == {1e-3: "COMPLETE", 1e30: "PRUNED"}
    diverged = [t for t in trials(tmp_path) if t.state.name == "PRUNED"]
    assert "parameters are no longer finite" in diverged[0].user_attrs["error"]
    assert "given up: The parameters are no longer finite" in capsys.readouterr().err


def test_search_that_only_fails_is_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo.tuning.scoring.train_and_score", len)  # takes no five arguments
    assert main(tune(tmp_path, "--n-trials", "50", "--n-seeds", "1")) == 1
    assert len(trials(tmp_path)) == 5
    err = capsys.readouterr().err
    assert "All of the first 5 trials have failed, the last one: TypeError" in err


def test_another_protocol_is_another_study(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(tune(finished, "-n", "500", "--objective", "iqm")) == 1
    err = capsys.readouterr().err
    assert f"The study '{NAME}' has another n_timesteps, objective" in err
    assert main(tune(finished, "--hyperparams", "n_envs=2", "n_steps=32")) == 1
    assert "has another base" in capsys.readouterr().err
    assert main(tune(finished)) == 0  # itself: nothing to do
    assert capsys.readouterr().out == f"{NAME}: 3 complete ({finished / NAME})\n"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--sampler", "grid"], "Unknown sampler 'grid'"),
        (["--pruner", "media"], "Did you mean 'median'?"),
        (["--objective", "max"], "Known: iqm, mean."),
        (["--jobs", "0"], "--jobs 0 is below 1"),
        (["--n-seeds", "0"], "n_seeds: 0 is below 1"),
        (["--n-seeds", "101"], "101 seeds: give a number in 1 … 100"),
        (["--search-space", "/nowhere.yml"], "'/nowhere.yml' cannot be read"),
        (["--hyperparams", "n_step=3"], "Did you mean 'n_steps'?"),
        (["--env", "CartPool-v1"], "CartPole-v1"),
        (["--storage", "nosuchdb://x"], "cannot be opened"),
    ],
)
def test_wrong_arguments(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert main(tune(tmp_path, *more)) == 1
    assert message in capsys.readouterr().err


def test_a_wrong_key_in_the_space_is_told_before_the_first_trial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(tune(tmp_path, space="taget_kl: {low: 0.1, high: 0.2}")) == 1
    assert "Did you mean 'target_kl'?" in capsys.readouterr().err
    assert not (tmp_path / NAME).exists()


# --- Ranking again ------------------------------------------------------------------------------


def test_ranked_again_and_written(
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The file that is written trains what won, and says how it was found."""
    # The shipped preset of CartPole beats whatever 512 steps can teach; here it must not run.
    monkeypatch.setattr(Protocol, "has_preset", lambda protocol: False)
    own = tmp_path / "own.yml"
    options = ["--rerank", "2", "--rerank-seeds", "2", "--rerank-timesteps", "512"]
    command = tune(finished, *options, "--jobs", "2", "-o", str(own))
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert out == f"{own}\n"
    values = {trial.number: trial.value for trial in trials(finished)}
    ranked = sorted(values, key=lambda number: -values[number])[:2]
    assert f"ranking again with 2 seeds, 512 steps: trial {ranked[0]}, trial {ranked[1]}\n" in err
    table = list(csv.DictReader((finished / NAME / "ranking.csv").read_text().splitlines()))
    assert [(row["candidate"], row["seed"], row["n_timesteps"]) for row in table] == [
        (f"trial {number}", seed, "512") for number in ranked for seed in ("300000", "301000")
    ]
    for row in table:
        name = row["candidate"].replace(" ", "_")
        score = finished / NAME / "reranking" / name / f"{row['seed']}.json"
        returns = json.loads(score.read_text())["returns"]
        assert float(row["mean_return"]) == pytest.approx(sum(returns) / 100, rel=1e-5)
    entry = read_entries("npg", own)["CartPole-v1"]
    assert entry["n_timesteps"] == 512
    winner = int(entry["source"].partition("; trial ")[2].split()[0])
    assert winner in ranked
    assert entry["source"].startswith(
        f"zoo.tune, study {NAME}: 3 complete trials of 384 steps x 2 seeds (mean of the final "
        f"returns); trial {winner} is the best of 2 ranked again on 2 fresh seeds x 512 steps: "
    )
    tuned = resolve_hyperparameters("npg", "CartPole-v1", conf_file=own)
    overrides = trials(finished)[winner].user_attrs["overrides"]
    assert tuned.agent["target_kl"] == overrides["target_kl"]
    assert tuned.agent["gamma"] == overrides["gamma"]
    assert (tuned.n_envs, tuned.agent["n_steps"], tuned.agent["n_critic_updates"]) == (2, 64, 2)
    others = {key: value for key, value in read_entries("npg").items() if key != "CartPole-v1"}
    assert others.items() <= read_entries("npg", own).items()

    # Once more: every score is there already. A dry run prints the same entry and writes nothing.
    own.unlink()
    assert main([*command, "--dry-run"]) == 0
    assert load_yaml(capsys.readouterr().out, "out") == {"CartPole-v1": entry}
    assert not own.exists()


PROTOCOL = Protocol(
    algo="npg",
    env_id="CartPole-v1",
    space=parse_space(SPACE, "test"),
    n_timesteps=384,
    n_seeds=2,
    n_evaluations=1,
    n_episodes=2,
)


def finished_study(tmp_path: Path, values: list[float]) -> optuna.Study:
    study = open_study(StudyFolder(tmp_path), "test", PROTOCOL)
    for value in values:
        trial = study.ask()
        trial.set_user_attr("overrides", PROTOCOL.space.suggest(trial))
        study.tell(trial, value)
    study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)
    return study


def test_table_of_trials(tmp_path: Path) -> None:
    """A pruned trial has its last report, a failed one its reason."""
    study = finished_study(tmp_path, [2.5])  # and one that failed
    pruned = study.ask()
    pruned.set_user_attr("overrides", {"gamma": 0.9, "policy_kwargs.net_arch": [8, 8]})
    pruned.set_user_attr("returns", [1.23456789])
    pruned.report(7.0, 0)
    pruned.report(4.0, 1)
    pruned.set_user_attr("error", "no memory")
    study.tell(pruned, state=optuna.trial.TrialState.PRUNED)
    study.ask()  # still running: not in the table
    header, complete, failed, last = trials_table(study).splitlines()
    assert header == "trial,state,objective,returns,settings,error"
    assert complete.startswith("0,complete,2.5,,")
    assert failed == "1,fail,,,{},"
    settings = '"{gamma: 0.9, policy_kwargs.net_arch: [8, 8]}"'
    assert last == f"2,pruned,4,1.23457,{settings},no memory"


def test_candidates_are_the_best_trials_and_the_preset(tmp_path: Path) -> None:
    ranked = candidates(finished_study(tmp_path, [1.0, 3.0, 2.0]), PROTOCOL, 2, 3, None)
    assert [candidate.name for candidate in ranked] == ["trial 1", "trial 2", PRESET]
    for candidate in ranked:
        assert [config.seed for config in candidate.configs] == [300_000, 301_000, 302_000]
        assert {config.n_timesteps for config in candidate.configs} == {100_000}  # the preset's
    preset = resolve_hyperparameters("npg", "CartPole-v1")
    assert ranked[-1].configs[0].agent == preset.agent


def test_who_fails_with_one_seed_is_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Scripted:
        job = None

        def __init__(self, config: Any, folder: Path, **about: Any) -> None:
            assert about == {"evaluation_seed": 3, "n_episodes": 100}
            self.config, self.name = config, folder.name
            self.exit_code = int(self.name == "trial_1" and config.seed == 301_000)

        def mean_return(self) -> float:
            return {"trial_1": 900.0, "trial_2": 5.0, "preset": 4.0}[self.name]

        def error(self) -> str:
            return "no memory"

        def remove_run(self) -> None: ...

    monkeypatch.setattr(reranking, "Scoring", Scripted)
    ranked = candidates(finished_study(tmp_path, [1.0, 3.0, 2.0]), PROTOCOL, 2, 3, None)
    rerank(ranked, tmp_path, n_jobs=1, say=lambda line: None)
    assert [candidate.error for candidate in ranked] == ["no memory", "", ""]
    assert best(ranked, "mean").name == "trial 2"
    assert ranked[1].returns == {300_000: 5.0, 301_000: 5.0, 302_000: 5.0}
    assert len(ranked[0].returns) == 1


def test_best_by_the_objective() -> None:
    one = Candidate("one", {}, [], dict(enumerate([0.0, 10.0, 10.0, 100.0])))
    two = Candidate("two", {}, [], dict(enumerate([20.0, 20.0, 20.0, 20.0])))
    assert best([one, two], "mean") is one  # 30 to 20
    assert best([one, two], "iqm") is two  # 10 to 20
    assert one.described() == "30.0 ± 46.9"  # 8800 / 3


def test_no_episode_of_the_benchmark_is_seen(tmp_path: Path, monkeypatch: Any) -> None:
    """Neither looks nor scores of a trial play what the published numbers are measured on."""
    seen: list[int] = []

    def note(*args: Any, seeds: list[int], **kwargs: Any) -> Any:
        seen.extend(seeds)
        return original(*args, seeds=seeds, **kwargs)

    from zoo import callbacks

    original = callbacks.evaluate
    monkeypatch.setattr(callbacks, "evaluate", note)
    config = PROTOCOL.config({"n_envs": 2, "n_steps": 64}, PROTOCOL.seeds[0])
    run_path = tmp_path / "run"
    (run_path / "CartPole-v1").mkdir(parents=True)
    score = tmp_path / "score.json"
    assert train_and_score(config.to_yaml(), str(run_path), str(score), 2, 3) == 0
    assert seen == [*evaluation_seeds(2, 5), *evaluation_seeds(2, 5), *evaluation_seeds(2, 3)]


def test_a_database_as_storage(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    study = open_study(StudyFolder(tmp_path / "a"), "test", PROTOCOL, storage=storage)
    study.tell(study.ask(), 1.0)
    again = open_study(StudyFolder(tmp_path / "b"), "test", PROTOCOL, storage=storage)
    assert [trial.value for trial in again.trials] == [1.0]
    assert again.direction is optuna.study.StudyDirection.MAXIMIZE


def test_a_process_that_ends_while_it_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its trial exists in the storage, without a folder or a signature; the next one takes it."""
    folder = StudyFolder(tmp_path)
    study = open_study(folder, "test", PROTOCOL)
    first = folder.claim(study, 3, "tpe", 0)
    assert first is not None
    lock = StudyFolder._lock
    monkeypatch.setattr(
        StudyFolder, "_lock", lambda self, i: lock(self, i) if i == 0 else sys.exit("killed")
    )
    with pytest.raises(SystemExit):
        folder.claim(study, 3, "tpe", 0)
    monkeypatch.setattr(StudyFolder, "_lock", lock)
    assert [trial.state.name for trial in study.trials] == ["RUNNING", "RUNNING"]
    taken = StudyFolder(tmp_path).claim(study, 2, "tpe", 0)
    assert taken is not None
    assert taken.trial.number == 1
    assert study.trials[1].user_attrs["signed"] == pytest.approx(time.time(), abs=60)
    assert folder.claim(study, 2, "tpe", 0) is None  # both are being worked on


def test_a_trial_of_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is left alone while it is signed every minute, and failed when it no longer is."""
    here, there = StudyFolder(tmp_path / "here"), StudyFolder(tmp_path / "there")
    storage = str(tmp_path / "journal.log")
    study = open_study(here, "test", PROTOCOL, storage=storage)
    claim = there.claim(open_study(there, "test", PROTOCOL, storage=storage), 5, "tpe", 0)
    assert claim is not None
    own = here.claim(study, 5, "tpe", 0)
    assert own is not None
    assert (claim.trial.number, own.trial.number) == (0, 1)
    own.release()
    assert here.claim(study, 2, "tpe", 0).trial.number == 1  # left behind here: taken over
    assert not here.is_idle(study)
    now = time.time()
    monkeypatch.setattr("zoo.tuning.study.time.time", lambda: now + 601.0)
    assert here.claim(study, 2, "tpe", 0) is None
    assert study.trials[0].state.name == "FAIL"
    assert study.trials[0].user_attrs["error"] == "the process that worked on it has ended"
