"""Every command by one name: ``natural-zoo train …`` is ``python -m zoo.train …``."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence

from agents.errors import UnknownName
from hub import command_line
from hub.command_line import execute, say

__all__ = ["COMMANDS", "execute", "main", "make_parser", "say", "step_count", "step_period"]

COMMANDS = {
    "train": ("zoo.train", "train an agent and evaluate it"),
    "evaluate": ("zoo.evaluate", "score a trained agent on Gymnasium"),
    "enjoy": ("zoo.enjoy", "watch a trained agent in a window"),
    "record": ("zoo.record", "save a video of a trained agent"),
    "plot": ("zoo.plot", "draw learning curves of one or many runs"),
    "verify": ("zoo.verify", "repeat the evaluation an agent is published with"),
    "run": ("hub.run", "let an agent act from its ONNX file, without torch"),
    "export": ("hub.export", "write an agent as ONNX files or a C header"),
    "push": ("hub.push", "publish an agent on the Hub or in a shared folder"),
    "pull": ("hub.pull", "fetch an agent from the Hub or a shared folder"),
    "list": ("hub.list", "list the agents of the Hub or a shared folder"),
    "convert": ("hub.convert", "make a bundle of an agent of SB3 or RL Zoo"),
    "tune": ("zoo.tune", "search hyperparameters and write a preset"),
    "benchmark": (
        "zoo.benchmark",
        "train a grid of algorithms, tasks, seeds; tables and pictures",
    ),
}
"""Module and summary of each command."""


def make_parser(command: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """Return the parser of ``python -m zoo.COMMAND``, see :func:`hub.command_line.make_parser`."""
    return command_line.make_parser(f"zoo.{command}", description, epilog)


def step_count(text: str) -> int:
    """Parse a number of steps above 0: ``1000000``, ``1_000_000`` or ``1e6``."""
    value = _whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1; type for example 1e6")
    return value


def step_period(text: str) -> int:
    """Parse a number of steps, 0 for never (-1 in RL Zoo)."""
    value = _whole(text)
    if value < -1:
        raise argparse.ArgumentTypeError(f"{text} is negative; 0 stands for never")
    return max(value, 0)


def _whole(text: str) -> int:
    try:
        value = float(text.replace("_", ""))
        if value == int(value):
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise argparse.ArgumentTypeError(f"'{text}' is not a whole number, such as 50000 or 1e6")


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``natural-zoo COMMAND …``; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: natural-zoo COMMAND [options]\n\ncommands:")
        for name, (_, summary) in COMMANDS.items():
            print(f"  {name:<10} {summary}")
        print("\n`natural-zoo COMMAND --help` explains a command.")
        return 0 if arguments else 2
    name = arguments[0]
    if name not in COMMANDS:
        print(f"error: {UnknownName('command', name, COMMANDS)}", file=sys.stderr)
        return 1
    try:
        module = importlib.import_module(COMMANDS[name][0])
    except ModuleNotFoundError as error:  # installed without what it needs, to act only
        print(
            f"error: natural-zoo {name} needs a package that is not installed: {error.name}. "
            "Type: pip install natural-zoo",
            file=sys.stderr,
        )
        return 1
    command_main: Callable[[Sequence[str]], int] = module.main
    return command_main(arguments[1:])
