"""Opening, loading and completing a bundle."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize

import hub
from agents import registry
from agents.errors import BundleError, ConfigError, MissingDependency, UnknownName
from hub.bundle import Bundle, save_bundle
from hub.bundle_format import agent_classes
from hub.vec_normalize import normalizer_of, statistics

# --- What is in it ------------------------------------------------------------------------------


def test_the_files_and_the_document(published: Callable[..., Path]) -> None:
    folder = published("npg")
    bundle = Bundle.open(str(folder))
    assert bundle.files == (
        "policy.safetensors",
        "normalizer.safetensors",
        "optimizer.safetensors",
        "evaluation.json",
    )
    assert sorted(os.listdir(folder)) == sorted([*bundle.files, "agent.json"])
    assert bundle.read("evaluation.json") == b"{}"
    document = json.loads((folder / "agent.json").read_text())
    assert document["algorithm"] == {"library": "natural-zoo", "name": "npg"}
    assert document["environment"] == {"id": "Task-v0", "kwargs": {}}
    assert document["counters"]["num_timesteps"] == 64
    assert document["n_envs"] == 2
    assert document["versions"]["torch"] == torch.__version__
    assert document["files"]["evaluation.json"]["size"] == 2
    with pytest.raises(BundleError, match=r"has no curve\.csv"):
        bundle.read("curve.csv")


def test_the_same_agent_gives_the_same_bytes(studio: Any, tmp_path: Path) -> None:
    for name in ("one", "other"):
        studio.save(tmp_path / name, studio.make(normalize={}))
    for name in os.listdir(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_what_is_loaded_is_saved_as_the_same_bytes(
    published: Callable[..., Path], studio: Any, tmp_path: Path
) -> None:
    for kind, algo in (("npg", "npg"), ("sac", "sac")):
        bundle = Bundle.open(published(kind))
        model = bundle.load_model(studio.venv())
        again = studio.save(tmp_path / f"{kind}-again", model, algo)
        for name in ("policy.safetensors", "normalizer.safetensors", "optimizer.safetensors"):
            assert again.read(name) == bundle.read(name)
        assert again.manifest.arguments == bundle.manifest.arguments
        assert again.manifest.counters == bundle.manifest.counters


def test_files_of_the_run(studio: Any, tmp_path: Path) -> None:
    (tmp_path / "video").write_bytes(b"mp4")
    model = studio.make(n_timesteps=0)
    bundle = studio.save(
        tmp_path / "agent",
        model,
        env_kwargs={"frame_skip": 4, "xml_file": "ant.xml"},
        config_yml="algo: npg\n",
        command="python -m zoo.train --algo npg",
        extra_files={
            "README.md": b"# Card",
            "policy.onnx": b"onnx",
            "replay.mp4": tmp_path / "video",
        },
    )
    assert bundle.manifest.env_kwargs == {"frame_skip": 4, "xml_file": "ant.xml"}
    assert bundle.read("config.yml") == b"algo: npg\n"
    assert bundle.read("command.txt") == b"python -m zoo.train --algo npg"
    assert bundle.read("replay.mp4") == b"mp4"
    assert (bundle.path / "README.md").read_bytes() == b"# Card"
    assert "README.md" not in bundle.files


def test_a_card_may_be_edited_by_hand(published: Callable[..., Path]) -> None:
    folder = published()
    (folder / "README.md").write_text("edited on the Hub's web page")
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs")
    Bundle.open(folder).load_policy()


def test_files_that_do_not_belong(studio: Any, tmp_path: Path) -> None:
    model = studio.make(n_timesteps=0)
    for name in ("policy.pt", "../policy.onnx", "agent.json", "policy.safetensors", "/x", "a/b"):
        with pytest.raises(BundleError, match="Unknown file of a bundle"):
            studio.save(tmp_path / "agent", model, extra_files={name: b""})
    with pytest.raises(BundleError, match=r"Cannot read .*nowhere for the bundle"):
        studio.save(tmp_path / "agent", model, extra_files={"curve.csv": tmp_path / "nowhere"})
    with pytest.raises(BundleError, match="at most 1048576 are allowed"):
        studio.save(tmp_path / "agent", model, command="x" * (2**20 + 1))
    assert os.listdir(tmp_path) == []


def test_files_can_be_put_in_later(published: Callable[..., Path], studio: Any) -> None:
    folder = published()
    before = Bundle.open(folder)
    (folder / "README.md").write_text("kept")
    after = before.with_files({"policy.onnx": b"onnx", "evaluation.json": b"[1]"})
    assert after.read("policy.onnx") == b"onnx"
    assert after.read("evaluation.json") == b"[1]"
    assert after.read("policy.safetensors") == before.read("policy.safetensors")
    assert (folder / "README.md").read_text() == "kept"
    assert after.manifest.to_json() | {"files": 0} == before.manifest.to_json() | {"files": 0}
    assert studio.actions(after.load_model()) == studio.actions(after.load_model())
    with pytest.raises(BundleError, match="Unknown file"):
        after.with_files({"policy.safetensors": b""})


def test_a_failed_save_leaves_the_old_bundle(
    published: Callable[..., Path], studio: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = published()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    broken = studio.make()
    broken.learning_rate = lambda _: 1.0
    with pytest.raises(BundleError, match="learning_rate"):
        studio.save(folder, broken)
    poisoned = studio.make()
    with torch.no_grad():
        poisoned.policy.log_std[0] = float("nan")
    with pytest.raises(BundleError, match="'log_std' holds NaN"):
        studio.save(folder, poisoned)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


# --- Loading ------------------------------------------------------------------------------------


def test_without_torch_until_the_agent_is_built(published: Callable[..., Path]) -> None:
    """Looking into a bundle and normalising with it costs no torch."""
    script = f"""
