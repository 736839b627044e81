"""``python -m hub.pull``: bring an agent of a hub to this machine."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from agents.errors import ConfigError, HubError
from hub.agent_name import FOLDER, parse_agent_name
from hub.bundle_format.bundle_folder import SOURCE, write_folder
from hub.command_line import execute, make_parser, say
from hub.fetch import Fetched, fetch_agent

__all__ = ["main", "pull"]

_EXAMPLES = """\
examples:
  python -m hub.pull ORG/npg-Walker2d-v4                 # into the cache; prints where it is
  python -m hub.pull ORG/npg-Walker2d-v4@v1 -o walker    # a tag, a branch or a commit
  python -m hub.pull folder:/srv/agents/npg-Walker2d-v4
  python -m hub.pull sb3/ppo-CartPole-v1                 # agents of RL Zoo, too

The commands that take an AGENT fetch it by themselves. What has been fetched works without
connection. HF_ENDPOINT names another server than huggingface.co.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return execute(_parser(), _run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("hub.pull", "Bring an agent of a hub to this machine.", _EXAMPLES)
    parser.add_argument(
        "agent", metavar="ORG/NAME[@REV]", help="of the Hub, or folder:DIR/NAME[@REV]"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="copy it there (default: only the cache)"
    )
    parser.add_argument(
        "--force", action="store_true", help="fetch it again, also if the cache has it"
    )
    return parser


def _run(args: argparse.Namespace) -> None:
    fetched = pull(args.agent, args.output, force=args.force)
    say(fetched.pinned)
    print(fetched.path)


def pull(
    agent: str, output: Path | None = None, *, force: bool = False, token: str | None = None
) -> Fetched:
    """Return an agent of a hub on this machine.

    :param agent: ``"ORG/NAME[@REV]"`` or ``"folder:DIR/NAME[@REV]"``.
    :param output: a folder to copy it to; ``.source.json`` in it says where it comes from. A folder
        that an earlier call has written is replaced.
    :param force: do not believe the cache.
    :param token: of the Hub, instead of the one that is logged in.
    :raises ConfigError: that is no such name, or ``output`` holds something else.
    :raises HubError: it cannot be had, with the reason.
    """
    name = parse_agent_name(agent)
    if name is None:
        raise ConfigError(
            f"'{agent}' names no agent of a hub. Allowed: ORG/NAME, ORG/NAME@REVISION and "
            f"{FOLDER}DIR/NAME, such as ORG/npg-Walker2d-v4."
        )
    fetched = fetch_agent(name, token=token, force=force)
    if output is None:
        return fetched
    _copy(fetched, output)
    return Fetched(fetched.kind, output, fetched.pinned)


def _copy(fetched: Fetched, output: Path) -> None:
    source = json.dumps({"agent": fetched.pinned}, indent=1).encode() + b"\n"
    if fetched.kind == "bundle":
        names = [path.name for path in fetched.path.iterdir() if path.is_file()]
        files = {name: (fetched.path / name).read_bytes() for name in names}
        write_folder(output, {**files, SOURCE: source})
        return
    if output.exists() and not (output / SOURCE).is_file() and any(output.iterdir()):
        raise ConfigError(
            f"'{output}' exists and was not written by hub.pull; it holds "
            f"'{next(output.iterdir()).name}'. Choose another folder."
        )
    output = output.absolute()
    temporary = output.with_name(f".{output.name}.{uuid.uuid4().hex}.tmp")
    try:
        shutil.copytree(fetched.path, temporary)
        (temporary / SOURCE).write_bytes(source)
        shutil.rmtree(output, ignore_errors=True)
        temporary.rename(output)
    except OSError as error:
        raise HubError(f"Cannot write to {output}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
