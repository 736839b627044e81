"""The distribution in an environment of its own that has neither torch nor SB3."""

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

from zoo import train

ROOT = Path(__file__).parents[2]
FOLDERS = ("agents", "hub", "hyperparams", "pretrained", "zoo")
FILES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE")

pytestmark = pytest.mark.slow


def call(*words, **options):
    # A PYTHONPATH would show pip and the new interpreter this checkout as if it were installed.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        timeout=300,
        env=env,
        **options,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """An interpreter with our wheel (without what it asks for), NumPy, ONNX Runtime, Gymnasium."""
    folder = tmp_path_factory.mktemp("deployed")
    source = folder / "source"
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source]
    code, _, error = call(*pip, *build)
    assert code == 0, error
    (wheel,) = folder.glob("natural_zoo-*.whl")
    venv.create(folder / "venv", with_pip=False)
    interpreter = folder / "venv" / "bin" / "python"
    install = [*pip, "--python", interpreter, "install", "--quiet"]
    constraints = ROOT / "constraints.txt"
    code, _, error = call(*install, "-c", constraints, "numpy", "onnxruntime", "gymnasium")
    if code != 0 and ("Could not find" in error or "Connection" in error):
        pytest.skip(f"no package index: {error[-200:]}")
    assert code == 0, error
    code, _, error = call(*install, "--no-deps", wheel)
    assert code == 0, error
    return interpreter


def test_acts_and_runs(python, linear_onnx, tmp_path):
    path = linear_onnx([[0.5], [-1.0], [0.25]], [0.0] * 3, [2.0] * 3, env_id="Pendulum-v1")
    code = f"""
import importlib.util, json
from hub.runtime import OnnxPolicy
found = [name for name in ("torch", "stable_baselines3", "onnx") if importlib.util.find_spec(name)]
print(json.dumps([found, OnnxPolicy({str(path)!r})([1.0, 0.5, 2.0]).tolist()]))
"""
    status, out, error = call(python, "-c", code, cwd=tmp_path)
    assert (status, error) == (0, "")
    assert json.loads(out) == [[], [0.25]]  # (0.5 − 0.5 + 0.5) / 2
    for command in ([python, "-m", "hub.run"], [python.parent / "natural-zoo", "run"]):
        status, out, error = call(*command, path, "--episodes", "2", "--json", cwd=tmp_path)
        assert (status, error) == (0, "")
        report = json.loads(out)
        assert report["lengths"] == [200, 200]
        assert all(np.isfinite(report["returns"]))


def test_carries_its_published_agents(python, tmp_path):
    """By name, away from the checkout: the same returns as were published."""
    name = "npg-CartPole-v1"
    published = json.loads((ROOT / "pretrained" / name / "evaluation.json").read_text())
    seeds = published["seeds"]
    command = [python.parent / "natural-zoo", "run", name, "--episodes", "3", "--json"]
    status, out, error = call(*command, "--seed", "0", cwd=tmp_path)
    assert (status, error) == (0, "")
    report = json.loads(out)
    assert report["seeds"] == seeds[:3]
    assert report["returns"] == published["returns"][:3]


def test_repeats_the_evaluation_of_a_run_to_the_last_bit(python, tmp_path):
    """Trained and evaluated here, played there: the same returns, digit for digit."""
    argv = ["--algo", "ppo", "--env", "Pendulum-v1", "-n", "512", "--seed", "1", "--untuned", "-P"]
    options = ["-f", str(tmp_path), "--hyperparams", "n_envs=2", "n_steps=64", "normalize=true"]
    assert train.main([*argv, *options]) == 0
    run = tmp_path / "ppo" / "Pendulum-v1_1"
    published = json.loads((run / "evaluation.json").read_text())
    command = [python, "-m", "hub.run", run, "--episodes", "20", "--json"]
    status, out, error = call(*command, "--f64", cwd=tmp_path)
    assert (status, error) == (0, "")
    report = json.loads(out)
    assert report["seeds"] == published["seeds"][:20]
    assert report["returns"] == published["returns"][:20]
    assert report["lengths"] == published["lengths"][:20]
    status, out, _ = call(*command, cwd=tmp_path)
    assert json.loads(out)["returns"] == pytest.approx(report["returns"], rel=0.01)


def test_what_does_need_torch_says_so(python, tmp_path):
    status, out, _ = call(python.parent / "natural-zoo", "--help", cwd=tmp_path)
    assert status == 0
    assert "  train " in out
    status, out, error = call(python.parent / "natural-zoo", "train", "--help", cwd=tmp_path)
    assert (status, out) == (1, "")
    assert error == (
        "error: natural-zoo train needs a package that is not installed: stable_baselines3. "
        "Type: pip install natural-zoo\n"
    )
