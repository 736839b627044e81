from __future__ import annotations

import sys
import types

import pytest

from hub import window
from hub.gym_env import make_gym_env


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
    monkeypatch.setattr(window, "time", clock)
    wait = window.Window(Drawing())
    for _ in range(50):
        clock.now += 0.005  # of drawing
        wait()
    assert clock.now == pytest.approx(101.0, abs=0.006)
    clock.now += 3.0  # a stall
    wait()
    stalled = clock.now
    wait()
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
    window._set_up(viewer, env)
    env.close()
    assert (viewer.cam.type, viewer.cam.trackbodyid) == (1, 1)  # follows the torso
    handlers["key"]("w", 72, 0, 1, 0)
    assert passed_on == [("w", 72, 0, 1, 0)]
    assert not window._is_closing(viewer)
    handlers["key"]("w", 256, 0, 1, 0)
    assert asked == [("w", True)]
    assert viewer._paused is False
    assert len(passed_on) == 1  # Gymnasium would destroy the window it is drawing to
    assert window._is_closing(viewer)
