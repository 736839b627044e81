"""What a campaign is to do: one complete configuration per cell, and what is done of it already."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from agents.errors import ConfigError
from hub.env_ids import check_env_id
from hub.locate import settings_folders
from zoo.campaign.cells import Cell, Places
from zoo.campaign.results import differences, load_result
from zoo.config import RunConfig, resolve_config
from zoo.envs import choose_backend
from zoo.locks import FileLock

__all__ = [
    "Recipe",
    "State",
    "Task",
    "plan",
    "refuse_outdated",
    "result_state",
    "state_of",
    "states_on_disk",
]


class State(Enum):
    """How far a cell has come."""

    FINISHED = "finished"
    FAILED = "failed"
    OUTDATED = "outdated"
    RUNNING = "running"
    WAITING = "waiting"


@dataclass(frozen=True)
class Recipe:
    """How every run of a campaign is trained, beside what its preset says.

    :param n_timesteps: None for the preset's.
    :param untuned: train with the presets' ``default`` entry.
    :param presets: a folder of ``<algo>.yml`` to read instead of ``hyperparams/``.
    :param settings: of :func:`zoo.config.resolve_config`, such as ``eval_freq``.
    """

    n_timesteps: int | None = None
    untuned: bool = False
    presets: Path | None = None
    settings: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Task:
    """A cell with everything that its run is made from."""

    cell: Cell
    config: RunConfig


def plan(cells: Iterable[Cell], recipe: Recipe) -> list[Task]:
    """Return the runs that ``cells`` stand for, each on one core.

    :raises ConfigError: a name is unknown, or a setting cannot be used; nothing has been trained.
    """
    return [Task(cell, _resolve(cell, recipe)) for cell in cells]


def _resolve(cell: Cell, recipe: Recipe) -> RunConfig:
    env_id = check_env_id(cell.env_id)
    presets = recipe.presets
    return resolve_config(
        cell.algo,
        env_id,
        conf_file=None if presets is None else presets / f"{cell.algo}.yml",
        untuned=recipe.untuned,
        n_timesteps=recipe.n_timesteps,
        seed=cell.seed,
        vec_env=choose_backend("auto", env_id),
        n_threads=1,
        env_threads=1,
        device="cpu",
        **dict(recipe.settings),
    )


def state_of(task: Task, places: Places) -> State:
    """Return how far a cell has come, from its result and its lock.

    :raises RunFolderError: the result is damaged.
    """
    lock = places.lock(task.cell)
    if lock.exists() and not _is_free(lock):
        return State.RUNNING
    return result_state(task, places)


def result_state(task: Task, places: Places) -> State:
    """Return how far a cell has come by its result alone.

    :raises RunFolderError: it is damaged.
    """
    path = places.result(task.cell)
    if not path.exists():
        return State.WAITING
    result = load_result(path)
    if differences(result.config, task.config):
        return State.OUTDATED
    return State.FINISHED if result.error is None else State.FAILED


def _is_free(lock: Path) -> bool:
    probe = FileLock(lock)
    free = probe.acquire()
    probe.release()
    return free


def refuse_outdated(tasks: Sequence[Task], places: Places) -> None:
    """Raise if a result is there that was trained with other settings than are wanted now.

    :raises ConfigError: names the first such run and what differs.
    """
    outdated = [task for task in tasks if state_of(task, places) is State.OUTDATED]
    if not outdated:
        return
    first = outdated[0]
    changed = differences(load_result(places.result(first.cell)).config, first.config)
    raise ConfigError(
        f"{len(outdated)} of {len(tasks)} results in {places.results} were trained with other "
        f"settings, the first {first.cell} ({'; '.join(changed[:3])}). --redo-outdated replaces "
        "them, --output FOLDER leaves them alone."
    )


def states_on_disk(places: Places) -> dict[Cell, State]:
    """Return how far everything has come that was ever asked for, from results and run folders."""
    states = {}
    for path in places.result_files():
        result = load_result(path)
        states[result.cell] = State.FINISHED if result.error is None else State.FAILED
    runs = places.logs.glob("*/*")
    for path in (folder / "config.yml" for run in runs for folder in settings_folders(run)):
        config = RunConfig.from_yaml(path.read_text(encoding="utf-8"), str(path))
        task = Task(Cell(config.algo, config.env_id, config.seed), config)
        if places.run(task.cell).path == path.parent.parent:
            states[task.cell] = state_of(task, places)
    return dict(sorted(states.items()))
