"""Whether the ONNX files of a bundle are its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from agents.errors import VerificationError
from hub import __version__
from hub.bundle import Bundle
from hub.portable_agent import ONNX_FILES, PortableAgent
from hub.runtime import OnnxPolicy
from zoo.evaluation import stack_observations

__all__ = ["FLOAT32_TOLERANCE", "MAX_OTHER_CHOICES", "OnnxComparison", "compare_onnx_files"]

FLOAT32_TOLERANCE = 1e-4
"""Between actions of the float32 file and of its float64 twin, relative to those above 1.

Rounding is as large as what is added up, not as the action, which is clipped afterwards: it is
below 1e-5 for most agents, and 1.05e-5 for A2C's of Hopper-v4, with output weights up to 1.5.
"""
MAX_OTHER_CHOICES = 1e-3
"""Share of observations where float32 may choose another discrete action: two are as good."""

_FLOAT32, _FLOAT64 = ONNX_FILES
# Another version of this project may write other names and units, but the same agent.
_OF_THE_AGENT = (
    *("algo", "env_id", "env_kwargs", "observation_space", "action_space", "action_postprocess"),
    *("obs_normalization", "obs_mean", "obs_std", "clip_obs", "image_layout", "format_version"),
)
_OF_THE_DAY = ("versions", "license")


@dataclass(frozen=True)
class OnnxComparison:
    """How the ONNX files of a bundle compare with its weights."""

    n_observations: int
    """Visited observations on which they were compared."""
    float32_error: float | None
    """Largest difference of ``policy.onnx`` on the same observations in float32, or for discrete
    actions the share of other choices; None if the bundle has no such file."""
    is_rebuilt: bool
    """Whether the weights give the same graphs node by node; if not (another version wrote them)
    they give the same actions on the observations."""


def compare_onnx_files(bundle: Bundle, observations: Sequence[Any]) -> OnnxComparison:
    """Export the agent again and compare with the bundle's files.

    :param observations: single raw ones.
    :raises VerificationError: a file is of another agent, or says something else about this one.
    """
    rebuilt, _ = PortableAgent.of_bundle(bundle).onnx_files()
    if _FLOAT64 not in rebuilt:
        raise VerificationError(
            f"{bundle.path} has a {_FLOAT64}, and its weights cannot be written as one."
        )
    batch = stack_observations(observations)
    batches = {_FLOAT32: _as_float32(batch), _FLOAT64: batch}
    is_rebuilt, float32_error = True, None
    for name in ONNX_FILES:
        if name not in bundle.files:
            continue
        content = bundle.read(name)
        expected = _act(rebuilt[_FLOAT64], _FLOAT64, batches[name])
        error = _error(_act(content, name, batches[name]), expected)
        if name == _FLOAT32:
            float32_error = error
        allowed = 0.0 if name == _FLOAT64 else _allowed(expected)
        if not error <= allowed:
            raise VerificationError(
                f"{bundle.path / name} does not act as policy.safetensors does: on "
                f"{len(observations)} visited observations the difference is {error:.3g}, allowed "
                f"is {allowed:g}."
            )
        is_rebuilt &= _is_same(bundle, name, content, rebuilt[name])
    return OnnxComparison(len(observations), float32_error, is_rebuilt)


def _as_float32(batch: Any) -> Any:
    """Return observations as the float32 file takes them.

    Both files get the rounded ones: where an element hardly varied in training, rounding it moves
    the action more than all of the file's own rounding (1e-5 against 1e-7 on Humanoid).
    """
    if isinstance(batch, dict):
        return {key: _as_float32(part) for key, part in batch.items()}
    return batch.astype(np.float32) if batch.dtype == np.float64 else batch


def _act(content: bytes, name: str, batch: Any) -> npt.NDArray[Any]:
    actions: npt.NDArray[Any] = OnnxPolicy.from_bytes(content, name=name, check_range=False)(batch)
    return actions


def _error(actions: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    if actions.shape != expected.shape or actions.dtype != expected.dtype:
        return float("inf")
    if expected.dtype.kind != "f":
        rows = (actions != expected).reshape(len(expected), -1)
        return float(rows.any(axis=1).mean())
    scale = np.maximum(1.0, np.abs(expected))
    return float((np.abs(actions.astype(np.float64) - expected) / scale).max())


def _allowed(expected: npt.NDArray[Any]) -> float:
    return FLOAT32_TOLERANCE if expected.dtype.kind == "f" else MAX_OTHER_CHOICES


def _is_same(bundle: Bundle, name: str, content: bytes, rebuilt: bytes) -> bool:
    """Compare what the files say; returns whether their graphs are equal node by node.

    :raises VerificationError: the file says something about the agent that is not so.
    """
    given, own = onnx.load_from_string(content), onnx.load_from_string(rebuilt)
    texts = [{entry.key: entry.value for entry in model.metadata_props} for model in (given, own)]
    keys = set(texts[0]) | set(texts[1])
    if bundle.manifest.versions.get("natural-zoo") == __version__:
        keys -= set(_OF_THE_DAY)
    else:
        keys &= {*_OF_THE_AGENT, "evaluation"}
    for key in sorted(keys):
        if texts[0].get(key) != texts[1].get(key):
            raise VerificationError(
                f"{bundle.path / name} says {key} {_shown(texts[0].get(key))}, the bundle's agent "
                f"has {_shown(texts[1].get(key))}."
            )
    graphs = [model.graph.SerializeToString(deterministic=True) for model in (given, own)]
    return bool(graphs[0] == graphs[1])


def _shown(text: str | None) -> str:
    if text is None:
        return "nothing"
    return text if len(text) <= 60 else f"{text[:57]}..."
