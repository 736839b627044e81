"""``python -m hub.export`` and what it makes of a bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import onnx
import pytest
from gymnasium import spaces
from stable_baselines3 import A2C, PPO, TD3
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from hub.bundle import Bundle, save_bundle
from hub.export import main
from hub.portable_agent import PortableAgent, evaluation_summary
from hub.runtime import OnnxPolicy

ENV_ID = "InvertedPendulum-v5"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """An agent with a normaliser and an evaluation."""
    env = VecNormalize(DummyVecEnv([lambda: gym.make(ENV_ID)]))
    model = PPO("MlpPolicy", env, n_steps=64, batch_size=32, device="cpu").learn(64)
    report = {"mean_return": 12.0, "std_return": 2.0, "num_timesteps": 64, "returns": [10.0, 14.0]}
    return save_bundle(
        tmp_path_factory.mktemp("agents") / "agent",
        model,
        algo="ppo",
        env_id=ENV_ID,
        extra_files={"evaluation.json": json.dumps(report).encode()},
    )


def _properties(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def _names(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


def test_two_files_by_default(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "robot" / "files"
    assert main([str(bundle.path), "-o", str(folder)]) == 0
    names = [f"ppo-{ENV_ID}.onnx", f"ppo-{ENV_ID}.f64.onnx"]
    assert _names(folder) == sorted(names)
    assert capsys.readouterr().out.splitlines() == [str(folder / name) for name in names]
    found = _properties(folder / names[0])
    assert found["algo"] == "ppo"
    assert found["env_id"] == ENV_ID
    assert json.loads(found["observation_names"])[1] == "hinge_angle"
    assert json.loads(found["action_units"]) == ["100 N"]
    assert found["joint_names"] == "slider"
    assert json.loads(found["versions"])["torch"]
    assert json.loads(found["evaluation"]) == {
        "mean_return": 12.0,
        "std_return": 2.0,
        "num_timesteps": 64,
        "n_episodes": 2,
    }
    for name in names:
        for trace in (str(tmp_path), str(bundle.path), "/site-packages"):
            assert trace.encode() not in (folder / name).read_bytes()


def test_the_files_act_as_the_agent_does(bundle: Bundle, tmp_path: Path) -> None:
    assert main([str(bundle.path), "-o", str(tmp_path)]) == 0
    policy, normalizer = bundle.load_policy(device="cpu"), bundle.normalizer
    assert normalizer is not None
    observations = np.random.default_rng(0).normal(size=(50, 4)) * 0.1
    expected, _ = policy.predict(normalizer(observations), deterministic=True)
    for name in (f"ppo-{ENV_ID}.onnx", f"ppo-{ENV_ID}.f64.onnx"):
        actions = OnnxPolicy(tmp_path / name)(observations)
        np.testing.assert_allclose(actions, expected, atol=1e-5)


def test_everything_that_can_be_asked_for(bundle: Bundle, tmp_path: Path) -> None:
    asked = ["--value", "--stochastic", "--c"]
    assert main([str(bundle.path), "-o", str(tmp_path), *asked]) == 0
    stem = f"ppo-{ENV_ID}"
    assert _names(tmp_path) == sorted(
        f"{stem}{end}" for end in (".onnx", ".f64.onnx", ".value.onnx", ".stochastic.onnx", ".h")
    )
    outputs = {
        end: [info.name for info in onnx.load(tmp_path / f"{stem}{end}.onnx").graph.output]
        for end in ("", ".f64", ".value", ".stochastic")
    }
    assert outputs == {
        "": ["actions"],
        ".f64": ["actions"],
        ".value": ["actions", "value"],
        ".stochastic": ["mean", "log_std"],
    }
    assert float(_properties(tmp_path / f"{stem}.value.onnx")["reward_std"]) > 0.0
    header = (tmp_path / f"{stem}.h").read_text()
    assert "void ppo_invertedpendulum_v5_act(const double *obs, float *actions)" in header
    assert " * Task: InvertedPendulum-v5\n" in header
    assert '"mean_return": 12.0' in header


def test_same_agent_same_files(bundle: Bundle, tmp_path: Path) -> None:
    contents = []
    for name in ("one", "two"):
        assert main([str(bundle.path), "-o", str(tmp_path / name), "--c", "--value"]) == 0
        contents.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert contents[0] == contents[1]
    files, reasons = PortableAgent.of_bundle(bundle).onnx_files()
    assert not reasons
    assert files["policy.f64.onnx"] == contents[0][f"ppo-{ENV_ID}.f64.onnx"]
    with_onnx = save_bundle(
        tmp_path / "again",
        bundle.load_model(device="cpu"),
        algo="ppo",
        env_id=ENV_ID,
        normalizer=bundle.normalizer,
        extra_files=files,
    )
    assert with_onnx.read("policy.onnx") == files["policy.onnx"]


def test_a_run_folder(bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    (run / ENV_ID).mkdir(parents=True)
    (run / ENV_ID / "config.yml").write_text("algo: ppo\n")
    assert main([str(run), "-o", str(tmp_path)]) == 1
    assert "has no bundle/ yet" in capsys.readouterr().err
    shutil.copytree(bundle.path, run / "bundle")
    assert main([str(run), "-o", str(tmp_path / "out")]) == 0
    assert len(_names(tmp_path / "out")) == 2


def _save(model: Any, path: Path, algo: str, env_id: str = "Unknown-v0") -> str:
    save_bundle(path / "agent", model, algo=algo, env_id=env_id)
    return str(path / "agent")


def test_what_cannot_be_made_is_not_begun(
    agents: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Either all the files that were asked for, or none."""
    model = TD3("MlpPolicy", agents.World("vector", "box"), buffer_size=10, device="cpu")
    agent = _save(model, tmp_path, "td3")
    assert main([agent, "-o", str(tmp_path / "out"), "--stochastic"]) == 1
    assert "is deterministic" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([agent, "-o", str(tmp_path / "out"), "--c", "--value"]) == 0
    names = json.loads(_properties(tmp_path / "out" / "td3-Unknown-v0.onnx")["observation_names"])
    assert names == [f"obs_{index}" for index in range(5)]


