"""Trials of settings: what a row of the table says, and that only a finished trial adds one."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from benchmarks import trial

HEADER = "algo,env_id,settings,seed,n_timesteps,mean_return,std_return\n"


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "trials.csv"
    path.write_text(HEADER)
    monkeypatch.setattr(trial, "TRIALS", path)
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["trial", *arguments])
    return trial.main()


def test_settings_are_what_differs_from_the_default_entry() -> None:
    overrides = ["gamma=0.9", "gae_lambda=0.95", "n_timesteps=2e4", "policy_kwargs.log_std_init=-1"]
    settings, n_timesteps = trial.settings_of("npg", "Hopper-v4", overrides, untuned=True)
    assert settings == {"gamma": 0.9, "policy_kwargs": {"log_std_init": -1}}
    assert n_timesteps == 20_000


def test_settings_begin_with_the_preset() -> None:
    settings, _ = trial.settings_of("npg", "CartPole-v1", ["cg_damping=1e-3"])
    assert settings["cg_damping"] == 0.001
    assert settings["normalize"] is False
    assert settings["policy_kwargs"] == {"log_std_init": None}  # left out by the preset


def test_a_row_has_mean_and_population_deviation() -> None:
    line = trial.row("npg", "Hopper-v4", "{gamma: 0.9, gae_lambda: 1.0}", 7, 100, [100.0, 300.0])
    assert line == 'npg,Hopper-v4,"{gamma: 0.9, gae_lambda: 1.0}",7,100,200.0,100.0\n'
    assert trial.row("npg", "Reacher-v4", "{}", 7, 100, [-3.256, -3.256]).endswith("-3.26,0.0\n")


def test_a_trial_trains_and_adds_its_row(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = ["n_timesteps=2048", "gamma=0.9"]
    assert run(monkeypatch, "npg", "CartPole-v1", "--hyperparams", *changes) == 0
    (row,) = csv.DictReader(table.read_text().splitlines())
    assert (row["algo"], row["env_id"], row["seed"]) == ("npg", "CartPole-v1", "200000")
    assert row["n_timesteps"] == "2048"
    assert "gamma: 0.9" in row["settings"]
    assert 1.0 <= float(row["mean_return"]) <= 500.0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nqg", "CartPole-v1"], "npg"),
        (["npg", "CartPool-v1"], "CartPole-v1"),
        (["npg", "CartPole-v1", "--hyperparams", "gama=0.9"], "gamma"),
    ],
)
def test_a_wrong_name_is_an_error_and_adds_nothing(
    arguments: list[str],
    named: str,
    table: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="1"):  # zoo.train's own error ends the trial
        sys.exit(run(monkeypatch, *arguments))
    assert named in capsys.readouterr().err
    assert table.read_text() == HEADER
