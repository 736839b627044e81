"""RL Zoo's folders and repositories: found, read safely, written so that SB3 itself reads them."""

from __future__ import annotations

import collections
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3 as sb3
import yaml
from sb3_contrib import TRPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from agents import NPG
from agents.errors import BundleError, ConfigError
from hub.guests.guest_files import find_guest
from hub.guests.pickle_reader import Built, Symbol, read_pickle
from hub.guests.rl_zoo_export import rl_zoo_files, rl_zoo_name
from hub.rl_zoo import load_guest
from hub.vec_normalize import normalizer_of

EVALUATION = {"mean_return": 1.0, "std_return": 0.5, "returns": [1.0, 2.0], "deterministic": True}


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def normalized() -> VecNormalize:
    env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
    env.seed(0)
    env.reset()
    for _ in range(50):
        env.step(np.array([[1.0]]))
    return env


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What RL Zoo leaves, without its time: the layout and the tags are those of 2.9.2."""
    folder = tmp_path_factory.mktemp("logs") / "ppo" / "Pendulum-v1_1"
    settings = folder / "Pendulum-v1"
    settings.mkdir(parents=True)
    env = normalized()
    model = sb3.PPO("MlpPolicy", env, n_steps=64, learning_rate=lambda x: 1e-3 * x, seed=0)
    model.save(folder / "Pendulum-v1.zip")
    sb3.PPO("MlpPolicy", env, n_steps=64, seed=1).save(folder / "best_model.zip")
    model.save(folder / "rl_model_100_steps.zip")
    (settings / "vecnormalize.pkl").write_bytes(pickle.dumps(env))
    config = collections.OrderedDict(learning_rate="lin_1e-3", n_steps=64, normalize=True)
    args = collections.OrderedDict(algo="ppo", env="Pendulum-v1", env_kwargs={"g": 9.81})
    (settings / "config.yml").write_text(yaml.dump(config))
    (settings / "args.yml").write_text(yaml.dump(args))
    return folder


def test_a_run_is_read(run: Path) -> None:
    files = find_guest(names(run))
    assert files is not None
    assert files.all() == [
        *("Pendulum-v1.zip", "Pendulum-v1/vecnormalize.pkl"),
        *("Pendulum-v1/config.yml", "Pendulum-v1/args.yml"),
    ]
    guest = load_guest(run, files)
    assert (guest.algo, guest.env_id, guest.env_kwargs) == ("ppo", "Pendulum-v1", {"g": 9.81})
    assert guest.notes == ()
    assert guest.model.lr_schedule(0.5) == pytest.approx(5e-4)  # from "lin_1e-3" in config.yml
    trusted = load_guest(run, files, trust_pickle=True)
    for observation in np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32):
        actions = [
            agent.model.predict(agent.normalizer(observation), deterministic=True)[0]  # type: ignore[misc,arg-type]
            for agent in (guest, trusted)
        ]
        np.testing.assert_array_equal(*actions)


def test_the_best_model_is_another(run: Path) -> None:
    best = find_guest(names(run), "best")
    assert best is not None
    assert best.archive == "best_model.zip"
    final = find_guest(names(run))
    assert final is not None
    weights = [
        load_guest(run, files).model.policy.state_dict()["action_net.weight"]
        for files in (best, final)
    ]
    assert not (weights[0] == weights[1]).all()


def test_a_repository_is_found_by_its_names() -> None:
    hub_files = [
        *("README.md", "args.yml", "config.yml", "env_kwargs.yml", "ppo-Walker2d-v3.zip"),
        *("ppo-Walker2d-v3/data", "ppo-Walker2d-v3/policy.pth", "replay.mp4", "results.json"),
        *("train_eval_metrics.zip", "vec_normalize.pkl"),
    ]
    files = find_guest(hub_files)
    assert files is not None
    assert files.all() == [
        *("ppo-Walker2d-v3.zip", "vec_normalize.pkl", "config.yml", "args.yml"),
        *("env_kwargs.yml", "README.md"),
    ]
    assert find_guest(["README.md", "config.json", "train_eval_metrics.zip", "a/b/c.zip"]) is None
    assert find_guest(["agent.zip"], "best") is None


def test_the_environment_is_found(run: Path, tmp_path: Path) -> None:
    archive = (run / "Pendulum-v1.zip").read_bytes()
    (tmp_path / "ppo-Pendulum-v1.zip").write_bytes(archive)
    files = find_guest(names(tmp_path))
    assert files is not None
    assert load_guest(tmp_path, files).env_id == "Pendulum-v1"
    card = {"model-index": [{"results": [{"dataset": {"name": "ALE/Pong-v5"}}]}]}
    (tmp_path / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n")
    files = find_guest(names(tmp_path))
    assert files is not None
    guest = load_guest(tmp_path, files)
    assert guest.env_id == "ALE/Pong-v5"
    assert guest.normalizer is None
    assert guest.notes == (
        "learning_rate is a function of the author's; ppo's default takes its place should "
        "training go on.",
    )


def changed(run: Path, folder: Path, **contents: str | bytes | None) -> Path:
    """Copy a run with other files; None leaves one out."""
    for name in names(run):
        key = Path(name).name.replace(".", "_")
        content = contents.get(key, (run / name).read_bytes())
        if content is not None:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def load(folder: Path) -> Any:
    files = find_guest(names(folder))
    assert files is not None
    return load_guest(folder, files)


def test_an_agent_without_its_statistics_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="trained on normalised observations and has no"):
        load(changed(run, tmp_path, vecnormalize_pkl=None))


def test_wrappers_are_told(run: Path, tmp_path: Path) -> None:
    config = "normalize: false\nframe_stack: 4\nlearning_rate: 0.1\n"
    guest = load(changed(run, tmp_path, config_yml=config))
    assert guest.normalizer is None  # RL Zoo would not look at the file either
    assert guest.notes == (
        "It was trained with frame_stack: 4; give it observations of the same kind.",
    )


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def test_nothing_hostile_runs(run: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    hostile = {
        "config_yml": f"!!python/object/apply:os.mkdir [{marker}]",
        "args_yml": f"env_kwargs: !!python/object/apply:os.mkdir [{marker}]",
        "vecnormalize_pkl": pickle.dumps(Payload(marker)),
    }
    for number, (key, content) in enumerate(hostile.items()):
        with pytest.raises(BundleError):
            load(changed(run, tmp_path / str(number), **{key: content}))
    text = f"normalize: \"__import__('os').mkdir('{marker}')\""
    with pytest.raises(BundleError, match="not evaluated here"):
        load(changed(run, tmp_path / "text", config_yml=text))
    assert not marker.exists()
    folder = changed(run, tmp_path / "trusted", vecnormalize_pkl=pickle.dumps(Payload(marker)))
    files = find_guest(names(folder))
    assert files is not None
    with pytest.raises(BundleError, match="cannot be loaded, trusted or not"):
        load_guest(folder, files, trust_pickle=True)
    assert marker.exists()  # the payload does work, for whoever asks for it


# ---------------------------------------------------------------- writing


@pytest.fixture(scope="module")
def npg() -> tuple[NPG, VecNormalize]:
    env = normalized()
    return NPG("MlpPolicy", env, n_steps=256, seed=0, gamma=0.97).learn(256), env


def exported(npg: tuple[NPG, VecNormalize]) -> dict[str, bytes]:
    return rl_zoo_files(
        npg[0],
        normalizer_of(npg[1]),
        algo="npg",
        env_id="Pendulum-v1",
        env_kwargs={},
        evaluation=EVALUATION,
    )


def test_sb3_itself_plays_what_we_write(npg: tuple[NPG, VecNormalize], tmp_path: Path) -> None:
    model, env = npg
    files = exported(npg)
    assert sorted(files) == [
        *("args.yml", "env_kwargs.yml", "results.json", "train_eval_metrics.zip"),
        *("trpo-Pendulum-v1.zip", "vec_normalize.pkl"),
    ]
    loaded = TRPO.load(io.BytesIO(files["trpo-Pendulum-v1.zip"]))
    (tmp_path / "vecnormalize.pkl").write_bytes(files["vec_normalize.pkl"])
    wrapper = VecNormalize.load(
        str(tmp_path / "vecnormalize.pkl"), DummyVecEnv([lambda: gym.make("Pendulum-v1")])
    )
    for observation in np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32):
        scaled = wrapper.normalize_obs(observation)
        np.testing.assert_array_equal(scaled, env.normalize_obs(observation))
        np.testing.assert_array_equal(
            loaded.predict(scaled, deterministic=True)[0],
            model.predict(scaled, deterministic=True)[0],
        )
    assert (loaded.gamma, loaded.num_timesteps) == (0.97, 256)
    assert exported(npg) == files  # again the same bytes
    assert yaml.safe_load(files["args.yml"])["env_kwargs"] is None
    assert yaml.safe_load(files["env_kwargs.yml"]) == {}


def test_we_read_what_we_write(npg: tuple[NPG, VecNormalize], tmp_path: Path) -> None:
    for name, content in exported(npg).items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "config.yml").write_text("normalize: {norm_obs: true}\n")
    guest = load(tmp_path)
    observation = np.array([0.1, 0.2, 0.3], np.float32)
    np.testing.assert_array_equal(
        guest.model.predict(guest.normalizer(observation), deterministic=True)[0],
        npg[0].predict(npg[1].normalize_obs(observation), deterministic=True)[0],
    )


def test_what_is_written_names_no_class_of_ours(npg: tuple[NPG, VecNormalize]) -> None:
    """It has to load where natural-zoo is not installed."""
    import base64
    import json

    files = exported(npg)
    pickles = [files["vec_normalize.pkl"]]
    with zipfile.ZipFile(io.BytesIO(files["trpo-Pendulum-v1.zip"])) as archive:
        data = json.loads(archive.read("data"))
    pickles += [
        base64.b64decode(value[":serialized:"])
        for value in data.values()
        if isinstance(value, dict) and ":serialized:" in value
    ]
    modules = {s.module.partition(".")[0] for p in pickles for s in _symbols(read_pickle(p, "it"))}
    assert modules <= {"stable_baselines3", "sb3_contrib", "gymnasium", "numpy", "collections"}


def _symbols(value: Any) -> list[Symbol]:
    if isinstance(value, Symbol):
        return [value]
    if isinstance(value, Built):
        parts = [value.maker, *value.arguments, value.state, *value.items, *value.pairs]
    elif isinstance(value, dict):
        parts = [*value, *value.values()]
    else:
        parts = list(value) if isinstance(value, list | tuple | set) else []
    return [symbol for part in parts for symbol in _symbols(part)]


def test_without_a_normaliser_the_file_is_there_all_the_same() -> None:
    model = sb3.A2C("MlpPolicy", "CartPole-v1", seed=0)
    files = rl_zoo_files(
        model, None, algo="a2c", env_id="CartPole-v1", env_kwargs={}, evaluation=EVALUATION
    )
    wrapper = pickle.loads(files["vec_normalize.pkl"])
    assert (wrapper.norm_obs, wrapper.norm_reward) == (False, False)
    assert "a2c-CartPole-v1.zip" in files


def test_names_that_rl_zoo_knows() -> None:
    ppo = sb3.PPO("MlpPolicy", "CartPole-v1")
    expected = {"ppo": "ppo", "npg": "trpo", "trpo": "trpo", "reinforce": "a2c"}
    assert {algo: rl_zoo_name(algo, ppo) for algo in expected} == expected
    dqn = sb3.DQN("MlpPolicy", "CartPole-v1", buffer_size=10)
    with pytest.raises(ConfigError, match="RL Zoo has no algorithm for mine with"):
        rl_zoo_name("mine", dqn)
