"""A Hub of our own in a process of its own, and ONNX files made by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TESTS = Path(__file__).parent.parent
ACCOUNTS = (
    "ada:hf_ada:zoo-lab",  # writes to her own namespace and the organisation's
    "ada:hf_ada_read:zoo-lab:read",
    "bob:hf_bob",
)


@dataclass(frozen=True)
class LiveHub:
    """A running server.

    :param url: what ``HF_ENDPOINT`` is set to.
    :param root: where it keeps its repositories.
    """

    url: str
    root: Path
    process: subprocess.Popen[str]

    def api(self, token: str | bool = "hf_ada") -> Any:
        """Return the real client with a user's token; False sends none."""
        from huggingface_hub import HfApi

        return HfApi(endpoint=self.url, token=token)

    def environment(self, home: Path, token: str | None = "hf_ada") -> dict[str, str]:
        """Return the variables of a process on a machine of its own: empty home, empty cache."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        hub = {
            "HOME": str(home),
            "XDG_CACHE_HOME": str(home / ".cache"),
            "HF_HOME": str(home / ".cache" / "huggingface"),
            "HF_ENDPOINT": self.url,
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        return kept | hub | ({"HF_TOKEN": token} if token else {})


@pytest.fixture(scope="session")
def start_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., LiveHub]]:
    """Start servers: ``start_hub(root)``; they end with the tests."""
    started: list[LiveHub] = []

    def start(root: Path | None = None) -> LiveHub:
        root = root or tmp_path_factory.mktemp("hub")
        options = [part for account in ACCOUNTS for part in ("--account", account)]
        process = subprocess.Popen(
            [sys.executable, "-m", "hub_server", "--root", str(root), *options],
            cwd=TESTS,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        started.append(LiveHub(process.stdout.readline().strip(), root, process))
        return started[-1]

    yield start
    for hub in started:
        hub.process.terminate()
        hub.process.wait(10)
        if hub.process.stdout:
            hub.process.stdout.close()


@pytest.fixture(scope="session")
def live_hub(start_hub: Callable[..., LiveHub]) -> LiveHub:
    """The server that tests share; each uses repositories of its own."""
    return start_hub()


def _box(shape: list[int], dtype: str = "float32") -> dict[str, Any]:
    return {"type": "Box", "shape": shape, "dtype": dtype, "low": "-inf", "high": "inf"}


@pytest.fixture
def linear_onnx(tmp_path: Path) -> Callable[..., Path]:
    """Write ``actions = clip(((obs − mean) / std) @ weight, ±1)`` as the exporter would.

    ``linear_onnx(weight, mean, std, dtype="float32", **metadata)``; None leaves a key out.
    """
    import onnx
    from onnx import helper, numpy_helper

    def write(
        weight: Any,
        mean: Any = None,
        std: Any = None,
        dtype: str = "float32",
        name: str = "policy.onnx",
        **metadata: str | None,
    ) -> Path:
        weight = np.asarray(weight, dtype)
        n_in, n_out = weight.shape
        real = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        constants = {"weight": weight, "low": np.array(-1, dtype), "high": np.array(1, dtype)}
        steps, last = [], "obs"
        if mean is not None:
            constants |= {"mean": np.asarray(mean, dtype), "std": np.asarray(std, dtype)}
            steps += [("Sub", ["obs", "mean"], "centered"), ("Div", ["centered", "std"], "scaled")]
            last = "scaled"
        steps += [("MatMul", [last, "weight"], "mean_actions")]
        steps += [("Clip", ["mean_actions", "low", "high"], "clipped")]
        nodes = [helper.make_node(kind, given, [result]) for kind, given, result in steps]
        nodes.append(helper.make_node("Cast", ["clipped"], ["actions"], to=onnx.TensorProto.FLOAT))
        graph = helper.make_graph(
            nodes,
            "policy",
            [helper.make_tensor_value_info("obs", real, ["batch", n_in])],
            [helper.make_tensor_value_info("actions", onnx.TensorProto.FLOAT, ["batch", n_out])],
            [numpy_helper.from_array(value, key) for key, value in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
        known: dict[str, str | None] = {
            "format_version": "1",
            "env_id": "Test-v0",
            "observation_space": json.dumps(_box([n_in], dtype)),
            "action_space": json.dumps(_box([n_out])),
        }
        if mean is not None:
            known["obs_mean"] = json.dumps(np.asarray(mean, float).tolist())
            known["obs_std"] = json.dumps(np.asarray(std, float).tolist())
        known |= metadata
        helper.set_model_props(
            model, {key: text for key, text in known.items() if text is not None}
        )
        path = tmp_path / name
        path.write_bytes(model.SerializeToString())
        return path

    return write


@pytest.fixture
def at_hub(live_hub: LiveHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LiveHub:
    """The shared server, to which this process is logged in with an empty cache."""
    from huggingface_hub import constants

    monkeypatch.setenv("HF_ENDPOINT", live_hub.url)
    monkeypatch.setenv("HF_TOKEN", "hf_ada")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf-cache"))
    return live_hub


@dataclass(frozen=True)
class Maker:
    """Makes small real agents: NPG on the pendulum, one update, with statistics of its own."""

    config: dict[str, Any]
    evaluation: dict[str, Any]

    def agent(self, seed: int = 0, env_id: str = "Pendulum-v1") -> tuple[Any, Any]:
        """Return a model and its environment."""
        import gymnasium as gym
        from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

        from agents import NPG

        env = VecNormalize(DummyVecEnv([lambda: gym.make(env_id)]))
        return NPG("MlpPolicy", env, n_steps=64, seed=seed).learn(64), env

    def bundle(self, folder: Path, seed: int = 0, **extra: str) -> Any:
        """Return a whole bundle, with ONNX files, evaluation and curve."""
        from hub.bundle import save_bundle
        from hub.portable_agent import PortableAgent

        model, env = self.agent(seed)
        bundle = save_bundle(
            folder,
            model,
            algo="npg",
            env_id="Pendulum-v1",
            normalizer=env,
            config_yml=json.dumps(self.config),
            command="python -m zoo.train --algo npg --env Pendulum-v1 --seed 0 -f /home/ada/logs\n",
        )
        curve = "timesteps,mean_return,std_return\n32,-1400.0,10.0\n64,-1200.0,20.0\n"
        files = {"evaluation.json": json.dumps(self.evaluation), "curve.csv": curve, **extra}
        bundle = bundle.with_files({name: text.encode() for name, text in files.items()})
        return bundle.with_files(PortableAgent.of_bundle(bundle).onnx_files()[0])


@pytest.fixture(scope="session")
def maker() -> Maker:
    return Maker(
        config={
            "algo": "npg",
            "seed": 0,
            "n_envs": 1,
            "normalize": {"norm_obs": True, "norm_reward": True},
            "agent": {"n_steps": 64},
        },
        evaluation={
            "algo": "npg",
            "env_id": "Pendulum-v1",
            "training_seed": 0,
            "num_timesteps": 64,
            "deterministic": True,
            "mean_return": -1200.0,
            "std_return": 100.0,
            "seeds": [1, 2],
            "returns": [-1100.0, -1300.0],
            "lengths": [200, 200],
        },
    )
