"""A3C on the command line: workers that are monitored, stopped, killed and resumed."""

import json
import multiprocessing
import os
import signal
from contextlib import suppress

import numpy as np
import pytest
from stable_baselines3.common.policies import ActorCriticPolicy

from agents.a3c.lstm_policy import LstmPolicy
from zoo import evaluate
from zoo.callbacks import BetweenRollouts
from zoo.evaluation import attend, policy_actor
from zoo.train import main
from zoo.trained import load_trained

pytestmark = pytest.mark.usefixtures("few_final_episodes")

PENDULUM = "InvertedPendulum-v4"
SMALL = ["n_workers=2", "n_steps=8", "policy_kwargs={net_arch: [8]}"]


def command(tools, folder, *more, settings=()):
    frequencies = ["-n", "640", "--eval-freq", "192", "--save-freq", "256"]
    return tools.tiny(
        "a3c", PENDULUM, folder, *frequencies, *more, "--hyperparams", *SMALL, *settings
    )


def test_a_run_has_everything_in_its_folder(tools, tmp_path):
    settings = ["exploration_temperatures=[1.0, 1.5]"]
    assert main(command(tools, tmp_path, "--log-interval", "20", settings=settings)) == 0
    run = tools.only_run(tmp_path)
    assert run.finished_timesteps() == 640
    assert list(run.checkpoints()) == [256, 512]
    with np.load(run.evaluations) as curve:
        assert curve["timesteps"].tolist() == [192, 384, 576]
    episodes = tools.rows(run.monitor, set())
    assert len(episodes) > 10
    timesteps = [int(float(row["timesteps"])) for row in episodes]
    assert timesteps == sorted(timesteps)
    assert 640 / 2 < sum(int(row["l"]) for row in episodes) <= 640
    assert all(float(row["r"]) == int(row["l"]) for row in episodes)
    rows = [row for row in tools.rows(run.progress, set()) if "time/iterations" in row]
    assert [row["time/total_timesteps"] for row in rows] == ["160", "320", "480", "640"]
    assert {row["train/n_workers"] for row in rows[1:]} == {"2"}
    # The learner's own reset has been seen, too.
    count = tools.agent_contents(run.final_model)["normalizer"]["ret.count"]
    assert count == pytest.approx(640, abs=0.1)


@pytest.mark.slow
def test_killed_and_resumed(tools, train_process, tmp_path):
    """It goes on from the last checkpoint; that it is bit for bit the same is not promised."""
    argv = command(tools, tmp_path)
    assert train_process(argv, "at_step(300, now)").code == -9
    run = tools.only_run(tmp_path)
    assert list(run.checkpoints()) == [256]
    assert main(["--resume", str(run.path), "--no-progress"]) == 0
    assert run.finished_timesteps() == 640
    assert list(run.checkpoints()) == [256, 512]
    timesteps = [int(float(row["timesteps"])) for row in tools.rows(run.monitor, set())]
    assert timesteps == sorted(timesteps)


@pytest.mark.parametrize("number", ["SIGINT", pytest.param("SIGTERM", marks=pytest.mark.slow)])
def test_stopped_by_signal(tools, train_process, tmp_path, number):
    """The signal goes to all processes, as a terminal's Ctrl-C and a scheduler's SIGTERM do."""
    argv = command(tools, tmp_path)
    stopped = train_process(argv, f"at_step(400, lambda: os.killpg(0, signal.{number}))")
    assert stopped.code == 130, stopped.err
    run = tools.only_run(tmp_path)
    assert list(run.checkpoints()) in ([256, 384], [256, 392])
    assert "python -m zoo.train --resume" in stopped.err
    assert "Traceback" not in stopped.err
    assert main(["--resume", str(run.path), "--no-progress"]) == 0


def test_a_worker_that_dies_is_one_line(tools, monkeypatch, tmp_path, capsys):
    def kill_worker(self):
        with suppress(ProcessLookupError):  # segments that it sent before are still coming in
            os.kill(self.model.worker_pids[0], signal.SIGKILL)
        return True

    monkeypatch.setattr(BetweenRollouts, "_on_step", kill_worker)
    assert main(command(tools, tmp_path)) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: Worker 0 of 2 (process ")
    assert "was ended by SIGKILL" in last
    assert multiprocessing.active_children() == []


def test_worker_env_is_not_for_the_command_line(tools, tmp_path, capsys):
    assert main(command(tools, tmp_path, settings=["worker_env=CartPole-v1"])) == 1
    error = capsys.readouterr().err
    assert "Unknown a3c setting 'worker_env'" in error
    assert "Workers make the environment of --env" in error


# --- Agents with a memory -------------------------------------------------------------------------


class Counting(ActorCriticPolicy):
    """Its action is the number of steps that its state says have been made."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        n_rows = len(observation)
        counts = np.zeros((1, n_rows, 1)) if state is None else state[0]
        starts = np.zeros(n_rows, bool) if episode_start is None else episode_start
        counts = np.where(starts[None, :, None], 0, counts) + 1
        return counts[0, :, 0], (counts,)


def test_an_actor_keeps_one_state_per_environment():
    actor = policy_actor(Counting.__new__(Counting), None, deterministic=True)
    batch = np.zeros((3, 2))
    attend(actor, [0, 1, 2], [True, True, True])
    assert actor(batch).tolist() == [1, 1, 1]
    assert actor(batch).tolist() == [2, 2, 2]
    attend(actor, [0, 1, 2], [False, True, False])
    assert actor(batch).tolist() == [3, 1, 3]
    attend(actor, [1, 2], [False, False])  # environment 0 has played its last episode
    assert actor(batch[:2]).tolist() == [2, 4]
    attend(actor, [0, 1, 2], [True, True, True])
    assert actor(batch).tolist() == [1, 1, 1]


def test_a_policy_with_a_memory_is_trained_and_evaluated(tools, tmp_path, capsys):
    settings = ["policy=MlpLstmPolicy", "policy_kwargs={net_arch: [8], lstm_hidden_size: 8}"]
    assert main(command(tools, tmp_path, settings=[*settings, "n_workers=1"])) == 0
    run = tools.only_run(tmp_path)
    assert isinstance(load_trained(str(run.path)).policy, LstmPolicy)
    capsys.readouterr()
    assert evaluate.main([str(run.path), "--episodes", "3", "-P", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    final = json.loads(run.final_evaluation.read_text())
    assert again["returns"] == final["returns"][:3]
