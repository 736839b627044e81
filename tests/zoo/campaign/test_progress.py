"""Time left, against hand arithmetic."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from zoo.campaign.cells import Cell
from zoo.campaign.planning import Task
from zoo.campaign.progress import Forecast, duration, steps_done
from zoo.campaign.results import Result
from zoo.config import resolve_config


def task(env_id: str, n_timesteps: int = 1000) -> Task:
    config = resolve_config("npg", env_id, seed=0, n_timesteps=n_timesteps, device="cpu")
    return Task(Cell("npg", env_id, 0), config)


def result(env_id: str, seconds: float) -> Result:
    config = dataclasses.asdict(task(env_id).config)
    return Result(config, [], {}, {}, n_timesteps=1000, seconds=seconds, returns=(0.0,))


def test_nothing_is_known_at_first() -> None:
    assert Forecast().seconds_left([task("Ant-v4")], [(task("Hopper-v4"), 0, 0, 5.0)], 1) is None


def test_pace_of_finished_runs() -> None:
    forecast = Forecast([result("Hopper-v4", 10.0), result("Hopper-v4", 30.0)])  # 20 ms per step
    waiting = [task("Hopper-v4"), task("Hopper-v4", 500)]
    assert forecast.seconds_left(waiting, [], 1) == pytest.approx(30.0)
    assert forecast.seconds_left(waiting, [], 2) == pytest.approx(15.0)
    running = [(task("Hopper-v4"), 0, 750, 1.0)]
    assert forecast.seconds_left(waiting, running, 1) == pytest.approx(35.0)


def test_pace_of_the_run_under_way_and_of_others() -> None:
    forecast = Forecast([result("Hopper-v4", 10.0)])  # 10 ms per step
    running = [(task("Ant-v4"), 400, 500, 3.0)]  # 30 ms per step, 500 steps to go
    assert forecast.seconds_left([], running, 1) == pytest.approx(15.0)
    # nothing known about Walker2d: the mean of 10 and 30 ms per step
    assert forecast.seconds_left([task("Walker2d-v4")], running, 1) == pytest.approx(35.0)


def test_one_long_run_is_not_shared() -> None:
    forecast = Forecast([result("Hopper-v4", 10.0)])
    assert forecast.seconds_left([], [(task("Hopper-v4"), 0, 0, 0.0)], 8) == pytest.approx(10.0)


def test_failed_runs_tell_no_pace() -> None:
    failed = dataclasses.replace(result("Hopper-v4", 10.0), error="broken")
    assert Forecast([failed]).seconds_left([task("Hopper-v4")], [], 1) is None


@pytest.mark.parametrize(
    ("content", "steps"),
    [
        ("#{}\nr,l,t,timesteps\n1.0,5,0.1,160\n2.0,6,0.2,320\n", 320),
        ("#{}\nr,l,t,timesteps\n1.0,5,0.1,160\n2.0,6,0.2,32", 160),  # the last row is being written
        ("#{}\nr,l,t,timesteps\n", 0),
        ("", 0),
    ],
)
def test_steps_done(tmp_path: Path, content: str, steps: int) -> None:
    monitor = tmp_path / "0.monitor.csv"
    monitor.write_text(content)
    assert steps_done(monitor) == steps
    assert steps_done(tmp_path / "missing.csv") == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (89.5, "90 s"), (91, "2 min"), (3600, "60 min"), (7500, "2 h 05 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
