"""How things are measured: interleaved, repeated, summarised by the median."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from hub.atomic import write_text
from hub.versions import installed_versions
from zoo import provenance

__all__ = [
    "PICTURES",
    "RESULTS",
    "interleaved",
    "machine",
    "on_cores",
    "per_call_seconds",
    "save",
    "summary",
]

RESULTS = Path(__file__).parent / "results"
Measured = TypeVar("Measured")
PICTURES = Path(__file__).parent.parent / "docs" / "images"


def interleaved(
    subjects: Mapping[str, Callable[[], float]], repeats: int, progress: Callable[[str], None]
) -> dict[str, list[float]]:
    """Measure every subject once, then every subject again, …, so that drift hits all alike.

    :param subjects: functions that each make one measurement.
    :param repeats: at least 3, so that a median means something.
    :param progress: told what was measured.
    """
    values: dict[str, list[float]] = {name: [] for name in subjects}
    for repeat in range(repeats):
        for name, subject in subjects.items():
            values[name].append(subject())
            progress(f"{name} [{repeat + 1}/{repeats}] {values[name][-1]:.4g}")
    return values


def on_cores(n_cores: int, measurement: Callable[[], Measured]) -> Callable[[], Measured]:
    """Return ``measurement`` made on the first ``n_cores`` of the cores that are allowed."""

    def measure() -> Measured:
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, sorted(allowed)[:n_cores])
        try:
            return measurement()
        finally:
            os.sched_setaffinity(0, allowed)

    return measure


def per_call_seconds(function: Callable[[], object], min_seconds: float = 0.2) -> float:
    """Return the seconds of one call: the best of five batches, each long enough to time.

    Calls of several seconds are not repeated.
    """
    function()
    n_calls = 1
    while True:
        start = time.perf_counter()
        for _ in range(n_calls):
            function()
        elapsed = time.perf_counter() - start
        if elapsed >= min_seconds / 5:
            break
        n_calls = max(n_calls + 1, int(n_calls * min_seconds / 5 / max(elapsed, 1e-9)))
    best = elapsed
    for _ in range(4 if elapsed < 10 * min_seconds else 0):
        start = time.perf_counter()
        for _ in range(n_calls):
            function()
        best = min(best, time.perf_counter() - start)
    return best / n_calls


def summary(values: Mapping[str, list[float]]) -> dict[str, dict[str, Any]]:
    """Return the median and all values of each subject."""
    return {
        name: {"median": statistics.median(v), "values": [float(f"{x:.5g}") for x in v]}
        for name, v in values.items()
    }


def machine() -> dict[str, Any]:
    """Return what is worth knowing about this machine and its load."""
    here = provenance.machine()
    return {
        "processor": here["processor"],
        "cores": os.cpu_count(),
        "load_average": [round(x, 2) for x in os.getloadavg()],
        "system": f"{here['system']} {here['architecture']}",
        "versions": installed_versions(),
    }


def save(section: str, content: dict[str, Any]) -> Path:
    """Write a section's results with the machine beside them."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{section}.json"
    write_text(path, json.dumps(content | {"machine": machine()}, indent=1) + "\n")
    return path
