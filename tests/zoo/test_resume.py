"""A run that is killed and resumed equals one that was never stopped, bit for bit."""

import json
import multiprocessing
import re
import shutil

import numpy as np
import pytest

from hub.bundle import Bundle
from zoo.callbacks import BetweenRollouts
from zoo.train import main

pytestmark = pytest.mark.usefixtures("few_final_episodes")

PENDULUM = "InvertedPendulum-v4"
SMALL = ["n_envs=2", "normalize=true", "policy_kwargs={net_arch: [8]}"]
SCHEDULES = [
    "learning_rate={schedule: linear, start: 1e-2, end: 1e-3}",
    "target_kl={schedule: exponential, start: 0.03, end: 0.005}",
]
ON_BATCHES = ["n_steps=32", "batch_size=32"]
SETTINGS = {
    "npg": [*ON_BATCHES, *SCHEDULES],
    "trpo": [*ON_BATCHES, *SCHEDULES],
    "ppo": [*ON_BATCHES, "n_epochs=2", "learning_rate=lin_1e-2", "clip_range=lin_0.2"],
    "ppo_kl": [*ON_BATCHES, "n_epochs=2", "kl_coef=0.3", *SCHEDULES],
    "a2c": ["n_steps=8", "learning_rate=lin_1e-3"],
    "a3c": ["n_steps=8", "learning_rate=lin_1e-3", "n_workers=1"],
    "off_pac": [*ON_BATCHES, "buffer_size=192", "gradient_steps=2", "learning_rate=lin_1e-2"],
    "actor_critic": [*ON_BATCHES, "learning_rate=lin_1e-2", "critic_learning_rate=lin_3e-3"],
    "reinforce": [*ON_BATCHES, "learning_rate=lin_1e-2", "critic_learning_rate=lin_3e-3"],
}
# Checkpoints at 256 and 512 steps or soon after, evaluations at 192, 384 and 576, end at 640.
FREQUENCIES = ["-n", "640", "--eval-freq", "192", "--save-freq", "256"]
MOMENTS = {
    "before the first checkpoint": "at_step(200, now)",
    "between two checkpoints": "at_step(450, now)",
    "while a checkpoint is written": "at_call(hub.atomic.os, 'fsync', 9, now)",
    "right after a checkpoint": "at_call(zoo.callbacks.BetweenRollouts, '_save_checkpoint', 1, "
    "now, after=True)",
    "during an evaluation": "at_call(zoo.callbacks, 'evaluate', 2, "
    "lambda: at_call(__import__('zoo.evaluation').evaluation, 'stack_observations', 5, now))",
    "between learning curve and best agent": "at_call(zoo.callbacks, 'save_evaluations', 2, now, "
    "after=True)",
    "after the last checkpoint": "at_step(600, now)",
    "before the final agent": "at_call(zoo.callbacks.BetweenRollouts, 'finish', 1, now)",
    "before the final evaluation": "at_call(zoo.train, '_final_evaluation', 1, now)",
}


def command(tools, algo, backend, folder, settings=(), env=PENDULUM):
    hyperparameters = ["--hyperparams", *SMALL, *SETTINGS[algo], *settings]
    return tools.tiny(algo, env, folder, "--vec-env", backend, *FREQUENCIES, *hyperparameters)


def check(tools, train_process, tmp_path, argv_for, moment):
    assert main(argv_for(tmp_path / "whole")) == 0
    assert train_process(argv_for(tmp_path / "cut"), MOMENTS[moment]).code == -9
    run = tools.only_run(tmp_path / "cut")
    assert not run.final_evaluation.exists()
    assert main(["--resume", str(run.path), "--no-progress"]) == 0
    tools.assert_same_run(tools.only_run(tmp_path / "whole"), run)


FAST = [
    ("npg", "dummy", "between two checkpoints", ()),
    ("npg", "envpool", "right after a checkpoint", ()),
    ("trpo", "envpool", "before the first checkpoint", ()),
    ("trpo", "dummy", "during an evaluation", ()),
    ("ppo", "dummy", "while a checkpoint is written", ()),
    ("ppo", "envpool", "before the final agent", ()),
    ("ppo_kl", "dummy", "between two checkpoints", ()),
    ("actor_critic", "dummy", "between two checkpoints", ("psi=q", "policy=MlpQPolicy")),
    ("reinforce", "dummy", "between two checkpoints", ()),
    ("a2c", "subproc", "after the last checkpoint", ()),
    ("a2c", "dummy", "between learning curve and best agent", ()),
    ("a3c", "dummy", "between two checkpoints", ()),
    ("npg", "dummy", "before the final evaluation", ()),
    ("off_pac", "dummy", "between two checkpoints", ("behavior_kwargs={epsilon: 0.3}",)),
    ("ppo", "dummy", "between two checkpoints", ("use_sde=true", "sde_sample_freq=4")),
    ("npg", "dummy", "after the last checkpoint", ("use_sde=true",)),
]


