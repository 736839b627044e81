"""``python -m zoo.enjoy``: watch a trained agent in a window, at the speed of the simulation."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from hub.gym_env import make_gym_env
from zoo.cli import execute, make_parser
from zoo.rendering import (
    drawing_errors,
    is_mujoco_env,
    make_drawn_env,
    play_episode,
    require_display,
    tracking_camera,
)
from zoo.seeding import evaluation_seeds
from zoo.trained import TrainedAgent, add_agent_arguments, load_trained

__all__ = ["main"]

_EXAMPLES = """\
examples:
  python -m zoo.enjoy logs/npg/Walker2d-v4_1
  python -m zoo.enjoy logs/npg/Walker2d-v4_1 --checkpoint best --episodes 1
  python -m zoo.enjoy logs/npg/Walker2d-v4_1 --no-render --episodes 20

Escape, closing the window or Ctrl-C ends it; the last line counts the episodes played to their end.
Without a display: python -m zoo.record AGENT -o replay.mp4
"""


_MJCAMERA_TRACKING = 1  # mujoco.mjtCamera.mjCAMERA_TRACKING


class _WindowClosed(Exception):
    """The user has seen enough."""


class _Window:
    """Keeps an environment's window at the speed of the simulation.

    :param env: draws by itself at every step.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self._env = env
        self._seconds_per_frame = 1.0 / float(env.metadata.get("render_fps") or 30)
        self._due: float | None = None

    def __call__(self) -> None:
        """Wait until the next frame is due.

        :raises _WindowClosed: the window has been closed.
        """
        if is_mujoco_env(self._env):
            viewer = self._env.get_wrapper_attr("mujoco_renderer").viewer
            if self._due is None:
                _set_up(viewer, self._env)
            if _is_closing(viewer):
                raise _WindowClosed
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return execute(_parser(), _run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("enjoy", "Watch a trained agent in a window.", _EXAMPLES)
    add_agent_arguments(parser, n_episodes=5)
    parser.add_argument(
        "--no-render", action="store_true", help="no window and no waiting, only the returns"
    )
    return parser


def _run(args: argparse.Namespace) -> None:
    seeds = evaluation_seeds(args.seed, args.episodes)
    if not args.no_render:
        require_display(args.agent)
    with drawing_errors():
        agent = load_trained(args.agent, args.checkpoint)
    torch.set_num_threads(agent.config.n_threads)
    torch.manual_seed(seeds[0])
    config = agent.config
    if args.no_render:
        env = make_gym_env(config.env_id, config.env_kwargs)
    else:
        env = make_drawn_env(config.env_id, config.env_kwargs, "human")
    returns: list[float] = []
    try:
        _play(agent, env, seeds, returns, window=not args.no_render, stochastic=args.stochastic)
    except _WindowClosed:
        print("The window was closed.", file=sys.stderr)
    finally:
        env.close()
        if returns:
            print(_summary(returns))


def _play(
    agent: TrainedAgent,
    env: gym.Env[Any, Any],
    seeds: Sequence[int],
    returns: list[float],
    *,
    window: bool,
    stochastic: bool,
) -> None:
    """Play the episodes, adding to ``returns`` so that an interrupted visit keeps its episodes."""
    actor = agent.actor(deterministic=not stochastic)
    on_frame: Callable[[], object] = _Window(env) if window else lambda: None
    for number, seed in enumerate(seeds, start=1):
        with drawing_errors():
            episode = play_episode(env, actor, seed, on_frame=on_frame)
        returns.append(episode.episode_return)
        print(
            f"episode {number}: return {episode.episode_return:.2f}, {episode.length} steps",
            flush=True,
        )


def _summary(returns: Sequence[float]) -> str:
    plural = "s" if len(returns) > 1 else ""
    return (
        f"return {np.mean(returns):.2f} ± {np.std(returns):.2f} over {len(returns)} episode{plural}"
    )


if __name__ == "__main__":
    sys.exit(main())
