"""``python -m hub.run`` on agents that can be worked out by hand."""

import hashlib
import json
import subprocess
import sys

import gymnasium
import numpy as np
import pytest

from hub import run
from hub.gym_env import make_gym_env
from hub.seeding import evaluation_seeds

# Balances the inverted pendulum: torque from position, angle and their speeds.
GAINS = [[0.3], [3.0], [0.4], [0.6]]


@pytest.fixture
def agent(linear_onnx):
    return linear_onnx(GAINS, dtype="float64", env_id="InvertedPendulum-v4")


def by_hand(seed, gains=GAINS, **kwargs):
    env = make_gym_env("InvertedPendulum-v4", kwargs)
    obs, _ = env.reset(seed=seed)
    total, length, over = 0.0, 0, False
    while not over:
        action = np.clip(obs @ np.array(gains), -1, 1).astype(np.float32)
        obs, reward, terminated, truncated, _ = env.step(action)
        total, length, over = total + reward, length + 1, terminated or truncated
    env.close()
    return total, length


def test_json_holds_every_episode(agent, capsys):
    options = ["--episodes", "3", "--seed", "2", "--json"]
    assert run.main([str(agent), *options]) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    seeds = evaluation_seeds(2, 3)
    expected = [by_hand(seed) for seed in seeds]
    assert report == {
        "agent": str(agent),
        "env_id": "InvertedPendulum-v4",
        "seeds": seeds,
        "returns": [total for total, _ in expected],
        "lengths": [length for _, length in expected],
    }
    assert len(set(report["lengths"])) > 1 or report["lengths"][0] == 1000
    assert captured.err == ""


def test_the_last_line_is_the_result(agent, capsys):
    assert run.main([str(agent), "--episodes", "2"]) == 0
    returns, lengths = zip(*[by_hand(seed) for seed in evaluation_seeds(0, 2)], strict=True)
    assert capsys.readouterr().out == (
        f"InvertedPendulum-v4 with policy.onnx: return {np.mean(returns):.2f} ± "
        f"{np.std(returns):.2f} over 2 episodes, mean length {np.mean(lengths):.1f}\n"
    )


def test_arguments_of_the_environment_come_from_the_file(linear_onnx, capsys):
    agent = linear_onnx(GAINS, env_id="InvertedPendulum-v4", env_kwargs='{"max_episode_steps": 5}')
    assert run.main([str(agent), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lengths"] == [5]


def test_f64_takes_the_other_file_of_a_folder(linear_onnx, tmp_path, capsys):
    left = linear_onnx(np.zeros((4, 1)), env_id="InvertedPendulum-v4")
    linear_onnx(GAINS, dtype="float64", name="policy.f64.onnx", env_id="InvertedPendulum-v4")
    digests = {
        name: {"sha256": hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()}
        for name in ("policy.onnx", "policy.f64.onnx")
    }
    (tmp_path / "agent.json").write_text(json.dumps({"files": digests}))
    for options, gains, name in (
        ([], np.zeros((4, 1)), left.name),
        (["--f64"], GAINS, "policy.f64.onnx"),
    ):
        assert run.main([str(tmp_path), *options, "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["agent"] == str(tmp_path / name)
        assert report["lengths"] == [by_hand(2**31, gains)[1]]


def error_of(argv, capsys):
    assert run.main(argv) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_mistakes_are_one_line(linear_onnx, agent, capsys, monkeypatch):
    assert "Unknown agent 'nowhere'" in error_of(["nowhere"], capsys)
    assert "episodes=0" in error_of([str(agent), "--episodes", "0"], capsys)
    unnamed = linear_onnx(GAINS, name="unnamed.onnx", env_id=None)
    assert "does not say which environment" in error_of([str(unnamed)], capsys)
    other = linear_onnx(GAINS, name="other.onnx", env_id="InvertedPendulm-v4")
    assert "Did you mean 'InvertedPendulum-v4'?" in error_of([str(other)], capsys)
    misfit = linear_onnx(GAINS, name="misfit.onnx", env_id="CartPole-v1", env_kwargs='{"a": 1}')
    assert "CartPole-v1 refuses the environment arguments a=1" in error_of([str(misfit)], capsys)
    wide = linear_onnx(np.zeros((3, 1)), name="wide.onnx", env_id="InvertedPendulum-v4")
    assert "'obs' has shape (4,); this agent takes (3,)" in error_of([str(wide)], capsys)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if sys.platform == "linux":
        assert "no display" in error_of([str(agent), "--render"], capsys)


def test_a_file_does_not_decide_what_is_imported(linear_onnx, tmp_path, capsys, monkeypatch):
    marker = tmp_path / "imported"
    (tmp_path / "my_envs.py").write_text(
        "import gymnasium, pathlib\n"
        f"pathlib.Path({str(marker)!r}).touch()\n"
        "gymnasium.register('Mine-v0', 'gymnasium.envs.classic_control:PendulumEnv', "
        "max_episode_steps=4)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    agent = linear_onnx(np.zeros((3, 1)), env_id="my_envs:Mine-v0")
    message = error_of([str(agent)], capsys)
    assert "asks to import the module 'my_envs'" in message
    assert "type: --gym-packages my_envs" in message
    assert not marker.exists()
    try:
        assert run.main([str(agent), "--gym-packages", "my_envs", "--json"]) == 0
    finally:
        gymnasium.registry.pop("Mine-v0", None)
    assert json.loads(capsys.readouterr().out)["lengths"] == [4]
    assert marker.exists()
    assert "cannot be imported" in error_of([str(agent), "--gym-packages", "no_such"], capsys)


def test_a_window_ends_when_it_is_closed(agent, monkeypatch, capsys):
    """The episodes played to their end count."""
    from hub import rendering, window

    last = 1 + by_hand(2**31)[1] + 3

    class Closing:
        def __init__(self, env):
            self.n_frames = 0

        def __call__(self):
            self.n_frames += 1
            if self.n_frames > last:
                raise window.WindowClosed

    modes = []

    def make(env_id, env_kwargs, render_mode):
        modes.append(render_mode)
        return make_gym_env(env_id, env_kwargs)

    monkeypatch.setattr(rendering, "require_display", lambda agent: None)
    monkeypatch.setattr(rendering, "make_drawn_env", make)
    monkeypatch.setattr(window, "Window", Closing)
    assert run.main([str(agent), "--render", "--episodes", "5"]) == 0
    captured = capsys.readouterr()
    assert modes == ["human"]
    assert "over 1 episode, " in captured.out
    assert captured.err == "The window was closed.\n"


def test_neither_torch_nor_sb3_is_needed(agent):
    script = f"""
import sys
sys.modules["torch"] = sys.modules["stable_baselines3"] = None
from hub.run import main
assert main([{str(agent)!r}]) == 0
sys.modules["gymnasium"] = None
for name in [name for name in sys.modules if name.startswith("hub.gym_env")]:
    del sys.modules[name]
sys.exit(main([{str(agent)!r}]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stdout.startswith("InvertedPendulum-v4 with policy.onnx: return ")
    assert "Type: pip install 'gymnasium[mujoco]'" in done.stderr


def test_help(capsys):
    with pytest.raises(SystemExit):
        run.main(["--help"])
    assert "usage: python -m hub.run" in capsys.readouterr().out
