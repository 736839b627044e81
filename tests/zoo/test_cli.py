import sys

import pytest

from zoo.cli import COMMANDS, main


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command(capsys, name):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"usage: python -m {COMMANDS[name][0]}" in capsys.readouterr().out


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


def test_a_command_whose_packages_are_not_installed(capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "zoo.plot", raising=False)
    monkeypatch.setitem(sys.modules, "zoo.run_history", None)
    assert main(["plot"]) == 1
    assert capsys.readouterr().err == (
        "error: natural-zoo plot needs a package that is not installed: zoo.run_history. "
        "Type: pip install natural-zoo\n"
    )
