"""Scoring an agent on Gymnasium: whole episodes, known seeds, frozen statistics."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from stable_baselines3.common.policies import BasePolicy

from agents.errors import EnvironmentFault
from hub.gym_env import make_gym_env
from hub.normalizer import Normalizer
from hub.versions import installed_versions
from zoo.provenance import machine

__all__ = [
    "Actor",
    "Evaluation",
    "attend",
    "evaluate",
    "evaluation_report",
    "one_by_one",
    "policy_actor",
    "report_json",
    "stack_observations",
]

Actor = Callable[[Any], npt.NDArray[Any]]
"""Maps a batch of raw observations to the batch of actions to apply."""


@dataclass(frozen=True)
class Evaluation:
    """The episodes of one evaluation, in the order of their seeds."""

    seeds: list[int]
    returns: list[float]
    lengths: list[int]

    @property
    def mean_return(self) -> float:
        """Mean of the episodes' returns."""
        return float(np.mean(self.returns))

    @property
    def std_return(self) -> float:
        """Standard deviation over episodes (of this agent, not over training seeds)."""
        return float(np.std(self.returns))


def policy_actor(
    policy: BasePolicy, normalizer: Normalizer | None, *, deterministic: bool
) -> Actor:
    """Return the actor made of a normaliser's frozen statistics and a policy.

    One whose policy has a memory is told by :func:`attend` where episodes begin.
    """
    return _PolicyActor(policy, normalizer, deterministic)


def attend(actor: Actor, envs: Sequence[int], episode_starts: Sequence[bool]) -> None:
    """Tell an actor with a memory what its next batch is of; one without need not know.

    :param envs: the environments of the batch, row by row. They were in the batch before, or
        begin an episode.
    :param episode_starts: whether a row is the first of its episode.
    """
    if isinstance(actor, _PolicyActor):
        actor.attend(envs, episode_starts)


class _PolicyActor:
    def __init__(
        self, policy: BasePolicy, normalizer: Normalizer | None, deterministic: bool
    ) -> None:
        self._policy = policy
        self._normalizer = normalizer
        self._deterministic = deterministic
        self._state: tuple[npt.NDArray[Any], ...] | None = None  # (layers, rows, width) each
        self._envs: list[int] = []
        self._starts: npt.NDArray[np.bool_] | None = None

    def attend(self, envs: Sequence[int], episode_starts: Sequence[bool]) -> None:
        if all(episode_starts):
            self._state = None
        if self._state is not None:
            rows = [self._envs.index(env) if env in self._envs else 0 for env in envs]
            self._state = tuple(part[:, rows] for part in self._state)
        self._envs, self._starts = list(envs), np.array(episode_starts)

    def __call__(self, observations: Any) -> npt.NDArray[Any]:
        if self._normalizer is not None:
            observations = self._normalizer(observations)
        actions, self._state = self._policy.predict(
            observations,
            state=self._state,
            episode_start=self._starts,
            deterministic=self._deterministic,
        )
        self._starts = None
        return actions


def one_by_one(act: Callable[[Any], Any]) -> Actor:
    """Return the actor that lets ``act`` see one observation at a time.

    A matrix product of several rows may round differently than that of one: what must be repeated
    to the last bit must not depend on how many environments are played side by side.
    """

    def act_on_batch(observations: Any) -> npt.NDArray[Any]:
        if isinstance(observations, dict):
            n_rows = len(next(iter(observations.values())))
            rows = [{key: part[i] for key, part in observations.items()} for i in range(n_rows)]
            return np.stack([act(row) for row in rows])
        return np.stack([act(row) for row in observations])

    return act_on_batch


def evaluate(
    actor: Actor,
    env_id: str,
    *,
    seeds: Sequence[int],
    n_envs: int = 10,
    env_kwargs: dict[str, Any] | None = None,
    on_episode: Callable[[], object] | None = None,
) -> Evaluation:
    """Play one episode per seed on Gymnasium's own environment.

    Environments are stepped together so that the actor sees batches; episode ``i`` is played in
    environment ``i mod n_envs``, whatever the others do.

    :param actor: acts on raw observations.
    :param env_id: Gymnasium id.
    :param seeds: one per episode, from :func:`hub.seeding.evaluation_seeds`.
    :param n_envs: environments side by side.
    :param env_kwargs: of the environment's constructor.
    :param on_episode: called after each episode.
    :return: returns (undiscounted sums of raw rewards) and lengths in the order of ``seeds``.
    """
    n_envs = min(n_envs, len(seeds))
    with ExitStack() as stack:
        envs = []
        for _ in range(n_envs):
            envs.append(make_gym_env(env_id, env_kwargs or {}))
            stack.callback(envs[-1].close)
        return _play(actor, envs, list(seeds), on_episode or (lambda: None))


def evaluation_report(evaluation: Evaluation, **about: Any) -> dict[str, Any]:
    """Return every episode as JSON values, with the versions and the machine that produced it.

    :param about: what was evaluated and how: algorithm, task, steps trained, deterministic or not.
    """
    return {
        **about,
        "mean_return": evaluation.mean_return,
        "std_return": evaluation.std_return,
        "seeds": evaluation.seeds,
        "returns": evaluation.returns,
        "lengths": evaluation.lengths,
        "versions": installed_versions("onnxruntime"),
        "machine": machine(),
    }


def report_json(report: Mapping[str, Any]) -> str:
    """Return :func:`evaluation_report` as text: the content of ``evaluation.json``."""
    return json.dumps(report, indent=1) + "\n"


def _play(
    actor: Actor,
    envs: Sequence[gym.Env[Any, Any]],
    seeds: list[int],
    on_episode: Callable[[], object],
) -> Evaluation:
    returns, lengths = [0.0] * len(seeds), [0] * len(seeds)
    playing = dict(enumerate(range(len(envs))))  # environment -> episode
    observations = {i: env.reset(seed=seeds[i])[0] for i, env in enumerate(envs)}
    while playing:
        order = list(playing)
        attend(actor, order, [lengths[playing[i]] == 0 for i in order])
        actions = actor(stack_observations([observations[i] for i in order]))
        for i, action in zip(order, actions, strict=True):
            episode = playing[i]
            observations[i], reward, terminated, truncated, _ = envs[i].step(action)
            returns[episode] += float(reward)
            lengths[episode] += 1
            if not (math.isfinite(reward) and _is_finite(observations[i])):
                raise EnvironmentFault(
                    f"The environment returned {reward} as reward and {observations[i]} as "
                    f"observation at step {lengths[episode]} of the evaluation episode with seed "
                    f"{seeds[episode]}; both must be finite."
                )
            if terminated or truncated:
                on_episode()
                if episode + len(envs) < len(seeds):
                    playing[i] = episode + len(envs)
                    observations[i], _ = envs[i].reset(seed=seeds[playing[i]])
                else:
                    del playing[i]
    return Evaluation(seeds, returns, lengths)


def _is_finite(observation: Any) -> bool:
    parts = observation.values() if isinstance(observation, dict) else [observation]
    return all(np.isfinite(part).all() for part in parts if np.asarray(part).dtype.kind == "f")


def stack_observations(observations: Sequence[Any]) -> Any:
    """Return a batch of observations, by key for a Dict space."""
    if isinstance(observations[0], dict):
        return {key: np.stack([o[key] for o in observations]) for key in observations[0]}
    return np.stack(observations)
