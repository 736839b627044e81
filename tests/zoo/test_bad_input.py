"""Every mistake is one line on standard error, exit code 1, and leaves nothing behind."""

import builtins
import errno
import functools
import os
import pathlib
import subprocess
import sys

import gymnasium
import pytest

from zoo.callbacks import BetweenRollouts
from zoo.finite_check import FiniteCheck
from zoo.train import main
from zoo.trained import load_trained

pytestmark = pytest.mark.usefixtures("few_final_episodes")

BROKEN_ENVS = """
import gymnasium
import numpy as np

class Broken(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, reward=1.0, observation=0.0, at=20, render_mode=None):
        self.broken, self.at, self.steps = (reward, observation), at, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.begun = self.steps
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.steps += 1
        reward, value = self.broken if self.steps == self.at else (1.0, 0.0)
        ended = self.steps - self.begun == 8
        return np.array([0.0, value], np.float32), reward, ended, False, {}

for name, settings in {
    "Healthy": {},
    "NaNReward": {"reward": float("nan")},
    "InfReward": {"reward": float("inf")},
    "NaNObservation": {"observation": float("nan")},
}.items():
    gymnasium.register(f"{name}-v0", entry_point="MODULE:Broken", kwargs=settings)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module that registers environments, found from the folder one works in."""
    name = f"broken_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(BROKEN_ENVS.replace("MODULE", name))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    forget(name)


def forget(module):
    """Make this process as if it had never imported the module."""
    for env_id in ("Healthy-v0", "NaNReward-v0", "InfReward-v0", "NaNObservation-v0"):
        gymnasium.registry.pop(env_id, None)
    sys.modules.pop(module, None)


@pytest.fixture
def logs(tmp_path):
    return tmp_path / "logs"


def run_folders(logs):
    return [path.name for path in logs.glob("*/*")]


def error_of(argv, capsys):
    assert main(argv) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


CARTPOLE = ["--algo", "npg", "--env", "CartPole-v1"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--algo", "trop", "--env", "CartPole-v1"], "Did you mean 'trpo'? Known: a2c, "),
        (["--algo", "npg", "--env", "Walker2-v4"], "Did you mean 'Walker2d-v4'?"),
        (["--algo", "npg", "--env", "Walker2d-v2"], "Use Walker2d-v4 or Walker2d-v5"),
        (["--algo", "npg", "--env", "Walker2d-v3"], "Use Walker2d-v4 or Walker2d-v5"),
        (["--algo", "npg", "--env", "Pusher-v4"], "Use Pusher-v5"),
        (["--algo", "npg", "--env", "Walker2d-v99"], "Walker2d-v5"),
        ([*CARTPOLE, "--ned", "3"], "Unknown flag '--ned'. Did you mean '--seed'?"),
        ([*CARTPOLE, "stray"], "Unknown argument 'stray'"),
        ([*CARTPOLE, "--hyperparams", "gama=0.9"], "Did you mean 'gamma'?"),
        ([*CARTPOLE, "--hyperparams", "gamma=fast"], "gamma: 'fast' is not"),
        ([*CARTPOLE, "--hyperparams", "gamma"], "'gamma' is not KEY=VALUE"),
        ([*CARTPOLE, "--hyperparams", "n_steps=1", "n_envs=1"], "n_steps: 1 with n_envs: 1"),
        ([*CARTPOLE, "--hyperparams", "policy=MlpPolcy"], "Did you mean 'MlpPolicy'?"),
        ([*CARTPOLE, "--hyperparams", "target_kl=-1"], "target_kl=-1.0 must be positive"),
        ([*CARTPOLE, "--hyperparams", "critic=adm"], "Did you mean 'adam'?"),
        ([*CARTPOLE, "-n", "0"], "0 is below 1"),
        ([*CARTPOLE, "-n", "-5"], "-5 is below 1"),
        ([*CARTPOLE, "-n", "many"], "'many' is not a whole number"),
        ([*CARTPOLE, "-n", "nan"], "'nan' is not a whole number"),
        ([*CARTPOLE, "-n", "1e400"], "'1e400' is not a whole number"),
        ([*CARTPOLE, "-n", "1.5"], "'1.5' is not a whole number"),
        ([*CARTPOLE, "-n"], "expected one argument"),
        ([*CARTPOLE, "--save-freq", "-2"], "-2 is negative"),
        ([*CARTPOLE, "--seed", "-1"], "seed=-1 must be in 0"),
        ([*CARTPOLE, "--seed", "4294967296"], "must be in 0"),
        ([*CARTPOLE, "--seed", "x"], "invalid int value: 'x'"),
        ([*CARTPOLE, "--n-envs", "0"], "n_envs: 0 is below 1"),
        ([*CARTPOLE, "--num-threads", "0"], "n_threads: 0 is below 1"),
        ([*CARTPOLE, "--eval-episodes", "0"], "n_eval_episodes: 0 is below 1"),
        ([*CARTPOLE, "--eval-episodes", "2000000"], "episodes=2000000 must be in"),
        ([*CARTPOLE, "--vec-env", "envpol"], "Did you mean 'envpool'?"),
        ([*CARTPOLE, "--device", "abacus"], "'abacus' is unknown"),
        ([*CARTPOLE, "--conf-file", "nowhere.yml"], "'nowhere.yml' cannot be read"),
        ([*CARTPOLE, "--env-kwargs", "xml_file=a.xml"], "refuses the environment arguments"),
        ([*CARTPOLE, "--resume", "nowhere"], "'nowhere' is not a run folder"),
        ([*CARTPOLE, "--gym-packages", "no_such_module"], "cannot be imported"),
        (["--algo", "npg"], "--algo and --env are needed"),
        ([], "--algo and --env are needed"),
        (["--resume", "auto"], "needs --algo and --env"),
        (
            ["--algo", "npg", "--env", "FrozenLake-v1", "--untuned"],
            "Discrete observations, which cannot be normalised",
        ),
        (
            ["--algo", "npg", "--env", "Reacher-v5", "--env-kwargs", "colour=red"],
            "refuses the environment arguments colour='red'",
        ),
    ],
)
def test_refused_before_training(argv, message, logs, capsys):
    assert message in error_of([*argv, "--log-folder", str(logs)], capsys)
    assert run_folders(logs) == []


