import csv
import json
import os
import sys
import time

import numpy as np
import pytest
from stable_baselines3.common.logger import Logger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from zoo.logs import _csv_writer, rows_until
from zoo.train import main

pytestmark = pytest.mark.usefixtures("few_final_episodes")
SETTINGS = ["--hyperparams", "n_steps=32", "n_envs=2", "normalize=true"]


def command(tools, tmp_path, *more):
    return [
        *tools.tiny("npg", "CartPole-v1", tmp_path / "logs", "-n", "640", *more),
        *("--eval-freq", "192", "--save-freq", "256", *SETTINGS),
    ]


def test_rows_until():
    text = 'a,step,b\n1,10,x\n2,20,"y ""quoted"", z"\n3,30,x\n'
    kept = rows_until(text, "step", 20)
    assert list(csv.DictReader(kept.splitlines())) == [
        {"a": "1", "step": "10", "b": "x"},
        {"a": "2", "step": "20", "b": 'y "quoted", z'},
    ]
    assert rows_until(text, "step", 5) == "a,step,b\n"


@pytest.mark.parametrize(
    "torn", ["", "a,st", "a,step,b", "a,step,b\n1", "a,step,b\n1,x,2\n", "a,b\n1,2\n"]
)
def test_rows_of_a_torn_file(torn):
    assert len(rows_until(torn, "step", 100).splitlines()) <= 1


def test_new_column_in_an_old_file(tmp_path):
    """The header is what SB3's writer takes its columns from."""
    path = tmp_path / "progress.csv"
    path.write_text('time/total_timesteps,why\n10,"a, b"\n20,c\n30,late\n')
    logger = Logger(None, [_csv_writer(path, 20)])
    logger.record("time/total_timesteps", 30)
    logger.record("new", 1.5)
    logger.dump(30)
    logger.close()
    assert list(csv.DictReader(path.read_text().splitlines())) == [
        {"time/total_timesteps": "10", "why": "a, b", "new": ""},
        {"time/total_timesteps": "20", "why": "c", "new": ""},
        {"time/total_timesteps": "30", "why": "", "new": "1.5"},
    ]


def scalars(folder):
    (run,) = folder.iterdir()
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}, run.name


def steps(events):
    return [event.step for event in events]


def test_tensorboard(tools, tmp_path):
    assert main(command(tools, tmp_path, "-tb", str(tmp_path / "tb"))) == 0
    tags, name = scalars(tmp_path / "tb")
    assert name == "npg_CartPole-v1_1"
    assert steps(tags["rollout/ep_rew_mean"]) == list(range(64, 641, 64))
    assert steps(tags["train/mean_kl"]) == list(range(128, 641, 64))
    with np.load(tools.only_run(tmp_path / "logs").evaluations) as curve:
        expected = curve["results"].mean(axis=1)
    np.testing.assert_allclose([e.value for e in tags["eval/mean_reward"]], expected, rtol=1e-6)
    assert "time/total_timesteps" not in tags
    progress = tools.rows(tools.only_run(tmp_path / "logs").progress, set())
    assert [float(row["train/entropy"]) for row in progress[1:]] == pytest.approx(
        [event.value for event in tags["train/entropy"]], rel=1e-6
    )


@pytest.mark.parametrize("killed_at", [200, 450])
def test_tensorboard_shows_each_step_once_after_a_resume(tools, tmp_path, train_process, killed_at):
    """Also what was written beyond the checkpoint, or by a run that never came to one."""
    tensorboard = ["-tb", str(tmp_path / "tb")]
    argv = command(tools, tmp_path, *tensorboard)
    assert train_process(argv, f"at_step({killed_at}, now)").code == -9
    time.sleep(1.1)  # TensorBoard orders files by the second they were begun in
    run = tools.only_run(tmp_path / "logs")
    assert main(["--resume", str(run.path), "-P", *tensorboard]) == 0
    tags, _ = scalars(tmp_path / "tb")
    assert steps(tags["rollout/ep_rew_mean"]) == list(range(64, 641, 64))
    assert not {tag for tag in tags if tag in ("train/n_updates", "time/iterations")}


def test_weights_and_biases_offline(tools, tmp_path, capsys, train_process):
    pytest.importorskip("wandb")
    sabotage = "os.environ['WANDB_MODE'] = 'offline'"
    argv = command(tools, tmp_path, "--track", "--wandb-project-name", "zoo-test")
    ended = train_process(argv, sabotage)
    assert ended.code == 0, ended.err
    assert len(ended.out.splitlines()) == 1
    assert ended.out.startswith("npg CartPole-v1 seed 3: return ")
    run = tools.only_run(tmp_path / "logs")
    (record,) = run.path.glob("wandb/offline-run-*/run-*.wandb")
    assert record.name == f"run-{run.wandb_id.read_text()}.wandb"
    content = record.read_bytes()
    assert b"zoo-test" in content
    assert b"rollout/ep_rew_mean" in content
    assert os.environ.get("WANDB_MODE") is None


def test_tensorboard_that_is_not_installed(tools, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert main(command(tools, tmp_path, "-tb", str(tmp_path / "tb"))) == 1
    message = "TensorBoard is not installed; pip install 'natural-zoo[tensorboard]'."
    assert capsys.readouterr().err == f"error: {message}\n"
    assert not list((tmp_path / "logs").glob("*/*"))


def test_wandb_that_is_not_installed(tools, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert main(command(tools, tmp_path, "--track")) == 1
    assert capsys.readouterr().err == (
        "error: wandb is not installed; pip install 'natural-zoo[wandb]'.\n"
    )


def test_log_interval_of_the_algorithm(tools, tmp_path):
    """SB3's A2C writes every 100th update."""
    argv = tools.tiny("a2c", "CartPole-v1", tmp_path, "-n", "1700", "--eval-freq", "0")
    assert main([*argv, "--hyperparams", "n_steps=8", "n_envs=1", "normalize=false"]) == 0
    table = tools.rows(tools.only_run(tmp_path).progress, set())
    assert [row["time/iterations"] for row in table] == ["100", "200"]
    assert json.loads(table[0]["time/total_timesteps"]) == 800
