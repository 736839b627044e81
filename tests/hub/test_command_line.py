import os
import signal
import threading

import pytest

from agents.errors import ConfigError
from hub.command_line import execute, make_parser


def parser():
    made = make_parser("zoo.train", "Does things.", "examples: none")
    made.add_argument("--number", type=int)
    made.add_argument("--log-folder")
    return made


def run(command, argv=()):
    return execute(parser(), command, argv)


def fail_with(error):
    def command(_):
        raise error

    return command


def test_arguments_arrive():
    seen = []
    assert run(seen.append, ["--number", "3"]) == 0
    assert seen[0].number == 3


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConfigError("two\n  lines"), "two lines"),
        (OSError(28, "No space left on device"), "No space left on device."),
        (PermissionError(13, "Permission denied", "/a/b"), "/a/b: Permission denied."),
        (OSError(18, "Cross-device link", "/a", None, "/b"), "/a -> /b: Cross-device link."),
        (OSError("something"), "something"),
        (OSError(), "OSError"),
    ],
)
def test_known_errors_are_one_line(capsys, error, line):
    assert run(fail_with(error)) == 1
    assert capsys.readouterr().err == f"error: {line}\n"
    with pytest.raises(type(error)):
        run(fail_with(error), ["--debug"])


def test_unknown_errors_are_not_hidden():
    with pytest.raises(ZeroDivisionError):
        run(fail_with(ZeroDivisionError()))


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--numbr", "3"], "Unknown flag '--numbr'. Did you mean '--number'?"),
        (["--logfolder=x"], "Unknown flag '--logfolder'. Did you mean '--log-folder'?"),
        (["--number", "x"], "argument --number: invalid int value: 'x'. `python -m zoo.train"),
        (["--number"], "argument --number: expected one argument. `python -m zoo.train --help`"),
        (["--log"], "Unknown flag '--log'"),
    ],
)
def test_usage_errors_are_one_line(capsys, argv, line):
    assert run(lambda _: None, argv) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {line}")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption(capsys, number):
    handler = signal.getsignal(signal.SIGTERM)

    def command(_):
        os.kill(os.getpid(), number)
        raise AssertionError("went on")

    assert run(command) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert signal.getsignal(signal.SIGTERM) is handler


def test_other_threads_can_run_commands():
    codes = []
    thread = threading.Thread(target=lambda: codes.append(run(lambda _: None)))
    thread.start()
    thread.join()
    assert codes == [0]
