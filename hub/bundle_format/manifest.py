"""``agent.json``: what an agent is, in words and numbers, and which files belong to it.

The document is data only. Classes go by registered names, which ``agent_classes`` and
``named_classes`` beside this module look up; nothing in it is imported, evaluated or used as a
path.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from gymnasium import spaces

from agents.errors import BundleError
from hub.bundle_format import strict_json as read
from hub.bundle_format.bundle_folder import AGENT, FILES, NORMALIZER, POLICY, FileRecord
from hub.bundle_format.plain_data import check_env_kwargs, check_plain
from hub.bundle_format.spaces import Space, space_from_json, space_to_json

__all__ = ["FORMAT", "FORMAT_VERSION", "MAX_ENVS", "Manifest", "Normalization", "parse_manifest"]

FORMAT = "natural-zoo-agent"
FORMAT_VERSION = 1
MAX_ENVS = 2**16
_MAX_NAME = 64

_REGISTERED = re.compile(r"[a-z][a-z0-9_-]*")
_POLICY_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
# A namespace or none, and a name; no module to import (a colon), no way up (a leading point).
_ENV_ID = re.compile(r"([A-Za-z0-9_-]+/)?[A-Za-z0-9][A-Za-z0-9_.-]*")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+!-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEYS = (
    "format",
    "format_version",
    "algorithm",
    "policy",
    "arguments",
    "policy_kwargs",
    "observation_space",
    "action_space",
    "transposed_images",
    "environment",
    "n_envs",
    "counters",
    "normalization",
    "versions",
    "files",
)


@dataclass(frozen=True)
class Normalization:
    """Settings of the normaliser; its statistics are in ``normalizer.safetensors``."""

    norm_obs: bool
    norm_reward: bool
    clip_obs: float
    clip_reward: float
    gamma: float
    epsilon: float


@dataclass(frozen=True, eq=False)
class Manifest:
    """The content of ``agent.json``, checked as far as that goes without torch."""

    library: str
    """Where the algorithm's class comes from, see :mod:`hub.bundle_format.agent_classes`."""
    algorithm: str
    """Its name there, such as ``npg``."""
    policy: str
    """The policy's name in the algorithm's ``policy_aliases``."""
    arguments: dict[str, Any]
    """Keywords of the algorithm's constructor as plain data."""
    policy_kwargs: dict[str, Any]
    """Keywords of the policy's constructor as plain data, classes by name."""
    observation_space: Space
    """What the policy reads: images with their channels first."""
    action_space: Space
    transposed_images: tuple[str, ...]
    """``obs`` or ``obs.KEY`` of each image that the environment gives with its channels last."""
    env_id: str
    env_kwargs: dict[str, Any]
    n_envs: int
    """Environments side by side in training."""
    counters: dict[str, Any]
    """Numbers that training goes on with."""
    normalization: Normalization | None
    versions: dict[str, str | None]
    """Of every package that a number can depend on, when the agent was saved."""
    files: dict[str, FileRecord]

    def to_json(self) -> dict[str, Any]:
        """Return the document that :func:`parse_manifest` reads."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "algorithm": {"library": self.library, "name": self.algorithm},
            "policy": self.policy,
            "arguments": self.arguments,
            "policy_kwargs": self.policy_kwargs,
            "observation_space": space_to_json(self.observation_space),
            "action_space": space_to_json(self.action_space),
            "transposed_images": list(self.transposed_images),
            "environment": {"id": self.env_id, "kwargs": self.env_kwargs},
            "n_envs": self.n_envs,
            "counters": self.counters,
            "normalization": None if self.normalization is None else vars(self.normalization),
            "versions": self.versions,
            "files": {name: record._asdict() for name, record in self.files.items()},
        }

    def content(self) -> bytes:
        """Return the file, read again before it is believed.

        :raises BundleError: :func:`parse_manifest` would refuse it.
        """
        content = read.canonical(self.to_json())
        parse_manifest(content)
        return content


def parse_manifest(content: bytes, where: str = AGENT) -> Manifest:
    """Return what the file says, every value of the right type and size.

    Whether the algorithm has these arguments is checked when it is loaded.

    :param where: the file's name, for messages.
    :raises BundleError: it says something else, or is of a newer version.
    """
    document = read.mapping(
        read.parse(content, where), where, required=("format", "format_version"), optional=None
    )
    _check_version(document, where)
    fields = read.mapping(document, where, required=_KEYS)
    algorithm = read.mapping(fields["algorithm"], "algorithm", required=("library", "name"))
    environment = read.mapping(fields["environment"], "environment", required=("id", "kwargs"))
    observation_space = space_from_json(fields["observation_space"], "observation_space")
    files = _files(fields["files"])
    normalization = _normalization(fields["normalization"])
    if (normalization is None) != (NORMALIZER not in files):
        raise BundleError(f"{where}: 'normalization' and the file {NORMALIZER} need each other.")
    return Manifest(
        library=_named(algorithm["library"], "algorithm.library", _REGISTERED),
        algorithm=_named(algorithm["name"], "algorithm.name", _REGISTERED),
        policy=_named(fields["policy"], "policy", _POLICY_NAME),
        arguments=_plain_mapping(fields["arguments"], "arguments"),
        policy_kwargs=_plain_mapping(fields["policy_kwargs"], "policy_kwargs"),
        observation_space=observation_space,
        action_space=_action_space(fields["action_space"]),
        transposed_images=_transposed(fields["transposed_images"], observation_space),
        env_id=_named(environment["id"], "environment.id", _ENV_ID, longest=128),
        env_kwargs=check_env_kwargs(environment["kwargs"], "environment.kwargs"),
        n_envs=read.whole(fields["n_envs"], "n_envs", least=1, most=MAX_ENVS),
        counters=_plain_mapping(fields["counters"], "counters"),
        normalization=normalization,
        versions=_versions(fields["versions"]),
        files=files,
    )


def _check_version(document: dict[str, Any], where: str) -> None:
    if document["format"] != FORMAT:
        raise BundleError(
            f"{where} is of the format {read.shown(document['format'])}, not '{FORMAT}'."
        )
    version = read.whole(document["format_version"], "format_version", least=1)
    if version > FORMAT_VERSION:
        raise BundleError(
            f"{where} is of format version {version} and this natural-zoo reads up to "
            f"{FORMAT_VERSION}: pip install -U natural-zoo"
        )


def _named(value: object, where: str, pattern: re.Pattern[str], longest: int = _MAX_NAME) -> str:
    name = read.text(value, where, longest=longest)
    if not pattern.fullmatch(name) or ".." in name:
        raise BundleError(f"{where} is {read.shown(name)}, which is not a name.")
    return name


def _plain_mapping(value: object, where: str) -> dict[str, Any]:
    plain: dict[str, Any] = check_plain(read.mapping(value, where, optional=None), where)
    return plain


def _action_space(value: object) -> Space:
    space = space_from_json(value, "action_space")
    if isinstance(space, spaces.Dict):
        raise BundleError("action_space is a Dict; an agent acts in a single space.")
    return space


def _transposed(value: object, space: Space) -> tuple[str, ...]:
    where = "transposed_images"
    parts = _parts(space)
    names = [
        read.one_of(name, where, list(parts))
        for name in read.sequence(value, where, most=len(parts))
    ]
    for name in names:
        if len(parts[name].shape or ()) != 3:
            raise BundleError(f"{where} names {name}, which is not an image.")
    if len(set(names)) != len(names):
        raise BundleError(f"{where} names one image twice.")
    return tuple(names)


def _parts(space: Space) -> dict[str, Space]:
    if isinstance(space, spaces.Dict):
        return {f"obs.{key}": part for key, part in space.spaces.items()}
    return {"obs": space}


def _normalization(value: object) -> Normalization | None:
    if value is None:
        return None
    where = "normalization"
    fields = read.mapping(value, where, required=tuple(Normalization.__annotations__))
    numbers = {
        key: read.finite(fields[key], f"{where}.{key}")
        for key in ("clip_obs", "clip_reward", "gamma", "epsilon")
    }
    for key, number in numbers.items():
        if number < 0.0 or (number == 0.0 and key != "gamma"):
            raise BundleError(f"{where}.{key} is {number}; it must be positive.")
    return Normalization(
        norm_obs=read.boolean(fields["norm_obs"], f"{where}.norm_obs"),
        norm_reward=read.boolean(fields["norm_reward"], f"{where}.norm_reward"),
        **numbers,
    )


def _versions(value: object) -> dict[str, str | None]:
    versions = read.mapping(value, "versions", optional=None)
    if len(versions) > 100:
        raise BundleError(f"versions has {len(versions)} entries; at most 100 are allowed.")
    checked: dict[str, str | None] = {}
    for package, version in versions.items():
        name = _named(package, "versions", _VERSION)
        checked[name] = None if version is None else _named(version, f"versions.{name}", _VERSION)
    return checked


def _files(value: object) -> dict[str, FileRecord]:
    entries = read.mapping(value, "files", optional=None)
    records = {}
    for name, entry in entries.items():
        if name not in FILES:
            raise BundleError(
                f"files lists {read.shown(name)}; a bundle holds {', '.join(FILES)} and no paths."
            )
        fields = read.mapping(entry, f"files.{name}", required=("size", "sha256"))
        records[name] = FileRecord(
            read.whole(fields["size"], f"files.{name}.size", most=FILES[name]),
            _named(fields["sha256"], f"files.{name}.sha256", _SHA256),
        )
    if POLICY not in records:
        raise BundleError(f"files does not list {POLICY}, which every bundle has.")
    return records
