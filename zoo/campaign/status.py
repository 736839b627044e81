"""How far a campaign has come, as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from zoo.campaign.cells import Cell, Places
from zoo.campaign.planning import State
from zoo.campaign.progress import steps_done
from zoo.campaign.results import load_result
from zoo.runs import load_config

__all__ = ["status_table"]


def status_table(states: Mapping[Cell, State], places: Places) -> str:
    """Return a line per algorithm and task, then a line per run that is running or failed."""
    rows: dict[tuple[str, str], Counter[State]] = {}
    for cell, state in states.items():
        rows.setdefault((cell.algo, cell.env_id), Counter())[state] += 1
    width = max(len(env_id) for _, env_id in rows)
    algo_width = max(4, *(len(algo) for algo, _ in rows))
    heads = [state.value for state in State]
    lines = [f"{'algo':<{algo_width}}  {'task':<{width}}  {'  '.join(heads)}"]
    for (algo, env_id), counts in rows.items():
        numbers = [f"{counts[state] or '·':>{len(state.value)}}" for state in State]
        lines.append(f"{algo:<{algo_width}}  {env_id:<{width}}  {'  '.join(numbers)}")
    lines += [_running(cell, places) for cell, s in states.items() if s is State.RUNNING]
    lines += [_failed(cell, places) for cell, s in states.items() if s is State.FAILED]
    total = Counter(states.values())
    parts = [f"{total[state]} {state.value}" for state in State if total[state]]
    return "\n".join([*lines, f"{len(states)} runs: {', '.join(parts)}"])


def _running(cell: Cell, places: Places) -> str:
    run = places.run(cell)
    share = steps_done(run.monitor) / load_config(run).n_timesteps
    return f"running: {cell}, {share:.0%}"


def _failed(cell: Cell, places: Places) -> str:
    return f"failed: {cell}: {load_result(places.result(cell)).error} ({places.log(cell)})"
