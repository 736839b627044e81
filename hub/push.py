"""``python -m hub.push``: publish an agent on the Hugging Face Hub or in a folder."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agents.errors import ConfigError
from hub import remote
from hub.agent_name import FOLDER
from hub.command_line import add_gym_packages, execute, make_parser, say
from hub.folder_hub import MAIN, MARKER, FolderHub, find_folder_hub
from hub.locate import locate
from hub.publishing import OWNED_PATTERNS, Publication, Wishes, prepare_publication

__all__ = ["main", "push"]

_EXAMPLES = """\
examples:
  python -m hub.push logs/npg/Walker2d-v4_1 ORG                   # → ORG/npg-Walker2d-v4
  python -m hub.push logs/npg/Walker2d-v4_1 ORG/my-walker --private --video
  python -m hub.push logs/npg/Walker2d-v4_1 ORG --rl-zoo          # RL Zoo can play it, too
  python -m hub.push logs/npg/Walker2d-v4_1 folder:/srv/agents    # without internet

Everything goes up in one commit or not at all; pushing again is safe, and sends what has changed.
Log in first: hf auth login, or set HF_TOKEN. HF_ENDPOINT names another server than huggingface.co.
"""
_TARGET = re.compile(r"([A-Za-z0-9][\w.-]*)(?:/([A-Za-z0-9][\w.-]*))?", re.ASCII)


@dataclass(frozen=True)
class _Target:
    """Where to publish: a namespace of the Hub or a folder, and the agent's name if it is given."""

    place: str
    name: str | None
    is_folder: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return execute(_parser(), _run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "hub.push", "Publish an agent on the Hugging Face Hub or in a folder.", _EXAMPLES
    )
    parser.add_argument("agent", metavar="AGENT", help="run folder or bundle")
    parser.add_argument(
        "target", metavar="ORG[/NAME]", help="where to; NAME is ALGO-ENV by default; or folder:DIR"
    )
    parser.add_argument(
        "--name", metavar="NAME", help="of the agent in a new folder (default ALGO-ENV)"
    )
    parser.add_argument(
        "--private", action="store_true", help="make a new repository private; an old one stays"
    )
    parser.add_argument("--revision", metavar="BRANCH", help="push to a branch (default main)")
    parser.add_argument("--message", metavar="TEXT", help="of the commit")
    parser.add_argument("--video", action="store_true", help="record the first episode")
    parser.add_argument("--rl-zoo", action="store_true", help="also write what RL Zoo reads")
    parser.add_argument("--license", metavar="SPDX", help="of the agent, such as mit")
    parser.add_argument(
        "--episodes",
        type=int,
        default=100,
        metavar="N",
        help="of the evaluation, if there is none yet (default 100)",
    )
    add_gym_packages(parser)
    return parser


def _run(args: argparse.Namespace) -> None:
    wishes = Wishes(
        video=args.video,
        rl_zoo=args.rl_zoo,
        license=args.license,
        episodes=args.episodes,
        packages=args.gym_packages,
    )
    pinned = push(
        args.agent,
        args.target,
        name=args.name,
        private=args.private,
        revision=args.revision,
        message=args.message,
        wishes=wishes,
    )
    print(pinned)


def push(
    agent: str | Path,
    target: str,
    *,
    name: str | None = None,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    wishes: Wishes | None = None,
    token: str | None = None,
) -> str:
    """Publish an agent and return the name that means these bytes for ever.

    :param agent: a run folder or a bundle.
    :param target: ``"ORG"``, ``"ORG/NAME"`` or ``"folder:DIR"``.
    :param name: of the agent in a folder; ``ALGO-ENV`` if it is not given.
    :param private: visibility of a new repository.
    :param revision: a branch; None for ``main``.
    :param message: of the commit; the return if it is not given.
    :param wishes: video, files for RL Zoo, licence.
    :param token: of the Hub, instead of the one that is logged in.
    :raises AccessDenied: no token, or one without the right to write.
    :raises HubUnreachable: no connection.
    :raises NaturalZooError: there is no such agent, it is damaged, or would tell about this
        machine.
    """
    to = _parse_target(target, name)
    if to.is_folder and private:
        raise ConfigError(
            "--private is for the Hub; who may read a folder is decided by the rights on it."
        )
    if not to.is_folder:
        remote.require_token(token)  # before minutes of work
    bundle, run = _bundle_of(agent)
    address = f"{'folder:DIR' if to.is_folder else to.place}/{to.name or '{name}'}"
    publication = prepare_publication(bundle, wishes or Wishes(), run=run, address=address)
    if message is not None:
        publication = replace(publication, message=message)
    size = sum(map(len, publication.files.values()))
    say(f"pushing {len(publication.files)} files, {size / 1e6:.1f} MB …")
    if to.is_folder:
        return _to_folder(publication, to, revision)
    return _to_hub(publication, to, revision, private=private, token=token)


def _to_folder(publication: Publication, to: _Target, branch: str | None) -> str:
    agent = to.name or publication.name
    hub = FolderHub.create(Path(to.place))
    pushed = hub.commit(
        agent, publication.files, message=publication.message, branch=branch or MAIN
    )
    return f"{FOLDER}{to.place}/{agent}@{pushed.number}"


def _to_hub(
    publication: Publication, to: _Target, branch: str | None, *, private: bool, token: str | None
) -> str:
    repo = f"{to.place}/{to.name or publication.name}"
    commit, is_new = remote.upload(
        repo,
        publication.files,
        message=publication.message,
        owned=OWNED_PATTERNS,
        branch=branch,
        private=private or None,
        token=token,
    )
    if not is_new:
        say("nothing has changed since the last push")
    say(f"{remote.endpoint()}/{repo}")
    return f"{repo}@{commit}"


def _bundle_of(agent: str | Path) -> tuple[Path, Path | None]:
    """Return the bundle, and the run folder if the agent is one."""
    found = locate(agent)
    return found.require_bundle(), found.path if found.kind == "run" else None


def _parse_target(text: str, name: str | None) -> _Target:
    if text.startswith(FOLDER):
        path = Path(text.removeprefix(FOLDER))
        if not str(path) or text == FOLDER:
            raise ConfigError(f"'{text}' names no folder. Type for example: folder:/srv/agents")
        if (path / MARKER).exists() or not any((p / MARKER).exists() for p in path.parents):
            return _Target(str(path), name, is_folder=True)
        hub, inside = find_folder_hub(path)  # DIR/NAME of an existing hub
        return _Target(str(hub.root), name or inside, is_folder=True)
    match = _TARGET.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"'{text}' is no place to push to. Allowed: ORG, ORG/NAME or folder:DIR, such as "
            "ORG/npg-Walker2d-v4; a branch goes to --revision."
        )
    return _Target(match[1], match[2] or name, is_folder=False)


if __name__ == "__main__":
    sys.exit(main())