def test_command_line_in_a_real_process(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-m", "zoo.train", *CARTPOLE, "--hyperparams", "target_lk=1"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    assert "Did you mean 'target_kl'?" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback(logs):
    with pytest.raises(Exception, match="must be positive"):
        main([*CARTPOLE, "-f", str(logs), "--hyperparams", "target_kl=-1", "--debug"])
    assert run_folders(logs) == []


# --- Environments of one's own ------------------------------------------------------------------


def own_env(tools, module, logs, env, *more):
    return tools.tiny(
        *("npg", env, logs, "-n", "64", "--untuned", "--gym-packages", module),
        *("--hyperparams", "n_steps=16", "n_envs=2", "normalize=false", *more),
    )


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("NaNReward-v0", "returned NaN as reward of environment 0 at step 20"),
        ("InfReward-v0", "returned +inf as reward"),
        ("NaNObservation-v0", "returned NaN as observation, component 1, of environment 0"),
    ],
)
def test_value_that_is_not_finite(tools, module, logs, capsys, env, message):
    assert main(own_env(tools, module, logs, env)) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = [text for text in captured.err.splitlines() if text.startswith("error: ")]
    assert captured.err.splitlines()[-1] == line
    assert message in line


@pytest.mark.parametrize("kind", ["reward", "observation"])
def test_value_that_is_not_finite_in_evaluation(tools, module, logs, capsys, monkeypatch, kind):
    env = {"reward": "InfReward-v0", "observation": "NaNObservation-v0"}[kind]
    monkeypatch.setattr(FiniteCheck, "_fault", None)  # training looks away
    monkeypatch.setattr(FiniteCheck, "_check_array", lambda *_: None)
    argv = own_env(tools, module, logs, env, "--eval-freq", "32")
    assert main([*argv, "--env-kwargs", "at=5", "--hyperparams", "n_steps=2"]) == 1
    assert "of the evaluation episode with seed 214" in capsys.readouterr().err


def test_own_environment_everywhere(tools, module, logs, capsys):
    """In worker processes, in the record and for whoever loads the agent later."""
    argv = own_env(tools, module, logs, "Healthy-v0", "--vec-env", "dummy")
    argv += ["--save-freq", "32"]
    assert main(argv) == 0
    capsys.readouterr()
    run = tools.only_run(logs)
    assert run.path.name == "Healthy-v0_1"
    assert f"env_id: {module}:Healthy-v0" in run.config.read_text()
    assert load_trained(str(run.path)).n_timesteps == 64
    run.final_evaluation.unlink()
    run.final_model.unlink()
    forget(module)
    assert main(["--resume", str(run.path), "-P"]) == 0
    assert "after 64 steps" in capsys.readouterr().out


