"""Turn the measured files into the tables of ``docs/speed.md`` and a picture."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import PICTURES, RESULTS
from hub.atomic import atomic_write, write_text

__all__ = ["write_report"]

PAGE = Path(__file__).parent.parent / "docs" / "speed.md"


def write_report() -> None:
    """Rewrite the parts of ``docs/speed.md`` between ``<!-- name -->`` and ``<!-- /name -->``."""
    page = PAGE.read_text()
    writers = {
        "peers": _peers,
        "limits": _limits,
        "breakdown": _breakdown,
        "updates": _updates,
        "scaling": _scaling,
        "memory": _memory,
        "runtime_latency": _runtime_latency,
    }
    for name, writer in writers.items():
        path = RESULTS / f"{name}.json"
        if path.is_file():
            content = json.loads(path.read_text())
            text = f"{writer(content)}\n\n{_footnote(content['machine'])}"
            pattern = rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)"
            page = re.sub(pattern, lambda m, t=text: m[1] + t + m[2], page, flags=re.DOTALL)
    write_text(PAGE, page)
    _draw()


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _footnote(machine: dict[str, Any]) -> str:
    versions = machine["versions"]
    return (
        f"*{machine['processor']}, {machine['cores']} cores, load average "
        f"{machine['load_average'][0]} at the end; torch {versions['torch']}, mujoco "
        f"{versions['mujoco']}, stable-baselines3 {versions['stable-baselines3']}. Medians.*"
    )


def _rate(value: float) -> str:
    return f"{value:,.0f}"


def _peers(content: dict[str, Any]) -> str:
    rows = []
    for algorithm, subjects in content["algorithms"].items():
        peer = next(name for name in subjects if not name.startswith("ours"))
        base = subjects[peer]["median"]
        rows += [
            (algorithm, name, _rate(s["median"]), f"{s['median'] / base:.2f}×")
            for name, s in subjects.items()
        ]
    return _table(("algorithm", "who", "steps/s", "ratio to the peer"), rows)


def _limits(content: dict[str, Any]) -> str:
    algos = ("npg", "trpo", "ppo", "a2c")
    rows = []
    for env_id, subjects in content["tasks"].items():
        medians = {name: s["median"] for name, s in subjects.items()}
        one, two = medians["physics, 1 core"], medians["physics, 2 cores"]
        random = medians["random physics, 1 core"]
        cells = [
            f"{_rate(medians[f'{a}, 1 core'])} ({medians[f'{a}, 1 core'] / one:.2f})" for a in algos
        ]
        npg_two = medians["npg, 2 cores"]
        rows.append(
            (
                env_id,
                _rate(random),
                _rate(one),
                *cells,
                _rate(two),
                f"{_rate(npg_two)} ({npg_two / two:.2f})",
            )
        )
    header = (
        *("task", "physics, random actions", "physics, NPG's episodes"),
        *(a.upper() for a in algos),
        *("physics, 2 cores", "NPG, 2 cores"),
    )
    return _table(header, rows)


def _breakdown(content: dict[str, Any]) -> str:
    rows = []
    for case, parts in content["cases"].items():
        medians = [part["median"] for part in parts.values()]
        total = sum(medians)
        share = parts["mj_step"]["median"] / total
        rows.append((case, *(f"{value:.1f}" for value in medians), f"{total:.0f}", f"{share:.2f}"))
    names = next(iter(content["cases"].values()))
    return _table(("one core, µs per step", *names, "all", "share of mj_step"), rows)


def _updates(content: dict[str, Any]) -> str:
    rows = []
    for case, subjects in content["cases"].items():
        ms = {name: 1e3 * s["median"] for name, s in subjects.items()}
        row = [case]
        for what in ("Fisher product", "CG solve", "whole update"):
            ours, peer = ms[f"{what}, ours"], ms[f"{what}, sb3-contrib"]
            row.append(f"{ours:.3g} / {peer:.3g} ({peer / ours:.1f}×)")
        row.append(f"{ms['Fisher product, rebuilt graph']:.3g}")
        rows.append(row)
    header = ("network, samples", "Fisher product", "CG solve", "whole update", "rebuilt graph")
    return _table(header, rows)


def _scaling(content: dict[str, Any]) -> str:
    rows = [(case, _rate(s["median"])) for case, s in content["cases"].items()]
    return _table(("NPG on Walker2d-v4, one core", "steps/s"), rows)


def _memory(content: dict[str, Any]) -> str:
    rows = [
        (f"start-up: {name}", f"{s['median']:.2f} s")
        for name, s in content["startup_seconds"].items()
    ]
    rows += [
        (
            f"NPG HalfCheetah-v4 after {point['timesteps']:,} steps",
            f"{point['resident_mib']:.0f} MiB (peak {point['peak_mib']:.0f})",
        )
        for point in content["npg HalfCheetah-v4"]
    ]
    return _table(("", "measured"), rows)


def _runtime_latency(content: dict[str, Any]) -> str:
    subjects = content["subjects"]
    base = next(iter(subjects.values()))["p50"]
    rows = [
        (name, f"{s['p50']:.1f}", f"{s['p99']:.1f}", f"{base / s['p50']:.1f}×")
        for name, s in subjects.items()
    ]
    return _table(("one observation in, one action out", "p50, µs", "p99, µs", "ratio"), rows)


def _draw() -> None:
    """Draw training against the physics limit, task by task."""
    from matplotlib.figure import Figure

    path = RESULTS / "limits.json"
    if not path.is_file():
        return
    tasks = json.loads(path.read_text())["tasks"]
    names = list(tasks)
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.add_subplot()
    series = {
        "MuJoCo alone": ("physics, 1 core", "#bbbbbb"),
        "NPG training": ("npg, 1 core", "#0072b2"),
        "PPO training": ("ppo, 1 core", "#d55e00"),
    }
    for offset, (label, (key, color)) in enumerate(series.items()):
        positions = [i + 0.27 * (offset - 1) for i in range(len(names))]
        heights = [tasks[name][key]["median"] for name in names]
        axes.bar(positions, heights, width=0.25, color=color, label=label)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_yscale("log")
    axes.set_ylabel("steps per second, one core")
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=len(series), frameon=False)
    with atomic_write(PICTURES / "speed.png") as file:
        figure.savefig(file, format="png", dpi=120)
