"""``python -m zoo.record``: save a video of a trained agent."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import torch
from tqdm import tqdm

from agents.errors import ConfigError, MissingDependency
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

__all__ = ["main"]

SUFFIXES = (".mp4", ".gif")
MAX_GIF_FPS = 25
"""Viewers slow a faster GIF down."""
DEFAULT_FPS = 30
"""Of an environment that does not say."""
_EXAMPLES = """\
examples:
  python -m zoo.record logs/npg/Walker2d-v4_1 -o replay.mp4
  python -m zoo.record logs/npg/Walker2d-v4_1 -o replay.gif --max-steps 250 --size 320x240
  python -m zoo.record logs/npg/Walker2d-v4_1 -o best.mp4 --checkpoint best --episodes 3

The first episode of --seed 0 is the first one of the evaluation that ended the training. The video
runs at the speed of the simulation. No display is needed; docs/rendering.md says what is.
"""


class Writer(Protocol):
    """What imageio returns."""

    def append_data(self, im: Any) -> None:
        """Add a frame of shape ``(height, width, 3)``."""


@dataclass
class _Camera:
    """Writes the frames that fall due, so that the video keeps the speed of the simulation.

    :param env: draws them.
    :param writer: takes them.
    :param env_fps: frames a second that the environment could draw.
    :param fps: frames a second of the video, at most ``env_fps``.
    """

    env: gym.Env[Any, Any]
    writer: Writer
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
    parser.add_argument("-P", "--no-progress", action="store_true", help="no progress bar")
    return parser


def _run(args: argparse.Namespace) -> None:
    _check(args)
    seeds = evaluation_seeds(args.seed, args.episodes)
    size = _size(args.size)
    imageio = _imageio()
    prepare_rendering()
    with drawing_errors():
        agent = load_trained(args.agent, args.checkpoint, packages=args.gym_packages)
    torch.set_num_threads(agent.n_threads)
    torch.manual_seed(seeds[0])
    env = _make_env(agent, size)
    try:
        env_fps = int(env.metadata.get("render_fps") or DEFAULT_FPS)
        fps = _fps(args, env_fps)
        with _writer(imageio, args.output, fps) as writer, drawing_errors():
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
    with _temporary(args.output) as temporary:
        temporary.touch()


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
    return int(args.fps or highest)


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


def _imageio() -> Any:
    try:
        importlib.import_module("imageio_ffmpeg")
        return importlib.import_module("imageio.v2")
    except ImportError as error:
        raise MissingDependency(
            f"Recording needs imageio and imageio-ffmpeg ({error}). "
            "Type: pip install 'natural-zoo[record]'"
        ) from error


@contextmanager
def _writer(imageio: Any, path: Path, fps: int) -> Iterator[Writer]:
    """Open a video that appears under its name when it is complete."""
    if path.suffix.lower() == ".gif":
        options: dict[str, Any] = {"duration": 1000 / fps, "loop": 0}
    else:
        options = {
            "format": "FFMPEG",
            "fps": fps,
            "codec": "libx264",
            "quality": 7,
            "macro_block_size": 2,  # what yuv420p needs; the default of 16 would stretch frames
            "output_params": ["-movflags", "+faststart"],  # plays while it loads
            "ffmpeg_log_level": "error",
        }
    with _temporary(path) as temporary:
        with imageio.get_writer(temporary, mode="I", **options) as writer:
            yield writer
        temporary.replace(path)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Give a name beside ``path`` and leave nothing under it.

    :raises ConfigError: nothing can be written there.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix.lower()}")
    try:
        if path.is_dir():
            raise IsADirectoryError(None, "it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
    except OSError as error:
        reason = error.strerror or str(error).strip().splitlines()[-1]
        raise ConfigError(
            f"Cannot write {path}: {reason}. Free space or choose another file with -o."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


if __name__ == "__main__":
    sys.exit(main())
