from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from hub.gym_env import make_gym_env
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


class Clock:
    """Time that passes by sleeping only."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Drawing:
    """An environment that shows itself, without MuJoCo."""

    metadata = types.MappingProxyType({"render_fps": 50})
    unwrapped = object()


def test_frames_keep_the_speed_of_the_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(enjoy, "time", clock)
    window = enjoy._Window(Drawing())
    for _ in range(50):
        clock.now += 0.005  # of drawing
        window()
    assert clock.now == pytest.approx(101.0, abs=0.006)
    clock.now += 3.0  # a stall
    window()
    stalled = clock.now
    window()
    assert clock.now == pytest.approx(stalled + 0.02)  # later frames do not rush


@pytest.mark.parametrize("paused", [False, True])
def test_escape_asks_the_window_to_close_and_other_keys_stay_gymnasiums(
    monkeypatch: pytest.MonkeyPatch, paused: bool
) -> None:
    asked, handlers, passed_on = [], {}, []
    glfw = types.SimpleNamespace(
        KEY_ESCAPE=256,
        swap_interval=lambda _: None,
        set_window_should_close=lambda window, value: asked.append((window, value)),
        set_key_callback=lambda window, act: handlers.update(key=act),
        set_window_close_callback=lambda window, act: handlers.update(close=act),
        window_should_close=lambda window: int(bool(asked)),
    )
    monkeypatch.setitem(sys.modules, "glfw", glfw)
    viewer = types.SimpleNamespace(
        window="w",
        cam=types.SimpleNamespace(type=0, trackbodyid=0),
        _paused=paused,
        _key_callback=lambda *args: passed_on.append(args),
    )
    env = make_gym_env("Walker2d-v4")
    enjoy._set_up(viewer, env)
    env.close()
    assert (viewer.cam.type, viewer.cam.trackbodyid) == (1, 1)  # follows the torso
    handlers["key"]("w", 72, 0, 1, 0)
    assert passed_on == [("w", 72, 0, 1, 0)]
    assert not enjoy._is_closing(viewer)
    handlers["key"]("w", 256, 0, 1, 0)
    assert asked == [("w", True)]
    assert viewer._paused is False
    assert len(passed_on) == 1  # Gymnasium would destroy the window it is drawing to
    assert enjoy._is_closing(viewer)