import sys
sys.modules["torch"] = sys.modules["stable_baselines3"] = None
import numpy as np
from hub.bundle import Bundle
bundle = Bundle.open({str(published("npg"))!r})
print(bundle.manifest.env_id, bundle.normalizer(np.zeros((1, 3), np.float32)).shape)
"""
    finished = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(Path(hub.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout == "Task-v0 (1, 3)\n"


def test_the_policy_alone(published: Callable[..., Path], studio: Any) -> None:
    for kind in ("npg", "sac", "dict"):
        bundle = Bundle.open(published(kind))
        model, policy = bundle.load_model(), bundle.load_policy()
        assert not policy.training
        expected, _ = model.predict(studio.observations(model), deterministic=True)
        actions, _ = policy.predict(studio.observations(model), deterministic=True)
        np.testing.assert_array_equal(actions, expected)


def test_random_generators_are_left_alone(published: Callable[..., Path], studio: Any) -> None:
    def drawn() -> tuple[Any, ...]:
        return random.random(), np.random.random(), float(torch.rand(1))

    bundle = Bundle.open(published("sac"))
    sequences = []
    for load in (False, True):
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        if load:
            studio.save(bundle.path, bundle.load_model(studio.venv()), "sac")
        sequences.append([drawn() for _ in range(3)])
    assert sequences[0] == sequences[1]


def test_arguments_can_be_changed(published: Callable[..., Path], studio: Any) -> None:
    bundle = Bundle.open(published("sac"))
    model = bundle.load_model(studio.venv(), learning_rate=0.5, buffer_size=64, verbose=0)
    assert model.lr_schedule(1.0) == 0.5
    assert model.replay_buffer.buffer_size == 32  # of each of two environments
    assert bundle.load_model().replay_buffer.buffer_size == 250
    for name in ("policy_kwargs", "policy", "bufer_size"):
        with pytest.raises(UnknownName, match="Unknown SAC argument"):
            bundle.load_model(**{name: None})


def test_the_number_of_environments_may_change(published: Callable[..., Path], studio: Any) -> None:
    bundle = Bundle.open(published("npg"))
    assert bundle.load_model().n_envs == 2
    model = bundle.load_model(studio.Task())  # one environment of Gymnasium
    assert model.n_envs == 1
    studio.go_on(model)
    assert model.num_timesteps == 64 + 64


def test_two_loads_are_independent(published: Callable[..., Path], studio: Any) -> None:
    bundle = Bundle.open(published("npg"))
    one, other = (bundle.load_model(studio.venv()) for _ in range(2))
    before, normal = studio.actions(other), statistics(other.get_vec_normalize_env())
    studio.go_on(one)
    assert studio.actions(other) == before
    assert statistics(other.get_vec_normalize_env())["obs.count"] == normal["obs.count"]
    assert bundle.normalizer.arrays["obs.count"] == normal["obs.count"]


# --- Normaliser ---------------------------------------------------------------------------------


def test_a_plain_environment_is_wrapped(published: Callable[..., Path], studio: Any) -> None:
    bundle = Bundle.open(published("npg"))
    wrapper = bundle.load_model(studio.venv()).get_vec_normalize_env()
    raw = np.random.default_rng(0).normal(5, 3, (7, 3)).astype(np.float32)
    np.testing.assert_array_equal(wrapper.normalize_obs(raw), bundle.normalizer(raw))
    assert wrapper.training
    assert wrapper.norm_reward


def test_a_wrapped_environment_takes_the_statistics_over(
    published: Callable[..., Path], studio: Any
) -> None:
    bundle = Bundle.open(published("npg"))
    venv = studio.venv(normalize={"clip_obs": 7.0})
    model = bundle.load_model(venv)
    assert model.get_vec_normalize_env() is venv
    assert venv.clip_obs == 7.0
    np.testing.assert_array_equal(venv.obs_rms.mean, bundle.normalizer.arrays["obs.mean"])


def test_other_environments_are_refused(published: Callable[..., Path], studio: Any) -> None:
    bundle = Bundle.open(published("npg"))
    for settings in ({"action": "discrete"}, {"observation": "dict"}, {"observation": "image"}):
        with pytest.raises(ConfigError, match="The agent was trained on Task-v0"):
            bundle.load_model(studio.venv(**settings))
    bundle = Bundle.open(published("dict"))
    with pytest.raises(ConfigError, match="it belongs to another environment"):
        bundle.load_model(studio.venv("dict", normalize={"norm_obs_keys": ["vec", "image"]}))


def test_an_agent_that_takes_observations_raw(studio: Any, tmp_path: Path) -> None:
    bundle = studio.save(tmp_path / "agent", studio.make())
    assert bundle.normalizer is None
    with pytest.raises(ConfigError, match="Pass the environment without it"):
        bundle.load_model(studio.venv(normalize={}))


def test_statistics_given_by_hand(studio: Any, tmp_path: Path) -> None:
    model, other = studio.make(), studio.make(normalize={"gamma": 0.5})
    wrapper = other.get_vec_normalize_env()
    for given in (wrapper, normalizer_of(wrapper)):
        bundle = studio.save(tmp_path / "agent", model, normalizer=given)
        assert bundle.normalizer.gamma == 0.5
        np.testing.assert_array_equal(bundle.normalizer.arrays["obs.mean"], wrapper.obs_rms.mean)


def test_images_that_are_transposed_or_normalised(studio: Any, tmp_path: Path) -> None:
    """SB3 transposes images with channels last, but not those that VecNormalize made floats of."""
    settings = {"observation": "dict_last", "n_timesteps": 0}
    for keys, transposed, shape in (
        (["vec"], ("obs.image",), (1, 36, 40)),
        (["vec", "image"], (), (36, 40, 1)),
    ):
        model = studio.make(normalize={"norm_obs_keys": keys}, **settings)
        bundle = studio.save(tmp_path / "agent", model)
        assert bundle.manifest.transposed_images == transposed
        assert bundle.manifest.observation_space["image"].shape == shape
        assert sum(name.endswith(".mean") for name in bundle.normalizer.arrays) == 1 + len(keys)
        loaded = bundle.load_model(studio.venv("dict_last"))
        assert studio.actions(loaded) == studio.actions(model)
        studio.go_on(loaded, n_timesteps=64)


def test_statistics_of_other_observations_are_refused(studio: Any, tmp_path: Path) -> None:
    stacked = VecFrameStack(VecNormalize(DummyVecEnv([studio.Task])), 2)
    model = PPO("MlpPolicy", stacked, n_steps=8, batch_size=8, device="cpu")
    with pytest.raises(BundleError, match="put VecNormalize outermost"):
        save_bundle(tmp_path / "agent", model, algo="ppo", env_id="Task-v0")
    discrete = DQN("MlpPolicy", "CartPole-v1", buffer_size=10, device="cpu")
    for normalizer in (stacked.venv, normalizer_of(stacked.venv)):
        with pytest.raises(BundleError, match="shape"):
            save_bundle(
                tmp_path / "agent",
                discrete,
                algo="dqn",
                env_id="CartPole-v1",
                normalizer=normalizer,
            )


# --- Others' algorithms -------------------------------------------------------------------------

PLUGIN = """
from agents import NPG

