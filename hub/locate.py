"""Finding an agent by one string, the same for every command.

AGENT is, in this order,

1. a ``.onnx`` file,
2. a bundle: a folder with ``agent.json``,
3. a run folder: its ``bundle/``,
4. the name of a published agent, such as ``npg-Walker2d-v4``: a bundle in ``pretrained/``, which a
   checkout and an installed distribution have beside the package ``hub``; then, if the variable
   ``NATURAL_ZOO_ORG`` is set, that agent of this organisation on the Hub,
5. an agent of a hub, ``ORG/NAME[@REVISION]`` or ``folder:DIR/NAME[@REVISION]``, which is fetched
   unless the cache has it.

Nothing here opens what it finds; NumPy is not needed, nor is anything larger.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agents.errors import BundleError, ConfigError, RunFolderError, UnknownName, nearest_match
from hub.agent_name import FolderName, RemoteName, parse_agent_name
from hub.bundle_format.bundle_folder import AGENT

__all__ = [
    "AGENT",
    "BUNDLE_FOLDER",
    "Located",
    "hub_name",
    "is_guest_folder",
    "locate",
    "onnx_path",
    "published_agents",
    "settings_folders",
]

BUNDLE_FOLDER = "bundle"
"""Where a run keeps its bundle."""
PUBLISHED = Path(__file__).resolve().parents[1] / "pretrained"

_WHAT_WORKS = (
    "Give a run folder such as logs/npg/Walker2d-v4_1, a bundle, a published agent's name, "
    "ORG/NAME of the Hub or a .onnx file."
)
_ONNX_FILES = {False: "policy.onnx", True: "policy.f64.onnx"}
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")
_ORGANIZATION = "NATURAL_ZOO_ORG"


@dataclass(frozen=True)
class Located:
    """Where an agent is.

    :param kind: what was found.
    :param path: the file or folder.
    """

    kind: Literal["onnx", "bundle", "run"]
    path: Path

    @property
    def bundle(self) -> Path | None:
        """Folder of the bundle; None for a single file and a run that has none yet."""
        folder = {"onnx": None, "bundle": self.path, "run": self.path / BUNDLE_FOLDER}[self.kind]
        return folder if folder is not None and (folder / AGENT).is_file() else None

    def require_bundle(self) -> Path:
        """Return the folder of the bundle.

        :raises RunFolderError: the run has none yet.
        :raises ConfigError: it is a single file.
        """
        bundle = self.bundle
        if bundle is not None:
            return bundle
        if self.kind == "onnx":
            raise ConfigError(
                f"'{self.path}' is a single file without episodes or weights beside it. Give the "
                "agent's bundle or run folder."
            )
        raise RunFolderError(
            f"{self.path} has no {BUNDLE_FOLDER}/ yet: that is written when training ends. "
            f"Type: python -m zoo.train --resume {self.path}"
        )


def locate(agent: str | Path) -> Located:
    """Find an agent.

    :raises UnknownName: no published agent has that name.
    :raises BundleError: there is no such file, or the agent is of RL Zoo or SB3.
    :raises RunFolderError: there is no such folder, or it holds no agent.
    :raises HubError: it cannot be fetched, with the reason.
    """
    found = _locate_path(agent)
    if found is not None:
        return found
    name = str(agent)
    if _NAME.fullmatch(name) and (PUBLISHED / name / AGENT).is_file():
        return Located("bundle", PUBLISHED / name)
    in_hub = hub_name(agent)
    if in_hub is not None:
        from hub.fetch import fetch_agent  # what stays at home does not pay for it

        fetched = fetch_agent(in_hub)
        if fetched.kind == "guest":
            raise BundleError(_convert_advice(str(in_hub)))
        return Located("bundle", fetched.path)
    if _NAME.fullmatch(name):
        raise UnknownName("agent", name, published_agents(), _WHAT_WORKS)
    raise RunFolderError(f"There is no folder '{agent}'.{_nearest_path(Path(agent))} {_WHAT_WORKS}")


def _locate_path(agent: str | Path) -> Located | None:
    """Return what is at a path, None if nothing is."""
    path = Path(agent)
    if path.suffix == ".onnx":
        if not path.is_file():
            raise BundleError(f"There is no file '{agent}'.{_nearest_path(path)}")
        return Located("onnx", path)
    if (path / AGENT).is_file():
        return Located("bundle", path)
    if not path.is_dir():
        return None
    if is_guest_folder(path):
        raise BundleError(_convert_advice(str(agent)))
    if settings_folders(path):
        return Located("run", path)
    raise RunFolderError(
        f"'{agent}' is not a run folder and not a bundle: it has neither ENV/config.yml nor "
        f"{AGENT}. Give a folder such as logs/npg/Walker2d-v4_1."
    )


def hub_name(agent: str | Path) -> RemoteName | FolderName | None:
    """Return the name of an agent in a hub, None for one of this machine.

    ``logs/nqg`` where there is a folder ``logs`` is a mistyped path, and not an agent of the
    organisation ``logs``.
    """
    text = str(agent)
    name = parse_agent_name(text)
    if isinstance(name, RemoteName) and (Path(text).exists() or Path(text).parent.is_dir()):
        return None
    if name is None and _NAME.fullmatch(text) and not Path(text).exists():
        organization = os.environ.get(_ORGANIZATION)
        is_here = (PUBLISHED / text / AGENT).is_file()
        return RemoteName(f"{organization}/{text}") if organization and not is_here else None
    return name


def is_guest_folder(path: Path) -> bool:
    """Return whether a folder is a run of RL Zoo or a copy of an SB3 repository, and not ours."""
    if (path / AGENT).is_file() or (path / BUNDLE_FOLDER / AGENT).is_file():
        return False
    settings = settings_folders(path)
    if settings and not any((folder / "args.yml").is_file() for folder in settings):
        return False  # our own runs have none
    return any(archive.name != "train_eval_metrics.zip" for archive in path.glob("*.zip"))


def _convert_advice(agent: str) -> str:
    return (
        f"'{agent}' is an agent of RL Zoo or Stable-Baselines3, not a bundle. Type: "
        f"python -m hub.convert {agent} -o BUNDLE, then give BUNDLE; or in Python: "
        f'hub.load("{agent}")'
    )


def settings_folders(run: Path) -> list[Path]:
    """Return the folders ``ENV/`` with ``config.yml`` in what may be a run folder: one if it is."""
    folders = sorted(config.parent for config in run.glob("*/config.yml"))
    return [folder for folder in folders if not (folder / AGENT).is_file()]  # those are bundles


def published_agents() -> list[str]:
    """Return the names of the published agents that this installation carries."""
    return sorted(manifest.parent.name for manifest in PUBLISHED.glob(f"*/{AGENT}"))


def onnx_path(agent: str | Path, *, float64: bool = False) -> Path:
    """Return the ONNX file of an agent.

    :param agent: as for :func:`locate`.
    :param float64: the float64 one of a folder; a ``.onnx`` file is taken as it is.
    :raises BundleError: it has none.
    """
    in_hub = hub_name(agent)
    if in_hub is not None:
        from hub.fetch import fetch_onnx  # what stays at home does not pay for it

        return fetch_onnx(in_hub, _ONNX_FILES[float64]).path
    found = locate(agent)
    if found.kind == "onnx":
        return found.path
    bundle = found.require_bundle()
    path = bundle / _ONNX_FILES[float64]
    if not path.is_file():
        raise BundleError(
            f"{bundle} has no {path.name}. Type: python -m hub.export {found.path}, which says why "
            "if it cannot be made."
        )
    return path


def _nearest_path(path: Path) -> str:
    """Return the question whether a neighbour was meant, nothing if none is near."""
    try:
        siblings = [sibling.name for sibling in path.parent.iterdir()]
    except OSError:
        return ""
    match = nearest_match(path.name, siblings)
    return f" Did you mean '{path.parent / match}'?" if match else ""
