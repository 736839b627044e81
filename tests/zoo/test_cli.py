import os
import signal
import threading

import pytest

from agents.errors import ConfigError
from zoo.cli import COMMANDS, execute, main, make_parser


def parser():
    made = make_parser("train", "Does things.", "examples: none")
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


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command(capsys, name):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"usage: python -m zoo.{name}" in capsys.readouterr().out


def test_overview(capsys):
    assert main(["--help"]) == 0
    assert all(f"  {name} " in capsys.readouterr().out for name in ["train"])
    assert main([]) == 2


def test_unknown_command(capsys):
    assert main(["trian"]) == 1
    assert capsys.readouterr().err.startswith(
        "error: Unknown command 'trian'. Did you mean 'train'?"
    )


def test_a_missing_argument_is_a_matter_of_usage(capsys):
    assert main(["evaluate"]) == 2
    assert capsys.readouterr().err == (
        "error: the following arguments are required: AGENT. "
        "`python -m zoo.evaluate --help` explains every option.\n"
    )
