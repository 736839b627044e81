"""SB3's archives: models that behave the same, and payloads that do not run."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
import sb3_contrib
import stable_baselines3 as sb3
import torch
from gymnasium import spaces
from stable_baselines3.common.envs import FakeImageEnv, SimpleMultiObsEnv
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from agents.errors import BundleError
from hub.guests.sb3_archive import read_sb3_archive
from hub.guests.sb3_model import build_sb3_model
from hub.guests.vec_normalize_pickle import read_vec_normalize
from hub.normalizer import Normalizer
from hub.vec_normalize import normalizer_of

OFF: dict[str, Any] = {"buffer_size": 200, "learning_starts": 20, "batch_size": 16}
MODELS: dict[str, Callable[[], Any]] = {
    "ppo": lambda: sb3.PPO("MlpPolicy", "Pendulum-v1", n_steps=64, policy_kwargs={"net_arch": [8]}),
    "ppo-schedules": lambda: sb3.PPO(
        *("MlpPolicy", "Pendulum-v1", lambda progress: 3e-4 * progress),
        n_steps=64,
        clip_range=0.3,
        policy_kwargs={"activation_fn": nn.ReLU, "net_arch": {"pi": [8], "vf": [4, 4]}},
    ),
    "ppo-gsde": lambda: sb3.PPO("MlpPolicy", "Pendulum-v1", n_steps=64, use_sde=True),
    "ppo-dict": lambda: sb3.PPO("MultiInputPolicy", SimpleMultiObsEnv(), n_steps=64),
    "a2c": lambda: sb3.A2C("MlpPolicy", "CartPole-v1"),
    "a2c-adam": lambda: sb3.A2C("MlpPolicy", "CartPole-v1", use_rms_prop=False),
    "sac": lambda: sb3.SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, **OFF),
    "sac-fixed": lambda: sb3.SAC(
        "MlpPolicy", "Pendulum-v1", ent_coef=0.1, train_freq=(1, "episode"), **OFF
    ),
    "td3": lambda: sb3.TD3("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, **OFF),
    "ddpg": lambda: sb3.DDPG("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, **OFF),
    "dqn": lambda: sb3.DQN("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [8]}, **OFF),
    "trpo": lambda: sb3_contrib.TRPO("MlpPolicy", "Pendulum-v1", n_steps=128),
    "tqc": lambda: sb3_contrib.TQC(
        "MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, **OFF
    ),
    "qrdqn": lambda: sb3_contrib.QRDQN(
        "MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [8]}, **OFF
    ),
    "ppo-cnn": lambda: sb3.PPO(
        "CnnPolicy",
        FakeImageEnv(3, screen_height=36, screen_width=36),
        n_steps=16,
        batch_size=16,
        policy_kwargs={"features_extractor_kwargs": {"features_dim": 16}},
    ),
}
CLASS_OF = {"ddpg": "TD3"}  # which it is, with other settings


def saved(model: Any, path: Path, steps: int = 40) -> Path:
    model.learn(steps)
    model.save(path)
    return path


SLOW = ("ppo-cnn", "ppo-gsde", "a2c-adam", "sac-fixed", "ddpg", "tqc", "qrdqn")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in MODELS]
)
def test_models_are_the_same(name: str, tmp_path: Path) -> None:
    original = MODELS[name]()
    path = saved(original, tmp_path / "agent.zip")
    archive = read_sb3_archive(path)
    model = build_sb3_model(
        archive, "it", instead={"learning_rate": 1e-3} if "sched" in name else {}
    )
    algo = name.split("-")[0]
    assert type(model).__name__ == CLASS_OF.get(algo, algo.upper())
    space = original.observation_space
    space.seed(0)
    for _ in range(20):
        observation = space.sample()
        expected, _ = original.predict(observation, deterministic=True)
        np.testing.assert_array_equal(model.predict(observation, deterministic=True)[0], expected)
    _assert_same_state(original, model)
    for key in archive.settings:
        if key not in ("learning_rate", "clip_range", "train_freq", "use_rms_prop"):
            assert getattr(model, key) == getattr(original, key), key
    model.set_env(original.get_env())
    model.learn(100, reset_num_timesteps=False)
    assert model.num_timesteps > original.num_timesteps


def _assert_same_state(one: Any, two: Any) -> None:
    """Weights and optimiser states are equal bit for bit."""
    left, right = one.get_parameters(), two.get_parameters()
    assert left.keys() == right.keys()
    left_tensors, right_tensors = _tensors(left), _tensors(right)
    assert left_tensors.keys() == right_tensors.keys()
    for key, tensor in left_tensors.items():
        assert torch.equal(tensor, right_tensors[key]), key


def _tensors(tree: Any, prefix: str = "") -> dict[str, torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        return {prefix: tree}
    items = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else ()
    )
    return {k: v for key, sub in items for k, v in _tensors(sub, f"{prefix}/{key}").items()}


def test_settings_and_what_only_running_would_tell(tmp_path: Path) -> None:
    archive = read_sb3_archive(saved(MODELS["ppo-schedules"](), tmp_path / "agent.zip"))
    assert archive.unreadable == ("learning_rate",)
    assert archive.settings["clip_range"] == 0.3
    assert archive.settings["n_steps"] == 64
    assert archive.policy_kwargs == {
        "activation_fn": nn.ReLU,
        "net_arch": {"pi": [8], "vf": [4, 4]},
    }
    assert (archive.algo, archive.policy, archive.counters["num_timesteps"]) == (
        "ppo",
        "MlpPolicy",
        64,
    )
    assert archive.observation_space == gym.make("Pendulum-v1").observation_space
    archive = read_sb3_archive(saved(MODELS["sac-fixed"](), tmp_path / "sac.zip"))
    assert archive.settings["train_freq"] == (1, "episode")


def rewritten(path: Path, change: Callable[[dict[str, Any]], Any], out: Path) -> Path:
    """Copy an archive with another ``data``."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "data":
                data = json.loads(content)
                changed = change(data)
                content = json.dumps(data if changed is None else changed).encode()
            target.writestr(name, content)
    return out


