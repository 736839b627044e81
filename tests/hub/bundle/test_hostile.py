"""Bundles made to harm: each is refused with our error, or carries its payload to no effect.

Every payload makes a folder, the marker, when it runs. The first test shows that they do run where
SB3, torch and RL Zoo read them; all others show that no marker appears here.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import pickle
import resource
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
import torch
import yaml
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from agents.errors import BundleError
from hub.bundle import Bundle
from hub.tensor_file import read_tensors, write_tensors

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


def sign(folder: Path) -> None:
    """Make the digests right again, as an attacker would."""
    document = json.loads((folder / "agent.json").read_text())
    for name in document["files"]:
        content = (folder / name).read_bytes()
        document["files"][name] = {
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    (folder / "agent.json").write_text(json.dumps(document))


def put(folder: Path, name: str, content: bytes, *, listed: bool = True) -> None:
    (folder / name).write_bytes(content)
    if listed:
        document = json.loads((folder / "agent.json").read_text())
        document["files"].setdefault(name, {})
        (folder / "agent.json").write_text(json.dumps(document))
        sign(folder)


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads((folder / "agent.json").read_text())
    change(document)
    (folder / "agent.json").write_text(json.dumps(document))


def assert_refused(folder: Path, reason: str = "") -> None:
    for load in (Bundle.load_policy, Bundle.load_model):
        with pytest.raises(BundleError) as caught:
            load(Bundle.open(folder))
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 700


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
def test_a_payload_beside_the_agent_is_refused(kind: str, published: Any, marker: Path) -> None:
    folder, content = published(), PAYLOADS[kind](marker)
    for name in PLACES:
        put(folder, name, content, listed=False)
        assert_refused(folder, f"'{name}', which its agent.json does not list")
        (folder / name).unlink()
    for name in PLACES:
        edit(folder, lambda document, name=name: document["files"].update({name: {}}))
        assert_refused(folder, "a bundle holds policy.safetensors")
        edit(folder, lambda document, name=name: document["files"].pop(name))
    assert_unharmed(folder)


def assert_unharmed(folder: Path) -> None:
    Bundle.open(folder).load_model()


@pytest.mark.parametrize("kind", list(PAYLOADS))
@pytest.mark.parametrize("name", LISTED)
def test_a_payload_in_a_tensor_file_is_refused(
    kind: str, name: str, published: Any, marker: Path
) -> None:
    folder = published()
    put(folder, name, PAYLOADS[kind](marker))
    with pytest.raises(BundleError, match=name):
        Bundle.open(folder).load_model(DummyVecEnv([published.task]))


@pytest.mark.parametrize("kind", list(PAYLOADS))
def test_a_payload_in_a_file_that_is_only_carried_is_not_read(
    kind: str, published: Any, marker: Path
) -> None:
    folder, content = published(), PAYLOADS[kind](marker)
    for name in ("config.yml", "command.txt", "evaluation.json", "curve.csv", "replay.mp4"):
        put(folder, name, content)
    for name in ("README.md", ".hidden.pkl"):
        put(folder, name, content, listed=False)
    (folder / ".git").mkdir()
    put(folder, ".git/hooks.py", content, listed=False)
    assert_unharmed(folder)


@pytest.mark.parametrize("kind", list(PAYLOADS))
def test_a_payload_as_agent_json_is_refused(kind: str, published: Any, marker: Path) -> None:
    folder = published()
    (folder / "agent.json").write_bytes(PAYLOADS[kind](marker))
    assert_refused(folder, "is not JSON")


def test_pickles_in_the_document_are_refused(published: Any, marker: Path) -> None:
    folder = published()
    original = (folder / "agent.json").read_bytes()
    for section in ("arguments", "policy_kwargs", "counters", "environment", "versions"):
        for key in ("learning_rate", "activation_fn", "extra", ":serialized:"):
            value = serialized(marker)
            edit(folder, lambda d, s=section, k=key, v=value: d[s].update({k: v}))  # type: ignore[misc]
            assert_refused(folder)
            (folder / "agent.json").write_bytes(original)
    assert_unharmed(folder)


CODE = [
    *("os.system", "os.mkdir('x')", "__import__('os')", "lambda: 0", "torch.nn.Tanh", "nn.Tanh"),
    *("eval", "!!python/name:os.system", "builtins.exec", "agents.npg:NPG", "{{7*7}}", "$(id)"),
]


@pytest.mark.parametrize("code", CODE)
def test_code_and_dotted_names_are_refused(code: str, published: Any, marker: Path) -> None:
    folder = published()
    original = (folder / "agent.json").read_bytes()
    changes: list[Callable[[dict[str, Any]], Any]] = [
        lambda d: d["algorithm"].update(name=code),
        lambda d: d["algorithm"].update(library=code),
        lambda d: d.update(policy=code),
        lambda d: d["arguments"].update(learning_rate=code),
        lambda d: d["arguments"].update(learning_rate={"schedule": code, "start": 1}),
        lambda d: d["arguments"].update(critic=code) if code != "eval" else d.update(policy=code),
        lambda d: d["policy_kwargs"].update(activation_fn=code),
        lambda d: d["policy_kwargs"].update(optimizer_class=code),
        lambda d: d["policy_kwargs"].update(features_extractor_class=code),
        lambda d: d["observation_space"].update(type=code),
        lambda d: d["observation_space"].update(dtype=code),
    ]
    for change in changes:
        edit(folder, change)
        assert_refused(folder)
        (folder / "agent.json").write_bytes(original)


# --- Files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*LISTED, "evaluation.json"])
def test_damage_is_noticed(name: str, published: Any) -> None:
    folder = published()
    content = (folder / name).read_bytes()
    damaged = {
        "truncated": content[:-1],
        "longer": content + b"\0",
        "empty": b"",
        "one bit": content[:-1] + bytes([content[-1] ^ 1]),
    }
    for kind, other in damaged.items():
        (folder / name).write_bytes(other)
        assert_refused(folder, f"{name} has {'the SHA-256' if kind == 'one bit' else len(other)}")
    (folder / name).unlink()
    assert_refused(folder, f"lacks {name}")


def test_a_file_that_changes_after_opening_is_noticed(published: Any) -> None:
    folder = published()
    bundle = Bundle.open(folder)
    weights = read_tensors((folder / "policy.safetensors").read_bytes(), "f")
    weights["log_std"] += 1
    (folder / "policy.safetensors").write_bytes(write_tensors(weights, "f"))
    with pytest.raises(BundleError, match="it was changed or damaged"):
        bundle.load_policy()


@pytest.mark.parametrize("name", ["agent.json", *LISTED, "evaluation.json", "README.md"])
def test_links_are_refused(name: str, published: Any, tmp_path: Path) -> None:
    folder = published()
    outside = tmp_path / "outside"
    if (folder / name).exists():
        shutil.move(folder / name, outside)
    else:
        outside.write_text("secret")
    (folder / name).symlink_to(outside)
    assert_refused(folder, "link")


def test_a_linked_folder_is_refused(published: Any, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(published())
    assert_refused(tmp_path / "link", "is a link; give the folder itself")


def test_a_pipe_does_not_block(published: Any) -> None:
    for name in ("agent.json", "policy.safetensors"):
        folder = published()
        (folder / name).unlink()
        os.mkfifo(folder / name)
        assert_refused(folder, "not a regular file")
        shutil.rmtree(folder)


def test_sparse_giants_are_not_read(published: Any) -> None:
    for name in ("agent.json", "policy.safetensors", "evaluation.json"):
        folder = published()
        os.truncate(folder / name, 2**40)
        assert_refused(folder, "bytes; at most")
        shutil.rmtree(folder)


def test_a_zip_bomb_stays_packed(published: Any) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as bomb:
        bomb.writestr("policy.pth", bytes(2**24))
    for name in LISTED:
        folder = published()
        put(folder, name, buffer.getvalue())
        with pytest.raises(BundleError, match=f"{name} is truncated or not a safetensors file"):
            Bundle.open(folder).load_model(DummyVecEnv([published.task]))
        shutil.rmtree(folder)


# --- Weights ------------------------------------------------------------------------------------


def reweighted(folder: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    arrays = read_tensors((folder / name).read_bytes(), name)
    change(arrays)
    header: dict[str, Any] = {}
    data = b""
    for key, array in arrays.items():
        kind = {"f4": "F32", "f8": "F64", "i8": "I64", "i4": "I32"}[array.dtype.str[1:]]
        raw = np.ascontiguousarray(array).tobytes()
        header[key] = {
            "dtype": kind,
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    put(folder, name, struct.pack("<Q", len(text)) + text + data)


WEIGHTS: list[tuple[str, Callable[[dict[str, Any]], Any], str]] = [
    ("policy.safetensors", lambda a: a["log_std"].fill(np.nan), "NaN or infinity"),
    ("policy.safetensors", lambda a: a["log_std"].fill(-np.inf), "NaN or infinity"),
    ("policy.safetensors", lambda a: a.update(log_std=np.zeros(3, np.float32)), "the shape [3]"),
    ("policy.safetensors", lambda a: a.update(log_std=np.zeros(2)), "of type float64"),
    ("policy.safetensors", lambda a: a.pop("log_std"), "lacks 'log_std'"),
    ("policy.safetensors", lambda a: a.update(extra=np.zeros(1)), "has 'extra'"),
    ("policy.safetensors", lambda a: a.clear(), "lacks"),
]


@pytest.mark.parametrize(("name", "change", "reason"), WEIGHTS, ids=[w[2] for w in WEIGHTS])
def test_weights_that_are_none(name: str, change: Any, reason: str, published: Any) -> None:
    folder = published()
    reweighted(folder, name, change)
    assert_refused(folder, reason)


NORMAL = "normalizer.safetensors"
STATISTICS: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda a: a["obs.mean"].fill(np.nan), "NaN or infinity"),
    (lambda a: a["obs.var"].fill(-1.0), "negative variance"),
    (lambda a: a["obs.count"].fill(0.0), "no samples"),
    (lambda a: a.update({"obs.mean": np.zeros(4)}), "float64 of shape [3]"),
    (lambda a: a.update({"obs.mean": np.zeros(3, np.float32)}), "is float32"),
    (lambda a: a.update({"obs.count": np.ones(1)}), "float64 of shape []"),
    (lambda a: a.pop("ret.var"), "lacks 'ret.var'"),
    (lambda a: a.update({"obs.extra": np.zeros(1)}), "has 'obs.extra'"),
]


@pytest.mark.parametrize(("change", "reason"), STATISTICS, ids=[s[1] for s in STATISTICS])
def test_statistics_that_are_none(change: Any, reason: str, published: Any) -> None:
    folder = published()
    reweighted(folder, NORMAL, change)
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder).normalizer  # noqa: B018 - reading it is the act
    assert reason in str(caught.value)


# --- Too much -----------------------------------------------------------------------------------

HUGE = 2**40
BOMBS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "wide": lambda d: d["policy_kwargs"].update(net_arch=[HUGE]),
    "deep": lambda d: d["policy_kwargs"].update(net_arch=[1] * 4096),
    "wide and deep": lambda d: d["policy_kwargs"].update(net_arch={"pi": [2**16] * 64, "vf": []}),
    "observation": lambda d: d["observation_space"].update(shape=[HUGE]),
    "observation within limits": lambda d: d["observation_space"].update(shape=[2**22]),
    "choices": lambda d: d.update(
        observation_space={"type": "Discrete", "n": 2**24, "start": 0, "dtype": "int64"}
    ),
    "actions": lambda d: d["action_space"].update(shape=[2**22], low=-1, high=1),
    "image": lambda d: d["observation_space"].update(shape=[4, 1024, 1024], low=0, high=1),
    "rollout": lambda d: d["arguments"].update(n_steps=HUGE),
    "environments": lambda d: d.update(n_envs=2**16) or d["arguments"].update(n_steps=2**20),
    "seed": lambda d: d["arguments"].update(seed=2**62),
    "negative seed": lambda d: d["arguments"].update(seed=-1),
    "window": lambda d: d["policy_kwargs"].update(log_std_init=1e308, net_arch=[2**30]),
}
SAC_BOMBS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "critics": lambda d: d["policy_kwargs"].update(n_critics=10**9),
    "replay": lambda d: d["arguments"].update(buffer_size=HUGE),
    "extractor": lambda d: d["policy_kwargs"].update(
        features_extractor_class="nature_cnn", features_extractor_kwargs={"features_dim": HUGE}
    ),
    "wide": lambda d: d["policy_kwargs"].update(net_arch={"pi": [8], "qf": [HUGE]}),
}


@pytest.mark.parametrize(
    ("kind", "bomb"),
    [*(("npg", name) for name in BOMBS), *(("sac", name) for name in SAC_BOMBS)],
)
def test_bombs_do_not_go_off(kind: str, bomb: str, published: Any) -> None:
    folder = published(kind)
    edit(folder, (BOMBS if kind == "npg" else SAC_BOMBS)[bomb])
    before = resource.getrusage(resource.RUSAGE_SELF)
    with pytest.raises(BundleError):
        Bundle.open(folder).load_model()
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert after.ru_maxrss - before.ru_maxrss < 400_000  # KiB
    assert after.ru_utime - before.ru_utime < 10.0


def test_arguments_that_do_not_go_together(published: Any) -> None:
    folder = published()
    original = (folder / "agent.json").read_bytes()
    discrete = {"type": "Discrete", "n": 2, "start": 0, "dtype": "int64"}
    changes: list[Callable[[dict[str, Any]], Any]] = [
        lambda d: d["algorithm"].update(name="trpo", library="sb3-contrib"),
        lambda d: d["algorithm"].update(name="dqn", library="stable-baselines3"),
        lambda d: d.update(policy="CnnPolicy"),
        lambda d: d.update(action_space=discrete),
        lambda d: d.update(action_space=discrete) or d["arguments"].update(use_sde=True),
        lambda d: d["arguments"].update(use_sde=True),
        lambda d: d["arguments"].update(target_kl=-1.0),
        lambda d: d["arguments"].update(critic="magic"),
        lambda d: d["policy_kwargs"].update(use_sde=True),
        lambda d: d["policy_kwargs"].update(optimizer_kwargs={"lr": 1.0}),
        lambda d: d["policy_kwargs"].update(optimizer_kwargs={"momentum": 1.0}),
        lambda d: d["policy_kwargs"].update(features_extractor_class="combined"),
        lambda d: d["counters"].update(n_calls=1),
        lambda d: d["counters"].update(num_timesteps="many"),
        lambda d: d["counters"].update(num_timesteps=-1),
    ]
    for change in changes:
        edit(folder, change)
        with pytest.raises(BundleError):
            Bundle.open(folder).load_model()
        (folder / "agent.json").write_bytes(original)
    assert_unharmed(folder)
