"""Small agents of every kind, and bundles of them."""

from __future__ import annotations

import copy
import hashlib
import importlib
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from agents.errors import BundleError
from agents.registry import algorithm_class, constructor_parameters
from agents.rollout_normalize import RolloutNormalize
from hub.bundle import Bundle, save_bundle
from hub.bundle_format.tensor_file import read_tensors
from hub.vec_normalize import load_statistics, statistics

IMAGE = spaces.Box(0, 255, (36, 40, 1), np.uint8)  # channels last, as environments give them
VECTOR = spaces.Box(-np.inf, np.inf, (3,), np.float32)
CHOICE = spaces.Discrete(3)
SPACES: dict[str, spaces.Space[Any]] = {
    "vector": VECTOR,
    "image": IMAGE,
    "dict": spaces.Dict(
        {"vec": VECTOR, "image": spaces.Box(0, 255, (1, 36, 36), np.uint8), "choice": CHOICE}
    ),
    "dict_last": spaces.Dict({"vec": VECTOR, "image": IMAGE, "choice": CHOICE}),
    "box": spaces.Box(np.float32([-2.0, -0.5]), np.float32([1.0, 3.0]), dtype=np.float32),
    "discrete": spaces.Discrete(4),
    "multi_discrete": spaces.MultiDiscrete([2, 3]),
    "multi_binary": spaces.MultiBinary(3),
}
GUESTS = {
    "stable-baselines3": ("stable_baselines3", ("a2c", "dqn", "ppo", "sac", "td3")),
    "sb3-contrib": ("sb3_contrib", ("tqc", "trpo")),
}
SMALL = {
    "n_steps": 32,
    "batch_size": 32,
    "n_epochs": 2,
    "n_critic_updates": 2,
    "cg_max_iters": 3,
    "learning_starts": 8,
    "buffer_size": 500,
    "train_freq": 8,
    "seed": 3,
}
OFF_POLICY = ("dqn", "sac", "td3", "tqc")
ONLY_BOX = ("sac", "td3", "tqc")
ONLY_DISCRETE = ("dqn",)
SMALL_MLP = {"net_arch": [8, 8]}
SMALL_CNN = {"features_extractor_kwargs": {"features_dim": 16}, "net_arch": [8]}
SMALL_DICT = {"features_extractor_kwargs": {"cnn_output_dim": 16}, "net_arch": [8]}


