"""``python -m zoo.record``: save a video of a trained agent."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from tqdm import tqdm

from agents.errors import ConfigError
from hub.episodes import PlayedEpisode, play_episode
from hub.rendering import (
    drawing_errors,
    is_mujoco_env,
    make_drawn_env,
    prepare_rendering,
)
from hub.seeding import evaluation_seeds
from zoo.cli import execute, make_parser
from zoo.trained import TrainedAgent, add_agent_arguments, load_trained
from zoo.video_file import (
    MAX_GIF_FPS,
    SUFFIXES,
    FrameWriter,
    check_imageio,
    check_writable,
    video_writer,
)

__all__ = ["main"]

DEFAULT_FPS = 30
"""Of an environment that does not say."""

PREVIEW_SECONDS = 8
PREVIEW_FPS = 20
PREVIEW_SIZE = "240x240"
PREVIEW_BIT_RATE = 240_000
"""Eight seconds of it are a quarter of a megabyte, which a page or a checkout can afford."""

_EXAMPLES = """\
examples:
  python -m zoo.record logs/npg/Walker2d-v4_1 -o replay.mp4
  python -m zoo.record logs/npg/Walker2d-v4_1 -o replay.gif --max-steps 250 --size 320x240
  python -m zoo.record logs/npg/Walker2d-v4_1 -o best.mp4 --checkpoint best --episodes 3
  python -m zoo.record npg-Hopper-v4 -o small.mp4 --preview    # 8 seconds, 250 KB

