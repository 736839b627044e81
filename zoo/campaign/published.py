"""Published results, each with the protocol it was measured with, from ``published.yml``."""

from __future__ import annotations

import functools
import importlib.resources
from dataclasses import dataclass
from typing import Any, NamedTuple

from agents.errors import ConfigError, UnknownName
from zoo.plain_yaml import load_yaml
from zoo.typed_values import coerce

__all__ = ["Bar", "Source", "bars", "best_bar", "reference", "soft_bar"]

_FILE = "published.yml"
_BAR_KEYS: dict[str, Any] = {
    "value": float,
    "std": float | None,
    "se": float | None,
    "ci": list[float] | None,
    "version": str,
    "only": list[str] | None,
    "source": str,
    "soft": bool,
}
_BAR_DEFAULTS: dict[str, Any] = {"std": None, "se": None, "ci": None, "only": None, "soft": False}


@dataclass(frozen=True)
class Source:
    """Where numbers were published, and how they were measured."""

    key: str
    name: str
    url: str
    protocol: str


@dataclass(frozen=True)
class Bar:
    """A published mean return at 1M steps.

    :param algo: the algorithm that was measured: the one that was asked for, or the relative that
        stands in for it where nobody has published any.
    :param value: the mean.
    :param spread: as it was published, such as ``"± 963 (std)"``; empty if it was not.
    :param env_id: the task and version that it was measured on.
    :param source: who published it.
    :param soft: a single run, or a protocol or budget that is not stated; never used as the bar.
    """

    algo: str
    value: float
    spread: str
    env_id: str
    source: Source
    soft: bool


def bars(algo: str, env_id: str) -> list[Bar]:
    """Return what is published of ``algo`` for a task, comparable versions only, best first.

    An algorithm that nobody has published numbers of has those of its nearest relative.
    """
    task, _, version = env_id.rpartition(":")[2].rpartition("-")
    published = _published()
    measured = published.stand_ins.get(algo, algo)
    entries = published.bars.get(measured, {}).get(task, [])
    found = [
        Bar(
            algo=measured,
            value=entry["value"],
            spread=_spread(entry),
            env_id=f"{task}-{entry['version']}",
            source=published.sources[entry["source"]],
            soft=entry["soft"],
        )
        for entry in entries
        if version in (entry["only"] or _OURS)
    ]
    return sorted(found, key=lambda bar: -bar.value)


_OURS = ("v4", "v5")


def best_bar(algo: str, env_id: str) -> Bar | None:
    """Return the highest published mean over several seeds whose protocol is stated."""
    return next((bar for bar in bars(algo, env_id) if not bar.soft), None)


def soft_bar(algo: str, env_id: str) -> Bar | None:
    """Return the highest number that is higher still, but from one run or an unstated protocol."""
    hard = best_bar(algo, env_id)
    soft = next((bar for bar in bars(algo, env_id) if bar.soft), None)
    return soft if soft is not None and (hard is None or soft.value > hard.value) else None


def reference(env_id: str) -> Bar | None:
    """Return the highest published mean of any on-policy algorithm on a task, no soft one."""
    found = [bar for algo in _published().bars if (bar := best_bar(algo, env_id)) is not None]
    return max(found, key=lambda bar: bar.value, default=None)


def _spread(entry: dict[str, Any]) -> str:
    if entry["std"] is not None:
        return f"± {_number(entry['std'])}"
    if entry["se"] is not None:
        return f"± {_number(entry['se'])} (standard error)"
    if entry["ci"] is not None:
        low, high = entry["ci"]
        return f"[{_number(low)}, {_number(high)}]"
    return ""


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}"


class _Published(NamedTuple):
    """What the file holds."""

    sources: dict[str, Source]
    bars: dict[str, dict[str, list[dict[str, Any]]]]
    stand_ins: dict[str, str]


@functools.cache
def _published() -> _Published:
    text = importlib.resources.files("zoo.campaign").joinpath(_FILE).read_text(encoding="utf-8")
    content = load_yaml(text, _FILE)
    sources = {key: Source(key=key, **about) for key, about in content["sources"].items()}
    checked = {
        algo: {
            task: [_checked(f"{_FILE}, {algo} {task}", entry, sources) for entry in entries]
            for task, entries in tasks.items()
        }
        for algo, tasks in content["bars"].items()
    }
    return _Published(sources, checked, content["stand_ins"])


def _checked(where: str, entry: dict[str, Any], sources: dict[str, Source]) -> dict[str, Any]:
    for key in entry:
        if key not in _BAR_KEYS:
            raise UnknownName(f"key of {where}", key, _BAR_KEYS)
    complete = _BAR_DEFAULTS | entry
    for key, kind in _BAR_KEYS.items():
        if key not in complete:
            raise ConfigError(f"{where}: '{key}' is missing.")
        complete[key] = coerce(f"{where}, {key}", complete[key], kind)
    if complete["source"] not in sources:
        raise UnknownName(f"source of {where}", complete["source"], sources)
    return complete
