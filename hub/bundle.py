"""An agent as a folder: networks, normaliser and training state, without a pickle in it.

::

    save_bundle("npg-Walker2d-v4", model, algo="npg", env_id="Walker2d-v4")
    model = Bundle.open("npg-Walker2d-v4").load_model()

Nothing in a bundle is unpickled, evaluated or imported by name; ``docs/bundle_format.md`` says what
is in it to the byte. torch is imported only to save an agent and to load one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.errors import BundleError, UnknownName
from hub.bundle_format.bundle_folder import (
    AGENT,
    CARD,
    FILES,
    MAX_AGENT_BYTES,
    NORMALIZER,
    OPTIMIZER,
    POLICY,
    FileRecord,
    check_listing,
    digest_bytes,
    digest_file,
    read_file,
    write_folder,
)
from hub.bundle_format.manifest import Manifest, parse_manifest
from hub.bundle_format.normalizer_file import read_normalizer
from hub.bundle_format.tensor_file import Arrays, read_tensors
from hub.normalizer import Normalizer

if TYPE_CHECKING:
    import gymnasium
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.policies import BasePolicy
    from stable_baselines3.common.vec_env import VecEnv, VecNormalize

__all__ = ["EXTRA_FILES", "Bundle", "save_bundle"]

#: What may be put into a bundle beside the agent.
EXTRA_FILES = (CARD, *(name for name in FILES if not name.endswith(".safetensors")))


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle whose files are whole and are those that ``agent.json`` lists."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Check a folder and return it as a bundle, without loading the agent.

        :raises BundleError: it is damaged, unsafe or no bundle.
        """
        folder = Path(path)
        manifest = parse_manifest(read_file(folder, AGENT, MAX_AGENT_BYTES), str(folder / AGENT))
        check_listing(folder, manifest.files)
        for name, record in manifest.files.items():
            _check_digest(folder, name, digest_file(folder, name, FILES[name]), record)
        return cls(folder, manifest)

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files beside ``agent.json``."""
        return tuple(self.manifest.files)

    def read(self, name: str) -> bytes:
        """Return the content of one of :attr:`files`, checked again.

        :raises BundleError: the bundle has no such file, or it was changed meanwhile.
        """
        if name not in self.manifest.files:
            raise BundleError(f"{self.path} has no {name}; it has {', '.join(self.files)}.")
        content = read_file(self.path, name, FILES[name])
        _check_digest(self.path, name, digest_bytes(content), self.manifest.files[name])
        return content

    @cached_property
    def normalizer(self) -> Normalizer | None:
        """The statistics its observations are scaled with, None if they are taken raw."""
        settings = self.manifest.normalization
        if settings is None:
            return None
        return read_normalizer(self.read(NORMALIZER), settings, self.manifest.observation_space)

    def load_model(
        self,
        env: gymnasium.Env[Any, Any] | VecEnv | None = None,
        *,
        device: str = "auto",
        **changes: Any,
    ) -> BaseAlgorithm:
        """Return the agent as an SB3 model that predicts the same actions and can go on training.

        Without ``env`` it only predicts, from observations that :attr:`normalizer` has scaled.
        ``env`` is wrapped in a ``VecNormalize`` with the bundle's statistics; if it is in one
        already, that one takes the statistics over.

        The global random generators are left as they are. Replay buffers are not saved and begin
        empty; so do the episodes that the logged means cover.

        :param env: to go on training in.
        :param device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        :param changes: constructor arguments to replace, such as ``learning_rate=1e-4``.
        :raises BundleError: the files contradict each other, or were changed meanwhile.
        :raises ConfigError: ``env`` or ``changes`` do not fit the agent.
        """
        from hub.bundle_format.agent_builder import build_agent
        from hub.bundle_format.training_env import prepare_env

        venv = None if env is None else prepare_env(env, self.manifest, self.normalizer)
        training = None
        if OPTIMIZER in self.manifest.files:
            training = read_tensors(self.read(OPTIMIZER), OPTIMIZER)
        return build_agent(
            self.manifest, self._policy(), training, env=venv, device=device, changes=changes
        )

    def load_policy(self, *, device: str = "auto") -> BasePolicy:
        """Return the policy alone, without the memory that training needs.

        It acts on observations that :attr:`normalizer` has scaled.

        :raises BundleError: the files contradict each other, or were changed meanwhile.
        """
        from hub.bundle_format.agent_builder import build_agent

        model = build_agent(self.manifest, self._policy(), None, device=device, buffers=False)
        model.policy.set_training_mode(False)
        return model.policy

    def _policy(self) -> Arrays:
        return read_tensors(self.read(POLICY), POLICY)

    def with_files(self, files: Mapping[str, bytes | Path]) -> Bundle:
        """Put files into the bundle, or replace them; the folder changes in one step.

        :param files: content or a file to copy, by a name of :data:`EXTRA_FILES`.
        :raises BundleError: there is no such name, a file is too large, or it cannot be written.
        """
        contents = {name: self.read(name) for name in self.manifest.files}
        if (self.path / CARD).is_file():
            contents[CARD] = read_file(self.path, CARD, _MAX_CARD_BYTES)
        return _write(self.path, self.manifest, contents | _contents(files))


def save_bundle(
    path: str | Path,
    model: BaseAlgorithm,
    *,
    algo: str,
    env_id: str,
    env_kwargs: Mapping[str, Any] | None = None,
    normalizer: Normalizer | VecNormalize | None = None,
    optimizer: bool = True,
    config_yml: str | None = None,
    command: str | None = None,
    extra_files: Mapping[str, bytes | Path] | None = None,
) -> Bundle:
    """Write ``model`` as a bundle, whole or not at all; an older bundle at ``path`` is replaced.

    The agent is built again from what was written before it takes its place, so that a bundle
    which cannot be loaded is never made. The same agent gives the same bytes.

    :param algo: the algorithm's name, such as ``"npg"`` or ``"sac"``.
    :param env_id: Gymnasium's name of the task.
    :param env_kwargs: of the environment's constructor.
    :param normalizer: statistics its observations are scaled with; those of the model's own
        environments if it is not given.
    :param optimizer: also write what training needs to go on as if it had not been interrupted.
    :param config_yml: the settings of its run.
    :param command: what to type to train it again.
    :param extra_files: content or a file to copy, by a name of :data:`EXTRA_FILES`.
    :raises BundleError: the agent holds what a bundle cannot, such as a schedule that is a lambda
        or a policy class of one's own; a weight is not finite; or ``path`` cannot be written.
    """
    from hub.bundle_format.agent_writer import describe_agent

    texts = {"config.yml": config_yml, "command.txt": command}
    extra = {name: text.encode() for name, text in texts.items() if text is not None}
    manifest, contents = describe_agent(
        model,
        algo=algo,
        env_id=env_id,
        env_kwargs=dict(env_kwargs or {}),
        normalizer=normalizer,
        optimizer=optimizer,
    )
    return _write(Path(path), manifest, contents | extra | _contents(extra_files or {}))


_MAX_CARD_BYTES = 4 * 2**20


def _contents(files: Mapping[str, bytes | Path]) -> dict[str, bytes]:
    contents = {}
    for name, content in files.items():
        if name not in EXTRA_FILES:
            raise BundleError(str(UnknownName("file of a bundle", name, EXTRA_FILES)))
        contents[name] = content if isinstance(content, bytes) else _read(Path(content))
    return contents


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise BundleError(f"Cannot read {path} for the bundle: {reason}.") from error


def _write(path: Path, manifest: Manifest, contents: Mapping[str, bytes]) -> Bundle:
    """Write files and a manifest that lists them in a fixed order."""
    for name, content in contents.items():
        most = FILES.get(name, _MAX_CARD_BYTES)
        if len(content) > most:
            raise BundleError(f"{name} has {len(content)} bytes; at most {most} are allowed.")
    records = {name: digest_bytes(contents[name]) for name in FILES if name in contents}
    manifest = replace(manifest, files=records)
    write_folder(path, {AGENT: manifest.content(), **contents})
    return Bundle.open(path)


def _check_digest(folder: Path, name: str, found: FileRecord, expected: FileRecord) -> None:
    if found != expected:
        difference = (
            f"{found.size} bytes, not {expected.size}"
            if found.size != expected.size
            else f"the SHA-256 {found.sha256}, not {expected.sha256}"
        )
        raise BundleError(
            f"{folder / name} has {difference} as {AGENT} says: it was changed or damaged. Get the "
            "bundle again."
        )
