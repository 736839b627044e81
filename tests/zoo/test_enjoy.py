from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from zoo import enjoy


@pytest.fixture(autouse=True)
def headless(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux is headless")
def test_without_a_display_one_line_says_what_to_type(
    trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert enjoy.main([str(trained_run)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert f"python -m zoo.record {trained_run} -o replay.mp4" in captured.err
    assert "--no-render" in captured.err


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux is headless")
def test_a_mistyped_agent_is_named_before_a_missing_display(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert enjoy.main(["npg-Hoper-v4"]) == 1
    error = capsys.readouterr().err
    assert "npg-Hoper-v4" in error
    assert "Did you mean 'npg-Hopper-v4'" in error
    assert "display" not in error


def test_returns_are_those_of_the_final_evaluation(
    trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert enjoy.main([str(trained_run), "--no-render", "--episodes", "3"]) == 0
    evaluation = json.loads((trained_run / "evaluation.json").read_text())
    returns, lengths = evaluation["returns"][:3], evaluation["lengths"][:3]
    expected = [f"episode {i + 1}: return {returns[i]:.2f}, {lengths[i]} steps" for i in range(3)]
    expected.append(f"return {np.mean(returns):.2f} ± {np.std(returns):.2f} over 3 episodes")
    assert capsys.readouterr().out.splitlines() == expected


def test_stochastic_episodes_repeat_and_differ_from_deterministic_ones(
    trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = []
    for options in (["--stochastic"], ["--stochastic"], []):
        assert enjoy.main([str(trained_run), "--no-render", *options]) == 0
        lines.append(capsys.readouterr().out)
    assert lines[0] == lines[1] != lines[2]


@pytest.mark.parametrize("n_finished", [0, 2])
def test_ctrl_c_ends_politely_with_the_episodes_so_far(
    trained_run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    n_finished: int,
) -> None:
    play, played = enjoy.play_episode, []

    def interrupted(*args, **kwargs):
        if len(played) == n_finished:
            raise KeyboardInterrupt
        played.append(None)
        return play(*args, **kwargs)

    monkeypatch.setattr(enjoy, "play_episode", interrupted)
    assert enjoy.main([str(trained_run), "--no-render"]) == 130
    captured = capsys.readouterr()
    assert captured.err == "interrupted\n"
    lines = captured.out.splitlines()
    assert len(lines) == (3 if n_finished else 0)
    assert not lines or lines[-1].endswith("over 2 episodes")
