"""From the winner of a search to an entry of ``hyperparams/<algo>.yml``, with its provenance.

The file is edited as text: comments, order and everything about other tasks stay as they are.
"""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agents.errors import ConfigError
from zoo.plain_yaml import flow_yaml, load_yaml
from zoo.presets import override_entry, read_entries
from zoo.tuning.protocol import Protocol
from zoo.tuning.search_space import Overrides

__all__ = ["entry_text", "make_entry", "read_file", "replace_entry"]

_ALIAS = re.compile(r"(?<![\w\"'])([&*])([A-Za-z_][\w-]*)")


def make_entry(
    protocol: Protocol, overrides: Overrides, source: str, n_timesteps: int
) -> dict[str, Any]:
    """Return the entry that trains with ``overrides``: what differs from ``default``, in full.

    :param overrides: of a trial, dotted keys.
    :param source: the provenance.
    :param n_timesteps: that the entry was ranked with.
    """
    entries = read_entries(protocol.algo, protocol.conf_file)
    default = entries.get("default", {})
    base = default | (entries.get(protocol.env_id, {}) if protocol.from_preset else {})
    changes = {**protocol.fixed, **overrides, "n_timesteps": n_timesteps}
    settings = override_entry({key: base[key] for key in base if key != "source"}, changes)
    return {
        "source": source,
        **{
            key: value
            for key, value in settings.items()
            if key not in default or default[key] != value
        },
    }


def entry_text(env_id: str, entry: Mapping[str, Any], anchor: str = "") -> str:
    """Return the entry as the files write it, one line per setting.

    :param anchor: a name by which other entries of the file refer to it.
    """
    lines = [f"{env_id}:{f' &{anchor}' if anchor else ''}"]
    lines += [f"  {key}: {flow_yaml(value)}" for key, value in entry.items()]
    return "\n".join(lines) + "\n"


def read_file(algo: str, path: Path | None) -> str:
    """Return the text of a file of hyperparameters; the shipped one if ``path`` is None.

    :raises ConfigError: it cannot be read.
    """
    if path is None:
        resource = importlib.resources.files("hyperparams").joinpath(f"{algo}.yml")
        return resource.read_text(encoding="utf-8") if resource.is_file() else ""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"'{path}' cannot be read ({reason}).") from error


def replace_entry(text: str, env_id: str, entry: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return the file with the entry replaced or appended, and the tasks that share it.

    An entry that others refer to (``Walker2d-v5: *walker2d``) keeps its anchor, so that they go on
    sharing it; an anchor *inside* the old entry moves to where it is used next.

    :param text: a file of hyperparameters.
    :raises ConfigError: the file cannot be edited without changing another task.
    """
    before = load_yaml(text, "the file of hyperparameters") or {}
    lines = text.splitlines(keepends=True)
    begin, end = _block(lines, env_id)
    old = "".join(lines[begin:end])
    head = re.match(r"[^\n#]*?:\s*&([\w-]+)", old)
    block = entry_text(env_id, entry, head[1] if head else "")
    rest = _redefine(old, head[1] if head else "", "".join(lines[end:]), before, lines)
    separator = "" if begin < len(lines) or not text or text.endswith("\n\n") else "\n"
    new = "".join(lines[:begin]) + separator + block + rest
    return new, _sharing(before, load_yaml(new, "the new file"), env_id, dict(entry))


def _block(lines: list[str], env_id: str) -> tuple[int, int]:
    """Return the lines of an entry; those past the end if there is none."""
    key = re.compile(rf"([\"']?){re.escape(env_id)}\1\s*:")
    begin = next((i for i, line in enumerate(lines) if key.match(line)), len(lines))
    end = min(begin + 1, len(lines))
    last = end
    while end < len(lines) and (not lines[end].strip() or lines[end][0] in " \t"):
        end += 1
        if lines[end - 1].strip():
            last = end
    return begin, last


def _redefine(old: str, kept: str, rest: str, before: Mapping[str, Any], lines: list[str]) -> str:
    """Return the text after the entry with the anchors that went with the old entry."""
    for sign, name in _ALIAS.findall(old):
        if sign == "*" or name == kept:
            continue
        used = re.search(rf"(?<![\w\"'])\*{re.escape(name)}\b", rest)
        if used is not None:
            value = _anchored("".join(lines), name)
            rest = f"{rest[: used.start()]}&{name} {flow_yaml(value)}{rest[used.end() :]}"
    return rest


def _anchored(text: str, name: str) -> Any:
    """Return the value that an anchor stands for."""
    probe = load_yaml(f"{text}\n__anchored__: *{name}\n", "the file of hyperparameters")
    return probe["__anchored__"]


def _sharing(
    before: Mapping[str, Any], after: Mapping[str, Any], env_id: str, entry: dict[str, Any]
) -> list[str]:
    if after.get(env_id) != entry:
        raise ConfigError(f"The new entry of {env_id} does not read back as it was written.")
    changed = [
        name
        for name in {**before, **after}
        if name != env_id and before.get(name) != after.get(name)
    ]
    for name in changed:
        if after.get(name) != entry:
            raise ConfigError(
                f"The entry of {env_id} cannot be replaced without changing that of {name}; write "
                "it by hand, see --dry-run."
            )
    return changed