@pytest.mark.parametrize(("algo", "backend", "moment", "settings"), FAST)
def test_killed_and_resumed(tools, train_process, tmp_path, algo, backend, moment, settings):
    def argv_for(folder):
        return command(tools, algo, backend, folder, settings)

    check(tools, train_process, tmp_path, argv_for, moment)


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("backend", ["dummy", "subproc", "envpool"])
@pytest.mark.parametrize("algo", SETTINGS)
def test_killed_and_resumed_in_full(tools, train_process, tmp_path, algo, backend, moment):
    def argv_for(folder):
        return command(tools, algo, backend, folder)

    check(tools, train_process, tmp_path, argv_for, moment)


def test_log_rows_keep_their_distance(tools, train_process, tmp_path):
    """A checkpoint falls between two rows of the log."""

    def argv_for(folder):
        return [*command(tools, "npg", "dummy", folder), "--log-interval", "3"]

    check(tools, train_process, tmp_path, argv_for, "after the last checkpoint")
    iterations = [
        r["time/iterations"] for r in tools.rows(tools.only_run(tmp_path / "cut").progress, set())
    ]
    assert iterations == ["3", "6", "9"]


def test_killed_twice(tools, train_process, tmp_path):
    def argv_for(folder):
        return command(tools, "npg", "dummy", folder)

    assert main(argv_for(tmp_path / "whole")) == 0
    assert train_process(argv_for(tmp_path / "cut"), "at_step(300, now)").code == -9
    run = tools.only_run(tmp_path / "cut")
    assert train_process(["--resume", str(run.path)], "at_step(560, now)").code == -9
    assert main(["--resume", str(run.path), "--no-progress"]) == 0
    tools.assert_same_run(tools.only_run(tmp_path / "whole"), run)


# --- Ctrl-C and SIGTERM -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "backend"),
    [
        ("SIGINT", "dummy"),
        ("SIGTERM", "dummy"),
        ("SIGINT", "subproc"),
        pytest.param("SIGTERM", "subproc", marks=pytest.mark.slow),
    ],
)
def test_stopped_by_signal(tools, train_process, tmp_path, capsys, number, backend):
    """The signal goes to all processes, as a terminal's Ctrl-C and a scheduler's SIGTERM do."""
    argv = command(tools, "npg", backend, tmp_path / "cut")
    stopped = train_process(argv, f"at_step(400, lambda: os.killpg(0, signal.{number}))")
    assert stopped.code == 130, stopped.err
    run = tools.only_run(tmp_path / "cut")
    assert list(run.checkpoints()) == [256, 384]
    assert stopped.out == ""
    assert f"saved {run.checkpoint(384)}" in stopped.err
    assert f"python -m zoo.train --resume {run.path}" in stopped.err
    assert "Traceback" not in stopped.err
    assert main(["--resume", str(run.path), "--no-progress"]) == 0
    assert "after 640 steps" in capsys.readouterr().out
    assert run.finished_timesteps() == 640


def test_stopped_where_a_checkpoint_lies(tools, train_process, tmp_path):
    """Nothing new to save: the resumed run equals one that was never stopped."""

    def argv_for(folder):
        return command(tools, "npg", "dummy", folder)

    assert main(argv_for(tmp_path / "whole")) == 0
    sabotage = "at_step(280, lambda: now(signal.SIGINT))"
    assert train_process(argv_for(tmp_path / "cut"), sabotage).code == 130
    run = tools.only_run(tmp_path / "cut")
    assert list(run.checkpoints()) == [256]
    assert main(["--resume", str(run.path), "--no-progress"]) == 0
    tools.assert_same_run(tools.only_run(tmp_path / "whole"), run)


def test_stopped_before_anything_was_learnt(tools, train_process, tmp_path):
    argv = command(tools, "npg", "dummy", tmp_path)
    stopped = train_process(argv, "at_step(10, lambda: now(signal.SIGTERM))")
    assert stopped.code == 130
    assert "nothing had been learnt yet" in stopped.err
    assert main(["--resume", str(tools.only_run(tmp_path).path), "--no-progress"]) == 0


