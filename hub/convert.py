"""``python -m hub.convert``: a bundle with ONNX files from an agent of RL Zoo or SB3."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stable_baselines3.common.utils import check_for_correct_spaces

from agents.errors import ConfigError, ExportError
from hub.bundle import Bundle, save_bundle
from hub.command_line import add_gym_packages, execute, make_parser, say
from hub.fetch import fetch_agent
from hub.gym_env import check_env_package, import_package, make_gym_env
from hub.loading import open_guest
from hub.locate import hub_name

if TYPE_CHECKING:
    from hub.rl_zoo import GuestAgent

__all__ = ["convert", "main"]

_EXAMPLES = """\
examples:
  python -m hub.convert logs/ppo/Walker2d-v4_1 -o ppo-walker         # a run of RL Zoo
  python -m hub.convert sb3/ppo-CartPole-v1 -o ppo-cartpole          # of the Hub
  python -m hub.convert my_agent.zip --env Pendulum-v1 -o pendulum   # SB3's own archive

Nothing is unpickled. A file that cannot be read without running code in it is refused;
--trust-pickle runs it all the same, which is as safe as its author.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return execute(_parser(), _run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "hub.convert", "Make a bundle of an agent that RL Zoo or SB3 has written.", _EXAMPLES
    )
    parser.add_argument(
        "agent", metavar="AGENT", help="folder or .zip, or ORG/NAME[@REV] of the Hub"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="the bundle"
    )
    parser.add_argument("--env", metavar="ENV", help="its task, if its files do not say it")
    parser.add_argument("--best", action="store_true", help="best_model.zip of a run")
    parser.add_argument(
        "--trust-pickle", action="store_true", help="unpickle: run what its author has put in"
    )
    add_gym_packages(parser)
    return parser


def _run(args: argparse.Namespace) -> None:
    bundle = convert(
        args.agent,
        args.output,
        env_id=args.env,
        which="best" if args.best else "final",
        trust_pickle=args.trust_pickle,
        packages=args.gym_packages,
    )
    print(bundle.path)


def convert(
    agent: str | Path,
    output: Path,
    *,
    env_id: str | None = None,
    which: str = "final",
    trust_pickle: bool = False,
    packages: Sequence[str] = (),
    token: str | None = None,
) -> Bundle:
    """Write an agent that RL Zoo, ``huggingface_sb3`` or SB3 has written as a bundle.

    :param agent: its folder or ``.zip``, or ``"ORG/NAME[@REV]"`` of the Hub.
    :param output: where the bundle goes.
    :param env_id: its task, if its files do not say it.
    :param which: ``"final"`` or ``"best"`` of a run.
    :param trust_pickle: unpickle, which runs whatever its author has put in.
    :param packages: modules to import that register environments.
    :param token: of the Hub, instead of the one that is logged in.
    :raises BundleError: it is damaged, cannot be read safely, or holds what a bundle cannot.
    :raises ConfigError: nothing says which environment it acts in.
    """
    for module in packages:
        import_package(module)
    guest = open_guest(_path_of(agent, token), which=which, trust_pickle=trust_pickle)
    task = env_id or guest.env_id
    if task is None:
        raise ConfigError(
            f"Nothing in {agent} says which environment it acts in. Type: --env Walker2d-v4"
        )
    check_env_package(task, packages, str(agent))
    _set_environment(guest, task)
    bundle = save_bundle(
        output,
        guest.model,
        algo=guest.algo,
        env_id=task,
        env_kwargs=guest.env_kwargs,
        normalizer=guest.normalizer,
    )
    return _with_onnx(bundle)


def _path_of(agent: str | Path, token: str | None) -> Path:
    path = Path(agent)
    name = hub_name(agent)
    if name is None:
        if not path.exists():
            raise ConfigError(
                f"There is no '{agent}'. Give a folder or .zip, or ORG/NAME of the Hub."
            )
        return path
    fetched = fetch_agent(name, token=token)
    if fetched.kind == "bundle":
        raise ConfigError(f"{agent} is a bundle already. Type: python -m hub.pull {agent}")
    return fetched.path


def _set_environment(guest: GuestAgent, env_id: str) -> None:
    """Let SB3 wrap the task, which tells a bundle how images come from it."""
    model = guest.model
    venv = model._wrap_env(make_gym_env(env_id, guest.env_kwargs), verbose=0)
    try:
        check_for_correct_spaces(venv, model.observation_space, model.action_space)
    except ValueError as error:
        raise ConfigError(
            f"The agent does not fit {env_id}: {' '.join(str(error).split())}. Give its own task "
            "with --env."
        ) from error
    model.env = venv  # `set_env` would want as many as there were in training


def _with_onnx(bundle: Bundle) -> Bundle:
    from hub.portable_agent import PortableAgent  # onnx, only where it is needed

    try:
        files, reasons = PortableAgent.of_bundle(bundle).onnx_files()
    except ExportError as error:
        say(f"without ONNX files: {error}")
        return bundle
    for name, reason in reasons.items():
        say(f"left out: {name}: {reason}")
    return bundle.with_files(files)


if __name__ == "__main__":
    sys.exit(main())
