"""Tiny training runs, in this process or in one that can be killed."""

from __future__ import annotations

import csv
import json
import multiprocessing
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hub.bundle import Bundle
from zoo import train as train_command
from zoo.agent_file import load_agent_file
from zoo.runs import RunFolder

# A stopwatch is in these; everything else of a resumed run equals one that was never stopped.
_OF_TIME = {"time/fps", "time/time_elapsed"}
_STATE_OF_TIME = {"elapsed_seconds", "monitor_bytes"}


def tiny(algo: str, env: str, log_folder: Path, *more: str) -> list[str]:
    """Return a command line that trains for a second."""
    return [
        *("--algo", algo, "--env", env, "--log-folder", str(log_folder), "--no-progress"),
        *("--seed", "3", "--eval-episodes", "2", *more),
    ]


@pytest.fixture
def few_final_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_command, "N_FINAL_EPISODES", 3)


@dataclass
class Ended:
    """How a process ended."""

    code: int
    out: str
    err: str


# What the first training of a process imports.
_PRELOADED = [
    *(
        "zoo.train",
        "agents.a2c",
        "agents.a3c.worker",
        "agents.actor_critic",
        "agents.npg",
        "agents.off_pac",
        "agents.ppo",
        "agents.ppo_kl",
        "agents.reinforce",
        "agents.trpo",
        "torch._dynamo",
    ),
    *("mujoco", "gymnasium.envs.mujoco", "gymnasium.envs.mujoco.inverted_pendulum_v4"),
]

_CHILD = """
import os, signal, sys
os.setpgid(0, 0)
for number, path in ((1, {out!r}), (2, {err!r})):
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
import torch, hub.atomic, zoo.callbacks, zoo.train, zoo.training
torch.set_num_threads(1)
zoo.train.N_FINAL_EPISODES = {n_final_episodes}

def now(number=signal.SIGKILL):
    os.kill(os.getpid(), number)

def at_step(n_timesteps, act):
    original = zoo.callbacks.BetweenRollouts._on_step
    def on_step(self):
        if self.model.num_timesteps >= n_timesteps:
            act()
        return original(self)
    zoo.callbacks.BetweenRollouts._on_step = on_step

def at_call(module, name, number, act, after=False):
    original, calls = getattr(module, name), []
    def replaced(*args, **kwargs):
        calls.append(1)
        if len(calls) == number and not after:
            act()
        result = original(*args, **kwargs)
        if len(calls) == number and after:
            act()
        return result
    setattr(module, name, replaced)

{sabotage}
sys.exit(zoo.train.main({argv!r}))
"""


@pytest.fixture(scope="session", autouse=True)
def _server() -> Any:
    """Return a process with everything imported, from which others are forked fast."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


@pytest.fixture
def train_process(_server: Any, tmp_path: Path) -> Iterator[Callable[..., Ended]]:
    """Train in a process of its own: ``train_process(argv, sabotage, n_final_episodes=3)``.

    ``sabotage`` is Python that may use ``now``, ``at_step`` and ``at_call`` above.
    """
    started = []

    def run(argv: list[str], sabotage: str = "", n_final_episodes: int = 3) -> Ended:
        out, err = tmp_path / f"out{len(started)}", tmp_path / f"err{len(started)}"
        code = _CHILD.format(
            out=str(out),
            err=str(err),
            argv=argv,
            sabotage=sabotage,
            n_final_episodes=n_final_episodes,
        )
        process = _server.Process(target=exec, args=(code, {}))
        started.append(process)
        process.start()
        process.join(120)
        assert process.exitcode is not None, f"still running: {err.read_text()}"
        return Ended(process.exitcode, out.read_text(), err.read_text())

    yield run
    for process in started:
        if process.is_alive():
            process.kill()
        process.join()
        process.close()


def only_run(log_folder: Path) -> RunFolder:
    runs = [path for path in log_folder.glob("*/*") if path.is_dir()]
    assert len(runs) == 1, runs
    return RunFolder.open(runs[0])


def rows(path: Path, skipped: set[str]) -> list[dict[str, str]]:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return [
        {key: value for key, value in row.items() if key not in skipped and value != ""}
        for row in csv.DictReader(lines)
    ]


def assert_same_tree(one: Any, two: Any) -> None:
    """Compare nested state dicts bit for bit."""
    if isinstance(one, torch.Tensor):
        assert one.dtype == two.dtype
        assert torch.equal(one, two)
    elif isinstance(one, np.ndarray):
        assert one.dtype == two.dtype
        np.testing.assert_array_equal(one, two)
    elif isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            assert_same_tree(one[key], two[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(two)
        for left, right in zip(one, two, strict=True):
            assert_same_tree(left, right)
    else:
        assert one == two


def agent_contents(path: Path) -> Any:
    """Return what is in an agent's file but the times."""
    file = load_agent_file(path)
    state = {k: v for k, v in file.training_state.items() if k not in _STATE_OF_TIME}
    state["recent_episodes"] = [
        {key: value for key, value in episode.items() if key != "t"}
        for episode in state["recent_episodes"]
    ]
    state["metrics"] = {k: v for k, v in state["metrics"].items() if k not in _OF_TIME}
    return {"parameters": file.parameters, "normalizer": file.normalizer, "state": state}


def assert_same_run(one: RunFolder, two: RunFolder) -> None:
    """Compare two run folders bit for bit in everything but the times."""
    assert one.config.read_text() == two.config.read_text()
    assert list(one.checkpoints()) == list(two.checkpoints())
    agents = [(one.final_model, two.final_model), (one.best_model, two.best_model)]
    agents += zip(one.checkpoints().values(), two.checkpoints().values(), strict=True)
    for left, right in agents:
        assert left.is_file() == right.is_file()
        if left.is_file():
            assert_same_tree(agent_contents(left), agent_contents(right))
    with np.load(one.evaluations) as left_curve, np.load(two.evaluations) as right_curve:
        assert_same_tree(dict(left_curve), dict(right_curve))
    assert rows(one.monitor, {"t"}) == rows(two.monitor, {"t"})
    assert rows(one.progress, _OF_TIME) == rows(two.progress, _OF_TIME)
    assert json.loads(one.final_evaluation.read_text()) == json.loads(
        two.final_evaluation.read_text()
    )
    bundles = [Bundle.open(run.bundle) for run in (one, two)]
    assert bundles[0].files == bundles[1].files
    for name in set(bundles[0].files) - {"command.txt"}:
        assert bundles[0].read(name) == bundles[1].read(name), name
    for run in (one, two):
        assert not list(run.path.rglob("*.tmp"))


@pytest.fixture
def tools() -> Any:
    """Give the helpers above to tests: pytest's import mode keeps modules apart."""
    return types.SimpleNamespace(
        agent_contents=agent_contents,
        assert_same_run=assert_same_run,
        assert_same_tree=assert_same_tree,
        only_run=only_run,
        rows=rows,
        tiny=tiny,
    )


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: NPG on the inverted pendulum, one update, a hundred final episodes."""
    logs = tmp_path_factory.mktemp("logs")
    options = ["-n", "512", "--seed", "1", "--eval-freq", "0", "-P", "-f", str(logs)]
    assert train_command.main(["--algo", "npg", "--env", "InvertedPendulum-v4", *options]) == 0
    return logs / "npg" / "InvertedPendulum-v4_1"
