"""Workers in processes: what they do together, and how they end."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from agents.a3c import A3C
from agents.errors import WorkerCrashed
from agents.functional import flatten

ROOT = Path(__file__).parents[3]


def weights(agent: A3C) -> torch.Tensor:
    return flatten(parameter.detach() for parameter in agent.policy.parameters())


def is_running(pid: int) -> bool:
    """Tell whether a process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def wait_for_end(pids: tuple[int, ...], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline, f"still running: {[p for p in pids if is_running(p)]}"
        time.sleep(0.02)


class Watch(BaseCallback):
    """Counts what a callback sees and acts once, at the first segment that fits."""

    def __init__(
        self,
        act: Callable[[A3C], Any] | None = None,
        after: int = 3,
        limit: int | None = None,
    ) -> None:
        super().__init__()
        self.act, self.after, self.limit = act, after, limit
        self.workers: list[int] = []
        self.episodes: list[dict[str, Any]] = []
        self.pids: tuple[int, ...] = ()
        self.n_steps = self.n_starts = 0

    def _on_rollout_start(self) -> None:
        self.n_starts += 1

    def _on_step(self) -> bool:
        self.n_steps += 1
        assert self.locals["rewards"].shape == self.locals["dones"].shape == (1,)
        self.episodes += [i["episode"] for i in self.locals["infos"] if "episode" in i]
        return self.limit is None or self.n_steps < self.limit

    def _on_rollout_end(self) -> None:
        self.pids = self.pids or self.model.worker_pids
        self.workers.append(self.locals["worker"])
        if self.act is not None and len(self.workers) >= self.after:
            act, self.act = self.act, None
            act(self.model)


Make = Callable[..., A3C]


def test_one_process_does_what_this_process_would(make_crew: Make, guess: Any) -> None:
    """Bit for bit: the same arithmetic on the same random numbers, through shared memory."""
    here = make_crew(n_workers=1).learn(200)
    there = make_crew(n_workers=1)
    there.has_worker_processes = True
    there.learn(200)
    assert there._n_updates == here._n_updates == 25
    assert torch.equal(weights(there), weights(here))
    for ours, theirs in zip(
        here.rmsprop.square_avgs(here.policy.parameters()),
        there.rmsprop.square_avgs(there.policy.parameters()),
        strict=True,
    ):
        assert torch.equal(ours, theirs)
    assert [e["r"] for e in there.ep_info_buffer or ()] == [
        e["r"] for e in here.ep_info_buffer or ()
    ]


def test_the_steps_of_all_workers_are_counted(make_crew: Make) -> None:
    watch = Watch()
    agent = make_crew(n_workers=3)
    before = weights(agent)
    agent.learn(500, callback=watch)
    assert agent.num_timesteps == watch.n_steps == 504  # 63 segments of 8 steps
    assert agent._n_updates == watch.n_starts == len(watch.workers) == 63
    assert set(watch.workers) == {0, 1, 2}
    assert len(set(watch.pids)) == 3
    assert os.getpid() not in watch.pids
    assert agent.worker_pids == ()
    assert not torch.equal(weights(agent), before)
    assert torch.isfinite(weights(agent)).all()
    finished = [watch.workers.count(worker) * 8 // 20 for worker in range(3)]
    assert len(watch.episodes) == sum(finished)
    assert all(episode["l"] == 20 for episode in watch.episodes)
    wait_for_end(watch.pids)
    agent.learn(16, callback=watch, reset_num_timesteps=False)
    assert agent.num_timesteps == 520


def test_nobody_waits_for_a_worker_that_stands_still(
    make_crew: Make, guess: Any, tmp_path: Path
) -> None:
    """One stops in the middle of a segment, as by Ctrl-Z. The other makes sixty updates
    meanwhile, and then what the first one pushes is at least as stale.
    """
    stopped = tmp_path / "stopped"

    def make() -> Any:
        env = guess()
        step = env.step

        def stopping(action: Any) -> Any:
            if env.n_steps == 10 and not stopped.exists():
                with contextlib.suppress(FileExistsError):
                    stopped.mkdir()  # only one can
                    os.kill(os.getpid(), signal.SIGSTOP)
            return step(action)

        env.step = stopping
        return env

    class Resume(BaseCallback):
        workers: list[int] = []  # noqa: RUF012
        stalenesses: list[int] = []  # noqa: RUF012
        stopped_at = resumed_at = 0

        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            agent: Any = self.model
            self.workers.append(self.locals["worker"])
            self.stalenesses.append(agent._learner._report.update.staleness)
            n_segments = len(self.workers)
            if stopped.exists() and not self.stopped_at:
                self.stopped_at = n_segments
            if self.stopped_at and not self.resumed_at and n_segments >= self.stopped_at + 60:
                self.resumed_at = n_segments
                for pid in agent.worker_pids:
                    os.kill(pid, signal.SIGCONT)

    watch = Resume()
    make_crew(make).learn(1000, callback=watch)
    alone = set(watch.workers[watch.stopped_at + 8 : watch.resumed_at])
    assert len(alone) == 1
    resumed = ({0, 1} - alone).pop()
    first = watch.workers.index(resumed, watch.resumed_at)
    assert watch.stalenesses[first] >= 50


def test_a_callback_ends_all(make_crew: Make) -> None:
    watch = Watch(limit=21)
    agent = make_crew().learn(10**6, callback=watch)
    assert agent.num_timesteps == 21
    wait_for_end(watch.pids)


def test_an_exception_ends_all(make_crew: Make) -> None:
    def fail(agent: A3C) -> None:
        raise ZeroDivisionError

    watch = Watch(fail)
    with pytest.raises(ZeroDivisionError):
        make_crew().learn(10**6, callback=watch)
    wait_for_end(watch.pids)


def test_a_worker_that_is_killed_is_reported(make_crew: Make) -> None:
    def kill(agent: A3C) -> None:
        os.kill(agent.worker_pids[1], signal.SIGKILL)

    watch = Watch(kill)
    with pytest.raises(WorkerCrashed) as raised:
        make_crew().learn(10**6, callback=watch)
    expected = f"Worker 1 of 2 (process {watch.pids[1]}) was ended by SIGKILL."
    assert str(raised.value).startswith(expected)
    assert "on_worker_crash='continue'" in str(raised.value)
    wait_for_end(watch.pids)


def test_the_others_go_on_if_asked_to(make_crew: Make, caplog: pytest.LogCaptureFixture) -> None:
    def kill(agent: A3C) -> None:
        os.kill(agent.worker_pids[1], signal.SIGKILL)

    watch = Watch(kill)
    agent = make_crew(n_workers=3, on_worker_crash="continue")
    with caplog.at_level(logging.WARNING):
        agent.learn(1000, callback=watch)
    assert agent.num_timesteps == 1000  # the others did what the dead one was to do
    assert agent._n_updates == len(watch.workers) == 125
    assert set(watch.workers[-20:]) <= {0, 2}
    assert agent.logger.name_to_value["train/n_workers"] == 2
    assert agent.logger.name_to_value["train/crashed_workers"] == 1
    (message,) = [r.getMessage() for r in caplog.records]
    assert message.endswith("was ended by SIGKILL. 2 of 3 go on.")
    wait_for_end(watch.pids)


def test_nobody_left(make_crew: Make) -> None:
    def kill(agent: A3C) -> None:
        for pid in agent.worker_pids:
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(WorkerCrashed, match=r"No worker is left\. Worker . of 2"):
        make_crew(on_worker_crash="continue").learn(10**6, callback=Watch(kill))


def test_an_environment_that_fails_is_reported_in_its_own_words(
    make_crew: Make, script: Any
) -> None:
    def make() -> Any:
        env = script()
        step = env.step

        def failing(action: Any) -> Any:
            if env.n_steps == 12:
                raise ValueError("the gripper\nis stuck")
            return step(action)

        env.step = failing
        return env

    with pytest.raises(WorkerCrashed) as raised:
        make_crew(make).learn(10**6)
    assert "of 2 failed with ValueError: the gripper is stuck." in str(raised.value)
    (traceback,) = raised.value.__notes__
    assert "in failing" in traceback


def test_a_process_that_leaves_is_reported(make_crew: Make, guess: Any) -> None:
    def make() -> Any:
        env = guess()
        step = env.step

        def leaving(action: Any) -> Any:
            if env.n_steps == 12:
                os._exit(3)
            return step(action)

        env.step = leaving
        return env

    with pytest.raises(WorkerCrashed, match="ended with exit code 3; its own message, if any"):
        make_crew(make).learn(10**6)


def test_parameters_that_are_no_numbers_end_all(make_crew: Make) -> None:
    """Nobody can go on, whatever was asked for."""
    agent = make_crew(on_worker_crash="continue")
    with torch.no_grad():
        agent.policy.action_net.bias[0] = torch.nan
    with pytest.raises(WorkerCrashed, match=r"training has diverged\. Lower learning_rate"):
        agent.learn(1000)


def test_an_environment_that_cannot_be_made_is_reported(make_crew: Make, guess: Any) -> None:
    made = []

    def once() -> Any:
        if made or multiprocessing.parent_process() is not None:
            raise OSError("no licence")
        made.append(1)
        return guess()

    with pytest.raises(WorkerCrashed, match="failed with OSError: no licence"):
        make_crew(once).learn(10**6)


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_workers_end_with_this_process(number: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "learn.py"
    script.write_text(
        "import torch; torch.set_num_threads(1)\n"
        "from agents import A3C\n"
        "from stable_baselines3.common.callbacks import BaseCallback\n"
        "class Tell(BaseCallback):\n"
        "    def _on_step(self):\n"
        "        if self.n_calls == 50:\n"
        "            print(*self.model.worker_pids, flush=True)\n"
        "        return True\n"
        "if __name__ == '__main__':\n"
        "    agent = A3C('MlpPolicy', 'CartPole-v1', n_workers=2, seed=1)\n"
        "    agent.learn(10**9, callback=Tell())\n"
    )
    learner = subprocess.Popen(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with learner:
        assert learner.stdout is not None
        pids = tuple(map(int, learner.stdout.readline().split()))
        assert len(pids) == 2, learner.communicate()
        assert all(map(is_running, pids))
        learner.send_signal(number)
        learner.wait(20)
    wait_for_end(pids)


def test_the_normaliser_counts_every_step(make_crew: Make, script: Any) -> None:
    def make() -> Any:
        return script([1.0, 3.0])

    venv = VecNormalize(DummyVecEnv([make]), gamma=0.9)
    agent = A3C("MlpPolicy", venv, n_workers=2, n_steps=5, seed=1, worker_env=make)
    watch = Watch()
    agent.learn(200, callback=watch)
    assert venv.obs_rms.count == pytest.approx(200 + 1 + 1e-4)  # one from this process's reset
    assert venv.ret_rms.count == pytest.approx(200 + 1e-4)
    numbers = [0]
    for worker in range(2):  # the reset follows within the last step of an episode
        numbers += [n % 20 for n in range(1, 5 * watch.workers.count(worker) + 1)]
    seen = np.array([[0.1 * n, 1.0 - 0.2 * n] for n in numbers])
    np.testing.assert_allclose(venv.obs_rms.mean, seen.mean(axis=0), rtol=1e-3)
    np.testing.assert_allclose(venv.obs_rms.var, seen.var(axis=0), rtol=1e-3)


def test_the_learning_rate_reaches_the_workers(make_crew: Make) -> None:
    """Falling to zero half-way: the parameters stand still afterwards."""
    agent = make_crew(learning_rate=LinearSchedule(1e-2, 0.0, 0.5))
    seen = []

    class Keep(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_start(self) -> None:
            seen.append(weights(self.model).clone())  # type: ignore[arg-type]

    agent.learn(800, callback=Keep())
    assert not torch.equal(seen[0], seen[20])
    # 8 segments each may have been granted before the rate was zero.
    assert torch.equal(seen[70], weights(agent))


def test_training_goes_on_from_a_file(make_crew: Make, guess: Any, tmp_path: Path) -> None:
    agent = make_crew().learn(160)
    agent.save(tmp_path / "agent")
    loaded = A3C.load(tmp_path / "agent", env=guess(), worker_env=guess)
    assert (loaded.n_workers, loaded.num_timesteps) == (2, 160)
    assert torch.equal(weights(loaded), weights(agent))
    for ours, theirs in zip(
        agent.rmsprop.square_avgs(agent.policy.parameters()),
        loaded.rmsprop.square_avgs(loaded.policy.parameters()),
        strict=True,
    ):
        assert ours.any()
        assert torch.equal(ours, theirs)
    loaded.learn(160, reset_num_timesteps=False)
    assert loaded.num_timesteps == 320
    assert not torch.equal(weights(loaded), weights(agent))


@pytest.mark.slow
def test_it_learns(make_crew: Make) -> None:
    """Guessing earns 5 of 20; two workers learn to repeat the number within seconds."""
    agent = make_crew(gamma=0.0, learning_rate=4e-3, n_steps=16, stats_window_size=20)
    agent.learn(12_000)
    returns = [episode["r"] for episode in agent.ep_info_buffer or ()]
    assert np.mean(returns) > 16.0
