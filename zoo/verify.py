"""``python -m zoo.verify``: repeat the evaluation that an agent is published with."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

from agents.errors import ConfigError, NaturalZooError
from hub.bundle import Bundle
from hub.command_line import add_gym_packages
from hub.gym_env import import_package
from hub.locate import locate
from zoo.cli import execute, make_parser, say
from zoo.onnx_comparison import OnnxComparison
from zoo.progress_bar import progress_bar
from zoo.published_evaluation import read_published
from zoo.verification import Verification, verify

__all__ = ["main"]

_EXAMPLES = """\
examples:
  python -m zoo.verify logs/npg/Walker2d-v4_1
  python -m zoo.verify path/to/bundle --episodes 10

Checks that the bundle's files are whole, that its ONNX files are its weights, and plays the
episodes of evaluation.json again with policy.f64.onnx. With the publisher's versions of MuJoCo,
Gymnasium and NumPy on a machine of the same kind every return and length must come out to the last
bit; otherwise the mean within three standard errors. The last line says which. Exit code 1 if
anything is not what is published.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return execute(_parser(), _run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("verify", "Repeat the evaluation an agent is published with.", _EXAMPLES)
    parser.add_argument(
        "agent", metavar="AGENT", help="run folder, bundle or name of a published agent"
    )
    parser.add_argument(
        "--episodes", type=int, metavar="N", help="the first N episodes only (default: all)"
    )
    add_gym_packages(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("-P", "--no-progress", action="store_true", help="no progress bar")
    return parser


def _run(args: argparse.Namespace) -> None:
    if args.episodes is not None and args.episodes < 1:
        raise ConfigError(f"--episodes {args.episodes} must be at least 1; leave it out for all.")
    for module in args.gym_packages:
        import_package(module)
    try:
        bundle = _open(args.agent)
        found = _verify(bundle, args)
    except NaturalZooError as error:
        if args.json:
            print(json.dumps({"verified": False, "reason": str(error)}, indent=1))
        raise
    print(json.dumps(_report(bundle, found), indent=1) if args.json else _summary(bundle, found))


def _open(agent: str) -> Bundle:
    """Return the bundle of an agent, every digest checked."""
    return Bundle.open(locate(agent).require_bundle())


def _verify(bundle: Bundle, args: argparse.Namespace) -> Verification:
    n_published = len(read_published(bundle).evaluation.seeds)
    if args.no_progress:
        return verify(bundle, n_episodes=args.episodes)
    n_episodes = min(args.episodes or n_published, n_published)
    with progress_bar(n_episodes, "verifying", "episode") as bar:
        return verify(bundle, n_episodes=n_episodes, on_episode=bar.update)


def _report(bundle: Bundle, found: Verification) -> dict[str, Any]:
    return {
        "verified": True,
        "agent": str(bundle.path),
        "env_id": bundle.manifest.env_id,
        "equal": "bit for bit" if found.is_bit_equal else "within the spread",
        "n_episodes": len(found.repeated.seeds),
        "mean_return": found.repeated.mean_return,
        "std_return": found.repeated.std_return,
        "published_mean_return": found.published.mean_return,
        "played_with": found.played_with,
        "differences": list(found.differences),
        "onnx": None if found.onnx is None else dataclasses.asdict(found.onnx),
    }


def _summary(bundle: Bundle, found: Verification) -> str:
    if found.onnx is not None:
        say(_about_onnx(found.onnx))
    if found.differences:
        say(f"not as published: {'; '.join(found.differences)}")
    manifest, n = bundle.manifest, len(found.repeated.seeds)
    how = "bit for bit" if found.is_bit_equal else "within the spread, not bit for bit"
    published = "" if found.is_bit_equal else f" (published {found.published.mean_return:.2f})"
    return (
        f"verified {how}: {manifest.algorithm} {manifest.env_id}, {n} episode"
        f"{'s' if n > 1 else ''}, return {found.repeated.mean_return:.2f} ± "
        f"{found.repeated.std_return:.2f}{published}"
    )


def _about_onnx(onnx: OnnxComparison) -> str:
    graphs = "are those of the weights" if onnx.is_rebuilt else "act as the weights do"
    float32 = "" if onnx.float32_error is None else f"; float32 differs by {onnx.float32_error:.2g}"
    return f"ONNX files {graphs}{float32} on {onnx.n_observations} visited observations"


if __name__ == "__main__":
    sys.exit(main())