class Attribute:
    """Is pickled as an attribute, as Python 3.11.0 to 3.11.3 pickles members of enumerations."""

    def __init__(self, owner: Any, name: str) -> None:
        self.reduced = getattr, (owner, name)

    def __reduce__(self) -> Any:
        return self.reduced


@pytest.mark.parametrize(("name", "expected"), [("STEP", "step"), ("EPISODE", "episode")])
def test_enumerations_as_other_pythons_pickle_them(
    tmp_path: Path, name: str, expected: str
) -> None:
    def change(data: dict[str, Any]) -> None:
        freq = TrainFreq(3, Attribute(TrainFrequencyUnit, name))  # type: ignore[arg-type]
        data["train_freq"][":serialized:"] = base64.b64encode(cloudpickle.dumps(freq)).decode()

    path = saved(MODELS["sac-fixed"](), tmp_path / "sac.zip")
    archive = read_sb3_archive(rewritten(path, change, tmp_path / "changed.zip"))
    assert archive.settings["train_freq"] == (3, expected)


def test_no_other_attribute_is_looked_up(tmp_path: Path) -> None:
    def change(data: dict[str, Any]) -> None:
        freq = TrainFreq(3, Attribute(os, "system"))  # type: ignore[arg-type]
        data["train_freq"][":serialized:"] = base64.b64encode(cloudpickle.dumps(freq)).decode()

    path = saved(MODELS["sac-fixed"](), tmp_path / "sac.zip")
    with pytest.raises(BundleError, match="train_freq should hold plain data"):
        read_sb3_archive(rewritten(path, change, tmp_path / "changed.zip"))


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def serialized(value: Any) -> dict[str, str]:
    content = base64.b64encode(cloudpickle.dumps(value)).decode()
    return {":type:": "<class 'object'>", ":serialized:": content}


@pytest.fixture(scope="module")
def ppo_zip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(MODELS["ppo"](), tmp_path_factory.mktemp("ppo") / "agent.zip")


