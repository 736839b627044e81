"""``python -m hub.run``: let an agent act in its environment, without torch."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agents.errors import BundleError, MissingDependency
from hub.command_line import add_gym_packages, execute, make_parser, say
from hub.runtime import OnnxPolicy
from hub.seeding import evaluation_seeds

if TYPE_CHECKING:
    import gymnasium as gym

    from hub.episodes import PlayedEpisode

__all__ = ["main"]

_EXAMPLES = """\
examples:
  python -m hub.run logs/npg/Walker2d-v4_1
  python -m hub.run logs/npg/Walker2d-v4_1 --f64 --episodes 100   # repeats evaluation.json
  python -m hub.run policy.onnx --render

Needs numpy, onnxruntime and gymnasium (with its extra 'mujoco' for MuJoCo's tasks), not torch.
Episode i of --seed S has the Gymnasium seed 2^31 + 1000000·S + i, as in zoo.evaluate.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return execute(_parser(), _run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("hub.run", "Let an agent act in its environment.", _EXAMPLES)
    parser.add_argument(
        "agent", metavar="AGENT", help="run folder, bundle, name of a published agent or .onnx file"
    )
    parser.add_argument("--episodes", type=int, default=1, metavar="N", help="default 1")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default 0")
    parser.add_argument("--render", action="store_true", help="show a window")
    parser.add_argument(
        "--f64",
        action="store_true",
        help="act with policy.f64.onnx, as the published evaluation did",
    )
    add_gym_packages(parser)
    parser.add_argument("--json", action="store_true", help="print every episode as JSON")
    return parser


def _run(args: argparse.Namespace) -> None:
    seeds = evaluation_seeds(args.seed, args.episodes)
    policy = OnnxPolicy(args.agent, float64=args.f64)
    env = _make_env(policy, args)
    try:
        episodes = _play(env, policy, seeds, render=args.render)
    finally:
        env.close()
    if args.json:
        print(json.dumps(_report(policy, seeds, episodes), indent=1))
    elif episodes:
        print(_summary(policy, episodes))


def _make_env(policy: OnnxPolicy, args: argparse.Namespace) -> gym.Env[Any, Any]:
    """Return the environment that the file names.

    :raises MissingDependency: Gymnasium is not installed.
    """
    if policy.env_id is None:
        raise BundleError(f"{policy.path} does not say which environment it acts in.")
    try:
        from hub.gym_env import check_env_package, import_package, make_gym_env
    except ImportError as error:
        raise MissingDependency(
            f"Running an agent in its environment needs Gymnasium ({error}). "
            "Type: pip install 'gymnasium[mujoco]'"
        ) from error
    for module in args.gym_packages:
        import_package(module)
    check_env_package(policy.env_id, args.gym_packages, str(policy.path))
    if not args.render:
        return make_gym_env(policy.env_id, policy.env_kwargs)
    from hub.rendering import make_drawn_env, require_display

    require_display(args.agent)
    return make_drawn_env(policy.env_id, policy.env_kwargs, "human")


def _play(
    env: gym.Env[Any, Any], policy: OnnxPolicy, seeds: Sequence[int], *, render: bool
) -> list[PlayedEpisode]:
    from hub.episodes import play_episode

    if not render:
        return [play_episode(env, policy, seed) for seed in seeds]
    from hub.rendering import drawing_errors
    from hub.window import Window, WindowClosed

    window, episodes = Window(env), []
    try:
        for seed in seeds:
            with drawing_errors():
                episodes.append(play_episode(env, policy, seed, on_frame=window))
    except WindowClosed:
        say("The window was closed.")
    return episodes


def _report(
    policy: OnnxPolicy, seeds: Sequence[int], episodes: Sequence[PlayedEpisode]
) -> dict[str, Any]:
    return {
        "agent": str(policy.path),
        "env_id": policy.env_id,
        "seeds": list(seeds[: len(episodes)]),
        "returns": [episode.episode_return for episode in episodes],
        "lengths": [episode.length for episode in episodes],
    }


def _summary(policy: OnnxPolicy, episodes: Sequence[PlayedEpisode]) -> str:
    returns = [episode.episode_return for episode in episodes]
    return (
        f"{policy.env_id} with {policy.path.name}: return {statistics.fmean(returns):.2f} ± "
        f"{statistics.pstdev(returns):.2f} over {len(returns)} episode"
        f"{'s' if len(returns) > 1 else ''}, mean length "
        f"{statistics.fmean(episode.length for episode in episodes):.1f}"
    )


if __name__ == "__main__":
    sys.exit(main())
