from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import pytest

from agents.errors import ConfigError, DisplayError, MissingDependency
from hub import rendering
from hub.gym_env import make_gym_env

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux is headless")


@pytest.fixture(autouse=True)
def headless(monkeypatch: pytest.MonkeyPatch) -> None:
    """No display and no choice made, whatever the machine has; undone afterwards."""
    for name in ("MUJOCO_GL", "PYOPENGL_PLATFORM", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def have(monkeypatch: pytest.MonkeyPatch, *libraries: str) -> None:
    monkeypatch.setattr(rendering, "_is_loadable", lambda name: name in libraries)


@linux_only
@pytest.mark.parametrize(
    ("libraries", "backend"),
    [
        (("libEGL.so.1", "libGL.so.1", "libOSMesa.so.8"), "egl"),
        (("libEGL.so.1", "libOpenGL.so.0"), "egl"),
        (("libOSMesa.so.8",), "osmesa"),
        (("libEGL.so.1", "libOSMesa.so.8"), "osmesa"),  # EGL has nothing to draw with
    ],
)
def test_without_a_display_the_first_usable_library_is_chosen(
    monkeypatch: pytest.MonkeyPatch, libraries: tuple[str, ...], backend: str
) -> None:
    have(monkeypatch, *libraries)
    assert rendering.rendering_backend() == backend
    rendering.prepare_rendering()
    assert rendering.os.environ["MUJOCO_GL"] == backend


@linux_only
@pytest.mark.parametrize("libraries", [(), ("libEGL.so.1",), ("libGL.so.1",)])
def test_no_usable_library_names_the_debian_packages(
    monkeypatch: pytest.MonkeyPatch, libraries: tuple[str, ...]
) -> None:
    have(monkeypatch, *libraries)
    with pytest.raises(MissingDependency) as caught:
        rendering.rendering_backend()
    assert "apt-get install libegl1 libgl1 (EGL)" in str(caught.value)
    assert "apt-get install libosmesa6 (OSMesa)" in str(caught.value)
    rendering.prepare_rendering()  # says nothing: a task without MuJoCo may draw all the same
    assert "MUJOCO_GL" not in rendering.os.environ


def test_a_choice_already_made_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, "libEGL.so.1", "libGL.so.1")
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    rendering.prepare_rendering()
    assert rendering.os.environ["MUJOCO_GL"] == "osmesa"


@linux_only
def test_with_a_display_the_choice_is_gymnasiums(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("MUJOCO_GL", "")  # Gymnasium would look for a backend named ''
    assert rendering.rendering_backend() == "glfw"
    rendering.prepare_rendering()
    assert "MUJOCO_GL" not in rendering.os.environ


def test_an_unknown_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "vulkan")
    with pytest.raises(ConfigError, match=r"MUJOCO_GL=vulkan cannot draw\. Allowed: egl, osmesa"):
        rendering.prepare_rendering()


@linux_only
def test_glfw_without_a_display_says_to_unset_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    with pytest.raises(DisplayError, match="unset MUJOCO_GL"):
        rendering.rendering_backend()


@linux_only
@pytest.mark.parametrize("display", [None, ":7777"])
def test_a_window_without_a_display_points_to_recording(
    monkeypatch: pytest.MonkeyPatch, display: str | None
) -> None:
    if display:
        monkeypatch.setenv("DISPLAY", display)
    with pytest.raises(DisplayError) as caught:
        rendering.require_display("logs/npg/Ant-v4_1")
    assert "python -m zoo.record logs/npg/Ant-v4_1 -o replay.mp4" in str(caught.value)
    assert (display or "not set") in str(caught.value)


def test_only_errors_of_graphics_modules_are_translated() -> None:
    def raise_in(module: str, error: Exception) -> None:
        exec("raise error", {"__name__": module, "error": error})

    for module in ("mujoco.egl", "OpenGL.raw.GL", "gymnasium.envs.mujoco.mujoco_rendering"):
        for error in (ImportError("Cannot initialize a EGL device"), AttributeError("glGetError")):
            with (
                pytest.raises(MissingDependency, match=f"{error}.*apt-get install"),
                rendering.drawing_errors(),
            ):
                raise_in(module, error)
    with pytest.raises(RuntimeError, match="unrelated"), rendering.drawing_errors():
        raise_in("mujocolike", RuntimeError("unrelated"))


DRAW = """
import sys, warnings
from hub.rendering import make_drawn_env, prepare_rendering
prepare_rendering()
env = make_drawn_env("Walker2d-v4", {}, "rgb_array")
env.reset(seed=0)
frames = []
for step in range(301):
    if step in (0, 300):
        env.unwrapped.data.qpos[0] = step / 10.0  # thirty metres on
        import mujoco
        mujoco.mj_forward(env.unwrapped.model, env.unwrapped.data)
        frames.append(env.render())
brown = [((f[..., 0].astype(int) - f[..., 2]) > 40).sum() for f in frames]
print(*frames[0].shape, int(frames[0].mean()), *brown)
env.close()
"""


@linux_only
@pytest.mark.render
@pytest.mark.parametrize("backend", ["egl", "osmesa"])
def test_the_camera_follows_the_agent(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    groups = rendering._LIBRARIES[backend]
    if not all(any(map(rendering._is_loadable, names)) for names in groups):
        pytest.skip(f"{backend} is not installed: {rendering.RENDER_PACKAGES[backend]}")
    monkeypatch.setenv("MUJOCO_GL", backend)
    # A process for each: PyOpenGL binds itself to the first library it meets.
    done = subprocess.run([sys.executable, "-c", DRAW], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    height, width, colours, mean, start, far = map(int, done.stdout.split())
    assert (height, width, colours) == (480, 480, 3)
    assert 40 < mean < 215
    assert start > 1000  # pixels of the walker's brown leg
    assert far > 1000


@pytest.mark.parametrize(
    ("env_kwargs", "distance"),
    [({}, 2.0), ({"default_camera_config": {"distance": 3.0}}, 3.0)],
    ids=["nearer", "as asked for"],
)
def test_pusher_is_seen_from_nearer_unless_told_otherwise(
    env_kwargs: dict[str, Any], distance: float
) -> None:
    env = rendering.make_drawn_env("Pusher-v5", env_kwargs, "human")  # no window before it draws
    assert env.get_wrapper_attr("mujoco_renderer").default_cam_config["distance"] == distance
    env.close()


@linux_only
def test_a_missing_library_is_one_line_also_when_mujoco_is_told_to_use_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_library(name: str) -> object:
        raise AttributeError("'NoneType' object has no attribute 'eglQueryString'")

    env = make_gym_env("InvertedPendulum-v4")
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr(rendering, "make_gym_env", lambda *_: env)
    monkeypatch.setattr(rendering.importlib, "import_module", no_library)
    with pytest.raises(MissingDependency, match=r"MUJOCO_GL=egl: .*eglQueryString.*libegl1"):
        rendering.make_drawn_env("InvertedPendulum-v4", {}, "rgb_array")
    env.close()


def test_an_environment_that_draws_nothing_is_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Gymnasium's own opinion of it
        with pytest.raises(ConfigError, match="InvertedPendulum-v4 cannot draw as ascii, only as"):
            rendering.make_drawn_env("InvertedPendulum-v4", {}, "ascii")