@pytest.mark.parametrize(
    "key", ["policy_class", "observation_space", "clip_range", "policy_kwargs", "gamma", "n_steps"]
)
def test_payload_where_it_is_read_is_refused(ppo_zip: Path, tmp_path: Path, key: str) -> None:
    marker = tmp_path / "ran"
    path = rewritten(
        ppo_zip, lambda data: data.update({key: serialized(Payload(marker))}), tmp_path / "x.zip"
    )
    with pytest.raises(BundleError):
        read_sb3_archive(path)
    assert not marker.exists()
    with contextlib.suppress(Exception):  # whatever SB3 makes of it afterwards
        sb3.PPO.load(path)
    assert marker.exists()  # the payload does work


@pytest.mark.parametrize("key", ["ep_info_buffer", "extra", "_last_obs", "lr_schedule"])
def test_payload_that_nobody_needs_is_not_looked_at(
    ppo_zip: Path, tmp_path: Path, key: str
) -> None:
    marker = tmp_path / "ran"
    path = rewritten(
        ppo_zip, lambda data: data.update({key: serialized(Payload(marker))}), tmp_path / "x.zip"
    )
    build_sb3_model(read_sb3_archive(path), "it")
    assert not marker.exists()


def test_payload_in_a_function_does_not_run(ppo_zip: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    schedule = serialized(lambda progress: marker.mkdir())
    path = rewritten(ppo_zip, lambda data: data.update(clip_range=schedule), tmp_path / "x.zip")
    archive = read_sb3_archive(path)
    assert archive.unreadable == ("clip_range",)
    assert build_sb3_model(archive, "it").clip_range(1.0) == 0.2  # type: ignore[attr-defined]
    assert not marker.exists()


@pytest.mark.parametrize("member", ["policy.pth", "policy.optimizer.pth", "pytorch_variables.pth"])
def test_payload_in_the_weights_is_refused(ppo_zip: Path, tmp_path: Path, member: str) -> None:
    marker = tmp_path / "ran"
    path = tmp_path / "x.zip"
    for content in (pickle.dumps(Payload(marker)), _torch_file(Payload(marker))):
        with zipfile.ZipFile(ppo_zip) as source, zipfile.ZipFile(path, "w") as target:
            for name in source.namelist():
                target.writestr(name, content if name == member else source.read(name))
        with pytest.raises(BundleError):
            read_sb3_archive(path)
        assert not marker.exists()


def _torch_file(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save({"weight": value}, buffer)
    return buffer.getvalue()


def test_plain_attributes_of_a_stranger_are_not_set(ppo_zip: Path, tmp_path: Path) -> None:
    path = rewritten(
        ppo_zip,
        lambda data: data.update(predict="no", env="x", tensorboard_log="/tmp/x", seed=3),
        tmp_path / "x.zip",
    )
    model = build_sb3_model(read_sb3_archive(path), "it")
    assert callable(model.predict)
    assert (model.env, model.tensorboard_log, model.seed) == (None, None, None)


def _without(key: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda data: {k: v for k, v in data.items() if k != key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("policy_class"), "policy_class is missing"),
        (_without("observation_space"), "observation_space is missing"),
        (lambda d: d.update(observation_space={":serialized:": "%%%"}), "not base64"),
        (lambda d: d.update(observation_space={":serialized:": 3}), "not base64"),
        (lambda d: d.update(policy_kwargs=[]), "policy_kwargs is no dictionary"),
        (lambda d: d.update(policy_kwargs={"net_arch": [99]}), "cannot be loaded"),
        (lambda d: d.update(policy_kwargs={"nonsense": 1}), "cannot be loaded"),
        (lambda d: d.update(n_steps=[1]), "should hold one value"),
        (lambda d: d.update(n_envs=10**9), "n_envs is not a number from 1"),
        (lambda d: d.update(policy_class=serialized(dict)), "algorithm that is not read"),
        (lambda d: d.update(policy_class=serialized(nn.ReLU)), "algorithm that is not read"),
        (lambda d: [], "has no policy"),
    ],
)
def test_damage_is_refused(
    ppo_zip: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    path = rewritten(ppo_zip, change, tmp_path / "x.zip")
    with pytest.raises(BundleError, match=message):
        build_sb3_model(read_sb3_archive(path), "it")


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with pytest.raises(BundleError, match="There is no file"):
        read_sb3_archive(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(BundleError, match="no archive of Stable-Baselines3"):
        read_sb3_archive(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(BundleError, match="no archive of Stable-Baselines3"):
        read_sb3_archive(path)


def test_truncated_archives_are_refused(ppo_zip: Path, tmp_path: Path) -> None:
    content = ppo_zip.read_bytes()
    path = tmp_path / "x.zip"
    for length in range(0, len(content), 997):
        path.write_bytes(content[:length])
        with pytest.raises(BundleError):
            read_sb3_archive(path)


def test_bombs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", b" " * (65 * 2**20))
    assert path.stat().st_size < 100_000
    with pytest.raises(BundleError, match="would unpack to more"):
        read_sb3_archive(path)


def normalizer(env_id: Any, **options: Any) -> tuple[VecNormalize, bytes]:
    env = VecNormalize(
        DummyVecEnv([lambda: gym.make(env_id) if isinstance(env_id, str) else env_id]), **options
    )
    env.reset()
    for _ in range(20):
        env.step([env.action_space.sample()])
    return env, pickle.dumps(env)


@pytest.mark.parametrize(
    ("env_id", "options"),
    [
        ("Pendulum-v1", {}),
        ("Pendulum-v1", {"norm_obs": False, "gamma": 0.9}),
        ("Pendulum-v1", {"norm_reward": False, "clip_obs": 5.0, "epsilon": 1e-6}),
        (SimpleMultiObsEnv(discrete_actions=False), {"norm_obs_keys": ["vec"]}),
    ],
)
def test_statistics_are_the_same(env_id: Any, options: dict[str, Any]) -> None:
    wrapper, content = normalizer(env_id, **options)
    expected = normalizer_of(wrapper)
    found = read_vec_normalize(content, "vecnormalize.pkl")
    assert found.arrays.keys() == expected.arrays.keys()
    for key, array in expected.arrays.items():
        np.testing.assert_array_equal(found.arrays[key], array)
    for name in Normalizer.__dataclass_fields__:
        if name != "arrays":
            assert getattr(found, name) == getattr(expected, name)
    observation = wrapper.observation_space.sample()
    np.testing.assert_equal(found(observation), wrapper.normalize_obs(observation))


def test_hostile_statistics_are_refused(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    wrapper, _ = normalizer("Pendulum-v1")
    contents = [pickle.dumps(Payload(marker)), b"", b"nonsense", pickle.dumps({"obs_rms": 1})]
    for key in ("ret_rms", "obs_rms", "clip_obs"):
        state = {**wrapper.__getstate__(), key: Payload(marker)}
        hostile = VecNormalize.__new__(VecNormalize)
        hostile.__dict__.update(state | dict.fromkeys(("venv", "class_attributes", "returns")))
        contents.append(pickle.dumps(hostile))
    wrapper.obs_rms.var[0] = np.nan
    contents.append(pickle.dumps(wrapper))
    for content in contents:
        with pytest.raises(BundleError):
            read_vec_normalize(content, "vecnormalize.pkl")
    assert not marker.exists()


def test_spaces_of_the_old_gym(ppo_zip: Path, tmp_path: Path) -> None:
    """Agents on the Hub from before Gymnasium name the package ``gym``, which nobody has."""

    def change(data: dict[str, Any]) -> None:
        for key in ("observation_space", "action_space"):
            content = base64.b64decode(data[key][":serialized:"])
            old, new = b"\x8c\x14gymnasium.spaces.box", b"\x8c\x0egym.spaces.box"
            assert content.count(old) == 1
            content = content.replace(old, new)
            content = b"\x80\x05" + content[11:]  # without the frame, whose length has changed
            data[key][":serialized:"] = base64.b64encode(content).decode()

    archive = read_sb3_archive(rewritten(ppo_zip, change, tmp_path / "x.zip"))
    assert isinstance(archive.observation_space, spaces.Box)
    assert archive.observation_space == gym.make("Pendulum-v1").observation_space
