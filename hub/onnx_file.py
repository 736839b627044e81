"""An ONNX file of this project, opened: what goes in, what comes out, what it says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agents.errors import BundleError, MissingDependency
from hub.bundle_format import strict_json
from hub.bundle_format.bundle_folder import AGENT, MAX_AGENT_BYTES, digest_bytes, read_file
from hub.onnx_metadata import OnnxInput, OnnxMetadata, OnnxNode
from hub.onnx_safety import MAX_ONNX_BYTES, check_onnx

__all__ = ["OnnxFile"]


@dataclass(frozen=True)
class OnnxFile:
    """A file that passed every check, and the session that computes it in one thread."""

    path: Path
    session: Any
    metadata: Mapping[str, str]
    observation_space: dict[str, Any]
    """In the JSON form of :mod:`hub.bundle_format.spaces`; so is ``action_space``."""
    action_space: dict[str, Any]
    inputs: tuple[OnnxInput, ...]
    action_shape: tuple[int, ...]
    action_dtype: np.dtype[Any]
    action_names: tuple[str, ...]
    control_dt: float | None
    env_id: str | None
    env_kwargs: dict[str, Any]
    """Of the environment that the agent was trained in, beside its defaults."""

    @property
    def is_dict(self) -> bool:
        """Whether an observation is a mapping of parts."""
        return bool(self.observation_space["type"] == "Dict")

    @classmethod
    def open(cls, path: Path) -> OnnxFile:
        """Read a file, check it and make it ready to compute.

        :raises BundleError: it is missing, damaged, unsafe or not one of ours, or it is not the one
            that ``agent.json`` beside it lists.
        :raises MissingDependency: ONNX Runtime is not installed.
        """
        content = _read(path)
        _check_digest(path, content)
        return cls.from_bytes(content, path)

    @classmethod
    def from_bytes(cls, content: bytes, path: Path) -> OnnxFile:
        """Check a file's content and make it ready to compute; ``path`` names it in messages.

        :raises BundleError: it is damaged, unsafe or not one of ours.
        :raises MissingDependency: ONNX Runtime is not installed.
        """
        check_onnx(content, str(path))
        session = _make_session(content, path)
        values, given, outputs = _description(session, path)
        reader = OnnxMetadata(values, path)
        observation_space = reader.space("observation_space")
        parts = (
            observation_space.get("spaces")
            if observation_space["type"] == "Dict"
            else {"obs": observation_space}
        )
        if not isinstance(parts, dict) or set(parts) != set(given):
            raise reader.contradiction(f"inputs {', '.join(sorted(given))}")
        action = outputs.get("actions")
        if action is None:
            raise BundleError(
                f"{path} gives {', '.join(outputs)}, no actions to apply. Take the agent's "
                "policy.onnx; ONNX Runtime itself runs this one."
            )
        action_shape, action_dtype = reader.tensor(action)
        return cls(
            path=path,
            session=session,
            metadata=dict(reader.values),
            observation_space=observation_space,
            action_space=reader.space("action_space"),
            inputs=tuple(
                reader.input(given[name], space, is_dict=observation_space["type"] == "Dict")
                for name, space in parts.items()
            ),
            action_shape=action_shape,
            action_dtype=action_dtype,
            action_names=reader.names("action_names"),
            control_dt=reader.seconds("control_dt"),
            env_id=reader.values.get("env_id"),
            env_kwargs=reader.arguments("env_kwargs"),
        )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_ONNX_BYTES + 1)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror or error}.") from error


def _check_digest(path: Path, content: bytes) -> None:
    """Compare a file of a bundle with what ``agent.json`` says about it.

    A stranger could change both; what it finds is damage, and files of two bundles mixed up.
    """
    manifest = path.parent / AGENT
    if not manifest.is_file():
        return
    files = strict_json.mapping(
        strict_json.parse(read_file(path.parent, AGENT, MAX_AGENT_BYTES), str(manifest)),
        str(manifest),
        optional=None,
    ).get("files")
    record = files.get(path.name) if isinstance(files, dict) else None
    digest = record.get("sha256") if isinstance(record, dict) else None
    if digest != digest_bytes(content).sha256:
        raise BundleError(
            f"{path} is not the file that {AGENT} beside it lists: it was changed or damaged. Get "
            "the bundle again."
        )


def _make_session(content: bytes, path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependency(
            f"ONNX files need ONNX Runtime ({error}). Type: pip install onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised; nothing else is of interest
    try:
        return onnxruntime.InferenceSession(
            content,
            options,
            providers=["CPUExecutionProvider"],
            enable_fallback=0,  # to the same provider, with a banner on standard output
        )
    except Exception as error:  # ONNX Runtime has a class for each stage
        reason = " ".join(str(error).split())[:200]
        raise BundleError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load {path}: {reason}"
        ) from error


def _description(
    session: Any, path: Path
) -> tuple[dict[str, str], dict[str, OnnxNode], dict[str, OnnxNode]]:
    """Return metadata, inputs and outputs, each by name."""
    try:
        nodes = [
            [OnnxNode(node.name, node.type, node.shape) for node in part]
            for part in (session.get_inputs(), session.get_outputs())
        ]
        values = dict(session.get_modelmeta().custom_metadata_map)
    except UnicodeDecodeError as error:
        raise BundleError(
            f"{path} holds a text that is not UTF-8; it is damaged or not one of ours."
        ) from error
    inputs, outputs = ({node.name: node for node in part} for part in nodes)
    return values, inputs, outputs
