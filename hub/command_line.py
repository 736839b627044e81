"""What every command shares: one parser style, one-line errors and exit codes.

Exit codes: 0 done, 1 a known error in one line on standard error (a mistyped command line is
one), 2 usage (a required argument is missing), 130 interrupted by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from agents.errors import ConfigError, NaturalZooError, UnknownName

__all__ = ["add_gym_packages", "execute", "make_parser", "say"]


class _UsageError(ConfigError):
    """Something that a command cannot do without was not given."""


class _Parser(argparse.ArgumentParser):
    """Raises a known error where argparse would print its usage over many lines."""

    def error(self, message: str) -> NoReturn:
        # Nothing was given where argparse says so; all else is a wrong value, as a wrong name is.
        missing = message.startswith("the following arguments are required")
        kind = _UsageError if missing else ConfigError
        raise kind(f"{message}. `{self.prog} --help` explains every option.")


def make_parser(module: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """Return a parser in the style of all commands.

    :param module: what ``python -m`` is given, such as ``"zoo.train"``.
    :param description: what it does, in a sentence or two.
    :param epilog: examples, printed as they stand.
    """
    parser = _Parser(
        prog=f"python -m {module}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def add_gym_packages(parser: argparse._ActionsContainer) -> None:
    """Add the option that names modules which register environments."""
    parser.add_argument(
        "--gym-packages",
        nargs="+",
        default=[],
        metavar="MODULE",
        help="modules to import that register environments",
    )


def execute(
    parser: argparse.ArgumentParser,
    command: Callable[[argparse.Namespace], None],
    argv: Sequence[str] | None,
) -> int:
    """Parse ``argv``, run ``command`` and turn known errors into one line.

    :param parser: made by :func:`make_parser`.
    :param command: does the work; raises :class:`~agents.errors.NaturalZooError` for known errors.
    :param argv: arguments without the program name; None takes those of the process.
    :return: the exit code.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        args, unknown = parser.parse_known_args(arguments)
        if unknown:
            raise _unknown_argument(parser, unknown[0])
        with _terminable():
            command(args)
    except (NaturalZooError, OSError) as error:
        if "--debug" in arguments:
            raise
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, _UsageError) else 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        files = " -> ".join(str(name) for name in (error.filename, error.filename2) if name)
        return f"{files}: {error.strerror}." if files else f"{error.strerror}."
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM, as a scheduler sends it, end the block as Ctrl-C does: cleaning up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _unknown_argument(parser: argparse.ArgumentParser, argument: str) -> UnknownName:
    flags = [flag for flag in parser._option_string_actions if flag.startswith("--")]
    kind = "flag" if argument.startswith("-") else "argument"
    return UnknownName(kind, argument.split("=")[0], flags if kind == "flag" else ())


def say(message: str) -> None:
    """Print a line for the user; standard output is kept for the result."""
    print(message, file=sys.stderr)
