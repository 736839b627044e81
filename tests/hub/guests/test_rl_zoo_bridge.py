"""The real rl_zoo3 and sb3-contrib: it plays our agents, we play its agents, returns equal."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import set_random_seed

import hub
from hub import convert, push
from hub.bundle import Bundle
from hub.publishing import Wishes
from hub.vec_normalize import normalizer_of, wrap

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
VERSIONS = ("rl_zoo3==2.9.2", "requests")
N_STEPS = 650


@pytest.fixture(scope="session")
def rl_zoo(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """``rl_zoo(module, *arguments, cwd=…, env=…)``: runs it in a virtual environment of its own.

    What both need (torch, SB3, MuJoCo) is this environment's; all else, as ``huggingface_sb3``, is
    RL Zoo's own. natural-zoo is not on its path.
    """
    folder = tmp_path_factory.mktemp("rl_zoo_venv")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [str(python), "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt")]
    subprocess.run([*install, *VERSIONS], check=True, timeout=300)

    def run(module: str, *arguments: str, cwd: Path, env: dict[str, str] | None = None) -> str:
        variables = dict(env or os.environ) | {"OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
        done = subprocess.run(
            [str(python), "-m", module, *arguments],
            cwd=cwd,
            env=variables,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    return run


def returns_of_enjoy(rl_zoo: Any, algo: str, env_id: str, cwd: Path, log: str) -> list[float]:
    """Return what RL Zoo's own player gets, from its monitor file."""
    rl_zoo(
        "rl_zoo3.enjoy",
        *("--algo", algo, "--env", env_id, "-f", "logs", "--no-render", "--seed", "5"),
        *("-n", str(N_STEPS), "--reward-log", log, "--device", "cpu", "--num-threads", "1"),
        cwd=cwd,
    )
    lines = (cwd / log / "0.monitor.csv").read_text().splitlines()[1:]
    return [float(row["r"]) for row in csv.DictReader(lines)]


def returns_of_ours(model: Any, env_id: str, normalizer: Any) -> list[float]:
    """Play as RL Zoo does: one environment, seeded once, a number of steps."""
    set_random_seed(5)
    env = make_vec_env(env_id, n_envs=1, seed=5)
    if normalizer is not None:
        env = wrap(normalizer, env, training=False)
    observation, returns = env.reset(), []
    for _ in range(N_STEPS):
        action, _ = model.predict(observation, deterministic=True)
        observation, _, _, infos = env.step(action)
        if "episode" in infos[0]:
            returns.append(infos[0]["episode"]["r"])
    env.close()
    return [round(episode_return, 6) for episode_return in returns]


@pytest.mark.parametrize(
    ("algo", "env_id", "steps"),
    [("ppo", "Walker2d-v4", 1024), ("trpo", "Pendulum-v1", 2048), ("a2c", "CartPole-v1", 500)],
)
def test_we_play_what_rl_zoo_trained(
    rl_zoo: Any, tmp_path: Path, algo: str, env_id: str, steps: int
) -> None:
    rl_zoo(
        "rl_zoo3.train",
        *("--algo", algo, "--env", env_id, "-n", str(steps), "-f", "logs", "--seed", "1"),
        *("--eval-freq", "-1", "--device", "cpu", "--num-threads", "1"),
        cwd=tmp_path,
    )
    theirs = returns_of_enjoy(rl_zoo, algo, env_id, tmp_path, "rewards")
    run = tmp_path / "logs" / algo / f"{env_id}_1"
    model = hub.load(run)
    assert type(model).__name__ == algo.upper()
    wrapper = model.get_vec_normalize_env()
    normalizer = None if wrapper is None else normalizer_of(wrapper)
    assert (normalizer is None) == (env_id != "Walker2d-v4")
    assert len(theirs) > 1
    assert returns_of_ours(model, env_id, normalizer) == theirs
    bundle = convert.convert(run, tmp_path / "bundle")  # the same agent without its pickles
    converted = bundle.load_model(device="cpu")
    assert returns_of_ours(converted, env_id, bundle.normalizer) == theirs
    assert {"policy.onnx", "policy.f64.onnx"} <= set(bundle.files)


def test_rl_zoo_plays_ours(rl_zoo: Any, maker: Any, at_hub: Any, tmp_path: Path) -> None:
    """Downloaded by its own command from the server, as anyone would."""
    bundle: Bundle = maker.bundle(tmp_path / "agent")
    pinned = push.push(bundle.path, "zoo-lab/bridge", wishes=Wishes(rl_zoo=True))
    home = tmp_path / "another-machine"
    home.mkdir()
    environment = at_hub.environment(home, None) | {"TRUST_REMOTE_CODE": "True"}
    rl_zoo(
        "rl_zoo3.load_from_hub",
        *("--algo", "trpo", "--env", "Pendulum-v1", "-orga", "zoo-lab", "-name", "bridge"),
        *("-f", "logs"),
        cwd=home,
        env=environment,
    )
    theirs = returns_of_enjoy(rl_zoo, "trpo", "Pendulum-v1", home, "rewards")
    assert len(theirs) == N_STEPS // 200
    model = hub.load(pinned)
    assert returns_of_ours(model, "Pendulum-v1", bundle.normalizer) == theirs
