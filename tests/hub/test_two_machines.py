"""From training on one machine to acting, checking and training on with another, over HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ON_THE_OTHER_MACHINE = """
import json, sys
import gymnasium as gym
import numpy as np
import hub

name = sys.argv[1]
model = hub.load(name)
env = gym.make("InvertedPendulum-v4")
policy, exact = hub.OnnxPolicy(name), hub.OnnxPolicy(name, float64=True)
statistics = model.get_vec_normalize_env()
observation, _ = env.reset(seed=2**31)
difference, total = 0.0, 0.0
for _ in range(1000):
    action = exact(observation)
    predicted, _ = model.predict(statistics.normalize_obs(observation), deterministic=True)
    difference = max(difference, *map(float, np.abs(predicted - action)))
    difference = max(difference, *map(float, np.abs(policy(observation) - action)))
    observation, reward, terminated, truncated, _ = env.step(action)
    total += float(reward)
    if terminated or truncated:
        break
before = model.num_timesteps
trained = hub.load(name, training=True)
trained.learn(512, reset_num_timesteps=False)
steps = [before, trained.num_timesteps]
print(json.dumps({"difference": difference, "return": total, "steps": steps}))
"""


def run(environment: dict[str, str], cwd: Path, *arguments: str) -> str:
    """Run Python on a machine; returns its standard output."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_train_push_pull_act_verify_and_train_on(live_hub: Any, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for machine in (one, two):
        machine.mkdir()
    trainer = live_hub.environment(one)
    options = ["-n", "2048", "--seed", "1", "--eval-freq", "1024", "-P"]
    run(
        *(trainer, one, "-m", "zoo.train", "--algo", "npg", "--env", "InvertedPendulum-v4"),
        *options,
    )
    folder = "logs/npg/InvertedPendulum-v4_1"
    pinned = run(trainer, one, "-m", "hub.push", folder, "zoo-lab").strip().splitlines()[-1]
    assert pinned.startswith("zoo-lab/npg-InvertedPendulum-v4@")
    name = pinned.partition("@")[0]
    user = live_hub.environment(two, None)  # nobody is logged in
    assert list(two.iterdir()) == []
    found = json.loads(run(user, two, "-c", ON_THE_OTHER_MACHINE, name))
    evaluation = json.loads((one / folder / "evaluation.json").read_text())
    assert found["difference"] < 1e-5
    assert found["return"] == evaluation["returns"][0]
    assert found["steps"] == [2048, 2560]
    run(user, two, "-m", "zoo.verify", name)
    run(user, two, "-m", "hub.pull", pinned, "-o", "agent")
    summary = run(user, two, "-m", "zoo.evaluate", "agent", "--episodes", "5", "-P")
    assert "over 5 deterministic episodes" in summary
    # The same without the server: what the other machine has is enough.
    offline = user | {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    assert json.loads(run(offline, two, "-c", ON_THE_OTHER_MACHINE, name)) == found
    card = live_hub.api().model_info(name).card_data
    assert card.eval_results[0].metric_value == (
        f"{evaluation['mean_return']:.2f} +/- {evaluation['std_return']:.2f}"
    )
