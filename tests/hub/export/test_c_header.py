"""The C header, compiled at every level: the same actions as the float64 file, bit for bit."""

from __future__ import annotations

import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from agents.errors import ExportError
from hub.c_code.header import build_c_header
from hub.c_code.source import comment, constant, identifier
from hub.control_names import ControlNames, describe_control
from hub.onnx_export import build_policy_onnx

UNNAMED = ControlNames([], [], [], [])
_RELU = {"policy_kwargs": {"activation_fn": nn.ReLU, "net_arch": [256]}}
_OFF_POLICY = {"buffer_size": 10}


def _activation(kind: type[nn.Module]) -> dict[str, Any]:
    return {"policy_kwargs": {"activation_fn": kind, "net_arch": [8]}}


CASES: list[Any] = [
    (PPO, "vector", "asymmetric", {}),
    (A2C, "multi-discrete", "multi-binary", _activation(nn.ELU)),
    (A2C, "discrete", "multi-discrete", {"policy_kwargs": {"net_arch": []}}),
    (SAC, "vector", "asymmetric", _OFF_POLICY),
    pytest.param(PPO, "matrix", "discrete", _RELU, marks=pytest.mark.slow),
    pytest.param(A2C, "multi-binary-matrix", "box", _activation(nn.SiLU), marks=pytest.mark.slow),
    pytest.param(A2C, "bytes", "box", _activation(nn.LeakyReLU), marks=pytest.mark.slow),
    pytest.param(A2C, "image", "box", _activation(nn.Sigmoid), marks=pytest.mark.slow),
    pytest.param(SAC, "vector", "box", _OFF_POLICY | {"use_sde": True}, marks=pytest.mark.slow),
    pytest.param(TD3, "vector", "asymmetric", _OFF_POLICY, marks=pytest.mark.slow),
    pytest.param(DQN, "vector", "discrete", _OFF_POLICY, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("algorithm", "observation", "action", "options"), CASES)
def test_same_bits_as_onnx_runtime(
    agents: Any,
    compile_c: Any,
    algorithm: Any,
    observation: str,
    action: str,
    options: dict[str, Any],
) -> None:
    model = algorithm("MlpPolicy", agents.World(observation, action), device="cpu", **options)
    agents.enlarge(model.policy, 1.5)
    space = model.observation_space
    normalizer = agents.statistics(space) if observation in ("vector", "matrix", "bytes") else None
    observations = agents.sample(space, 500)
    header = build_c_header(model.policy, normalizer, name="agent", control=UNNAMED)
    expected = agents.run_onnx(
        build_policy_onnx(model.policy, normalizer, dtype="float64"), observations
    )
    actions = compile_c(header, "agent", "-O2")(observations)
    np.testing.assert_array_equal(actions.reshape(expected.shape), expected)
    assert len(np.unique(actions, axis=0)) > 1


@pytest.mark.parametrize("flags", [["-O0"], ["-O2"], ["-O3"], ["-O3", "-march=native"]])
def test_at_every_level(agents: Any, compile_c: Any, flags: list[str]) -> None:
    model = PPO("MlpPolicy", agents.World("vector", "box"), device="cpu")
    agents.enlarge(model.policy)
    normalizer = agents.statistics(model.observation_space)
    observations = agents.sample(model.observation_space, 2000)
    header = build_c_header(model.policy, normalizer, name="agent", control=UNNAMED)
    actions = compile_c(header, "agent", *flags)(observations)
    file = build_policy_onnx(model.policy, normalizer, dtype="float64")
    np.testing.assert_array_equal(actions, agents.run_onnx(file, observations))


def test_infinite_bounds(agents: Any, compile_c: Any) -> None:
    space = agents.OBSERVATIONS["vector"]
    for action in ("half-open", "unbounded"):
        policy = ActorCriticPolicy(space, agents.ACTIONS[action], lr_schedule=lambda _: 0.0)
        agents.enlarge(policy)
        observations = agents.sample(space, 200)
        header = build_c_header(policy, None, name="agent", control=UNNAMED)
        expected = agents.run_onnx(build_policy_onnx(policy, dtype="float64"), observations)
        np.testing.assert_array_equal(compile_c(header, "agent")(observations), expected)


def test_with_names_and_as_cpp(compile_c: Any, tmp_path: Path) -> None:
    """What a robot's programmer reads: places by name, rate, units; C++ takes the file, too."""
    env = gym.make("HalfCheetah-v5")
    policy = PPO("MlpPolicy", env, device="cpu").policy
    header = build_c_header(
        policy,
        None,
        name="npg-HalfCheetah-v5",
        control=describe_control(env),
        facts={"Task": "HalfCheetah-v5"},
    )
    env.close()
    compile_c(header, "npg_halfcheetah_v5")
    assert "    NPG_HALFCHEETAH_V5_OBS_ROOTZ_POSITION = 0," in header
    assert "    NPG_HALFCHEETAH_V5_ACTION_FFOOT = 5\n" in header
    assert "#define NPG_HALFCHEETAH_V5_CONTROL_DT 0.05 /*" in header
    assert " *     2 bthigh_angle [rad]\n" in header
    assert " *     0 bthigh [120 N·m]\n" in header
    assert " * Task: HalfCheetah-v5\n" in header
    cpp = shutil.which("g++")
    if cpp is not None:
        (tmp_path / "p.h").write_text(header)
        (tmp_path / "p.cpp").write_text('#include "p.h"\nint main() { return 0; }\n')
        command = [cpp, "-std=c++17", "-Wall", "-Wextra", "-Werror", "-c", "p.cpp"]
        subprocess.run(command, cwd=tmp_path, check=True)


def test_the_example_in_the_documentation(tmp_path: Path) -> None:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler (gcc, cc)")
    page = Path(__file__).parents[3] / "docs" / "onnx.md"
    program = page.read_text().split("```c\n")[1].split("```")[0]
    env = gym.make("Walker2d-v5")
    name = "npg-Walker2d-v4"
    policy = PPO("MlpPolicy", env, device="cpu").policy
    header = build_c_header(policy, None, name=name, control=describe_control(env))
    env.close()
    (tmp_path / f"{name}.h").write_text(header)
    (tmp_path / "main.c").write_text(program)
    command = [compiler, "-std=c99", "-Wall", "-Wextra", "-Werror", "main.c", "-o", "main", "-lm"]
    subprocess.run(command, cwd=tmp_path, check=True)
    out = subprocess.run([str(tmp_path / "main")], check=True, capture_output=True).stdout.decode()
    observation = np.zeros(17)
    observation[0] = 1.25
    torque = policy.predict(observation, deterministic=True)[0][0]
    found = float(out.split(": ")[1].split(" × ")[0])
    assert found == pytest.approx(float(torque), abs=1e-5)
    assert out.endswith("every 0.008 s\n")


def test_discrete_choices_have_names(compile_c: Any) -> None:
    env = gym.make("CartPole-v1")
    policy = A2C("MlpPolicy", env, device="cpu").policy
    header = build_c_header(policy, None, name="x", control=describe_control(env))
    compile_c(header, "x")
    assert "X_ACTION_PUSH_RIGHT = 1" in header
    assert " * Choices:\n *     0 push_left\n" in header
    env.close()


def test_same_agent_same_text(agents: Any) -> None:
    policy = A2C("MlpPolicy", agents.World("vector", "box"), device="cpu").policy
    texts = {build_c_header(policy, None, name="a", control=UNNAMED) for _ in range(2)}
    assert len(texts) == 1


def test_refusals(agents: Any) -> None:
    def build(observation: str, policy: str, **options: Any) -> None:
        world = agents.World(observation, "box")
        model = A2C(policy, world, policy_kwargs=options, device="cpu")
        build_c_header(model.policy, None, name="a", control=UNNAMED)

    with pytest.raises(ExportError, match=r"this policy has a Dict observation; use its ONNX"):
        build("dict", "MultiInputPolicy")
    with pytest.raises(ExportError, match=r"this policy has a NatureCNN; use its ONNX"):
        build("image", "CnnPolicy")
    with pytest.raises(ExportError, match=r"cannot hold the layer GELU; it knows Linear, ELU"):
        build("vector", "MlpPolicy", activation_fn=nn.GELU)


def test_nan_is_refused(agents: Any) -> None:
    policy = A2C("MlpPolicy", agents.World("vector", "box"), device="cpu").policy
    nn.init.constant_(policy.action_net.bias, math.nan)
    with pytest.raises(ExportError, match="holds NaN"):
        build_c_header(policy, None, name="a", control=UNNAMED)


def test_text_cannot_leave_the_comment(agents: Any, compile_c: Any) -> None:
    """An agent's description may come from a stranger."""
    hostile = 'x */ int main(void) { return *"\n#error out\n" ??/\n \\\n \u2028 */'
    policy = A2C("MlpPolicy", agents.World("discrete", "discrete"), device="cpu").policy
    control = ControlNames([hostile], [hostile], [hostile] * 5, [])
    header = build_c_header(policy, None, name=hostile, control=control, facts={hostile: hostile})
    prefix = identifier(hostile)
    assert compile_c(header, prefix)(np.zeros((1, 1))).shape == (1, 1)
    assert header.count("*/") == 1


@settings(max_examples=30)
@given(st.text())
def test_comments_end_once(text: str) -> None:
    written = comment([text, text])
    assert written.endswith(" */\n")
    assert written.count("*/") == 1
    assert len(written.splitlines()) == 4
    assert "\\" not in written
    assert "??" not in written


@settings(max_examples=30)
@given(st.text())
def test_identifiers(text: str) -> None:
    name = identifier(text)
    assert name.isascii()
    assert name.isidentifier()


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_constants_are_exact(value: float) -> None:
    assert float.fromhex(constant(value)) == value
    single = float(np.float32(value)) if abs(value) < 3e38 else 0.0
    assert float.fromhex(constant(single, "float").removesuffix("f")) == single


def test_identifiers_keep_signs() -> None:
    assert identifier("npg-Walker2d-v4") == "npg_walker2d_v4"
    assert identifier("torque_-1") == "torque_minus_1"
    assert identifier("torque_+1") == "torque_plus_1"
    assert identifier("2nd") == "policy_2nd"