class Task(gym.Env[Any, Any]):
    """Random observations, and a reward for the size of the action; repeatable from its seed."""

    def __init__(self, observation: str = "vector", action: str = "box") -> None:
        self.observation_space = SPACES[observation]
        self.action_space = SPACES[action]

    def _draw(self, space: spaces.Space[Any]) -> Any:
        if isinstance(space, spaces.Dict):
            return {key: self._draw(part) for key, part in space.spaces.items()}
        if isinstance(space, spaces.Discrete):
            return int(self.np_random.integers(space.n))
        if space.dtype == np.uint8:
            return self.np_random.integers(256, size=space.shape, dtype=np.uint8)
        return (5.0 + 3.0 * self.np_random.standard_normal(space.shape)).astype(np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self._draw(self.observation_space), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        reward = float(np.abs(action).sum() + self.np_random.normal())
        return self._draw(self.observation_space), reward, False, self.steps >= 11, {}


class Studio:
    """What the tests of bundles share."""

    Task = Task
    SPACES = SPACES

    @staticmethod
    def agent_class(library: str, algo: str) -> type[BaseAlgorithm]:
        if library == "natural-zoo":
            return algorithm_class(algo)
        module, _ = GUESTS[library]
        return getattr(importlib.import_module(module), algo.upper())

    @staticmethod
    def venv(
        observation: str = "vector",
        action: str = "box",
        normalize: str | dict[str, Any] | None = None,
        n_envs: int = 2,
    ) -> VecEnv:
        """Return environments; ``normalize`` is VecNormalize's keywords, or ``"rollout"``."""
        venv = DummyVecEnv([lambda: Task(observation, action)] * n_envs)
        if normalize == "rollout":
            return RolloutNormalize(venv, n_steps=32)
        return venv if normalize is None else VecNormalize(venv, **normalize)

    @staticmethod
    def action_of(algo: str, settings: dict[str, Any]) -> str:
        return settings.get("action", "discrete" if algo in ONLY_DISCRETE else "box")

    @classmethod
    def make(
        cls,
        library: str = "natural-zoo",
        algo: str = "npg",
        *,
        observation: str = "vector",
        action: str | None = None,
        normalize: str | dict[str, Any] | None = None,
        n_timesteps: int = 64,
        policy: str | None = None,
        **kwargs: Any,
    ) -> BaseAlgorithm:
        """Return a trained agent, small in everything that its algorithm lets one choose."""
        agent = cls.agent_class(library, algo)
        action = action or cls.action_of(algo, {})
        usual = {"vector": "MlpPolicy", "image": "CnnPolicy"}.get(observation, "MultiInputPolicy")
        known = constructor_parameters(agent)
        settings = {key: value for key, value in SMALL.items() if key in known}
        if algo in OFF_POLICY:
            settings.pop("n_steps", None)
        small = {"vector": SMALL_MLP, "image": SMALL_CNN}.get(observation, SMALL_DICT)
        # SB3 writes into the dict that it is given.
        kwargs["policy_kwargs"] = copy.deepcopy(kwargs.get("policy_kwargs", small))
        model = agent(
            policy or usual,
            cls.venv(observation, action, normalize),
            device="cpu",
            **settings | kwargs,
        )
        return model.learn(n_timesteps) if n_timesteps else model

    @staticmethod
    def save(path: Path, model: BaseAlgorithm, algo: str = "npg", **kwargs: Any) -> Bundle:
        return save_bundle(path, model, algo=algo, env_id="Task-v0", **kwargs)

    @staticmethod
    def observations(model: BaseAlgorithm, n: int = 20) -> Any:
        """Return a batch as the policy reads it: normalised, images with channels first."""
        space, rng = model.observation_space, np.random.default_rng(0)

        def draw(part: spaces.Space[Any]) -> np.ndarray[Any, Any]:
            if isinstance(part, spaces.Discrete):
                return rng.integers(part.n, size=n)
            if part.dtype == np.uint8:
                return rng.integers(256, size=(n, *part.shape), dtype=np.uint8)
            return rng.normal(0.0, 3.0, (n, *part.shape)).astype(np.float32)

        if isinstance(space, spaces.Dict):
            return {key: draw(part) for key, part in space.spaces.items()}
        return draw(space)

    @classmethod
    def actions(cls, model: BaseAlgorithm, *, deterministic: bool = True) -> bytes:
        set_random_seed(5)
        actions, _ = model.predict(cls.observations(model), deterministic=deterministic)
        return actions.tobytes()

    @staticmethod
    def go_on(model: BaseAlgorithm, env: VecEnv | None = None, n_timesteps: int = 64) -> None:
        """Train on from fresh environments, empty buffers and a fixed seed."""
        if env is not None:
            old, new = model.get_vec_normalize_env(), env
            if old is not None:
                load_statistics(new, statistics(old))  # type: ignore[arg-type]
            model.set_env(env)
        if getattr(model, "replay_buffer", None) is not None:
            model.replay_buffer.reset()
        set_random_seed(9)
        model.env.seed(9)
        model.action_space.seed(9)
        model.learn(n_timesteps, reset_num_timesteps=False)


class Attack:
    """What somebody does to a bundle who knows the format."""

    @staticmethod
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

    @staticmethod
    def put(folder: Path, name: str, content: bytes, *, listed: bool = True) -> None:
        (folder / name).write_bytes(content)
        if listed:
            document = json.loads((folder / "agent.json").read_text())
            document["files"].setdefault(name, {})
            (folder / "agent.json").write_text(json.dumps(document))
            Attack.sign(folder)

    @staticmethod
    def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
        document = json.loads((folder / "agent.json").read_text())
        change(document)
        (folder / "agent.json").write_text(json.dumps(document))

    @staticmethod
    def assert_refused(folder: Path, reason: str = "") -> None:
        for load in (Bundle.load_policy, Bundle.load_model):
            with pytest.raises(BundleError) as caught:
                load(Bundle.open(folder))
            assert reason in str(caught.value)
            assert "\n" not in str(caught.value)
            assert len(str(caught.value)) < 700

    @staticmethod
    def assert_unharmed(folder: Path) -> None:
        Bundle.open(folder).load_model()

    @staticmethod
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
        Attack.put(folder, name, struct.pack("<Q", len(text)) + text + data)


@pytest.fixture
def attack() -> type[Attack]:
    return Attack


@pytest.fixture(scope="session")
def studio() -> type[Studio]:
    return Studio


@pytest.fixture(scope="session")
def _published(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Save each kind of bundle once."""
    made: dict[str, Path] = {}
    folder = tmp_path_factory.mktemp("bundles")

    def published(kind: str) -> Path:
        if kind not in made:
            settings: dict[str, dict[str, Any]] = {
                "npg": {"normalize": {}},
                "sac": {"library": "stable-baselines3", "algo": "sac", "normalize": {}},
                "dict": {"observation": "dict", "normalize": {"norm_obs_keys": ["vec"]}},
            }
            model = Studio.make(**settings[kind])
            algo = settings[kind].get("algo", "npg")
            Studio.save(folder / kind, model, algo, extra_files={"evaluation.json": b"{}"})
            made[kind] = folder / kind
        return made[kind]

    return published


@pytest.fixture
def published(_published: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """Return a function that copies a bundle, to be damaged: ``published("npg")``."""

    def copy(kind: str = "npg") -> Path:
        target = tmp_path / f"{kind}-Task-v0"
        shutil.copytree(_published(kind), target)
        return target

    copy.task = Task  # type: ignore[attr-defined]
    return copy
