"""Agents that RL Zoo and ``huggingface_sb3`` have left in a folder or a repository.

Both layouts are found: that of a run, ``logs/ppo/Walker2d-v4_1/``, and that of a repository on the
Hub, ``ORG/ppo-Walker2d-v4``. Nothing is unpickled and no text is evaluated; what cannot be read
that way is refused unless the caller says ``trust_pickle=True``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm

from agents.errors import BundleError
from hub.bundle_format.plain_data import check_env_kwargs
from hub.front_matter import card_environment, read_front_matter
from hub.guests.guest_files import NORMALIZERS, GuestFiles
from hub.guests.rl_zoo_yaml import linear_schedule, normalize_settings, read_rl_zoo_yaml
from hub.guests.sb3_archive import read_sb3_archive
from hub.guests.sb3_model import build_sb3_model
from hub.guests.trusted_pickle import load_trusting
from hub.guests.vec_normalize_pickle import read_vec_normalize
from hub.normalizer import Normalizer

__all__ = ["GuestAgent", "load_guest"]

_MAX_TEXT = 1_000_000
_WRAPPERS = ("env_wrapper", "vec_env_wrapper", "frame_stack")
_NAMED = re.compile(r"([a-z][a-z0-9_]*)-(.+)\.zip")


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


def load_guest(
    folder: Path,
    files: GuestFiles,
    *,
    trust_pickle: bool = False,
    n_envs: int | None = None,
    device: str = "cpu",
) -> GuestAgent:
    """Load an agent that was trained elsewhere.

    :param folder: where ``files`` are.
    :param files: from :func:`find_guest`.
    :param trust_pickle: unpickle, which runs whatever the author has put in. Not needed for what
        RL Zoo and SB3 write by themselves.
    :param n_envs: environments that it will be given; None for as many as it was trained in.
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
        model, normalizer = load_trusting(archive, algo, pickled, n_envs, device)
        notes: tuple[str, ...] = ()
    else:
        algo, model, notes = _load_safely(folder, files, config, n_envs, device)
        normalizer = _normalizer(folder, files, config)
    env_kwargs = check_env_kwargs(env_kwargs, f"{folder}: env_kwargs")
    return GuestAgent(
        model, normalizer, algo, env_id, env_kwargs, (*notes, *_wrapper_notes(config))
    )


def _load_safely(
    folder: Path, files: GuestFiles, config: Mapping[str, Any], n_envs: int | None, device: str
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
    model = build_sb3_model(archive, str(path), instead=instead, n_envs=n_envs, device=device)
    return archive.algo, model, tuple(notes)


def _normalizer(folder: Path, files: GuestFiles, config: Mapping[str, Any]) -> Normalizer | None:
    settings = normalize_settings(config.get("normalize"), str(files.config))
    if files.normalizer is None:
        if settings is not None and settings.get("norm_obs", True):
            raise BundleError(
                f"{folder} says that the agent was trained on normalised observations and has no "
                f"{' or '.join(NORMALIZERS)}: it cannot act as it was trained. Ask its author."
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
