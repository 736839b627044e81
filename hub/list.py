"""``python -m hub.list``: which agents a hub has."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agents.errors import ConfigError
from hub import remote
from hub.agent_name import FOLDER
from hub.bundle_format.bundle_folder import AGENT
from hub.command_line import execute, make_parser, say
from hub.fetch import cache_folder
from hub.folder_hub import FolderHub
from hub.front_matter import card_environment, read_front_matter
from hub.model_card import TAG, algorithm_name

__all__ = ["Listed", "list_cached", "list_folder", "list_hub", "main"]

_EXAMPLES = """\
examples:
  python -m hub.list                                   # agents of Natural Zoo on the Hub
  python -m hub.list --org sb3 --env Walker2d-v3       # of RL Zoo, too
  python -m hub.list --algo npg --json
  python -m hub.list folder:/srv/agents
  python -m hub.list --cached                          # what works without connection
"""
_RL_TAGS = ("reinforcement-learning", "stable-baselines3")
_COLUMNS = ("name", "algo", "env", "mean_return", "kind", "updated")


@dataclass(frozen=True)
class Listed:
    """One agent of a hub.

    :param name: what the other commands are given.
    :param algo: name of the algorithm in lower case, None if nothing says it.
    :param env: Gymnasium id of its task.
    :param mean_return: as its card says it, such as ``"5363.10 +/- 12.30"``.
    :param kind: ``"bundle"`` or ``"sb3"``, an archive of Stable-Baselines3.
    :param updated: date of the latest revision.
    """

    name: str
    algo: str | None
    env: str | None
    mean_return: str | None
    kind: str
    updated: str | None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return execute(_parser(), _run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("hub.list", "List the agents of a hub.", _EXAMPLES)
    parser.add_argument("hub", nargs="?", metavar="folder:DIR", help="default: the Hub")
    parser.add_argument("--org", metavar="ORG", help="only of this user or organisation")
    parser.add_argument("--algo", metavar="ALGO", help="only of this algorithm, such as npg")
    parser.add_argument("--env", metavar="ENV", help="only on this task, such as Walker2d-v4")
    parser.add_argument("--cached", action="store_true", help="what this machine has fetched")
    parser.add_argument(
        "--limit", type=int, default=100, metavar="N", help="at most so many (default 100)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _run(args: argparse.Namespace) -> None:
    if args.limit < 1:
        raise ConfigError(f"--limit {args.limit} must be at least 1; leave it out for 100.")
    if args.hub and not args.hub.startswith(FOLDER):
        raise ConfigError(
            f"'{args.hub}' is no hub. Type: --org {args.hub}, or folder:DIR for a folder."
        )
    if args.org and args.org.startswith(FOLDER):
        raise ConfigError(
            f"--org is a user or an organisation of the Hub. Type: hub.list {args.org}"
        )
    if args.cached:
        found = list_cached()
    elif args.hub:
        found = list_folder(Path(args.hub.removeprefix(FOLDER)))
    else:
        found = list_hub(args.org, env=args.env, limit=args.limit)
    found = [
        agent
        for agent in found
        if (args.algo is None or agent.algo == args.algo.lower())
        and (args.env is None or agent.env == args.env)
        and (args.org is None or agent.name.removeprefix(FOLDER).split("/")[-2:][0] == args.org)
    ][: args.limit]
    if args.json:
        print(json.dumps([asdict(agent) for agent in found], indent=1))
        return
    if not found:
        say("no such agent")
    _print_table(found)


def _print_table(agents: Sequence[Listed]) -> None:
    rows = [[str(getattr(agent, name) or "?") for name in _COLUMNS] for agent in agents]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))] if rows else []
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def list_hub(
    org: str | None = None, *, env: str | None = None, limit: int = 100, token: str | None = None
) -> list[Listed]:
    """Return agents of the Hub, the latest first.

    :param org: a user or organisation, whose agents of RL Zoo are listed, too; None for those of
        Natural Zoo everywhere.
    :param env: only on this task.
    :param limit: at most so many.
    :raises HubUnreachable: no connection.
    """
    tags = [*_RL_TAGS, *([] if org else [TAG]), *([env] if env else [])]
    return [
        _of_repository(info)
        for info in remote.list_repositories(org, tags, limit=limit, token=token)
    ]


def _of_repository(info: Any) -> Listed:
    metadata = dict(info.card_data.to_dict()) if info.card_data is not None else {}
    updated = info.last_modified.date().isoformat() if info.last_modified else None
    kind = "bundle" if TAG in (info.tags or ()) else "sb3"
    return _from_card(info.id, metadata, kind, updated)


def _from_card(name: str, metadata: dict[str, Any], kind: str, updated: str | None) -> Listed:
    model: Any = metadata.get("model-index")
    title = value = None
    try:
        title = model[0]["name"]
        value = model[0]["results"][0]["metrics"][0]["value"]
    except (KeyError, IndexError, TypeError):
        pass
    algo = algorithm_name(title) if isinstance(title, str) else None
    return Listed(
        name, algo, card_environment(metadata), None if value is None else str(value), kind, updated
    )


def list_folder(root: Path) -> list[Listed]:
    """Return the agents of a folder hub by name.

    :raises AgentNotFound: there is no hub.
    """
    hub = FolderHub(root)
    found = []
    for name in hub.agents():
        revision = hub.history(name)[0]
        kind = "bundle" if AGENT in revision.files else "sb3"
        found.append(
            _from_card(f"{FOLDER}{root}/{name}", _card(revision.path), kind, revision.created[:10])
        )
    return found


def list_cached() -> list[Listed]:
    """Return what this machine has fetched, by name, with the revision that it has."""
    return sorted(_cached(), key=lambda agent: agent.name)


def _cached() -> Iterator[Listed]:
    for folder in cache_folder().glob("*/*/*"):
        kind = {"bundle": "bundle", "guest": "sb3"}.get(folder.name)
        if kind is not None:
            name = folder.parts[-3].replace("--", "/", 1)
            yield _from_card(f"{name}@{folder.parts[-2]}", _card(folder), kind, None)


def _card(folder: Path) -> dict[str, Any]:
    try:
        return read_front_matter((folder / "README.md").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return {}


if __name__ == "__main__":
    sys.exit(main())