def test_stopped_in_the_last_update(tools, train_process, tmp_path):
    """Training is complete; only the final evaluation is left."""
    argv = command(tools, "npg", "dummy", tmp_path)
    stopped = train_process(
        argv, "at_call(zoo.callbacks.BetweenRollouts, 'finish', 1, lambda: now(signal.SIGINT))"
    )
    assert stopped.code == 130
    run = tools.only_run(tmp_path)
    assert f"saved {run.final_model}" in stopped.err
    # It acts already, and says nothing about returns yet.
    bundle = Bundle.open(run.bundle)
    assert {"policy.onnx", "policy.f64.onnx"} < set(bundle.files)
    assert "evaluation.json" not in bundle.files
    assert main(["--resume", str(run.path), "--no-progress"]) == 0
    assert "evaluation.json" in Bundle.open(run.bundle).files


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_stopped_in_the_final_evaluation(tools, train_process, tmp_path, number):
    argv = command(tools, "npg", "dummy", tmp_path)
    stopped = train_process(
        argv, f"at_call(zoo.train, '_final_evaluation', 1, lambda: now(signal.{number}))"
    )
    assert stopped.code == 130
    assert "zoo.train --resume" in stopped.err
    assert "Traceback" not in stopped.err


def test_worker_that_dies_is_one_line(tools, monkeypatch, tmp_path, capsys):
    def kill_workers(self):
        for child in multiprocessing.active_children():
            child.kill()
        return True

    monkeypatch.setattr(BetweenRollouts, "_on_step", kill_workers)
    assert main(command(tools, "npg", "subproc", tmp_path)) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: A process that stepped InvertedPendulum-v4 has died.")
    assert multiprocessing.active_children() == []


# --- Finding what to resume ---------------------------------------------------------------------


@pytest.fixture
def finished(tools, tmp_path, capsys):
    argv = command(tools, "npg", "dummy", tmp_path / "logs")
    assert main(argv) == 0
    capsys.readouterr()
    return argv, tools.only_run(tmp_path / "logs")


def unfinish(run):
    """Take a finished run back to its last checkpoint."""
    run.final_evaluation.unlink()
    run.final_model.unlink()


def error_of(capsys):
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


def test_auto_starts_resumes_and_starts_again(tools, tmp_path, capsys, train_process):
    argv = [*command(tools, "npg", "dummy", tmp_path), "--resume", "auto"]
    assert train_process(argv, "at_step(300, now)").code == -9
    run = tools.only_run(tmp_path)
    assert "--resume auto" in run.command.read_text()
    assert main(argv) == 0
    assert "resuming after 256 steps" in capsys.readouterr().err
    assert tools.only_run(tmp_path).path == run.path
    assert main(argv) == 0
    assert [p.name for p in sorted(run.path.parent.iterdir())] == [f"{PENDULUM}_1", f"{PENDULUM}_2"]


def test_auto_takes_the_run_with_the_same_seed(tools, finished, tmp_path, capsys):
    argv, run = finished
    unfinish(run)
    other = [*argv, "--resume", "auto", "--seed", "4"]
    assert main(other) == 0
    assert "resuming" not in capsys.readouterr().err
    assert (run.path.parent / f"{PENDULUM}_2").is_dir()
    assert main([*argv, "--resume", "auto"]) == 0
    assert f"({run.path})" in capsys.readouterr().out


def test_auto_leaves_a_run_in_progress_alone(finished, capsys):
    argv, run = finished
    unfinish(run)
    with run.locked():
        assert main(["--resume", str(run.path)]) == 1
        assert "Another process is training in" in error_of(capsys)
        assert main([*argv, "--resume", "auto"]) == 0
    assert run.finished_timesteps() is None
    assert (run.path.parent / f"{PENDULUM}_2" / "evaluation.json").is_file()


def test_finished_run_is_refused_and_can_be_extended(finished, capsys):
    _, run = finished
    assert main(["--resume", str(run.path)]) == 1
    assert re.search("finished after 640 steps.*--n-timesteps 1280", error_of(capsys))
    assert main(["--resume", str(run.path), "-n", "500"]) == 1
    error_of(capsys)
    assert main(["--resume", str(run.path), "-n", "1000", "-P"]) == 0
    assert "after 1024 steps" in capsys.readouterr().out
    assert run.finished_timesteps() == 1024
    with np.load(run.evaluations) as curve:
        assert curve["timesteps"].tolist() == [192, 384, 576, 768, 960]
    assert main(["--resume", str(run.path)]) == 1


