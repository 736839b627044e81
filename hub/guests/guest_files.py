"""Which files of a folder or repository make up an agent of RL Zoo or ``huggingface_sb3``.

Only names are looked at; :mod:`hub.rl_zoo` loads what they name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

__all__ = ["NORMALIZERS", "GuestFiles", "find_guest"]

NORMALIZERS = ("vecnormalize.pkl", "vec_normalize.pkl")
"""In a run's folder and on the Hub."""
_CHECKPOINT = re.compile(r"rl_model_\d+_steps\.zip")
_NOT_AGENTS = ("train_eval_metrics.zip", "best_model.zip", "replay_buffer.zip")


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
        normalizer=find(*NORMALIZERS),
        config=find("config.yml"),
        args=find("args.yml"),
        env_kwargs=find("env_kwargs.yml"),
        card=find("README.md"),
    )


def _best_named(archives: list[str], below: Iterable[PurePosixPath]) -> str:
    """Return the archive that is named as the folder of its settings, else the first."""
    folders = {path.parts[0] for path in below}
    return next((a for a in archives if a.removesuffix(".zip") in folders), archives[0])
