"""Agents that RL Zoo and ``huggingface_sb3`` have left in a folder or a repository.

Both layouts are found: that of a run, ``logs/ppo/Walker2d-v4_1/``, and that of a repository on the
Hub, ``ORG/ppo-Walker2d-v4``. Nothing is unpickled and no text is evaluated; what cannot be read
that way is refused unless the caller says ``trust_pickle=True``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm

from agents.errors import BundleError
from hub.front_matter import card_environment, read_front_matter
from hub.normalizer import Normalizer
from hub.rl_zoo_yaml import linear_schedule, normalize_settings, read_rl_zoo_yaml
from hub.sb3_archive import read_sb3_archive
from hub.sb3_model import build_sb3_model
from hub.trusted_pickle import load_trusting
from hub.vec_normalize_pickle import read_vec_normalize

__all__ = ["GuestAgent", "GuestFiles", "find_guest", "load_guest"]

_MAX_TEXT = 1_000_000
_NORMALIZERS = ("vecnormalize.pkl", "vec_normalize.pkl")
_CHECKPOINT = re.compile(r"rl_model_\d+_steps\.zip")
_NOT_AGENTS = ("train_eval_metrics.zip", "best_model.zip", "replay_buffer.zip")
_WRAPPERS = ("env_wrapper", "vec_env_wrapper", "frame_stack")
_NAMED = re.compile(r"([a-z][a-z0-9_]*)-(.+)\.zip")


@dataclass(frozen=True)
class GuestFiles:
    """Which files of a folder make up an agent; paths are relative to it, in POSIX form.

    :param archive: SB3's zip.
    :param normalizer: the pickled statistics, if there are any.
    :param config: RL Zoo's hyperparameters.
    :param args: RL Zoo's command line.
    :param env_kwargs: arguments of the environment.
    :param card: README.md.
    """

    archive: str
    normalizer: str | None = None
    config: str | None = None
    args: str | None = None
    env_kwargs: str | None = None
    card: str | None = None

    def all(self) -> list[str]:
        """Return the files that exist."""
        files = (getattr(self, name) for name in self.__dataclass_fields__)
        return [file for file in files if file]


@dataclass(frozen=True)
class GuestAgent:
    """An agent that was trained elsewhere, ready to act.

    :param model: SB3's, or sb3-contrib's.
    :param normalizer: its frozen statistics, None if it was trained without.
    :param algo: SB3's name of the algorithm in lower case.
    :param env_id: what it was trained on, None if nothing says it.
    :param notes: what whoever uses it should know, in sentences.
    """

    model: BaseAlgorithm
    normalizer: Normalizer | None
    algo: str
    env_id: str | None
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def find_guest(names: Iterable[str], which: str = "final") -> GuestFiles | None:
    """Return the files of an agent among all files of a folder, None if there is none.

    :param names: paths relative to the folder, in POSIX form; at most two levels count.
    :param which: ``"final"`` or ``"best"``.
    """
    paths = [PurePosixPath(name) for name in names]
    root = sorted(str(path) for path in paths if len(path.parts) == 1)
    below = {str(path): path for path in paths if len(path.parts) == 2}
    if which == "best":
        archives = [name for name in root if name == "best_model.zip"]
    else:
        archives = [
            name
            for name in root
            if name.endswith(".zip") and name not in _NOT_AGENTS and not _CHECKPOINT.fullmatch(name)
        ]
    if not archives:
        return None
    # In a run's folder the settings lie in a folder named after the environment.
    inside = {path.name: name for name, path in below.items()}

    def find(*candidates: str) -> str | None:
        return next(
            (n for c in candidates for n in (c, inside.get(c)) if n in {*root, *below}), None
        )

    return GuestFiles(
        archive=_best_named(archives, below.values()),
        normalizer=find(*_NORMALIZERS),
        config=find("config.yml"),
        args=find("args.yml"),
        env_kwargs=find("env_kwargs.yml"),
        card=find("README.md"),
    )


def _best_named(archives: list[str], below: Iterable[PurePosixPath]) -> str:
    """Return the archive that is named as the folder of its settings, else the first."""
    folders = {path.parts[0] for path in below}
    return next((a for a in archives if a.removesuffix(".zip") in folders), archives[0])


def load_guest(
    folder: Path, files: GuestFiles, *, trust_pickle: bool = False, device: str = "cpu"
) -> GuestAgent:
    """Load an agent that was trained elsewhere.

    :param folder: where ``files`` are.
    :param files: from :func:`find_guest`.
    :param trust_pickle: unpickle, which runs whatever the author has put in. Not needed for what
        RL Zoo and SB3 write by themselves.
    :param device: of torch.
    :raises BundleError: a file is damaged, or cannot be read without running code.
    """
    config = _settings(folder, files.config)
    args = _settings(folder, files.args)
    env_kwargs = _settings(folder, files.env_kwargs) or args.get("env_kwargs") or {}
    env_id = _env_id(folder, files, args)
    if trust_pickle:
        archive = folder / files.archive
        algo = _algorithm_by_name(files, args, folder)
        pickled = folder / files.normalizer if files.normalizer else None
        model, normalizer = load_trusting(archive, algo, pickled, device)
        notes: tuple[str, ...] = ()
    else:
        algo, model, notes = _load_safely(folder, files, config, device)
        normalizer = _normalizer(folder, files, config)
    if not isinstance(env_kwargs, dict):
        raise BundleError(f"{files.env_kwargs or files.args}: env_kwargs is no mapping.")
    return GuestAgent(
        model, normalizer, algo, env_id, dict(env_kwargs), (*notes, *_wrapper_notes(config))
    )


def _load_safely(
    folder: Path, files: GuestFiles, config: Mapping[str, Any], device: str
) -> tuple[str, BaseAlgorithm, tuple[str, ...]]:
    path = folder / files.archive
    archive = read_sb3_archive(path)
    instead, notes = {}, []
    for name in archive.unreadable:
        value = linear_schedule(config.get(name))
        if value is not None:
            instead[name] = value
        else:
            notes.append(
                f"{name} is a function of the author's; {archive.algo}'s default takes its place "
                "should training go on."
            )
    model = build_sb3_model(archive, str(path), instead=instead, device=device)
    return archive.algo, model, tuple(notes)


def _normalizer(folder: Path, files: GuestFiles, config: Mapping[str, Any]) -> Normalizer | None:
    settings = normalize_settings(config.get("normalize"), str(files.config))
    if files.normalizer is None:
        if settings is not None and settings.get("norm_obs", True):
            raise BundleError(
                f"{folder} says that the agent was trained on normalised observations and has no "
                f"{' or '.join(_NORMALIZERS)}: it cannot act as it was trained. Ask its author."
            )
        return None
    if files.config is not None and settings is None:
        return None  # RL Zoo ships the file also for an agent that does not use it
    path = folder / files.normalizer
    return read_vec_normalize(path.read_bytes(), str(path))


def _wrapper_notes(config: Mapping[str, Any]) -> list[str]:
    return [
        f"It was trained with {name}: {config[name]}; give it observations of the same kind."
        for name in _WRAPPERS
        if config.get(name)
    ]


def _settings(folder: Path, name: str | None) -> dict[str, Any]:
    if name is None:
        return {}
    text = _text(folder / name)
    return read_rl_zoo_yaml(text, str(folder / name)) if text.strip() else {}


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_TEXT:
            raise BundleError(f"{path} is too large for settings.")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} cannot be read: {error}.") from error


def _env_id(folder: Path, files: GuestFiles, args: Mapping[str, Any]) -> str | None:
    """Return the environment's id by what says it best."""
    if isinstance(args.get("env"), str):
        return str(args["env"])
    if files.card is not None:
        named = card_environment(read_front_matter(_text(folder / files.card)))
        if named is not None:
            return named
    if match := _NAMED.fullmatch(files.archive):
        return match[2]
    parts = PurePosixPath(files.config or "").parts
    return parts[0] if len(parts) == 2 else None


def _algorithm_by_name(files: GuestFiles, args: Mapping[str, Any], folder: Path) -> str:
    """Return the algorithm's name without looking into the archive."""
    candidates: list[Callable[[], Any]] = [
        lambda: args.get("algo"),
        lambda: match[1] if (match := _NAMED.fullmatch(files.archive)) else None,
        lambda: folder.resolve().parent.name,
    ]
    for candidate in candidates:
        if isinstance(name := candidate(), str):
            return name
    raise BundleError(f"Nothing in {folder} says which algorithm wrote {files.archive}.")