@pytest.mark.slow
def test_own_environment_in_workers(tools, module, logs, train_process, tmp_path):
    argv = own_env(tools, module, logs, "Healthy-v0")
    sabotage = f"sys.path.insert(0, {str(tmp_path)!r})"
    ended = train_process([*argv, "--vec-env", "subproc"], sabotage)
    assert ended.code == 0, ended.err


def test_diverged_training_is_one_line(tools, logs, capsys, monkeypatch):
    def diverge(self):
        if self.model.num_timesteps >= 100:
            for parameter in self.model.policy.parameters():
                parameter.data.fill_(float("nan"))
        return True

    monkeypatch.setattr(BetweenRollouts, "_on_step", diverge)
    argv = tools.tiny("ppo", "CartPole-v1", logs, "-n", "2000", "--hyperparams", "n_envs=2")
    assert main(argv) == 1
    assert "no longer finite after" in capsys.readouterr().err.splitlines()[-1]


# --- Disks --------------------------------------------------------------------------------------


def test_log_folder_below_a_file(tools, tmp_path, capsys):
    (tmp_path / "file").write_text("kept")
    argv = tools.tiny("npg", "CartPole-v1", tmp_path / "file" / "logs")
    assert "Cannot write to the log folder" in error_of(argv, capsys)
    assert (tmp_path / "file").read_text() == "kept"


def test_tensorboard_folder_below_a_file(tools, tmp_path, logs, capsys):
    (tmp_path / "file").write_text("kept")
    argv = tools.tiny("npg", "CartPole-v1", logs, "-tb", str(tmp_path / "file" / "tb"))
    assert str(tmp_path / "file") in error_of(argv, capsys)
    assert run_folders(logs) == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system with room for less than one run."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(disk)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode != 0:
        pytest.skip("mounting is not permitted")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_full_disk(tools, small_disk, capsys):
    argv = tools.tiny("npg", "CartPole-v1", small_disk, "-n", "2000", "--save-freq", "200")
    argv += ["--hyperparams", "n_steps=32", "n_envs=2"]
    assert main(argv) == 1
    captured = capsys.readouterr()
    last = captured.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert "No space left on device" in last
    run = tools.only_run(small_disk)
    for path in run.checkpoints().values():
        tools.agent_contents(path)  # whole
    assert not list(small_disk.rglob("*.tmp"))


def test_disk_that_is_full_from_the_start(tools, small_disk, capsys):
    (small_disk / "ballast").write_bytes(bytes(96 * 1024))
    argv = tools.tiny("npg", "CartPole-v1", small_disk, "-n", "64")
    assert "No space left on device" in error_of(argv, capsys)
    assert run_folders(small_disk) == []


@pytest.mark.parametrize("victim", ["0.monitor.csv", "progress.csv", ".zip", "evaluations.npz"])
def test_disk_that_fills_up_while_training(tools, logs, capsys, monkeypatch, victim):
    """The error may come from any file; handles and environments are closed all the same."""
    training, opened, full = [], [], builtins.open

    class Full:
        def __init__(self, file):
            self._file = file

        def __getattr__(self, name):
            return getattr(self._file, name)

        def write(self, *content):
            if training:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self._file.write(*content)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._file.close()

    def open_on_full_disk(self_or_name, *args, original, **kwargs):
        file = original(self_or_name, *args, **kwargs)
        if victim in str(self_or_name) and "w" in "".join(map(str, args)):
            opened.append(str(self_or_name))
            return Full(file)
        return file

    monkeypatch.setattr(builtins, "open", functools.partial(open_on_full_disk, original=full))
    monkeypatch.setattr(
        pathlib.Path,
        "open",
        functools.partialmethod(open_on_full_disk, original=pathlib.Path.open),
    )
    original = BetweenRollouts._on_step
    monkeypatch.setattr(
        BetweenRollouts, "_on_step", lambda self: training.append(1) or original(self)
    )
    argv = tools.tiny("npg", "CartPole-v1", logs, "-n", "640", "--save-freq", "128")
    argv += ["--eval-freq", "128", "--hyperparams", "n_steps=32", "n_envs=2"]
    assert main(argv) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    assert "No space left on device" in last
    assert opened


def test_reading_what_is_no_run_changes_nothing(tmp_path, capsys):
    (tmp_path / "results.csv").write_text("mine")
    assert "is not a run folder" in error_of(["--resume", str(tmp_path)], capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["results.csv"]