class Tempered(NPG):
    resumable_attributes = ("temper", "n_coolings")

    def __init__(self, *args, start_temper: float = 1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.start_temper = self.temper = start_temper
        self.n_coolings = 0

    def train(self):
        super().train()
        self.temper *= 0.5
        self.n_coolings += 1
"""


def test_an_algorithm_of_another_package(
    studio: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tempered_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint("tempered", "tempered_plugin:Tempered", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    registry._entry_points.cache_clear()
    try:
        model = studio.make("natural-zoo", "tempered", start_temper=3.0)
        bundle = studio.save(tmp_path / "agent", model, "tempered")
        assert bundle.manifest.arguments["start_temper"] == 3.0
        assert bundle.manifest.counters["temper"] == 1.5
        loaded = bundle.load_model()
        assert type(loaded) is type(model)
        assert (loaded.start_temper, loaded.temper, loaded.n_coolings) == (3.0, 1.5, 1)
        assert studio.actions(loaded) == studio.actions(model)
    finally:
        monkeypatch.undo()
        registry._entry_points.cache_clear()
        sys.modules.pop("tempered_plugin", None)
    with pytest.raises(BundleError, match="needs that package installed"):
        bundle.load_model()


class Compiled(torch.nn.Module):
    """Holds a module as torch.compile's own wrapper does, without its minutes of imports."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self._orig_mod = module
        self.optimizer = module.optimizer


def test_a_compiled_policy(studio: Any, tmp_path: Path) -> None:
    model = studio.make()
    expected = studio.actions(model)
    model.policy = Compiled(model.policy)
    assert studio.actions(studio.save(tmp_path / "agent", model).load_model()) == expected


# --- Guests -------------------------------------------------------------------------------------


def test_a_guest_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    with pytest.raises(MissingDependency, match="pip install sb3-contrib"):
        agent_classes.agent_class("sb3-contrib", "tqc")


def test_ours_and_theirs_of_the_same_name(studio: Any, tmp_path: Path) -> None:
    for library in ("natural-zoo", "stable-baselines3"):
        model = studio.make(library, "ppo", n_timesteps=0)
        bundle = studio.save(tmp_path / "agent", model, "ppo")
        assert bundle.manifest.library == library
        assert type(bundle.load_model()) is type(model)


def test_ours_need_no_guests(published: Any, studio: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    bundle = Bundle.open(published("npg"))
    studio.save(bundle.path, bundle.load_model(studio.venv()))
