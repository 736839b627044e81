"""Drawing an agent's episodes, also on a machine without a display.

MuJoCo draws through one of three libraries, named by the environment variable ``MUJOCO_GL``:
``glfw`` needs a display, ``egl`` uses a graphics card or Mesa's software renderer, ``osmesa`` is
software only. :func:`prepare_rendering` chooses one that works here; a choice already made in
``MUJOCO_GL`` is kept. See ``docs/rendering.md``.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np

from agents.errors import ConfigError, DisplayError, MissingDependency, NaturalZooError
from hub.gym_env import make_gym_env

__all__ = [
    "RENDER_PACKAGES",
    "drawing_errors",
    "has_display",
    "is_mujoco_env",
    "make_drawn_env",
    "prepare_rendering",
    "rendering_backend",
    "require_display",
    "tracking_camera",
]

BACKENDS = ("egl", "osmesa", "glfw")
RENDER_PACKAGES = {"egl": "libegl1 libgl1", "osmesa": "libosmesa6"}
"""Debian packages that each headless backend needs, measured on a bare Debian 12."""

# One of each group must be loadable: EGL makes the context, libGL or libOpenGL draws in it.
_LIBRARIES = {
    "egl": (("libEGL.so.1", "EGL"), ("libGL.so.1", "GL", "libOpenGL.so.0")),
    "osmesa": (("libOSMesa.so.8", "OSMesa"),),
}
# Where Gymnasium's own view shows little: it looks at Pusher from far behind the arm, which hides
# the object.
_VIEWS: dict[str, dict[str, Any]] = {
    "Pusher": {
        "distance": 2.0,
        "azimuth": 150.0,
        "elevation": -35.0,
        "lookat": np.array([0.35, -0.2, -0.2]),
    },
}
_GL_MODULES = (
    "OpenGL",
    "glfw",
    "gymnasium.envs.mujoco.mujoco_rendering",
    "mujoco.egl",
    "mujoco.gl_context",
    "mujoco.glfw",
    "mujoco.osmesa",
    "mujoco.rendering",
)


def has_display() -> bool:
    """Return whether windows can be expected to open; only Linux tells."""
    if sys.platform != "linux":
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def require_display(agent: str = "AGENT") -> None:
    """Check that a window can be opened.

    :param agent: what was to be watched, for the advice.
    :raises DisplayError: there is no display, or it does not answer.
    """
    advice = f"Type: python -m zoo.record {agent} -o replay.mp4, or add --no-render."
    if not has_display():
        raise DisplayError(
            "There is no display to open a window on (DISPLAY and WAYLAND_DISPLAY are not set). "
            + advice
        )
    import glfw  # loads its library: only for windows

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of what is raised here
        if not glfw.init():
            display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY", "")
            raise DisplayError(f"No window can be opened on the display '{display}'. {advice}")


def rendering_backend() -> str:
    """Return what MuJoCo is to draw with: ``"egl"``, ``"osmesa"`` or ``"glfw"``.

    :raises ConfigError: ``MUJOCO_GL`` names something else.
    :raises DisplayError: ``MUJOCO_GL`` is ``glfw`` and there is no display.
    :raises MissingDependency: no library is installed that draws without a display.
    """
    given = os.environ.get("MUJOCO_GL", "")
    if given and given not in BACKENDS:
        raise ConfigError(
            f"MUJOCO_GL={given} cannot draw. Allowed: {', '.join(BACKENDS)}. "
            "Type: unset MUJOCO_GL, and one that works is chosen."
        )
    if given == "glfw" and not has_display():
        raise DisplayError(
            "MUJOCO_GL=glfw needs a display and there is none. "
            "Type: unset MUJOCO_GL, and one that draws without a display is chosen."
        )
    if given:
        return given
    if has_display():
        return "glfw"
    for backend, groups in _LIBRARIES.items():
        if all(any(map(_is_loadable, names)) for names in groups):
            return backend
    raise MissingDependency(
        "Drawing without a display needs EGL or OSMesa, and neither is installed. " + _advice()
    )


def prepare_rendering() -> None:
    """Tell MuJoCo what to draw with; to be called before anything imports ``mujoco``.

    Where nothing is found that can draw this does not complain, since an environment without MuJoCo
    may draw all the same: :func:`make_drawn_env` does.

    :raises ConfigError: ``MUJOCO_GL`` names nothing that can draw.
    """
    if not os.environ.get("MUJOCO_GL"):
        os.environ.pop("MUJOCO_GL", None)  # empty: Gymnasium takes it for a name
    try:
        backend = rendering_backend()
    except (DisplayError, MissingDependency):
        return
    if backend != "glfw":  # with a display Gymnasium tries all three
        os.environ["MUJOCO_GL"] = backend


def make_drawn_env(
    env_id: str, env_kwargs: Mapping[str, Any], render_mode: str
) -> gym.Env[Any, Any]:
    """Return an environment that draws.

    :param env_id: Gymnasium id.
    :param env_kwargs: arguments of its constructor.
    :param render_mode: ``"rgb_array"`` or ``"human"``.
    :raises ConfigError: the environment has no such mode.
    :raises MissingDependency: no context to draw in can be made.
    """
    with drawing_errors():
        env = make_gym_env(env_id, env_kwargs, render_mode)
    modes = env.metadata.get("render_modes", [])
    if render_mode not in modes:
        env.close()
        raise ConfigError(
            f"{env_id} cannot draw as {render_mode}, only as {', '.join(modes) or 'nothing'}. "
            "Type: python -m zoo.evaluate AGENT, to play it without drawing."
        )
    if is_mujoco_env(env) and "default_camera_config" not in env_kwargs:
        _improve_view(env)
    if render_mode == "rgb_array" and is_mujoco_env(env):
        _check_context(rendering_backend())
        renderer = env.get_wrapper_attr("mujoco_renderer")
        camera = tracking_camera(env)
        if camera is not None and renderer.camera_id == -1:
            renderer.camera_id = camera
    return env


def is_mujoco_env(env: gym.Env[Any, Any]) -> bool:
    """Return whether the environment draws with MuJoCo."""
    return hasattr(env.unwrapped, "mujoco_renderer")


def tracking_camera(env: gym.Env[Any, Any]) -> int | None:
    """Return the number of the camera that follows the agent, if its model has one.

    Gymnasium 1.4 no longer takes it by default: a walker leaves the picture after two seconds.
    """
    model = env.get_wrapper_attr("model")
    names = [model.camera(number).name for number in range(model.ncam)]
    return names.index("track") if "track" in names else None


@contextmanager
def drawing_errors() -> Iterator[None]:
    """Turn whatever the graphics libraries raise into one line of advice.

    :raises MissingDependency: a package or a system library is missing or does not work.
    """
    try:
        yield
    except gym.error.DependencyNotInstalled as error:
        raise MissingDependency(f"Drawing needs a package: {_first_line(error)}") from error
    except Exception as error:
        if not _raised_by_graphics(error):
            raise
        raise _cannot_draw(error) from error


def _improve_view(env: gym.Env[Any, Any]) -> None:
    """Show more of the task than Gymnasium's own view does, where one is known that does."""
    view = _VIEWS.get(env.spec.name if env.spec else "")
    if view is not None:
        renderer = env.get_wrapper_attr("mujoco_renderer")
        renderer.default_cam_config = {**(renderer.default_cam_config or {}), **view}