def test_extension_that_is_killed_goes_on(tools, finished, train_process, tmp_path):
    _, run = finished
    shutil.copytree(run.path.parent.parent, tmp_path / "other")
    extend = ["-n", "1280", "-P"]
    assert main(["--resume", str(run.path), *extend]) == 0
    other = tools.only_run(tmp_path / "other")
    assert train_process(["--resume", str(other.path), *extend], "at_step(1200, now)").code == -9
    assert list(other.checkpoints()) == [256, 512, 768, 1024]
    assert main(["--resume", str(other.path), "-P"]) == 0
    tools.assert_same_run(run, other)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--seed", "4"], "--seed 4 differs from the run's 3"),
        (["--seed", "0"], "--seed 0 differs from the run's 3"),
        (["--algo", "trpo"], "--algo trpo differs from the run's npg"),
        (["--env", "Hopper-v4"], "--env Hopper-v4 differs from the run's InvertedPendulum-v4"),
        (["--n-envs", "4"], "--n-envs 4 differs from the run's 2"),
        (["--eval-freq", "0"], "--eval-freq 0 differs from the run's 192"),
        (["--save-freq", "100"], "--save-freq 100 differs from the run's 256"),
        (["--vec-env", "subproc"], "--vec-env subproc differs from the run's dummy"),
        (["--hyperparams", "gamma=0.5"], "gamma=0.5 differs from what the run was started with"),
        (["--hyperparams", "target_kl=0.5"], "target_kl=0.5 differs"),
        (["--hyperparams", "normalize=false"], "normalize=false differs"),
        (["--hyperparams", "policy_kwargs.net_arch=[9]"], "policy_kwargs.net_arch=[9] differs"),
        (["--hyperparams", "gama=0.5"], "Did you mean 'gamma'?"),
        (["--env-kwargs", "reset_noise_scale=0.5"], "reset_noise_scale=0.5 differs"),
    ],
)
def test_other_settings_are_refused(finished, capsys, option, message):
    _, run = finished
    unfinish(run)
    assert main(["--resume", str(run.path), *option]) == 1
    assert message in error_of(capsys)


def test_the_same_settings_are_accepted(finished, capsys):
    argv, run = finished
    unfinish(run)
    assert main([*argv, "--resume", str(run.path)]) == 0
    assert "resuming after 512 steps" in capsys.readouterr().err


def test_damaged_files_are_one_line(tools, finished, capsys):
    _, run = finished
    unfinish(run)
    newest = run.checkpoint(512)
    intact = newest.read_bytes()
    for damaged in (intact[: len(intact) // 2], b"", b"not a zip", intact[:-1]):
        newest.write_bytes(damaged)
        assert main(["--resume", str(run.path)]) == 1
        message = error_of(capsys)
        assert str(newest) in message
        assert "Delete it to use an earlier checkpoint" in message
    newest.unlink()
    run.evaluations.write_bytes(b"PK")
    assert main(["--resume", str(run.path)]) == 1
    assert "evaluations.npz is corrupted" in error_of(capsys)
    run.evaluations.unlink()
    assert main(["--resume", str(run.path), "-P"]) == 0
    assert "resuming after 256 steps" in capsys.readouterr().err


def test_weights_of_another_shape_are_one_line(tools, finished, tmp_path, capsys):
    _, run = finished
    unfinish(run)
    argv = command(tools, "npg", "dummy", tmp_path / "wide", ["policy_kwargs={net_arch: [9]}"])
    assert main(argv) == 0
    shutil.copy(tools.only_run(tmp_path / "wide").checkpoint(512), run.checkpoint(512))
    capsys.readouterr()
    assert main(["--resume", str(run.path)]) == 1
    assert "does not fit the run's config.yml" in error_of(capsys)


def test_config_that_is_missing_or_damaged_is_one_line(finished, capsys):
    _, run = finished
    text = run.config.read_text()
    damaged = {
        "": "config.yml",
        "seed: [": "config.yml",
        "\xff": "config.yml",
        text.replace("seed: 3", "sed: 3"): "Did you mean 'seed'?",
        text.replace("seed: 3", "seed: three"): "seed: 'three' is not a whole number",
    }
    for content, message in damaged.items():
        run.config.write_bytes(content.encode("latin-1"))
        assert main(["--resume", str(run.path)]) == 1
        assert message in error_of(capsys)
    run.config.unlink()
    assert main(["--resume", str(run.path)]) == 1
    assert "is not a run folder" in error_of(capsys)


def test_monitor_file_that_was_lost_or_cut_begins_anew(tools, finished):
    _, run = finished
    for content in (None, b"#{}\nr,l"):
        unfinish(run)
        run.monitor.unlink()
        if content is not None:
            run.monitor.write_bytes(content)
        assert main(["--resume", str(run.path), "-P"]) == 0
        assert b"\0" not in run.monitor.read_bytes()


def test_report_names_what_was_trained(finished):
    _, run = finished
    report = json.loads(run.final_evaluation.read_text())
    assert report["training_seed"] == 3
