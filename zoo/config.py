"""One run, completely described: what ``config.yml`` in a run folder holds.

:func:`resolve_config` decides everything once, before anything is built: defaults, the tuned
entry, overrides, the seed, the device. What comes out is plain data, so that writing it down and
reading it back gives an equal :class:`RunConfig`, and running it again gives the same run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_type_hints

import numpy as np
import torch
from stable_baselines3.common.utils import get_device

from agents.errors import ConfigError, UnknownName
from hub.seeding import check_seed
from zoo.hyperparameters import build_agent_kwargs, check_agent, resolve_hyperparameters
from zoo.plain_yaml import dump_yaml, load_yaml
from zoo.presets import parse_overrides
from zoo.typed_values import coerce

__all__ = ["RunConfig", "resolve_config"]

_N_EVALUATIONS = 20  # points of a learning curve
_MAX_CHOSEN_SEED = 2**31 - 2**17  # below check_seed's limit
_CPU_POLICIES = ("MlpPolicy", "MlpLstmPolicy")  # too small for a GPU to be faster
_COUNTS = (
    "n_timesteps",
    "n_envs",
    "n_threads",
    "env_threads",
    "eval_freq",
    "n_eval_episodes",
    "n_eval_envs",
    "save_freq",
    "log_interval",
)


@dataclass(frozen=True)
class RunConfig:
    """All that is needed to repeat a run.

    :param algo: registered name of the algorithm.
    :param env_id: Gymnasium's name of the task.
    :param seed: of everything random in the run.
    :param n_timesteps: how long to train.
    :param n_envs: training environments side by side.
    :param vec_env: their backend, such as ``"dummy"``; never ``"auto"`` in a run's record.
    :param n_threads: threads of torch; another number may round differently.
    :param env_threads: threads that step the environments; None leaves it to the backend.
    :param policy: name of the policy.
    :param normalize: all keywords of VecNormalize, or None for no normalisation.
    :param env_kwargs: keywords of the environment.
    :param agent: keywords of the algorithm's constructor as plain data: schedules are mappings,
        classes are names.
    :param eval_freq: timesteps between evaluations, over all environments; None for none.
    :param n_eval_episodes: episodes of one evaluation.
    :param n_eval_envs: environments of the evaluation.
    :param save_freq: timesteps between checkpoints, over all environments; None for none.
    :param log_interval: updates between two log lines; None leaves it to the algorithm.
    :param device: of torch, such as ``"cpu"``; never ``"auto"``.
    :param source: where the values come from.
    """

    algo: str
    env_id: str
    seed: int
    n_timesteps: int
    n_envs: int
    vec_env: str
    n_threads: int
    env_threads: int | None
    policy: str
    normalize: dict[str, Any] | None
    env_kwargs: dict[str, Any]
    agent: dict[str, Any]
    eval_freq: int | None
    n_eval_episodes: int
    n_eval_envs: int
    save_freq: int | None
    log_interval: int | None
    device: str
    source: str

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}: {value} is below 1; write {name}: 1 or more.")

    def to_yaml(self) -> str:
        """Return the whole configuration as YAML, in the order of the fields."""
        return dump_yaml(dataclasses.asdict(self))

    @classmethod
    def from_yaml(cls, text: str, where: str = "config.yml") -> RunConfig:
        """Read what :meth:`to_yaml` wrote.

        :param text: the YAML document.
        :param where: its name, for messages.
        :raises UnknownName: a key is not a field.
        :raises ConfigError: it is no YAML mapping, a field is missing or of another type.
        """
        values = load_yaml(text, where)
        if not isinstance(values, dict):
            raise ConfigError(f"{where}: a run's configuration is a mapping; write KEY: VALUE.")
        kinds = get_type_hints(cls)
        for key in values:
            if key not in kinds:
                raise UnknownName(f"key of {where}", key, kinds)
        for key in kinds:
            if key not in values:
                raise ConfigError(f"{where}: '{key}' is missing; add `{key}: …` as in a new run.")
        return cls(**{key: coerce(key, values[key], kind) for key, kind in kinds.items()})

    def agent_kwargs(self) -> dict[str, Any]:
        """Return what ``agent`` stands for: keywords with schedules and classes built.

        They do not hold ``policy``, ``env``, ``seed``, ``device``, ``verbose`` and
        ``tensorboard_log``, which the caller gives.
        """
        return build_agent_kwargs(check_agent(self.algo, self.policy, self.agent))


def resolve_config(
    algo: str,
    env_id: str,
    *,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    conf_file: str | Path | None = None,
    untuned: bool = False,
    n_timesteps: int | None = None,
    n_envs: int | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    seed: int | None = None,
    vec_env: str = "dummy",
    n_threads: int = 1,
    env_threads: int | None = None,
    eval_freq: int | Literal["auto"] | None = "auto",
    n_eval_episodes: int = 5,
    n_eval_envs: int = 10,
    save_freq: int | None = 100_000,
    log_interval: int | None = None,
    device: str = "auto",
) -> RunConfig:
    """Decide every setting of a run; what is not explained here is a field of :class:`RunConfig`.

    :param overrides: ``KEY=VALUE`` texts, or dotted keys with plain values.
    :param conf_file: a file of entries to read instead of ``hyperparams/<algo>.yml``.
    :param untuned: take the file's ``default`` entry alone.
    :param n_timesteps: instead of the entry's; so is ``n_envs``.
    :param env_kwargs: on top of the entry's.
    :param seed: None chooses one, which is recorded.
    :param vec_env: the backend, already resolved, or to be put in by ``dataclasses.replace``.
    :param eval_freq: ``auto`` is a twentieth of the training; None or below 1 for never, and so are
        ``save_freq`` and ``log_interval``.
    :param device: ``auto`` is the CPU for ``Mlp…`` policies, where it is faster than a GPU.
    :raises UnknownName: no such algorithm, entry, policy or key.
    :raises ConfigError: a value cannot be used.
    """
    changes = dict(overrides) if isinstance(overrides, Mapping) else parse_overrides(overrides)
    given = {"n_timesteps": n_timesteps, "n_envs": n_envs}
    changes |= {key: value for key, value in given.items() if value is not None}
    changes |= {f"env_kwargs.{key}": value for key, value in (env_kwargs or {}).items()}
    tuned = resolve_hyperparameters(
        algo, env_id, overrides=changes, conf_file=conf_file, untuned=untuned
    )
    return RunConfig(
        algo=algo,
        env_id=env_id,
        seed=_choose_seed() if seed is None else seed,
        vec_env=vec_env,
        n_threads=n_threads,
        env_threads=env_threads,
        eval_freq=_period(
            max(1, tuned.n_timesteps // _N_EVALUATIONS) if eval_freq == "auto" else eval_freq
        ),
        n_eval_episodes=n_eval_episodes,
        n_eval_envs=n_eval_envs,
        save_freq=_period(save_freq),
        log_interval=_period(log_interval),
        device=_device(device, tuned.policy),
        **dataclasses.asdict(tuned),
    )


def _choose_seed() -> int:
    return int(np.random.default_rng().integers(_MAX_CHOSEN_SEED))


def _period(value: int | None) -> int | None:
    """Return None for "never"; RL Zoo's flags say -1."""
    return None if value is None or value < 1 else value


def _device(name: str, policy: str) -> str:
    if name == "auto":
        return "cpu" if policy in _CPU_POLICIES else str(get_device("auto"))
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device: '{name}' is unknown; write auto, cpu or cuda.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device: '{name}' was asked for, but torch finds no CUDA; write cpu.")
    return str(device)
