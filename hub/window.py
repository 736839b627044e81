"""A window in which an agent is watched at the speed of the simulation."""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym

from hub.rendering import is_mujoco_env, tracking_camera

__all__ = ["Window", "WindowClosed"]

_MJCAMERA_TRACKING = 1  # mujoco.mjtCamera.mjCAMERA_TRACKING


class WindowClosed(Exception):
    """The user has seen enough."""


class Window:
    """Keeps an environment's window at the speed of the simulation.

    :param env: draws by itself at every step.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self._env = env
        self._seconds_per_frame = 1.0 / float(env.metadata.get("render_fps") or 30)
        self._due: float | None = None

    def __call__(self) -> None:
        """Wait until the next frame is due.

        :raises WindowClosed: the window has been closed.
        """
        if is_mujoco_env(self._env):
            viewer = self._env.get_wrapper_attr("mujoco_renderer").viewer
            if self._due is None:
                _set_up(viewer, self._env)
            if _is_closing(viewer):
                raise WindowClosed
        now = time.monotonic()
        # A frame that comes late moves all later ones, rather than letting them rush past.
        self._due = max(now, (self._due or now) + self._seconds_per_frame)
        time.sleep(self._due - now)


def _set_up(viewer: Any, env: gym.Env[Any, Any]) -> None:
    """Correct Gymnasium's window for MuJoCo: its speed, menu, camera and end."""
    import glfw  # loads its library: only for windows

    # The screen's own rhythm would slow a task of 125 frames per second to 60.
    glfw.swap_interval(0)
    viewer._hide_menu = True  # it covers the agent; H shows it
    camera = tracking_camera(env)
    if camera is not None:
        # Following the same body as that camera, but the mouse can still turn it.
        viewer.cam.type = _MJCAMERA_TRACKING
        viewer.cam.trackbodyid = env.get_wrapper_attr("model").cam_bodyid[camera]

    # Gymnasium destroys the window while it is drawing to it, which ends in a segmentation fault.
    def on_close(window: Any) -> None:
        viewer._paused = False  # out of the loop that waits for the space bar

    def on_key(window: Any, key: int, scancode: int, action: int, mods: int) -> None:
        if key == glfw.KEY_ESCAPE:
            glfw.set_window_should_close(window, True)
            on_close(window)
        else:
            viewer._key_callback(window, key, scancode, action, mods)

    glfw.set_window_close_callback(viewer.window, on_close)
    glfw.set_key_callback(viewer.window, on_key)


def _is_closing(viewer: Any) -> bool:
    import glfw

    return bool(glfw.window_should_close(viewer.window))
