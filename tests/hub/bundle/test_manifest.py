"""agent.json: one document for one agent, and no other document passes."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agents.errors import BundleError
from hub.bundle_format.bundle_folder import FileRecord
from hub.bundle_format.manifest import Normalization, parse_manifest

SHA = "0" * 64
DOCUMENT: dict[str, Any] = {
    "format": "natural-zoo-agent",
    "format_version": 1,
    "algorithm": {"library": "natural-zoo", "name": "npg"},
    "policy": "MlpPolicy",
    "arguments": {"gamma": 0.99, "learning_rate": {"schedule": "constant", "value": 0.1}},
    "policy_kwargs": {"activation_fn": "relu"},
    "observation_space": {
        "type": "Dict",
        "keys": ["camera", "joints"],
        "spaces": {
            "camera": {"type": "Box", "shape": [3, 36, 36], "dtype": "uint8", "low": 0, "high": 9},
            "joints": {"type": "Box", "shape": [2], "dtype": "float32", "low": "-inf", "high": 1},
        },
    },
    "action_space": {"type": "Discrete", "n": 3, "start": 0, "dtype": "int64"},
    "transposed_images": ["obs.camera"],
    "environment": {"id": "ALE/Pong-v5", "kwargs": {"frameskip": 4}},
    "n_envs": 8,
    "counters": {"num_timesteps": 1000},
    "normalization": {
        "norm_obs": True,
        "norm_reward": False,
        "clip_obs": 10,
        "clip_reward": 10.0,
        "gamma": 0.99,
        "epsilon": 1e-8,
    },
    "versions": {"torch": "2.13.0+cpu", "mujoco": None},
    "files": {
        "policy.safetensors": {"size": 10, "sha256": SHA},
        "normalizer.safetensors": {"size": 10, "sha256": SHA},
    },
}


def parse(document: Any) -> Any:
    return parse_manifest(json.dumps(document).encode())


def test_every_field_is_read() -> None:
    manifest = parse(DOCUMENT)
    assert (manifest.library, manifest.algorithm, manifest.policy) == (
        "natural-zoo",
        "npg",
        "MlpPolicy",
    )
    assert manifest.env_id == "ALE/Pong-v5"
    assert manifest.env_kwargs == {"frameskip": 4}
    assert manifest.n_envs == 8
    assert manifest.counters == {"num_timesteps": 1000}
    assert manifest.transposed_images == ("obs.camera",)
    assert manifest.normalization == Normalization(True, False, 10.0, 10.0, 0.99, 1e-8)
    assert manifest.versions == {"torch": "2.13.0+cpu", "mujoco": None}
    assert manifest.files["policy.safetensors"] == FileRecord(10, SHA)
    assert manifest.observation_space["joints"].shape == (2,)
    assert manifest.action_space.n == 3


def test_written_and_read_again() -> None:
    content = parse(DOCUMENT).content()
    assert parse_manifest(content).content() == content
    assert content.endswith(b"}\n")
    written = json.loads(content)
    expected = copy.deepcopy(DOCUMENT)
    expected["normalization"]["clip_obs"] = 10.0
    assert written == expected
    assert list(written) == list(DOCUMENT)


REPLACED: list[tuple[str, Any, str]] = [
    ("format", "sb3", "not 'natural-zoo-agent'"),
    ("format", None, "not 'natural-zoo-agent'"),
    ("format_version", 2, "pip install -U natural-zoo"),
    ("format_version", 10**30, "whole number"),
    ("format_version", 0, "whole number from 1"),
    ("format_version", "1", "whole number"),
    ("format_version", 1.0, "whole number"),
    ("algorithm", "npg", "must be an object"),
    ("algorithm", {"name": "npg"}, "lacks the key 'library'"),
    ("algorithm.name", "os.system", "which is not a name"),
    ("algorithm.name", "agents.npg:NPG", "which is not a name"),
    ("algorithm.name", ["npg"], "must be a text"),
    ("algorithm.name", "a" * 65, "at most 64"),
    ("algorithm.library", "../x", "which is not a name"),
    ("policy", "torch.nn.Linear", "which is not a name"),
    ("policy", None, "must be a text"),
    ("arguments", [], "must be an object"),
    ("arguments.tensorboard_log", "/etc", "no paths and no code"),
    ("policy_kwargs.activation_fn", "torch.nn.ReLU()", "no paths and no code"),
    ("observation_space", {"type": "Tuple"}, "observation_space.type"),
    ("action_space", DOCUMENT["observation_space"], "action_space is a Dict"),
    ("action_space.n", 10**15, "whole number from 1 to"),
    ("transposed_images", ["camera"], "obs.camera"),
    ("transposed_images", ["obs.joints"], "not an image"),
    ("transposed_images", ["obs.camera"] * 2, "one image twice"),
    ("transposed_images", ["obs.camera"] * 3, "at most 2"),
    ("environment.id", "os:Task-v0", "which is not a name"),
    ("environment.id", "../Task-v0", "which is not a name"),
    ("environment.id", "a/../b", "which is not a name"),
    ("environment.id", "a/..", "which is not a name"),
    ("environment.id", "/abs", "which is not a name"),
    ("environment.id", "", "which is not a name"),
    ("environment.kwargs", {"xml_file": "/etc/passwd"}, "no paths"),
    ("n_envs", 0, "whole number from 1"),
    ("n_envs", 10**9, "to 65536"),
    ("counters", {"a b": 1}, "which is not a name"),
    ("normalization", None, "need each other"),
    ("normalization.clip_obs", 0, "must be positive"),
    ("normalization.epsilon", -1e-8, "must be positive"),
    ("normalization.norm_obs", 1, "true or false"),
    ("normalization.extra", 1, "unknown key 'extra'"),
    ("versions", {"torch": 2.13}, "must be a text"),
    ("versions", {"../torch": "2"}, "which is not a name"),
    ("versions", {str(i): None for i in range(101)}, "at most 100"),
    ("files", {}, "policy.safetensors, which every bundle has"),
    ("files.policy.pth", {"size": 1, "sha256": SHA}, "no paths"),
    ("files.../policy.onnx", {"size": 1, "sha256": SHA}, "no paths"),
    ("files./etc/passwd", {"size": 1, "sha256": SHA}, "no paths"),
    ("files.C:\\x", {"size": 1, "sha256": SHA}, "no paths"),
    ("files.sub\\policy.onnx", {"size": 1, "sha256": SHA}, "no paths"),
    ("files.README.md", {"size": 1, "sha256": SHA}, "no paths"),
    ("files.agent.json", {"size": 1, "sha256": SHA}, "no paths"),
    ("files.policy.onnx", {"size": 2**40, "sha256": SHA}, "whole number from 0 to"),
    ("files.policy.onnx", {"size": 1, "sha256": "0" * 63 + "A"}, "which is not a name"),
    ("files.policy.onnx", {"size": 1, "sha256": "0" * 63}, "which is not a name"),
    ("files.policy.onnx", {"size": 1}, "lacks the key 'sha256'"),
    ("surprise", 1, "unknown key 'surprise'"),
]


def changed(place: str, value: Any) -> dict[str, Any]:
    """Return the document with one value replaced or added; files have points in their names."""
    document = copy.deepcopy(DOCUMENT)
    head, _, tail = place.partition(".")
    if tail:
        document[head][tail] = value
    else:
        document[head] = value
    return document


@pytest.mark.parametrize(("place", "value", "reason"), REPLACED, ids=[r[0] for r in REPLACED])
def test_refused_in_words(place: str, value: Any, reason: str) -> None:
    with pytest.raises(BundleError) as caught:
        parse(changed(place, value))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("key", list(DOCUMENT))
def test_every_key_is_needed(key: str) -> None:
    with pytest.raises(BundleError, match=f"lacks the key '{key}'"):
        parse({name: value for name, value in DOCUMENT.items() if name != key})


@pytest.mark.parametrize("document", [None, [], "npg", 1, [DOCUMENT]])
def test_other_documents_are_refused(document: Any) -> None:
    with pytest.raises(BundleError, match="must be an object"):
        parse(document)


def test_a_newer_version_is_named_before_its_keys_are_judged() -> None:
    with pytest.raises(BundleError, match="format version 3 and this natural-zoo reads up to 1"):
        parse({"format": "natural-zoo-agent", "format_version": 3, "layers": []})


def test_what_is_written_was_tried(published: Callable[..., Path]) -> None:
    content = (published() / "agent.json").read_bytes()
    assert parse_manifest(content).content() == content