The first episode of --seed 0 is the first one of the evaluation that ended the training. The video
runs at the speed of the simulation. No display is needed; docs/rendering.md says what is.
"""


@dataclass
class _Camera:
    """Writes the frames that fall due, so that the video keeps the speed of the simulation.

    :param env: draws them.
    :param writer: takes them.
    :param env_fps: frames a second that the environment could draw.
    :param fps: frames a second of the video, at most ``env_fps``.
    """

    env: gym.Env[Any, Any]
    writer: FrameWriter
    env_fps: int
    fps: int
    n_seen: int = 0

    def __call__(self) -> None:
        n, self.n_seen = self.n_seen, self.n_seen + 1
        if n == 0 or n * self.fps // self.env_fps > (n - 1) * self.fps // self.env_fps:
            self.writer.append_data(np.asarray(self.env.render()))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return execute(_parser(), _run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("record", "Save a video of a trained agent.", _EXAMPLES)
    add_agent_arguments(parser, n_episodes=1)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help=".mp4 or .gif"
    )
    parser.add_argument(
        "--fps",
        type=int,
        metavar="N",
        help=f"frames per second (default: the environment's; GIF: at most {MAX_GIF_FPS})",
    )
    parser.add_argument(
        "--max-steps", type=int, metavar="N", help="stop each episode after N steps"
    )
    parser.add_argument(
        "--size", metavar="WxH", help="pixels (MuJoCo only; default: the environment's)"
    )
    parser.add_argument(
        "--preview",
        action="store_true",
        help=f"a small .mp4 of about 250 KB: at most {PREVIEW_SECONDS} seconds of each episode, "
        f"{PREVIEW_FPS} frames per second, {PREVIEW_SIZE} (MuJoCo); other flags have precedence",
    )
    parser.add_argument("-P", "--no-progress", action="store_true", help="no progress bar")
    return parser


def _run(args: argparse.Namespace) -> None:
    _check(args)
    seeds = evaluation_seeds(args.seed, args.episodes)
    size = _size(args.size)
    check_imageio()
    prepare_rendering()
    with drawing_errors():
        agent = load_trained(args.agent, args.checkpoint, packages=args.gym_packages)
    torch.set_num_threads(agent.n_threads)
    torch.manual_seed(seeds[0])
    env = _make_preview_env(agent) if args.preview and not size else _make_env(agent, size)
    try:
        env_fps = int(env.metadata.get("render_fps") or DEFAULT_FPS)
        fps = _fps(args, env_fps)
        if args.preview and args.max_steps is None:
            args.max_steps = PREVIEW_SECONDS * env_fps
        bit_rate = PREVIEW_BIT_RATE if args.preview else None
        with video_writer(args.output, fps, bit_rate) as writer, drawing_errors():
            camera = _Camera(env, writer, env_fps, fps)
            episodes = _play(args, agent, env, seeds, camera)
    finally:
        env.close()
    print(_summary(args.output, episodes))


def _check(args: argparse.Namespace) -> None:
    """Refuse before anything is loaded what cannot be written."""
    if args.output.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            f"Cannot record to '{args.output}'. Allowed: {', '.join(SUFFIXES)}. "
            f"Type: -o {args.output.with_suffix('.mp4') if args.output.name else 'replay.mp4'}"
        )
    for flag, number in (("--fps", args.fps), ("--max-steps", args.max_steps)):
        if number is not None and number < 1:
            raise ConfigError(f"{flag} {number} must be at least 1; leave it out for all.")
    if args.preview and args.output.suffix.lower() == ".gif":
        raise ConfigError(
            "--preview is for .mp4: a GIF of that length is ten times as large. "
            f"Type: -o {args.output.with_suffix('.mp4')}"
        )
    check_writable(args.output)


def _size(text: str | None) -> dict[str, int]:
    """Return the arguments of a MuJoCo environment that set the size of its frames."""
    if text is None:
        return {}
    match = re.fullmatch(r"(\d{1,4})[xX×](\d{1,4})", text)
    width, height = (int(match[1]), int(match[2])) if match else (0, 0)
    if min(width, height) < 16 or width % 2 or height % 2:
        raise ConfigError(
            f"--size {text} must be WIDTHxHEIGHT, two even numbers from 16 to 9998. "
            "Type: --size 640x480"
        )
    return {"width": width, "height": height}


def _fps(args: argparse.Namespace, env_fps: int) -> int:
    is_gif = args.output.suffix.lower() == ".gif"
    highest = min(env_fps, MAX_GIF_FPS) if is_gif else env_fps
    if args.fps is not None and args.fps > highest:
        raise ConfigError(
            f"--fps {args.fps} is too fast: this environment in {args.output.suffix} has 1 … "
            f"{highest} frames per second. Type: --fps {highest}"
        )
    usual = min(PREVIEW_FPS, highest) if args.preview else highest
    return int(args.fps or usual)


def _make_preview_env(agent: TrainedAgent) -> gym.Env[Any, Any]:
    """Return an environment that draws small frames, if its frames have no fixed size."""
    env = make_drawn_env(agent.env_id, agent.env_kwargs, "rgb_array")
    if not is_mujoco_env(env):
        return env
    env.close()
    return _make_env(agent, _size(PREVIEW_SIZE))


def _make_env(agent: TrainedAgent, size: dict[str, int]) -> gym.Env[Any, Any]:
    env = make_drawn_env(agent.env_id, agent.env_kwargs, "rgb_array")
    if not size:
        return env
    env.close()
    if not is_mujoco_env(env):
        raise ConfigError(f"{agent.env_id} draws in one size only; leave --size out.")
    return make_drawn_env(agent.env_id, {**agent.env_kwargs, **size}, "rgb_array")


def _play(
    args: argparse.Namespace,
    agent: TrainedAgent,
    env: gym.Env[Any, Any],
    seeds: Sequence[int],
    camera: _Camera,
) -> list[PlayedEpisode]:
    limits = [n for n in (args.max_steps, env.spec and env.spec.max_episode_steps) if n]
    with tqdm(
        total=len(seeds) * min(limits) if limits else None,
        desc="recording",
        unit="step",
        disable=args.no_progress,
        file=sys.stderr,
        dynamic_ncols=True,
    ) as bar:

        def on_frame() -> None:
            camera()
            bar.update()

        return [
            play_episode(
                env,
                agent.single_actor(deterministic=not args.stochastic),
                seed,
                max_steps=args.max_steps,
                on_frame=on_frame,
            )
            for seed in seeds
        ]


def _summary(path: Path, episodes: Sequence[PlayedEpisode]) -> str:
    returns = [episode.episode_return for episode in episodes]
    spread = f" ± {np.std(returns):.1f}" if len(returns) > 1 else ""
    cut = "" if all(episode.ended for episode in episodes) else " (cut by --max-steps)"
    return (
        f"{path}: {len(episodes)} episode{'s' if len(episodes) > 1 else ''}, "
        f"return {np.mean(returns):.1f}{spread}, "
        f"{sum(episode.length for episode in episodes)} steps{cut}"
    )


if __name__ == "__main__":
    sys.exit(main())
