"""Bundles made to harm: each is refused with our error, or carries its payload to no effect.

Every payload makes a folder, the marker, when it runs. The first test shows that they do run where
SB3, torch and RL Zoo read them; all others show that no marker appears here.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import gymnasium as gym
import pytest
import torch
import yaml
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from agents.errors import BundleError
from hub.bundle import Bundle

LISTED = ("policy.safetensors", "normalizer.safetensors", "optimizer.safetensors")


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "PAYLOAD_RAN"
    yield path
    assert not path.exists()


# --- What SB3, torch and RL Zoo would run -------------------------------------------------------


def sb3_zip(marker: Path, key: str) -> bytes:
    """Return an SB3 agent with a pickle in one key of its ``data``."""
    buffer = io.BytesIO()
    PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, device="cpu").save(buffer)
    evil = io.BytesIO()
    with zipfile.ZipFile(buffer) as good, zipfile.ZipFile(evil, "w") as bad:
        for name in good.namelist():
            content = good.read(name)
            if name == "data":
                data = json.loads(content)
                data[key] = serialized(marker)
                content = json.dumps(data).encode()
            bad.writestr(name, content)
    return evil.getvalue()


def serialized(marker: Path) -> dict[str, str]:
    """Return a value as SB3 writes those that are no JSON."""
    pickled = cloudpickle.dumps(Payload(marker))
    return {":type:": "<class 'x'>", ":serialized:": base64.b64encode(pickled).decode()}


def bare_pth(marker: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": Payload(marker), "data": {}}, buffer)
    return buffer.getvalue()


def yaml_tag(marker: Path) -> bytes:
    return f"!!python/object/apply:os.mkdir ['{marker}']\n".encode()


PAYLOADS: dict[str, Callable[[Path], bytes]] = {
    "known key of an SB3 zip": lambda marker: sb3_zip(marker, "learning_rate"),
    "extra key of an SB3 zip": lambda marker: sb3_zip(marker, "nobody_reads_this"),
    "bare policy.pth": bare_pth,
    "vecnormalize.pkl": lambda marker: pickle.dumps(Payload(marker)),
    "config.yml": yaml_tag,
}


class Empty(gym.Env[Any, Any]):
    observation_space = action_space = gym.spaces.Discrete(2)


def load_as_others_do(content: bytes, kind: str, path: Path) -> None:
    path.write_bytes(content)
    if kind.endswith("SB3 zip"):
        PPO.load(path, device="cpu")
    elif kind == "bare policy.pth":
        ActorCriticPolicy.load(path, device="cpu")
    elif kind == "vecnormalize.pkl":
        VecNormalize.load(str(path), DummyVecEnv([Empty]))
    else:
        yaml.load(content, yaml.UnsafeLoader)


@pytest.mark.parametrize("kind", list(PAYLOADS))
@pytest.mark.filterwarnings("ignore")
def test_the_payloads_run_where_others_read_them(kind: str, tmp_path: Path) -> None:
    marker = tmp_path / "PAYLOAD_RAN"
    content = PAYLOADS[kind](marker)
    assert not marker.exists()
    with contextlib.suppress(Exception):  # the harm is done before they notice
        load_as_others_do(content, kind, tmp_path / "agent.zip")
    assert marker.is_dir()


PLACES = [
    *("npg-Task-v0.zip", "ppo.zip", "best_model.zip", "model.pkl", "policy.pth", "policy.pt"),
    *("pytorch_variables.pth", "vecnormalize.pkl", "vec_normalize.pkl", "replay_buffer.pkl"),
    *("args.yml", "env_kwargs.yml", "config.json", "train_eval_metrics.zip", "__init__.py"),
]


@pytest.mark.parametrize("kind", list(PAYLOADS))
def test_a_payload_beside_the_agent_is_refused(
    kind: str, published: Any, marker: Path, attack: Any
) -> None:
    folder, content = published(), PAYLOADS[kind](marker)
    for name in PLACES:
        attack.put(folder, name, content, listed=False)
        attack.assert_refused(folder, f"'{name}', which its agent.json does not list")
        (folder / name).unlink()
    for name in PLACES:
        attack.edit(folder, lambda document, name=name: document["files"].update({name: {}}))
        attack.assert_refused(folder, "a bundle holds policy.safetensors")
        attack.edit(folder, lambda document, name=name: document["files"].pop(name))
    attack.assert_unharmed(folder)


@pytest.mark.parametrize("kind", list(PAYLOADS))
@pytest.mark.parametrize("name", LISTED)
def test_a_payload_in_a_tensor_file_is_refused(
    kind: str, name: str, published: Any, marker: Path, attack: Any
) -> None:
    folder = published()
    attack.put(folder, name, PAYLOADS[kind](marker))
    with pytest.raises(BundleError, match=name):
        Bundle.open(folder).load_model(DummyVecEnv([published.task]))


@pytest.mark.parametrize("kind", list(PAYLOADS))
def test_a_payload_in_a_file_that_is_only_carried_is_not_read(
    kind: str, published: Any, marker: Path, attack: Any
) -> None:
    folder, content = published(), PAYLOADS[kind](marker)
    for name in ("config.yml", "command.txt", "evaluation.json", "curve.csv", "replay.mp4"):
        attack.put(folder, name, content)
    for name in ("README.md", ".hidden.pkl"):
        attack.put(folder, name, content, listed=False)
    (folder / ".git").mkdir()
    attack.put(folder, ".git/hooks.py", content, listed=False)
    attack.assert_unharmed(folder)


@pytest.mark.parametrize("kind", list(PAYLOADS))
def test_a_payload_as_agent_json_is_refused(
    kind: str, published: Any, marker: Path, attack: Any
) -> None:
    folder = published()
    (folder / "agent.json").write_bytes(PAYLOADS[kind](marker))
    attack.assert_refused(folder, "is not JSON")


def test_pickles_in_the_document_are_refused(published: Any, marker: Path, attack: Any) -> None:
    folder = published()
    original = (folder / "agent.json").read_bytes()
    for section in ("arguments", "policy_kwargs", "counters", "environment", "versions"):
        for key in ("learning_rate", "activation_fn", "extra", ":serialized:"):
            value = serialized(marker)
            attack.edit(folder, lambda d, s=section, k=key, v=value: d[s].update({k: v}))  # type: ignore[misc]
            attack.assert_refused(folder)
            (folder / "agent.json").write_bytes(original)
    attack.assert_unharmed(folder)


CODE = [
    *("os.system", "os.mkdir('x')", "__import__('os')", "lambda: 0", "torch.nn.Tanh", "nn.Tanh"),
    *("eval", "!!python/name:os.system", "builtins.exec", "agents.npg:NPG", "{{7*7}}", "$(id)"),
]


@pytest.mark.parametrize("code", CODE)
def test_code_and_dotted_names_are_refused(
    code: str, published: Any, marker: Path, attack: Any
) -> None:
    folder = published()
    original = (folder / "agent.json").read_bytes()
    changes: list[Callable[[dict[str, Any]], Any]] = [
        lambda d: d["algorithm"].update(name=code),
        lambda d: d["algorithm"].update(library=code),
        lambda d: d.update(policy=code),
        lambda d: d["arguments"].update(learning_rate=code),
        lambda d: d["arguments"].update(learning_rate={"schedule": code, "start": 1}),
        lambda d: d["arguments"].update(critic=code),
        lambda d: d["policy_kwargs"].update(activation_fn=code),
        lambda d: d["policy_kwargs"].update(optimizer_class=code),
        lambda d: d["policy_kwargs"].update(features_extractor_class=code),
        lambda d: d["observation_space"].update(type=code),
        lambda d: d["observation_space"].update(dtype=code),
    ]
    for change in changes:
        attack.edit(folder, change)
        attack.assert_refused(folder)
        (folder / "agent.json").write_bytes(original)
