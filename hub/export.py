"""``python -m hub.export``: an agent as files that act without torch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from agents.errors import BundleError
from hub.atomic import write_bytes
from hub.bundle import Bundle
from hub.command_line import execute, make_parser, say
from hub.locate import locate
from hub.portable_agent import PortableAgent

__all__ = ["main"]

_EXAMPLES = """\
examples:
  python -m hub.export logs/npg/Walker2d-v4_1
  python -m hub.export npg-Walker2d-v4 -o robot --c
  python -m hub.export logs/sac/Hopper-v5_1 --value --stochastic

Files are named after the agent: NAME.onnx (float32), NAME.f64.onnx (float64, the same actions on
every machine to the last bit), NAME.value.onnx, NAME.stochastic.onnx and NAME.h. Their paths are
printed. docs/onnx.md says what goes in and what comes out.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return execute(_parser(), _run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "hub.export", "Write an agent as files that act without torch: ONNX and C.", _EXAMPLES
    )
    parser.add_argument(
        "agent", metavar="AGENT", help="run folder, bundle or name of a published agent"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="folder for the files, made if it is missing; default: the current one",
    )
    parser.add_argument(
        "--value", action="store_true", help="also a file with the output 'value' beside 'actions'"
    )
    parser.add_argument(
        "--stochastic",
        action="store_true",
        help="also a file with 'mean' and 'log_std', or 'logits', to sample actions from",
    )
    parser.add_argument("--c", action="store_true", help="also a C header without dependencies")
    return parser


def _run(args: argparse.Namespace) -> None:
    agent = PortableAgent.of_bundle(_open(args.agent))
    files, reasons = agent.onnx_files()
    contents = {name.replace("policy", agent.name): files[name] for name in files}
    if args.value:
        contents[f"{agent.name}.value.onnx"] = agent.onnx(outputs=("actions", "value"))
    if args.stochastic:
        contents[f"{agent.name}.stochastic.onnx"] = agent.onnx(outputs=("distribution",))
    if args.c:
        contents[f"{agent.name}.h"] = agent.c_header().encode()
    for name, reason in reasons.items():
        say(f"no {name.replace('policy', agent.name)}: {reason}")
    args.output.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_bytes(args.output / name, content)
        print(args.output / name)


def _open(agent: str) -> Bundle:
    found = locate(agent)
    if found.kind == "onnx":
        raise BundleError(
            f"{agent} is exported already; give the run folder or the bundle that it came from."
        )
    return Bundle.open(found.require_bundle())


if __name__ == "__main__":
    sys.exit(main())
