"""A reader of bundles in NumPy, written from docs/bundle_format.md alone, against SB3.

No torch, no SB3 and nothing of this project is used to read and to act: what the page leaves out
would show here.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Tensors = dict[str, np.ndarray[Any, Any]]
DTYPES = {"F32": "<f4", "F64": "<f8", "I64": "<i8"}
ERF = np.vectorize(math.erf, otypes=[np.float64])
ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x * (1 + ERF(x / math.sqrt(2))) / 2,
}


class HandReader:
    """An agent out of a folder, by the page."""

    def __init__(self, folder: Path) -> None:
        self.agent = json.loads((folder / "agent.json").read_text(encoding="utf-8"))
        assert (self.agent["format"], self.agent["format_version"]) == ("natural-zoo-agent", 1)
        for name, record in self.agent["files"].items():
            content = (folder / name).read_bytes()
            assert record["size"] == len(content)
            assert record["sha256"] == hashlib.sha256(content).hexdigest()
        self.weights = self.tensors(folder / "policy.safetensors")
        if self.agent["normalization"]:
            self.statistics = self.tensors(folder / "normalizer.safetensors")

    @staticmethod
    def tensors(path: Path) -> Tensors:
        content = path.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
        tensors = {}
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            tensors[name] = np.frombuffer(data[begin:end], DTYPES[entry["dtype"]]).reshape(
                entry["shape"]
            )
        return tensors

    def act(self, raw: Any) -> np.ndarray[Any, Any]:
        """Return the actions for a batch of observations as the environment gives them."""
        kind = self.kind()
        prefix = {"actor_critic": "", "dqn": "q_net.", "sac": "actor.", "td3": "actor."}[kind]
        hidden = self.features(raw, f"{prefix}features_extractor.")
        body = {
            "actor_critic": "mlp_extractor.policy_net",
            "dqn": "q_net.q_net",
            "sac": "actor.latent_pi",
            "td3": "actor.mu",
        }[kind]
        activation = self.agent["policy_kwargs"].get("activation_fn")
        function = ACTIVATIONS[activation or ("tanh" if kind == "actor_critic" else "relu")]
        layers = sorted(
            int(name.split(".")[-2])
            for name in self.weights
            if name.startswith(f"{body}.") and name.endswith("weight")
        )
        last = layers.pop() if kind in ("dqn", "td3") else None
        for index in layers:
            hidden = function(self.linear(hidden, f"{body}.{index}"))
        heads = {"actor_critic": "action_net", "dqn": f"{body}.{last}", "td3": f"{body}.{last}"}
        sac_head = "actor.mu" if "actor.mu.weight" in self.weights else "actor.mu.0"
        return self.action(self.linear(hidden, heads.get(kind, sac_head)), kind)

    def act_with_memory(self, raw: Any, state: tuple[Any, Any] | None) -> tuple[Any, Any]:
        """Return the actions of one step, and the memory after it."""
        x = np.tanh(self.linear(self.features(raw, ""), "mlp_extractor.body.0"))
        lstm = {
            name: self.weights[f"mlp_extractor.lstm.{name}"].astype(float)
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        }
        size = lstm["weight_hh"].shape[1]
        h, c = state or (np.zeros((len(x), size)), np.zeros((len(x), size)))
        gates = x @ lstm["weight_ih"].T + lstm["bias_ih"] + h @ lstm["weight_hh"].T
        i, f, g, o = np.split(gates + lstm["bias_hh"], 4, axis=1)
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
        return self.action(self.linear(h, "action_net"), "actor_critic"), (h, c)

    def kind(self) -> str:
        name = self.agent["algorithm"]["name"]
        return {"sac": "sac", "tqc": "sac", "td3": "td3", "dqn": "dqn"}.get(name, "actor_critic")

    def linear(self, x: Any, name: str) -> Any:
        return x @ self.weights[f"{name}.weight"].astype(float).T + self.weights[f"{name}.bias"]

    def features(self, raw: Any, prefix: str) -> Any:
        space = self.agent["observation_space"]
        if space["type"] != "Dict":
            return self.part(raw, space, "obs", prefix)
        parts = [
            self.part(raw[key], space["spaces"][key], f"obs.{key}", f"{prefix}extractors.{key}.")
            for key in space["keys"]
        ]
        return np.concatenate(parts, axis=1)

    def part(self, x: Any, space: Any, name: str, prefix: str) -> Any:
        if name in self.agent["transposed_images"]:
            x = np.transpose(x, (0, 3, 1, 2))
        settings = self.agent["normalization"]
        if settings and settings["norm_obs"] and f"{name}.mean" in self.statistics:
            mean, var = self.statistics[f"{name}.mean"], self.statistics[f"{name}.var"]
            x = (x - mean) / np.sqrt(var + settings["epsilon"])
            x = np.clip(x, -settings["clip_obs"], settings["clip_obs"]).astype(np.float32)
        if space["type"] == "Discrete":
            return np.eye(space["n"])[x]
        if space["type"] == "MultiDiscrete":
            hot = [np.eye(n)[x[:, i]] for i, n in enumerate(space["nvec"])]
            return np.concatenate(hot, axis=1)
        x = x.astype(np.float64)
        is_image = space.get("dtype") == "uint8" and len(space["shape"]) == 3
        if is_image and (space["low"], space["high"]) == (0, 255):
            if self.agent["policy_kwargs"].get("normalize_images", True):
                x = x / 255
            if f"{prefix}cnn.0.weight" in self.weights:
                return self.image(x, prefix)
        return x.reshape(len(x), -1)

    def image(self, x: Any, prefix: str) -> Any:
        for index, stride in ((0, 4), (2, 2), (4, 1)):
            weight = self.weights[f"{prefix}cnn.{index}.weight"].astype(float)
            size = weight.shape[2:]
            windows = np.lib.stride_tricks.sliding_window_view(x, size, axis=(2, 3))
            windows = windows[:, :, ::stride, ::stride]
            x = np.einsum("bchwij,ocij->bohw", windows, weight)
            x = np.maximum(x + self.weights[f"{prefix}cnn.{index}.bias"][:, None, None], 0)
        return np.maximum(self.linear(x.reshape(len(x), -1), f"{prefix}linear.0"), 0)

    def action(self, y: Any, kind: str) -> Any:
        space = self.agent["action_space"]
        if space["type"] == "Discrete":
            return y.argmax(axis=1)
        if space["type"] == "MultiDiscrete":
            groups = np.split(y, np.cumsum(space["nvec"])[:-1], axis=1)
            return np.stack([group.argmax(axis=1) for group in groups], axis=1)
        if space["type"] == "MultiBinary":
            return (y > 0).astype(np.int8)
        low, high = (np.array(space[key], float) for key in ("low", "high"))
        arguments, kwargs = self.agent["arguments"], self.agent["policy_kwargs"]
        if kind == "actor_critic" and not kwargs.get("squash_output"):
            return np.clip(y, low, high)
        clip_mean = kwargs.get("clip_mean", 2.0)
        if kind == "sac" and arguments["use_sde"] and clip_mean:
            y = np.clip(y, -clip_mean, clip_mean)
        return low + (np.tanh(y) + 1) / 2 * (high - low)


OBS = {"normalize": {"clip_obs": 1.5}}
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("natural-zoo", "npg", OBS),
    *(
        ("natural-zoo", "npg", {"policy_kwargs": {"activation_fn": name, "net_arch": [9, 7, 5]}})
        for name in ACTIVATIONS
    ),
    ("natural-zoo", "npg", {"action": "discrete"}),
    ("natural-zoo", "npg", {"action": "multi_discrete"}),
    ("natural-zoo", "npg", {"action": "multi_binary"}),
    ("natural-zoo", "npg", {"observation": "image"}),
    ("natural-zoo", "npg", {"observation": "dict_last", "normalize": {"norm_obs_keys": ["vec"]}}),
    ("natural-zoo", "npg", {"use_sde": True}),
    (
        "stable-baselines3",
        "ppo",
        {"use_sde": True, "policy_kwargs": {"squash_output": True, "net_arch": []}},
    ),
    ("stable-baselines3", "sac", OBS),
    ("stable-baselines3", "sac", {"use_sde": True}),
    ("stable-baselines3", "sac", {"observation": "image"}),
    ("sb3-contrib", "tqc", {"observation": "dict"}),
    ("stable-baselines3", "td3", OBS),
    ("stable-baselines3", "dqn", {**OBS, "seed": 4}),
    ("stable-baselines3", "dqn", {"observation": "dict"}),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_page_is_enough_to_act(case: Any, studio: Any, tmp_path: Path) -> None:
    library, algo, settings = case
    settings = dict(settings)
    if name := settings.get("policy_kwargs", {}).get("activation_fn"):
        from hub.bundle_format.named_classes import ACTIVATIONS as CLASSES

        settings["policy_kwargs"] = settings["policy_kwargs"] | {"activation_fn": CLASSES[name]}
    model = studio.make(library, algo, **settings)
    bundle = studio.save(tmp_path / "agent", model, algo)
    venv = studio.venv(
        settings.get("observation", "vector"), studio.action_of(algo, settings), n_envs=20
    )
    venv.seed(4)
    raw = venv.reset()
    reader = HandReader(tmp_path / "agent")
    seen = bundle.normalizer(raw) if bundle.normalizer else raw  # SB3 transposes by itself
    expected, _ = model.predict(seen, deterministic=True)
    actions = reader.act(raw)
    assert len({action.tobytes() for action in expected}) > 1
    assert actions.shape == expected.shape
    np.testing.assert_allclose(actions, expected, rtol=0, atol=2e-6)


def test_the_page_is_enough_to_remember(studio: Any, tmp_path: Path) -> None:
    settings = {"policy": "MlpLstmPolicy", "policy_kwargs": {"net_arch": [8]}}
    model = studio.make("natural-zoo", "a3c", **settings)
    studio.save(tmp_path / "agent", model, "a3c")
    reader, state, memory = HandReader(tmp_path / "agent"), None, None
    raw = studio.observations(model)
    for _ in range(3):
        expected, state = model.predict(raw, state=state, deterministic=True)
        actions, memory = reader.act_with_memory(raw, memory)
        np.testing.assert_allclose(actions, expected, rtol=0, atol=2e-6)
    forgetful, _ = reader.act_with_memory(raw, None)
    assert np.abs(forgetful - actions).max() > 1e-3


def test_what_training_goes_on_with_is_named_as_the_page_says(studio: Any, tmp_path: Path) -> None:
    model = studio.make("stable-baselines3", "sac")
    studio.save(tmp_path / "agent", model, "sac")
    tensors = HandReader.tensors(tmp_path / "agent" / "optimizer.safetensors")
    assert tensors["actor.optimizer/lr"].dtype == np.float64
    assert tensors["log_ent_coef"].shape == (1,)
    parameters = list(model.actor.parameters())
    for index, parameter in enumerate(parameters):
        state = model.actor.optimizer.state[parameter]
        for slot in ("exp_avg", "exp_avg_sq", "step"):
            np.testing.assert_array_equal(
                tensors[f"actor.optimizer/{index}/{slot}"], state[slot].numpy()
            )
