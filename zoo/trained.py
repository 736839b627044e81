"""A trained agent of any kind, loaded by one string and ready to act."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stable_baselines3.common.policies import BasePolicy

from agents.errors import BundleError, ConfigError, ExportError
from hub.bundle import Bundle
from hub.command_line import add_gym_packages
from hub.gym_env import check_env_package, import_package
from hub.locate import locate
from hub.normalizer import Normalizer
from hub.onnx_export import build_policy_onnx, onnx_bytes
from hub.runtime import OnnxPolicy
from zoo.evaluation import Actor, one_by_one, policy_actor, stack_observations
from zoo.published_evaluation import FLOAT64
from zoo.run_agent import load_run_agent
from zoo.runs import RunFolder

__all__ = ["TrainedAgent", "add_agent_arguments", "exact_policy", "load_trained"]


@dataclass(frozen=True)
class TrainedAgent:
    """An agent as it was saved."""

    algo: str
    env_id: str
    env_kwargs: dict[str, Any]
    exact: OnnxPolicy | None
    """Its ONNX file, in float64 where there is a choice; None if it cannot be written as one."""
    policy: BasePolicy | None = None
    """None for an agent that is an ONNX file only."""
    normalizer: Normalizer | None = None
    """Scales what ``policy`` observes; None if it takes observations raw."""
    n_timesteps: int | None = None
    """Environment steps it had been trained for, if that is known."""
    training_seed: int | None = None
    n_threads: int = 1
    """Of torch."""

    def actor(self, *, deterministic: bool = True) -> Actor:
        """Return a function from a batch of raw observations to the actions to apply.

        Deterministic actions are those of the float64 ONNX file, which are the same on every
        machine whatever the batch; an agent that has none acts with torch, and so does a stochastic
        one.

        If the policy has a memory it begins with the first call and goes on from call to call:
        make another one for other episodes.

        :raises ConfigError: an ONNX file only has no distribution to sample from.
        """
        if deterministic and self.exact is not None:
            return one_by_one(self.exact)
        if self.policy is None:
            raise ConfigError(
                "A .onnx file gives the most likely action only. Leave --stochastic out, or give "
                "the agent's bundle or run folder."
            )
        return policy_actor(self.policy, self.normalizer, deterministic=deterministic)

    def single_actor(self, *, deterministic: bool = True) -> Callable[[Any], Any]:
        """Return a function from one raw observation to the action to apply.

        A policy with a memory needs a new one for every episode.
        """
        if deterministic and self.exact is not None:
            return self.exact
        actor = self.actor(deterministic=deterministic)
        return lambda observation: actor(stack_observations([observation]))[0]


def add_agent_arguments(parser: argparse.ArgumentParser, *, n_episodes: int) -> None:
    """Add what every command that plays an agent takes: AGENT, which of its files, which episodes.

    :param n_episodes: how many are played by default.
    """
    parser.add_argument(
        "agent",
        metavar="AGENT",
        help="run folder (such as logs/npg/Walker2d-v4_1), bundle, name of a published agent or "
        ".onnx file",
    )
    parser.add_argument(
        "--checkpoint",
        default="final",
        metavar="WHICH",
        help="of a run: final, best, last or a number of steps (default final)",
    )
    parser.add_argument(
        "--episodes", type=int, default=n_episodes, metavar="N", help=f"default {n_episodes}"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="of the episodes; default 0, the final evaluation's",
    )
    parser.add_argument(
        "--stochastic", action="store_true", help="sample actions instead of taking the mode"
    )
    add_gym_packages(parser)


def load_trained(
    agent: str | Path, which: str = "final", *, packages: Sequence[str] = ()
) -> TrainedAgent:
    """Load an agent by one string, without unpickling anything.

    :param agent: a run folder such as ``logs/npg/Walker2d-v4_1``, a bundle, the name of a published
        agent or a ``.onnx`` file, see :mod:`hub.locate`.
    :param which: agent of a run, see :func:`zoo.run_agent.load_run_agent`; others have one only.
    :param packages: modules to import that register environments.
    :raises NaturalZooError: there is no such agent, or its files are damaged or unsafe.
    """
    for module in packages:
        import_package(module)
    found = locate(agent)
    if found.kind == "run":
        return _load_run(found.path, which)
    if which != "final":
        raise ConfigError(
            f"--checkpoint {which} is for run folders, '{agent}' holds one agent. Leave it out."
        )
    if found.kind == "bundle":
        return _load_bundle(found.path)
    return _load_onnx(found.path, packages)


def _load_run(path: Path, which: str) -> TrainedAgent:
    loaded = load_run_agent(RunFolder.open(path), which)
    config = loaded.config
    return TrainedAgent(
        algo=config.algo,
        env_id=config.env_id,
        env_kwargs=config.env_kwargs,
        exact=exact_policy(loaded.policy, loaded.normalizer, loaded.transposed_images),
        policy=loaded.policy,
        normalizer=loaded.normalizer,
        n_timesteps=loaded.n_timesteps,
        training_seed=config.seed,
        n_threads=config.n_threads,
    )


def _load_bundle(path: Path) -> TrainedAgent:
    bundle = Bundle.open(path)
    manifest = bundle.manifest
    policy = bundle.load_policy(device="cpu")
    exact: OnnxPolicy | None
    if FLOAT64 in bundle.files:
        exact = OnnxPolicy(path, float64=True, check_range=False)
    else:
        exact = exact_policy(policy, bundle.normalizer, manifest.transposed_images)
    return TrainedAgent(
        algo=manifest.algorithm,
        env_id=manifest.env_id,
        env_kwargs=manifest.env_kwargs,
        exact=exact,
        policy=policy,
        normalizer=bundle.normalizer,
        n_timesteps=manifest.counters.get("num_timesteps"),
        training_seed=manifest.arguments.get("seed"),
    )


def _load_onnx(path: Path, packages: Sequence[str]) -> TrainedAgent:
    policy = OnnxPolicy(path, check_range=False)
    if policy.env_id is None:
        raise BundleError(f"{path} does not say which environment it acts in.")
    check_env_package(policy.env_id, packages, str(path))
    return TrainedAgent(
        algo=policy.metadata.get("algo", "an agent"),
        env_id=policy.env_id,
        env_kwargs=policy.env_kwargs,
        exact=policy,
    )


def exact_policy(
    policy: BasePolicy, normalizer: Normalizer | None, transposed_images: Collection[str]
) -> OnnxPolicy | None:
    """Return the float64 ONNX file that a policy would be published as, None if there is no way.

    :param transposed_images: ``"obs"`` or ``"obs.KEY"`` of images that the environment gives with
        their channels last.
    """
    try:
        model = build_policy_onnx(
            policy, normalizer, transposed_images=transposed_images, dtype="float64"
        )
    except ExportError:
        return None
    return OnnxPolicy.from_bytes(onnx_bytes(model), name=FLOAT64, check_range=False)