def _is_loadable(library: str) -> bool:
    name = library if ".so" in library else ctypes.util.find_library(library)
    if name is None:
        return False
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _check_context(backend: str) -> None:
    """Make a small context first: Gymnasium's viewer prints tracebacks when it cannot."""
    if backend == "glfw":
        return
    try:
        context = importlib.import_module(f"mujoco.{backend}").GLContext(16, 16)
        context.make_current()
        context.free()
    except Exception as error:  # PyOpenGL without its library raises AttributeError and others
        raise _cannot_draw(error) from error


def _raised_by_graphics(error: BaseException | None) -> bool:
    """Return whether ``error``, or what caused it, passed through a graphics module."""
    while error is not None:
        trace = error.__traceback__
        while trace is not None:
            module = trace.tb_frame.f_globals.get("__name__", "")
            if any(module == name or module.startswith(f"{name}.") for name in _GL_MODULES):
                return True
            trace = trace.tb_next
        error = error.__cause__ or error.__context__
    return False


def _cannot_draw(error: BaseException) -> NaturalZooError:
    if isinstance(error, NaturalZooError) and error.__cause__ is not None:
        error = error.__cause__
    backend = os.environ.get("MUJOCO_GL", "glfw")
    return MissingDependency(
        f"MuJoCo cannot draw with MUJOCO_GL={backend}: {_first_line(error)} {_advice(backend)}"
    )


def _advice(failed: str = "") -> str:
    installs = [
        f"apt-get install {packages} ({'OSMesa' if name == 'osmesa' else 'EGL'})"
        for name, packages in RENDER_PACKAGES.items()
    ]
    advice = f"On Debian or Ubuntu type: {' or '.join(installs)}"
    other = {"egl": "osmesa", "osmesa": "egl", "glfw": "egl"}.get(failed)
    return f"{advice}; or try MUJOCO_GL={other}." if other else f"{advice}."


def _first_line(error: BaseException) -> str:
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{text.rstrip('.')}."