def test_names_of_a_task(bundle: Bundle, agents: Any) -> None:
    """Of the environment that is given; none if it is another one."""
    given = gym.make("InvertedPendulum-v4")
    agent = PortableAgent.of_bundle(bundle, env=given)
    given.close()
    assert agent.name == f"ppo-{ENV_ID}"
    assert list(agent.control.joint_names) == ["slider"]
    assert agent.control.control_dt == 0.04
    other = PortableAgent.of_bundle(bundle, env=agents.World("vector", "box"))
    assert list(other.control.observation_names) == ["obs_0", "obs_1", "obs_2", "obs_3"]
    assert other.control.control_dt is None


def test_without_a_float64_file(
    agents: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"activation_fn": nn.GELU}
    world = agents.World("vector", "box")
    agent = _save(A2C("MlpPolicy", world, policy_kwargs=options, device="cpu"), tmp_path, "a2c")
    assert main([agent, "-o", str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [str(tmp_path / "out" / "a2c-Unknown-v0.onnx")]
    assert err.startswith("no a2c-Unknown-v0.f64.onnx: The network needs the operator Erf")


class Camera(gym.Env[Any, Any]):
    observation_space = spaces.Box(0, 255, (40, 36, 3), np.uint8)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return self.observation_space.sample(), {}


def test_images_enter_as_the_environment_gives_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = A2C("CnnPolicy", Camera(), device="cpu")
    agent = _save(model, tmp_path, "a2c")
    assert main([agent, "-o", str(tmp_path)]) == 0
    images = np.random.default_rng(0).integers(0, 256, (4, 40, 36, 3), dtype=np.uint8)
    expected, _ = model.predict(images, deterministic=True)
    for name in ("a2c-Unknown-v0.onnx", "a2c-Unknown-v0.f64.onnx"):
        np.testing.assert_array_equal(OnnxPolicy(tmp_path / name)(images), expected)
        assert _properties(tmp_path / name)["image_layout"] == "HWC"
    capsys.readouterr()
    assert main([agent, "-o", str(tmp_path), "--c"]) == 1
    assert "this policy has an image; use its ONNX file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("agent", "code", "message"),
    [
        ("no-such-agent", 1, "Unknown agent 'no-such-agent'"),
        (None, 2, "required: AGENT"),
    ],
)
def test_errors_in_one_line(
    agent: str | None, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([] if agent is None else [agent]) == code
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err


def test_an_exported_file_is_no_agent(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(bundle.path), "-o", str(tmp_path)]) == 0
    assert main([str(tmp_path / f"ppo-{ENV_ID}.onnx")]) == 1
    assert "is exported already" in capsys.readouterr().err


@pytest.mark.parametrize("report", [None, [], {}, {"returns": []}, {"returns": "1"}])
def test_reports_without_returns(report: Any) -> None:
    assert evaluation_summary(report) is None


def test_what_a_report_lacks_is_left_out() -> None:
    report = {"returns": [1.0], "mean_return": "1", "std_return": np.nan, "num_timesteps": 5}
    assert evaluation_summary(report) == {"num_timesteps": 5, "n_episodes": 1}
